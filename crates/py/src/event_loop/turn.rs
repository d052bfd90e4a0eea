//! One turn: wait, order, run. Everything else in aioxide only adds jobs.
//!
//! The only place that runs callbacks (eager tasks excepted) and the only place where the loop's thread lets go of
//! the GIL, and that only around a wait that really blocks.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use aioxide_sys::{Events, Interest, Poller, Readiness, clock};
use pyo3::intern;
use pyo3::prelude::*;

use super::idle::Idle;
use super::readers::Waiter;
use super::{EventLoop, as_handles, closed, hooks, instruments, nested};
use crate::errors::{ends_the_loop, os_error};
use crate::ffi::layout::{Fut, Tsk};
use crate::ffi::thread::Here;
use crate::ffi::{context, detach, prefetch};
use crate::job::Job;
use crate::local::LoopCore;
use crate::pulse::instrument;
use crate::tasks::step::{Failure, Next};
use crate::transports::{Source, held, tcp};
use crate::{futures, handles, tasks, timeouts};

/// The longest wait, in seconds: asyncio's own limit, one day.
const LONGEST_WAIT: f64 = 24.0 * 3600.0;

/// The shortest wait for a timer, in seconds: timers due within it of each other run in one turn. (asyncio's selectors
/// wait whole milliseconds.)
const SHORTEST_WAIT: f64 = 500e-6;

/// A busy loop without traffic looks at its descriptors after this many turns …
const BUSY_TURNS: u32 = 8;

/// … or after this time, in seconds, whichever comes first.
const BUSY_TIME: f64 = 50e-6;

/// With fewer events in a turn, what they need is mostly in the nearest caches still.
const MANY_EVENTS: usize = 4;

/// What the turns of one run share.
#[derive(Debug)]
pub(super) struct Turns {
    poller: Arc<Poller>,
    events: Events,
    /// Turns since the descriptors were last looked at, and when that was.
    unseen: u32,
    seen: f64,
    resolution: f64,
    idle: Idle,
}

impl Turns {
    pub(super) fn new(this: &Bound<'_, EventLoop>) -> PyResult<Self> {
        let poller =
            this.get().driver.with(this.py(), |driver| driver.as_ref().map(aioxide_sys::Driver::poller));
        this.get().note_io();
        Ok(Self {
            poller: poller.ok_or_else(closed)?,
            events: Events::new(),
            unseen: 0,
            seen: 0.0,
            resolution: clock::resolution(),
            idle: Idle::default(),
        })
    }

    /// One turn. An error is SystemExit, KeyboardInterrupt or what a signal handler raised; nothing is lost by it, but
    /// the caller has to call `held::end`.
    pub(super) fn once(&mut self, this: &Bound<'_, EventLoop>) -> PyResult<()> {
        let (py, core) = (this.py(), EventLoop::core(this));
        admit_remote(py, core);
        let (ready, timers) = core.scheduler().with(py, aioxide_core::Scheduler::begin_turn);
        let is_busy = ready > 0 || core.is_stopping();
        let (mut count, mut events) = (ready, 0);
        if !is_busy || core.is_stopping() || self.wants_poll(this.get(), py) {
            events = self.wait(this, core, is_busy)?;
            // Where a turn does not wait, the Python code that it runs handles the signals.
            py.check_signals()?;
            count = self.admit_due(this, core)?;
        } else if timers > 0 {
            count = self.admit_due(this, core)?;
        }
        if count > 0 {
            self.idle.over();
        }
        run_jobs(this, core, count, prefetch::WORKS && events >= MANY_EVENTS)
    }

    /// Takes in the timers that are due. Returns how many jobs this turn runs.
    fn admit_due(&self, this: &Bound<'_, EventLoop>, core: &LoopCore) -> PyResult<usize> {
        let py = this.py();
        let (ready, timers) = core.scheduler().with(py, |s| (s.turn_len(), s.timers_len()));
        if timers == 0 {
            return Ok(ready);
        }
        let now = now(this, core)?;
        // asyncio's rule: due is what lies before now plus the clock's resolution.
        let end = now + self.resolution.max(now.next_up() - now);
        if core.instruments() & instrument::METRICS != 0
            && let Some(seconds) = core.scheduler().with(py, |s| s.overdue(now))
        {
            instruments::late(this, seconds);
        }
        let count = core.scheduler().with(py, |s| {
            s.admit_due(end.next_down(), |timed| timed.into_job(py));
            s.turn_len()
        });
        core.bury(py);
        Ok(count)
    }

