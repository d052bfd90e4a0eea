//! `asyncio.Barrier`. passage.rs is the coroutine behind its `wait`, `reset` and `abort`.
//!
//! The count and the state are `aioxide_core::sync::Barrier`'s; all of it happens under the lock of a
//! condition of the barrier's own, whose waiters are those inside and those who wait to get in.

use aioxide_core::sync::{self, BarrierState};
use pyo3::Borrowed;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString};

use super::condition::Condition;
use super::passage::{self, Verb, make};
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::{GilCell, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{Of, anyargs, constructor, getter, initializer, noargs, unary};
use crate::names::{asyncio, boolean};
use crate::waiters;

type Object<'py> = PyResult<Bound<'py, PyAny>>;
pub(super) type This<'a, 'py> = Inst<'a, 'py, Barrier>;

/// A number of parties that go on together.
pub(crate) struct Barrier {
    state: GilCell<sync::Barrier>,
    condition: Slot,
    dict: Slot,
}

impl Class for Barrier {
    const NAME: &'static std::ffi::CStr = c"aioxide.Barrier";
    const SUBCLASSABLE: bool = true;
    const DICT: Option<usize> = Some(std::mem::offset_of!(Self, dict));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.condition.traverse(visit)?;
        self.dict.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop((self.condition.take(py), self.dict.take(py)));
    }
}

impl Barrier {
    pub(super) fn with<R>(&self, py: Python<'_>, f: impl FnOnce(&mut sync::Barrier) -> R) -> R {
        self.state.with(py, f)
    }

    /// The condition of its own.
    pub(super) fn condition<'py>(&self, py: Python<'py>) -> Object<'py> {
        self.condition
            .get(py)
            .ok_or_else(|| PyRuntimeError::new_err("Barrier.__init__() has not been called"))
    }
}

fn new(_: Args<'_, '_>) -> PyResult<Barrier> {
    Ok(Barrier { state: GilCell::new(sync::Barrier::new(1)), condition: Slot::empty(), dict: Slot::empty() })
}

fn init(this: This<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "Barrier.__init__",
        positional: &["parties"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [parties] = SIGNATURE.bind::<1>(args)?;
    let py = this.py();
    let parties: i64 = match parties {
        Some(parties) => parties.extract()?,
        None => 0,
    };
    let parties = usize::try_from(parties).ok().filter(|parties| *parties > 0);
    let parties = parties.ok_or_else(|| PyValueError::new_err("parties must be >= 1"))?;
    this.condition.set(py, Condition::make(py)?);
    this.with(py, |s| *s = sync::Barrier::new(parties));
    Ok(())
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let (state, waiting, parties) = this.with(this.py(), |s| (s.state(), s.n_waiting(), s.parties()));
    let extra = match state {
        BarrierState::Broken => state.name().to_owned(),
        _ => format!("{}, waiters:{waiting}/{parties}", state.name()),
    };
    waiters::repr_with(&this.object(), &extra, 0)
}

fn wait<'py>(this: This<'_, 'py>) -> Object<'py> {
    make(this, Verb::Wait)
}

fn reset<'py>(this: This<'_, 'py>) -> Object<'py> {
    make(this, Verb::Reset)
}

fn abort<'py>(this: This<'_, 'py>) -> Object<'py> {
    make(this, Verb::Abort)
}

fn enter<'py>(this: This<'_, 'py>) -> Object<'py> {
    make(this, Verb::Enter)
}

fn exit<'py>(this: This<'_, 'py>, _: Args<'_, 'py>) -> Object<'py> {
    make(this, Verb::Exit)
}

fn number(py: Python<'_>, value: usize) -> Object<'_> {
    Ok(PyInt::new(py, value).into_any())
}

fn parties<'py>(this: This<'_, 'py>) -> Object<'py> {
    number(this.py(), this.with(this.py(), |s| s.parties()))
}

fn n_waiting<'py>(this: This<'_, 'py>) -> Object<'py> {
    number(this.py(), this.with(this.py(), |s| s.n_waiting()))
}

fn count<'py>(this: This<'_, 'py>) -> Object<'py> {
    number(this.py(), this.with(this.py(), |s| s.inside()))
}

fn is_broken<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.with(this.py(), |s| s.state()) == BarrierState::Broken))
}

fn get_state<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let name = PyString::new(py, this.with(py, |s| s.state()).name());
    asyncio(py).locks.bind(py).getattr("_BarrierState")?.call1((name,))
}

fn get_condition<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.condition(this.py())
}

fn get_loop<'py>(this: This<'_, 'py>) -> Object<'py> {
    get_condition(this)?.getattr(intern!(this.py(), "_loop"))
}

fn set_loop<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    get_condition(this)?.setattr(intern!(this.py(), "_loop"), value)
}

/// Makes the type, and its coroutine's.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    passage::register(module)?;
    let class = Builder::of::<Barrier>()
        .short_name()
        .doc(c"Barrier(parties)\n--\n\nA place where so many tasks wait for each other, and go on together.")
        .slot(pyo3::ffi::Py_tp_new, constructor::<Barrier, _>(new))
        .slot(pyo3::ffi::Py_tp_init, initializer::<Of<Barrier>, _>(init))
        .slot(pyo3::ffi::Py_tp_repr, unary::<Of<Barrier>, _>(repr))
        .method(noargs::<Of<Barrier>, _>(c"wait", wait).doc(
            c"wait($self, /)\n--\n\nWait for the other parties; return this one's number, from 0 to \
              parties - 1.\n\n\
              BrokenBarrierError if the barrier is, or gets, aborted or reset.",
        ))
        .method(noargs::<Of<Barrier>, _>(c"reset", reset).doc(
            c"reset($self, /)\n--\n\nMake the barrier as new; whoever waits gets \
                  BrokenBarrierError.",
        ))
        .method(noargs::<Of<Barrier>, _>(c"abort", abort).doc(
            c"abort($self, /)\n--\n\nBreak the barrier: whoever waits, or comes, gets \
                  BrokenBarrierError.",
        ))
        .method(noargs::<Of<Barrier>, _>(c"__aenter__", enter).doc(c"__aenter__($self, /)\n--\n\n"))
        .method(anyargs::<Of<Barrier>, _>(c"__aexit__", exit).doc(c"__aexit__($self, *args)\n--\n\n"))
        .attribute(getter::<Of<Barrier>, _>(c"parties", parties))
        .attribute(getter::<Of<Barrier>, _>(c"n_waiting", n_waiting))
        .attribute(getter::<Of<Barrier>, _>(c"broken", is_broken))
        .attribute(getter::<Of<Barrier>, _>(c"_parties", parties))
        .attribute(getter::<Of<Barrier>, _>(c"_count", count))
        .attribute(getter::<Of<Barrier>, _>(c"_state", get_state))
        .attribute(getter::<Of<Barrier>, _>(c"_cond", get_condition))
        .attribute(getter::<Of<Barrier>, _>(c"_loop", get_loop).setter::<Of<Barrier>, _>(set_loop))
        .build(module, None, Barrier::cell())?;
    module.add("Barrier", class)
}
