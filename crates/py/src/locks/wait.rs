//! The coroutine behind `Lock.acquire`, `Semaphore.acquire`, `Event.wait` and the two ends of `async with`.
//!
//! It does nothing until it is awaited, as any coroutine; then it is done at once or parks on one future. The
//! lock it serves keeps the line; here is only what `await` needs to know.

use aioxide_core::WaiterKey;
use pyo3::intern;
use pyo3::prelude::*;

use super::delegate::Delegate;
use super::event::{self, Event};
use super::lock::{self, Lock};
use super::semaphore::{self, Semaphore};
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, create};
use crate::ffi::iter::{Coroutine, Life, Step, reused};
use crate::frame::{Frame, class};
use crate::names::boolean;
use crate::parked::{Parked, outcome_of};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type This<'a, 'py> = Inst<'a, 'py, Wait>;

/// What is awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    LockAcquire,
    LockEnter,
    LockExit,
    EventWait,
    SemaphoreAcquire,
    SemaphoreEnter,
    SemaphoreExit,
    /// `await self.acquire()`, whatever that is.
    EnterBy,
    /// `self.release()`, whatever that is.
    ExitBy,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Created,
    /// In the line of the owner.
    Waiting,
    /// Awaits what the owner's own `acquire` gave.
    Delegating,
    Over,
}

/// One wait.
pub(super) struct Wait {
    op: Flag<Op>,
    phase: Flag<Phase>,
    key: Flag<Option<WaiterKey>>,
    owner: Slot,
    parked: Parked,
    inner: Delegate,
}

class!(Wait, c"aioxide._core.LockWait", spare 512, [owner, parked, inner]);

/// The coroutine for `op` on `owner`.
#[inline]
pub(super) fn make<'py>(owner: &Bound<'py, PyAny>, op: Op) -> Object<'py> {
    let wait = Wait {
        op: Flag::new(op),
        phase: Flag::new(Phase::Created),
        key: Flag::new(None),
        owner: Slot::holding(owner.clone().unbind()),
        parked: Parked::new(),
        inner: Delegate::new(),
    };
    create(owner.py(), wait)
}

/// As [`make`], for the two ends of `async with`, which awaits what it gets at once: nearly always the
/// coroutine of the time before, which nobody else has and which is over, does again.
#[inline]
pub(super) fn make_end<'py>(owner: &Bound<'py, PyAny>, op: Op) -> Object<'py> {
    static LAST: Slot = Slot::empty();
    let py = owner.py();
    if let Some(last) = LAST.get(py)
        && let Some(wait) = Inst::<Wait>::cast_exact(&last)
        && wait.references() == 2
        && wait.phase.get() == Phase::Over
    {
        wait.op.set(op);
        wait.phase.set(Phase::Created);
        wait.owner.set(py, owner.clone());
        return Ok(last);
    }
    let fresh = make(owner, op)?;
    LAST.set(py, fresh.clone());
    Ok(fresh)
}

/// Checks the arguments of `__aexit__(exc_type, exc, tb)`, which nobody looks at.
pub(super) fn check_exit(args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "__aexit__",
        positional: &["exc_type", "exc", "tb"],
        required: 3,
        positional_only: 0,
        keyword_only: &[],
    };
    if args.len() == 3 && !args.has_names() {
        return Ok(()); // as `async with` calls it
    }
    SIGNATURE.bind::<3>(args).map(drop)
}

/// The lock, event or semaphore.
enum Owner<'a, 'py> {
    Lock(lock::This<'a, 'py>),
    Event(event::This<'a, 'py>),
    Semaphore(semaphore::This<'a, 'py>),
}

impl<'a, 'py> Owner<'a, 'py> {
    #[inline]
    fn of(object: &'a Bound<'py, PyAny>, op: Op) -> PyResult<Self> {
        let found = match op {
            Op::LockAcquire | Op::LockEnter | Op::LockExit => Inst::<Lock>::cast(object).map(Self::Lock),
            Op::EventWait => Inst::<Event>::cast(object).map(Self::Event),
            Op::SemaphoreAcquire | Op::SemaphoreEnter | Op::SemaphoreExit => {
                Inst::<Semaphore>::cast(object).map(Self::Semaphore)
            }
            Op::EnterBy | Op::ExitBy => None,
        };
        found.ok_or_else(reused)
    }

    #[inline]
    fn try_now(&self, py: Python<'_>) -> bool {
        match self {
            Self::Lock(lock) => lock.try_acquire(py),
            Self::Event(event) => event.is_set(py),
            Self::Semaphore(semaphore) => semaphore.try_acquire(py),
        }
    }

    #[inline]
    fn join(&self) -> PyResult<(WaiterKey, Bound<'py, PyAny>)> {
        match self {
            Self::Lock(lock) => Lock::join(*lock),
            Self::Event(event) => Event::join(*event),
            Self::Semaphore(semaphore) => Semaphore::join(*semaphore),
        }
    }

    #[inline]
    fn admit(&self, py: Python<'_>, key: WaiterKey) -> PyResult<()> {
        match self {
            Self::Lock(lock) => lock.admit(py, key),
            Self::Event(event) => event.leave(py, key),
            Self::Semaphore(semaphore) => return semaphore.admit(py, key),
        }
        Ok(())
    }

    fn give_up(&self, py: Python<'_>, key: WaiterKey) -> PyResult<()> {
        match self {
            Self::Lock(lock) => lock.give_up(py, key),
            Self::Event(event) => {
                event.leave(py, key);
                Ok(())
            }
            Self::Semaphore(semaphore) => semaphore.give_up(py, key),
        }
    }
}

