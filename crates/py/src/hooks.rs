//! Native waiters that aren't tasks: what a turn calls when a future that one of them watches is done.
//!
//! A hook is an instance of a raw class that watches any number of futures. The kinds are listed here and nowhere
//! else. Our own futures keep the hook itself among their waiters; any other future and loop gets [`callback`].

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::{Borrowed, intern};

use crate::as_completed::{self, AsCompleted};
use crate::ffi::class::Inst;
use crate::ffi::layout::Fut;
use crate::ffi::method::{AnyObject, Method, onearg};
use crate::groups::{self, TaskGroup};
use crate::job::{self, Job};
use crate::shield::{self, Shield};
use crate::streams::{self, Served};
use crate::threads::{self, Submission};
use crate::wait::{self, Wait};
use crate::wait_for::{self, WaitFor};
use crate::{futures, gather};

/// The future `future`, which `hook` watched, is done.
#[inline]
pub(crate) fn done<'py>(hook: &Bound<'py, PyAny>, future: &Bound<'py, PyAny>) -> PyResult<()> {
    if let Some(outer) = Fut::gathering(hook) {
        gather::on_done(outer, future)
    } else if let Some(group) = Inst::<TaskGroup>::cast(hook) {
        groups::on_done(group, future)
    } else if let Some(wait) = Inst::<Wait>::cast_exact(hook) {
        wait::on_done(wait, future)
    } else if let Some(shield) = Inst::<Shield>::cast_exact(hook) {
        shield::on_done(shield, future)
    } else if let Some(iterator) = Inst::<AsCompleted>::cast_exact(hook) {
        as_completed::on_done(iterator, future)
    } else if let Some(wait_for) = Inst::<WaitFor>::cast_exact(hook) {
        wait_for::on_done(wait_for)
    } else if let Some(submission) = Inst::<Submission>::cast_exact(hook) {
        threads::on_done(submission, future)
    } else if let Some(served) = Inst::<Served>::cast_exact(hook) {
        streams::on_done(served, future)
    } else {
        // Not one of ours: called, as a done-callback is.
        hook.call1((future,)).map(drop)
    }
}

/// Calls `done(hook, future)` in a turn after `future` is done, as `add_done_callback` would.
#[inline]
pub(crate) fn watch<'py>(future: &Bound<'py, PyAny>, hook: &Bound<'py, PyAny>) -> PyResult<()> {
    let Some(known) = Fut::cast_exact(future) else {
        return future.call_method1(intern!(future.py(), "add_done_callback"), (callback(hook)?,)).map(drop);
    };
    if known.is_pending() {
        return futures::add_waiter(known, hook.clone());
    }
    match known.event_loop() {
        Some(event_loop) => {
            job::soon(&event_loop, Job::Hook { hook: hook.clone().unbind(), future: future.clone().unbind() })
        }
        None => Ok(()),
    }
}

/// Ends [`watch`], unless the call is on its way already.
#[inline]
pub(crate) fn unwatch<'py>(future: &Bound<'py, PyAny>, hook: &Bound<'py, PyAny>) -> PyResult<()> {
    match Fut::cast_exact(future) {
        Some(known) if known.is_pending() => futures::remove_waiter(known, hook),
        Some(_) => Ok(()), // a done future has handed its waiters over
        None => {
            future.call_method1(intern!(future.py(), "remove_done_callback"), (callback(hook)?,)).map(drop)
        }
    }
}

/// The hook as a done-callback. Two callbacks of the same hook are equal.
pub(crate) fn callback<'py>(hook: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    fn call<'py>(
        hook: Borrowed<'_, 'py, PyAny>,
        future: Borrowed<'_, 'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        done(&hook, &future)?;
        Ok(hook.py().None().into_bound(hook.py()))
    }
    static CALL: OnceLock<Method> = OnceLock::new();
    CALL.get_or_init(|| onearg::<AnyObject, _>(c"done", call)).bound(hook)
}
