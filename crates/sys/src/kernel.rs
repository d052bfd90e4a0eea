//! Which of the calls that aioxide has a use for this kernel offers. Each is tried in a way that changes nothing.
//!
//! For reports (`aioxide doctor`) only: what waits or sends finds out for itself, and falls back where it can. A call
//! may be missing because the kernel is old, or because a container's filter or a setting forbids it.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, waitid};

use crate::fd;

/// Each call by name, with the number of the error that says why it is not to be had; 0 for one that is.
pub fn calls() -> Vec<(&'static str, i32)> {
    let tries: [(&'static str, fn() -> io::Result<()>); 6] = [
        ("eventfd", try_eventfd),
        ("epoll_pwait2", try_epoll_pwait2),
        ("pidfd_open", try_pidfd_open),
        ("waitid_pidfd", try_waitid_pidfd),
        ("recvmmsg", try_recvmmsg),
        ("io_uring_setup", fd::try_io_uring),
    ];
    tries.iter().map(|(name, call)| (*name, refusal(call()))).collect()
}

fn refusal(outcome: io::Result<()>) -> i32 {
    outcome.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// Takes the errors that only a kernel which has the call would give for what it was given here.
fn unless(expected: &[i32], outcome: io::Result<()>) -> io::Result<()> {
    outcome.or_else(|error| match error.raw_os_error() {
        Some(number) if expected.contains(&number) => Ok(()),
        _ => Err(error),
    })
}

fn try_eventfd() -> io::Result<()> {
    eventfd(0, EventfdFlags::CLOEXEC)?;
    Ok(())
}

fn try_epoll_pwait2() -> io::Result<()> {
    let nothing = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    fd::epoll_wait_ns(nothing.as_fd(), &mut Vec::with_capacity(1), Duration::from_nanos(1))?;
    Ok(())
}

fn try_pidfd_open() -> io::Result<()> {
    pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(())
}

/// A process is no child of its own; a kernel that does not know pidfds here complains of the kind of wait instead.
fn try_waitid_pidfd() -> io::Result<()> {
    let ourselves = pidfd_open(getpid(), PidfdFlags::empty())?;
    let outcome = waitid(WaitId::PidFd(ourselves.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    unless(&[libc::ECHILD], outcome.map(drop).map_err(io::Error::from))
}

/// An eventfd is no socket.
fn try_recvmmsg() -> io::Result<()> {
    let no_socket = eventfd(0, EventfdFlags::CLOEXEC)?;
    let outcome = fd::receive_many(no_socket.as_fd(), &mut [0; fd::MOST_DATAGRAMS], &mut Vec::new());
    unless(&[libc::ENOTSOCK], outcome.map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_runs_these_tests_has_what_the_loop_is_made_of() {
        let found = calls();
        assert_eq!(found.len(), 6);
        for name in ["eventfd", "recvmmsg"] {
            assert!(found.contains(&(name, 0)), "{found:?}");
        }
        // What may be missing is missing for a reason that is the kernel's or a filter's.
        for (name, number) in found {
            let reasons = [0, libc::ENOSYS, libc::EPERM, libc::EACCES, libc::EINVAL, libc::ENOMEM];
            assert!(reasons.contains(&number), "{name}: {number}");
        }
    }

    #[test]
    fn an_error_that_was_to_be_expected_is_none() {
        let error = |number| Err(io::Error::from_raw_os_error(number));
        assert!(unless(&[libc::EBADF], error(libc::EBADF)).is_ok());
        assert_eq!(refusal(unless(&[libc::EBADF], error(libc::ENOSYS))), libc::ENOSYS);
        assert_eq!(refusal(Ok(())), 0);
    }
}
