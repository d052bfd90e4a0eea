//! Who is interested in which descriptor: the poller plus a slab of registrations.
//!
//! The `py` floor chooses the source type `S` (what to do when the descriptor is ready). One driver per loop;
//! it is changed by the loop's thread only, while the shared [`Poller`] may be waiting. The driver never
//! closes a descriptor: its owner does, after [`Driver::forget`].

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::fork;
use crate::poller::{Interest, Poller};
use crate::slots::{Key, Slots};

#[derive(Debug)]
struct Registration<S> {
    fd: RawFd,
    /// What the poller watches for. When empty, the poller does not know the descriptor: epoll would go on
    /// reporting a hang-up that nobody wants to hear of.
    interest: Interest,
    source: S,
}

/// Registrations by key and by descriptor.
#[derive(Debug)]
pub struct Driver<S> {
    poller: Arc<Poller>,
    registrations: Slots<Registration<S>>,
    by_fd: FxHashMap<RawFd, Key>,
    /// The process that the poller belongs to, as `fork` counts them.
    process: u32,
}

impl<S> Driver<S> {
    /// A driver on this machine's poller.
    pub fn new() -> io::Result<Self> {
        Ok(Self::with_poller(Arc::new(Poller::new()?)))
    }

    /// A driver on a given poller.
    pub fn with_poller(poller: Arc<Poller>) -> Self {
        Self { poller, registrations: Slots::new(), by_fd: FxHashMap::default(), process: fork::watch() }
    }

    /// Whether this is a child of the process that made the poller: see [`settle`](Self::settle).
    #[inline]
    pub fn is_foreign(&self) -> bool {
        self.process != fork::count()
    }

    /// In the child of a fork, before it uses the poller: the two processes would change one list of descriptors, and
    /// the parent would no longer hear of its own. The child gets a list of its own with the same entries.
    pub fn settle(&mut self) -> io::Result<()> {
        if !self.is_foreign() {
            return Ok(());
        }
        self.poller.renew()?;
        self.process = fork::count();
        for (key, registration) in self.registrations.iter() {
            if !registration.interest.is_empty() {
                // Closed since: nobody will hear of it, as before.
                let _ = self.poller.add(registration.fd, key, registration.interest);
            }
        }
        Ok(())
    }

    /// Starts watching `fd`. An error hands `source` back, so that the caller decides where to drop it.
    pub fn try_register(&mut self, fd: RawFd, interest: Interest, source: S) -> Result<Key, (io::Error, S)> {
        let key = self.registrations.next_key();
        match self.watch(fd, key, interest) {
            Ok(()) => {
                self.registrations.insert(Registration { fd, interest, source });
                self.by_fd.insert(fd, key);
                Ok(key)
            }
            Err(error) => Err((error, source)),
        }
    }

    /// Starts watching `fd`; see [`try_register`](Self::try_register) where dropping `source` is not
    /// harmless.
    pub fn register(&mut self, fd: RawFd, interest: Interest, source: S) -> io::Result<Key> {
        self.try_register(fd, interest, source).map_err(|(error, _)| error)
    }

    /// Changes what is watched for. [`Interest::NONE`] keeps the registration but hears nothing, hang-ups
    /// included.
    pub fn rearm(&mut self, key: Key, interest: Interest) -> io::Result<()> {
        let Some(registration) = self.registrations.get_mut(key) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let before = registration.interest;
        if before == interest {
            return Ok(());
        }
        if self.process != fork::count() {
            registration.interest = interest; // with all the others, when the child uses the poller
            return Ok(());
        }
        if before.is_empty() {
            self.poller.add(registration.fd, key, interest)?;
        } else if interest.is_empty() {
            self.poller.delete(registration.fd)?;
        } else {
            self.poller.modify(registration.fd, key, interest)?;
        }
        registration.interest = interest;
        Ok(())
    }

    /// Stops watching and hands the source back. Call it while the descriptor is still open: a closed one
    /// leaves the kernel's list by itself, unless a duplicate keeps it there.
    #[must_use = "dropping a source may run foreign code: choose where"]
    pub fn forget(&mut self, key: Key) -> Option<S> {
        let registration = self.registrations.remove(key)?;
        self.by_fd.remove(&registration.fd);
        if !registration.interest.is_empty() && !self.is_foreign() {
            // Closed meanwhile: gone from the list already, and nothing is left to undo.
            let _ = self.poller.delete(registration.fd);
        }
        Some(registration.source)
    }

