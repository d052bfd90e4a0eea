//! What turn.rs does more while instruments are on: it beats the pulse, and runs jobs with what each instrument wants.

use aioxide_sys::clock;
use pyo3::prelude::*;

use super::{EventLoop, debug};
use crate::job::Job;
use crate::pulse::instrument;

/// A turn begins that runs `count` jobs.
pub(super) fn turn(this: &Bound<'_, EventLoop>, _count: usize) {
    EventLoop::core(this).pulse().beat(clock::monotonic);
}

/// Runs a job.
pub(super) fn run(
    this: &Bound<'_, EventLoop>,
    job: Job,
    run: impl FnOnce(&Bound<'_, EventLoop>, Job) -> PyResult<()>,
) -> PyResult<()> {
    if EventLoop::core(this).instruments() & instrument::DEBUG != 0 {
        return debug::run(this, job, run);
    }
    run(this, job)
}
