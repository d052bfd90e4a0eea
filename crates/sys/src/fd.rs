//! Raw descriptors at the border: the one place of this crate that is allowed `unsafe`.
//!
//! Python programs name descriptors by number (`add_reader(3, …)`), and a number may be stale. The kernel
//! checks each one: a closed descriptor makes the call fail with EBADF. So lending a number for the length of
//! one system call is memory-safe; whether it still means the same file is what [`Key`](crate::Key)
//! generations and the single-owner rule answer. Also here: system calls that rustix does not offer in this form,
//! `epoll_pwait2` with a fallback, `kill` and `pidfd_send_signal` with a number, `recvmmsg`, `send` out of a file's
//! pages, a thread's signal mask, and whether there is io_uring.

#![allow(
    unsafe_code,
    reason = "borrowing descriptors that Python owns, and system calls rustix does not reach"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr::null_mut;
use std::time::Duration;

use rustix::event::epoll;
use rustix::mm::{self, MapFlags, ProtFlags};
use rustix::net::SocketAddrAny;
use rustix::param::page_size;

use crate::addr::Address;

/// Lends a descriptor number to one call.
///
/// A negative number is an error at once, as it is for the kernel.
pub fn with_raw<R>(fd: RawFd, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
    if fd < 0 {
        return Err(rustix::io::Errno::BADF.into());
    }
    call(Raw(fd).as_fd())
}

/// A descriptor number that Python owns, lent to the calls it is passed to.
///
/// `socket::recv(Raw(fd), …)` says at the call that nobody here keeps the descriptor open.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Raw(pub RawFd);

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let number = if self.0 < 0 { NOWHERE } else { self.0 };
        // SAFETY: the number is not negative. It may be closed: the kernel then answers EBADF, or acts on the
        // file that has the number now; no memory is involved.
        unsafe { BorrowedFd::borrow_raw(number) }
    }
}

/// A number that no descriptor ever has: the kernel's upper bound is half of it. Stands in for negative ones,
/// which a borrowed descriptor may not hold.
const NOWHERE: RawFd = RawFd::MAX;

/// Sends a signal by its number, which rustix knows only by name, to the process behind a pidfd.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call, and the null pointer asks for the default signal
    // information.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal by its number to a process by its number.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: two numbers, which the kernel checks.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Which signals a thread blocks.
#[derive(Clone, Copy)]
pub(crate) struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// All but those that tell a thread of its own faults.
    pub(crate) fn most() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: the set is filled by the first call, which cannot fail, and then changed by numbers of signals.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            for fault in [
                libc::SIGSEGV,
                libc::SIGBUS,
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGTRAP,
                libc::SIGSYS,
                libc::SIGABRT,
            ] {
                libc::sigdelset(set.as_mut_ptr(), fault);
            }
            Self(set.assume_init())
        }
    }

    #[cfg(test)]
    pub(crate) fn has(&self, signal: i32) -> bool {
        // SAFETY: a set that has been filled, and a number that is checked.
        unsafe { libc::sigismember(&raw const self.0, signal) == 1 }
    }
}

/// Has the calling thread block other signals; which it did before.
pub(crate) fn set_signal_mask(mask: &SignalMask) -> SignalMask {
    let mut before = *mask;
    // SAFETY: two sets that outlive the call; it cannot fail with a verb that there is, and writes the second.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask.0, &raw mut before.0) };
    before
}

/// Has `hook` called in the child of every fork of this process.
pub(crate) fn at_fork(hook: extern "C" fn()) {
    // SAFETY: the hook is a function of this program, never unloaded; it touches an atomic number and nothing else,
    // which is allowed in the child of a process with threads.
    let _ = unsafe { libc::pthread_atfork(None, None, Some(hook)) }; // out of memory: no fork is seen then
}

/// Puts the file of `file` under the number of `place` as well, closed on exec; what was there is closed.
pub(crate) fn duplicate_to(file: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open for the call; no memory is involved.
    let outcome = unsafe { libc::dup3(file.as_raw_fd(), place.as_raw_fd(), libc::O_CLOEXEC) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
    // SAFETY: the descriptor is open for the call; `events` has room for `limit` records, and `epoll::Event`
    // has the kernel's layout (rustix passes it to the same system call); `timeout` outlives the call; no
    // signal mask.
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

/// Asks for a ring of io_uring in a way that cannot succeed; an error means that there are none to be had.
pub(crate) fn try_io_uring() -> io::Result<()> {
    // SAFETY: the kernel reads the parameters before it does anything, and finds that there are none.
    let outcome = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1_u32, null_mut::<u8>()) };
    debug_assert_eq!(outcome, -1);
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EFAULT) { Ok(()) } else { Err(error) }
}

