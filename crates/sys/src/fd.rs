//! Raw descriptors at the border: the one place of this crate that is allowed `unsafe`.
//!
//! Python programs name descriptors by number (`add_reader(3, …)`), and a number may be stale. The kernel checks
//! each one: a closed descriptor makes the call fail with EBADF. So lending a number for the length of one system
//! call is memory-safe; whether it still means the same file is what [`Key`](crate::Key) generations and the
//! single-owner rule answer. Also here: `epoll_pwait2`, which rustix offers only without a fallback.

#![allow(
    unsafe_code,
    reason = "borrowing descriptors that Python owns, and one system call rustix does not reach"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::event::epoll;

/// Lends a descriptor number to one call.
///
/// A negative number is an error at once, as it is for the kernel.
pub fn with_raw<R>(fd: RawFd, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
    if fd < 0 {
        return Err(rustix::io::Errno::BADF.into());
    }
    // SAFETY: the number is not -1, and the borrow ends with the call. If the descriptor is closed (before, or by
    // another thread meanwhile) the kernel answers EBADF or acts on its new owner's file: no memory is involved.
    call(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// `epoll_pwait2` with a timeout in nanoseconds; fills the spare capacity of `events`, which must be empty.
///
/// ENOSYS (before Linux 5.11) and EPERM (some container filters) mean: use `epoll_wait`.
pub(crate) fn epoll_wait_ns(
    epoll: BorrowedFd<'_>,
    events: &mut Vec<epoll::Event>,
    timeout: Duration,
) -> io::Result<usize> {
    events.clear();
    let limit = libc::c_int::try_from(events.capacity()).unwrap_or(libc::c_int::MAX);
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
    };
    // SAFETY: the descriptor is open for the call; `events` has room for `limit` records, and `epoll::Event` has the
    // kernel's layout (rustix passes it to the same system call); `timeout` outlives the call; no signal mask.
    let count = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            limit,
            &raw const timeout,
            std::ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
    let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the kernel wrote the first `count` records, and `count` is at most the capacity.
    unsafe { events.set_len(count) };
    Ok(count)
}
