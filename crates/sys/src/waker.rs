//! Waking a loop that blocks in its poller: an eventfd.
//!
//! Shared through an `Arc` between the loop, which registers it for reading and drains it, and every thread
//! that may wake the loop. Whether a wake is needed at all, the inbox says. Never blocks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{PoisonError, RwLock};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::fork;

/// A descriptor that becomes readable when somebody wakes the loop; none any more once it is closed, while others may
/// know the waker still.
#[derive(Debug)]
pub struct Waker {
    fd: RwLock<Option<OwnedFd>>,
}

impl Waker {
    /// A waker that nobody has rung.
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: RwLock::new(Some(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)) })
    }

    /// In the child of a fork: another descriptor under the same number, which the parent does not share.
    pub fn renew(&self) -> io::Result<()> {
        self.with(Ok(()), |fd| {
            fork::replace(fd.as_fd(), eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
        })
    }

    /// Makes the descriptor readable. From any thread; wakes before the next drain add up to one.
    pub fn wake(&self) -> io::Result<()> {
        self.with(Ok(()), |fd| match rustix::io::write(fd, &1_u64.to_ne_bytes()) {
            // A full counter is readable already.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        })
    }

    /// Makes the descriptor quiet again. Returns whether anybody had woken it.
    pub fn drain(&self) -> io::Result<bool> {
        self.with(Ok(false), |fd| match rustix::io::read(fd, &mut [0_u8; 8]) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        })
    }

    /// Closes the descriptor: nobody sleeps any more who could be woken.
    pub fn close(&self) {
        drop(self.fd.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn with<R>(&self, closed: R, f: impl FnOnce(&OwnedFd) -> R) -> R {
        self.fd.read().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(closed, f)
    }
}

impl AsRawFd for Waker {
    /// The number to register; -1 once it is closed.
    fn as_raw_fd(&self) -> RawFd {
        self.with(-1, AsRawFd::as_raw_fd)
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

    #[test]
    fn a_closed_one_wakes_nobody() {
        let waker = Waker::new().unwrap();
        waker.wake().unwrap();
        waker.close();
        waker.wake().unwrap();
        assert!(!waker.drain().unwrap());
        assert_eq!(waker.as_raw_fd(), -1);
    }
}