impl Wait {
    fn result<'py>(&self, py: Python<'py>) -> Step<'py> {
        Step::Return(match self.op.get() {
            Op::LockAcquire | Op::SemaphoreAcquire | Op::EventWait => boolean(py, true),
            Op::LockEnter
            | Op::SemaphoreEnter
            | Op::EnterBy
            | Op::LockExit
            | Op::SemaphoreExit
            | Op::ExitBy => py.None().into_bound(py),
        })
    }

    /// The first step.
    #[inline]
    fn start<'py>(&self, py: Python<'py>) -> PyResult<Step<'py>> {
        self.phase.set(Phase::Over); // unless it gets to wait
        let Some(object) = self.owner.take(py) else { return Err(reused()) };
        let op = self.op.get();
        match op {
            Op::LockExit | Op::SemaphoreExit => match Owner::of(&object, op)? {
                Owner::Lock(lock) => lock.release(py)?,
                Owner::Semaphore(semaphore) => semaphore.release(py)?,
                Owner::Event(_) => {}
            },
            Op::ExitBy => drop(object.call_method0(intern!(py, "release"))?),
            Op::EnterBy => {
                self.inner.begin(&object.call_method0(intern!(py, "acquire"))?)?;
                return self.delegate(py, None);
            }
            Op::LockAcquire | Op::LockEnter | Op::EventWait | Op::SemaphoreAcquire | Op::SemaphoreEnter => {
                let owner = Owner::of(&object, op)?;
                if !owner.try_now(py) {
                    let (key, future) = owner.join()?;
                    self.key.set(Some(key));
                    self.phase.set(Phase::Waiting);
                    self.owner.set(py, object);
                    return self.parked.wait(future);
                }
            }
        }
        Ok(self.result(py))
    }

    /// The wait is over, with the lock or with an error.
    #[inline]
    fn finish<'py>(&self, py: Python<'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        self.phase.set(Phase::Over);
        let future = self.parked.leave(py);
        let outcome = error.map_or_else(|| outcome_of(future.as_ref()), Err);
        let (Some(object), Some(key)) = (self.owner.take(py), self.key.get()) else { return Err(reused()) };
        let owner = Owner::of(&object, self.op.get())?;
        match outcome {
            Ok(()) => {
                owner.admit(py, key)?;
                Ok(self.result(py))
            }
            Err(error) => {
                owner.give_up(py, key)?;
                Err(error)
            }
        }
    }

    /// One step of the owner's own `acquire`.
    fn delegate<'py>(&self, py: Python<'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        self.phase.set(Phase::Over); // unless it goes on waiting
        match self.inner.run(py, error)? {
            Step::Yield(value) => {
                self.phase.set(Phase::Delegating);
                Ok(Step::Yield(value))
            }
            Step::Return(_) => Ok(self.result(py)),
        }
    }
}

impl Frame for Wait {
    fn at(&self) -> Life {
        match self.phase.get() {
            Phase::Created => Life::Created,
            Phase::Waiting | Phase::Delegating => Life::Suspended,
            Phase::Over => Life::Closed,
        }
    }

    fn end(&self) {
        self.phase.set(Phase::Over);
    }

    #[inline]
    fn step<'py>(this: This<'_, 'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        match this.phase.get() {
            Phase::Created => this.start(this.py()),
            Phase::Waiting => this.finish(this.py(), error),
            Phase::Delegating => this.delegate(this.py(), error),
            Phase::Over => Err(reused()),
        }
    }
}

impl Coroutine for Wait {
    fn qualname(this: This<'_, '_>) -> &'static str {
        match this.op.get() {
            Op::LockAcquire => "Lock.acquire",
            Op::LockEnter => "Lock.__aenter__",
            Op::LockExit => "Lock.__aexit__",
            Op::EventWait => "Event.wait",
            Op::SemaphoreAcquire => "Semaphore.acquire",
            Op::SemaphoreEnter => "Semaphore.__aenter__",
            Op::SemaphoreExit => "Semaphore.__aexit__",
            Op::EnterBy => "Condition.__aenter__",
            Op::ExitBy => "Condition.__aexit__",
        }
    }

    fn awaited<'py>(this: This<'_, 'py>) -> Option<Bound<'py, PyAny>> {
        this.parked.future(this.py()).or_else(|| this.inner.awaited(this.py()))
    }

    fn life(this: This<'_, '_>) -> Life {
        this.at()
    }

    fn waits_for<'py>(this: This<'_, 'py>) -> Option<(&'static str, Option<Bound<'py, PyAny>>)> {
        let kind = match (this.phase.get(), this.op.get()) {
            (Phase::Waiting, Op::LockAcquire | Op::LockEnter) => "lock",
            (Phase::Waiting, Op::EventWait) => "event",
            (Phase::Waiting, Op::SemaphoreAcquire | Op::SemaphoreEnter) => "semaphore",
            _ => return None,
        };
        Some((kind, this.owner.get(this.py())))
    }

    fn within(this: This<'_, '_>) -> &'static [&'static str] {
        match (this.phase.get(), this.op.get()) {
            (Phase::Waiting, Op::LockEnter) => &["Lock.acquire"],
            (Phase::Waiting, Op::SemaphoreEnter) => &["Semaphore.acquire"],
            _ => &[],
        }
    }
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Wait>().coroutine::<Wait>().build(module, None, Wait::cell())?;
    Ok(())
}
