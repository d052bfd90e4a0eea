//! Resuming: coroutines from our side (`PyIter_Send`), native awaitables from Python's side (`am_send`, `__next__`,
//! `send`, `throw`, `close`), and the StopIteration that carries a result between them.
#![allow(unsafe_code, reason = "the send protocol")]

use std::ffi::c_void;
use std::ptr;

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyString, PyTraceback};

use super::args::Args;
use super::cell::Flag;
use super::class::{Builder, Class, Inst, bug, guard};
use super::frames;
use super::layout::Fut;
use super::method::{Of, anyargs, getter, item, noargs, onearg, unary, wrong_count};
use super::origins;
#[cfg(Py_3_12)]
use super::stop;

/// How far a coroutine or awaitable got.
#[derive(Debug)]
pub(crate) enum Step<'py> {
    /// It waits for this object (a future, or None to give others a turn).
    Yield(Bound<'py, PyAny>),
    /// It is over, with this result.
    Return(Bound<'py, PyAny>),
}

/// A [`Step`] that nothing went wrong in, in registers; the two of None without touching None.
#[derive(Debug)]
pub(crate) enum Brief<'py> {
    /// It gives others a turn: `Step::Yield(None)`.
    Pause,
    /// It is over, with None.
    End,
    /// It waits for this object.
    Yield(Bound<'py, PyAny>),
    /// It is over, with this result.
    Return(Bound<'py, PyAny>),
}

impl<'py> Brief<'py> {
    /// The same in full.
    pub(crate) fn step(self, py: Python<'py>) -> Step<'py> {
        match self {
            Self::Pause => Step::Yield(py.None().into_bound(py)),
            Self::End => Step::Return(py.None().into_bound(py)),
            Self::Yield(value) => Step::Yield(value),
            Self::Return(value) => Step::Return(value),
        }
    }
}

/// What came of [`send`]; small enough for registers.
#[derive(Debug)]
pub(crate) enum Sent<'py> {
    /// It waits for this object.
    Yield(Bound<'py, PyAny>),
    /// It is over, with this result.
    Return(Bound<'py, PyAny>),
    /// It raised; the exception is the interpreter's current one.
    Raised,
}

/// The slot of plain coroutines: looked up once, where `PyIter_Send` would look each time.
static CORO_SEND: Flag<Option<ffi::sendfunc>> = Flag::new(None);

/// `coro.send(None)` without a StopIteration.
#[inline]
pub(crate) fn send<'py>(coro: &Bound<'py, PyAny>) -> Sent<'py> {
    let py = coro.py();
    let mut result = ptr::null_mut();
    // SAFETY: live objects and a place for the result; the GIL is held. A coroutine's type has the slot.
    let status = unsafe {
        match CORO_SEND.get() {
            Some(send) if ffi::PyCoro_CheckExact(coro.as_ptr()) != 0 => {
                send(coro.as_ptr(), ffi::Py_None(), &raw mut result)
            }
            _ => ffi::PyIter_Send(coro.as_ptr(), ffi::Py_None(), &raw mut result),
        }
    };
    match status {
        // SAFETY: on NEXT and RETURN the result is a new reference.
        ffi::PySendResult::PYGEN_NEXT => Sent::Yield(unsafe { Bound::from_owned_ptr(py, result) }),
        // SAFETY: as above.
        ffi::PySendResult::PYGEN_RETURN => Sent::Return(unsafe { Bound::from_owned_ptr(py, result) }),
        ffi::PySendResult::PYGEN_ERROR => Sent::Raised,
    }
}

/// As [`send`], with the exception as an error.
#[inline]
pub(crate) fn send_none<'py>(coro: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
    match send(coro) {
        Sent::Yield(value) => Ok(Step::Yield(value)),
        Sent::Return(value) => Ok(Step::Return(value)),
        Sent::Raised => Err(PyErr::fetch(coro.py())),
    }
}

/// `coro.throw(exc)`.
pub(crate) fn throw<'py>(coro: &Bound<'py, PyAny>, exc: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
    match coro.call_method1(pyo3::intern!(coro.py(), "throw"), (exc,)) {
        Ok(value) => Ok(Step::Yield(value)),
        Err(error) => match stop_iteration_value(coro.py(), &error) {
            Some(value) => Ok(Step::Return(value)),
            None => Err(error),
        },
    }
}

