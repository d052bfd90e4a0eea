//! `asyncio.Semaphore` and `BoundedSemaphore`: one Rust type, two Python ones.

use aioxide_core::WaiterKey;
use aioxide_core::sync::{self, Rules};
use pyo3::Borrowed;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyTuple};

use super::holders::Held;
use super::primitive::{self, Kind, Primitive};
use super::wait::{self, Op};
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::method::{Of, anyargs, constructor, getter, initializer, noargs, unary};
use crate::names::{Names, boolean, none};
use crate::waiters::{self, standing};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// A number of permits, and who has them on record.
pub(crate) struct Permits {
    bounded: bool,
    bound: Flag<i64>,
    held: Held,
    /// The number that the program gave where it isn't a plain one, what it was counted as, and the bound.
    odd: Slot,
    counted: Flag<i64>,
    odd_bound: Slot,
}

/// The Python object.
pub(crate) type Semaphore = Primitive<Permits>;
pub(super) type This<'a, 'py> = Inst<'a, 'py, Semaphore>;

/// The type BoundedSemaphore: the same instances, whose `release` knows a bound.
static BOUNDED: TypeCell = TypeCell::new();

impl Kind for Permits {
    const NAME: &'static std::ffi::CStr = c"aioxide.Semaphore";
    const IS_LAZY: bool = true;
    const HOOKS: &'static [&'static std::ffi::CStr] = &[c"_wake_up_next", c"locked"];
    type Rules = sync::Semaphore<Py<PyAny>>;

    fn is_plain(object: &Bound<'_, PyAny>) -> bool {
        Self::cell().is_plain(object) || BOUNDED.is_plain(object)
    }

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn original(names: &Names) -> &Py<PyAny> {
        &names.semaphore
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.odd.traverse(visit)?;
        self.odd_bound.traverse(visit)?;
        self.held.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.held.clear(py);
        drop((self.odd.take(py), self.odd_bound.take(py)));
    }
}

impl Semaphore {
    fn of(value: i64, bounded: bool) -> Self {
        let own = Permits {
            bounded,
            bound: Flag::new(value),
            held: Held::new(),
            odd: Slot::empty(),
            counted: Flag::new(value),
            odd_bound: Slot::empty(),
        };
        Self::with(sync::Semaphore::new(value, bounded), own)
    }

    /// Who has permits.
    pub(super) fn held(&self) -> &Held {
        &self.own.held
    }

    fn is_locked(&self, py: Python<'_>) -> bool {
        self.state.with(py, |s| s.is_locked(standing(py)))
    }

    /// Takes a permit if one is left and nobody waits for it.
    #[inline]
    pub(super) fn try_acquire(&self, py: Python<'_>) -> bool {
        let got = self.state.with(py, |s| s.try_acquire(standing(py)));
        if got {
            self.own.held.took(py);
        }
        got
    }

    /// The woken waiter goes on with its permit.
    #[inline]
    pub(super) fn admit(&self, py: Python<'_>, key: WaiterKey) -> PyResult<()> {
        drop(self.state.with(py, |s| s.admit(key)).map(|parked| parked.into_bound(py)));
        self.own.held.took(py);
        self.hand_out(py)
    }

    /// The waiter leaves; the permit it may have been given goes to the next.
    pub(super) fn give_up(&self, py: Python<'_>, key: WaiterKey) -> PyResult<()> {
        // How it stands is known to its future alone, until somebody asks.
        let left = self.state.with(py, |s| {
            s.waiters_mut().refresh(standing(py));
            s.give_up(key)
        });
        drop(left.map(|parked| parked.into_bound(py)));
        self.hand_out(py)
    }

    /// Wakes those who came while permits were left for others.
    #[inline]
    fn hand_out(&self, py: Python<'_>) -> PyResult<()> {
        while let Some(parked) = self.named(py, |s| s.hand_out(standing(py))) {
            waiters::wake(&parked, boolean(py, true))?;
        }
        Ok(())
    }

