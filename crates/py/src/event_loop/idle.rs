//! A loop that is about to sleep with nothing in sight asks whether anything can wake it: the way deadlocks are found.
//!
//! turn.rs calls [`Idle::timeout`] before a wait that may last. The judgement is made by the hook that a runner sets
//! (`_set_idle_hook`); here is only when to ask: after a short rest where nothing but another thread could end the wait,
//! again a few times, since an idle thread looks like a busy one for a moment, and after a second's rest for tasks that
//! wait in a circle while the loop has other things to wait for.

use pyo3::prelude::*;

use super::EventLoop;
use crate::ffi::cell::Slot;

/// When to look, and to look again, in seconds, while other threads may still do something. The first rest is for the
/// sake of speed: most jobs of an executor are over by then.
const AGAIN: [f64; 5] = [0.02, 0.1, 0.5, 2.0, 10.0];

/// How long a loop rests before circles are looked for, in seconds.
const REST: f64 = 1.0;

/// What the hook is asked: whether there is nothing more to ask, or None for a deadlock; and what it is told then, if
/// nobody has left anything in the inbox while it looked.
const NOTHING_IN_SIGHT: &str = "nothing";
const DEADLOCK: &str = "deadlock";
const AT_REST: &str = "rest";

/// Between the last job and the next.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// How often it has asked since something happened.
    asked: usize,
    is_settled: bool,
}

impl Idle {
    /// Something has happened.
    #[inline]
    pub(super) fn over(&mut self) {
        *self = Self::default();
    }

    /// How long the loop should sleep that would sleep for `timeout`; zero if asking has given it work.
    pub(super) fn timeout(
        &mut self,
        this: &Bound<'_, EventLoop>,
        timeout: Option<f64>,
    ) -> PyResult<Option<f64>> {
        let (py, core) = (this.py(), EventLoop::core(this));
        if self.is_settled || timeout.is_some_and(|t| t <= REST) || core.is_virtual() {
            return Ok(timeout);
        }
        let Some(hook) = this.get().idle_hook.get(py) else { return Ok(timeout) };
        let is_alone = this.get().driver.with(py, |driver| driver.as_ref().is_none_or(|d| d.len() < 2));
        if timeout.is_some() || !is_alone {
            if self.asked == 0 {
                self.asked = 1;
                return Ok(Some(timeout.map_or(REST, |t| t.min(REST))));
            }
            self.is_settled = true;
            hook.call1((this, AT_REST))?;
        } else if self.asked == 0 {
            self.asked = 1;
            return Ok(Some(AGAIN[0]));
        } else {
            py.check_signals()?;
            let nothing_came = || core.scheduler().with(py, |s| s.is_idle()) && core.inbox().is_empty();
            if nothing_came() {
                let judgement = hook.call1((this, NOTHING_IN_SIGHT))?;
                let is_deadlock = judgement.is_none();
                if is_deadlock && nothing_came() {
                    hook.call1((this, DEADLOCK))?;
                }
                let is_sure = is_deadlock || judgement.is_truthy()?;
                let again = AGAIN.get(self.asked).filter(|_| !is_sure).copied();
                self.asked += 1;
                self.is_settled = again.is_none();
                if again.is_some() {
                    return Ok(again);
                }
            }
        }
        let is_idle = core.scheduler().with(py, |s| s.turn_len() == 0) && core.inbox().is_empty();
        Ok(if is_idle && !core.is_stopping() { timeout } else { Some(0.0) })
    }
}

/// `_set_idle_hook(hook)`: what judges; None for nothing.
pub(super) fn set_hook<'py>(this: &Bound<'py, EventLoop>, hook: Option<Bound<'py, PyAny>>) {
    drop(this.get().idle_hook.replace(this.py(), hook));
}

/// The place of the hook in a loop.
pub(super) type Hook = Slot;
