//! `await` in native coroutines: what is awaited is resumed in place, as the `await` of an `async def` does it.
//!
//! [`Awaited`] is used by coroutines that do more (wait_for); [`AwaitOn`] is a whole coroutine that does nothing else.

use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;

use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::iter::{self, Awaitable, Coroutine, Life, Step, reused, warn_never_awaited};
use crate::ffi::layout::Fut;
use crate::ffi::types;
use crate::futures;

/// What a coroutine awaits just now: a future of ours, or the iterator of anything else.
#[derive(Debug)]
pub(crate) struct Awaited(Slot);

impl Awaited {
    pub(crate) const fn nothing() -> Self {
        Self(Slot::empty())
    }

    /// The first step of `await object`.
    #[inline]
    pub(crate) fn begin<'py>(&self, object: Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = object.py();
        if let Some(future) = Fut::cast_exact(&object) {
            if !future.is_pending() {
                return futures::result(future).map(Step::Return);
            }
            future.set_blocking(true);
            self.0.set(py, object.clone());
            return Ok(Step::Yield(object));
        }
        let iterator = iterator(object)?;
        self.0.set(py, iterator.clone());
        self.settle(py, iter::send_none(&iterator))
    }

    /// Goes on.
    #[inline]
    pub(crate) fn resume<'py>(&self, py: Python<'py>) -> PyResult<Step<'py>> {
        let Some(awaited) = self.0.get(py) else { return Err(reused()) };
        let step = match Fut::cast_exact(&awaited) {
            Some(future) if future.is_pending() => {
                Err(PyRuntimeError::new_err("await wasn't used with future"))
            }
            Some(future) => futures::result(future).map(Step::Return),
            None => iter::send_none(&awaited),
        };
        self.settle(py, step)
    }

    /// Goes on with an exception.
    pub(crate) fn throw<'py>(&self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let step = match self.0.get(py) {
            Some(awaited) if Fut::cast_exact(&awaited).is_none() => iter::throw_into(&awaited, error),
            _ => Err(error),
        };
        self.settle(py, step)
    }

    /// Closes what is awaited.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(awaited) = self.0.take(py)
            && Fut::cast_exact(&awaited).is_none()
            && let Some(close) = awaited.getattr_opt(intern!(py, "close"))?
        {
            close.call0()?;
        }
        Ok(())
    }

    /// What ended is let go of.
    #[inline]
    fn settle<'py>(&self, py: Python<'py>, step: PyResult<Step<'py>>) -> PyResult<Step<'py>> {
        if !matches!(step, Ok(Step::Yield(_))) {
            drop(self.0.take(py));
        }
        step
    }

    /// What is awaited, or its iterator.
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.0.get(py)
    }
}

impl Holds for Awaited {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.0.traverse(visit)
    }

    #[inline]
    fn clear(&self, py: Python<'_>) {
        drop(self.0.take(py));
    }
}

/// What `await object` iterates.
fn iterator(object: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let py = object.py();
    if types::is_native_coroutine(&object) {
        return Ok(object);
    }
    match object.call_method0(intern!(py, "__await__")) {
        Ok(iterator) => Ok(iterator),
        // A generator made a coroutine by types.coroutine has no such method.
        Err(_) if types::is_generator(&object) && crate::tasks::is_coroutine(&object)? => Ok(object),
        Err(error)
            if error.is_instance_of::<PyAttributeError>(py)
                && !object.hasattr(intern!(py, "__await__"))? =>
        {
            let class = object.get_type().name()?;
            Err(PyTypeError::new_err(if crate::version::SHORT_AWAIT_ERROR {
                format!("'{class}' object can't be awaited")
            } else {
                format!("object {class} can't be used in 'await' expression")
            }))
        }
        Err(error) => Err(error),
    }
}

/// What a coroutine that another one is running says to whoever resumes it too.
#[cold]
pub(crate) fn already_executing() -> PyErr {
    PyValueError::new_err("coroutine already executing")
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Created,
    Suspended,
    Running,
    Over,
}

