//! `asyncio.Event`.

use aioxide_core::sync;
use pyo3::Borrowed;
use pyo3::prelude::*;

use super::primitive::{self, Kind, Primitive};
use super::wait::{self, Op};
use crate::ffi::args::{Args, Signature};
use crate::ffi::class::{Class, Inst, TypeCell, create};
use crate::ffi::method::{Of, constructor, getter, initializer, noargs, unary};
use crate::names::{Names, boolean};
use crate::waiters::{self, standing};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// A flag that tasks wait for.
pub(crate) struct Signal;

/// The Python object.
pub(crate) type Event = Primitive<Signal>;
pub(super) type This<'a, 'py> = Inst<'a, 'py, Event>;

impl Kind for Signal {
    const NAME: &'static std::ffi::CStr = c"aioxide.Event";
    type Rules = sync::Event<Py<PyAny>>;

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn original(names: &Names) -> &Py<PyAny> {
        &names.event
    }
}

impl Event {
    /// An event that is set or not, for other primitives.
    pub(crate) fn make(py: Python<'_>, is_set: bool) -> Object<'_> {
        create(py, Self::with(sync::Event::new(is_set), Signal))
    }

    pub(super) fn is_set(&self, py: Python<'_>) -> bool {
        self.state.with(py, |s| s.is_set())
    }

    /// Raises the flag and wakes all who wait.
    pub(crate) fn set(&self, py: Python<'_>) -> PyResult<()> {
        if !self.state.with(py, sync::Event::set) {
            return Ok(());
        }
        while let Some(parked) = self.named(py, |s| s.next(standing(py))) {
            waiters::wake(&parked, boolean(py, true))?;
        }
        Ok(())
    }

    /// Lowers the flag.
    pub(crate) fn unset(&self, py: Python<'_>) {
        self.state.with(py, sync::Event::clear);
    }
}

fn new(_: Args<'_, '_>) -> PyResult<Event> {
    Ok(Event::with(sync::Event::new(false), Signal))
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
    this.start(this.py(), sync::Event::new(false));
    Ok(())
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let state = if this.is_set(this.py()) { "set" } else { "unset" };
    waiters::repr_with(&this.object(), state, Primitive::count(this)?)
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
    if let Some(result) = Primitive::by_hand(this, c"set", None)? {
        return Ok(result);
    }
    this.set(this.py())?;
    Ok(this.py().None().into_bound(this.py()))
}

fn clear<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.unset(this.py());
    Ok(this.py().None().into_bound(this.py()))
}

fn wait<'py>(this: This<'_, 'py>) -> Object<'py> {
    if let Some(result) = Primitive::by_hand(this, c"wait", None)? {
        return Ok(result);
    }
    wait::make(&this.object(), Op::EventWait)
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = primitive::builder::<Signal>()
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
        .build(module, None, Event::cell())?;
    module.add("Event", class)
}
