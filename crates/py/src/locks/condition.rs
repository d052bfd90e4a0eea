//! `asyncio.Condition`: a lock, and those who wait for news about what it protects. notified.rs is their
//! wait.

use aioxide_core::sync;
use pyo3::Borrowed;
use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyInt;

use super::lock::{self, Lock};
use super::notified;
use super::primitive::{self, Kind, Primitive};
use super::wait::{self, Op};
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::Slot;
use crate::ffi::class::{Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::method::{Of, anyargs, constructor, getter, initializer, noargs, onearg, unary};
use crate::names::{Names, boolean, none};
use crate::waiters::{self, standing};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// Those who wait, and the lock they hold otherwise: a Lock of ours, or anything with `locked`, `acquire` and `release`.
pub(crate) struct News(Slot);

/// The Python object.
pub(crate) type Condition = Primitive<News>;
pub(super) type This<'a, 'py> = Inst<'a, 'py, Condition>;

impl Kind for News {
    const NAME: &'static std::ffi::CStr = c"aioxide.Condition";
    const HOOKS: &'static [&'static std::ffi::CStr] = &[c"_notify"];
    type Rules = sync::Condition<Py<PyAny>>;

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn original(names: &Names) -> &Py<PyAny> {
        &names.condition
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.0.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.0.clear(py);
    }
}

impl Condition {
    /// A condition with a lock of its own, for the barrier.
    pub(super) fn make(py: Python<'_>) -> Object<'_> {
        let lock = Lock::make(py)?;
        create(py, Self::with(sync::Condition::new(), News(Slot::holding(lock.unbind()))))
    }

    /// The lock.
    #[inline]
    pub(super) fn lock<'py>(&self, py: Python<'py>) -> Object<'py> {
        self.own
            .0
            .get(py)
            .ok_or_else(|| PyAttributeError::new_err("'Condition' object has no attribute '_lock'"))
    }

    /// Whether the methods are surely ours.
    pub(super) fn is_plain(this: This<'_, '_>) -> bool {
        this.is_bare() && Self::cell().is_plain(&this.object())
    }

    /// The lock if its methods, and those of the condition that lead there, are surely ours.
    #[inline]
    pub(super) fn plain_lock<'a, 'py>(
        this: This<'_, 'py>,
        lock: &'a Bound<'py, PyAny>,
    ) -> Option<lock::This<'a, 'py>> {
        Lock::plain(lock).filter(|_| Self::is_plain(this))
    }

    /// Whether the lock is held.
    pub(super) fn is_locked(this: This<'_, '_>) -> PyResult<bool> {
        let py = this.py();
        let lock = this.lock(py)?;
        match Self::plain_lock(this, &lock) {
            Some(lock) => Ok(lock.is_locked(py)),
            None => this.object().call_method0(intern!(py, "locked"))?.is_truthy(),
        }
    }

    /// Lets go of the lock.
    pub(super) fn release(this: This<'_, '_>) -> PyResult<()> {
        let py = this.py();
        let lock = this.lock(py)?;
        match Self::plain_lock(this, &lock) {
            Some(lock) => lock.release(py),
            None => this.object().call_method0(intern!(py, "release")).map(drop),
        }
    }

    /// Wakes up to `most` of those who wait; the lock is not asked.
    #[inline]
    pub(super) fn notify(&self, py: Python<'_>, most: usize) -> PyResult<()> {
        let mut left = most;
        while left > 0 {
            let Some(parked) = self.named(py, |s| s.notify(standing(py))) else { break };
            left -= usize::from(waiters::wake(&parked, boolean(py, false))?);
        }
        Ok(())
    }
}

fn new(_: Args<'_, '_>) -> PyResult<Condition> {
    Ok(Condition::with(sync::Condition::new(), News(Slot::empty())))
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
    if !Condition::cell().is_exact(&this.object()) {
        // They are attributes of an instance in asyncio, whatever its class has under these names.
        for name in [intern!(py, "locked"), intern!(py, "acquire"), intern!(py, "release")] {
            Primitive::change_attribute(this, name, Some(lock.getattr(name)?.as_borrowed()))?;
        }
    }
    this.own.0.set(py, lock);
    this.start(py, sync::Condition::new());
    Ok(())
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let extra = if Condition::is_locked(this)? { "locked" } else { "unlocked" };
    waiters::repr_with(&this.object(), extra, Primitive::count(this)?)
}

