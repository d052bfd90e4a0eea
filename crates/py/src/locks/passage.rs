//! The coroutine behind `Barrier.wait`, `reset` and `abort`, and the two ends of `async with`.
//!
//! It holds the lock of the barrier's condition whenever it looks at the barrier, and waits under that
//! condition.

use aioxide_core::sync::{self, Entry, Outcome};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyInt;

use super::barrier::{Barrier, This};
use super::condition::{self, Condition};
use super::delegate::Delegate;
use super::notified;
use super::wait::{self, Op};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, create};
use crate::ffi::iter::{Coroutine, Life, Step, reused};
use crate::frame::{Frame, class};
use crate::names::asyncio;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// Wakes everybody who waits under the condition.
fn notify_all(condition: condition::This<'_, '_>) -> PyResult<()> {
    let py = condition.py();
    condition.notify(py, condition.waiting(py))
}

fn broken(py: Python<'_>, text: &str) -> PyErr {
    let raise = || asyncio(py).exceptions.bind(py).getattr("BrokenBarrierError")?.call1((text,));
    raise().map_or_else(|error| error, PyErr::from_value)
}

/// What is awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
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
pub(super) struct Passage {
    verb: Verb,
    phase: Flag<Phase>,
    /// The place in the order of arrival.
    index: Flag<usize>,
    owner: Slot,
    inner: Delegate,
}

class!(Passage, c"aioxide._core.BarrierWait", spare 0, [owner, inner]);

/// The coroutine for `verb` on `owner`.
pub(super) fn make<'py>(owner: This<'_, 'py>, verb: Verb) -> Object<'py> {
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

impl Frame for Passage {
    fn at(&self) -> Life {
        match self.phase.get() {
            Phase::Created => Life::Created,
            Phase::Acquiring | Phase::Blocked | Phase::Inside => Life::Suspended,
            Phase::Over => Life::Closed,
        }
    }

    fn end(&self) {
        self.phase.set(Phase::Over);
    }

    fn step<'py>(this: Inst<'_, 'py, Self>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        let py = this.py();
        let phase = this.phase.replace(Phase::Over); // unless it waits again
        let Some(object) = this.owner.take(py).filter(|_| phase != Phase::Over) else { return Err(reused()) };
        let owner = Inst::<Barrier>::cast(&object).ok_or_else(reused)?;
        let step = if phase == Phase::Created {
            this.begin(owner)
        } else {
            let condition = owner.condition(py)?;
            let condition = Inst::<Condition>::cast(&condition).ok_or_else(reused)?;
            this.go_on(owner, condition, phase, error)
        };
        if this.phase.get() != Phase::Over {
            this.owner.set(py, object);
        }
        step
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

    fn awaited<'py>(this: Inst<'_, 'py, Self>) -> Option<Bound<'py, PyAny>> {
        this.inner.awaited(this.py())
    }

    fn waits_for<'py>(this: Inst<'_, 'py, Self>) -> Option<(&'static str, Option<Bound<'py, PyAny>>)> {
        Some(("barrier", this.owner.get(this.py())))
    }

    fn life(this: Inst<'_, '_, Self>) -> Life {
        this.at()
    }
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Passage>().coroutine::<Passage>().build(module, None, Passage::cell())?;
    Ok(())
}
