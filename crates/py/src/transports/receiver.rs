//! Who gets what a transport receives: the closed list of receivers, and how each is told.
//!
//! `set_protocol` chooses the receiver by the protocol's type, once; then every byte, the end and the marks of the
//! outbox go through here. Every kind of transport that has a protocol uses this. Nothing here knows a descriptor, and
//! errors are the caller's to report: it knows what they end.

use aioxide_core::Flow;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::tls;
use crate::ffi::class::Inst;
use crate::names::asyncio;
use crate::streams;

/// How a protocol is told what happens. Any call may run Python code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// Any `Protocol`: its methods are called, looked up each time as Python does.
    Python,
    /// A `BufferedProtocol`, which lends the memory to receive into: `get_buffer` and `buffer_updated` are the
    /// transport's to call.
    Buffered,
    /// Exactly our StreamReaderProtocol: its reader gets the bytes without a call.
    Streams,
    /// A TLS layer of ours, which stands before another protocol.
    Tls,
}

/// Whether a protocol can only be a buffered one, by its methods. asyncio goes by the class alone, and fails with the
/// first byte; protocols that were written for uvloop rely on this.
fn lends(protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = protocol.py();
    Ok(!protocol.hasattr(intern!(py, "data_received"))? && protocol.hasattr(intern!(py, "get_buffer"))?)
}

/// A protocol that is called without Python.
enum Native<'a, 'py> {
    Streams(Inst<'a, 'py, streams::Protocol>),
    Tls(tls::This<'a, 'py>),
    None,
}

impl Receiver {
    /// The protocol as what it is; one of ours that has got attributes of its own may have methods among them.
    #[inline]
    fn native<'a, 'py>(self, protocol: &'a Bound<'py, PyAny>) -> Native<'a, 'py> {
        match self {
            Self::Python | Self::Buffered => Native::None,
            Self::Streams => streams::plain_protocol(protocol).map_or(Native::None, Native::Streams),
            Self::Tls => tls::This::cast_exact(protocol).map_or(Native::None, Native::Tls),
        }
    }

    /// What `protocol` is.
    pub(crate) fn of(protocol: &Bound<'_, PyAny>) -> PyResult<Self> {
        if streams::is_protocol(protocol) {
            return Ok(Self::Streams);
        }
        if tls::This::cast_exact(protocol).is_some() {
            return Ok(Self::Tls);
        }
        let py = protocol.py();
        let class = asyncio(py).protocols.bind(py).getattr(intern!(py, "BufferedProtocol"))?;
        Ok(if protocol.is_instance(&class)? || lends(protocol)? { Self::Buffered } else { Self::Python })
    }

    /// `connection_made(transport)`.
    pub(crate) fn connection_made<'py>(
        self,
        protocol: &Bound<'py, PyAny>,
        transport: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        match self.native(protocol) {
            Native::Streams(streams) => streams.connection_made(transport),
            Native::Tls(layer) => layer.connection_made(transport),
            Native::None => {
                protocol.call_method1(intern!(protocol.py(), "connection_made"), (transport,)).map(drop)
            }
        }
    }

    /// `data_received(data)`.
    #[inline]
    pub(crate) fn data_received<'py>(
        self,
        protocol: &Bound<'py, PyAny>,
        data: Bound<'py, PyBytes>,
    ) -> PyResult<()> {
        match self.native(protocol) {
            Native::Streams(streams) => streams.data_received(data),
            Native::Tls(layer) => layer.data_received(data.as_any()),
            Native::None => protocol.call_method1(intern!(protocol.py(), "data_received"), (data,)).map(drop),
        }
    }

    /// `eof_received()`: whether the transport stays open for writing.
    pub(crate) fn eof_received(self, protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
        match self.native(protocol) {
            Native::Streams(streams) => streams.eof_received(),
            Native::Tls(layer) => layer.eof_received(),
            Native::None => protocol.call_method0(intern!(protocol.py(), "eof_received"))?.is_truthy(),
        }
    }

    /// `pause_writing()` or `resume_writing()`, as the outbox asks.
    pub(crate) fn flow(self, protocol: &Bound<'_, PyAny>, asked: Flow) -> PyResult<()> {
        let py = protocol.py();
        match (self.native(protocol), asked) {
            (_, Flow::Nothing) => Ok(()),
            (Native::Streams(streams), asked) => streams.set_paused(asked == Flow::Pause),
            (Native::Tls(layer), Flow::Pause) => layer.pause_writing(),
            (Native::Tls(layer), Flow::Resume) => layer.resume_writing(),
            (Native::None, Flow::Pause) => protocol.call_method0(intern!(py, "pause_writing")).map(drop),
            (Native::None, Flow::Resume) => protocol.call_method0(intern!(py, "resume_writing")).map(drop),
        }
    }

    /// `connection_lost(error)`, with None for an end in peace.
    pub(crate) fn connection_lost<'py>(
        self,
        protocol: &Bound<'py, PyAny>,
        error: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        match self.native(protocol) {
            Native::Streams(streams) => streams.connection_lost(error),
            Native::Tls(layer) => layer.connection_lost(error),
            Native::None => {
                protocol.call_method1(intern!(protocol.py(), "connection_lost"), (error,)).map(drop)
            }
        }
    }
}
