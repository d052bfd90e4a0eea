//! Runs within runs, for programs that ask for them: `nest_asyncio` makes asyncio's loops able to do so.
//!
//! Such a run begins in the middle of a job, and the job waits for its end. Until then its task is not the thread's
//! current one, and its loop, if that is another, not the running one. Of the same loop, the inner turns run what is left
//! of the outer one, too.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};

use aioxide_core::Scheduler;
use pyo3::prelude::*;

use super::{EventLoop, lifecycle};
use crate::ffi::cell::GilCell;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::{context, thread};
use crate::job::Job;
use crate::pulse::instrument;
use crate::transports::held;

/// For all loops, as it is for all of a class there.
static ALLOWED: AtomicBool = AtomicBool::new(false);

/// Whether a loop may be run within a run.
pub(super) fn are_allowed() -> bool {
    ALLOWED.load(Ordering::Relaxed)
}

/// Whether loops may be run within runs.
#[pyfunction]
fn _allows_nested_runs() -> bool {
    are_allowed()
}

/// Whether loops may be run within runs, from now on.
#[pyfunction]
fn _allow_nested_runs(allowed: bool) {
    ALLOWED.store(allowed, Ordering::Relaxed);
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_allows_nested_runs, module)?)?;
    module.add_function(wrap_pyfunction!(_allow_nested_runs, module)?)
}

/// `run_forever()`.
pub(super) fn run_forever(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    aside(this, || run(this, None))
}

/// `run_until_complete(future)`. Looks at the future itself: a callback that stops the loop would stop an inner run.
pub(super) fn run_until_complete<'py>(
    this: &Bound<'py, EventLoop>,
    awaitable: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    aside(this, || {
        let awaited = lifecycle::Awaited::new(this, awaitable)?;
        run(this, Some(&awaited.future)).or_else(|error| awaited.note_error().and(Err(error)))?;
        awaited.result()
    })
}

fn run(this: &Bound<'_, EventLoop>, until: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    if !runs_here(this) {
        return lifecycle::run(this, until);
    }
    let result = lifecycle::turns(this, until);
    held::end(this);
    if until.is_none() {
        EventLoop::core(this).set_stopping(false); // else it is for the outer run, too
    }
    result
}

/// Whether this thread is in the middle of a job of the loop.
fn runs_here(this: &Bound<'_, EventLoop>) -> bool {
    EventLoop::core(this).thread() == thread::thread_id()
}

/// Calls `body` where no task is the current one and no other loop runs.
fn aside<T>(this: &Bound<'_, EventLoop>, body: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    let (py, core, put_off) = (this.py(), EventLoop::core(this), &this.get().put_off);
    let is_inner = runs_here(this);
    if !is_inner && core.thread() != 0 {
        lifecycle::check_running(this)?; // another thread's
    }
    let running = thread::running_loop(py)?;
    let host = match &running {
        Some(running) => running,
        None if is_inner => this.as_any(), // the job has said that none runs
        None => return body(),
    };
    thread::set_running_loop(py, Some(host))?;
    let task = thread::swap_current(host, None)?;
    if let Ok(host) = host.cast::<EventLoop>() {
        held::end(host); // who began this may wait for an answer, and the job does not end soon
    }
    let was_inner = core.instruments() & instrument::INNER != 0;
    core.set_instrument(instrument::INNER, true);
    let outer = put_off.0.with(py, mem::take);

    let inner = is_inner.then_some(this.as_any());
    let result = thread::set_running_loop(py, inner).and_then(|()| body());

    let own = put_off.0.with(py, |jobs| mem::replace(jobs, outer));
    core.scheduler().with(py, |scheduler: &mut Scheduler<_, _>| scheduler.ready_mut().push_first(own));
    core.set_instrument(instrument::INNER, was_inner);
    let back = thread::set_running_loop(py, Some(host))
        .and_then(|()| thread::swap_current(host, task.as_ref()))
        .and_then(|_| thread::set_running_loop(py, running.as_ref()));
    result.and_then(|result| back.map(|()| result))
}

/// Jobs of an inner run that can't run before its end.
#[derive(Debug)]
pub(super) struct PutOff(GilCell<Vec<Job>>);

impl PutOff {
    pub(super) const fn new() -> Self {
        Self(GilCell::new(Vec::new()))
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.0.visit(|jobs| jobs.iter().try_for_each(|job| job.traverse(visit))).unwrap_or(Ok(()))
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        drop(self.0.with(py, mem::take));
    }
}

/// The job, unless it has the context of one that waits for the end of this run, and would be refused it.
pub(super) fn admit(this: &Bound<'_, EventLoop>, job: Job) -> PyResult<Option<Job>> {
    let py = this.py();
    if EventLoop::core(this).instruments() & instrument::INNER == 0 {
        return Ok(Some(job));
    }
    match job.context(py)? {
        Some(context) if context::is_entered(&context)? => {
            // A descriptor that stays ready asks for its Handle in each turn.
            let spare = this.get().put_off.0.with(py, |jobs| {
                if jobs.iter().any(|one| one.is_handle_of(&job)) {
                    Some(job)
                } else {
                    jobs.push(job);
                    None
                }
            });
            drop(spare);
            Ok(None)
        }
        _ => Ok(Some(job)),
    }
}
