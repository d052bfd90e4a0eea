//! The memory of CPython's own `_asyncio.Future` and `_asyncio.Task`, which ours extend.
//!
//! aioxide.Future adds nothing to the base's memory and aioxide.Task inherits from both, so every field keeps the
//! meaning CPython gives it and the base's own functions (`all_tasks`, `ps`, the garbage collector) stay right.
//! The layout is private to CPython: `verify` compares it with live objects when the extension is imported and
//! refuses to load where it differs. Everything above this file uses the typed references [`Fut`] and [`Tsk`].
#![allow(unsafe_code, reason = "reads and writes the fields of CPython's own objects")]

use std::os::raw::c_int;

use pyo3::Borrowed;
use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// What both kinds share: CPython's `FutureObj`.
#[repr(C)]
struct FutureObj {
    ob_base: PyObject,
    event_loop: *mut PyObject,
    callback0: *mut PyObject,
    context0: *mut PyObject,
    callbacks: *mut PyObject,
    exception: *mut PyObject,
    exception_tb: *mut PyObject,
    result: *mut PyObject,
    source_tb: *mut PyObject,
    cancel_msg: *mut PyObject,
    #[cfg(Py_3_13)]
    cancelled_exc: *mut PyObject,
    #[cfg(Py_3_14)]
    awaited_by: *mut PyObject,
    state: c_int,
    #[cfg(not(Py_3_13))]
    log_tb: c_int,
    #[cfg(not(Py_3_13))]
    blocking: c_int,
    #[cfg(not(Py_3_13))]
    dict: *mut PyObject,
    #[cfg(not(Py_3_13))]
    weakreflist: *mut PyObject,
    #[cfg(not(Py_3_13))]
    cancelled_exc: *mut PyObject,
    #[cfg(Py_3_14)]
    is_task: u8,
    #[cfg(Py_3_14)]
    awaited_by_is_set: u8,
    #[cfg(Py_3_13)]
    bits: u8,
}

/// A node of the thread's list of tasks (CPython 3.14 and later).
#[cfg(Py_3_14)]
#[repr(C)]
pub(super) struct Node {
    pub(super) next: *mut Node,
    pub(super) prev: *mut Node,
}

/// `serial` is ours: four bytes that CPython's structure has for alignment only, after `num_cancels`.
#[repr(C)]
struct TaskObj {
    future: FutureObj,
    #[cfg(Py_3_13)]
    num_cancels: c_int,
    #[cfg(Py_3_13)]
    serial: u32,
    fut_waiter: *mut PyObject,
    coro: *mut PyObject,
    name: *mut PyObject,
    context: *mut PyObject,
    #[cfg(not(Py_3_13))]
    must_cancel: c_int,
    #[cfg(not(Py_3_13))]
    log_destroy_pending: c_int,
    #[cfg(not(Py_3_13))]
    num_cancels: c_int,
    #[cfg(not(Py_3_13))]
    serial: u32,
    #[cfg(Py_3_14)]
    node: Node,
}

pub(super) const FUTURE_SIZE: usize = size_of::<FutureObj>();
pub(super) const TASK_SIZE: usize = size_of::<TaskObj>();

#[cfg(Py_3_13)]
const LOG_TB: u8 = 1;
#[cfg(Py_3_13)]
const BLOCKING: u8 = 2;
#[cfg(Py_3_13)]
const MUST_CANCEL: u8 = 4;
#[cfg(Py_3_13)]
const LOG_DESTROY_PENDING: u8 = 8;

/// Where a future is in its life; the numbers are CPython's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Pending = 0,
    Cancelled = 1,
    Finished = 2,
}

/// A reference to a live `_asyncio.Future` or `Task`, or to an instance of a subclass (ours, always).
#[derive(Clone, Copy)]
pub(crate) struct Fut<'a, 'py> {
    obj: Borrowed<'a, 'py, PyAny>,
}

/// A reference to a live `_asyncio.Task` or to an instance of a subclass.
#[derive(Clone, Copy)]
pub(crate) struct Tsk<'a, 'py> {
    fut: Fut<'a, 'py>,
}

