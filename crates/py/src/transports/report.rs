//! What transports tell the program about: debug messages, failures of protocols, writes to lost connections.

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{Borrowed, intern};

use crate::errors::{ends_the_loop, warn_of_resource};
use crate::event_loop::debug::logger;
use crate::futures::is_debug;

/// How many writes to a lost connection pass in silence.
const QUIET_LOST_WRITES: u32 = 5;

/// `logger.debug(text, *args)` if the loop is in debug mode.
pub(super) fn debug<'py>(
    event_loop: &Bound<'py, PyAny>,
    text: &str,
    args: &[&Bound<'py, PyAny>],
) -> PyResult<()> {
    log(event_loop, "debug", text, args)
}

/// As [`debug`], at another level.
pub(super) fn log<'py>(
    event_loop: &Bound<'py, PyAny>,
    level: &str,
    text: &str,
    args: &[&Bound<'py, PyAny>],
) -> PyResult<()> {
    if !is_debug(event_loop)? {
        return Ok(());
    }
    let py = event_loop.py();
    let text = pyo3::types::PyString::new(py, text).into_any();
    let all: Vec<_> = std::iter::once(&text).chain(args.iter().copied()).collect();
    let all = PyTuple::new(py, all)?;
    logger(py)?.call_method1(level, all).map(drop)
}

/// Reports what a protocol's method raised; SystemExit and KeyboardInterrupt go on.
pub(super) fn failure(
    error: PyErr,
    message: &str,
    event_loop: &Bound<'_, PyAny>,
    transport: &Bound<'_, PyAny>,
    protocol: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let py = event_loop.py();
    if ends_the_loop(py, &error) {
        return Err(error);
    }
    let details = PyDict::new(py);
    details.set_item(intern!(py, "message"), message)?;
    details.set_item(intern!(py, "exception"), error.into_value(py))?;
    details.set_item(intern!(py, "transport"), transport)?;
    details.set_item(intern!(py, "protocol"), protocol)?;
    event_loop.call_method1(intern!(py, "call_exception_handler"), (details,)).map(drop)
}

/// Reports what ends a connection: errors of the system in debug mode only, as they are the network's daily life.
pub(super) fn fatal(
    error: &Bound<'_, PyAny>,
    message: &str,
    event_loop: &Bound<'_, PyAny>,
    transport: &Bound<'_, PyAny>,
    protocol: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let py = event_loop.py();
    if !error.is_instance_of::<PyOSError>() {
        return failure(PyErr::from_value(error.clone()), message, event_loop, transport, protocol);
    }
    if is_debug(event_loop)? {
        let keywords = PyDict::new(py);
        keywords.set_item("exc_info", error)?;
        logger(py)?.call_method("debug", ("%r: %s", transport, message), Some(&keywords))?;
    }
    Ok(())
}

/// One more write to a connection that is lost; the new count.
pub(super) fn lost_write(py: Python<'_>, before: u32, text: &str) -> PyResult<u32> {
    if before >= QUIET_LOST_WRITES {
        logger(py)?.call_method1(intern!(py, "warning"), (text,))?;
    }
    Ok(before.saturating_add(1))
}

/// `warnings.warn(text, ResourceWarning, source=source)`.
pub(super) fn unclosed(source: Borrowed<'_, '_, PyAny>) -> PyResult<()> {
    warn_of_resource(source, &format!("unclosed transport {}", source.repr()?))
}