/// Gives what is to be awaited, when the coroutine starts.
type Begin = for<'py> fn(Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>;

/// A coroutine with one `await`, whose result is its own.
pub(crate) struct AwaitOn {
    phase: Flag<Phase>,
    qualname: &'static str,
    begin: Begin,
    argument: Slot,
    awaited: Awaited,
}

impl Class for AwaitOn {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.AwaitOn";
    const HAS_ORIGIN: bool = true;

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.argument.traverse(visit)?;
        self.awaited.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.phase.set(Phase::Over);
        drop(self.argument.take(py));
        self.awaited.clear(py);
    }

    fn wants_finalize(&self) -> bool {
        self.phase.get() == Phase::Created
    }

    fn finalize(this: Inst<'_, '_, Self>) {
        if this.wants_finalize() {
            warn_never_awaited(&this.object());
        }
    }
}

impl AwaitOn {
    fn settle<'py>(&self, step: PyResult<Step<'py>>) -> PyResult<Step<'py>> {
        self.phase.set(if matches!(step, Ok(Step::Yield(_))) { Phase::Suspended } else { Phase::Over });
        step
    }
}

impl Awaitable for AwaitOn {
    fn resume<'py>(this: Inst<'_, 'py, Self>) -> PyResult<Step<'py>> {
        let py = this.py();
        match this.phase.replace(Phase::Running) {
            Phase::Created => {
                let argument = this.argument.take(py).unwrap_or_else(|| py.None().into_bound(py));
                this.settle((this.begin)(argument).and_then(|object| this.awaited.begin(object)))
            }
            Phase::Suspended => this.settle(this.awaited.resume(py)),
            Phase::Running => Err(already_executing()),
            Phase::Over => {
                this.phase.set(Phase::Over);
                Err(reused())
            }
        }
    }

    fn throw<'py>(this: Inst<'_, 'py, Self>, error: PyErr) -> PyResult<Step<'py>> {
        match this.phase.replace(Phase::Running) {
            Phase::Suspended => this.settle(this.awaited.throw(this.py(), error)),
            Phase::Running => Err(already_executing()),
            Phase::Created => {
                this.clear(this.py());
                Err(error)
            }
            Phase::Over => {
                this.phase.set(Phase::Over);
                Err(reused())
            }
        }
    }

    fn close(this: Inst<'_, '_, Self>) -> PyResult<()> {
        if this.phase.get() == Phase::Running {
            return Err(already_executing());
        }
        let closed = this.awaited.close(this.py());
        this.clear(this.py());
        closed
    }
}

impl Coroutine for AwaitOn {
    fn qualname(this: Inst<'_, '_, Self>) -> &'static str {
        this.qualname
    }

    fn awaited<'py>(this: Inst<'_, 'py, Self>) -> Option<Bound<'py, PyAny>> {
        this.awaited.get(this.py())
    }

    fn life(this: Inst<'_, '_, Self>) -> Life {
        match this.phase.get() {
            Phase::Created => Life::Created,
            Phase::Running => Life::Running,
            Phase::Suspended => Life::Suspended,
            Phase::Over => Life::Closed,
        }
    }
}

/// A coroutine that awaits `begin(argument)`.
pub(crate) fn coroutine<'py>(
    qualname: &'static str,
    argument: Bound<'py, PyAny>,
    begin: Begin,
) -> PyResult<Bound<'py, PyAny>> {
    let py = argument.py();
    create(
        py,
        AwaitOn {
            phase: Flag::new(Phase::Created),
            qualname,
            begin,
            argument: Slot::holding(argument.unbind()),
            awaited: Awaited::nothing(),
        },
    )
}

/// Makes the type.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<AwaitOn>().coroutine::<AwaitOn>().build(module, None, AwaitOn::cell())?;
    Ok(())
}
