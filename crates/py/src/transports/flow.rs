//! Flow control between a transport that has unsent bytes and the protocol that makes them.
//!
//! Owns the kinds of chunks that transports queue, and tells the protocol to pause and to resume. The rules, when to
//! tell it what, are core's `Outbox`; the transports own theirs.

use aioxide_core::flow::{Flow, LimitsError};
use aioxide_core::outbox::Outbox;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

use super::receiver::Receiver;
use super::report;
use crate::ffi::cell::GilCell;

/// Bytes that wait to be sent.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// The rest of a bytes object, which nobody can change.
    Shared { bytes: PyBackedBytes, from: usize },
    /// A copy: what the program may change, or reuse, as soon as `write` has returned.
    Copied(Vec<u8>),
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Shared { bytes, from } => bytes.get(*from..).unwrap_or_default(),
            Self::Copied(bytes) => bytes,
        }
    }
}

/// What may be written: as asyncio, only these three.
pub(crate) fn check_data(data: &Bound<'_, PyAny>) -> PyResult<()> {
    let good = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if good {
        return Ok(());
    }
    let class = data.get_type().name()?.repr()?;
    Err(PyTypeError::new_err(format!(
        "data argument must be a bytes, bytearray, or memoryview object, not {class}"
    )))
}

/// Tells the protocol what the outbox asks for. What it raises goes to the exception handler.
pub(crate) fn tell(
    asked: Flow,
    receiver: Receiver,
    event_loop: &Bound<'_, PyAny>,
    transport: &Bound<'_, PyAny>,
    protocol: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let message = match asked {
        Flow::Nothing => return Ok(()),
        Flow::Pause => "protocol.pause_writing() failed",
        Flow::Resume => "protocol.resume_writing() failed",
    };
    match receiver.flow(protocol, asked) {
        Ok(()) => Ok(()),
        Err(error) => report::failure(error, message, event_loop, transport, Some(protocol)),
    }
}

/// `set_write_buffer_limits(high, low)`.
pub(crate) fn set_limits(
    outbox: &GilCell<Outbox<Chunk>>,
    py: Python<'_>,
    high: Option<i64>,
    low: Option<i64>,
) -> PyResult<Flow> {
    outbox.with(py, |outbox| outbox.set_limits(high, low)).map_err(limits_error)
}

/// ValueError for limits that contradict each other.
pub(super) fn limits_error(LimitsError { high, low }: LimitsError) -> PyErr {
    PyValueError::new_err(format!("high ({high}) must be >= low ({low}) must be >= 0"))
}
