//! The epoll backend. Made by [`Poller::new`](super::Poller::new); the contract is in the parent module.
//!
//! Waits go through `epoll_pwait2`, whose timeout is in nanoseconds, and fall back for good to `epoll_wait`,
//! whose timeout is in milliseconds, when the kernel or a container's filter does not offer it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use super::{Event, Events, Interest};
use crate::fd;
use crate::fork;
use crate::slots::Key;

/// The longest time `epoll_wait` can express; a longer wait is cut there and simply finds nothing.
const LONGEST_WAIT: Duration = Duration::from_millis(i32::MAX as u64);

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    has_nanoseconds: AtomicBool,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { fd: epoll::create(epoll::CreateFlags::CLOEXEC)?, has_nanoseconds: AtomicBool::new(true) })
    }

    /// An instance of its own under the same number: in a child, whose parent goes on with the old one.
    pub(super) fn renew(&self) -> io::Result<()> {
        fork::replace(self.fd.as_fd(), epoll::create(epoll::CreateFlags::CLOEXEC)?)
    }

    pub(super) fn add(&self, fd: BorrowedFd<'_>, key: Key, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.fd, fd, epoll::EventData::new_u64(key.to_token()), flags(interest))?)
    }

    pub(super) fn modify(&self, fd: BorrowedFd<'_>, key: Key, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.fd, fd, epoll::EventData::new_u64(key.to_token()), flags(interest))?)
    }

    pub(super) fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, fd)?)
    }

    pub(super) fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        events.grow_if_full();
        self.wait_raw(&mut events.raw, timeout)?;
        events.list.extend(events.raw.iter().map(event));
        Ok(events.list.len())
    }

    fn wait_raw(&self, raw: &mut Vec<epoll::Event>, timeout: Option<Duration>) -> io::Result<()> {
        if let Some(timeout) = timeout.filter(|timeout| timeout.subsec_nanos() % 1_000_000 != 0)
            && self.has_nanoseconds.load(Ordering::Relaxed)
        {
            match fd::epoll_wait_ns(self.fd.as_fd(), raw, timeout.min(LONGEST_WAIT)) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    self.has_nanoseconds.store(false, Ordering::Relaxed);
                }
                result => return result.map(drop),
            }
        }
        raw.clear();
        let timeout = timeout.map(|timeout| whole_milliseconds(timeout.min(LONGEST_WAIT)));
        epoll::wait(&self.fd, rustix::buffer::spare_capacity(raw), timeout.as_ref())?;
        Ok(())
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Rounded up: a wait that ends early would make the loop spin until its timer is due.
fn whole_milliseconds(timeout: Duration) -> Timespec {
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128);
    let milliseconds = i64::try_from(milliseconds).unwrap_or(i64::from(i32::MAX));
    Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 }
}

/// What a receive stops at although more is there: the end of the peer's direction, and urgent data.
const BEYOND_BYTES: epoll::EventFlags = epoll::EventFlags::RDHUP.union(epoll::EventFlags::PRI);

fn flags(interest: Interest) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN, interest.is_read());
    flags.set(epoll::EventFlags::OUT, interest.is_write());
    flags.set(epoll::EventFlags::ET | BEYOND_BYTES, interest.is_edge());
    flags
}

fn event(raw: &epoll::Event) -> Event {
    let (flags, data) = (raw.flags, raw.data);
    let broken = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
    Event {
        key: Key::from_token(data.u64()),
        readable: broken || flags.contains(epoll::EventFlags::IN),
        writable: broken || flags.contains(epoll::EventFlags::OUT),
        hangup: broken || flags.intersects(BEYOND_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_rounded_up() {
        let of = |nanos| whole_milliseconds(Duration::from_nanos(nanos));
        assert_eq!(of(0), Timespec { tv_sec: 0, tv_nsec: 0 });
        assert_eq!(of(1), Timespec { tv_sec: 0, tv_nsec: 1_000_000 });
        assert_eq!(of(1_000_000), Timespec { tv_sec: 0, tv_nsec: 1_000_000 });
        assert_eq!(of(1_999_000_001), Timespec { tv_sec: 2, tv_nsec: 0 });
    }

    #[test]
    fn no_wait_ends_early_with_or_without_nanoseconds() {
        for has_nanoseconds in [true, false] {
            let epoll = Epoll::new().unwrap();
            epoll.has_nanoseconds.store(has_nanoseconds, Ordering::Relaxed);
            let mut events = Events::new();
            for micros in [0, 1, 300, 1500, 2000] {
                let timeout = Duration::from_micros(micros);
                let before = crate::clock::monotonic();
                assert_eq!(epoll.wait(&mut events, Some(timeout)).unwrap(), 0);
                let waited = crate::clock::monotonic() - before;
                assert!(waited >= timeout.as_secs_f64(), "{waited} < {timeout:?}");
            }
        }
    }
}