/// `throw` into what a coroutine awaits, as `coro.throw()` does: GeneratorExit closes it and goes on.
pub(crate) fn throw_into<'py>(awaited: &Bound<'py, PyAny>, error: PyErr) -> PyResult<Step<'py>> {
    let py = awaited.py();
    if error.is_instance_of::<pyo3::exceptions::PyGeneratorExit>(py) {
        if let Some(close) = awaited.getattr_opt(pyo3::intern!(py, "close"))? {
            close.call0()?;
        }
        return Err(error);
    }
    if awaited.getattr_opt(pyo3::intern!(py, "throw"))?.is_none() {
        return Err(error);
    }
    throw(awaited, error.into_value(py).bind(py).as_any())
}

/// The error of `raise value`: its context becomes the exception that is being handled, if any.
pub(crate) fn raised(value: &Bound<'_, PyAny>) -> PyErr {
    // SAFETY: a live exception object and its class; the GIL is held.
    unsafe { ffi::PyErr_SetObject(value.get_type().as_ptr(), value.as_ptr()) };
    PyErr::fetch(value.py())
}

/// The result that a StopIteration carries.
pub(crate) fn stop_iteration_value<'py>(py: Python<'py>, error: &PyErr) -> Option<Bound<'py, PyAny>> {
    let value = error.value(py);
    value.cast::<PyStopIteration>().ok()?;
    value.getattr(pyo3::intern!(py, "value")).ok()
}

/// An awaitable that is its own iterator: coroutine-like, one owner, resumed by whoever awaits it.
pub(crate) trait Awaitable: Class {
    /// As `resume`, where that takes a few words only and nothing can go wrong; none where it is not so simple. What it
    /// returns stays in registers.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "none, known while compiling, for all but the hottest")]
    fn resume_at_once<'py>(_this: Inst<'_, 'py, Self>) -> Option<Brief<'py>> {
        None
    }

    /// Goes on; what is sent in is never looked at.
    fn resume<'py>(this: Inst<'_, 'py, Self>) -> PyResult<Step<'py>>;
    /// Goes on with an exception raised where it waits.
    fn throw<'py>(this: Inst<'_, 'py, Self>, error: PyErr) -> PyResult<Step<'py>>;
    /// Ends it where it waits.
    fn close(this: Inst<'_, '_, Self>) -> PyResult<()>;
}

/// A native coroutine, which has the name of the `async def` it stands for.
pub(crate) trait Coroutine: Awaitable {
    /// As in `Lock.acquire`.
    fn qualname(this: Inst<'_, '_, Self>) -> &'static str;

    /// Where it is in its life.
    fn life(this: Inst<'_, '_, Self>) -> Life;

    /// What it awaits just now, for those who draw call graphs.
    fn awaited<'py>(_this: Inst<'_, 'py, Self>) -> Option<Bound<'py, PyAny>> {
        None
    }

    /// What it waits for by itself, for those who draw who waits for whom: a kind ("lock", "timer", …) and the object.
    fn waits_for<'py>(_this: Inst<'_, 'py, Self>) -> Option<(&'static str, Option<Bound<'py, PyAny>>)> {
        None
    }

    /// The coroutines that asyncio's own has between this one and what it awaits: in `wait`, `_wait`.
    fn within(_this: Inst<'_, '_, Self>) -> &'static [&'static str] {
        &[]
    }
}

/// The states of `inspect.getcoroutinestate`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    Created,
    Running,
    Suspended,
    Closed,
}

fn name<'py, T: Coroutine>(this: Inst<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    Ok(PyString::new(this.py(), frames::name_of(T::qualname(this))).into_any())
}

