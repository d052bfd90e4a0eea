//! `asyncio.Lock`.

use aioxide_core::WaiterKey;
use aioxide_core::sync::{self, NotAcquired, Rules};
use pyo3::Borrowed;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::holders::Owner;
use super::primitive::{self, Kind, Primitive};
use super::wait::{self, Op};
use crate::ffi::args::{Args, Signature};
use crate::ffi::class::{Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::method::{Of, anyargs, constructor, getter, initializer, noargs, unary};
use crate::names::{Names, boolean, none};
use crate::waiters::{self, standing};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
/// A lock. asyncio lets anybody release it, so who holds it is on record, and no rule.
pub(crate) struct Mutex(Owner);

/// The Python object.
pub(crate) type Lock = Primitive<Mutex>;
pub(super) type This<'a, 'py> = Inst<'a, 'py, Lock>;

impl Kind for Mutex {
    const NAME: &'static std::ffi::CStr = c"aioxide.Lock";
    const IS_LAZY: bool = true;
    const HOOKS: &'static [&'static std::ffi::CStr] = &[c"_wake_up_first"];
    type Rules = sync::Lock<Py<PyAny>>;

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn original(names: &Names) -> &Py<PyAny> {
        &names.lock
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.0.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.0.clear(py);
    }
}

impl Lock {
    /// Who holds it, if it is held.
    pub(super) fn owner(&self) -> &Owner {
        &self.own.0
    }

    const fn free() -> Self {
        Self::with(sync::Lock::new(), Mutex(Owner::new()))
    }

    /// A free lock, for other primitives.
    pub(super) fn make(py: Python<'_>) -> Object<'_> {
        create(py, Self::free())
    }

    /// The object if it is a lock whose methods are surely ours.
    #[inline]
    pub(super) fn plain<'a, 'py>(object: &'a Bound<'py, PyAny>) -> Option<This<'a, 'py>> {
        Inst::<Self>::cast_exact(object).filter(|lock| lock.is_bare() && Self::cell().is_plain(object))
    }

    pub(super) fn is_locked(&self, py: Python<'_>) -> bool {
        self.state.with(py, |s| s.is_locked())
    }

    /// Takes the lock if nobody has it or waits for it.
    #[inline]
    pub(super) fn try_acquire(&self, py: Python<'_>) -> bool {
        let got = self.state.with(py, |s| s.try_acquire(standing(py)));
        if got {
            self.own.0.took(py);
        }
        got
    }

    /// The woken waiter takes the lock.
    #[inline]
    pub(super) fn admit(&self, py: Python<'_>, key: WaiterKey) {
        drop(self.state.with(py, |s| s.admit(key)).map(|parked| parked.into_bound(py)));
        self.own.0.took(py);
    }

    /// The waiter leaves without the lock, and lets the next in line have its turn.
    pub(super) fn give_up(&self, py: Python<'_>, key: WaiterKey) -> PyResult<()> {
        let (left, next) = self.state.with(py, |s| {
            let (left, next) = s.give_up(key, standing(py));
            (left, next.and_then(|key| s.waiters().get(key)).map(|parked| parked.clone_ref(py)))
        });
        drop(left.map(|parked| parked.into_bound(py)));
        wake(py, next)
    }

    /// Lets go of the lock and wakes the first in line.
    #[inline]
    pub(super) fn release(&self, py: Python<'_>) -> PyResult<()> {
        let next = self.state.with(py, |s| {
            let next = s.release(standing(py))?;
            Ok(next.and_then(|key| s.waiters().get(key)).map(|parked| parked.clone_ref(py)))
        });
        match next {
            Ok(next) => wake(py, next),
            Err(NotAcquired) => Err(PyRuntimeError::new_err("Lock is not acquired.")),
        }
    }
}

#[inline]
fn wake(py: Python<'_>, next: Option<Py<PyAny>>) -> PyResult<()> {
    match next {
        Some(parked) => waiters::wake(&parked.into_bound(py), boolean(py, true)).map(drop),
        None => Ok(()),
    }
}

fn new(_: Args<'_, '_>) -> PyResult<Lock> {
    Ok(Lock::free())
}

fn init(this: This<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "Lock.__init__",
        positional: &[],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let [] = SIGNATURE.bind::<0>(args)?;
    let py = this.py();
    this.start(py, sync::Lock::new());
    Ok(())
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let state = if this.is_locked(this.py()) { "locked" } else { "unlocked" };
    waiters::repr_with(&this.object(), state, Primitive::count(this)?)
}

fn locked<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.is_locked(this.py())))
}