fn get_lock<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.lock(this.py())
}

fn set_lock<'py>(this: This<'_, 'py>, lock: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.own.0.set(this.py(), lock.to_owned());
    Ok(())
}

/// `locked`, `acquire` and `release`: the lock's, unless the program has put others in their place.
macro_rules! of_the_lock {
    ($name:literal) => {{
        fn get<'py>(this: This<'_, 'py>) -> Object<'py> {
            match this.attribute(this.py(), intern!(this.py(), $name))? {
                Some(own) => Ok(own),
                None => get_lock(this)?.getattr(intern!(this.py(), $name)),
            }
        }
        fn change<'py>(this: This<'_, 'py>, value: Option<Borrowed<'_, 'py, PyAny>>) -> PyResult<()> {
            Primitive::change_attribute(this, intern!(this.py(), $name), value)
        }
        (get, change)
    }};
}

fn enter<'py>(this: This<'_, 'py>) -> Object<'py> {
    let lock = get_lock(this)?;
    if Condition::plain_lock(this, &lock).is_some() {
        return wait::make_end(&lock, Op::LockEnter);
    }
    wait::make_end(&this.object(), Op::EnterBy)
}

fn exit<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    wait::check_exit(args)?;
    let lock = get_lock(this)?;
    if Condition::plain_lock(this, &lock).is_some() {
        return wait::make_end(&lock, Op::LockExit);
    }
    wait::make_end(&this.object(), Op::ExitBy)
}

fn wait<'py>(this: This<'_, 'py>) -> Object<'py> {
    if let Some(result) = Primitive::by_hand(this, c"wait", None)? {
        return Ok(result);
    }
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
    let most = most.map_or_else(|| PyInt::new(this.py(), 1).into_any(), Borrowed::to_owned);
    if let Some(result) = Primitive::by_hand(this, c"notify", Some(&most))? {
        return Ok(result);
    }
    if !Condition::is_locked(this)? {
        return Err(PyRuntimeError::new_err("cannot notify on un-acquired lock"));
    }
    notify_some(this, most.as_borrowed())
}

/// `_notify(n)`: the lock is not asked.
fn notify_some<'py>(this: This<'_, 'py>, most: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    if let Some(result) = Primitive::by_hand(this, c"_notify", Some(&most))? {
        return Ok(result);
    }
    let most: i64 = most.extract()?;
    this.notify(this.py(), usize::try_from(most).unwrap_or(0))?;
    Ok(none(this.py()))
}

fn notify_all<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    if !Condition::is_plain(this) {
        let all = Primitive::count(this)?;
        this.object().call_method1(intern!(py, "notify"), (all,))?;
    } else if Condition::is_locked(this)? {
        this.notify(py, this.waiting(py))?;
    } else {
        return Err(PyRuntimeError::new_err("cannot notify on un-acquired lock"));
    }
    Ok(py.None().into_bound(py))
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let (locked, acquire, release) =
        (of_the_lock!("locked"), of_the_lock!("acquire"), of_the_lock!("release"));
    let class = primitive::builder::<News>()
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
        .method(onearg::<Of<Condition>, _>(c"_notify", notify_some))
        .attribute(getter::<Of<Condition>, _>(c"locked", locked.0).changer::<Of<Condition>, _>(locked.1))
        .attribute(getter::<Of<Condition>, _>(c"acquire", acquire.0).changer::<Of<Condition>, _>(acquire.1))
        .attribute(getter::<Of<Condition>, _>(c"release", release.0).changer::<Of<Condition>, _>(release.1))
        .attribute(getter::<Of<Condition>, _>(c"_lock", get_lock).setter::<Of<Condition>, _>(set_lock))
        .build(module, None, Condition::cell())?;
    module.add("Condition", class)
}
