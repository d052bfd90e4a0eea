//! `asyncio.Condition`: a lock, and those who wait for news about what it protects. notified.rs is their
//! wait.

use aioxide_core::WaiterKey;
use aioxide_core::sync;
use pyo3::Borrowed;
use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;

use super::lock::Lock;
use super::notified;
use super::wait::{self, Op};
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::{GilCell, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{Of, anyargs, constructor, getter, initializer, noargs, unary};
use crate::waiters::{self, Home, boolean, standing};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
pub(super) type This<'a, 'py> = Inst<'a, 'py, Condition>;

/// A condition and its lock.
pub(crate) struct Condition {
    state: GilCell<sync::Condition<Py<PyAny>>>,
    /// A Lock of ours, or anything with `locked`, `acquire` and `release`.
    lock: Slot,
    home: Home,
    dict: Slot,
}

impl Class for Condition {
    const NAME: &'static std::ffi::CStr = c"aioxide.Condition";
    const SUBCLASSABLE: bool = true;
    const DICT: Option<usize> = Some(std::mem::offset_of!(Self, dict));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.state.visit(|s| waiters::traverse(s.waiters(), visit)).unwrap_or(Ok(()))?;
        self.lock.traverse(visit)?;
        self.home.traverse(visit)?;
        self.dict.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        waiters::drop_all(py, self.state.with(py, sync::Condition::take_all));
        drop(self.lock.take(py));
        self.home.forget(py);
        drop(self.dict.take(py));
    }
}

impl Condition {
    const fn with(lock: Slot) -> Self {
        Self { state: GilCell::new(sync::Condition::new()), lock, home: Home::new(), dict: Slot::empty() }
    }

    /// A condition with a lock of its own, for the barrier.
    pub(super) fn make(py: Python<'_>) -> Object<'_> {
        let lock = Lock::make(py)?;
        create(py, Self::with(Slot::holding(lock.unbind())))
    }

    /// The lock.
    #[inline]
    pub(super) fn lock<'py>(&self, py: Python<'py>) -> Object<'py> {
        self.lock
            .get(py)
            .ok_or_else(|| PyAttributeError::new_err("'Condition' object has no attribute '_lock'"))
    }

    /// Whether `wait` and `notify` are surely ours.
    pub(super) fn is_plain(this: This<'_, '_>) -> bool {
        !this.dict.is_some() && Self::cell().is_exact(&this.object())
    }

    /// Whether the lock is held.
    pub(super) fn is_locked(this: This<'_, '_>) -> PyResult<bool> {
        let py = this.py();
        let lock = this.lock(py)?;
        match Lock::plain(&lock) {
            Some(lock) => Ok(lock.is_locked(py)),
            None => this.object().call_method0(intern!(py, "locked"))?.is_truthy(),
        }
    }

    /// Lets go of the lock.
    pub(super) fn release(this: This<'_, '_>) -> PyResult<()> {
        let py = this.py();
        let lock = this.lock(py)?;
        match Lock::plain(&lock) {
            Some(lock) => lock.release(py),
            None => this.object().call_method0(intern!(py, "release")).map(drop),
        }
    }

    /// A future to wait for a notification with. Nobody notifies it before [`join`](Self::join).
    #[inline]
    pub(super) fn future<'py>(this: This<'_, 'py>) -> Object<'py> {
        this.home.future(&this.object())
    }

    /// Gets in line.
    #[inline]
    pub(super) fn join(&self, future: &Bound<'_, PyAny>) -> WaiterKey {
        let parked = future.clone().unbind();
        self.state.with(future.py(), |s| s.wait(parked))
    }

    /// The waiter goes, however its wait ended.
    #[inline]
    pub(super) fn leave(&self, py: Python<'_>, key: WaiterKey) {
        drop(self.state.with(py, |s| s.leave(key)).map(|parked| parked.into_bound(py)));
    }

    /// Wakes up to `most` of those who wait; the lock is not asked.
    #[inline]
    pub(super) fn notify(&self, py: Python<'_>, most: usize) -> PyResult<()> {
        let mut left = most;
        while left > 0 {
            let next = self.state.with(py, |s| {
                let next = s.notify(standing(py))?;
                s.waiters().get(next).map(|parked| parked.clone_ref(py))
            });
            let Some(parked) = next else { break };
            left -= usize::from(waiters::wake(&parked.into_bound(py), boolean(py, false))?);
        }
        Ok(())
    }

    /// How many wait.
    pub(super) fn waiting(&self, py: Python<'_>) -> usize {
        self.state.with(py, |s| s.waiters().len())
    }
}

fn new(_: Args<'_, '_>) -> PyResult<Condition> {
    Ok(Condition::with(Slot::empty()))
}

fn init(this: This<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "Condition.__init__",
        positional: &["lock"],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let [lock] = SIGNATURE.bind::<1>(args)?;
    let py = this.py();
    let lock = match given(lock) {
        Some(lock) => {
            for name in [intern!(py, "locked"), intern!(py, "acquire"), intern!(py, "release")] {
                lock.getattr(name)?;
            }
            lock
        }
        None => Lock::make(py)?,
    };
    this.lock.set(py, lock);
    let mut before = this.state.with(py, std::mem::take);
    waiters::drop_all(py, before.take_all());
    Ok(())
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let extra = if Condition::is_locked(this)? { "locked" } else { "unlocked" };
    waiters::repr_with(&this.object(), extra, this.waiting(this.py()))
}

