//! The coroutine behind `Condition.wait` and `wait_for`: it lets go of the lock, waits for a notification,
//! and takes the lock again, whatever happens meanwhile.
//!
//! A cancellation that comes while the lock is being taken again is kept until it is; and a wait that ends
//! with any exception notifies another waiter, since it may have swallowed a notification.

use aioxide_core::WaiterKey;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::condition::{self, Condition};
use super::delegate::Delegate;
use super::lock::Lock;
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, create};
use crate::ffi::iter::{Awaitable, Coroutine, Life, Step, reused};
use crate::frame::{Frame, class};
use crate::names::boolean;
use crate::names::names;
use crate::parked::{Parked, outcome_of};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type This<'a, 'py> = Inst<'a, 'py, Notified>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Created,
    /// In the condition's line.
    Waiting,
    /// In the line of the lock, which is ours.
    Locking,
    /// Awaits `acquire()` of a lock that isn't ours.
    LockingBy,
    /// Awaits `wait()` of a subclass, for `wait_for`.
    WaitingBy,
    Over,
}

/// One `wait` or `wait_for`.
pub(super) struct Notified {
    phase: Flag<Phase>,
    /// The place in the line of the condition or, later, of the lock.
    key: Flag<Option<WaiterKey>>,
    owner: Slot,
    /// Of `wait_for`.
    predicate: Slot,
    parked: Parked,
    inner: Delegate,
    /// What will be raised once the lock is taken.
    error: Slot,
}

class!(Notified, c"aioxide._core.ConditionWait", spare 512, [owner, predicate, parked, inner, error]);

/// The coroutine for `condition.wait()` or `condition.wait_for(predicate)`.
#[inline]
pub(super) fn make<'py>(
    owner: condition::This<'_, 'py>,
    predicate: Option<Bound<'py, PyAny>>,
) -> Object<'py> {
    let wait = Notified {
        phase: Flag::new(Phase::Created),
        key: Flag::new(None),
        owner: Slot::holding(owner.to_owned().unbind()),
        predicate: Slot::new(predicate.map(Bound::unbind)),
        parked: Parked::new(),
        inner: Delegate::new(),
        error: Slot::empty(),
    };
    create(owner.py(), wait)
}

