//! `asyncio.Event`.

use aioxide_core::WaiterKey;
use aioxide_core::sync;
use pyo3::Borrowed;
use pyo3::prelude::*;

use super::wait::{self, Op};
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::{GilCell, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{Of, constructor, getter, initializer, noargs, unary};
use crate::waiters::{self, Home, boolean, standing};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
pub(super) type This<'a, 'py> = Inst<'a, 'py, Event>;

/// A flag that tasks wait for.
pub(crate) struct Event {
    state: GilCell<sync::Event<Py<PyAny>>>,
    home: Home,
    dict: Slot,
}

impl Class for Event {
    const NAME: &'static std::ffi::CStr = c"aioxide.Event";
    const SUBCLASSABLE: bool = true;
    const DICT: Option<usize> = Some(std::mem::offset_of!(Self, dict));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.state.visit(|s| waiters::traverse(s.waiters(), visit)).unwrap_or(Ok(()))?;
        self.home.traverse(visit)?;
        self.dict.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        waiters::drop_all(py, self.state.with(py, sync::Event::take_all));
        self.home.forget(py);
        drop(self.dict.take(py));
    }
}

impl Event {
    const fn with(is_set: bool) -> Self {
        Self { state: GilCell::new(sync::Event::new(is_set)), home: Home::new(), dict: Slot::empty() }
    }

    /// An event that is set or not, for other primitives.
    pub(crate) fn make(py: Python<'_>, is_set: bool) -> Object<'_> {
        create(py, Self::with(is_set))
    }

    pub(super) fn is_set(&self, py: Python<'_>) -> bool {
        self.state.with(py, |s| s.is_set())
    }

    /// Raises the flag and wakes all who wait.
    pub(crate) fn set(&self, py: Python<'_>) -> PyResult<()> {
        if !self.state.with(py, sync::Event::set) {
            return Ok(());
        }
        while let Some(parked) = self.state.with(py, |s| {
            let next = s.next(standing(py))?;
            s.waiters().get(next).map(|parked| parked.clone_ref(py))
        }) {
            waiters::wake(&parked.into_bound(py), boolean(py, true))?;
        }
        Ok(())
    }

    /// Lowers the flag.
    pub(crate) fn unset(&self, py: Python<'_>) {
        self.state.with(py, sync::Event::clear);
    }

    /// Waits; the future to wait for.
    #[inline]
    pub(crate) fn join<'py>(this: This<'_, 'py>) -> PyResult<(WaiterKey, Bound<'py, PyAny>)> {
        let future = this.home.future(&this.object())?;
        let parked = future.clone().unbind();
        let key = this.state.with(this.py(), |s| s.wait(parked));
        Ok((key, future))
    }

    /// The waiter goes, however its wait ended.
    #[inline]
    pub(crate) fn leave(&self, py: Python<'_>, key: WaiterKey) {
        drop(self.state.with(py, |s| s.leave(key)).map(|parked| parked.into_bound(py)));
    }
}

fn new(_: Args<'_, '_>) -> PyResult<Event> {
    Ok(Event::with(false))
}

fn init(this: This<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "Event.__init__",
        positional: &[],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let [] = SIGNATURE.bind::<0>(args)?;
    let py = this.py();
    let before = this.state.with(py, |s| std::mem::replace(s, sync::Event::new(false))).take_all();
    waiters::drop_all(py, before);
    Ok(())
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let (set, waiting) = this.state.with(this.py(), |s| (s.is_set(), s.waiters().len()));
    waiters::repr_with(&this.object(), if set { "set" } else { "unset" }, waiting)
}

fn is_set<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.is_set(this.py())))
}

/// `_value = x`: the flag alone, as assigning to asyncio's attribute does; nobody is woken.
fn set_value<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let up = value.is_truthy()?;
    this.state.with(this.py(), |s| {
        s.clear();
        let _ = up && s.set();
    });
    Ok(())
}

fn set<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.set(this.py())?;
    Ok(this.py().None().into_bound(this.py()))
}

fn clear<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.unset(this.py());
    Ok(this.py().None().into_bound(this.py()))
}

fn wait<'py>(this: This<'_, 'py>) -> Object<'py> {
    wait::make(&this.object(), Op::EventWait)
}

fn get_waiters<'py>(this: This<'_, 'py>) -> Object<'py> {
    waiters::view(&this.object(), |owner, f| {
        if let Some(this) = Inst::<Event>::cast(owner) {
            this.state.with(owner.py(), |s| f(s.waiters_mut()));
        }
    })
}

fn get_loop<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.home.get(this.py()))
}

fn set_loop<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.home.set(&value);
    Ok(())
}

fn running<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.home.running(&this.object())
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = Builder::of::<Event>()
        .short_name()
        .doc(c"Event()\n--\n\nA flag, not set at first, that tasks can wait for.")
        .slot(pyo3::ffi::Py_tp_new, constructor::<Event, _>(new))
        .slot(pyo3::ffi::Py_tp_init, initializer::<Of<Event>, _>(init))
        .slot(pyo3::ffi::Py_tp_repr, unary::<Of<Event>, _>(repr))
        .method(
            noargs::<Of<Event>, _>(c"is_set", is_set)
                .doc(c"is_set($self, /)\n--\n\nReturn True if the flag is set."),
        )
        .method(
            noargs::<Of<Event>, _>(c"set", set)
                .doc(c"set($self, /)\n--\n\nSet the flag and wake all tasks that wait for it."),
        )
        .method(noargs::<Of<Event>, _>(c"clear", clear).doc(
            c"clear($self, /)\n--\n\nReset the flag: whoever waits from now on waits for the next set().",
        ))
        .method(
            noargs::<Of<Event>, _>(c"wait", wait)
                .doc(c"wait($self, /)\n--\n\nWait until the flag is set, and return True."),
        )
        .attribute(getter::<Of<Event>, _>(c"_value", is_set).setter::<Of<Event>, _>(set_value))
        .method(noargs::<Of<Event>, _>(c"_get_loop", running))
        .attribute(getter::<Of<Event>, _>(c"_waiters", get_waiters))
        .attribute(getter::<Of<Event>, _>(c"_loop", get_loop).setter::<Of<Event>, _>(set_loop))
        .build(module, None, Event::cell())?;
    module.add("Event", class)
}