    /// Returns a permit and wakes the first in line.
    #[inline]
    pub(super) fn release(&self, py: Python<'_>) -> PyResult<()> {
        let next = self.state.with(py, |s| {
            let next = s.release(standing(py))?;
            Some(next.and_then(|key| s.waiters().get(key)).map(|parked| parked.clone_ref(py)))
        });
        let Some(next) = next else {
            return Err(too_many());
        };
        self.own.held.gave(py);
        match next {
            Some(parked) => waiters::wake(&parked.into_bound(py), boolean(py, true)).map(drop),
            None => Ok(()),
        }
    }
}

fn new(_: Args<'_, '_>) -> PyResult<Semaphore> {
    Ok(Semaphore::of(1, false))
}

fn new_bounded(_: Args<'_, '_>) -> PyResult<Semaphore> {
    Ok(Semaphore::of(1, true))
}

fn too_many() -> PyErr {
    PyValueError::new_err("BoundedSemaphore released too many times")
}

/// Numbers of permits that can't be counted down to zero: infinities, halves.
const UNCOUNTED: i64 = i64::MAX / 2;

/// A number of permits, which is any number in asyncio: how many are counted, and the number itself where it isn't a
/// plain one.
fn permits<'py>(value: &Bound<'py, PyAny>) -> PyResult<(i64, Option<Bound<'py, PyAny>>)> {
    if let Ok(plain) = value.extract::<i64>()
        && plain < UNCOUNTED
    {
        return Ok((plain, None));
    }
    if value.lt(0)? {
        return Ok((-1, Some(value.clone())));
    }
    let whole = value.call_method0(intern!(value.py(), "__int__")).and_then(|whole| whole.extract::<i64>());
    let counted = match whole {
        Ok(whole) if value.eq(whole)? => whole.min(UNCOUNTED),
        _ => UNCOUNTED,
    };
    Ok((counted, Some(value.clone())))
}

fn start(this: This<'_, '_>, value: Option<Borrowed<'_, '_, PyAny>>) -> PyResult<()> {
    let py = this.py();
    let (counted, odd) = value.map_or(Ok((1, None)), |v| permits(&v))?;
    if counted < 0 {
        return Err(PyValueError::new_err("Semaphore initial value must be >= 0"));
    }
    this.own.bound.set(counted);
    drop(this.own.odd.replace(py, odd.clone()));
    drop(this.own.odd_bound.replace(py, odd));
    this.own.counted.set(counted);
    this.own.held.clear(py);
    this.start(py, sync::Semaphore::new(counted, this.own.bounded));
    Ok(())
}

fn init(this: This<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "Semaphore.__init__",
        positional: &["value"],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let [value] = SIGNATURE.bind::<1>(args)?;
    start(this, value)
}

fn init_bounded(this: This<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "BoundedSemaphore.__init__",
        positional: &["value"],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let [value] = SIGNATURE.bind::<1>(args)?;
    start(this, value)
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let locked = this.is_locked(py);
    let value = get_value(this)?;
    let extra = if locked { "locked".to_owned() } else { format!("unlocked, value:{value}") };
    waiters::repr_with(&this.object(), &extra, Primitive::count(this)?)
}

fn locked<'py>(this: This<'_, 'py>) -> Object<'py> {
    if let Some(result) = Primitive::by_hand(this, c"locked", None)? {
        return Ok(result);
    }
    Ok(boolean(this.py(), this.is_locked(this.py())))
}

fn acquire<'py>(this: This<'_, 'py>) -> Object<'py> {
    if let Some(result) = Primitive::by_hand(this, c"acquire", None)? {
        return Ok(result);
    }
    wait::make(&this.object(), Op::SemaphoreAcquire)
}

fn release<'py>(this: This<'_, 'py>) -> Object<'py> {
    if this.own.bounded && !is_exact(this) && get_value(this)?.ge(get_bound(this)?)? {
        return Err(too_many());
    }
    if let Some(result) = Primitive::by_hand(this, c"release", None)? {
        return Ok(result);
    }
    this.release(this.py())?;
    Ok(none(this.py()))
}

/// `_wake_up_next()`: gives the first who waits a permit; whether somebody waited.
fn wake_up_next<'py>(this: This<'_, 'py>) -> Object<'py> {
    if let Some(result) = Primitive::by_hand(this, c"_wake_up_next", None)? {
        return Ok(result);
    }
    let py = this.py();
    let next = this.named(py, |s| s.wake_next(standing(py)));
    if let Some(parked) = &next {
        waiters::wake(parked, boolean(py, true))?;
    }
    Ok(boolean(py, next.is_some()))
}

