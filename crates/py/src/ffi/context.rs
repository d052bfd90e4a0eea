//! contextvars.Context: copied, entered, left. And the interpreter's guard against endless recursion.
#![allow(unsafe_code, reason = "PyContext_* and recursion functions")]

use pyo3::ffi;
use pyo3::prelude::*;

/// `contextvars.copy_context()`.
#[inline]
pub(crate) fn copy_current(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the GIL is held; a new reference or an exception.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }
}

/// Whether the object is a contextvars.Context.
pub(crate) fn is_context(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object.
    unsafe { ffi::PyContext_CheckExact(object.as_ptr()) != 0 }
}

/// `context.run(f)`: enters the context, calls `f`, leaves it whatever `f` did.
#[inline(always)]
#[allow(clippy::inline_always, reason = "around each step and callback")]
pub(crate) fn run<'py, R>(context: &Bound<'py, PyAny>, f: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    let py = context.py();
    if !is_context(context) {
        return Err(not_a_context(context));
    }
    // SAFETY: a live Context; the GIL is held.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
        return Err(not_left(py));
    }
    let result = f();
    // SAFETY: as above; it is the context entered last, as `f` leaves what it enters.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } < 0 {
        return result.and(Err(not_left(py)));
    }
    result
}

/// Runs `f` one level deeper; RecursionError where Python's limit is reached (tasks that wait on each other in a circle).
pub(crate) fn recursive<R>(py: Python<'_>, f: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    // SAFETY: the GIL is held; every successful entry is left again below.
    if unsafe { ffi::Py_EnterRecursiveCall(c" while cancelling a task".as_ptr()) } != 0 {
        return Err(PyErr::fetch(py));
    }
    let result = f();
    // SAFETY: pairs with the entry above.
    unsafe { ffi::Py_LeaveRecursiveCall() };
    result
}

#[cold]
fn not_left(py: Python<'_>) -> PyErr {
    PyErr::fetch(py)
}

#[cold]
pub(crate) fn not_a_context(object: &Bound<'_, PyAny>) -> PyErr {
    let shown = object.get_type().name().map_or_else(|_| String::new(), |n| n.to_string());
    pyo3::exceptions::PyTypeError::new_err(format!("a contextvars.Context was expected, got {shown}"))
}
