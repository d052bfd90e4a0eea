//! What a native coroutine waits for: one future, yielded to the task that awaits the coroutine.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;

use crate::ffi::cell::Slot;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::iter::Step;
use crate::ffi::layout::{Fut, State};
use crate::futures;

/// The future under way, if any.
#[derive(Debug)]
pub(crate) struct Parked(Slot);

impl Parked {
    pub(crate) const fn new() -> Self {
        Self(Slot::empty())
    }

    /// Yields `future`, as `await future` would.
    #[inline]
    pub(crate) fn wait<'py>(&self, future: Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = future.py();
        match Fut::cast_exact(&future) {
            Some(known) => known.set_blocking(true),
            None => future.setattr(intern!(py, "_asyncio_future_blocking"), true)?,
        }
        self.0.set(py, future.clone());
        Ok(Step::Yield(future))
    }

    /// Resumed: the result of the future, which must be done by now. It stays here until `leave` or the next
    /// `wait`.
    #[inline]
    pub(crate) fn outcome<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Some(future) = self.0.get(py) else { return Ok(py.None().into_bound(py)) };
        match Fut::cast_exact(&future) {
            Some(known) if known.is_pending() => {
                Err(PyRuntimeError::new_err("await wasn't used with future"))
            }
            Some(known) => futures::result(known),
            None => future.call_method0(intern!(py, "result")),
        }
    }

    /// The future under way.
    pub(crate) fn future<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.0.get(py)
    }

    /// Waits no more (thrown into, closed); the future is handed back.
    pub(crate) fn leave<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.0.take(py)
    }
}

impl Holds for Parked {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.0.traverse(visit)
    }

    #[inline]
    fn clear(&self, py: Python<'_>) {
        drop(self.leave(py));
    }
}

/// How the wait for a future ended, for those who don't need its result.
#[inline]
pub(crate) fn outcome_of(future: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let Some(future) = future else { return Ok(()) };
    match Fut::cast_exact(future) {
        Some(known) => match known.state() {
            State::Finished if known.exception().is_none() => Ok(()),
            State::Pending => Err(PyRuntimeError::new_err("await wasn't used with future")),
            State::Finished | State::Cancelled => futures::result(known).map(drop),
        },
        None => future.call_method0(intern!(future.py(), "result")).map(drop),
    }
}