/// Whether `acquire` and `release` are surely ours.
fn is_exact(this: This<'_, '_>) -> bool {
    this.is_bare() && Permits::is_plain(&this.object())
}

fn enter<'py>(this: This<'_, 'py>) -> Object<'py> {
    wait::make_end(&this.object(), if is_exact(this) { Op::SemaphoreEnter } else { Op::EnterBy })
}

fn exit<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    wait::check_exit(args)?;
    wait::make_end(&this.object(), if is_exact(this) { Op::SemaphoreExit } else { Op::ExitBy })
}

fn get_value<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let value = this.state.with(py, |s| s.value());
    match this.own.odd.get(py) {
        Some(odd) => odd.add(value - this.own.counted.get()),
        None => Ok(PyInt::new(py, value).into_any()),
    }
}

fn set_value<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let (counted, odd) = permits(&value)?;
    this.own.counted.set(counted);
    drop(this.own.odd.replace(this.py(), odd));
    this.state.with(this.py(), |s| s.set_value(counted));
    Ok(())
}

fn set_bound<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let (counted, odd) = permits(&value)?;
    this.own.bound.set(counted);
    drop(this.own.odd_bound.replace(this.py(), odd));
    this.state.with(this.py(), |s| s.set_bound(counted));
    Ok(())
}

fn get_bound<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    Ok(this.own.odd_bound.get(py).unwrap_or_else(|| PyInt::new(py, this.own.bound.get()).into_any()))
}

/// Makes both types.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = primitive::builder::<Permits>()
        .doc(c"Semaphore(value=1)\n--\n\nA number of permits: acquire() takes one, or waits for one.")
        .slot(pyo3::ffi::Py_tp_new, constructor::<Semaphore, _>(new))
        .slot(pyo3::ffi::Py_tp_init, initializer::<Of<Semaphore>, _>(init))
        .slot(pyo3::ffi::Py_tp_repr, unary::<Of<Semaphore>, _>(repr))
        .method(
            noargs::<Of<Semaphore>, _>(c"locked", locked)
                .doc(c"locked($self, /)\n--\n\nReturn True if acquire() would have to wait."),
        )
        .method(
            noargs::<Of<Semaphore>, _>(c"acquire", acquire)
                .doc(c"acquire($self, /)\n--\n\nTake a permit, waiting for one if need be, and return True."),
        )
        .method(
            noargs::<Of<Semaphore>, _>(c"release", release)
                .doc(c"release($self, /)\n--\n\nReturn a permit: the first task that waits gets it."),
        )
        .method(noargs::<Of<Semaphore>, _>(c"__aenter__", enter).doc(c"__aenter__($self, /)\n--\n\n"))
        .method(
            anyargs::<Of<Semaphore>, _>(c"__aexit__", exit)
                .doc(c"__aexit__($self, exc_type, exc, tb, /)\n--\n\n"),
        )
        .method(noargs::<Of<Semaphore>, _>(c"_wake_up_next", wake_up_next))
        .attribute(getter::<Of<Semaphore>, _>(c"_value", get_value).setter::<Of<Semaphore>, _>(set_value))
        .build(module, None, Semaphore::cell())?;
    let bounded = Builder::of::<Semaphore>()
        .named(c"aioxide.BoundedSemaphore")
        .short_name()
        .doc(
            c"BoundedSemaphore(value=1)\n--\n\nA semaphore that never has more permits than at first: \
              release() \
              raises ValueError then.",
        )
        .slot(pyo3::ffi::Py_tp_new, constructor::<Semaphore, _>(new_bounded))
        .slot(pyo3::ffi::Py_tp_init, initializer::<Of<Semaphore>, _>(init_bounded))
        .attribute(
            getter::<Of<Semaphore>, _>(c"_bound_value", get_bound).setter::<Of<Semaphore>, _>(set_bound),
        )
        .build(module, Some(&PyTuple::new(module.py(), [&class])?), &BOUNDED)?;
    module.add("Semaphore", class)?;
    module.add("BoundedSemaphore", bounded)
}
