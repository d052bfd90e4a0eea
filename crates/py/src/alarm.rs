//! One timed job that can be taken back: the scheduler's own on a native loop, a TimerHandle's on any other loop and on
//! one that sets its timers by methods of its own.

use aioxide_core::TimerKey;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyFloat;

use crate::ffi::cell::{Flag, Slot};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::job::Timed;
use crate::local::LoopCore;

/// At most one job, not run yet.
#[derive(Debug)]
pub(crate) struct Alarm {
    /// The native loop that has the timer, or the handle.
    keeper: Slot,
    timer: Flag<Option<TimerKey>>,
}

impl Alarm {
    pub(crate) const fn unset() -> Self {
        Self { keeper: Slot::empty(), timer: Flag::new(None) }
    }

    /// Lets `timed` have its turn at a time of the loop's clock; where that is not native, `callback` is called (with no argument).
    #[inline]
    pub(crate) fn set_at<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        when: &When<'py>,
        timed: Timed,
        callback: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let py = event_loop.py();
        if let Some(core) = LoopCore::of(event_loop).filter(|core| !core.overrides_timers()) {
            self.timer.set(Some(core.at(py, when.seconds, timed)?));
            self.keeper.set(py, event_loop.clone());
            return Ok(());
        }
        self.call_at(event_loop, when, &callback()?)
    }

    /// `event_loop.call_at(when, callback)`, whatever the loop is.
    pub(crate) fn call_at<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        when: &When<'py>,
        callback: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = event_loop.py();
        let handle = event_loop.call_method1(intern!(py, "call_at"), (when.object(py), callback))?;
        self.keeper.set(py, handle);
        Ok(())
    }

    /// As [`set_at`](Self::set_at), in the next turn; such a job can't be taken back from a native loop.
    pub(crate) fn set_soon<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        timed: Timed,
        callback: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let py = event_loop.py();
        if let Some(core) = LoopCore::of(event_loop).filter(|core| !core.overrides_call_soon()) {
            return core.soon(py, timed.into_job(py));
        }
        self.call_soon(event_loop, &callback()?)
    }

    /// `event_loop.call_soon(callback)`, whatever the loop is.
    pub(crate) fn call_soon<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = event_loop.py();
        self.keeper.set(py, event_loop.call_method1(intern!(py, "call_soon"), (callback,))?);
        Ok(())
    }

    /// Takes the job back. One that a turn has already picked up still runs.
    #[inline]
    pub(crate) fn cancel(&self, py: Python<'_>) {
        let Some(keeper) = self.keeper.take(py) else { return };
        let Some(key) = self.timer.replace(None) else {
            if let Err(error) = keeper.call_method0(intern!(py, "cancel")) {
                error.write_unraisable(py, Some(&keeper));
            }
            return;
        };
        if let Some(core) = LoopCore::of(&keeper) {
            core.cancel_timer(py, key);
        }
    }

    /// The loop whose native timer this is, set and not run yet.
    pub(crate) fn native_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.timer.get().and_then(|_| self.keeper.get(py))
    }

    /// The handle of a job that is no native timer.
    pub(crate) fn handle<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        if self.timer.get().is_some() { None } else { self.keeper.get(py) }
    }

    /// The program's handle is what counts, or nothing, in the place of a native timer. A handle from before stays set.
    pub(crate) fn keep(&self, handle: Option<Bound<'_, PyAny>>, py: Python<'_>) {
        if self.timer.get().is_some() {
            self.cancel(py);
        }
        drop(self.keeper.replace(py, handle));
    }

    /// The job has run: there is nothing left to take back.
    pub(crate) fn forget(&self, py: Python<'_>) {
        self.timer.set(None);
        drop(self.keeper.take(py));
    }
}

impl Holds for Alarm {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.keeper.traverse(visit)
    }

    #[inline]
    fn clear(&self, py: Python<'_>) {
        self.cancel(py);
    }
}

/// A time of the loop's clock, as a number and as the object that a program gave, if it did.
#[derive(Clone, Debug)]
pub(crate) struct When<'py> {
    pub(crate) seconds: f64,
    pub(crate) given: Option<Bound<'py, PyAny>>,
}

impl<'py> When<'py> {
    /// `event_loop.time() + delay`.
    #[inline]
    pub(crate) fn after(event_loop: &Bound<'py, PyAny>, delay: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = event_loop.py();
        if let Some(core) = LoopCore::of(event_loop).filter(|core| !core.overrides_timers()) {
            if let Ok(delay) = delay.cast_exact::<PyFloat>() {
                return Ok(Self { seconds: core.now() + delay.value(), given: None });
            }
            if let Ok(delay) = delay.cast_exact::<pyo3::types::PyInt>() {
                return Ok(Self { seconds: core.now() + delay.extract::<f64>()?, given: None });
            }
        }
        let now = event_loop.call_method0(intern!(py, "time"))?;
        Self::of(now.add(delay)?)
    }

    /// The time that a program gave.
    pub(crate) fn of(given: Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(Self { seconds: given.extract()?, given: Some(given) })
    }

    /// As an object: the given one, or a float.
    pub(crate) fn object(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.given.clone().unwrap_or_else(|| PyFloat::new(py, self.seconds).into_any())
    }
}