fn qualname<'py, T: Coroutine>(this: Inst<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    Ok(PyString::new(this.py(), T::qualname(this)).into_any())
}

fn running<'py, T: Coroutine>(this: Inst<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    Ok(PyBool::new(this.py(), T::life(this) == Life::Running).to_owned().into_any())
}

fn suspended<'py, T: Coroutine>(this: Inst<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    Ok(PyBool::new(this.py(), T::life(this) == Life::Suspended).to_owned().into_any())
}

/// For `inspect.getcoroutinestate` of 3.15.
fn state<'py, T: Coroutine>(this: Inst<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    let state = match T::life(this) {
        Life::Created => "CORO_CREATED",
        Life::Running => "CORO_RUNNING",
        Life::Suspended => "CORO_SUSPENDED",
        Life::Closed => "CORO_CLOSED",
    };
    Ok(PyString::intern(this.py(), state).into_any())
}

fn awaited<'py, T: Coroutine>(this: Inst<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    match T::awaited(this) {
        Some(awaited) => frames::within(T::within(this), awaited),
        None => Ok(this.py().None().into_bound(this.py())),
    }
}

fn frame<'py, T: Coroutine>(this: Inst<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    match T::life(this) {
        Life::Closed => Ok(this.py().None().into_bound(this.py())),
        Life::Created | Life::Running | Life::Suspended => frames::frame(this.to_owned(), T::qualname(this)),
    }
}

fn waits_for<'py, T: Coroutine>(this: Inst<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    if T::life(this) != Life::Suspended {
        return Ok(py.None().into_bound(py));
    }
    Ok(T::waits_for(this).into_pyobject(py)?.into_any())
}

fn code<'py, T: Coroutine>(this: Inst<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    frames::code(this.py(), T::qualname(this))
}

fn origin<'py, T: Coroutine>(this: Inst<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    Ok(origins::of(&this.object()))
}

fn repr<'py, T: Coroutine>(this: Inst<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    let text = format!("<coroutine object {} at {:#x}>", T::qualname(this), this.object().as_ptr().addr());
    Ok(PyString::new(this.py(), &text).into_any())
}

/// `warnings._warn_unawaited_coroutine`. Looked up in time: it is also needed while the interpreter shuts down, and
/// then nothing can be imported.
static WARN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Called by the module's init.
pub(crate) fn init(py: Python<'_>) -> PyResult<()> {
    // SAFETY: a static type, ready before any module is imported.
    CORO_SEND.set(unsafe { ffi::PyCoro_Type.tp_as_async.as_ref().and_then(|slots| slots.am_send) });
    let _ = WARN.set(py, py.import("warnings")?.getattr("_warn_unawaited_coroutine")?.unbind());
    Ok(())
}

/// RuntimeWarning "coroutine 'x' was never awaited", for the finalizer of a native coroutine that never started.
pub(crate) fn warn_never_awaited(coroutine: &Bound<'_, PyAny>) {
    let py = coroutine.py();
    let current = PyErr::take(py);
    let warned = WARN.get(py).map_or(Ok(()), |warn| warn.bind(py).call1((coroutine,)).map(drop));
    if let Err(error) = warned {
        error.write_unraisable(py, Some(coroutine));
    }
    if let Some(error) = current {
        error.restore(py);
    }
}

unsafe extern "C" fn am_send<T: Awaitable>(
    slf: *mut PyObject,
    _: *mut PyObject,
    result: *mut *mut PyObject,
) -> ffi::PySendResult {
    // SAFETY: CPython calls the slot with the GIL held, a receiver of the class and a place for the result.
    unsafe {
        let py = Python::assume_attached();
        let step = resume_guarded(Inst::<T>::from_ptr(py, slf));
        match step {
            Ok(Step::Yield(value)) => {
                *result = value.into_ptr();
                ffi::PySendResult::PYGEN_NEXT
            }
            Ok(Step::Return(value)) => {
                *result = value.into_ptr();
                ffi::PySendResult::PYGEN_RETURN
            }
            Err(error) => {
                *result = ptr::null_mut();
                error.restore(py);
                ffi::PySendResult::PYGEN_ERROR
            }
        }
    }
}

