//! From the program to the transport below: encrypted at once, sent at once; what has to wait does so in the backlog
//! until the handshake is done, and in the session until the transport below takes more.

use std::collections::VecDeque;

use aioxide_core::{Flow, TlsPhase};
use pyo3::Borrowed;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

use super::engine::Got;
use super::{FAILED, Marks, Sender, This, Tls};
use crate::async_fn::attached;
use crate::event_loop::debug::logger;
use crate::ffi::buffer;
use crate::transports::flow;

/// How many writes to a closed connection pass in silence.
const QUIET_LOST_WRITES: u32 = 5;

/// From what size on a write goes piece by piece, so that a piece is sent while it is still in the processor's cache.
const PIECE: usize = 128 * 1024;

/// What the program has written and the session has not taken.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    chunks: VecDeque<Py<PyBytes>>,
    size: usize,
}

impl Backlog {
    /// How many bytes wait.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    fn push(&mut self, chunk: Py<PyBytes>, length: usize) {
        self.size += length;
        self.chunks.push_back(chunk);
    }

    fn unshift(&mut self, chunk: Py<PyBytes>, length: usize) {
        self.size += length;
        self.chunks.push_front(chunk);
    }

    fn pop(&mut self, length: impl FnOnce(&Py<PyBytes>) -> usize) -> Option<Py<PyBytes>> {
        let chunk = self.chunks.pop_front()?;
        self.size -= length(&chunk);
        Some(chunk)
    }
}

impl Tls {
    /// Throws away what waits.
    pub(super) fn forget_backlog(&self, py: Python<'_>) {
        let backlog = self.backlog.with(py, std::mem::take);
        attached(|_| drop(backlog)); // at once, in a finalizer too
    }

    fn has_backlog(&self, py: Python<'_>) -> bool {
        self.backlog.with(py, |backlog| backlog.size() > 0)
    }

    /// Leaves a chunk for later.
    pub(super) fn keep(&self, py: Python<'_>, chunk: &Bound<'_, PyBytes>) {
        let length = chunk.as_bytes().len();
        if length > 0 {
            let chunk = chunk.clone().unbind();
            self.backlog.with(py, |backlog| backlog.push(chunk, length));
        }
    }
}

/// `write(data)`.
pub(crate) fn write<'py>(this: This<'_, 'py>, data: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let length = match data.cast::<PyBytes>() {
        Ok(bytes) => bytes.as_bytes().len(),
        Err(_) if data.is_instance_of::<PyByteArray>() || data.is_instance_of::<PyMemoryView>() => {
            buffer::read(&data, <[u8]>::len)?
        }
        Err(_) => {
            let class = data.get_type().name()?;
            return Err(PyTypeError::new_err(format!("data: expecting a bytes-like instance, got {class}")));
        }
    };
    if length == 0 || !may_write(this)? {
        return Ok(());
    }
    let py = this.py();
    if this.phase.get() != TlsPhase::Wrapped || length > PIECE || this.has_backlog(py) {
        this.keep(py, &buffer::fixed(&data)?);
        return if this.phase.get() == TlsPhase::Wrapped { go(this) } else { Ok(()) };
    }
    let encrypted = match this.engine.write(&data) {
        Ok(Got::Done(count)) if count >= length => send_owed(this),
        Ok(Got::Done(count)) => {
            let rest = buffer::read(&data, |bytes| bytes[count.min(bytes.len())..].to_vec())?;
            this.keep(py, &PyBytes::new(py, &rest));
            send_owed(this)
        }
        Ok(Got::Later) => {
            this.keep(py, &buffer::fixed(&data)?);
            send_owed(this)
        }
        Err(error) => Err(error),
    };
    encrypted.or_else(|error| this.failed(error, FAILED))
}

/// `writelines(lines)`: as one write.
pub(crate) fn write_lines<'py>(this: This<'_, 'py>, lines: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    let mut joined = Vec::new();
    for line in lines.try_iter()? {
        buffer::read(&line?, |bytes| joined.extend_from_slice(bytes))?;
    }
    if joined.is_empty() || !may_write(this)? {
        return Ok(());
    }
    this.keep(py, &PyBytes::new(py, &joined));
    if this.phase.get() == TlsPhase::Wrapped { go(this) } else { Ok(()) }
}

/// Whether the connection is there; if not, one more write is lost.
fn may_write(this: This<'_, '_>) -> PyResult<bool> {
    if this.phase.get().may_write() {
        return Ok(true);
    }
    let lost = this.lost_writes.get();
    this.lost_writes.set(lost.saturating_add(1));
    if lost >= QUIET_LOST_WRITES {
        let py = this.py();
        logger(py)?.call_method1(pyo3::intern!(py, "warning"), ("SSL connection is closed",))?;
    }
    Ok(false)
}