impl Notified {
    /// The condition: there until the coroutine is over.
    #[inline]
    fn owner<'py>(&self, py: Python<'py>) -> Object<'py> {
        self.owner.get(py).ok_or_else(reused)
    }

    /// `wait_for`: looks at the predicate, and waits again if it is false.
    fn look<'py>(&self, py: Python<'py>, predicate: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let result = predicate.call0()?;
        if result.is_truthy()? {
            return Ok(Step::Return(result));
        }
        let object = self.owner(py)?;
        let owner = cast(&object)?;
        if Condition::is_plain(owner) {
            return self.wait(owner);
        }
        self.inner.begin(&object.call_method0(intern!(py, "wait"))?)?;
        self.wait_by(py, None)
    }

    /// One step of a subclass's own `wait`.
    fn wait_by<'py>(&self, py: Python<'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        match self.inner.run(py, error)? {
            Step::Yield(value) => {
                self.phase.set(Phase::WaitingBy);
                Ok(Step::Yield(value))
            }
            Step::Return(_) => match self.predicate.get(py) {
                Some(predicate) => self.look(py, &predicate),
                None => Err(reused()),
            },
        }
    }

    /// Lets go of the lock and gets in line.
    #[inline]
    fn wait<'py>(&self, owner: condition::This<'_, 'py>) -> PyResult<Step<'py>> {
        let py = owner.py();
        let not_locked = || PyRuntimeError::new_err("cannot wait on un-acquired lock");
        let lock = owner.lock(py)?;
        let future = if let Some(lock) = Condition::plain_lock(owner, &lock) {
            if !lock.is_locked(py) {
                return Err(not_locked());
            }
            let future = Condition::future(owner)?;
            lock.release(py)?;
            future
        } else {
            if !Condition::is_locked(owner)? {
                return Err(not_locked());
            }
            let future = Condition::future(owner)?;
            Condition::release(owner)?;
            future
        };
        self.key.set(Some(owner.park(&future)));
        self.phase.set(Phase::Waiting);
        self.parked.wait(future)
    }

    /// The wait for the notification is over: the lock is next.
    #[inline]
    fn notified<'py>(&self, py: Python<'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        let object = self.owner(py)?;
        let owner = cast(&object)?;
        if let Some(key) = self.key.get() {
            owner.leave(py, key);
        }
        let future = self.parked.leave(py);
        if let Err(error) = error.map_or_else(|| outcome_of(future.as_ref()), Err) {
            self.keep(py, error);
        }
        self.relock(owner)
    }

    /// Takes the lock, or waits for it.
    fn relock<'py>(&self, owner: condition::This<'_, 'py>) -> PyResult<Step<'py>> {
        let py = owner.py();
        let lock = owner.lock(py)?;
        let Some(lock) = Condition::plain_lock(owner, &lock) else {
            return match self.begin_acquire(owner) {
                Ok(()) => self.lock_by(owner, None),
                Err(error) => fail(owner, error),
            };
        };
        if lock.try_acquire(py) {
            return self.relocked(owner);
        }
        match Lock::join(lock) {
            Ok((key, future)) => {
                self.key.set(Some(key));
                self.phase.set(Phase::Locking);
                self.parked.wait(future)
            }
            Err(error) => fail(owner, error),
        }
    }

    /// The wait for our lock is over.
    #[inline]
    fn locked<'py>(&self, py: Python<'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        let object = self.owner(py)?;
        let owner = cast(&object)?;
        let future = self.parked.leave(py);
        match error.map_or_else(|| outcome_of(future.as_ref()), Err) {
            Ok(()) => {
                let lock = owner.lock(py)?;
                if let (Some(lock), Some(key)) = (Inst::<Lock>::cast(&lock), self.key.get()) {
                    lock.admit(py, key);
                }
                self.relocked(owner)
            }
            Err(error) => {
                if let Err(error) = self.leave_the_locks_line(py) {
                    return fail(owner, error);
                }
                self.cancelled_or_fail(owner, error)
            }
        }
    }

    /// One step of the `acquire` of a lock that isn't ours.
    fn lock_by<'py>(&self, owner: condition::This<'_, 'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        match self.inner.run(owner.py(), error) {
            Ok(Step::Yield(value)) => {
                self.phase.set(Phase::LockingBy);
                Ok(Step::Yield(value))
            }
            Ok(Step::Return(_)) => self.relocked(owner),
            Err(error) => self.cancelled_or_fail(owner, error),
        }
    }

    fn begin_acquire(&self, owner: condition::This<'_, '_>) -> PyResult<()> {
        self.inner.begin(&owner.object().call_method0(intern!(owner.py(), "acquire"))?)
    }

    /// The lock was not got: a cancellation is kept and the lock tried again; anything else ends the wait.
    fn cancelled_or_fail<'py>(&self, owner: condition::This<'_, 'py>, error: PyErr) -> PyResult<Step<'py>> {
        let py = owner.py();
        if error.is_instance(py, names(py).cancelled_error.bind(py)) {
            self.keep(py, error);
            return self.relock(owner);
        }
        fail(owner, error)
    }

    /// The lock is taken: the end of this wait.
    fn relocked<'py>(&self, owner: condition::This<'_, 'py>) -> PyResult<Step<'py>> {
        let py = owner.py();
        if let Some(error) = self.error.take(py) {
            return fail(owner, PyErr::from_value(error));
        }
        match self.predicate.get(py) {
            Some(predicate) => self.look(py, &predicate),
            None => Ok(Step::Return(boolean(py, true))),
        }
    }

    /// Keeps an exception until the lock is taken; the latest wins, with the one before as its context.
    fn keep(&self, py: Python<'_>, error: PyErr) {
        let error = error.into_value(py).into_bound(py);
        if let Some(before) = self.error.take(py)
            && !before.is(&error)
            && error.getattr(intern!(py, "__context__")).is_ok_and(|context| context.is_none())
        {
            // Setting it can't fail: `before` is an exception.
            let _ = error.setattr(intern!(py, "__context__"), before);
        }
        self.error.set(py, error.into_any());
    }

    fn leave_the_locks_line(&self, py: Python<'_>) -> PyResult<()> {
        drop(self.parked.leave(py));
        let object = self.owner(py)?;
        let lock = cast(&object)?.lock(py)?;
        match (Inst::<Lock>::cast(&lock), self.key.get()) {
            (Some(lock), Some(key)) => lock.give_up(py, key),
            _ => Ok(()),
        }
    }
}

