//! Child processes by pidfd: a descriptor that names one process for good and is readable once it has ended.
//!
//! Owned by the subprocess transports, which register it like any other descriptor. A signal sent through it
//! can never hit a process that was given the same number later. Spawning is not done here. Never blocks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::fd;

/// A child process.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: OwnedFd,
}

/// How a child has ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// Somebody else has reaped it: nobody can say.
    Unknown,
}

impl Exit {
    /// The number that Python's subprocess module gives. An unknown end counts as 255, as in asyncio.
    pub const fn returncode(self) -> i32 {
        match self {
            Self::Status(status) => status,
            Self::Signal(signal) => -signal,
            Self::Unknown => 255,
        }
    }
}

impl Child {
    /// Takes hold of a child that has not been waited for yet. ENOSYS: the kernel has no pidfds.
    pub fn open(pid: i32) -> io::Result<Self> {
        let process = Pid::from_raw(pid.max(0)).ok_or(Errno::INVAL)?;
        // The descriptor is born with CLOEXEC.
        Ok(Self { pid, pidfd: pidfd_open(process, PidfdFlags::empty())? })
    }

    /// Its number.
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Reaps it if it has ended; `None` while it runs.
    pub fn reap(&self) -> io::Result<Option<Exit>> {
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(None) => Ok(None),
            Ok(Some(status)) => Ok(Some(
                status
                    .exit_status()
                    .map(Exit::Status)
                    .or_else(|| status.terminating_signal().map(Exit::Signal))
                    .unwrap_or(Exit::Unknown),
            )),
            Err(Errno::CHILD) => Ok(Some(Exit::Unknown)),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a signal. [`is_gone`]: it has been reaped.
    pub fn send_signal(&self, signal: i32) -> io::Result<()> {
        match fd::pidfd_send_signal(self.pidfd.as_fd(), signal) {
            // A filter of a container may know one call and not the other.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => send_signal(self.pid, signal),
            result => result,
        }
    }
}

/// Sends a signal by the process's number: sound only while nobody can have reaped it.
pub fn send_signal(pid: i32, signal: i32) -> io::Result<()> {
    if pid > 0 { fd::kill(pid, signal) } else { Err(Errno::SRCH.into()) }
}

/// Whether an error says that there is no such process.
pub fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl AsRawFd for Child {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::poller::{Events, Interest};

    fn spawned(script: &str) -> (std::process::Child, Child) {
        let process = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        let child = Child::open(i32::try_from(process.id()).unwrap()).unwrap();
        (process, child)
    }

    fn ended(child: &Child) -> Exit {
        let mut driver = crate::Driver::new().unwrap();
        driver.register(child.as_raw_fd(), Interest::READ, ()).unwrap();
        let count = driver.poller().wait(&mut Events::new(), Some(Duration::from_secs(10))).unwrap();
        assert_eq!(count, 1, "the child has not ended");
        child.reap().unwrap().unwrap()
    }

    #[test]
    fn the_end_is_an_event_and_the_status_is_known() {
        let (_process, child) = spawned("exit 7");
        assert_eq!(ended(&child), Exit::Status(7));
        assert_eq!(child.reap().unwrap(), Some(Exit::Unknown), "reaped once");
        assert!(is_gone(&child.send_signal(libc::SIGTERM).unwrap_err()));
    }

    #[test]
    fn a_signal_ends_it() {
        let (_process, child) = spawned("sleep 60");
        assert_eq!(child.reap().unwrap(), None);
        assert_eq!(child.send_signal(999).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        child.send_signal(libc::SIGKILL).unwrap();
        let exit = ended(&child);
        assert_eq!((exit, exit.returncode()), (Exit::Signal(libc::SIGKILL), -libc::SIGKILL));
    }

    #[test]
    fn a_signal_by_number() {
        let (_process, child) = spawned("sleep 60");
        assert_eq!(send_signal(child.pid(), 999).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        send_signal(child.pid(), libc::SIGTERM).unwrap();
        assert_eq!(ended(&child), Exit::Signal(libc::SIGTERM));
        for nobody in [0, -1, i32::MIN] {
            assert!(is_gone(&send_signal(nobody, libc::SIGTERM).unwrap_err()), "never a whole group");
        }
    }

    #[test]
    fn a_process_that_is_not_there_cannot_be_opened() {
        for pid in [0, -1, i32::MAX] {
            assert!(Child::open(pid).is_err());
        }
    }
}
