//! How many transports a loop has: each counts from its making until it has let go of its loop, watched or not.
//!
//! What the driver knows would be too few: a transport that is paused and has nothing to send is not watched at all.

use pyo3::prelude::*;

use crate::event_loop::EventLoop;
use crate::ffi::cell::{Flag, Slot};

/// Whether a transport is among those that its loop counts.
#[derive(Debug)]
pub(super) struct Place(Flag<bool>);

impl Place {
    /// Not yet.
    pub(super) const fn none() -> Self {
        Self(Flag::new(false))
    }

    /// From now on.
    pub(super) fn take(&self, event_loop: &Bound<'_, PyAny>) {
        if let Some(event_loop) = EventLoop::of(event_loop)
            && !self.0.replace(true)
        {
            event_loop.transports.set(event_loop.transports.get() + 1);
        }
    }

    /// No longer; the slot still has the loop.
    pub(super) fn leave(&self, py: Python<'_>, event_loop: &Slot) {
        if self.0.replace(false)
            && let Some(event_loop) = event_loop.get(py)
            && let Some(event_loop) = EventLoop::of(&event_loop)
        {
            event_loop.transports.set(event_loop.transports.get().saturating_sub(1));
        }
    }
}
