//! `asyncio.Barrier`, and the coroutine behind its `wait`, `reset` and `abort`.
//!
//! The count and the state are `aioxide_core::sync::Barrier`'s; all of it happens under the lock of a condition of the
//! barrier's own, whose waiters are those inside and those who wait to get in.

use aioxide_core::sync::{self, BarrierState, Entry, Outcome};
use pyo3::Borrowed;
use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString};

use super::condition::{self, Condition};
use super::delegate::Delegate;
use super::notified;
use super::wait::{self, Op};
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::iter::{Awaitable, Coroutine, Step, reused, warn_never_awaited};
use crate::ffi::method::{Of, anyargs, constructor, getter, initializer, noargs, unary};
use crate::futures;
use crate::waiters::{self, boolean};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type This<'a, 'py> = Inst<'a, 'py, Barrier>;

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
    fn with<R>(&self, py: Python<'_>, f: impl FnOnce(&mut sync::Barrier) -> R) -> R {
        self.state.with(py, f)
    }

    fn condition<'py>(&self, py: Python<'py>) -> Object<'py> {
        self.condition
            .get(py)
            .ok_or_else(|| PyRuntimeError::new_err("Barrier.__init__() has not been called"))
    }
}

/// Wakes everybody who waits under the condition.
fn notify_all(condition: condition::This<'_, '_>) -> PyResult<()> {
    let py = condition.py();
    condition.notify(py, condition.waiting(py))
}

fn broken(py: Python<'_>, text: &str) -> PyErr {
    let raise = || py.import("asyncio.exceptions")?.getattr("BrokenBarrierError")?.call1((text,));
    raise().map_or_else(|error| error, PyErr::from_value)
}

// --- the coroutine -------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    Wait,
    Enter,
    Exit,
    Reset,
    Abort,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Created,
    /// Takes the condition's lock.
    Acquiring,
    /// Waits until the party before has left.
    Blocked,
    /// Is one of the parties.
    Inside,
    Over,
}

/// One `wait`, `reset`, `abort`, or end of `async with`.
struct Passage {
    verb: Verb,
    phase: Flag<Phase>,
    /// The place in the order of arrival.
    index: Flag<usize>,
    owner: Slot,
    inner: Delegate,
}

impl Class for Passage {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.BarrierWait";

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.owner.traverse(visit)?;
        self.inner.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.phase.set(Phase::Over);
        self.inner.forget(py);
        drop(self.owner.take(py));
    }

    fn wants_finalize(&self) -> bool {
        self.phase.get() != Phase::Over
    }

    fn finalize(this: Inst<'_, '_, Self>) {
        match this.phase.get() {
            Phase::Over => {}
            Phase::Created => warn_never_awaited(&this.object()),
            _ => futures::without_current_error(this.py(), || Self::close(this)),
        }
    }
}

fn make<'py>(owner: This<'_, 'py>, verb: Verb) -> Object<'py> {
    let passage = Passage {
        verb,
        phase: Flag::new(Phase::Created),
        index: Flag::new(0),
        owner: Slot::holding(owner.to_owned().unbind()),
        inner: Delegate::new(),
    };
    create(owner.py(), passage)
}

impl Passage {
    /// One step, with an exception if there is one.
    fn step<'py>(&self, py: Python<'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        let phase = self.phase.get();
        self.phase.set(Phase::Over); // unless it waits again
        if phase == Phase::Over {
            return Err(reused());
        }
        let Some(object) = self.owner.get(py) else { return Err(reused()) };
        let owner = Inst::<Barrier>::cast(&object).ok_or_else(reused)?;
        match (phase, error) {
            (Phase::Created, Some(error)) => Err(error),
            (Phase::Created, None) => self.begin(owner),
            (_, error) => {
                let condition = owner.condition(py)?;
                let condition = Inst::<Condition>::cast(&condition).ok_or_else(reused)?;
                self.go_on(owner, condition, phase, error)
            }
        }
    }

    fn begin<'py>(&self, owner: This<'_, 'py>) -> PyResult<Step<'py>> {
        let py = owner.py();
        match self.verb {
            Verb::Exit => return Ok(Step::Return(py.None().into_bound(py))),
            Verb::Enter => self.inner.begin(&owner.object().call_method0(intern!(py, "wait"))?)?,
            Verb::Wait | Verb::Reset | Verb::Abort => {
                let object = owner.condition(py)?;
                let condition = Inst::<Condition>::cast(&object).ok_or_else(reused)?;
                self.inner.begin(&wait::make(&condition.lock(py)?, Op::LockAcquire)?)?;
                return self.go_on(owner, condition, Phase::Acquiring, None);
            }
        }
        self.delegate(py, None)
    }

    /// `async with`: one step of `self.wait()`.
    fn delegate<'py>(&self, py: Python<'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        let step = self.inner.run(py, error)?;
        if matches!(step, Step::Yield(_)) {
            self.phase.set(Phase::Inside);
        }
        Ok(step)
    }

    /// One step of what it waits for in `phase`, and on from there when that is over.
    fn go_on<'py>(
        &self,
        owner: This<'_, 'py>,
        condition: condition::This<'_, 'py>,
        phase: Phase,
        error: Option<PyErr>,
    ) -> PyResult<Step<'py>> {
        let py = owner.py();
        if self.verb == Verb::Enter {
            return self.delegate(py, error);
        }
        match self.inner.run(py, error) {
            Ok(Step::Yield(value)) => {
                self.phase.set(phase);
                Ok(Step::Yield(value))
            }
            Ok(Step::Return(_)) => match (self.verb, phase) {
                (Verb::Reset, _) => change(owner, condition, sync::Barrier::reset),
                (Verb::Abort, _) => change(owner, condition, sync::Barrier::abort),
                (_, Phase::Inside) => self.inside(owner, condition),
                _ => self.enter(owner, condition),
            },
            Err(error) => match phase {
                Phase::Inside => leave(owner, condition, Err(error)),
                Phase::Blocked => {
                    Condition::release(condition)?;
                    Err(error)
                }
                _ => Err(error),
            },
        }
    }

    /// Holds the lock: gets in, or waits for the party before to leave.
    fn enter<'py>(&self, owner: This<'_, 'py>, condition: condition::This<'_, 'py>) -> PyResult<Step<'py>> {
        let py = owner.py();
        match owner.with(py, sync::Barrier::enter) {
            Entry::Wait => {
                self.inner.begin(&notified::make(condition, None)?)?;
                self.go_on(owner, condition, Phase::Blocked, None)
            }
            Entry::Broken => {
                Condition::release(condition)?;
                Err(broken(py, "Barrier aborted"))
            }
            Entry::In { index, last } => {
                self.index.set(index);
                if last {
                    notify_all(condition)?;
                }
                self.inside(owner, condition)
            }
        }
    }

    /// Is inside: leaves if it is time, else waits.
    fn inside<'py>(&self, owner: This<'_, 'py>, condition: condition::This<'_, 'py>) -> PyResult<Step<'py>> {
        let py = owner.py();
        match owner.with(py, |s| s.outcome()) {
            Outcome::Wait => {
                self.inner.begin(&notified::make(condition, None)?)?;
                self.go_on(owner, condition, Phase::Inside, None)
            }
            Outcome::Pass => {
                let index = PyInt::new(py, self.index.get()).into_any();
                leave(owner, condition, Ok(Step::Return(index)))
            }
            Outcome::Broken => leave(owner, condition, Err(broken(py, "Abort or reset of barrier"))),
        }
    }
}