/// A function that gives the next object of an iteration, or none at its end. (A trait for the reason given at
/// `method::Unary`.)
pub(crate) trait Next<T>: Copy + 'static {
    fn call<'py>(self, this: Inst<'_, 'py, T>) -> PyResult<Option<Bound<'py, PyAny>>>;
}

impl<F, T: Class> Next<T> for F
where
    F: for<'a, 'py> Fn(Inst<'a, 'py, T>) -> PyResult<Option<Bound<'py, PyAny>>> + Copy + 'static,
{
    #[inline]
    fn call<'py>(self, this: Inst<'_, 'py, T>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self(this)
    }
}

/// `tp_iternext` of a plain iterator.
pub(crate) fn next_slot<T: Class, F: Next<T>>(_: F) -> *mut c_void {
    unsafe extern "C" fn next<T: Class, F: Next<T>>(slf: *mut PyObject) -> *mut PyObject {
        // SAFETY: CPython calls the slot with the GIL held and a receiver of the class.
        unsafe {
            let py = Python::assume_attached();
            let this = Inst::<T>::from_ptr(py, slf);
            let mut over = false;
            let value = guard(py, || {
                Ok(item::<F>().call(this)?.unwrap_or_else(|| {
                    over = true;
                    py.None().into_bound(py)
                }))
            });
            if over {
                ffi::Py_DECREF(value);
                return ptr::null_mut(); // without an exception: the end
            }
            value
        }
    }
    next::<T, F> as *mut c_void
}

unsafe extern "C" fn iternext<T: Awaitable>(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls the slot with the GIL held and a receiver of the class.
    unsafe {
        let py = Python::assume_attached();
        let this = Inst::<T>::from_ptr(py, slf);
        match T::resume_at_once(this) {
            Some(brief) => passed_on(brief),
            None => resume_in_full(this),
        }
    }
}

#[inline(never)]
fn resume_in_full<T: Awaitable>(this: Inst<'_, '_, T>) -> *mut PyObject {
    stepped(this.py(), resume_guarded(this))
}

/// What `tp_iternext` returns for a step.
#[inline(always)]
#[allow(clippy::inline_always, reason = "folds away for whoever gives one or two kinds only")]
fn passed_on(brief: Brief<'_>) -> *mut PyObject {
    match brief {
        Brief::Pause => {
            // SAFETY: None lives as long as the interpreter; before 3.12 its references are counted.
            unsafe {
                let none = ffi::Py_None();
                #[cfg(not(Py_3_12))]
                ffi::Py_INCREF(none);
                none
            }
        }
        Brief::Yield(value) => value.into_ptr(),
        Brief::Return(value) => {
            if !value.is_none() {
                set_stop_iteration(&value);
            }
            ptr::null_mut()
        }
        Brief::End => ptr::null_mut(), // without an exception: exhausted, result None
    }
}

/// As [`passed_on`], for a step that may have failed.
#[inline]
fn stepped(py: Python<'_>, step: PyResult<Step<'_>>) -> *mut PyObject {
    match step {
        Ok(Step::Yield(value)) => passed_on(Brief::Yield(value)),
        Ok(Step::Return(value)) => passed_on(Brief::Return(value)),
        Err(error) => {
            error.restore(py);
            ptr::null_mut()
        }
    }
}