/// `send` out of a file's own pages, without a buffer. Zeros stand for what has just been cut off within a page.
///
/// "Unsupported" means: not from this file. (It cannot be mapped, or not be read there.)
pub(crate) fn send_mapped(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    length: usize,
) -> io::Result<usize> {
    let page = offset - offset % page_size() as u64;
    let skip = usize::try_from(offset - page).unwrap_or(0); // less than a page
    let mapped = skip.saturating_add(length);
    // SAFETY: a new mapping, at a place that the kernel chooses.
    let memory = unsafe { mm::mmap(null_mut(), mapped, ProtFlags::READ, MapFlags::SHARED, file, page) };
    let memory = memory.map_err(|_| io::ErrorKind::Unsupported)?;
    // SAFETY: no part of this process reads the memory, which others may change and which may cease to be in the file:
    // only the kernel does, and answers EFAULT where a page is gone. The bytes lie within the mapping.
    let sent = unsafe {
        libc::send(socket.as_raw_fd(), memory.cast::<u8>().add(skip).cast(), length, libc::MSG_NOSIGNAL)
    };
    let sent = usize::try_from(sent).map_err(|_| match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EFAULT) => io::ErrorKind::Unsupported.into(),
        error => error,
    });
    // SAFETY: the mapping from above, of which nobody has kept an address.
    let unmapped = unsafe { mm::munmap(memory, mapped) };
    debug_assert!(unmapped.is_ok());
    sent
}

/// How many datagrams one [`receive_many`] takes at most.
pub(crate) const MOST_DATAGRAMS: usize = 8;

/// `recvmmsg`: several datagrams with one call, each into its own part of `room`. Appends the length and the sender of
/// each to `got`.
pub(crate) fn receive_many(
    fd: BorrowedFd<'_>,
    room: &mut [u8],
    got: &mut Vec<(usize, Option<Address>)>,
) -> io::Result<()> {
    let mut names = [MaybeUninit::<libc::sockaddr_storage>::uninit(); MOST_DATAGRAMS];
    let name_room = libc::socklen_t::try_from(size_of::<libc::sockaddr_storage>()).unwrap_or(0);
    let each = room.len() / MOST_DATAGRAMS;
    let room = room.as_mut_ptr();
    let mut parts: [libc::iovec; MOST_DATAGRAMS] = std::array::from_fn(|i| libc::iovec {
        // SAFETY: the part ends within `room`, as `each` is an eighth of it.
        iov_base: unsafe { room.add(i * each) }.cast(),
        iov_len: each,
    });
    // SAFETY: plain numbers and pointers, for which zero is a value.
    let mut messages: [libc::mmsghdr; MOST_DATAGRAMS] = unsafe { std::mem::zeroed() };
    for (message, (name, part)) in messages.iter_mut().zip(names.iter_mut().zip(parts.iter_mut())) {
        message.msg_hdr.msg_name = name.as_mut_ptr().cast();
        message.msg_hdr.msg_namelen = name_room;
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: every header points to a name and a part that live until the end of this function, with their true
    // lengths; no time limit.
    let count = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            libc::c_uint::try_from(MOST_DATAGRAMS).unwrap_or(1),
            libc::MSG_DONTWAIT,
            null_mut(),
        )
    };
    let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
    for (message, name) in messages.iter().zip(&names).take(count) {
        let length = message.msg_hdr.msg_namelen;
        let sender = (2..=name_room).contains(&length).then(|| {
            // SAFETY: the kernel has written a name of that length.
            Address::from_any(unsafe { SocketAddrAny::read(name.as_ptr().cast(), length) })
        });
        got.push((usize::try_from(message.msg_len).unwrap_or(usize::MAX).min(each), sender));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_no_descriptor_is_an_error() {
        for number in [-1, -2, RawFd::MIN, 1_000_000] {
            let error = rustix::io::fcntl_getfd(Raw(number)).unwrap_err();
            assert_eq!(error, rustix::io::Errno::BADF);
        }
        assert!(with_raw(-1, |_| Ok(())).is_err());
    }
}
