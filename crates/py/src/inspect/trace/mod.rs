//! The timeline: what each loop and each task did and when, kept in memory and written at the end as a trace in the
//! format of Chrome and Perfetto.
//!
//! `steps` is told by turn.rs what happens, `parked` finds out what tasks wait for, `log` keeps it within bounds, `write`
//! writes the file. One trace at a time, over all loops of the process. Names and lines, never the values of variables.

mod log;
mod parked;
pub(crate) mod steps;
mod write;

use std::path::PathBuf;

use aioxide_sys::clock;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;

use self::log::Log;
use super::{running, watchdog};
use crate::event_loop::EventLoop;
use crate::ffi::cell::{Flag, GilCell};
use crate::names::asyncio;
use crate::pulse::instrument;

static LOG: GilCell<Option<Box<Log>>> = GilCell::new(None);
/// Of the trace under way, or the last one.
static NUMBER: Flag<u32> = Flag::new(0);
/// When it began, by the monotonic clock.
static BEGAN: Flag<f64> = Flag::new(0.0);

/// Borrows the log; none if there is no trace. `f` runs no Python.
#[inline]
fn with_log<R>(py: Python<'_>, f: impl FnOnce(&mut Log) -> R) -> Option<R> {
    LOG.with(py, |log| log.as_deref_mut().map(f))
}

fn is_on(py: Python<'_>) -> bool {
    LOG.with(py, |log| log.is_some())
}

/// A loop starts to run.
pub(super) fn follow(event_loop: &Bound<'_, EventLoop>) {
    let is_on = is_on(event_loop.py());
    EventLoop::core(event_loop).set_instrument(instrument::TRACE, is_on);
    if is_on {
        steps::enter(event_loop);
    }
}

/// A loop has stopped.
pub(super) fn leave(event_loop: &Bound<'_, EventLoop>) {
    if is_on(event_loop.py()) {
        steps::leave(event_loop);
    }
}

/// `_trace_start(limit, stall)`: records from now on, for a file of at most `limit` bytes; a job that takes `stall`
/// seconds is a stall.
#[pyfunction]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked by the caller: a duration"
)]
pub(super) fn _trace_start(py: Python<'_>, limit: u64, stall: f64) -> PyResult<()> {
    if is_on(py) {
        return Err(PyRuntimeError::new_err("a trace is being recorded already"));
    }
    NUMBER.set(NUMBER.get().wrapping_add(1));
    BEGAN.set(clock::monotonic());
    let log = Box::new(Log::new(write::room(limit), (stall * 1e9) as u64));
    LOG.with(py, |place| *place = Some(log));
    watchdog::keep_all(true);
    for (event_loop, _) in running::all(py) {
        follow(&event_loop);
        for task in tasks(&event_loop) {
            steps::note(&event_loop, &task);
        }
    }
    Ok(())
}

/// `_trace_stop(path, facts)`: records no more. With a path, writes the file: `facts` is a JSON object about the
/// program. Returns how many events there were and how many of them had to go; none if there was no trace.
#[pyfunction]
#[pyo3(signature = (path, facts))]
#[allow(clippy::needless_pass_by_value, reason = "as PyO3 gives it")]
pub(super) fn _trace_stop(
    py: Python<'_>,
    path: Option<PathBuf>,
    facts: &str,
) -> PyResult<Option<(usize, u64)>> {
    if !is_on(py) {
        return Ok(None);
    }
    let loops = running::all(py);
    for (event_loop, _) in &loops {
        steps::close(event_loop);
        for task in tasks(event_loop) {
            steps::refresh(&task);
        }
    }
    let now = steps::now();
    let Some(mut log) = LOG.with(py, Option::take) else { return Ok(None) };
    for (event_loop, _) in &loops {
        EventLoop::core(event_loop).set_instrument(instrument::TRACE, false);
    }
    parked::forget(py);
    log.finish(now);
    let counts = (log.entries().len(), log.entries().dropped());
    let stalls = watchdog::since(BEGAN.get());
    watchdog::keep_all(false);
    if let Some(path) = path {
        write::file(
            &path,
            &log,
            &write::Facts { program: facts, end: now, began: BEGAN.get(), stalls: &stalls },
        )?;
    }
    Ok(Some(counts))
}

/// `_trace_forked()`: a child process leaves its parent's trace alone.
#[pyfunction]
pub(super) fn _trace_forked(py: Python<'_>) {
    drop(LOG.with(py, Option::take));
    parked::forget(py);
    for (event_loop, _) in running::all(py) {
        EventLoop::core(&event_loop).set_instrument(instrument::TRACE, false);
    }
}

/// The tasks of a loop, as asyncio lists them.
fn tasks<'py>(event_loop: &Bound<'py, EventLoop>) -> Vec<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let all = asyncio(py).tasks.bind(py).call_method1(intern!(py, "all_tasks"), (event_loop,));
    all.and_then(|all| all.try_iter()?.collect()).unwrap_or_default()
}
