//! What a turn receives ahead of the jobs that it is for.
//!
//! A call of the system that comes between two pieces of Python costs several times what it costs right after another of
//! its kind: neither finds its memory in the caches. In a rush (core's `Rush`) a turn therefore receives for many of its
//! jobs before the first one runs. Each transport keeps what is its own, and whatever receives from it next takes that
//! first. Nobody else does: sockets that a program has at hand are left alone. (It could still ask for one in an earlier
//! job of the same turn, pause the transport, and receive from a copy of the descriptor.)

use std::io;
use std::mem;

use aioxide_sys::stream;
use pyo3::prelude::*;

use super::read::{is_later, through_scratch};
use super::receiver::Receiver;
use super::tcp::This;

/// The most that is received ahead.
const MOST: usize = 4 * 1024;

/// What a transport has received ahead.
#[derive(Debug, Default)]
pub(super) enum Ahead {
    #[default]
    Nothing,
    Bytes(Vec<u8>),
    Failed(io::Error),
}

impl Ahead {
    pub(super) fn is_some(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// As a receive into `memory`, if there is something.
    fn take(&mut self, memory: &mut [u8]) -> Option<io::Result<usize>> {
        match mem::take(self) {
            Self::Nothing => None,
            Self::Failed(error) => Some(Err(error)),
            Self::Bytes(mut bytes) => {
                let length = bytes.len().min(memory.len());
                memory[..length].copy_from_slice(&bytes[..length]);
                if length < bytes.len() {
                    bytes.drain(..length);
                    *self = Self::Bytes(bytes);
                }
                Some(Ok(length))
            }
        }
    }
}

/// The descriptor can be read, which a job of this turn will be told.
pub(super) fn receive(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    let wants = this.is_reading()
        && this.is_tcp()
        && matches!(this.receiver.get(), Receiver::Python | Receiver::Streams)
        && this.room.get() <= MOST / 2
        && this.sock.is_private(py)
        && !this.has_ahead();
    if !wants {
        return Ok(());
    }
    let ahead = match through_scratch(MOST, |memory| stream::recv(this.fd, memory), <[u8]>::to_vec) {
        Ok(bytes) if bytes.is_empty() => return Ok(()), // the end is told as often as one asks
        Err(error) if is_later(error.kind()) => return Ok(()),
        Ok(bytes) => Ahead::Bytes(bytes),
        Err(error) => Ahead::Failed(error),
    };
    let is_full = matches!(&ahead, Ahead::Bytes(bytes) if bytes.len() == MOST);
    this.ahead.with(py, |place| *place = ahead);
    if is_full { this.read_again(false) } else { Ok(()) }
}

/// Receives: what is there already, else from the socket.
#[inline]
pub(super) fn recv(this: This<'_, '_>, memory: &mut [u8]) -> io::Result<usize> {
    this.ahead.with(this.py(), |ahead| ahead.take(memory)).unwrap_or_else(|| stream::recv(this.fd, memory))
}
