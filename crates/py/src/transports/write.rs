//! The writing half of a stream transport: each write is tried at once; what the socket does not take waits in the
//! outbox until it can be written.

use std::io::{self, IoSlice};

use aioxide_core::Flow;
use aioxide_core::phase::Happening;
use aioxide_sys::stream;
use pyo3::Borrowed;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::flow::{self, Chunk};
use super::held;
use super::read::is_later;
use super::report;
use super::tcp::This;
use crate::errors::os_error;
use crate::event_loop::EventLoop;
use crate::ffi::buffer;

const WRITE_FAILED: &str = "Fatal write error on socket transport";

/// How many chunks one call of the system sends at most.
const PIECES: usize = 256;

/// What became of an attempt to send.
enum Sent {
    All,
    Some(usize),
    Failed(io::Error),
}

/// Sends what the socket takes; "not now" is a start at zero. `hold`: the kernel keeps it back.
#[inline]
fn send(fd: i32, bytes: &[u8], hold: bool) -> Sent {
    match if hold { stream::send_held(fd, bytes) } else { stream::send(fd, bytes) } {
        Ok(length) if length == bytes.len() => Sent::All,
        Ok(length) => Sent::Some(length),
        Err(error) if is_later(error.kind()) => Sent::Some(0),
        Err(error) => Sent::Failed(error),
    }
}

/// `write(data)`.
pub(super) fn write<'py>(this: This<'_, 'py>, data: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    if let Ok(bytes) = data.cast::<PyBytes>() {
        let content = bytes.as_bytes();
        if !may_write(this, content.is_empty(), "write", "write")? {
            return Ok(());
        }
        let sent = if this.unsent.get() {
            Sent::Some(0)
        } else {
            send(this.fd, content, held::may_wait(this, content.len()))
        };
        return match sent {
            Sent::All => {
                note_io(this);
                Ok(())
            }
            Sent::Some(from) => queue(this, [Chunk::Shared { bytes: bytes.to_owned().into(), from }]),
            Sent::Failed(error) => this.failed(os_error(&error), WRITE_FAILED),
        };
    }
    flow::check_data(&data)?;
    let length = buffer::read(&data, <[u8]>::len)?;
    if !may_write(this, length == 0, "write", "write")? {
        return Ok(());
    }
    let busy = this.unsent.get();
    let hold = !busy && held::may_wait(this, length);
    let (sent, rest) = buffer::read(&data, |content| {
        let sent = if busy { Sent::Some(0) } else { send(this.fd, content, hold) };
        let rest = match sent {
            Sent::Some(from) => content[from..].to_vec(),
            Sent::All | Sent::Failed(_) => Vec::new(),
        };
        (sent, rest)
    })?;
    match sent {
        Sent::All => {
            note_io(this);
            Ok(())
        }
        Sent::Some(_) => queue(this, [Chunk::Copied(rest)]),
        Sent::Failed(error) => this.failed(os_error(&error), WRITE_FAILED),
    }
}

/// Whether to go on: not when there is nothing to write, nor on a lost connection.
#[inline]
fn may_write(this: This<'_, '_>, empty: bool, method: &str, verb: &str) -> PyResult<bool> {
    if this.eof.get() {
        return Err(PyRuntimeError::new_err(format!("Cannot call {method}() after write_eof()")));
    }
    if this.flushed.is_some() {
        return Err(PyRuntimeError::new_err(format!("unable to {verb}; sendfile is in progress")));
    }
    if empty {
        return Ok(false);
    }
    if this.phase.get().is_lost() {
        let before = this.lost_writes.get();
        this.lost_writes.set(report::lost_write(this.py(), before, "socket.send() raised exception.")?);
        return Ok(false);
    }
    Ok(true)
}

/// Bytes went: the answer may come soon.
#[inline]
fn note_io(this: This<'_, '_>) {
    if this.called.get() {
        return; // the loop has just seen the descriptor
    }
    if let Some(event_loop) = this.event_loop.get(this.py())
        && let Some(event_loop) = EventLoop::of(&event_loop)
    {
        event_loop.note_io();
    }
}

/// Leaves chunks for later.
fn queue(this: This<'_, '_>, chunks: impl IntoIterator<Item = Chunk>) -> PyResult<()> {
    let py = this.py();
    let mut asked = Flow::Nothing;
    let mut empty = Vec::new();
    for chunk in chunks {
        let (flow, back) = this.outbox.with(py, |outbox| outbox.push(chunk));
        empty.extend(back);
        if flow != Flow::Nothing {
            asked = flow;
        }
    }
    drop(empty);
    this.note_unsent(py);
    this.watch()?;
    tell(this, asked)
}

fn tell(this: This<'_, '_>, asked: Flow) -> PyResult<()> {
    let py = this.py();
    match (asked, this.event_loop.get(py), this.protocol.get(py)) {
        (Flow::Pause | Flow::Resume, Some(event_loop), Some(protocol)) => {
            flow::tell(asked, this.receiver.get(), &event_loop, &this.to_owned(), &protocol)
        }
        _ => Ok(()),
    }
}

