//! Which native loops run now, and in which threads: for those who look without being inside one.
//!
//! lifecycle.rs says when a loop starts and stops. A loop that runs is alive, so the list keeps nothing alive longer.

use pyo3::prelude::*;

use super::{accounts, picture, trace, watchdog};
use crate::event_loop::EventLoop;
use crate::ffi::cell::GilCell;

struct Entry {
    event_loop: Py<EventLoop>,
    ident: u64,
}

static RUNNING: GilCell<Vec<Entry>> = GilCell::new(Vec::new());

/// A loop starts in the thread with that `threading.get_ident()`.
pub(crate) fn add(event_loop: &Bound<'_, EventLoop>, ident: u64) {
    EventLoop::core(event_loop).pulse().start(ident);
    watchdog::watch(event_loop);
    accounts::follow(event_loop);
    picture::follow(event_loop);
    trace::follow(event_loop);
    let entry = Entry { event_loop: event_loop.clone().unbind(), ident };
    RUNNING.with(event_loop.py(), |running| running.push(entry));
}

/// The loop has stopped.
pub(crate) fn remove(event_loop: &Bound<'_, EventLoop>) {
    let py = event_loop.py();
    trace::leave(event_loop);
    watchdog::leave(event_loop);
    EventLoop::core(event_loop).pulse().stop();
    let entry = RUNNING.with(py, |running| {
        let place = running.iter().position(|entry| entry.event_loop.is(event_loop));
        place.map(|place| running.swap_remove(place))
    });
    drop(entry.map(|entry| entry.event_loop.into_bound(py)));
}

/// All loops that run, with their threads.
pub(super) fn all(py: Python<'_>) -> Vec<(Bound<'_, EventLoop>, u64)> {
    RUNNING
        .with(py, |running| {
            running.iter().map(|entry| (entry.event_loop.clone_ref(py), entry.ident)).collect::<Vec<_>>()
        })
        .into_iter()
        .map(|(event_loop, ident)| (event_loop.into_bound(py), ident))
        .collect()
}
