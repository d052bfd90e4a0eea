//! The watchdog: a native thread that sees that a loop has not come back for too long, and looks at what it does.
//!
//! The thread sleeps and compares pulses; it takes the GIL only when a turn has lasted longer than the threshold, to
//! read the Python stack of the loop's thread *during* the stall. Where native code holds the GIL all the time there is
//! no stack to be had, and the report says so. One stall is one report, made at its end with its whole length. It is
//! the loop that says when a turn that lasted too long is over, so that none is lost where this thread got no time: on
//! a machine that was stopped or throttled. Nobody waits for this thread but the interpreter's exit.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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
    fn new(since: f64) -> Self {
        Self { ident: 0, since, seconds: 0.0, is_over: false, looks: Vec::new() }
    }

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

/// What loops tell the thread.
enum News {
    /// This one runs now.
    Starts(Arc<Pulse>),
    /// A turn that lasted too long is over.
    Over(Turn),
}

/// A turn that lasted too long.
struct Turn {
    pulse: Arc<Pulse>,
    ident: u64,
    /// When it began, by the coarse clock, and when it ended.
    began: f64,
    ended: f64,
}

/// When a turn has lasted too long.
#[derive(Clone, Copy)]
struct Limits {
    /// After so many seconds.
    threshold: f64,
    /// So many seconds later than by the coarse clock a turn has begun at most.
    lag: f64,
}

impl Limits {
    /// From when on a turn counts.
    fn since(&self, began: f64) -> f64 {
        began + self.lag
    }
}

/// The thread and the way to it.
struct Dog {
    limits: Limits,
    news: Sender<News>,
    thread: JoinHandle<()>,
}

/// What those are shown who ask.
struct Stalls {
    over: VecDeque<Stall>,
    under_way: Vec<Stall>,
}

impl Stalls {
    fn all(&self) -> impl Iterator<Item = &Stall> {
        self.over.iter().chain(&self.under_way)
    }
}

/// Where they are kept. A process forked while a thread, which it does not have, is at them gets a new one.
struct Store {
    stalls: Mutex<Stalls>,
    next: OnceLock<Box<Store>>,
}

impl Store {
    const fn new() -> Self {
        let stalls = Mutex::new(Stalls { over: VecDeque::new(), under_way: Vec::new() });
        Self { stalls, next: OnceLock::new() }
    }

    fn of_this_process() -> &'static Self {
        let mut store = &STORE;
        while let Some(next) = store.next.get() {
            store = next;
        }
        store
    }
}

static DOG: GilCell<Option<Dog>> = GilCell::new(None);
static STORE: Store = Store::new();
/// How many of those that are over are kept.
static LIMIT: AtomicUsize = AtomicUsize::new(KEPT);

fn known() -> MutexGuard<'static, Stalls> {
    Store::of_this_process().stalls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A loop starts to run: it is watched if there is a watchdog.
pub(super) fn watch(event_loop: &Bound<'_, EventLoop>) {
    let core = EventLoop::core(event_loop);
    let is_watched = DOG.with(event_loop.py(), |dog| {
        dog.as_ref().is_some_and(|dog| dog.news.send(News::Starts(Arc::clone(core.pulse()))).is_ok())
    });
    core.set_instrument(instrument::PULSE, is_watched);
}

/// A turn of a loop that is watched ends, at that time by the coarse clock.
#[inline]
pub(crate) fn turn_over(event_loop: &Bound<'_, EventLoop>, now: f64) {
    let pulse = EventLoop::core(event_loop).pulse();
    let began = pulse.began();
    DOG.with(event_loop.py(), |dog| {
        let Some(Dog { limits, news, .. }) = dog.as_ref() else { return };
        if now - began < limits.threshold {
            return; // surely in time
        }
        let ended = clock::monotonic();
        if ended - limits.since(began) >= limits.threshold {
            let turn = Turn { pulse: Arc::clone(pulse), ident: pulse.ident(), began, ended };
            let _ = news.send(News::Over(turn)); // nobody there: the watchdog ends as well
        }
    });
}

/// A loop stops, and with it the turn under way.
pub(super) fn leave(event_loop: &Bound<'_, EventLoop>) {
    let core = EventLoop::core(event_loop);
    if core.instruments() & instrument::PULSE != 0 {
        turn_over(event_loop, clock::coarse());
        core.set_instrument(instrument::PULSE, false);
    }
}

