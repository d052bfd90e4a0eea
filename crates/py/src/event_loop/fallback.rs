//! The protocol that stands in for a transport's own while `sendfile` writes a file by hand: it only hears when to
//! pause, and passes on that the connection is lost. sendfile.rs puts it in and takes it out.

use pyo3::exceptions::{PyConnectionError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;

use crate::async_fn::attached;
use crate::ffi::cell::Slot;
use crate::ffi::gc::traverse_pyclass;

/// The stand-in.
#[pyclass(frozen, module = "aioxide._core", name = "SendfileFallbackProtocol")]
#[derive(Debug)]
pub(super) struct Fallback {
    transport: Slot,
    protocol: Slot,
    /// Waited for while writing is paused.
    paused: Slot,
    resume_reading: bool,
    resume_writing: bool,
}

impl Fallback {
    /// Puts one in the place of the transport's protocol.
    pub(super) fn take_over<'py>(transport: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let py = transport.py();
        let is = |value: Bound<'py, PyAny>| value.is_truthy();
        let protocol = transport.call_method0(intern!(py, "get_protocol"))?;
        let resume_reading = is(transport.call_method0(intern!(py, "is_reading"))?)?;
        let resume_writing = is(transport.getattr(intern!(py, "_protocol_paused"))?)?;
        transport.call_method0(intern!(py, "pause_reading"))?;
        let this = Self {
            transport: Slot::holding(transport.clone().unbind()),
            protocol: Slot::holding(protocol.unbind()),
            paused: Slot::empty(),
            resume_reading,
            resume_writing,
        };
        if resume_writing {
            this.pause(py)?;
        }
        let this = Bound::new(py, this)?;
        transport.call_method1(intern!(py, "set_protocol"), (&this,))?;
        Ok(this)
    }

    /// What to wait for before the next write.
    pub(super) fn pending<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = this.py();
        if let Some(transport) = this.get().transport.get(py)
            && transport.call_method0(intern!(py, "is_closing"))?.is_truthy()?
        {
            return Err(PyConnectionError::new_err("Connection closed by peer"));
        }
        Ok(this.get().paused.get(py))
    }

    /// Puts the transport's own protocol back.
    pub(super) fn give_back(this: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (this.py(), this.get());
        let (Some(transport), Some(protocol)) = (this.transport.get(py), this.protocol.get(py)) else {
            return Ok(());
        };
        transport.call_method1(intern!(py, "set_protocol"), (&protocol,))?;
        if this.resume_reading {
            transport.call_method0(intern!(py, "resume_reading"))?;
        }
        let is_paused = match this.paused.take(py) {
            Some(future) => {
                future.call_method0(intern!(py, "cancel"))?;
                true
            }
            None => false,
        };
        // The transport believes that its protocol knows of the pause, and tells it only when that is over.
        let is_over = transport.call_method0(intern!(py, "is_closing"))?.is_truthy()?;
        match (this.resume_writing, is_paused && !is_over) {
            (true, false) if !is_paused => protocol.call_method0(intern!(py, "resume_writing")).map(drop),
            (false, true) => protocol.call_method0(intern!(py, "pause_writing")).map(drop),
            _ => Ok(()),
        }
    }

    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        if self.paused.is_some() {
            return Ok(());
        }
        let Some(transport) = self.transport.get(py) else { return Ok(()) };
        let event_loop = transport.getattr(intern!(py, "_loop"))?;
        self.paused.set(py, event_loop.call_method0(intern!(py, "create_future"))?);
        Ok(())
    }
}

fn is_pending(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(!future.call_method0(intern!(future.py(), "done"))?.is_truthy()?)
}

#[pymethods]
impl Fallback {
    #[allow(clippy::unused_self, reason = "a protocol's method")]
    fn connection_made(&self, _transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let text = "Invalid state: connection should have been established already.";
        Err(PyRuntimeError::new_err(text))
    }

    #[allow(clippy::unused_self, reason = "a protocol's method")]
    fn data_received(&self, _data: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyRuntimeError::new_err("Invalid state: reading should be paused"))
    }

    #[allow(clippy::unused_self, reason = "a protocol's method")]
    fn eof_received(&self) -> PyResult<()> {
        Err(PyRuntimeError::new_err("Invalid state: reading should be paused"))
    }

    fn pause_writing(&self, py: Python<'_>) -> PyResult<()> {
        self.pause(py)
    }

    fn resume_writing(&self, py: Python<'_>) -> PyResult<()> {
        match self.paused.take(py) {
            Some(future) if is_pending(&future)? => {
                future.call_method1(intern!(py, "set_result"), (false,)).map(drop)
            }
            _ => Ok(()),
        }
    }

    fn connection_lost(&self, exc: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = exc.py();
        if let Some(future) = self.paused.get(py)
            && is_pending(&future)?
        {
            let error = if exc.is_none() {
                PyConnectionError::new_err("Connection is closed by peer").into_value(py).into_any()
            } else {
                exc.clone().unbind()
            };
            future.call_method1(intern!(py, "set_exception"), (error,))?;
        }
        match self.protocol.get(py) {
            Some(protocol) => protocol.call_method1(intern!(py, "connection_lost"), (exc,)).map(drop),
            None => Ok(()),
        }
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        traverse_pyclass(&visit, |v| {
            [&self.transport, &self.protocol, &self.paused].into_iter().try_for_each(|slot| slot.traverse(v))
        })
    }

    fn __clear__(&self) {
        attached(|py| drop((self.transport.take(py), self.protocol.take(py), self.paused.take(py))));
    }
}
