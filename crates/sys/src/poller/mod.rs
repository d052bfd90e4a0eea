//! The poller: which descriptors have something to do. Owned (shared) by [`Driver`](crate::Driver).
//!
//! The contract that every backend keeps, and that its tests check:
//!
//! 1. Level-triggered: a descriptor is reported by each `wait` for as long as it stays ready. With
//!    [`Interest::EDGE`] a backend may report it only when something has changed, and then reports the end of the
//!    peer's direction and urgent data as a hang-up: a receive stops before them, and there is more to read.
//! 2. `wait` takes `&self` and runs without Python's lock: other threads may add, modify and delete
//!    meanwhile, and an add is seen by the wait that is going on.
//! 3. `wait(None)` blocks until something happens, `wait(0)` never blocks, and no wait ends before its
//!    timeout without an event: what cannot be expressed exactly is rounded up.
//! 4. A signal ends the wait with `ErrorKind::Interrupted`. The caller runs Python's signal handlers and
//!    waits again; the backend never retries by itself.
//! 5. Hang-up and error count as readable *and* writable, since the next read or write tells what happened.
//!    They are reported whatever the interest was: mask with the registration's interest.
//! 6. Registering a regular file or directory fails with EPERM, a closed descriptor with EBADF, a descriptor
//!    twice with EEXIST: errors are the kernel's own, unchanged.
//! 7. A key comes back as it was given. Backends know nothing about generations.

mod epoll;
mod sim;

use std::fmt;
use std::io;
use std::ops::{BitAnd, BitOr};
use std::os::fd::RawFd;
use std::time::Duration;

use crate::fd::with_raw;
use crate::slots::Key;

pub use epoll::Epoll;
pub use sim::Sim;

/// What to wait for on a descriptor.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Interest(u8);

impl Interest {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Until it can be read without blocking.
    pub const READ: Self = Self(1);
    /// Until it can be written without blocking.
    pub const WRITE: Self = Self(2);
    /// Both.
    pub const BOTH: Self = Self(3);

    /// A hint, beside `READ`: the owner reads until nothing is left, so that being told again is a waste.
    pub const EDGE: Self = Self(4);

    /// Whether it includes reading.
    pub const fn is_read(self) -> bool {
        self.0 & Self::READ.0 != 0
    }

    /// Whether it includes writing.
    pub const fn is_write(self) -> bool {
        self.0 & Self::WRITE.0 != 0
    }

    /// Whether it has the hint [`EDGE`](Self::EDGE).
    pub const fn is_edge(self) -> bool {
        self.0 & Self::EDGE.0 != 0
    }

    /// Whether it is neither reading nor writing.
    pub const fn is_empty(self) -> bool {
        self.0 & Self::BOTH.0 == 0
    }

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// It with all of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// It without any of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Interest {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl BitAnd for Interest {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What happened to one descriptor.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key under which it was registered; it may be stale by now.
    pub key: Key,
    /// A read would not block.
    pub readable: bool,
    /// A write would not block.
    pub writable: bool,
    /// The peer is gone or the descriptor is broken (then readable and writable as well).
    pub hangup: bool,
}

impl Event {
    /// Readable and writable as an [`Interest`], to mask with the registration's.
    pub const fn readiness(self) -> Interest {
        let read = if self.readable { Interest::READ } else { Interest::NONE };
        if self.writable { read.with(Interest::WRITE) } else { read }
    }
}

/// What a descriptor is ready for, without saying which descriptor.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read would not block.
    pub readable: bool,
    /// A write would not block.
    pub writable: bool,
    /// The peer is gone or the descriptor is broken.
    pub hangup: bool,
}

impl Readiness {
    /// The part of an event that `interest` asked for; `None` if that is nothing.
    pub const fn of(event: Event, interest: Interest) -> Option<Self> {
        let ready = Self {
            readable: event.readable && interest.is_read(),
            writable: event.writable && interest.is_write(),
            hangup: event.hangup,
        };
        if ready.readable || ready.writable { Some(ready) } else { None }
    }
}

/// How many events a buffer has room for at first, and at most.
const ROOM: (usize, usize) = (256, 8192);

/// A buffer of events, filled by [`Poller::wait`] and used again and again.
pub struct Events {
    /// What the kernel wrote.
    raw: Vec<rustix::event::epoll::Event>,
    list: Vec<Event>,
}

impl Events {
    /// An empty buffer.
    pub fn new() -> Self {
        Self { raw: Vec::with_capacity(ROOM.0), list: Vec::with_capacity(ROOM.0) }
    }

    /// The events of the last wait.
    pub fn as_slice(&self) -> &[Event] {
        &self.list
    }

    /// The events of the last wait, one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// A wait that filled the buffer left events behind: make more room for the next one.
    fn grow_if_full(&mut self) {
        if self.raw.len() == self.raw.capacity() && self.raw.len() < ROOM.1 {
            self.raw = Vec::with_capacity(2 * self.raw.len());
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.list).finish()
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One of the backends.
#[derive(Debug)]
pub enum Poller {
    /// Linux's epoll.
    Epoll(Epoll),
    /// A world in memory, with a virtual clock.
    Sim(Sim),
}

impl Poller {
    /// The backend for this machine.
    pub fn new() -> io::Result<Self> {
        Ok(Self::Epoll(Epoll::new()?))
    }

    /// In the child of a fork: leaves the parent's list of descriptors to the parent and starts an empty one.
    pub fn renew(&self) -> io::Result<()> {
        match self {
            Self::Epoll(epoll) => epoll.renew(),
            Self::Sim(_) => Ok(()), // memory, copied by the fork
        }
    }

    /// Whether this is a descriptor at all, whether it can be watched or not.
    pub fn check(&self, fd: RawFd) -> io::Result<()> {
        match self {
            Self::Epoll(_) => with_raw(fd, |fd| Ok(rustix::io::fcntl_getfd(fd).map(drop)?)),
            Self::Sim(sim) => sim.check(fd),
        }
    }

    /// Starts watching a descriptor.
    pub fn add(&self, fd: RawFd, key: Key, interest: Interest) -> io::Result<()> {
        match self {
            Self::Epoll(epoll) => with_raw(fd, |fd| epoll.add(fd, key, interest)),
            Self::Sim(sim) => sim.add(fd, key, interest),
        }
    }

    /// Changes what a descriptor is watched for.
    pub fn modify(&self, fd: RawFd, key: Key, interest: Interest) -> io::Result<()> {
        match self {
            Self::Epoll(epoll) => with_raw(fd, |fd| epoll.modify(fd, key, interest)),
            Self::Sim(sim) => sim.modify(fd, key, interest),
        }
    }

    /// Stops watching a descriptor.
    pub fn delete(&self, fd: RawFd) -> io::Result<()> {
        match self {
            Self::Epoll(epoll) => with_raw(fd, |fd| epoll.delete(fd)),
            Self::Sim(sim) => sim.delete(fd),
        }
    }

    /// Waits until something happens or `timeout` has passed (`None`: for ever); how many events there are.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        events.clear();
        match self {
            Self::Epoll(epoll) => epoll.wait(events, timeout),
            Self::Sim(sim) => sim.wait(events, timeout),
        }
    }

    /// The time this backend's waits are measured in: the machine's clock, or the simulated one.
    #[inline]
    pub fn now(&self) -> f64 {
        match self {
            Self::Epoll(_) => crate::clock::monotonic(),
            Self::Sim(sim) => sim.now(),
        }
    }
}
