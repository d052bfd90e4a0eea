//! The part of an event loop that tasks, futures and locks need: its scheduler, inbox, clock and mode.
//!
//! `EventLoop` (event_loop/) extends [`LoopCore`]; the lower floors know only this. Nothing here runs Python code
//! except where a method says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use aioxide_core::{Inbox, Scheduler, TimerKey, TimerPlace};
use aioxide_sys::{Waker, clock};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::layout::Tsk;
use crate::ffi::thread::thread_id;
use crate::handles;
use crate::job::{Job, Timed};
use crate::pulse::{Pulse, instrument};

/// Where native threads and other Python threads leave work for the loop, and how they wake it.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    inbox: Arc<Inbox<Job>>,
    waker: Arc<Waker>,
}

impl Remote {
    /// Leaves a job and wakes the loop if it sleeps: at most one system call a nap. From any thread.
    pub(crate) fn push(&self, job: Job) {
        if self.inbox.push(job) {
            // A full eventfd counter is a loop that is awake already; nothing else can fail here.
            let _ = self.waker.wake();
        }
    }

    /// Wakes the loop without a job.
    pub(crate) fn wake(&self) {
        if self.inbox.wake() {
            let _ = self.waker.wake();
        }
    }
}

/// How many bits the number of a loop has.
pub(crate) const NUMBER_BITS: u32 = 24;

/// The number of the next loop.
static LOOPS: AtomicU32 = AtomicU32::new(1);

/// The loop that was the last to begin to run, while it runs.
static LATEST: Latest = Latest { number: Flag::new(0), event_loop: Slot::empty() };

struct Latest {
    number: Flag<u32>,
    event_loop: Slot,
}

