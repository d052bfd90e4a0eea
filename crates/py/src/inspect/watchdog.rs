//! The watchdog: a native thread that sees that a loop has not come back for too long, and looks at what it does.
//!
//! The thread sleeps and compares pulses; it takes the GIL only when a turn has lasted longer than the threshold, to
//! read the Python stack of the loop's thread *during* the stall. Where native code holds the GIL all the time there is
//! no stack to be had, and the report says so. One stall is one report, made at its end with its whole length.
//! Nobody waits for this thread but the interpreter's exit.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use aioxide_sys::{clock, thread as threads};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::chain::{self, Link, text_of};
use super::json::Json;
use super::running;
use crate::event_loop::EventLoop;
use crate::ffi::cell::GilCell;
use crate::ffi::thread;
use crate::local::LoopCore;
use crate::pulse::{Pulse, instrument};

/// How many finished stalls are kept for those who ask later.
const KEPT: usize = 100;
/// … and while a trace is being recorded.
const KEPT_FOR_TRACE: usize = 10_000;
/// A look at each of these multiples of the threshold: the stack may have moved on.
const LOOKS: u32 = 6;
/// A stall that lasts is told about while it lasts, once, after this many seconds.
const LONG: f64 = 5.0;

/// What was seen at one moment of a stall.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Look {
    /// Seconds since the stall began.
    pub(super) after: f64,
    /// The name of the task, if one runs.
    pub(super) task: Option<String>,
    /// The Python stack, from the task's coroutine (or the callback) inwards; empty if the GIL could not be had.
    pub(super) stack: Vec<Link>,
}

impl Look {
    /// The task has left its coroutine already: native code has kept the GIL for all of its step.
    fn is_too_late(&self) -> bool {
        self.task.is_some() && self.stack.is_empty()
    }
}

/// One stall.
#[derive(Clone, Debug)]
pub(super) struct Stall {
    pub(super) ident: u64,
    /// When the turn began that lasts too long.
    pub(super) since: f64,
    pub(super) seconds: f64,
    is_over: bool,
    pub(super) looks: Vec<Look>,
}

impl Stall {
    fn write(&self, json: &mut Json) {
        json.object(|json| {
            json.key("thread").number(self.ident);
            json.key("since").seconds(self.since);
            json.key("seconds").seconds(self.seconds);
            json.key("over").raw(if self.is_over { "true" } else { "false" });
            json.key("looks").array(|json| {
                for look in &self.looks {
                    json.object(|json| {
                        json.key("after").seconds(look.after);
                        json.key("task").maybe(look.task.as_deref(), Json::string);
                        json.key("stack").array(|json| look.stack.iter().for_each(|link| link.write(json)));
                    });
                }
            });
        });
    }
}

/// The thread and the way to it.
struct Dog {
    is_wanted: Arc<AtomicBool>,
    loops: Sender<Arc<Pulse>>,
    thread: JoinHandle<()>,
}

static DOG: GilCell<Option<Dog>> = GilCell::new(None);
/// Stalls that are over, and those under way.
static STALLS: Mutex<VecDeque<Stall>> = Mutex::new(VecDeque::new());
static CURRENT: Mutex<Vec<Stall>> = Mutex::new(Vec::new());
/// How many of the former are kept.
static LIMIT: AtomicUsize = AtomicUsize::new(KEPT);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A loop starts to run: it is watched if there is a watchdog.
pub(crate) fn watch(event_loop: &Bound<'_, EventLoop>) {
    let core = EventLoop::core(event_loop);
    core.pulse().note_start();
    let is_watched = DOG.with(event_loop.py(), |dog| {
        dog.as_ref().is_some_and(|dog| dog.loops.send(Arc::clone(core.pulse())).is_ok())
    });
    core.set_instrument(instrument::PULSE, is_watched);
}