/// Getter, setter and taker of one field that holds an object or nothing.
macro_rules! object_field {
    ($via:ident, $field:ident, $get:ident, $set:ident, $take:ident) => {
        /// A new reference to what the field holds.
        #[inline]
        #[allow(dead_code, reason = "each field has the same three methods, used or not")]
        pub(crate) fn $get(self) -> Option<Bound<'py, PyAny>> {
            // SAFETY: the field is null or owns a reference, and the GIL is held ('py).
            unsafe { Bound::from_borrowed_ptr_or_opt(self.py(), (*self.$via()).$field) }
        }

        /// Stores `value`. The old value is given back, to be dropped when the state is consistent.
        #[inline]
        #[allow(dead_code, reason = "each field has the same three methods, used or not")]
        pub(crate) fn $set(self, value: Option<Bound<'py, PyAny>>) -> Option<Bound<'py, PyAny>> {
            let new = value.map_or(std::ptr::null_mut(), Bound::into_ptr);
            // SAFETY: as above; ownership of the old reference moves to the caller, of the new one to the field.
            unsafe {
                let old = std::mem::replace(&mut (*self.$via()).$field, new);
                Bound::from_owned_ptr_or_opt(self.py(), old)
            }
        }

        /// Takes the value out of the field.
        #[inline]
        #[allow(dead_code, reason = "each field has the same three methods, used or not")]
        pub(crate) fn $take(self) -> Option<Bound<'py, PyAny>> {
            self.$set(None)
        }
    };
}

/// Getter and setter of a flag: a bit since 3.13, an int before.
macro_rules! flag_field {
    ($via:ident, $field:ident, $bit:ident, $set:ident) => {
        #[inline]
        pub(crate) fn $field(self) -> bool {
            // SAFETY: a plain read of a live object under the GIL.
            #[cfg(Py_3_13)]
            unsafe {
                (*self.future()).bits & $bit != 0
            }
            // SAFETY: as above.
            #[cfg(not(Py_3_13))]
            unsafe {
                (*self.$via()).$field != 0
            }
        }

        #[inline]
        #[allow(dead_code, reason = "each field has the same three methods, used or not")]
        pub(crate) fn $set(self, on: bool) {
            // SAFETY: a plain write to a live object under the GIL.
            #[cfg(Py_3_13)]
            unsafe {
                let bits = &mut (*self.future()).bits;
                *bits = if on { *bits | $bit } else { *bits & !$bit };
            }
            // SAFETY: as above.
            #[cfg(not(Py_3_13))]
            unsafe {
                (*self.$via()).$field = c_int::from(on);
            }
        }
    };
}

impl<'a, 'py> Fut<'a, 'py> {
    /// # Safety
    /// `obj` is an instance of `_asyncio.Future`, `_asyncio.Task` or a subclass of one.
    #[inline]
    pub(super) unsafe fn new(obj: Borrowed<'a, 'py, PyAny>) -> Self {
        Self { obj }
    }