/// The loop of that number, if it is the one that was the last to begin to run: mostly the only one.
#[inline]
pub(crate) fn latest(py: Python<'_>, number: u32) -> Option<Bound<'_, PyAny>> {
    if number == 0 || number != LATEST.number.get() { None } else { LATEST.event_loop.get(py) }
}

/// The native base of every aioxide event loop.
#[pyclass(frozen, subclass, module = "aioxide._core", name = "LoopCore")]
#[derive(Debug)]
pub(crate) struct LoopCore {
    scheduler: GilCell<Scheduler<Job, Timed>>,
    remote: Remote,
    /// Which loop of the process it is, from 1 on; 0 for those beyond what [`NUMBER_BITS`] can count.
    number: u32,
    /// The thread that runs the loop, as `thread_id` numbers them; 0 when none does.
    thread: Flag<usize>,
    closed: Flag<bool>,
    /// See [`instrument`].
    instruments: Flag<u8>,
    pulse: Arc<Pulse>,
    stopping: Flag<bool>,
    /// A subclass or an instance attribute replaces `call_soon`; then completions go through it.
    own_call_soon: Flag<bool>,
    /// As above for `call_later`, `call_at` or `time`: then timers are set through them.
    own_timers: Flag<bool>,
    /// As above for `create_task`.
    own_tasks: Flag<bool>,
    /// What `create_task` calls instead of Task.
    task_factory: Slot,
    /// A weak reference to the loop, made when it is first wanted.
    weak: Slot,
    /// The time of a virtual clock, which moves when the loop would wait; NaN: the clock is the system's.
    virtual_now: Flag<f64>,
}

impl LoopCore {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            scheduler: GilCell::new(Scheduler::new()),
            remote: Remote { inbox: Arc::new(Inbox::new()), waker: Arc::new(Waker::new()?) },
            number: LOOPS
                .fetch_update(Relaxed, Relaxed, |next| (next < 1 << NUMBER_BITS).then_some(next + 1))
                .unwrap_or(0),
            thread: Flag::new(0),
            closed: Flag::new(false),
            instruments: Flag::new(0),
            pulse: Arc::new(Pulse::default()),
            stopping: Flag::new(false),
            own_call_soon: Flag::new(false),
            own_timers: Flag::new(false),
            own_tasks: Flag::new(false),
            task_factory: Slot::empty(),
            weak: Slot::empty(),
            virtual_now: Flag::new(f64::NAN),
        })
    }

    /// The native part of an event loop, if it is one of ours.
    #[inline]
    pub(crate) fn of<'a>(event_loop: &'a Bound<'_, PyAny>) -> Option<&'a Self> {
        crate::ffi::types::loop_core(event_loop)
    }

    /// A weak reference to the loop of which this is the native part.
    #[inline]
    pub(crate) fn weak<'py>(&self, event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        if let Some(weak) = self.weak.get(py) {
            return Ok(weak);
        }
        let weak = PyWeakrefReference::new(event_loop)?.into_any();
        self.weak.set(py, weak.clone());
        Ok(weak)
    }

    /// Runs `job` in the next turn. From another thread it goes by the inbox: never a race, never a lost job; but debug
    /// mode refuses it, since asyncio's own loop may sleep on.
    #[inline]
    pub(crate) fn soon(&self, py: Python<'_>, job: Job) -> PyResult<()> {
        if self.closed.get() {
            return Err(closed());
        }
        let runner = self.thread.get();
        if runner != 0 && runner != thread_id() {
            if self.is_debug() {
                return self.check_thread();
            }
            self.remote.push(job);
            return Ok(());
        }
        self.scheduler.with(py, |s| s.soon(job));
        Ok(())
    }

    /// Runs `job` in the next turn and wakes the loop if another thread runs it. The GIL orders this call among all
    /// others, so jobs run in the order in which they were given, from whichever thread.
    #[inline]
    pub(crate) fn soon_from_anywhere(&self, py: Python<'_>, job: Job) {
        self.scheduler.with(py, |s| s.soon(job));
        let runner = self.thread.get();
        if runner != 0 && runner != thread_id() {
            self.remote.wake();
        }
    }

    /// Lets `timed` have its turn at a time of the loop's clock, in seconds.
    #[inline]
    pub(crate) fn at(&self, py: Python<'_>, when: f64, timed: Timed) -> PyResult<TimerKey> {
        if self.closed.get() {
            return Err(closed());
        }
        Ok(self.scheduler.with(py, |s| s.at(when, timed)))
    }

    /// Takes back what waits for its time, and drops it.
    #[inline]
    pub(crate) fn cancel_timer(&self, py: Python<'_>, key: TimerKey) {
        if let Some(timed) = self.scheduler.with(py, |s| s.cancel(key)) {
            timed.drop(py);
            self.bury(py); // the last timer takes along what was abandoned
        }
    }

    /// Lets go of a handle that waits for its time in this place: what of those abandoned can go by now, to be dropped by
    /// [`drop_dead`].
    #[inline]
    #[must_use]
    pub(crate) fn abandon_timer(&self, py: Python<'_>, place: TimerPlace) -> Option<Vec<Timed>> {
        self.scheduler.with(py, |s| {
            s.abandon(place);
            s.take_dead()
        })
    }

    /// Drops what was abandoned, as far as it can go by now.
    #[inline]
    pub(crate) fn bury(&self, py: Python<'_>) {
        drop_dead(py, self.scheduler.with(py, Scheduler::take_dead));
    }

    /// The loop's clock, in seconds.
    #[inline]
    pub(crate) fn now(&self) -> f64 {
        let now = self.virtual_now.get();
        if now.is_nan() { clock::monotonic() } else { now }
    }

    /// Whether time is virtual: the loop never waits for a timer.
    #[inline]
    pub(crate) fn is_virtual(&self) -> bool {
        !self.virtual_now.get().is_nan()
    }

    /// Moves the virtual clock to the next deadline; false if there is none.
    pub(crate) fn advance(&self, py: Python<'_>) -> bool {
        let timeout = self.scheduler.with(py, |s| s.timeout(self.virtual_now.get()));
        if let Some(timeout) = timeout {
            self.virtual_now.set(self.virtual_now.get() + timeout);
        }
        timeout.is_some()
    }

    #[inline]
    pub(crate) fn scheduler(&self) -> &GilCell<Scheduler<Job, Timed>> {
        &self.scheduler
    }

    pub(crate) fn remote(&self) -> &Remote {
        &self.remote
    }

    pub(crate) fn inbox(&self) -> &Inbox<Job> {
        &self.remote.inbox
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.remote.waker
    }

    /// The thread that runs the loop (see [`thread_id`]); 0 when none does.
    #[inline]
    pub(crate) fn thread(&self) -> usize {
        self.thread.get()
    }

    /// Whether a thread, this one or another, runs the loop.
    #[inline]
    pub(crate) fn runs_somewhere(&self) -> bool {
        self.thread.get() != 0
    }

    /// Which loop it is, in [`NUMBER_BITS`]; 0: no telling.
    #[inline]
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// A thread begins to run the loop `this`, of which this is the native part.
    pub(crate) fn begin_run(&self, this: &Bound<'_, PyAny>, thread: usize) {
        drop(self.weak.take(this.py())); // dead, if a finalizer has given the loop another life
        self.thread.set(thread);
        LATEST.number.set(self.number);
        LATEST.event_loop.set(this.py(), this.clone());
    }

    /// No thread runs the loop any more.
    pub(crate) fn end_run(&self, py: Python<'_>) {
        self.thread.set(0);
        if LATEST.number.get() == self.number {
            LATEST.number.set(0);
            drop(LATEST.event_loop.take(py));
        }
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(crate) fn set_closed(&self) {
        self.closed.set(true);
    }

    /// RuntimeError when the loop is closed.
    #[inline]
    pub(crate) fn check_closed(&self) -> PyResult<()> {
        if self.closed.get() { Err(closed()) } else { Ok(()) }
    }

    #[inline]
    pub(crate) fn is_debug(&self) -> bool {
        self.instruments.get() & instrument::DEBUG != 0
    }

    pub(crate) fn set_debug(&self, on: bool) {
        self.set_instrument(instrument::DEBUG, on);
    }

    /// Which instruments are on.
    #[inline]
    pub(crate) fn instruments(&self) -> u8 {
        self.instruments.get()
    }

    #[inline]
    pub(crate) fn set_instrument(&self, instrument: u8, on: bool) {
        let others = self.instruments.get() & !instrument;
        self.instruments.set(if on { others | instrument } else { others });
    }

    pub(crate) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    pub(crate) fn set_stopping(&self, on: bool) {
        self.stopping.set(on);
    }

    #[inline]
    pub(crate) fn overrides_call_soon(&self) -> bool {
        self.own_call_soon.get()
    }

    #[inline]
    pub(crate) fn overrides_timers(&self) -> bool {
        self.own_timers.get()
    }

    #[inline]
    pub(crate) fn overrides_tasks(&self) -> bool {
        self.own_tasks.get()
    }

    /// What `set_task_factory` was given.
    pub(crate) fn task_factory(&self) -> &Slot {
        &self.task_factory
    }

    /// Python code replaces a method, in a subclass or on the instance.
    pub(crate) fn note_override(&self, name: &str) {
        match name {
            "call_soon" => self.own_call_soon.set(true),
            "call_later" | "call_at" | "time" => self.own_timers.set(true),
            "create_task" => self.own_tasks.set(true),
            _ => {}
        }
    }

    /// In debug mode: RuntimeError unless the calling thread runs the loop (or none does).
    pub(crate) fn check_thread(&self) -> PyResult<()> {
        let runner = self.thread.get();
        if runner == 0 || runner == thread_id() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(
            "Non-thread-safe operation invoked on an event loop other than the current one",
        ))
    }

    /// Shows every job to the garbage collector.
    pub(crate) fn traverse_jobs(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        let show = |s: &Scheduler<Job, Timed>| {
            s.ready().iter().try_for_each(|job| job.traverse(visit))?;
            s.timers().iter().try_for_each(|timed| visit.call(Some(timed.object())))
        };
        self.scheduler.visit(show).unwrap_or(Ok(()))
    }

    /// The loop stops: tasks that were to begin and handles that were to run may stay where they are for good (see
    /// `Tsk::show` and `class::create_hidden`).
    pub(crate) fn show_jobs(&self, py: Python<'_>) {
        self.scheduler.with(py, |scheduler| {
            self.remote.inbox.take_into(scheduler.ready_mut());
            for job in scheduler.ready() {
                match job {
                    Job::Step(task) => {
                        if let Some(task) = Tsk::cast_exact(task.bind(py)) {
                            task.show();
                        }
                    }
                    Job::Handle(handle) => handles::show(handle.bind(py)),
                    _ => {}
                }
            }
            for timed in scheduler.timers().iter() {
                handles::show(timed.object().bind(py));
            }
        });
    }

    /// Takes every job, for `close()` and the garbage collector; the caller drops them.
    #[must_use]
    pub(crate) fn take_jobs(&self, py: Python<'_>) -> std::collections::VecDeque<Job> {
        let mut jobs = self.scheduler.with(py, |s| s.take_all(|timed| timed.into_job(py)));
        self.bury(py);
        jobs.extend(self.remote.inbox.take());
        jobs
    }
}

