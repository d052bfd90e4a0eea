//! What turn.rs does more while instruments are on: it beats the pulse, measures, and runs jobs with what each
//! instrument wants.

use aioxide_core::metrics::{Metrics, Plan};
use aioxide_sys::clock;
use pyo3::prelude::*;

use super::{EventLoop, debug};
use crate::inspect::{accounts, trace, watchdog};
use crate::job::Job;
use crate::pulse::instrument;

/// A turn begins that runs `count` jobs; after how many of them [`go_on`] is to be asked.
#[inline]
pub(super) fn turn(this: &Bound<'_, EventLoop>, count: usize) -> usize {
    let core = EventLoop::core(this);
    let now = clock::coarse();
    if core.instruments() & instrument::PULSE != 0 {
        watchdog::turn_over(this, now);
    }
    core.pulse().beat(now);
    if core.instruments() & instrument::TRACE != 0 {
        trace::steps::turn(this);
    }
    if core.instruments() & instrument::METRICS == 0 {
        return count;
    }
    let plan = with_metrics(this, |metrics| metrics.begin(count, clock::monotonic));
    let Plan { is_timed, part } = plan.unwrap_or(Plan { is_timed: false, part: count });
    if is_timed != (core.instruments() & instrument::TIMED != 0) {
        core.set_instrument(instrument::TIMED, is_timed);
    }
    part
}

/// A part of a turn is over, and so many jobs are left; how many of them the next part has.
pub(super) fn go_on(this: &Bound<'_, EventLoop>, left: usize) -> usize {
    let now = clock::monotonic();
    with_metrics(this, |metrics| metrics.go_on(left, now)).unwrap_or(left)
}

/// The loop goes to sleep, or comes back from it.
pub(super) fn sleep(this: &Bound<'_, EventLoop>, falls: bool) {
    let core = EventLoop::core(this);
    if core.instruments() & instrument::PULSE != 0 {
        let now = clock::coarse();
        if falls { watchdog::turn_over(this, now) } else { core.pulse().note_start(now) }
    }
    core.pulse().set_asleep(falls);
    if !falls && core.instruments() & instrument::ACCOUNTS != 0 {
        this.get().cpu_mark.set((clock::monotonic(), clock::thread_cpu()));
    }
    if core.instruments() & instrument::TRACE != 0 {
        trace::steps::sleep(this, falls);
    }
    if core.instruments() & instrument::METRICS != 0 {
        let now = clock::monotonic();
        with_metrics(this, |metrics| if falls { metrics.read(now) } else { metrics.woken(now) });
    }
}

/// The loop starts to run, or has stopped: what lies in between is no time of its own.
pub(super) fn run_through(this: &Bound<'_, EventLoop>, starts: bool) {
    let now = clock::monotonic();
    with_metrics(this, |metrics| if starts { metrics.woken(now) } else { metrics.read(now) });
}

/// Timers are due, the first of them so many seconds ago.
pub(super) fn late(this: &Bound<'_, EventLoop>, seconds: f64) {
    with_metrics(this, |metrics| metrics.late(seconds));
}

/// Runs a job.
pub(super) fn run(
    this: &Bound<'_, EventLoop>,
    job: Job,
    run: impl FnOnce(&Bound<'_, EventLoop>, Job) -> PyResult<()>,
) -> PyResult<()> {
    let (py, on) = (this.py(), EventLoop::core(this).instruments());
    let task = match &job {
        Job::Step(task) | Job::Throw { task, .. } | Job::Wake { task, .. }
            if on & instrument::ACCOUNTS != 0 =>
        {
            Some(task.bind(py).clone())
        }
        _ => None,
    };
    let traced = (on & instrument::TRACE != 0).then(|| trace::steps::begin(this, &job));
    let started = task.as_ref().map(|_| clock::monotonic());
    let result = if on & instrument::DEBUG != 0 { debug::run(this, job, run) } else { run(this, job) };
    if started.is_some() || on & instrument::TIMED != 0 {
        let now = clock::monotonic();
        if on & instrument::TIMED != 0 {
            with_metrics(this, |metrics| metrics.timed(now));
        }
        if let (Some(task), Some(started)) = (task, started) {
            accounts::step(&task, processor_time(this, now - started, now));
        }
    }
    if let Some(traced) = traced {
        trace::steps::end(this, traced);
    }
    result
}

/// A step shorter than this, in seconds, counts with the time it took.
const SHORT: f64 = 200e-6;

/// The processor time of a step that took so long and ends now. Its clock is a system call, so only long steps look at
/// it: what the thread has not worked since the last look, it has not worked in this step.
fn processor_time(this: &Bound<'_, EventLoop>, passed: f64, now: f64) -> f64 {
    if passed < SHORT {
        return passed;
    }
    let (cpu, marks) = (clock::thread_cpu(), &this.get().cpu_mark);
    let (now_then, cpu_then) = marks.replace((now, cpu));
    if cpu_then < 0.0 {
        return passed; // the first look
    }
    let idle = (now - now_then) - (cpu - cpu_then);
    passed - idle.clamp(0.0, passed)
}

fn with_metrics<R>(this: &Bound<'_, EventLoop>, f: impl FnOnce(&mut Metrics) -> R) -> Option<R> {
    this.get().metrics.with(this.py(), |metrics| metrics.as_deref_mut().map(f))
}

/// Starts measuring, if that isn't done already; what has been measured goes to `f`.
pub(crate) fn measure<R>(this: &Bound<'_, EventLoop>, f: impl FnOnce(&Metrics) -> R) -> R {
    let core = EventLoop::core(this);
    if core.thread() != 0 && core.pulse().is_busy() {
        let now = clock::monotonic();
        with_metrics(this, |metrics| metrics.read(now));
    }
    core.set_instrument(instrument::METRICS, true);
    this.get().metrics.with(this.py(), |metrics| {
        f(metrics.get_or_insert_with(|| Box::new(Metrics::new(clock::monotonic()))))
    })
}
