//! Signals as bytes: the pipe that Python's C-level signal handler writes into (`signal.set_wakeup_fd`).
//!
//! Owned by a loop on the main thread, which watches the reading end, drains it and then lets Python run its
//! handlers. Installing handlers stays Python's affair. Never blocks on either end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::pipe;

/// The largest signal number on Linux.
const LAST_SIGNAL: i32 = 64;

/// Whether there is a signal with this number.
pub const fn is_signal(number: i32) -> bool {
    number >= 1 && number <= LAST_SIGNAL
}

/// Whether a program may handle this signal at all.
pub const fn can_be_caught(number: i32) -> bool {
    is_signal(number) && number != libc::SIGKILL && number != libc::SIGSTOP
}

/// A pipe of signal numbers.
#[derive(Debug)]
pub struct SignalPipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl SignalPipe {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = pipe::create()?;
        Ok(Self { reader, writer })
    }

    /// The end for `set_wakeup_fd`.
    pub fn wakeup_fd(&self) -> RawFd {
        self.writer.as_raw_fd()
    }

    /// Takes the numbers that have come, in order.
    pub fn drain(&self) -> io::Result<Vec<u8>> {
        let mut numbers = Vec::new();
        let mut buffer = [0; 256];
        loop {
            match rustix::io::read(&self.reader, &mut buffer).map_err(io::Error::from) {
                Ok(count) => numbers.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(numbers),
                // The handler that interrupted us has written: read again.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for SignalPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl AsRawFd for SignalPipe {
    fn as_raw_fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Raw;

    #[test]
    fn numbers_come_out_as_they_went_in() {
        let signals = SignalPipe::new().unwrap();
        assert_eq!(signals.drain().unwrap(), []);
        let numbers: Vec<u8> = (1..=64).cycle().take(600).collect();
        assert_eq!(pipe::write(Raw(signals.wakeup_fd()), &numbers).unwrap(), 600);
        assert_eq!(signals.drain().unwrap(), numbers);
        assert_eq!(signals.drain().unwrap(), []);
    }

    #[test]
    fn some_numbers_are_no_signals_and_some_signals_cannot_be_caught() {
        assert!(is_signal(1) && is_signal(64) && !is_signal(0) && !is_signal(65) && !is_signal(-1));
        assert!(
            can_be_caught(libc::SIGINT) && !can_be_caught(libc::SIGKILL) && !can_be_caught(libc::SIGSTOP)
        );
    }
}