    #[inline]
    pub(crate) fn py(self) -> Python<'py> {
        self.obj.py()
    }

    /// The object itself.
    #[inline]
    pub(crate) fn object(self) -> Borrowed<'a, 'py, PyAny> {
        self.obj
    }

    #[inline]
    fn future(self) -> *mut FutureObj {
        self.obj.as_ptr().cast()
    }

    /// The event loop without a new reference: for comparisons and look-ups that run no Python code.
    #[inline]
    pub(crate) fn loop_ptr(self) -> *mut PyObject {
        // SAFETY: a plain read of a live object under the GIL.
        unsafe { (*self.future()).event_loop }
    }

    #[inline]
    pub(crate) fn is_initialized(self) -> bool {
        !self.loop_ptr().is_null()
    }

    #[inline]
    pub(crate) fn state(self) -> State {
        // SAFETY: a plain read of a live object under the GIL.
        match unsafe { (*self.future()).state } {
            0 => State::Pending,
            1 => State::Cancelled,
            _ => State::Finished,
        }
    }

    #[inline]
    pub(crate) fn is_pending(self) -> bool {
        self.state() == State::Pending
    }

    #[inline]
    pub(crate) fn set_state(self, state: State) {
        // SAFETY: a plain write to a live object under the GIL.
        unsafe { (*self.future()).state = state as c_int }
    }

    /// Whether it is done, with a result and not an exception.
    #[inline]
    pub(crate) fn has_result(self) -> bool {
        // SAFETY: a plain read of a live object under the GIL.
        self.state() == State::Finished && unsafe { (*self.future()).exception.is_null() }
    }

    /// Whether anything waits for this future's completion.
    #[inline]
    pub(crate) fn has_callbacks(self) -> bool {
        // SAFETY: plain reads of a live object under the GIL.
        unsafe { !(*self.future()).callback0.is_null() || !(*self.future()).callbacks.is_null() }
    }

    object_field!(future, event_loop, event_loop, set_event_loop, take_event_loop);
    object_field!(future, callback0, callback0, set_callback0, take_callback0);
    object_field!(future, context0, context0, set_context0, take_context0);
    object_field!(future, callbacks, callbacks, set_callbacks, take_callbacks);
    object_field!(future, exception, exception, set_exception, take_exception);
    object_field!(future, exception_tb, exception_tb, set_exception_tb, take_exception_tb);
    object_field!(future, result, result, set_result, take_result);
    object_field!(future, source_tb, source_tb, set_source_tb, take_source_tb);
    object_field!(future, cancel_msg, cancel_msg, set_cancel_msg, take_cancel_msg);
    object_field!(future, cancelled_exc, cancelled_exc, set_cancelled_exc, take_cancelled_exc);
    flag_field!(future, log_tb, LOG_TB, set_log_tb);
    flag_field!(future, blocking, BLOCKING, set_blocking);
}

/// The edges "is awaited by" that `capture_call_graph` and `python -m asyncio ps` follow (3.14 and later).
#[cfg(Py_3_14)]
impl<'py> Fut<'_, 'py> {
    object_field!(future, awaited_by, awaited_by, set_awaited_by, take_awaited_by);

    /// Whether `awaited_by` holds a set of tasks and not the one task.
    #[inline]
    pub(crate) fn awaited_by_is_set(self) -> bool {
        // SAFETY: a plain read of a live object under the GIL.
        unsafe { (*self.future()).awaited_by_is_set != 0 }
    }

    #[inline]
    pub(crate) fn set_awaited_by_is_set(self, on: bool) {
        // SAFETY: a plain write to a live object under the GIL.
        unsafe { (*self.future()).awaited_by_is_set = u8::from(on) }
    }

    /// The one task that awaits this future, without a new reference.
    #[inline]
    pub(crate) fn awaited_by_ptr(self) -> *mut PyObject {
        // SAFETY: a plain read of a live object under the GIL.
        unsafe { (*self.future()).awaited_by }
    }

    #[inline]
    pub(crate) fn set_is_task(self, on: bool) {
        // SAFETY: a plain write to a live object under the GIL.
        unsafe { (*self.future()).is_task = u8::from(on) }
    }
}

/// Before 3.14 nobody keeps these edges (see `version::AWAITED_BY`).
#[cfg(not(Py_3_14))]
#[allow(clippy::unused_self, reason = "the same methods on every Python")]
impl<'py> Fut<'_, 'py> {
    pub(crate) fn awaited_by(self) -> Option<Bound<'py, PyAny>> {
        None
    }

    pub(crate) fn set_awaited_by(self, value: Option<Bound<'py, PyAny>>) -> Option<Bound<'py, PyAny>> {
        value
    }

    pub(crate) fn take_awaited_by(self) -> Option<Bound<'py, PyAny>> {
        None
    }

    pub(crate) fn awaited_by_is_set(self) -> bool {
        false
    }

    pub(crate) fn set_awaited_by_is_set(self, _: bool) {}

    pub(crate) fn awaited_by_ptr(self) -> *mut PyObject {
        std::ptr::null_mut()
    }

    pub(crate) fn set_is_task(self, _: bool) {}
}