/// Raises `error` after passing on the notification that this waiter may have got.
fn fail<'py>(owner: condition::This<'_, 'py>, error: PyErr) -> PyResult<Step<'py>> {
    owner.notify(owner.py(), 1)?;
    Err(error)
}

fn cast<'a, 'py>(object: &'a Bound<'py, PyAny>) -> PyResult<condition::This<'a, 'py>> {
    Inst::<Condition>::cast(object).ok_or_else(reused)
}

impl Frame for Notified {
    fn at(&self) -> Life {
        match self.phase.get() {
            Phase::Created => Life::Created,
            Phase::Waiting | Phase::Locking | Phase::LockingBy | Phase::WaitingBy => Life::Suspended,
            Phase::Over => Life::Closed,
        }
    }

    fn end(&self) {
        self.phase.set(Phase::Over);
    }

    #[inline]
    fn step<'py>(this: This<'_, 'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        let py = this.py();
        let phase = this.phase.replace(Phase::Over); // unless it waits again
        let step = match phase {
            Phase::Over => return Err(reused()),
            Phase::Created => match this.predicate.get(py) {
                Some(predicate) => this.look(py, &predicate),
                None => this.wait(cast(&this.owner(py)?)?),
            },
            Phase::Waiting => this.notified(py, error),
            Phase::Locking => this.locked(py, error),
            Phase::LockingBy => this.lock_by(cast(&this.owner(py)?)?, error),
            Phase::WaitingBy => this.wait_by(py, error),
        };
        if this.phase.get() == Phase::Over {
            drop(this.owner.take(py));
            if this.predicate.is_some() {
                drop(this.predicate.take(py));
            }
        }
        step
    }

    fn abandon(this: This<'_, '_>) -> PyResult<()> {
        let closed = Self::close(this);
        if this.phase.get() == Phase::Locking {
            // It can't wait for the lock any more: its place must not block the others.
            this.leave_the_locks_line(this.py())?;
        }
        closed
    }
}

impl Coroutine for Notified {
    fn qualname(this: This<'_, '_>) -> &'static str {
        if this.predicate.is_some() { "Condition.wait_for" } else { "Condition.wait" }
    }

    fn awaited<'py>(this: This<'_, 'py>) -> Option<Bound<'py, PyAny>> {
        this.parked.future(this.py()).or_else(|| this.inner.awaited(this.py()))
    }

    fn life(this: This<'_, '_>) -> Life {
        this.at()
    }

    fn waits_for<'py>(this: This<'_, 'py>) -> Option<(&'static str, Option<Bound<'py, PyAny>>)> {
        let owner = this.owner.get(this.py());
        match this.phase.get() {
            Phase::Waiting => Some(("condition", owner)),
            Phase::Locking => {
                let lock = owner.and_then(|owner| owner.getattr(intern!(this.py(), "_lock")).ok());
                Some(("lock", lock))
            }
            _ => None,
        }
    }

    fn within(this: This<'_, '_>) -> &'static [&'static str] {
        match (this.phase.get(), this.predicate.is_some()) {
            (Phase::Waiting, true) => &["Condition.wait"],
            (Phase::Locking, true) => &["Condition.wait", "Lock.acquire"],
            (Phase::Locking, false) => &["Lock.acquire"],
            _ => &[],
        }
    }
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Notified>().coroutine::<Notified>().build(module, None, Notified::cell())?;
    Ok(())
}