/// Leaves: the last one out makes way for those who wait to get in.
fn leave<'py>(
    owner: This<'_, 'py>,
    condition: condition::This<'_, 'py>,
    result: PyResult<Step<'py>>,
) -> PyResult<Step<'py>> {
    if owner.with(owner.py(), sync::Barrier::exit) {
        notify_all(condition)?;
    }
    Condition::release(condition)?;
    result
}

/// `reset` and `abort`, with the lock held.
fn change<'py>(
    owner: This<'_, 'py>,
    condition: condition::This<'_, 'py>,
    change: fn(&mut sync::Barrier),
) -> PyResult<Step<'py>> {
    let py = owner.py();
    owner.with(py, change);
    notify_all(condition)?;
    Condition::release(condition)?;
    Ok(Step::Return(py.None().into_bound(py)))
}

impl Awaitable for Passage {
    fn resume<'py>(this: Inst<'_, 'py, Self>) -> PyResult<Step<'py>> {
        this.step(this.py(), None)
    }

    fn throw<'py>(this: Inst<'_, 'py, Self>, error: PyErr) -> PyResult<Step<'py>> {
        this.step(this.py(), Some(error))
    }

    fn close(this: Inst<'_, '_, Self>) -> PyResult<()> {
        let py = this.py();
        if matches!(this.phase.get(), Phase::Over | Phase::Created) {
            this.phase.set(Phase::Over);
            return Ok(());
        }
        match this.step(py, Some(PyGeneratorExit::new_err(()))) {
            Ok(Step::Yield(_)) => Err(PyRuntimeError::new_err("coroutine ignored GeneratorExit")),
            Err(error) if !error.is_instance_of::<PyGeneratorExit>(py) => Err(error),
            _ => Ok(()),
        }
    }
}

impl Coroutine for Passage {
    fn qualname(this: Inst<'_, '_, Self>) -> &'static str {
        match this.verb {
            Verb::Wait => "Barrier.wait",
            Verb::Enter => "Barrier.__aenter__",
            Verb::Exit => "Barrier.__aexit__",
            Verb::Reset => "Barrier.reset",
            Verb::Abort => "Barrier.abort",
        }
    }
}

// --- the barrier's methods -----------------------------------------------------------------------

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
    py.import("asyncio.locks")?.getattr("_BarrierState")?.call1((name,))
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

/// Makes the types.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Passage>().coroutine::<Passage>().build(module, None, Passage::cell())?;
    let class = Builder::of::<Barrier>()
        .short_name()
        .doc(c"Barrier(parties)\n--\n\nA place where so many tasks wait for each other, and go on together.")
        .slot(pyo3::ffi::Py_tp_new, constructor::<Barrier, _>(new))
        .slot(pyo3::ffi::Py_tp_init, initializer::<Of<Barrier>, _>(init))
        .slot(pyo3::ffi::Py_tp_repr, unary::<Of<Barrier>, _>(repr))
        .method(noargs::<Of<Barrier>, _>(c"wait", wait).doc(
            c"wait($self, /)\n--\n\nWait for the other parties; return this one's number, from 0 to parties - 1.\n\n\
              BrokenBarrierError if the barrier is, or gets, aborted or reset.",
        ))
        .method(
            noargs::<Of<Barrier>, _>(c"reset", reset)
                .doc(c"reset($self, /)\n--\n\nMake the barrier as new; whoever waits gets BrokenBarrierError."),
        )
        .method(
            noargs::<Of<Barrier>, _>(c"abort", abort)
                .doc(c"abort($self, /)\n--\n\nBreak the barrier: whoever waits, or comes, gets BrokenBarrierError."),
        )
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
