//! The simulated backend: pipes in memory, a clock that jumps, and an order drawn from a seed.
//!
//! The shortest backend to read, the test double, and the engine under deterministic runs: with the same seed
//! and the same program everything happens in the same order at the same (virtual) time. Where nothing is
//! ready, `wait` moves the clock to its timeout at once instead of waiting. Real descriptors may be watched
//! as well (a waker of another thread): they are asked without waiting, and waited for only if nothing else
//! could ever happen.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Event, Events, Interest};
use crate::fd::Raw;
use crate::slots::Key;

/// Numbers of simulated ends begin here, where no process has real descriptors.
const FIRST: RawFd = 1 << 30;
/// How many bytes fit into one direction of a pair.
const CAPACITY: usize = 64 * 1024;

/// A simulated world.
#[derive(Debug)]
pub struct Sim {
    world: Mutex<World>,
}

#[derive(Debug)]
struct World {
    now: f64,
    random: u64,
    ends: BTreeMap<RawFd, End>,
    next: RawFd,
    watched: BTreeMap<RawFd, (Key, Interest)>,
}

#[derive(Debug)]
struct End {
    peer: RawFd,
    incoming: VecDeque<u8>,
    /// No more bytes will come in / may go out.
    ended: bool,
    shut: bool,
}

impl Sim {
    /// A world at time zero. The seed decides the order of events that come together.
    pub fn new(seed: u64) -> Self {
        let world = World {
            now: 0.0,
            // Never zero, which xorshift could not leave.
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            ends: BTreeMap::new(),
            next: FIRST,
            watched: BTreeMap::new(),
        };
        Self { world: Mutex::new(world) }
    }

    /// The virtual time, in seconds.
    pub fn now(&self) -> f64 {
        self.world().now
    }

    /// Two connected ends.
    pub fn pair(&self) -> (RawFd, RawFd) {
        let mut world = self.world();
        let (one, two) = (world.next, world.next + 1);
        world.next += 2;
        for (end, peer) in [(one, two), (two, one)] {
            world.ends.insert(end, End { peer, incoming: VecDeque::new(), ended: false, shut: false });
        }
        (one, two)
    }

    /// Sends what fits.
    pub fn send(&self, fd: RawFd, data: &[u8]) -> io::Result<usize> {
        let mut world = self.world();
        let end = world.ends.get(&fd).ok_or(Errno::BADF)?;
        let (peer, shut) = (end.peer, end.shut);
        let peer = world.ends.get_mut(&peer).filter(|_| !shut).ok_or(Errno::PIPE)?;
        let count = data.len().min(CAPACITY - peer.incoming.len());
        if count == 0 && !data.is_empty() {
            return Err(Errno::AGAIN.into());
        }
        peer.incoming.extend(&data[..count]);
        Ok(count)
    }

    /// Receives what there is. Zero: the peer has ended.
    pub fn recv(&self, fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
        let mut world = self.world();
        let end = world.ends.get_mut(&fd).ok_or(Errno::BADF)?;
        if end.incoming.is_empty() && !end.ended {
            return Err(Errno::AGAIN.into());
        }
        let count = buffer.len().min(end.incoming.len());
        for (place, byte) in buffer.iter_mut().zip(end.incoming.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }

    /// Ends the sending direction.
    pub fn shutdown(&self, fd: RawFd) -> io::Result<()> {
        let mut world = self.world();
        let end = world.ends.get_mut(&fd).ok_or(Errno::BADF)?;
        end.shut = true;
        let peer = end.peer;
        if let Some(peer) = world.ends.get_mut(&peer) {
            peer.ended = true;
        }
        Ok(())
    }

    /// Closes an end. Like a kernel's, this also ends its being watched.
    pub fn close(&self, fd: RawFd) -> io::Result<()> {
        self.shutdown(fd)?;
        let mut world = self.world();
        world.ends.remove(&fd);
        world.watched.remove(&fd);
        Ok(())
    }

    pub(super) fn check(&self, fd: RawFd) -> io::Result<()> {
        if self.world().ends.contains_key(&fd) {
            return Ok(());
        }
        rustix::io::fcntl_getfd(Raw(fd))?;
        Ok(())
    }

    pub(super) fn add(&self, fd: RawFd, key: Key, interest: Interest) -> io::Result<()> {
        self.check(fd)?;
        let mut world = self.world();
        if world.watched.contains_key(&fd) {
            return Err(Errno::EXIST.into());
        }
        world.watched.insert(fd, (key, interest));
        Ok(())
    }

    pub(super) fn modify(&self, fd: RawFd, key: Key, interest: Interest) -> io::Result<()> {
        *self.world().watched.get_mut(&fd).ok_or(Errno::NOENT)? = (key, interest);
        Ok(())
    }

    pub(super) fn delete(&self, fd: RawFd) -> io::Result<()> {
        self.world().watched.remove(&fd).ok_or(Errno::NOENT)?;
        Ok(())
    }

    pub(super) fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        self.collect(events, Duration::ZERO)?;
        if events.list.is_empty() {
            match timeout {
                Some(timeout) => self.world().now += timeout.as_secs_f64(),
                None if self.has_real() => self.collect(events, Duration::MAX)?,
                None => return Err(Errno::DEADLK.into()),
            }
        }
        self.world().shuffle(&mut events.list);
        Ok(events.list.len())
    }