    /// Looks at the descriptors, for as long as there is nothing else to do; what happened becomes jobs. How many events
    /// there were.
    fn wait(&mut self, this: &Bound<'_, EventLoop>, core: &LoopCore, is_busy: bool) -> PyResult<usize> {
        let py = this.py();
        EventLoop::settle(this)?;
        let timeout = if is_busy {
            Some(0.0)
        } else if core.scheduler().with(py, |s| s.timers_len()) > 0 {
            let now = now(this, core)?;
            core.bury(py);
            let left = core.scheduler().with(py, |s| s.timeout(now));
            left.map(|t| if t > 0.0 { t.clamp(SHORTEST_WAIT, LONGEST_WAIT) } else { t })
        } else {
            None
        };
        let timeout = if is_busy { timeout } else { self.idle.timeout(this, timeout)? };
        if timeout == Some(0.0) || !core.inbox().sleep() {
            self.poll()?;
        } else if timeout.is_some() && core.is_virtual() {
            core.inbox().awake();
            self.poll()?;
            // Where nothing else happens, time is what passes.
            if self.events.is_empty() && core.inbox().is_empty() {
                core.advance(py);
            }
        } else {
            let timeout = timeout.map(Duration::from_secs_f64);
            instruments::sleep(this, true);
            let result = detach::wait(py, &self.poller, &mut self.events, timeout);
            instruments::sleep(this, false);
            core.inbox().awake();
            self.settle(result)?;
        }
        self.unseen = 0;
        admit_remote(py, core);
        let count = self.events.len();
        if count > 0 {
            this.get().note_io();
            self.idle.over();
            self.admit_io(this, core)?;
        }
        Ok(count)
    }

    /// A look without waiting.
    fn poll(&mut self) -> PyResult<()> {
        let result = self.poller.wait(&mut self.events, Some(Duration::ZERO));
        self.settle(result)
    }

    /// A signal ends the wait without events: the turn then runs Python's signal handlers, and the next one waits.
    fn settle(&mut self, result: std::io::Result<usize>) -> PyResult<()> {
        match result {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            result => result.map(drop).map_err(|e| os_error(&e)),
        }
    }

    /// Whether a turn that has work anyway spends a system call on the descriptors.
    fn wants_poll(&mut self, event_loop: &EventLoop, py: Python<'_>) -> bool {
        let eager = event_loop.eager_polls.get();
        if eager > 0 {
            event_loop.eager_polls.set(eager - 1);
            if eager == 1 {
                self.seen = clock::monotonic();
            }
            return true;
        }
        // With the waker alone there is nothing to see that the inbox does not tell.
        if event_loop.driver.with(py, |d| d.as_ref().is_none_or(|d| d.len() < 2)) {
            return false;
        }
        self.unseen += 1;
        let now = clock::monotonic();
        if self.unseen < BUSY_TURNS && now - self.seen < BUSY_TIME {
            return false;
        }
        self.seen = now;
        true
    }

    /// Turns events into jobs.
    fn admit_io(&mut self, this: &Bound<'_, EventLoop>, core: &LoopCore) -> PyResult<()> {
        let (py, events) = (this.py(), &self.events);
        let (mut garbage, mut done) = (Vec::new(), Vec::new());
        let reads_ahead =
            core.instruments() & instrument::EACH_JOB == 0 && held::reads_ahead(this, events.len());
        let mut ahead = Vec::with_capacity(if reads_ahead { events.len() } else { 0 });
        this.get().driver.with(py, |driver| {
            let Some(driver) = driver.as_mut() else { return };
            for &event in events {
                let key = event.key;
                let Some(interest) = driver.interest(key) else { continue };
                let Some(ready) = Readiness::of(event, interest) else { continue };
                let mut left = interest;
                match driver.get_mut(key) {
                    None => {}
                    Some(Source::Waker) => {
                        let _ = core.waker().drain(); // a spurious event: nothing to make quiet
                    }
                    Some(Source::Watch(watch)) => {
                        let stays = watch.stays();
                        for (is_ready, waiter, direction) in [
                            (ready.readable, &mut watch.reader, Interest::READ),
                            (ready.writable, &mut watch.writer, Interest::WRITE),
                        ] {
                            let job = match waiter {
                                Some(Waiter::Handle(handle)) if is_ready => Job::Handle(handle.clone_ref(py)),
                                Some(Waiter::Listener(_)) if is_ready => Job::Io(key, ready),
                                Some(Waiter::Future(_)) if is_ready => {
                                    if !stays {
                                        left = left.without(direction);
                                    }
                                    if let Some(Waiter::Future(future)) = waiter.take() {
                                        done.push(future);
                                    }
                                    continue;
                                }
                                _ => continue,
                            };
                            core.scheduler().with(py, |s| s.soon(job));
                        }
                    }
                    Some(
                        Source::Signals
                        | Source::Tcp(_)
                        | Source::Child(_)
                        | Source::ReadPipe(_)
                        | Source::WritePipe(_)
                        | Source::Datagram(_),
                    ) => {
                        core.scheduler().with(py, |s| s.soon(Job::Io(key, ready)));
                        if reads_ahead && ready.readable && !ready.hangup {
                            ahead.push(key);
                        }
                    }
                }
                if left.is_empty() {
                    garbage.push(driver.forget(key));
                } else if left != interest {
                    let _ = driver.rearm(key, left); // closed meanwhile: no events either
                }
            }
        });
        drop(garbage);
        self.events.clear();
        // At once: who waits for them then runs in this turn.
        for future in done {
            if let Err(error) = complete(&future.into_bound(py)) {
                hooks::report_stray(this, error)?;
            }
        }
        for key in ahead {
            this.get().source(py, key).map_or(Ok(()), |source| source.receive_ahead(py))?;
        }
        Ok(())
    }
}