/// Drops what was abandoned.
#[inline]
pub(crate) fn drop_dead(py: Python<'_>, dead: Option<Vec<Timed>>) {
    if let Some(dead) = dead {
        drop_all(py, dead);
    }
}

#[cold]
fn drop_all(py: Python<'_>, dead: Vec<Timed>) {
    for timed in dead {
        timed.drop(py);
    }
}

#[cold]
fn closed() -> PyErr {
    PyRuntimeError::new_err("Event loop is closed")
}

#[pymethods]
impl LoopCore {
    /// Makes time virtual, from `start` seconds on (see `aioxide.testing`).
    #[pyo3(signature = (start = 0.0))]
    fn _use_virtual_clock(&self, start: f64) -> PyResult<()> {
        if start.is_nan() || self.thread() != 0 {
            return Err(PyRuntimeError::new_err("a virtual clock starts at a number, before the loop runs"));
        }
        self.virtual_now.set(start);
        Ok(())
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        crate::ffi::gc::traverse_pyclass(&visit, |v| {
            self.task_factory.traverse(v)?;
            self.traverse_jobs(v)
        })
    }

    fn __clear__(&self) {
        // The collector holds the GIL; `attach` only confirms it.
        crate::ffi::attach::attached(|py| {
            drop(self.task_factory.take(py));
            drop(self.take_jobs(py));
        });
    }
}
