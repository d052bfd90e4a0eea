//! Who gets what a transport receives: the closed list of receivers, and how each is told.
//!
//! `set_protocol` chooses the receiver by the protocol's type, once; then every byte, the end and the marks of the
//! outbox go through here. Every kind of transport that has a protocol uses this. Nothing here knows a descriptor, and
//! errors are the caller's to report: it knows what they end.

use aioxide_core::Flow;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};

/// How a protocol is told what happens. Any call may run Python code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// Any `Protocol`: its methods are called, looked up each time as Python does.
    Python,
    /// A `BufferedProtocol`, which lends the memory to receive into: `get_buffer` and `buffer_updated` are the
    /// transport's to call.
    Buffered,
}

impl Receiver {
    /// What `protocol` is.
    pub(crate) fn of(protocol: &Bound<'_, PyAny>) -> PyResult<Self> {
        static BUFFERED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let class = BUFFERED.import(protocol.py(), "asyncio.protocols", "BufferedProtocol")?;
        Ok(if protocol.is_instance(class)? { Self::Buffered } else { Self::Python })
    }

    /// `data_received(data)`.
    #[inline]
    pub(crate) fn data_received<'py>(
        self,
        protocol: &Bound<'py, PyAny>,
        data: Bound<'py, PyBytes>,
    ) -> PyResult<()> {
        match self {
            Self::Python | Self::Buffered => {
                protocol.call_method1(intern!(protocol.py(), "data_received"), (data,)).map(drop)
            }
        }
    }

    /// `eof_received()`: whether the transport stays open for writing.
    pub(crate) fn eof_received(self, protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
        match self {
            Self::Python | Self::Buffered => {
                protocol.call_method0(intern!(protocol.py(), "eof_received"))?.is_truthy()
            }
        }
    }

    /// `pause_writing()` or `resume_writing()`, as the outbox asks.
    pub(crate) fn flow(self, protocol: &Bound<'_, PyAny>, asked: Flow) -> PyResult<()> {
        let py = protocol.py();
        match (self, asked) {
            (_, Flow::Nothing) => Ok(()),
            (Self::Python | Self::Buffered, Flow::Pause) => {
                protocol.call_method0(intern!(py, "pause_writing")).map(drop)
            }
            (Self::Python | Self::Buffered, Flow::Resume) => {
                protocol.call_method0(intern!(py, "resume_writing")).map(drop)
            }
        }
    }

    /// `connection_lost(error)`, with None for an end in peace.
    pub(crate) fn connection_lost<'py>(
        self,
        protocol: &Bound<'py, PyAny>,
        error: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        match self {
            Self::Python | Self::Buffered => {
                protocol.call_method1(intern!(protocol.py(), "connection_lost"), (error,)).map(drop)
            }
        }
    }
}
