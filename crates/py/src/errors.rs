//! The one place where errors of the operating system become Python exceptions, and where exceptions are told apart
//! by what they mean to the loop.

use std::io;

use pyo3::exceptions::{PyGeneratorExit, PyKeyboardInterrupt, PyOSError, PyResourceWarning, PySystemExit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// SystemExit and KeyboardInterrupt end the run of the loop; every other exception of a callback is reported.
pub(crate) fn ends_the_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

/// The OSError (of the subclass that belongs to its errno) for an error of a system call.
#[cold]
pub(crate) fn os_error(error: &io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(errno) => from_errno(errno),
        None => PyOSError::new_err(error.to_string()),
    }
}

/// As [`os_error`], for a plain error number.
#[cold]
pub(crate) fn from_errno(errno: i32) -> PyErr {
    PyOSError::new_err((errno, strerror(errno)))
}

/// The system's text for an error number, as Python's `os.strerror` gives it.
pub(crate) fn strerror(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// `warnings.warn`, which cannot be imported any more when the interpreter ends and finalizers run.
static WARN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Looks up what finalizers need.
pub(crate) fn init(py: Python<'_>) -> PyResult<()> {
    let _ = WARN.set(py, py.import("warnings")?.getattr("warn")?.unbind());
    Ok(())
}

/// A ResourceWarning about `source`, from its finalizer.
pub(crate) fn warn_of_resource(source: Borrowed<'_, '_, PyAny>, text: &str) -> PyResult<()> {
    let py = source.py();
    let nothing_above = (text, py.get_type::<PyResourceWarning>(), 1, source);
    WARN.get(py).map_or(Ok(()), |warn| warn.bind(py).call1(nothing_above).map(drop))
}

/// The same error with its exception made: PyO3 would fail to make it, to look at its type, when the interpreter ends.
pub(crate) fn made(py: Python<'_>, error: PyErr) -> PyErr {
    error.restore(py);
    PyErr::fetch(py)
}

/// The GeneratorExit by which a coroutine is closed.
pub(crate) fn generator_exit(py: Python<'_>) -> PyErr {
    made(py, PyGeneratorExit::new_err(()))
}
