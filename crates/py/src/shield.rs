//! `asyncio.shield`: a future that follows another one but whose cancellation does not reach it.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;

use crate::anyfuture::{self, Outcome};
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::Slot;
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::layout::Fut;
use crate::ffi::spares::Spares;
use crate::ffi::{function, thread};
use crate::tasks::create;
use crate::{futures, hooks};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// Stands between the two futures and watches both.
pub(crate) struct Shield {
    inner: Slot,
    outer: Slot,
    /// The task that called `shield`, which the inner future is awaited by.
    task: Slot,
}

impl Class for Shield {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.Shield";
    const SPARE: usize = 64;

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn spares() -> Option<&'static Spares> {
        static SPARES: Spares = Spares::new();
        Some(&SPARES)
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.inner.traverse(visit)?;
        self.outer.traverse(visit)?;
        self.task.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop((self.inner.take(py), self.outer.take(py), self.task.take(py)));
    }
}

impl Shield {
    /// What is shielded.
    pub(crate) fn inner<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.inner.get(py)
    }
}

/// `shield(arg)`.
fn shield<'py>(args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "shield",
        positional: &["arg"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [argument] = SIGNATURE.bind::<1>(args)?;
    let Some(argument) = argument else { return Err(PyTypeError::new_err("shield() needs an argument")) };
    let py = args.py();
    let inner = create::ensure_future(&argument, None)?;
    if anyfuture::is_done(&inner)? {
        return Ok(inner);
    }
    let event_loop = anyfuture::loop_of(&inner)?;
    let outer = anyfuture::create(&event_loop)?;
    let task = thread::current_task(&event_loop)?;
    anyfuture::add_awaited_by(&inner, task.as_ref())?;
    let shield = Shield {
        inner: Slot::holding(inner.clone().unbind()),
        outer: Slot::holding(outer.clone().unbind()),
        task: Slot::new(task.map(Bound::unbind)),
    };
    let shield = create(py, shield)?;
    hooks::watch(&inner, &shield)?;
    hooks::watch(&outer, &shield)?;
    Ok(outer)
}

/// One of the two futures is done.
pub(crate) fn on_done<'py>(this: Inst<'_, 'py, Shield>, future: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    let task = this.task.take(py);
    let (Some(inner), Some(outer)) = (this.inner.take(py), this.outer.take(py)) else {
        return Ok(()); // the other one was first
    };
    anyfuture::discard_awaited_by(&inner, task.as_ref())?;
    if future.is(&inner) {
        return follow(&inner, &outer);
    }
    if anyfuture::is_done(&inner)? { Ok(()) } else { hooks::unwatch(&inner, &this.object()) }
}

/// The inner future is done: the outer one ends alike, if somebody may still wait for it.
fn follow<'py>(inner: &Bound<'py, PyAny>, outer: &Bound<'py, PyAny>) -> PyResult<()> {
    if anyfuture::is_cancelled(outer)? {
        return Ok(());
    }
    let Some(known) = Fut::cast_exact(outer) else {
        return follow_by_methods(inner, outer);
    };
    match anyfuture::outcome(inner)? {
        Outcome::Pending => Ok(()),
        Outcome::Cancelled => futures::cancel(known, None).map(drop),
        Outcome::Failed(error) => futures::set_exception(known, &error),
        Outcome::Returned(value) => futures::set_result(known, value),
    }
}

/// As `follow`, for a future that isn't ours.
fn follow_by_methods<'py>(inner: &Bound<'py, PyAny>, outer: &Bound<'py, PyAny>) -> PyResult<()> {
    match anyfuture::outcome(inner)? {
        Outcome::Pending => Ok(()),
        Outcome::Cancelled => outer.call_method0(intern!(outer.py(), "cancel")).map(drop),
        Outcome::Failed(error) => {
            outer.call_method1(intern!(outer.py(), "set_exception"), (error,)).map(drop)
        }
        Outcome::Returned(value) => outer.call_method1(intern!(outer.py(), "set_result"), (value,)).map(drop),
    }
}

/// Makes the type and the function.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Shield>().build(module, None, Shield::cell())?;
    module.add("shield", function::function(module.py(), "asyncio.tasks", "shield", shield)?)
}