    /// The source under `key`; `None` for a stale key.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&S> {
        self.registrations.get(key).map(|registration| &registration.source)
    }

    /// The source under `key`, to change.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut S> {
        self.registrations.get_mut(key).map(|registration| &mut registration.source)
    }

    /// What `key` is watched for.
    #[inline]
    pub fn interest(&self, key: Key) -> Option<Interest> {
        self.registrations.get(key).map(|registration| registration.interest)
    }

    /// The descriptor under `key`.
    #[inline]
    pub fn fd(&self, key: Key) -> Option<RawFd> {
        self.registrations.get(key).map(|registration| registration.fd)
    }

    /// The key under which `fd` is registered.
    #[inline]
    pub fn key_of_fd(&self, fd: RawFd) -> Option<Key> {
        self.by_fd.get(&fd).copied()
    }

    fn watch(&self, fd: RawFd, key: Key, interest: Interest) -> io::Result<()> {
        if self.by_fd.contains_key(&fd) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // The poller is not told of no interest, but a bad descriptor must still be an error now. A child's poller is
        // told of everything once it is the child's own.
        if interest.is_empty() || self.is_foreign() {
            self.poller.check(fd)
        } else {
            self.poller.add(fd, key, interest)
        }
    }

    /// How many descriptors are registered.
    pub fn len(&self) -> usize {
        self.registrations.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.registrations.is_empty()
    }

    /// All sources.
    pub fn iter(&self) -> impl Iterator<Item = (Key, RawFd, &S)> {
        self.registrations.iter().map(|(key, registration)| (key, registration.fd, &registration.source))
    }

    /// The poller, to wait on.
    pub fn poller(&self) -> Arc<Poller> {
        Arc::clone(&self.poller)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::fd::with_raw;
    use crate::poller::Events;

    const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn readiness_is_reported_until_it_is_used_up() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let mut driver = Driver::new().unwrap();
        let key = driver.register(ours.as_raw_fd(), Interest::READ, "ours").unwrap();
        let (poller, mut events) = (driver.poller(), Events::new());
        assert_eq!(poller.wait(&mut events, AT_ONCE).unwrap(), 0);
        theirs.write_all(b"hello").unwrap();
        for _ in 0..2 {
            assert_eq!(poller.wait(&mut events, None).unwrap(), 1);
            let event = events.as_slice()[0];
            assert_eq!((event.key, event.readable, event.writable, event.hangup), (key, true, false, false));
            assert_eq!(driver.get(event.key), Some(&"ours"));
        }
        ours.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(poller.wait(&mut events, AT_ONCE).unwrap(), 0);
        driver.rearm(key, Interest::BOTH).unwrap();
        poller.wait(&mut events, None).unwrap();
        assert_eq!(events.as_slice()[0].readiness(), Interest::WRITE);
        assert_eq!(driver.interest(key), Some(Interest::BOTH));
    }

    #[test]
    fn a_child_gets_a_list_of_its_own() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (other, _peer) = UnixStream::pair().unwrap();
        let mut parents = Driver::new().unwrap();
        let key = parents.register(ours.as_raw_fd(), Interest::READ, "ours").unwrap();
        let gone = parents.register(other.as_raw_fd(), Interest::READ, "gone").unwrap();
        // As a fork leaves it: another driver with the same list, whose poller is the parent's by another number.
        let shared = parents.poller();
        parents.process = parents.process.wrapping_sub(1);
        assert!(parents.is_foreign());
        let (kept, mut events) = (duplicate(&shared), Events::new());
        assert_eq!(parents.forget(gone), Some("gone"));
        parents.settle().unwrap();
        assert!(!parents.is_foreign());
        assert_eq!(parents.forget(key), Some("ours"));
        theirs.write_all(b"x").unwrap();
        assert_eq!(shared.wait(&mut events, AT_ONCE).unwrap(), 0, "the child has forgotten it");
        assert!(
            rustix::event::poll(
                &mut [rustix::event::PollFd::new(&kept, rustix::event::PollFlags::IN)],
                Some(&rustix::event::Timespec::default())
            )
            .unwrap()
                == 1,
            "the parent still hears of it"
        );
    }

    fn duplicate(poller: &Poller) -> std::os::fd::OwnedFd {
        match poller {
            Poller::Epoll(epoll) => with_raw(epoll.as_raw_fd(), |fd| fd.try_clone_to_owned()).unwrap(),
            Poller::Sim(_) => unreachable!("a real one"),
        }
    }

    #[test]
    fn no_interest_means_not_even_a_hangup() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut driver = Driver::new().unwrap();
        let key = driver.register(ours.as_raw_fd(), Interest::READ, ()).unwrap();
        driver.rearm(key, Interest::NONE).unwrap();
        drop(theirs);
        let (poller, mut events) = (driver.poller(), Events::new());
        assert_eq!(poller.wait(&mut events, AT_ONCE).unwrap(), 0);
        driver.rearm(key, Interest::WRITE).unwrap();
        assert_eq!(poller.wait(&mut events, None).unwrap(), 1);
        let event = events.as_slice()[0];
        assert!(event.hangup && event.readable && event.writable);
    }

    #[test]
    fn an_edge_is_reported_once_and_the_end_with_the_last_bytes() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let mut driver = Driver::new().unwrap();
        let key = driver.register(ours.as_raw_fd(), Interest::READ | Interest::EDGE, ()).unwrap();
        let (poller, mut events) = (driver.poller(), Events::new());
        theirs.write_all(b"hello").unwrap();
        assert_eq!(poller.wait(&mut events, None).unwrap(), 1);
        assert!(events.as_slice()[0].readable && !events.as_slice()[0].hangup);
        assert_eq!(poller.wait(&mut events, AT_ONCE).unwrap(), 0, "no news");
        driver.rearm(key, Interest::BOTH).unwrap();
        driver.rearm(key, Interest::READ | Interest::EDGE).unwrap();
        assert_eq!(poller.wait(&mut events, None).unwrap(), 1, "armed again: what is left is news");
        ours.read_exact(&mut [0; 5]).unwrap();
        theirs.write_all(b"bye").unwrap();
        drop(theirs);
        assert_eq!(poller.wait(&mut events, None).unwrap(), 1);
        assert!(events.as_slice()[0].readable && events.as_slice()[0].hangup);
    }

    #[test]
    fn forgetting_is_final_and_tolerates_a_closed_descriptor() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut driver = Driver::new().unwrap();
        let fd = ours.as_raw_fd();
        let key = driver.register(fd, Interest::WRITE, 'a').unwrap();
        assert_eq!(driver.key_of_fd(fd), Some(key));
        assert_eq!(
            driver.register(fd, Interest::READ, 'b').unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        drop(ours);
        assert_eq!(driver.forget(key), Some('a'));
        assert_eq!(driver.forget(key), None);
        assert_eq!((driver.get(key), driver.key_of_fd(fd), driver.len()), (None, None, 0));
        assert_eq!(driver.rearm(key, Interest::READ).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_cannot_be_watched_is_the_kernels_error() {
        let mut driver = Driver::new().unwrap();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let error = driver.register(file.as_raw_fd(), Interest::READ, ()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        for (fd, interest) in [(-1, Interest::READ), (1_000_000, Interest::READ), (1_000_000, Interest::NONE)]
        {
            let error = driver.register(fd, interest, ()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        }
        assert!(driver.is_empty());
    }

    #[test]
    fn a_descriptor_added_during_a_wait_ends_it() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"x").unwrap();
        let mut driver = Driver::new().unwrap();
        let poller = driver.poller();
        let waiting = std::thread::spawn(move || {
            let mut events = Events::new();
            poller.wait(&mut events, Some(Duration::from_secs(20))).map(|_| events.as_slice().to_vec())
        });
        std::thread::sleep(Duration::from_millis(20));
        let key = driver.register(ours.as_raw_fd(), Interest::READ, ()).unwrap();
        let events = waiting.join().unwrap().unwrap();
        assert_eq!(events.iter().map(|event| event.key).collect::<Vec<_>>(), [key]);
    }

    #[test]
    fn more_events_than_the_buffer_has_room_for_come_with_the_next_wait() {
        let pairs: Vec<_> = (0..400).map(|_| UnixStream::pair().unwrap()).collect();
        let mut driver = Driver::new().unwrap();
        for (ours, _) in &pairs {
            driver.register(ours.as_raw_fd(), Interest::WRITE, ()).unwrap();
        }
        let (poller, mut events) = (driver.poller(), Events::new());
        let first = poller.wait(&mut events, AT_ONCE).unwrap();
        let second = poller.wait(&mut events, AT_ONCE).unwrap();
        assert!(first < 400, "the first buffer is meant to be too small");
        assert_eq!(second, 400);
    }
}
