//! Running code as an `except` block runs it: with an exception that `sys.exc_info()` shows.
#![allow(unsafe_code, reason = "PyErr_SetHandledException")]

use pyo3::exceptions::PyBaseException;
use pyo3::ffi;
use pyo3::prelude::*;

/// What was being handled before.
struct Before(*mut ffi::PyObject);

impl Drop for Before {
    fn drop(&mut self) {
        // SAFETY: lives within `handling`, which has the GIL; a reference of our own, or null for nothing.
        unsafe {
            ffi::PyErr_SetHandledException(self.0);
            ffi::Py_XDECREF(self.0);
        }
    }
}

/// Runs `body` while `exception` is being handled.
pub(crate) fn handling<R>(exception: &Bound<'_, PyBaseException>, body: impl FnOnce() -> R) -> R {
    // SAFETY: the GIL is held, as `exception` is bound; the calls give and take what they are documented to.
    let before = unsafe { Before(ffi::PyErr_GetHandledException()) };
    // SAFETY: as above; a new reference is taken of a live exception.
    unsafe { ffi::PyErr_SetHandledException(exception.as_ptr()) };
    let result = body();
    drop(before);
    result
}
