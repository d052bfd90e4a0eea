//! What a turn receives ahead of the jobs that it is for.
//!
//! A call of the system that comes between two pieces of Python costs several times what it costs right after another of
//! its kind: neither finds its memory in the caches. In a rush (core's `Rush`) a turn therefore receives for many of its
//! jobs before the first one runs. Each transport keeps what is its own, and whatever receives from it next takes that
//! first. Nobody else does: sockets that a program has at hand are left alone. (It could still ask for one in an earlier
//! job of the same turn, pause the transport, and receive from a copy of the descriptor.)

use std::io::{self, ErrorKind};

use aioxide_sys::stream;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt};

use super::read::{self, is_later};
use super::receiver::Receiver;
use super::tcp::This;

/// The most that is received ahead.
const MOST: usize = 4 * 1024;

/// The descriptor can be read, which a job of this turn will be told.
pub(super) fn receive(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    let wants = this.is_reading()
        && this.is_tcp()
        && matches!(this.receiver.get(), Receiver::Python | Receiver::Streams)
        && this.room.get() <= MOST / 2
        && !this.has_ahead()
        && this.sock.is_private(py);
    if !wants {
        return Ok(());
    }
    let ahead = match read::receive(py, this.fd, MOST) {
        Ok(bytes) if bytes.as_bytes().is_empty() => return Ok(()), // the end is told as often as one asks
        Err(error) if is_later(error.kind()) => return Ok(()),
        Ok(bytes) => {
            if bytes.as_bytes().len() == MOST {
                this.read_again(false)?;
            }
            bytes.into_any()
        }
        Err(error) => PyInt::new(py, error.raw_os_error().unwrap_or(0)).into_any(),
    };
    this.ahead.set(py, ahead);
    Ok(())
}

/// Receives: what is there already, else from the socket. Runs no Python code.
#[inline]
pub(super) fn recv(this: This<'_, '_>, memory: &mut [u8]) -> io::Result<usize> {
    let py = this.py();
    match this.ahead.take(py).map(|ahead| ahead.cast_into_exact::<PyBytes>()) {
        None => stream::recv(this.fd, memory),
        Some(Ok(bytes)) => {
            let bytes = bytes.as_bytes();
            let (now, later) = bytes.split_at(bytes.len().min(memory.len()));
            memory[..now.len()].copy_from_slice(now);
            if !later.is_empty() {
                this.ahead.set(py, PyBytes::new(py, later).into_any());
            }
            Ok(now.len())
        }
        Some(Err(number)) => {
            Err(number.into_inner().extract().map_or(ErrorKind::Other.into(), io::Error::from_raw_os_error))
        }
    }
}