/// Sends the backlog; what fails ends the connection.
fn go(this: This<'_, '_>) -> PyResult<()> {
    send_backlog(this).or_else(|error| this.failed(error, FAILED))
}

/// Sends what there is to send, of the backlog or of the session's own.
pub(super) fn flush(this: This<'_, '_>) -> PyResult<()> {
    if this.has_backlog(this.py()) { send_backlog(this) } else { send_owed(this) }
}

/// Encrypts and sends the backlog, piece by piece.
pub(super) fn send_backlog(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    loop {
        let length = |chunk: &Py<PyBytes>| chunk.bind(py).as_bytes().len();
        let Some(chunk) = this.backlog.with(py, |backlog| backlog.pop(length)) else { break };
        let chunk = chunk.into_bound(py);
        let (taken, later) = encrypt(this, &chunk)?;
        let whole = chunk.as_bytes();
        if taken < whole.len() {
            let rest = if taken == 0 { chunk.clone() } else { PyBytes::new(py, &whole[taken..]) };
            let length = whole.len() - taken;
            this.backlog.with(py, |backlog| backlog.unshift(rest.unbind(), length));
        }
        if later {
            break;
        }
    }
    send_owed(this)
}

/// Encrypts a chunk: how much of it was taken, and whether no more is for now.
fn encrypt<'py>(this: This<'_, 'py>, chunk: &Bound<'py, PyBytes>) -> PyResult<(usize, bool)> {
    let length = chunk.as_bytes().len();
    if length <= PIECE {
        return Ok(match this.engine.write(chunk.as_any())? {
            Got::Done(count) => (count.min(length), false),
            Got::Later => (0, true),
        });
    }
    let view = PyMemoryView::from(chunk.as_any())?;
    let mut taken = 0;
    while taken < length {
        let end = length.min(taken + PIECE);
        match this.engine.write(&buffer::part(&view, taken, end)?)? {
            Got::Done(count) => taken += count.min(end - taken),
            Got::Later => return Ok((taken, true)),
        }
        if end < length {
            send(this)?;
        }
    }
    Ok((taken, false))
}

/// Hands what the session has for the peer to the transport below, unless that one asked for a pause.
#[inline]
fn send(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    if this.pauses.get().below_writing {
        return Ok(());
    }
    let Some(transport) = this.transport.get(py) else { return Ok(()) };
    match this.engine.drain(py)? {
        Some(bytes) => Sender::of(&transport).write(bytes.as_borrowed()),
        None => Ok(()),
    }
}

/// As [`send`], and asks the program to pause or to go on.
#[inline]
pub(super) fn send_owed(this: This<'_, '_>) -> PyResult<()> {
    send(this)?;
    control_program(this)
}

// --- flow control --------------------------------------------------------------------------------

/// How many bytes wait on this side of the transport below.
pub(super) fn size(this: This<'_, '_>) -> PyResult<usize> {
    let py = this.py();
    Ok(this.engine.owed(py)? + this.backlog.with(py, |backlog| backlog.size()))
}

/// Asks the program to pause writing, or to go on.
fn control_program(this: This<'_, '_>) -> PyResult<()> {
    let (py, marks, pauses) = (this.py(), this.write_marks.get(), this.pauses.get());
    if !pauses.writing && !pauses.below_writing && marks.high > 0 && !this.has_backlog(py) {
        return Ok(()); // everything has just gone
    }
    let size = size(this)?;
    let asked = if size >= marks.high && !pauses.writing {
        Flow::Pause
    } else if size <= marks.low && pauses.writing {
        Flow::Resume
    } else {
        return Ok(());
    };
    this.pause(|pauses| pauses.writing = asked == Flow::Pause);
    match (this.event_loop.get(py), this.app_transport.get(py), this.protocol.get(py)) {
        (Some(event_loop), Some(transport), Some(protocol)) => {
            flow::tell(asked, this.receiver.get(), &event_loop, &transport, &protocol)
        }
        _ => Ok(()),
    }
}

/// `set_write_buffer_limits(high, low)`.
pub(super) fn set_limits(this: This<'_, '_>, marks: Marks) -> PyResult<()> {
    this.write_marks.set(marks);
    control_program(this)
}

/// Two marks of which each has a default that follows the other.
pub(super) fn marks(high: Option<i64>, low: Option<i64>, default: usize) -> PyResult<Marks> {
    let high = match (high, low) {
        (Some(high), _) => high,
        (None, Some(low)) => low.saturating_mul(4),
        (None, None) => i64::try_from(default).unwrap_or(i64::MAX),
    };
    let low = low.unwrap_or_else(|| high.div_euclid(4));
    match (usize::try_from(low), usize::try_from(high)) {
        (Ok(lower), Ok(upper)) if upper >= lower => Ok(Marks { low: lower, high: upper }),
        _ => Err(PyValueError::new_err(format!("high ({high}) must be >= low ({low}) must be >= 0"))),
    }
}