/// `writelines(list_of_data)`: one gathering call of the system.
pub(super) fn write_lines<'py>(this: This<'_, 'py>, lines: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    if !may_write(this, !lines.is_truthy()?, "writelines", "writelines")? {
        return Ok(());
    }
    let mut chunks = Vec::new();
    for line in lines.try_iter()? {
        let line = line?;
        let chunk = match line.cast_into::<PyBytes>() {
            Ok(bytes) => Chunk::Shared { bytes: bytes.into(), from: 0 },
            Err(other) => Chunk::Copied(buffer::read(&other.into_inner(), <[u8]>::to_vec)?),
        };
        if !chunk.as_ref().is_empty() {
            chunks.push(chunk);
        }
    }
    if chunks.is_empty() {
        return Ok(());
    }
    if this.unsent.get() {
        return queue(this, chunks);
    }
    let pieces: Vec<_> = chunks.iter().take(PIECES).map(|chunk| IoSlice::new(chunk.as_ref())).collect();
    let length = pieces.iter().map(|piece| piece.len()).sum();
    let sent = if held::may_wait(this, length) {
        stream::send_pieces_held(this.fd, &pieces)
    } else {
        stream::send_pieces(this.fd, &pieces)
    };
    let mut left = match sent {
        Ok(length) => length,
        Err(error) if is_later(error.kind()) => 0,
        Err(error) => return this.failed(os_error(&error), WRITE_FAILED),
    };
    note_io(this);
    let rest: Vec<_> = chunks
        .into_iter()
        .filter_map(|chunk| {
            let length = chunk.as_ref().len();
            let gone = left.min(length);
            left -= gone;
            match chunk {
                _ if gone == length => None,
                Chunk::Shared { bytes, from } => Some(Chunk::Shared { bytes, from: from + gone }),
                Chunk::Copied(bytes) => Some(Chunk::Copied(bytes[gone..].to_vec())),
            }
        })
        .collect();
    if rest.is_empty() { Ok(()) } else { queue(this, rest) }
}

/// `write_eof()`: our direction ends once everything is sent.
pub(super) fn write_eof(this: This<'_, '_>) -> PyResult<()> {
    if this.phase.get().is_closing() || this.eof.get() {
        return Ok(());
    }
    this.eof.set(true);
    this.happened(Happening::WriteEof, None)
}

/// The socket can be written.
pub(super) fn on_writable(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    if this.phase.get().is_lost() || !this.unsent.get() {
        return Ok(());
    }
    let sent = this.outbox.with(py, |outbox| {
        if outbox.chunks() == 1 {
            return outbox.pieces(1).next().map_or(Ok(0), |piece| stream::send(this.fd, piece));
        }
        let pieces: Vec<_> = outbox.pieces(PIECES).map(IoSlice::new).collect();
        stream::send_pieces(this.fd, &pieces)
    });
    let length = match sent {
        Ok(length) => length,
        Err(error) if is_later(error.kind()) => return Ok(()),
        Err(error) => return give_up(this, &error),
    };
    let mut spent = Vec::new();
    let asked = this.outbox.with(py, |outbox| outbox.advance(length, &mut spent));
    drop(spent);
    this.note_unsent(py);
    tell(this, asked)?; // which may write more
    if this.unsent.get() {
        return Ok(());
    }
    this.watch()?;
    if let Some(waiter) = this.flushed.get(py) {
        waiter.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    this.happened(Happening::Flushed, None)
}

/// The connection is broken: nothing of what waits can go.
fn give_up(this: This<'_, '_>, error: &io::Error) -> PyResult<()> {
    let py = this.py();
    this.discard(py);
    this.watch()?;
    let error = os_error(error);
    let value = error.value(py).clone().into_any();
    this.failed(error, WRITE_FAILED)?;
    match this.flushed.get(py) {
        Some(waiter) if !waiter.call_method0(intern!(py, "done"))?.is_truthy()? => {
            waiter.call_method1(intern!(py, "set_exception"), (value,)).map(drop)
        }
        _ => Ok(()),
    }
}

/// `_make_empty_waiter()`: a future that is done once everything is sent; until it is taken back nobody may write.
pub(super) fn make_empty_waiter<'py>(this: This<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    if this.flushed.is_some() {
        return Err(PyRuntimeError::new_err("Empty waiter is already set"));
    }
    let Some(event_loop) = this.event_loop.get(py) else {
        return Err(PyRuntimeError::new_err("Transport is closed"));
    };
    let waiter = event_loop.call_method0(intern!(py, "create_future"))?;
    this.flushed.set(py, waiter.clone());
    if !this.unsent.get() {
        waiter.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    Ok(waiter)
}

/// `set_write_buffer_limits(high, low)`.
pub(super) fn set_limits(this: This<'_, '_>, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
    let asked = flow::set_limits(&this.outbox, this.py(), high, low)?;
    tell(this, asked)
}

const _: () = assert!(PIECES <= stream::MOST_PIECES);
