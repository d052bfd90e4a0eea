//! Any future or task that a program may pass: ours by the short way, every other through its methods.
//!
//! What gather, wait, shield, timeouts and groups ask of the futures and tasks they are given.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::ffi::layout::{Fut, State, Tsk};
use crate::ffi::thread;
use crate::names::asyncio;
use crate::tasks::step;
use crate::{futures, tasks};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// How a future stands.
#[derive(Debug)]
pub(crate) enum Outcome<'py> {
    Pending,
    Cancelled,
    /// With this exception, which is retrieved herewith.
    Failed(Bound<'py, PyAny>),
    Returned(Bound<'py, PyAny>),
}

/// `asyncio.isfuture(object)`.
#[inline]
pub(crate) fn is_future(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    static IS_FUTURE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if Fut::cast_exact(object).is_some() {
        return Ok(true);
    }
    let py = object.py();
    let load = || Ok::<_, PyErr>(asyncio(py).futures.bind(py).getattr("isfuture")?.unbind());
    IS_FUTURE.get_or_try_init(py, load)?.bind(py).call1((object,))?.is_truthy()
}

/// The loop of a future: `get_loop()`, or `_loop` of very old ones.
pub(crate) fn loop_of<'py>(future: &Bound<'py, PyAny>) -> Object<'py> {
    let py = future.py();
    if let Some(event_loop) = Fut::cast_exact(future).and_then(Fut::event_loop) {
        return Ok(event_loop);
    }
    match future.getattr_opt(intern!(py, "get_loop"))? {
        Some(get_loop) => get_loop.call0(),
        None => future.getattr(intern!(py, "_loop")),
    }
}

/// A pending future of the loop: `loop.create_future()`.
#[inline]
pub(crate) fn create<'py>(event_loop: &Bound<'py, PyAny>) -> Object<'py> {
    match crate::local::LoopCore::of(event_loop) {
        Some(_) => futures::new(event_loop),
        None => event_loop.call_method0(intern!(event_loop.py(), "create_future")),
    }
}

#[inline]
pub(crate) fn is_done(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    match Fut::cast_exact(future) {
        Some(known) => Ok(!known.is_pending()),
        None => future.call_method0(intern!(future.py(), "done"))?.is_truthy(),
    }
}

#[inline]
pub(crate) fn is_cancelled(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    match Fut::cast_exact(future) {
        Some(known) => Ok(known.state() == State::Cancelled),
        None => future.call_method0(intern!(future.py(), "cancelled"))?.is_truthy(),
    }
}

/// How the future stands; an exception counts as retrieved.
#[inline]
pub(crate) fn outcome<'py>(future: &Bound<'py, PyAny>) -> PyResult<Outcome<'py>> {
    let py = future.py();
    if let Some(known) = Fut::cast_exact(future) {
        return Ok(match known.state() {
            State::Pending => Outcome::Pending,
            State::Cancelled => Outcome::Cancelled,
            State::Finished => {
                known.set_log_tb(false);
                match known.exception() {
                    Some(error) => Outcome::Failed(error),
                    None => Outcome::Returned(known.result().unwrap_or_else(|| py.None().into_bound(py))),
                }
            }
        });
    }
    if !is_done(future)? {
        return Ok(Outcome::Pending);
    }
    if is_cancelled(future)? {
        return Ok(Outcome::Cancelled);
    }
    let error = future.call_method0(intern!(py, "exception"))?;
    if !error.is_none() {
        return Ok(Outcome::Failed(error));
    }
    future.call_method0(intern!(py, "result")).map(Outcome::Returned)
}

/// `future.result()`.
#[inline]
pub(crate) fn result<'py>(future: &Bound<'py, PyAny>) -> Object<'py> {
    match Fut::cast_exact(future) {
        Some(known) => futures::result(known),
        None => future.call_method0(intern!(future.py(), "result")),
    }
}

/// The CancelledError of a cancelled future.
pub(crate) fn cancelled_error<'py>(future: &Bound<'py, PyAny>) -> Object<'py> {
    match Fut::cast_exact(future) {
        Some(known) => futures::cancelled_error(known),
        None => future.call_method0(intern!(future.py(), "_make_cancelled_error")),
    }
}

/// `future.cancel()`.
#[inline]
pub(crate) fn cancel(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    match Fut::cast_exact(future) {
        Some(_) => tasks::cancel_waiter(future, None),
        None => future.call_method0(intern!(future.py(), "cancel"))?.is_truthy(),
    }
}

/// Completes a future that nobody else has completed: `set_result(value)` unless it is done.
pub(crate) fn release<'py>(future: &Bound<'py, PyAny>, value: Bound<'py, PyAny>) -> PyResult<()> {
    match Fut::cast_exact(future) {
        Some(known) if known.is_pending() => futures::set_result(known, value),
        Some(_) => Ok(()),
        None if is_done(future)? => Ok(()),
        None => future.call_method1(intern!(future.py(), "set_result"), (value,)).map(drop),
    }
}

/// `task.cancelling()`.
#[inline]
pub(crate) fn cancelling(task: &Bound<'_, PyAny>) -> PyResult<i32> {
    match Tsk::cast_exact(task) {
        Some(known) => Ok(known.num_cancels()),
        None => task.call_method0(intern!(task.py(), "cancelling"))?.extract(),
    }
}

/// `task.uncancel()`.
#[inline]
pub(crate) fn uncancel(task: &Bound<'_, PyAny>) -> PyResult<i32> {
    match Tsk::cast_exact(task) {
        Some(known) => Ok(tasks::uncancel(known)),
        None => task.call_method0(intern!(task.py(), "uncancel"))?.extract(),
    }
}

/// The loop that runs in this thread (RuntimeError when none does).
#[inline]
pub(crate) fn running_loop(py: Python<'_>) -> Object<'_> {
    match thread::running_loop(py)? {
        Some(event_loop) => Ok(event_loop),
        None => Err(pyo3::exceptions::PyRuntimeError::new_err("no running event loop")),
    }
}

/// `asyncio.future_add_to_awaited_by(future, task)`; nothing before 3.14.
#[inline]
pub(crate) fn add_awaited_by<'py>(
    future: &Bound<'py, PyAny>,
    task: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    if crate::version::AWAITED_BY
        && let Some(task) = task.and_then(Tsk::cast_any)
        && let Some(future) = Fut::cast_any(future)
    {
        step::add_awaited_by(future, task)?;
    }
    Ok(())
}

/// Ends [`add_awaited_by`].
#[inline]
pub(crate) fn discard_awaited_by<'py>(
    future: &Bound<'py, PyAny>,
    task: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    if crate::version::AWAITED_BY
        && let Some(task) = task.and_then(Tsk::cast_any)
        && let Some(future) = Fut::cast_any(future)
    {
        step::discard_awaited_by(future, task)?;
    }
    Ok(())
}
