//! The file of a listening Unix socket: removed before a bind when a dead server left it behind, and after the server
//! has closed if it is still the server's own.

use pyo3::exceptions::{PyFileNotFoundError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::blocking::Place;
use crate::event_loop::debug::logger;

/// Whether an address names a file: an abstract one begins with a zero. IndexError for an empty one.
pub(crate) fn is_file(address: &Bound<'_, PyAny>) -> PyResult<bool> {
    if let Ok(bytes) = address.cast::<PyBytes>()
        && let Some(first) = bytes.as_bytes().first()
    {
        return Ok(*first != 0);
    }
    if let Ok(text) = address.cast::<PyString>() {
        return text.get_item(0)?.ne("\0");
    }
    address.get_item(0)?.ne(0)
}

/// What a function of `os` says of, or does to, the file.
fn os<'py>(place: Place, function: &str, address: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = address.py();
    place.of(py)?.call1((py.import(intern!(py, "os"))?.getattr(function)?, address))
}

/// Removes the socket at a path that somebody is about to bind to. What fails is logged only: the bind will tell.
pub(crate) fn remove_stale(address: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = address.py();
    let remove = || -> PyResult<()> {
        let mode = os(Place::CreateUnixServer, "stat", address)?.getattr(intern!(py, "st_mode"))?;
        if py.import(intern!(py, "stat"))?.call_method1(intern!(py, "S_ISSOCK"), (mode,))?.is_truthy()? {
            os(Place::CreateUnixServer, "remove", address)?;
        }
        Ok(())
    };
    tolerate(address, remove(), "Unable to check or remove stale UNIX socket %r: %r")
}

/// Which file a bound socket has, by its inode.
pub(crate) fn inode(sock: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    let py = sock.py();
    let address = sock.call_method0(intern!(py, "getsockname"))?;
    if !address.is_truthy()? || !is_file(&address)? {
        return Ok(None);
    }
    match os(Place::CreateUnixServer, "stat", &address) {
        Ok(status) => status.getattr(intern!(py, "st_ino"))?.extract().map(Some),
        Err(error) if error.is_instance_of::<PyFileNotFoundError>(py) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the file of a socket that is closed by now, unless another has taken its place.
pub(super) fn remove(address: &Bound<'_, PyAny>, inode: u64) -> PyResult<()> {
    let py = address.py();
    let remove = || -> PyResult<()> {
        if os(Place::StopServing, "stat", address)?.getattr(intern!(py, "st_ino"))?.eq(inode)? {
            os(Place::StopServing, "unlink", address)?;
        }
        Ok(())
    };
    tolerate(address, remove(), "Unable to clean up listening UNIX socket %r: %r")
}

/// A missing file is as good as a removed one; other errors of the system are logged.
fn tolerate(address: &Bound<'_, PyAny>, result: PyResult<()>, text: &str) -> PyResult<()> {
    let py = address.py();
    match result {
        Err(error) if error.is_instance_of::<PyFileNotFoundError>(py) => Ok(()),
        Err(error) if error.is_instance_of::<PyOSError>(py) => {
            let args = (text, address, error.into_value(py));
            logger(py)?.call_method1(intern!(py, "error"), args).map(drop)
        }
        result => result,
    }
}
