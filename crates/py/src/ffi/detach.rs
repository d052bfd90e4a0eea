//! The wait that lets go of the GIL. turn.rs calls it, nobody else.
#![allow(unsafe_code, reason = "PyO3 asks for Send, which the kernel's event records aren't")]

use std::io;
use std::time::Duration;

use aioxide_sys::{Events, Poller};
use pyo3::prelude::*;

/// Waits for the descriptors without the GIL.
pub(crate) fn wait(
    py: Python<'_>,
    poller: &Poller,
    events: &mut Events,
    timeout: Option<Duration>,
) -> io::Result<usize> {
    struct Here<'a>(&'a mut Events);
    // SAFETY: `detach` calls its closure in this very thread; Send stands for "has nothing to do with Python", which
    // is so: the records are numbers.
    unsafe impl Send for Here<'_> {}

    let here = Here(events);
    py.detach(move || {
        let here = here;
        poller.wait(here.0, timeout)
    })
}