/// The loop's time: its own clock, or what a subclass makes of `time()`.
fn now(this: &Bound<'_, EventLoop>, core: &LoopCore) -> PyResult<f64> {
    if core.overrides_timers() {
        return this.call_method0(intern!(this.py(), "time"))?.extract();
    }
    Ok(core.now())
}

/// Takes in what other threads have left.
#[inline]
pub(super) fn admit_remote(py: Python<'_>, core: &LoopCore) {
    if !core.inbox().is_empty() {
        core.scheduler().with(py, |s| core.inbox().take_into(s.ready_mut()));
    }
}

/// Runs the jobs of a turn. A function of its own, so that the registers are its.
#[inline(never)]
fn run_jobs(this: &Bound<'_, EventLoop>, core: &LoopCore, count: usize, foresees: bool) -> PyResult<()> {
    let (py, here) = (this.py(), Here::new(this.py()));
    let is_watched = core.instruments() & instrument::EACH_TURN != 0;
    let mut part = if is_watched { instruments::turn(this, count) } else { count };
    let held = &this.get().held;
    let as_ours = handles::run_as_ours(py);
    held.begin();
    for number in 0..count {
        if number == part {
            part += instruments::go_on(this, count - number);
        }
        held.next();
        if foresees {
            foresee(this, core);
        }
        if core.instruments() & (instrument::EACH_JOB | instrument::HELD | instrument::INNER) != 0 || !as_ours
        {
            if core.instruments() & instrument::HELD != 0 {
                held::between(this);
            }
            if core.instruments() & (instrument::EACH_JOB | instrument::INNER) != 0 || !as_ours {
                let Some(job) = pop(py, core) else { break };
                let Some(job) = nested::admit(this, job)? else { continue };
                instruments::run(this, job, |this, job| {
                    if as_ours { run(this, here, job) } else { as_handles::run(this, job) }
                })?;
                continue;
            }
        }
        // A job of its own, of which nothing but its parts is passed on: so it never lies in memory.
        let Some(job) = pop(py, core) else { break };
        if let Job::Step(task) = job {
            // What a loop does most.
            if let Err(error) = step(this, here, task.into_bound(py), With::Nothing) {
                stray(this, error)?;
            }
            continue;
        }
        run_any(this, here, job).or_else(|error| stray(this, error))?;
    }
    held::end(this);
    Ok(())
}

/// Has the processor fetch what the next two jobs need, while this one runs. Each connection has memory of its own, which the
/// kernel's work for all the others has driven out of the nearest caches since it was used last. (The borrows hold nothing up:
/// no Python code runs, and no reference is counted.)
#[inline]
fn foresee(this: &Bound<'_, EventLoop>, core: &LoopCore) {
    let py = this.py();
    core.scheduler().with(py, |scheduler| {
        this.get().driver.with(py, |driver| {
            let source = |place| match scheduler.ready().get(place) {
                Some(Job::Io(key, _)) => driver.as_ref().and_then(|driver| driver.get(*key)),
                _ => None,
            };
            if let Some(source) = source(2) {
                source.foresee();
            }
            if let Some(source) = source(1) {
                source.foresee_parts(py);
            }
        });
    });
}

#[inline]
fn pop(py: Python<'_>, core: &LoopCore) -> Option<Job> {
    core.scheduler().with(py, aioxide_core::Scheduler::pop)
}

/// Runs one job. Errors of callbacks are reported; SystemExit and KeyboardInterrupt go to whoever runs the loop.
pub(super) fn run<'py>(this: &Bound<'py, EventLoop>, here: Here<'py>, job: Job) -> PyResult<()> {
    run_any(this, here, job).or_else(|error| stray(this, error))
}