/// `_watchdog_start(threshold, report)`: `report` is called with each stall as JSON, in the watchdog's thread.
#[pyfunction]
pub(super) fn _watchdog_start(py: Python<'_>, threshold: f64, report: Py<PyAny>) -> PyResult<()> {
    if DOG.with(py, |dog| dog.is_some()) {
        return Err(PyRuntimeError::new_err("the watchdog runs already"));
    }
    let (news, said) = channel();
    let limits = Limits { threshold, lag: clock::coarse_resolution() };
    let watcher = Watcher { limits, report, seen: Vec::new() };
    let thread = threads::spawn("aioxide-watchdog", move || watcher.run(&said))
        .map_err(|error| PyRuntimeError::new_err(format!("no thread for the watchdog: {error}")))?;
    DOG.with(py, |dog| *dog = Some(Dog { limits, news, thread }));
    for (event_loop, _) in running::all(py) {
        EventLoop::core(&event_loop).pulse().note_start(clock::coarse());
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
    drop(dog.news); // ends it, after what has been said so far
    if wait && dog.thread.thread().id() != std::thread::current().id() {
        let _ = py.detach(|| dog.thread.join());
    }
}

/// `_watchdog_forked()`: in a child process there is no such thread.
#[pyfunction]
pub(super) fn _watchdog_forked(py: Python<'_>) {
    std::mem::forget(DOG.with(py, Option::take));
    let store = Store::of_this_process();
    match store.stalls.try_lock() {
        Ok(mut known) => known.under_way.clear(), // the parent's
        Err(_) => drop(store.next.set(Box::new(Store::new()))),
    }
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
        known().all().for_each(|stall| stall.write(json));
    });
    json.into_text()
}

/// A trace is being recorded and wants all stalls, or no longer.
pub(super) fn keep_all(on: bool) {
    LIMIT.store(if on { KEPT_FOR_TRACE } else { KEPT }, Ordering::Relaxed);
}

/// The stalls that were seen to begin, or to last, at that time or later.
pub(super) fn since(time: f64) -> Vec<Stall> {
    known().all().filter(|stall| stall.since + stall.seconds >= time).cloned().collect()
}

/// A loop as the watchdog sees it.
struct Seen {
    pulse: Arc<Pulse>,
    /// When the turn began that was under way when it last looked; none if the loop slept or didn't run.
    turn: Option<f64>,
    /// When the turn began that the loop has last said to be over.
    over: Option<f64>,
    stall: Option<Stall>,
    /// How many times the stack has been looked at, and whether the stall was told about while it lasted.
    looks: u32,
    is_told: bool,
}

impl Seen {
    fn new(pulse: Arc<Pulse>) -> Self {
        Self { pulse, turn: None, over: None, stall: None, looks: 0, is_told: false }
    }

    /// Another turn is under way, or none. What is left of the one before.
    fn set_turn(&mut self, turn: Option<f64>) -> Option<Stall> {
        (self.turn, self.looks, self.is_told) = (turn, 0, false);
        self.stall.take()
    }

    /// The turn under way, as far as is known.
    fn under_way(&self) -> Option<f64> {
        self.turn.filter(|turn| self.over.is_none_or(|over| over < *turn))
    }

    /// How long that may last until the next look, in seconds.
    fn due(&self, limits: Limits) -> f64 {
        if self.looks < LOOKS { limits.threshold * f64::from(1_u32 << self.looks) } else { f64::INFINITY }
    }
}

struct Watcher {
    limits: Limits,
    report: Py<PyAny>,
    seen: Vec<Seen>,
}

