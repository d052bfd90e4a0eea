//! Bytes that the kernel keeps back for a moment: because more of the same packet is expected in the same job, or
//! because others write too.
//!
//! A server that writes head and body of an answer apart would send two packets, each with a way through the network
//! and a wake-up of its own. Once a transport is known to write like that (core's `Habit`), all but the last of its
//! writes are sent with `MSG_MORE`: the bytes are the kernel's at once, with all that follows from it, only the packet
//! waits. The last write takes it along; where that does not come, the end of the job does (turn.rs), and where the
//! job does not end, the kernel's own timer.
//!
//! A loop that answers many in one turn, computing between the answers, would wake the other side for each of them.
//! Once it is known to be like that (core's `Rush`), small writes to others on this machine wait in the same way until
//! the end of the turn, or about as long as `Rush` has it.

use std::mem;

use aioxide_core::Rush;
use aioxide_sys::{clock, stream};
use pyo3::prelude::*;

use super::tcp::This;
use crate::event_loop::EventLoop;
use crate::ffi::cell::{Flag, GilCell};
use crate::ffi::gc::{Stopped, Visit};
use crate::pulse::instrument;

/// Longer writes go at once: they fill packets of their own.
const SMALL: usize = 16 * 1024;

/// Which transports have bytes held back, and in which job.
#[derive(Debug)]
pub(crate) struct Held {
    /// The number of the job that runs; even: none does.
    job: Flag<u32>,
    rush: GilCell<Rush>,
    /// Those that may have: `TcpTransport::held` says whether one really does.
    transports: GilCell<Vec<Py<PyAny>>>,
}

impl Held {
    pub(crate) const fn new() -> Self {
        Self { job: Flag::new(0), rush: GilCell::new(Rush::new()), transports: GilCell::new(Vec::new()) }
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
        let all =
            |transports: &Vec<_>| transports.iter().try_for_each(|transport| visit.call(Some(transport)));
        self.transports.visit(all).unwrap_or(Ok(()))
    }

    pub(crate) fn clear(&self, py: Python<'_>) {
        drop(self.transports.with(py, mem::take));
    }
}

/// No job runs any more; what is held back goes. Called at the end of each turn, and of whatever ended one early.
#[inline]
pub(crate) fn end(event_loop: &Bound<'_, EventLoop>) {
    let held = &event_loop.get().held;
    held.job.set((held.job.get() | 1).wrapping_add(1));
    if EventLoop::core(event_loop).instruments() & instrument::HELD != 0 {
        held.rush.with(event_loop.py(), |rush| rush.goes_on(clock::monotonic)); // the last job may have been long
        release(event_loop);
    }
    held.rush.with(event_loop.py(), Rush::over);
}

/// A job is over that is not the turn's last one, and something is held back.
#[inline(never)]
pub(crate) fn between(event_loop: &Bound<'_, EventLoop>) {
    if !event_loop.get().held.rush.with(event_loop.py(), |rush| rush.goes_on(clock::monotonic)) {
        release(event_loop);
    }
}

/// So many descriptors are ready. Whether all of them are to be read before the first job runs.
#[inline]
pub(crate) fn reads_ahead(event_loop: &Bound<'_, EventLoop>, ready: usize) -> bool {
    event_loop.get().held.rush.with(event_loop.py(), |rush| rush.reads_ahead(ready))
}

/// What is held back goes. Called between jobs, as a transport's last reference may go with it.
fn release(event_loop: &Bound<'_, EventLoop>) {
    let (py, held) = (event_loop.py(), &event_loop.get().held);
    EventLoop::core(event_loop).set_instrument(instrument::HELD, false);
    let mut transports = held.transports.with(py, mem::take);
    for transport in transports.drain(..) {
        let transport = transport.into_bound(py);
        if let Some(this) = This::cast(&transport) {
            let_go(this);
        }
    }
    // Whoever was finalized just now may have written: what the list says then is kept.
    held.transports.with(py, |now| {
        if now.is_empty() {
            mem::swap(now, &mut transports);
        }
    });
}

/// What the transport has held back goes, for it is about to close its socket, or waits no longer.
#[inline]
pub(super) fn let_go(this: This<'_, '_>) {
    if this.held.replace(false) && this.sock.is_open() {
        if !this.uncorked.get() {
            // What the program keeps back itself is not ours to send.
            match stream::is_corked(this.fd) {
                Ok(false) => this.uncorked.set(this.sock.is_private(this.py())),
                Ok(true) | Err(_) => return,
            }
        }
        let _ = stream::push(this.fd); // a broken connection says so to whoever uses it next
    }
}

/// So many bytes are about to be sent, after everything before them. Whether the kernel is to keep them for others.
#[inline]
pub(super) fn may_wait(this: This<'_, '_>, length: usize) -> bool {
    if !this.is_tcp() {
        return false;
    }
    let py = this.py();
    let Some(event_loop) = this.event_loop.get(py) else { return false };
    let Ok(event_loop) = event_loop.cast::<EventLoop>() else { return false };
    let held = &event_loop.get().held;
    let job = held.job.get();
    if job & 1 == 0 {
        return false; // nobody would come to let them go
    }
    let rushes = held.rush.with(py, |rush| rush.write(job, clock::monotonic)) && is_near(this);
    let waits = rushes || {
        let mut habit = this.habit.get();
        let expected = habit.write(job, clock::monotonic);
        this.habit.set(habit);
        expected
    };
    if waits && length <= SMALL {
        if rushes {
            held.rush.with(py, |rush| rush.wait(clock::monotonic));
        }
        if !this.held.replace(true) {
            held.transports.with(py, |transports| transports.push(this.to_owned().unbind()));
            EventLoop::core(event_loop).set_instrument(instrument::HELD, true);
        }
        return true;
    }
    if this.held.replace(false) {
        taken_along(event_loop, this);
    }
    false
}

/// Whether the other side is on this machine.
#[inline]
fn is_near(this: This<'_, '_>) -> bool {
    this.near.get().unwrap_or_else(|| {
        let near = stream::is_local(this.fd).unwrap_or(false);
        this.near.set(Some(near));
        near
    })
}

/// The write takes along what the transport has held back. Most often nobody else has.
fn taken_along(event_loop: &Bound<'_, EventLoop>, this: This<'_, '_>) {
    let (last, others) = event_loop.get().held.transports.with(this.py(), |transports| {
        let last = transports.pop_if(|last| last.is(this.object()));
        (last, !transports.is_empty())
    });
    EventLoop::core(event_loop).set_instrument(instrument::HELD, others);
    drop(last.map(|last| last.into_bound(this.py())));
}