fn get_lock<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.lock(this.py())
}

fn set_lock<'py>(this: This<'_, 'py>, lock: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.lock.set(this.py(), lock.to_owned());
    Ok(())
}

fn locked<'py>(this: This<'_, 'py>) -> Object<'py> {
    get_lock(this)?.getattr(intern!(this.py(), "locked"))
}

fn acquire<'py>(this: This<'_, 'py>) -> Object<'py> {
    get_lock(this)?.getattr(intern!(this.py(), "acquire"))
}

fn release<'py>(this: This<'_, 'py>) -> Object<'py> {
    get_lock(this)?.getattr(intern!(this.py(), "release"))
}

fn enter<'py>(this: This<'_, 'py>) -> Object<'py> {
    let lock = get_lock(this)?;
    if Condition::is_plain(this) && Lock::plain(&lock).is_some() {
        return wait::make_end(&lock, Op::LockEnter);
    }
    wait::make_end(&this.object(), Op::EnterBy)
}

fn exit<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    wait::check_exit(args)?;
    let lock = get_lock(this)?;
    if Condition::is_plain(this) && Lock::plain(&lock).is_some() {
        return wait::make_end(&lock, Op::LockExit);
    }
    wait::make_end(&this.object(), Op::ExitBy)
}

fn wait<'py>(this: This<'_, 'py>) -> Object<'py> {
    notified::make(this, None)
}

fn wait_for<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "wait_for",
        positional: &["predicate"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [predicate] = SIGNATURE.bind::<1>(args)?;
    notified::make(this, predicate.map(Borrowed::to_owned))
}

fn notify<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature =
        Signature { name: "notify", positional: &["n"], required: 0, positional_only: 0, keyword_only: &[] };
    let [most] = SIGNATURE.bind::<1>(args)?;
    if !Condition::is_locked(this)? {
        return Err(PyRuntimeError::new_err("cannot notify on un-acquired lock"));
    }
    let most: i64 = match most {
        Some(most) => most.extract()?,
        None => 1,
    };
    this.notify(this.py(), usize::try_from(most).unwrap_or(0))?;
    Ok(this.py().None().into_bound(this.py()))
}

fn notify_all<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let all = this.waiting(py);
    if !Condition::is_plain(this) {
        this.object().call_method1(intern!(py, "notify"), (all,))?;
    } else if Condition::is_locked(this)? {
        this.notify(py, all)?;
    } else {
        return Err(PyRuntimeError::new_err("cannot notify on un-acquired lock"));
    }
    Ok(py.None().into_bound(py))
}

fn get_waiters<'py>(this: This<'_, 'py>) -> Object<'py> {
    waiters::view(&this.object(), |owner, f| {
        if let Some(this) = Inst::<Condition>::cast(owner) {
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
    let class = Builder::of::<Condition>()
        .short_name()
        .doc(c"Condition(lock=None)\n--\n\nA lock, and a way to wait until somebody says that what it \
          protects has changed.")
        .slot(pyo3::ffi::Py_tp_new, constructor::<Condition, _>(new))
        .slot(pyo3::ffi::Py_tp_init, initializer::<Of<Condition>, _>(init))
        .slot(pyo3::ffi::Py_tp_repr, unary::<Of<Condition>, _>(repr))
        .method(noargs::<Of<Condition>, _>(c"wait", wait).doc(
            c"wait($self, /)\n--\n\nLet go of the lock, wait for a notification, take the lock again, and \
              return True.\n\n\
              May return without a notification, so check what you wait for again. RuntimeError if the lock is free.",
        ))
        .method(anyargs::<Of<Condition>, _>(c"wait_for", wait_for).doc(
            c"wait_for($self, predicate)\n--\n\nwait() until predicate() is true, and return what it \
              returned.",
        ))
        .method(anyargs::<Of<Condition>, _>(c"notify", notify).doc(
            c"notify($self, n=1)\n--\n\nWake up to n of the tasks that wait. RuntimeError if the lock is \
              free.",
        ))
        .method(
            noargs::<Of<Condition>, _>(c"notify_all", notify_all)
                .doc(c"notify_all($self, /)\n--\n\nWake all tasks that wait. RuntimeError if the lock is \
                  free."),
        )
        .method(noargs::<Of<Condition>, _>(c"__aenter__", enter).doc(c"__aenter__($self, /)\n--\n\n"))
        .method(
            anyargs::<Of<Condition>, _>(c"__aexit__", exit).doc(c"__aexit__($self, exc_type, exc, tb, \
              /)\n--\n\n"),
        )
        .attribute(getter::<Of<Condition>, _>(c"locked", locked))
        .attribute(getter::<Of<Condition>, _>(c"acquire", acquire))
        .attribute(getter::<Of<Condition>, _>(c"release", release))
        .attribute(getter::<Of<Condition>, _>(c"_lock", get_lock).setter::<Of<Condition>, _>(set_lock))
        .method(noargs::<Of<Condition>, _>(c"_get_loop", running))
        .attribute(getter::<Of<Condition>, _>(c"_waiters", get_waiters))
        .attribute(getter::<Of<Condition>, _>(c"_loop", get_loop).setter::<Of<Condition>, _>(set_loop))
        .build(module, None, Condition::cell())?;
    module.add("Condition", class)
}