/// `tp_iternext` of futures, each the iterator of its own `await`: by what [`Awaitable::resume_at_once`] and
/// [`Awaitable::resume`] are for others.
pub(super) fn future_next<A, F>(_at_once: A, _resume: F) -> *mut c_void
where
    A: for<'a, 'py> Fn(Fut<'a, 'py>) -> Option<Brief<'py>> + Copy + 'static,
    F: for<'a, 'py> Fn(Fut<'a, 'py>) -> PyResult<Step<'py>> + Copy + 'static,
{
    unsafe extern "C" fn next<A, F>(slf: *mut PyObject) -> *mut PyObject
    where
        A: for<'a, 'py> Fn(Fut<'a, 'py>) -> Option<Brief<'py>> + Copy + 'static,
        F: for<'a, 'py> Fn(Fut<'a, 'py>) -> PyResult<Step<'py>> + Copy + 'static,
    {
        // SAFETY: CPython calls the slot with the GIL held and a future.
        unsafe {
            let py = Python::assume_attached();
            let future = Fut::new(Borrowed::from_ptr(py, slf));
            if let Some(brief) = item::<A>()(future) {
                return passed_on(brief);
            }
            let step = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| item::<F>()(future)));
            stepped(py, step.unwrap_or_else(|panic| Err(bug(panic.as_ref()))))
        }
    }
    next::<A, F> as *mut c_void
}

#[inline]
fn resume_guarded<'py, T: Awaitable>(this: Inst<'_, 'py, T>) -> PyResult<Step<'py>> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| T::resume(this))) {
        Ok(step) => step,
        Err(panic) => Err(bug(panic.as_ref())),
    }
}

/// Raises `StopIteration(value)`: also right for tuples and exceptions, which CPython would unpack.
fn set_stop_iteration(value: &Bound<'_, PyAny>) {
    // SAFETY: live objects, the GIL is held, and what is given away is a new reference. On failure an exception is set
    // all the same.
    unsafe {
        #[cfg(not(Py_3_12))]
        {
            if ffi::PyTuple_Check(value.as_ptr()) == 0 && ffi::PyExceptionInstance_Check(value.as_ptr()) == 0
            {
                ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value.as_ptr()); // made when somebody looks at it
                return;
            }
            let stop = new_stop_iteration(value);
            if !stop.is_null() {
                ffi::PyErr_SetObject(ffi::PyExc_StopIteration, stop);
                ffi::Py_DECREF(stop);
            }
        }
        #[cfg(Py_3_12)]
        {
            let stop = stop::new(value);
            if !stop.is_null() {
                ffi::PyErr_SetRaisedException(stop);
            }
        }
    }
}

/// `StopIteration(value)`, put together by hand, which takes a third of the time of a call of its class; null and an
/// exception if there is no memory.
#[cfg(not(Py_3_12))]
unsafe fn new_stop_iteration(value: &Bound<'_, PyAny>) -> *mut PyObject {
    // SAFETY: live objects, the GIL is held. The memory comes zeroed, which is a StopIteration without arguments, and
    // the two references are given to its fields.
    unsafe {
        let args = ffi::PyTuple_Pack(1, value.as_ptr());
        if args.is_null() {
            return args;
        }
        let stop = ffi::PyType_GenericAlloc(ffi::PyExc_StopIteration.cast(), 0);
        if stop.is_null() {
            ffi::Py_DECREF(args);
            return stop;
        }
        let fields = stop.cast::<ffi::PyStopIterationObject>();
        (*fields).args = args;
        (*fields).value = value.clone().into_ptr();
        stop
    }
}

fn into_object(step: Step<'_>) -> PyResult<Bound<'_, PyAny>> {
    match step {
        Step::Yield(value) => Ok(value),
        Step::Return(value) => {
            let py = value.py();
            Err(PyErr::from_value(py.get_type::<PyStopIteration>().call1((value,))?))
        }
    }
}

fn method_send<'py, T: Awaitable>(
    this: Inst<'_, 'py, T>,
    _: Borrowed<'_, 'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    into_object(T::resume(this)?)
}

fn method_throw<'py, T: Awaitable>(
    this: Inst<'_, 'py, T>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    into_object(T::throw(this, thrown(args)?)?)
}

fn method_close<'py, T: Awaitable>(this: Inst<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    T::close(this)?;
    Ok(this.py().None().into_bound(this.py()))
}

/// `__iter__` and `__await__` of what is its own iterator.
unsafe extern "C" fn itself(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls the slot with the GIL held and a live receiver; what it returns is a new reference.
    unsafe { ffi::Py_INCREF(slf) };
    slf
}

