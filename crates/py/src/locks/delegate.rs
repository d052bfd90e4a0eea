//! An awaitable inside a native coroutine: `await something` of a method that Python code may have
//! overridden.

use pyo3::exceptions::PyGeneratorExit;
use pyo3::intern;
use pyo3::prelude::*;

use crate::ffi::cell::Slot;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::iter::{self, Step, reused};

/// The iterator of what is awaited, while it is.
pub(super) struct Delegate(Slot);

impl Delegate {
    pub(super) const fn new() -> Self {
        Self(Slot::empty())
    }

    /// Awaits `awaitable`; [`run`](Self::run) takes it to its first stop.
    pub(super) fn begin(&self, awaitable: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = awaitable.py();
        self.0.set(py, awaitable.call_method0(intern!(py, "__await__"))?);
        Ok(())
    }

    /// Goes on, with an exception if there is one.
    pub(super) fn run<'py>(&self, py: Python<'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        let Some(inner) = self.0.take(py) else { return Err(error.unwrap_or_else(reused)) };
        let step = match error {
            None => iter::send_none(&inner)?,
            Some(error) if error.is_instance_of::<PyGeneratorExit>(py) => {
                inner.call_method0(intern!(py, "close"))?;
                return Err(error);
            }
            Some(error) => iter::throw(&inner, error.value(py))?,
        };
        if matches!(step, Step::Yield(_)) {
            self.0.set(py, inner);
        }
        Ok(step)
    }

    /// What is awaited, while it is.
    pub(super) fn awaited<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.0.get(py)
    }
}

impl Holds for Delegate {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.0.traverse(visit)
    }

    #[inline]
    fn clear(&self, py: Python<'_>) {
        drop(self.0.take(py));
    }
}