#[cold]
fn stray(this: &Bound<'_, EventLoop>, error: PyErr) -> PyResult<()> {
    if ends_the_loop(this.py(), &error) { Err(error) } else { hooks::report_stray(this, error) }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "into the loop over a turn's jobs: see there")]
fn run_any<'py>(this: &Bound<'py, EventLoop>, here: Here<'py>, job: Job) -> PyResult<()> {
    let py = this.py();
    match job {
        Job::Handle(handle) => handles::run_object(&handle.into_bound(py)),
        Job::Callback { callback, future, context } => hooks::run_callback(
            this,
            &callback.into_bound(py),
            &future.into_bound(py),
            &context.into_bound(py),
        ),
        Job::Step(task) => go_on(this, here, task.into_bound(py)),
        Job::Throw { task, error } => throw(this, here, task.into_bound(py), error.into_bound(py)),
        Job::Wake { task, future } => wake(this, here, task.into_bound(py), future.into_bound(py)),
        Job::Hook { hook, future } => crate::hooks::done(hook.bind(py), future.bind(py)),
        Job::Complete(future) => complete(&future.into_bound(py)),
        Job::Connected { transport, waiter } => {
            tcp::connected(transport.bind(py), waiter.map(|waiter| waiter.into_bound(py)))
        }
        Job::Lost { transport, error } => tcp::lost(transport.bind(py), error.bind(py)),
        Job::Expire { owner, turn } => timeouts::expire(owner.bind(py), turn),
        Job::Io(key, ready) => match this.get().source(py, key) {
            Some(source) => source.on_ready(this, key, ready),
            None => Ok(()), // forgotten since: a stale key is a miss
        },
    }
}

/// What a task goes on with.
enum With<'a, 'py> {
    Nothing,
    Error(Bound<'py, PyAny>),
    /// What it waited for is done.
    Future(&'a Bound<'py, PyAny>),
}

#[inline(never)]
fn go_on<'py>(this: &Bound<'py, EventLoop>, here: Here<'py>, task: Bound<'py, PyAny>) -> PyResult<()> {
    step(this, here, task, With::Nothing)
}

#[inline(never)]
fn throw<'py>(
    this: &Bound<'py, EventLoop>,
    here: Here<'py>,
    task: Bound<'py, PyAny>,
    error: Bound<'py, PyAny>,
) -> PyResult<()> {
    step(this, here, task, With::Error(error))
}

#[inline(never)]
fn wake<'py>(
    this: &Bound<'py, EventLoop>,
    here: Here<'py>,
    task: Bound<'py, PyAny>,
    future: Bound<'py, PyAny>,
) -> PyResult<()> {
    step(this, here, task, With::Future(&future))
}

/// The next step of a task, in its context.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as for what it runs: see step.rs")]
fn step<'py>(
    this: &Bound<'py, EventLoop>,
    here: Here<'py>,
    task: Bound<'py, PyAny>,
    with: With<'_, 'py>,
) -> PyResult<()> {
    let Some(known) = Tsk::cast(&task) else { return Ok(()) };
    let Some(context) = known.context_ref() else { return Ok(()) };
    if let Err(error) = context::enter(here, &context) {
        return hooks::report_step(this, &task, error);
    }
    let mut failure = None;
    let next = match with {
        With::Nothing => tasks::step::step(here, known, None, &mut failure),
        With::Error(error) => tasks::step::step(here, known, Some(error), &mut failure),
        With::Future(future) => tasks::step::wake(here, known, future, &mut failure),
    };
    let left = context::exit(here, &context);
    if failure.is_some() || left.is_err() {
        return failed(this, &task, failure, left);
    }
    if next == Next::Turn {
        let core = EventLoop::core(this);
        if known.fut().loop_ptr() != this.as_ptr() || core.overrides_call_soon() {
            return tasks::step::go_on(known, next, None);
        }
        let job = Job::Step(task.unbind());
        core.scheduler().with(this.py(), move |s| s.soon(job));
    }
    Ok(())
}

#[cold]
fn failed(
    this: &Bound<'_, EventLoop>,
    task: &Bound<'_, PyAny>,
    failure: Failure,
    left: PyResult<()>,
) -> PyResult<()> {
    match failure.or(left.err()) {
        Some(error) => hooks::report_step(this, task, error),
        None => Ok(()),
    }
}

/// The end of a wait: `future.set_result(None)` unless somebody was faster.
fn complete(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    match Fut::cast(future) {
        Some(future) if future.is_pending() => futures::set_result(future, py.None().into_bound(py)),
        _ => Ok(()),
    }
}