impl<'a, 'py> Tsk<'a, 'py> {
    /// # Safety
    /// `obj` is an instance of `_asyncio.Task` or of a subclass.
    #[inline]
    pub(super) unsafe fn new(obj: Borrowed<'a, 'py, PyAny>) -> Self {
        // SAFETY: a task is a future; the caller vouches for the task.
        Self { fut: unsafe { Fut::new(obj) } }
    }

    #[inline]
    pub(crate) fn py(self) -> Python<'py> {
        self.fut.py()
    }

    /// The task as the future it is.
    #[inline]
    pub(crate) fn fut(self) -> Fut<'a, 'py> {
        self.fut
    }

    /// The object itself.
    #[inline]
    pub(crate) fn object(self) -> Borrowed<'a, 'py, PyAny> {
        self.fut.obj
    }

    #[cfg(Py_3_13)] // where the flags of both are bits of one byte
    #[inline]
    fn future(self) -> *mut FutureObj {
        self.fut.future()
    }

    #[inline]
    fn task(self) -> *mut TaskObj {
        self.object().as_ptr().cast()
    }

    /// How many cancellations have been asked for and not taken back.
    #[inline]
    pub(crate) fn num_cancels(self) -> c_int {
        // SAFETY: a plain read of a live object under the GIL.
        unsafe { (*self.task()).num_cancels }
    }

    #[inline]
    pub(crate) fn set_num_cancels(self, n: c_int) {
        // SAFETY: a plain write to a live object under the GIL.
        unsafe { (*self.task()).num_cancels = n }
    }

    /// Tells a task of ours from every other that had, or will have, its memory; 0 for tasks that aren't ours.
    #[inline]
    pub(crate) fn serial(self) -> u32 {
        // SAFETY: a plain read of a live object under the GIL.
        unsafe { (*self.task()).serial }
    }

    #[inline]
    pub(crate) fn set_serial(self, serial: u32) {
        // SAFETY: a plain write to a live object under the GIL.
        unsafe { (*self.task()).serial = serial }
    }

    /// The coroutine without a new reference. A second `__init__` of the task keeps it alive if it runs (see
    /// `tasks::start`); nothing else takes it from a task that is not done.
    #[inline]
    pub(crate) fn coro_ref(self) -> Option<Borrowed<'a, 'py, PyAny>> {
        // SAFETY: the field is null or owns a reference, as said above for as long as the coroutine runs.
        unsafe {
            let coro = (*self.task()).coro;
            (!coro.is_null()).then(|| Borrowed::from_ptr(self.py(), coro))
        }
    }

    /// The context without a new reference; kept alive as the coroutine is.
    #[inline]
    pub(crate) fn context_ref(self) -> Option<Borrowed<'a, 'py, PyAny>> {
        // SAFETY: as for the coroutine.
        unsafe {
            let context = (*self.task()).context;
            (!context.is_null()).then(|| Borrowed::from_ptr(self.py(), context))
        }
    }

    object_field!(task, fut_waiter, fut_waiter, set_fut_waiter, take_fut_waiter);
    object_field!(task, coro, coro, set_coro, take_coro);
    object_field!(task, name, name, set_name, take_name);
    object_field!(task, context, context, set_context, take_context);
    flag_field!(task, must_cancel, MUST_CANCEL, set_must_cancel);
    flag_field!(task, log_destroy_pending, LOG_DESTROY_PENDING, set_log_destroy_pending);
}

#[cfg(Py_3_14)]
impl Tsk<'_, '_> {
    /// The task's place in its thread's list of tasks.
    pub(super) fn node(self) -> *mut Node {
        // SAFETY: the address of a field of a live object.
        unsafe { &raw mut (*self.task()).node }
    }
}

