//! One way to show objects to the garbage collector, for raw classes and PyO3 classes alike.
#![allow(unsafe_code, reason = "calls the collector's visit function")]

use std::cell::Cell;
use std::ffi::c_void;

use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

/// The collector's visitor.
pub(crate) struct Visit<'a>(Kind<'a>);

enum Kind<'a> {
    Raw { visit: ffi::visitproc, arg: *mut c_void, status: Cell<i32> },
    Pyo3(&'a PyVisit<'a>),
}

/// The collector wants no more objects.
pub(crate) struct Stopped(Option<PyTraverseError>);

impl From<Stopped> for Result<(), PyTraverseError> {
    fn from(stopped: Stopped) -> Self {
        stopped.0.map_or(Ok(()), Err)
    }
}

impl std::fmt::Debug for Visit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Visit")
    }
}

impl Visit<'_> {
    /// Shows one object, or nothing.
    pub(crate) fn call(&self, object: Option<&Py<PyAny>>) -> Result<(), Stopped> {
        let Some(object) = object else { return Ok(()) };
        match &self.0 {
            Kind::Pyo3(visit) => visit.call(object).map_err(|e| Stopped(Some(e))),
            Kind::Raw { visit, arg, status } => {
                // SAFETY: the collector's own function and argument, with a live object, inside its tp_traverse call.
                status.set(unsafe { visit(object.as_ptr(), *arg) });
                if status.get() == 0 { Ok(()) } else { Err(Stopped(None)) }
            }
        }
    }
}

/// Runs `f` within PyO3's `__traverse__`.
pub(crate) fn traverse_pyclass(
    visit: &PyVisit<'_>,
    f: impl FnOnce(&Visit<'_>) -> Result<(), Stopped>,
) -> Result<(), PyTraverseError> {
    match f(&Visit(Kind::Pyo3(visit))) {
        Ok(()) => Ok(()),
        Err(stopped) => stopped.into(),
    }
}

/// Runs `f` within a `tp_traverse`; the answer is what the slot returns.
///
/// # Safety
/// `visit` and `arg` are those of the running `tp_traverse` call.
pub(super) unsafe fn traverse_raw(
    visit: ffi::visitproc,
    arg: *mut c_void,
    f: impl FnOnce(&Visit<'_>) -> Result<(), Stopped>,
) -> i32 {
    let visit = Visit(Kind::Raw { visit, arg, status: Cell::new(0) });
    let _ = f(&visit);
    match visit.0 {
        Kind::Raw { status, .. } => status.get(),
        Kind::Pyo3(_) => 0,
    }
}
