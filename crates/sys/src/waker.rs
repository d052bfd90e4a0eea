//! Waking a loop that blocks in its poller: an eventfd.
//!
//! Shared through an `Arc` between the loop, which registers it for reading and drains it, and every thread
//! that may wake the loop. Whether a wake is needed at all, the inbox says. Never blocks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::fork;

/// A descriptor that becomes readable when somebody wakes the loop.
#[derive(Debug)]
pub struct Waker {
    fd: OwnedFd,
}

impl Waker {
    /// A waker that nobody has rung.
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// In the child of a fork: another descriptor under the same number, which the parent does not share.
    pub fn renew(&self) -> io::Result<()> {
        fork::replace(self.fd.as_fd(), eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
    }

    /// Makes the descriptor readable. From any thread; wakes before the next drain add up to one.
    pub fn wake(&self) -> io::Result<()> {
        match rustix::io::write(&self.fd, &1_u64.to_ne_bytes()) {
            // A full counter is readable already.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the descriptor quiet again. Returns whether anybody had woken it.
    pub fn drain(&self) -> io::Result<bool> {
        match rustix::io::read(&self.fd, &mut [0_u8; 8]) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_wakes_are_one() {
        let waker = Waker::new().unwrap();
        assert!(!waker.drain().unwrap());
        waker.wake().unwrap();
        waker.wake().unwrap();
        assert!(waker.drain().unwrap());
        assert!(!waker.drain().unwrap());
    }
}