/// `_watchdog_start(threshold, report)`: `report` is called with each stall as JSON, in the watchdog's thread.
#[pyfunction]
pub(super) fn _watchdog_start(py: Python<'_>, threshold: f64, report: Py<PyAny>) -> PyResult<()> {
    if DOG.with(py, |dog| dog.is_some()) {
        return Err(PyRuntimeError::new_err("the watchdog runs already"));
    }
    let (loops, news) = channel();
    let is_wanted = Arc::new(AtomicBool::new(true));
    let watcher = Watcher { threshold, report, is_wanted: Arc::clone(&is_wanted), seen: Vec::new() };
    let thread = threads::spawn("aioxide-watchdog", move || watcher.run(&news))
        .map_err(|error| PyRuntimeError::new_err(format!("no thread for the watchdog: {error}")))?;
    DOG.with(py, |dog| *dog = Some(Dog { is_wanted, loops, thread }));
    for (event_loop, _) in running::all(py) {
        watch(&event_loop);
    }
    Ok(())
}

/// `_watchdog_stop(wait)`: the thread ends; with `wait` it has ended, unless it is the caller.
#[pyfunction]
pub(super) fn _watchdog_stop(py: Python<'_>, wait: bool) {
    let Some(dog) = DOG.with(py, Option::take) else { return };
    for (event_loop, _) in running::all(py) {
        EventLoop::core(&event_loop).set_instrument(instrument::PULSE, false);
    }
    dog.is_wanted.store(false, Ordering::Relaxed);
    drop(dog.loops); // wakes it
    if wait && dog.thread.thread().id() != std::thread::current().id() {
        let _ = py.detach(|| dog.thread.join());
    }
}

/// `_watchdog_forked()`: in a child process there is no such thread.
#[pyfunction]
pub(super) fn _watchdog_forked(py: Python<'_>) {
    std::mem::forget(DOG.with(py, Option::take));
}

/// `_stalls()`: the stalls that are over and those under way, as JSON.
#[pyfunction]
pub(super) fn _stalls() -> String {
    stalls()
}

/// As `_stalls`, without the GIL.
pub(super) fn stalls() -> String {
    let mut json = Json::new();
    json.array(|json| {
        lock(&STALLS).iter().for_each(|stall| stall.write(json));
        lock(&CURRENT).iter().for_each(|stall| stall.write(json));
    });
    json.into_text()
}

/// A trace is being recorded and wants all stalls, or no longer.
pub(super) fn keep_all(on: bool) {
    LIMIT.store(if on { KEPT_FOR_TRACE } else { KEPT }, Ordering::Relaxed);
}

/// The stalls that were seen to begin, or to last, at that time or later.
pub(super) fn since(time: f64) -> Vec<Stall> {
    let mut found: Vec<_> = lock(&STALLS).iter().cloned().collect();
    found.extend(lock(&CURRENT).iter().cloned());
    found.retain(|stall| stall.since + stall.seconds >= time);
    found
}

/// A loop as the watchdog sees it.
struct Seen {
    pulse: Arc<Pulse>,
    /// The turn under way when it last looked, and since when.
    turn: Option<u64>,
    since: f64,
    stall: Option<Stall>,
    /// How many times the stack has been looked at, and whether the stall was told about while it lasted.
    looks: u32,
    is_told: bool,
}

struct Watcher {
    threshold: f64,
    report: Py<PyAny>,
    is_wanted: Arc<AtomicBool>,
    seen: Vec<Seen>,
}

impl Watcher {
    fn run(mut self, news: &Receiver<Arc<Pulse>>) {
        let nap = Duration::from_secs_f64((self.threshold / 4.0).clamp(0.001, 0.1));
        loop {
            let goes_on = match news.recv_timeout(nap) {
                Ok(pulse) => {
                    self.add(pulse);
                    true
                }
                Err(RecvTimeoutError::Timeout) => self.is_wanted.load(Ordering::Relaxed),
                Err(RecvTimeoutError::Disconnected) => false, // what is over by now is still told
            };
            let now = clock::monotonic();
            for number in 0..self.seen.len() {
                self.check(number, now);
            }
            self.seen.retain(|seen| seen.pulse.ident() != 0 || seen.stall.is_some());
            self.publish();
            if !goes_on {
                break;
            }
        }
        // The reference to the callback goes with the GIL, or not at all if there is no interpreter left.
        let report = self.report;
        if Python::try_attach(|py| drop(report.into_bound(py))).is_none() {
            lock(&CURRENT).clear();
        }
    }

    fn add(&mut self, pulse: Arc<Pulse>) {
        if !self.seen.iter().any(|seen| Arc::ptr_eq(&seen.pulse, &pulse)) {
            self.seen.push(Seen { pulse, turn: None, since: 0.0, stall: None, looks: 0, is_told: false });
        }
    }