impl Watcher {
    fn run(mut self, news: &Receiver<News>) {
        loop {
            match news.recv_timeout(self.nap()) {
                Ok(one) => self.hear(one),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            // First what is seen and then what is said: of a turn that is seen to be over, the loop has spoken; and if
            // that turn began with another watchdog, the end of this one is seen.
            let now = clock::monotonic();
            let turns: Vec<_> = self.seen.iter().map(|seen| turn_of(&seen.pulse)).collect();
            let end = loop {
                match news.try_recv() {
                    Ok(one) => self.hear(one),
                    Err(end) => break end,
                }
            };
            if end == TryRecvError::Disconnected {
                break;
            }
            for (number, turn) in turns.into_iter().enumerate() {
                self.check(number, turn, now);
            }
            self.seen.retain(|seen| seen.pulse.ident() != 0 || seen.stall.is_some());
            self.publish();
        }
        known().under_way.clear(); // another watchdog shows its own in its next round
        // The reference to the callback goes with the GIL, or not at all if there is no interpreter left.
        let report = self.report;
        Python::try_attach(|py| drop(report.into_bound(py)));
    }

    /// How long there can be nothing to look at, but for turns not seen yet.
    fn nap(&self) -> Duration {
        let now = clock::monotonic();
        let next = self
            .seen
            .iter()
            .filter_map(|seen| Some(self.limits.since(seen.under_way()?) + seen.due(self.limits) - now));
        Duration::from_secs_f64(next.fold((self.limits.threshold / 4.0).min(0.1), f64::min).max(0.001))
    }

    fn under_way(&self) -> Vec<Stall> {
        self.seen.iter().filter_map(|seen| seen.stall.clone()).collect()
    }

    /// Shows what is under way to those who ask.
    fn publish(&self) {
        known().under_way = self.under_way();
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Starts(pulse) => {
                if !self.seen.iter().any(|seen| Arc::ptr_eq(&seen.pulse, &pulse)) {
                    self.seen.push(Seen::new(pulse));
                }
            }
            News::Over(turn) => {
                let seen = self.seen.iter_mut().find(|seen| Arc::ptr_eq(&seen.pulse, &turn.pulse));
                let stall = seen.and_then(|seen| {
                    seen.over = Some(turn.began);
                    seen.stall.take_if(|_| seen.turn == seen.over)
                });
                let stall = stall.unwrap_or_else(|| Stall::new(self.limits.since(turn.began)));
                self.end(Stall { ident: turn.ident, ..stall }, turn.ended);
            }
        }
    }

    fn end(&self, mut stall: Stall, now: f64) {
        stall.seconds = now - stall.since;
        stall.is_over = true;
        {
            let mut known = known();
            known.under_way = self.under_way();
            known.over.push_back(stall.clone());
            while known.over.len() > LIMIT.load(Ordering::Relaxed) {
                known.over.pop_front();
            }
        }
        self.tell(&stall);
    }

    /// Looks at a loop that was in that turn a moment ago, or slept.
    fn check(&mut self, number: usize, turn: Option<f64>, now: f64) {
        let Some(seen) = self.seen.get_mut(number) else { return };
        if turn != seen.turn {
            if let Some(stall) = seen.set_turn(turn) {
                self.end(stall, now); // by its coarse clock, which was very late, the loop was in time
            }
            return;
        }
        let Some(turn) = seen.under_way() else { return };
        let since = self.limits.since(turn);
        let after = now - since;
        if after < seen.due(self.limits) && (after <= LONG || seen.is_told) {
            if let Some(stall) = &mut seen.stall {
                stall.seconds = after;
            }
            return;
        }
        let stall = seen.stall.get_or_insert_with(|| Stall::new(since));
        stall.ident = seen.pulse.ident();
        stall.seconds = after;
        if seen.looks < LOOKS {
            seen.looks += 1;
            let pulse = &seen.pulse;
            // Waits for the GIL: the thread that stalls hands it over between two instructions, or when it blocks.
            let look = Python::try_attach(|py| {
                let is_same = turn_of(pulse) == Some(turn);
                is_same.then(|| look(py, pulse, clock::monotonic() - since))
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

/// When the turn began that is under way, if the loop is in one.
fn turn_of(pulse: &Pulse) -> Option<f64> {
    pulse.is_busy().then(|| pulse.began())
}

/// What the thread does now.
fn look(py: Python<'_>, pulse: &Arc<Pulse>, after: f64) -> Look {
    let mut loops = running::all(py).into_iter().map(|(event_loop, _)| event_loop);
    let event_loop = loops.find(|one| Arc::ptr_eq(EventLoop::core(one).pulse(), pulse)).map(Bound::into_any);
    let task = event_loop.as_ref().and_then(|one| current_task(one));
    let outermost = task.as_ref().and_then(|task| {
        let coroutine = task.call_method0(intern!(py, "get_coro")).ok()?;
        ["cr_frame", "gi_frame"].iter().find_map(|name| coroutine.getattr_opt(*name).ok().flatten())
    });
    let frame = chain::innermost(py, pulse.ident()).ok().flatten();
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