/// The exception that `throw(value)` or the deprecated `throw(type, value, traceback)` means.
pub(crate) fn thrown(args: Args<'_, '_>) -> PyResult<PyErr> {
    let py = args.py();
    let (Some(first), 1..=3) = (args.get(0), args.len()) else {
        return Err(wrong_count("throw", 1, 3, args.len()));
    };
    if args.len() > 1 {
        let category = py.get_type::<pyo3::exceptions::PyDeprecationWarning>();
        let text =
            c"the (type, exc, tb) signature of throw() is deprecated, use the single-arg signature instead.";
        PyErr::warn(py, &category, text, 1)?;
    }
    let given = |i| args.get(i).filter(|v| !v.is_none());
    let traceback = match given(2) {
        Some(tb) => Some(
            tb.cast::<PyTraceback>()
                .map_err(|_| PyTypeError::new_err("throw() third argument must be a traceback"))?
                .to_owned(),
        ),
        None => None,
    };
    let base = py.get_type::<pyo3::exceptions::PyBaseException>();
    let error = if first.is_instance(&base)? {
        if given(1).is_some() {
            return Err(PyTypeError::new_err("instance exception may not have a separate value"));
        }
        PyErr::from_value(first.to_owned())
    } else if first.cast::<pyo3::types::PyType>().is_ok_and(|t| t.is_subclass(&base).unwrap_or(false)) {
        let value = match given(1) {
            Some(value) if value.is_instance(&first)? => value.to_owned(),
            Some(value) => first.call1((value,))?,
            None => first.call0()?,
        };
        PyErr::from_value(value)
    } else {
        return Err(PyTypeError::new_err(
            "exceptions must be classes deriving BaseException or instances of such a class",
        ));
    };
    if traceback.is_some() {
        error.set_traceback(py, traceback);
    }
    Ok(error)
}

/// What `await` on a coroutine that is over raises.
pub(crate) fn reused() -> PyErr {
    PyRuntimeError::new_err("cannot reuse already awaited coroutine")
}

impl Builder {
    /// The iterator half: `__iter__`, `__next__`, `send`, `throw`, `close`.
    pub(crate) fn iterator<T: Awaitable>(self) -> Self {
        self.slot(ffi::Py_tp_iter, itself as *mut c_void)
            .slot(ffi::Py_tp_iternext, iternext::<T> as *mut c_void)
            .slot(ffi::Py_am_send, am_send::<T> as *mut c_void)
            .method(onearg::<Of<T>, _>(c"send", method_send::<T>))
            .method(anyargs::<Of<T>, _>(c"throw", method_throw::<T>))
            .method(noargs::<Of<T>, _>(c"close", method_close::<T>))
    }

    /// The iterator half and `__await__`: a native coroutine, under the name of the `async def` it stands for.
    pub(crate) fn coroutine<T: Coroutine>(self) -> Self {
        self.iterator::<T>()
            .slot(ffi::Py_am_await, itself as *mut c_void)
            .slot(ffi::Py_tp_repr, unary::<Of<T>, _>(repr::<T>))
            .attribute(getter::<Of<T>, _>(c"__name__", name::<T>))
            .attribute(getter::<Of<T>, _>(c"__qualname__", qualname::<T>))
            .attribute(getter::<Of<T>, _>(c"cr_running", running::<T>))
            .attribute(getter::<Of<T>, _>(c"cr_suspended", suspended::<T>))
            .attribute(getter::<Of<T>, _>(c"cr_state", state::<T>))
            .attribute(getter::<Of<T>, _>(c"cr_origin", origin::<T>))
            .attribute(getter::<Of<T>, _>(c"cr_code", code::<T>))
            .attribute(getter::<Of<T>, _>(c"cr_await", awaited::<T>))
            .attribute(getter::<Of<T>, _>(c"_waits_for", waits_for::<T>))
            .attribute(getter::<Of<T>, _>(c"cr_frame", frame::<T>))
    }
}
