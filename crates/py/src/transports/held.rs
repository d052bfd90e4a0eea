//! Bytes that the kernel keeps back for a moment because more of the same packet is expected in the same job.
//!
//! A server that writes head and body of an answer apart would send two packets, each with a way through the network
//! and a wake-up of its own. Once a transport is known to write like that (core's `Habit`), all but the last of its
//! writes are sent with `MSG_MORE`: the bytes are the kernel's at once, with all that follows from it, only the packet
//! waits. The last write takes it along; where that does not come, the end of the job does (turn.rs), and where the
//! job does not end, the kernel's own timer. One transport of a loop at a time.

use aioxide_sys::{clock, stream};
use pyo3::prelude::*;

use super::tcp::This;
use crate::event_loop::EventLoop;
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::gc::{Stopped, Visit};
use crate::pulse::instrument;

/// Longer writes go at once: they fill packets of their own.
const SMALL: usize = 16 * 1024;

/// Which transport has bytes held back, and in which job.
#[derive(Debug)]
pub(crate) struct Held {
    /// The number of the job that runs; even: none does.
    job: Flag<u32>,
    transport: Slot,
}

impl Held {
    pub(crate) const fn new() -> Self {
        Self { job: Flag::new(0), transport: Slot::empty() }
    }

    /// Jobs are about to run.
    #[inline]
    pub(crate) fn begin(&self) {
        self.job.set(self.job.get() | 1);
    }

    /// The next job begins.
    #[inline]
    pub(crate) fn next(&self) {
        self.job.set(self.job.get().wrapping_add(2));
    }

    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.transport.traverse(visit)
    }

    pub(crate) fn clear(&self, py: Python<'_>) {
        drop(self.transport.take(py));
    }
}

/// No job runs any more; what the last one held back goes. Called at the end of each turn, and of whatever ended one
/// early.
#[inline]
pub(crate) fn end(event_loop: &Bound<'_, EventLoop>) {
    let job = &event_loop.get().held.job;
    job.set((job.get() | 1).wrapping_add(1));
    if EventLoop::core(event_loop).instruments() & instrument::HELD != 0 {
        release(event_loop);
    }
}

/// What is held back goes. Called between jobs, as the transport's last reference may go with it.
#[cold]
pub(crate) fn release(event_loop: &Bound<'_, EventLoop>) {
    EventLoop::core(event_loop).set_instrument(instrument::HELD, false);
    let transport = event_loop.get().held.transport.take(event_loop.py());
    if let Some(this) = transport.as_ref().and_then(This::cast)
        && this.sock.is_open()
    {
        let _ = stream::push(this.fd); // a broken connection says so to whoever uses it next
    }
}

/// The transport is about to close its socket: what it has held back goes first, for the kernel would drop that where
/// there is something unread.
#[inline]
pub(super) fn leave(this: This<'_, '_>) {
    let event_loop = this.event_loop.get(this.py());
    if let Some(event_loop) = event_loop.as_ref().and_then(|event_loop| event_loop.cast::<EventLoop>().ok())
        && event_loop.get().held.transport.holds(&this.object())
    {
        release(event_loop);
    }
}

/// So many bytes are about to be sent, after everything before them. Whether the kernel is to keep them for the write
/// that follows.
#[inline]
pub(super) fn expects_more(this: This<'_, '_>, length: usize) -> bool {
    if !this.is_tcp() {
        return false;
    }
    let Some(event_loop) = this.event_loop.get(this.py()) else { return false };
    let Ok(event_loop) = event_loop.cast::<EventLoop>() else { return false };
    let job = event_loop.get().held.job.get();
    if job & 1 == 0 {
        return false; // nobody would come to let them go
    }
    let mut habit = this.habit.get();
    let expected = habit.write(job, clock::monotonic);
    this.habit.set(habit);
    let (core, place) = (EventLoop::core(event_loop), &event_loop.get().held.transport);
    if core.instruments() & instrument::HELD == 0 {
        if !expected || length > SMALL {
            return false;
        }
        drop(place.replace(this.py(), Some(this.to_owned())));
        core.set_instrument(instrument::HELD, true);
        return true;
    }
    if !place.holds(&this.object()) {
        return false; // another's
    }
    if expected && length <= SMALL {
        return true;
    }
    // This write takes along what was held back.
    core.set_instrument(instrument::HELD, false);
    drop(place.take(this.py()));
    false
}