/// Compares the layout above with live objects of this interpreter; `ImportError` where they differ.
pub(crate) fn verify(py: Python<'_>) -> PyResult<()> {
    let namespace = PyDict::new(py);
    py.run(pyo3::ffi::c_str!(include_str!("probe.py")), Some(&namespace), None)?;
    let get = |name: &str| -> PyResult<Bound<'_, PyAny>> {
        namespace
            .get_item(name)?
            .ok_or_else(|| pyo3::exceptions::PyImportError::new_err(format!("probe.py lacks {name}")))
    };
    let sizes = (get("Future")?, get("Task")?);
    let size = |class: &Bound<'_, PyAny>| class.getattr("__basicsize__")?.extract::<usize>();
    let mut wrong = Vec::new();
    if size(&sizes.0)? != FUTURE_SIZE || size(&sizes.1)? != TASK_SIZE {
        wrong.push("size");
    } else {
        let check = |ok: bool, what: &'static str, wrong: &mut Vec<&'static str>| {
            if !ok {
                wrong.push(what);
            }
        };
        let is =
            |field: Option<Bound<'_, PyAny>>, value: &Bound<'_, PyAny>| field.is_some_and(|f| f.is(value));
        let mark = get("mark")?;
        let objects = (get("pending")?, get("done")?, get("failed")?, get("cancelled")?, get("task")?);
        // SAFETY: the sizes agree and probe.py made these with `_asyncio.Future` and `_asyncio.Task`.
        let (pending, done, failed, cancelled, task) = unsafe {
            (
                Fut::new(objects.0.as_borrowed()),
                Fut::new(objects.1.as_borrowed()),
                Fut::new(objects.2.as_borrowed()),
                Fut::new(objects.3.as_borrowed()),
                Tsk::new(objects.4.as_borrowed()),
            )
        };
        check(is(pending.event_loop(), &get("event_loop")?), "loop", &mut wrong);
        check(is(pending.callback0(), &mark), "callback0", &mut wrong);
        check(is(pending.context0(), &get("context")?), "context0", &mut wrong);
        check(pending.callbacks().is_some_and(|c| c.len().is_ok_and(|n| n == 1)), "callbacks", &mut wrong);
        check(is(pending.cancel_msg(), &mark), "cancel_msg", &mut wrong);
        check(pending.is_pending() && pending.blocking() && !pending.log_tb(), "flags", &mut wrong);
        check(done.state() == State::Finished && is(done.result(), &mark), "result", &mut wrong);
        check(!done.blocking(), "blocking", &mut wrong);
        check(is(failed.exception(), &get("error")?) && failed.log_tb(), "exception", &mut wrong);
        check(failed.exception_tb().is_some(), "exception_tb", &mut wrong);
        failed.set_log_tb(false);
        check(cancelled.state() == State::Cancelled, "state", &mut wrong);
        check(is(task.coro(), &get("coro")?), "coro", &mut wrong);
        check(is(task.name(), &get("name")?), "name", &mut wrong);
        check(is(task.context(), &get("context")?), "context", &mut wrong);
        check(task.must_cancel() && !task.log_destroy_pending(), "task flags", &mut wrong);
        check(task.num_cancels() == 2 && task.fut_waiter().is_none(), "num_cancels", &mut wrong);
        check(task.serial() == 0, "unused memory", &mut wrong);
        #[cfg(Py_3_14)]
        check(is(pending.awaited_by(), &objects.4) && !pending.awaited_by_is_set(), "awaited_by", &mut wrong);
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(pyo3::exceptions::PyImportError::new_err(format!(
        "aioxide was built for another build of this Python: the layout of _asyncio differs in {}",
        wrong.join(", ")
    )))
}

/// The bases of our two types: `_asyncio.Future` and `_asyncio.Task`.
pub(super) fn stock_types(py: Python<'_>) -> PyResult<(Bound<'_, PyAny>, Bound<'_, PyAny>)> {
    // asyncio first: `_asyncio` alone, imported before it, makes asyncio fall back to its Python classes.
    py.import("asyncio")?;
    let module = py.import("_asyncio")?;
    Ok((module.getattr("Future")?, module.getattr("Task")?))
}

/// The bases of aioxide.Task: our Future, then CPython's Task.
pub(super) fn task_bases<'py>(
    future: &Bound<'py, PyAny>,
    stock_task: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(future.py(), [future, stock_task])
}
