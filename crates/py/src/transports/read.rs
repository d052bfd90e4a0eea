//! The reading half of a stream transport: from the socket to the protocol, one receive each time it is ready.

use std::cell::RefCell;
use std::io::ErrorKind;

use aioxide_core::phase::Happening;
use aioxide_sys::{Landing, stream};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::ahead;
use super::receiver::Receiver;
use super::tcp::{Reading, This};
use super::tls;
use crate::errors::os_error;
use crate::ffi::{buffer, scratch};

/// The most that one receive takes, as in asyncio.
pub(crate) const MOST: usize = scratch::SIZE;

thread_local! {
    /// Where received bytes land: one buffer for all transports of a thread, as each copies what it got at once.
    static LANDING: RefCell<Landing> = RefCell::new(Landing::new(MOST));
}

/// Receives up to `most` bytes (at most [`MOST`]) as a bytes object; an empty one is the end of the stream.
#[inline]
pub(crate) fn receive(py: Python<'_>, fd: i32, most: usize) -> std::io::Result<Bound<'_, PyBytes>> {
    receive_by(py, most, |buffer| stream::recv(fd, buffer))
}

/// As [`receive`], by another call than `recv`.
#[inline]
pub(crate) fn receive_by(
    py: Python<'_>,
    most: usize,
    call: impl FnOnce(&mut [u8]) -> std::io::Result<usize>,
) -> std::io::Result<Bound<'_, PyBytes>> {
    LANDING.with_borrow_mut(|landing| {
        let length = call(&mut landing[..most.min(MOST)])?;
        Ok(buffer::received(py, &landing[..length]))
    })
}

/// From how many expected bytes on they are received into an object of their own: then copying them out of the common
/// buffer costs more than making the object longer than they turn out to be.
const LARGE: usize = 32 * 1024;

/// Whether the system only says: not now.
#[inline]
pub(crate) fn is_later(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

const READ_FAILED: &str = "Fatal read error on socket transport";

/// The socket can be read; `last`: a receive stops before something else that is to be read, an end for instance.
#[inline]
pub(super) fn on_readable(this: This<'_, '_>, last: bool) -> PyResult<()> {
    let py = this.py();
    let Some(protocol) = this.protocol.get(py).filter(|_| this.is_reading()) else { return Ok(()) };
    let receiver = this.receiver.get();
    match receiver {
        Receiver::Buffered => return into_buffer(this, &protocol, last),
        Receiver::Tls => return into_layer(this, &protocol, last),
        Receiver::Python | Receiver::Streams => {}
    }
    let room = this.room.get();
    let received = if room >= LARGE {
        // Of which nothing is received ahead.
        buffer::fresh(py, room, |memory| stream::recv_uninit(this.fd, memory))?
    } else {
        receive_by(py, MOST, |memory| ahead::recv(this, memory))
    };
    match received {
        Ok(data) if data.as_bytes().is_empty() => on_end(this, &protocol),
        Ok(data) => {
            let length = data.as_bytes().len();
            let full = length == if room < LARGE { MOST } else { room };
            // What came last is the best guess at what comes next, with some room to grow.
            this.room.set(if full { (2 * length).min(MOST) } else { (length + length / 8).min(MOST) });
            if last || full {
                this.read_again(last)?;
            }
            match receiver.data_received(&protocol, data) {
                Ok(()) => Ok(()),
                Err(error) => this.failed(error, "Fatal error: protocol.data_received() call failed."),
            }
        }
        Err(error) if is_later(error.kind()) => Ok(()),
        Err(error) => this.failed(os_error(&error), READ_FAILED),
    }
}

/// TLS takes the bytes without a bytes object around them.
#[inline]
fn into_layer<'py>(this: This<'_, 'py>, protocol: &Bound<'py, PyAny>, last: bool) -> PyResult<()> {
    let Some(layer) = tls::This::cast_exact(protocol) else { return Ok(()) };
    match tls::receive(layer, |memory| ahead::recv(this, memory))? {
        Ok(0) => on_end(this, protocol),
        Ok(length) => {
            if last || length == MOST {
                this.read_again(last)?;
            }
            match layer.received() {
                Ok(()) => Ok(()),
                Err(error) => this.failed(error, "Fatal error: protocol.buffer_updated() call failed."),
            }
        }
        Err(error) if is_later(error.kind()) => Ok(()),
        Err(error) => this.failed(os_error(&error), READ_FAILED),
    }
}

/// A BufferedProtocol lends the memory.
fn into_buffer<'py>(this: This<'_, 'py>, protocol: &Bound<'py, PyAny>, last: bool) -> PyResult<()> {
    let py = this.py();
    let lend = || -> PyResult<Bound<'py, PyAny>> {
        let memory = protocol.call_method1(intern!(py, "get_buffer"), (-1,))?;
        if memory.len()? == 0 {
            return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
        }
        Ok(memory)
    };
    let memory = match lend() {
        Ok(memory) => memory,
        Err(error) => return this.failed(error, "Fatal error: protocol.get_buffer() call failed."),
    };
    let length = match buffer::write(&memory, |bytes| ahead::recv(this, bytes).map(|got| (got, bytes.len())))
    {
        Ok(Ok((0, _))) => return on_end(this, protocol),
        Ok(Ok((length, room))) => {
            if last || length == room {
                this.read_again(last)?;
            }
            length
        }
        Ok(Err(error)) if is_later(error.kind()) => return Ok(()),
        Ok(Err(error)) => return this.failed(os_error(&error), READ_FAILED),
        Err(error) => return this.failed(error, READ_FAILED),
    };
    match protocol.call_method1(intern!(py, "buffer_updated"), (length,)) {
        Ok(_) => Ok(()),
        Err(error) => this.failed(error, "Fatal error: protocol.buffer_updated() call failed."),
    }
}

/// The peer sends no more. The protocol decides whether the connection stays open for writing.
fn on_end<'py>(this: This<'_, 'py>, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
    this.log("%r received EOF")?;
    match this.receiver.get().eof_received(protocol) {
        Ok(true) => {
            this.reading.set(Reading { ended: true, ..this.reading.get() });
            this.watch()
        }
        Ok(false) => this.happened(Happening::Close, None),
        Err(error) => this.failed(error, "Fatal error: protocol.eof_received() call failed."),
    }
}
