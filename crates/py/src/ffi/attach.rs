//! Saying to PyO3 that the interpreter is held, where no token is at hand or where what is dropped must go at once.
//!
//! Called by async_fn.rs and by whatever drops objects in a finalizer.
#![allow(unsafe_code, reason = "PyO3's own way in refuses to work while the interpreter ends")]

use pyo3::prelude::*;

/// Runs `f` with the interpreter that this thread holds.
#[inline]
pub(crate) fn attached<R>(f: impl for<'py> FnOnce(Python<'py>) -> R) -> R {
    // SAFETY: there is an interpreter, as all code of an extension is called by it; that is so in the finalizers and
    // collections of its end too, where `Python::attach` would panic.
    unsafe { Python::attach_unchecked(f) }
}