    /// Adds what is ready now; real descriptors are given `patience` to become so.
    fn collect(&self, events: &mut Events, patience: Duration) -> io::Result<()> {
        let watched = self.world().watched.clone();
        for (&fd, &(key, interest)) in &watched {
            events.list.extend(self.world().ready(fd, key, interest));
        }
        let real: Vec<_> = watched.iter().filter(|(fd, _)| **fd < FIRST).collect();
        if real.is_empty() {
            return Ok(());
        }
        let descriptors: Vec<_> = real.iter().map(|(fd, _)| Raw(**fd)).collect();
        let mut asked: Vec<_> = descriptors
            .iter()
            .zip(&real)
            .map(|(fd, (_, (_, interest)))| PollFd::new(fd, flags(*interest)))
            .collect();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut asked, if patience.is_zero() { Some(&at_once) } else { None })?;
        for (answer, (_, (key, _))) in asked.iter().zip(&real) {
            let flags = answer.revents();
            let hangup = flags.intersects(PollFlags::HUP | PollFlags::ERR);
            let (readable, writable) =
                (hangup || flags.contains(PollFlags::IN), hangup || flags.contains(PollFlags::OUT));
            if readable || writable {
                events.list.push(Event { key: *key, readable, writable, hangup });
            }
        }
        Ok(())
    }

    fn has_real(&self) -> bool {
        self.world().watched.keys().any(|fd| *fd < FIRST)
    }

    /// Nothing can panic while the lock is held, so a poisoned lock still guards a whole world.
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    fn ready(&self, fd: RawFd, key: Key, interest: Interest) -> Option<Event> {
        let end = self.ends.get(&fd)?;
        let peer = self.ends.get(&end.peer);
        let hangup = peer.is_none() || (end.shut && end.ended);
        let readable = interest.is_read() && (!end.incoming.is_empty() || end.ended);
        let writable = interest.is_write() && peer.is_some_and(|peer| peer.incoming.len() < CAPACITY);
        let event = Event { key, readable: readable || hangup, writable: writable || hangup, hangup };
        (event.readable || event.writable).then_some(event)
    }

    /// Puts events into the order that the seed wants.
    fn shuffle(&mut self, list: &mut [Event]) {
        for last in (1..list.len()).rev() {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let choice = usize::try_from(self.random >> 33).unwrap_or(0) % (last + 1);
            list.swap(last, choice);
        }
    }
}

fn flags(interest: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, interest.is_read());
    flags.set(PollFlags::OUT, interest.is_write());
    flags
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::sync::Arc;

    use super::*;
    use crate::poller::Poller;
    use crate::{Driver, Waker};

    fn world(seed: u64) -> (Driver<RawFd>, Arc<Poller>) {
        let driver = Driver::with_poller(Arc::new(Poller::Sim(Sim::new(seed))));
        let poller = driver.poller();
        (driver, poller)
    }

    fn sim(poller: &Poller) -> &Sim {
        match poller {
            Poller::Sim(sim) => sim,
            Poller::Epoll(_) => unreachable!("made as a simulation"),
        }
    }

    #[test]
    fn a_conversation_in_memory() {
        let (mut driver, poller) = world(1);
        let sim = sim(&poller);
        let (one, two) = sim.pair();
        let key = driver.register(two, Interest::READ, two).unwrap();
        let mut events = Events::new();
        assert_eq!(poller.wait(&mut events, Some(Duration::from_secs(3600))).unwrap(), 0);
        assert!((sim.now() - 3600.0).abs() < 1e-9, "an hour took no time");
        assert_eq!(sim.send(one, b"hello").unwrap(), 5);
        assert_eq!(poller.wait(&mut events, None).unwrap(), 1);
        assert_eq!((events.as_slice()[0].key, events.as_slice()[0].writable), (key, false));
        let mut buffer = [0; 8];
        assert_eq!(sim.recv(two, &mut buffer).unwrap(), 5);
        assert_eq!(sim.recv(two, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(poller.wait(&mut events, None).unwrap_err().raw_os_error(), Some(libc::EDEADLK));
        sim.close(one).unwrap();
        assert_eq!(poller.wait(&mut events, None).unwrap(), 1);
        assert!(events.as_slice()[0].hangup);
        assert_eq!(sim.recv(two, &mut buffer).unwrap(), 0);
        assert_eq!(sim.send(two, b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(driver.forget(key), Some(two));
    }

    #[test]
    fn a_full_pipe_blocks_and_drains() {
        let (_driver, poller) = world(1);
        let sim = sim(&poller);
        let (one, two) = sim.pair();
        assert_eq!(sim.send(one, &vec![7; CAPACITY + 1]).unwrap(), CAPACITY);
        assert_eq!(sim.send(one, b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(sim.recv(two, &mut [0; 10]).unwrap(), 10);
        assert_eq!(sim.send(one, &[7; 100]).unwrap(), 10);
    }

    fn order(seed: u64) -> Vec<RawFd> {
        let (mut driver, poller) = world(seed);
        for _ in 0..8 {
            let (one, _) = sim(&poller).pair();
            driver.register(one, Interest::WRITE, one).unwrap();
        }
        let mut events = Events::new();
        assert_eq!(poller.wait(&mut events, None).unwrap(), 8);
        events.iter().map(|event| *driver.get(event.key).unwrap()).collect()
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(order(5), order(5));
        assert!((0..10).any(|seed| order(seed) != order(5)));
    }

    #[test]
    fn a_real_waker_ends_a_wait() {
        let (mut driver, poller) = world(1);
        let waker = Arc::new(Waker::new().unwrap());
        driver.register(waker.as_raw_fd(), Interest::READ, -1).unwrap();
        let mut events = Events::new();
        assert_eq!(poller.wait(&mut events, Some(Duration::from_secs(9))).unwrap(), 0);
        let other = Arc::clone(&waker);
        let thread = std::thread::spawn(move || other.wake());
        assert_eq!(poller.wait(&mut events, None).unwrap(), 1);
        thread.join().unwrap().unwrap();
    }
}