    /// Shows what is under way to those who ask.
    fn publish(&self) {
        let stalls: Vec<_> = self.seen.iter().filter_map(|seen| seen.stall.clone()).collect();
        let mut current = lock(&CURRENT);
        if !(current.is_empty() && stalls.is_empty()) {
            *current = stalls;
        }
    }

    fn check(&mut self, number: usize, now: f64) {
        let Some(seen) = self.seen.get_mut(number) else { return };
        let turn = seen.pulse.busy_turn();
        if turn.is_none() || turn != seen.turn {
            if let Some(mut stall) = seen.stall.take() {
                stall.seconds = seen.pulse.end_of_stall().unwrap_or(now) - seen.since;
                stall.is_over = true;
                self.tell(&stall);
                let mut kept = lock(&STALLS);
                kept.push_back(stall);
                while kept.len() > LIMIT.load(Ordering::Relaxed) {
                    kept.pop_front();
                }
            }
            if let Some(seen) = self.seen.get_mut(number) {
                let since = seen.pulse.start_of_turn(now); // this thread may come late
                (seen.turn, seen.since, seen.looks, seen.is_told) = (turn, since, 0, false);
            }
            return;
        }
        let after = now - seen.since;
        if after < self.threshold * f64::from(1_u32 << seen.looks) && (after <= LONG || seen.is_told) {
            if let Some(stall) = &mut seen.stall {
                stall.seconds = after;
            }
            return;
        }
        seen.pulse.note_stall();
        let stall = seen.stall.get_or_insert_with(|| Stall {
            ident: seen.pulse.ident(),
            since: seen.since,
            seconds: after,
            is_over: false,
            looks: Vec::new(),
        });
        stall.seconds = after;
        if seen.looks < LOOKS {
            seen.looks += 1;
            let pulse = Arc::clone(&seen.pulse);
            // Waits for the GIL: the thread that stalls hands it over between two instructions, or when it blocks.
            let since = seen.since;
            let look = Python::try_attach(|py| {
                let is_same = pulse.busy_turn() == turn;
                is_same.then(|| look(py, pulse.ident(), clock::monotonic() - since))
            });
            match look.flatten() {
                Some(look) if look.is_too_late() => {}
                Some(look) if stall.looks.last().is_some_and(|last| last.stack == look.stack) => {}
                Some(look) => stall.looks.push(look),
                None => return, // over meanwhile: the next round sees that
            }
        }
        if after > LONG && !seen.is_told {
            seen.is_told = true;
            let stall = stall.clone();
            self.tell(&stall);
        }
    }

    /// Calls `report`. Its errors are shown as those of a `__del__` are.
    fn tell(&self, stall: &Stall) {
        let mut json = Json::new();
        stall.write(&mut json);
        Python::try_attach(|py| {
            let report = self.report.bind(py);
            if let Err(error) = threads::with_signals(|| report.call1((json.into_text(),))) {
                error.write_unraisable(py, Some(report));
            }
        });
    }
}

/// What the thread does now.
fn look(py: Python<'_>, ident: u64, after: f64) -> Look {
    let event_loop = running::all(py).into_iter().find(|(_, i)| *i == ident).map(|(one, _)| one.into_any());
    let task = event_loop.as_ref().and_then(|one| current_task(one));
    let outermost = task.as_ref().and_then(|task| {
        let coroutine = task.call_method0(intern!(py, "get_coro")).ok()?;
        ["cr_frame", "gi_frame"].iter().find_map(|name| coroutine.getattr_opt(*name).ok().flatten())
    });
    let frame = chain::innermost(py, ident).ok().flatten();
    let mut stack = frame.map_or_else(Vec::new, |frame| chain::stack(frame, outermost.as_ref()));
    let outermost = outermost.and_then(|frame| Link::of(&frame).ok());
    if outermost
        .is_none_or(|outermost| stack.first().is_none_or(|first| first.function != outermost.function))
    {
        chain::cut_runner(&mut stack);
    }
    let name = |task: &Bound<'_, PyAny>| text_of(task.call_method0(intern!(py, "get_name")), "?");
    Look { after, task: task.as_ref().map(name), stack }
}

fn current_task<'py>(event_loop: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    LoopCore::of(event_loop).and_then(|_| thread::current_task(event_loop).ok().flatten())
}