fn set_locked<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let locked = value.is_truthy()?;
    let py = this.py();
    this.state.with(py, |s| s.set_locked(locked));
    this.own.0.forget(py);
    Ok(())
}

fn acquire<'py>(this: This<'_, 'py>) -> Object<'py> {
    if let Some(result) = Primitive::by_hand(this, c"acquire", None)? {
        return Ok(result);
    }
    wait::make(&this.object(), Op::LockAcquire)
}

fn release<'py>(this: This<'_, 'py>) -> Object<'py> {
    if let Some(result) = Primitive::by_hand(this, c"release", None)? {
        return Ok(result);
    }
    this.release(this.py())?;
    Ok(none(this.py()))
}

fn wake_up_first<'py>(this: This<'_, 'py>) -> Object<'py> {
    if let Some(result) = Primitive::by_hand(this, c"_wake_up_first", None)? {
        return Ok(result);
    }
    let py = this.py();
    if let Some(first) = this.named(py, |s| s.wake_first(standing(py))) {
        waiters::wake(&first, boolean(py, true))?;
    }
    Ok(none(py))
}

fn enter<'py>(this: This<'_, 'py>) -> Object<'py> {
    wait::make_end(
        &this.object(),
        if Lock::plain(&this.object()).is_some() { Op::LockEnter } else { Op::EnterBy },
    )
}

fn exit<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    wait::check_exit(args)?;
    wait::make_end(
        &this.object(),
        if Lock::plain(&this.object()).is_some() { Op::LockExit } else { Op::ExitBy },
    )
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = primitive::builder::<Mutex>()
        .doc(
            c"Lock()\n--\n\nA mutual exclusion lock for tasks: fair, and not owned by the task that \
          acquired it.",
        )
        .slot(pyo3::ffi::Py_tp_new, constructor::<Lock, _>(new))
        .slot(pyo3::ffi::Py_tp_init, initializer::<Of<Lock>, _>(init))
        .slot(pyo3::ffi::Py_tp_repr, unary::<Of<Lock>, _>(repr))
        .method(
            noargs::<Of<Lock>, _>(c"locked", locked)
                .doc(c"locked($self, /)\n--\n\nReturn True if the lock is acquired."),
        )
        .method(
            noargs::<Of<Lock>, _>(c"acquire", acquire)
                .doc(c"acquire($self, /)\n--\n\nWait until the lock is free, take it, and return True."),
        )
        .method(noargs::<Of<Lock>, _>(c"release", release).doc(
            c"release($self, /)\n--\n\nLet go of the lock: the first task that waits for it gets it.\n\n\
              RuntimeError if it is not acquired.",
        ))
        .method(noargs::<Of<Lock>, _>(c"__aenter__", enter).doc(c"__aenter__($self, /)\n--\n\n"))
        .method(anyargs::<Of<Lock>, _>(c"__aexit__", exit).doc(
            c"__aexit__($self, exc_type, exc, tb, \
          /)\n--\n\n",
        ))
        .method(noargs::<Of<Lock>, _>(c"_wake_up_first", wake_up_first))
        .attribute(getter::<Of<Lock>, _>(c"_locked", locked).setter::<Of<Lock>, _>(set_locked))
        .build(module, None, Lock::cell())?;
    module.add("Lock", class)
}
