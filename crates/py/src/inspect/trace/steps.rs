//! What a turn tells a trace: jobs begin and end, a loop sleeps, jobs have come in.
//!
//! Who wakes whom needs no hook where tasks are woken: what a job has added to the ready queue by its end, that job has
//! woken. The callbacks of a future (a gather's, a TaskGroup's) run as jobs of their own; whom these wake, the task has
//! woken that completed the future.

use aioxide_sys::clock;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyInt;

use super::log::{About, Culprit, Event, Origin, Span, Text, TrackId};
use super::{BEGAN, NUMBER, parked, with_log};
use crate::event_loop::EventLoop;
use crate::ffi::layout::{State, Tsk};
use crate::inspect::chain::text_of;
use crate::inspect::picture;
use crate::job::Job;
use crate::locks::holders::{Identity, identity};
use crate::transports::Source;

/// What a loop keeps of the trace under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    /// Of which trace, by number.
    trace: u32,
    track: TrackId,
    /// How many jobs it has run, and how many of those that are ready have been looked at.
    ran: u64,
    seen: usize,
    asleep: Option<u64>,
    /// The task that makes a step, and since when.
    current: Option<(TrackId, u64)>,
}

/// A job under way.
pub(crate) struct Open<'py> {
    trace: u32,
    what: What<'py>,
    start: u64,
    /// What its wake-ups are put down to; else itself.
    cause: Option<Origin>,
}

enum What<'py> {
    Task(Bound<'py, PyAny>, TrackId),
    Call(Text),
}

/// Nanoseconds since the trace began.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and fits for centuries"
)]
pub(super) fn now() -> u64 {
    ((clock::monotonic() - BEGAN.get()).max(0.0) * 1e9) as u64
}

/// The loop's place in this trace.
fn place(this: &Bound<'_, EventLoop>) -> Place {
    let place = this.get().trace.get();
    if place.trace == NUMBER.get() { place } else { join(this) }
}

/// A loop that the trace sees for the first time.
#[cold]
fn join(this: &Bound<'_, EventLoop>) -> Place {
    let (py, core) = (this.py(), EventLoop::core(this));
    let ident = core.pulse().ident();
    let names = picture::thread_names(py).unwrap_or_default();
    let name =
        names.into_iter().find(|(known, _)| *known == ident).map_or_else(String::new, |(_, name)| name);
    let name = name.into_boxed_str();
    let track = with_log(py, |log| log.add(0, About { name, ident, ..About::default() })).unwrap_or_default();
    let seen = core.scheduler().with(py, |s| s.ready_len());
    let place = Place { trace: NUMBER.get(), track, ran: 0, seen, asleep: None, current: None };
    this.get().trace.set(place);
    place
}

/// A loop starts to run.
pub(super) fn enter(this: &Bound<'_, EventLoop>) {
    let mut place = place(this);
    let known = with_log(this.py(), |log| {
        log.set_over(place.track, false);
        log.track(place.track).is_some()
    });
    if known == Some(false) {
        place = join(this);
    }
    place.seen = 0;
    this.get().trace.set(place);
}

/// A loop has stopped.
pub(super) fn leave(this: &Bound<'_, EventLoop>) {
    let place = this.get().trace.get();
    if place.trace == NUMBER.get() {
        with_log(this.py(), |log| log.set_over(place.track, true));
    }
}

/// The track of a task.
pub(super) fn track_of(event_loop: TrackId, task: &Bound<'_, PyAny>) -> TrackId {
    let py = task.py();
    let identity = known_as(task);
    if let Some(track) = with_log(py, |log| log.find(identity)).flatten() {
        return track;
    }
    let name = name_of(task).into_boxed_str();
    let coroutine = task.call_method0(intern!(py, "get_coro"));
    let (function, place) = coroutine.and_then(|coro| parked::definition(&coro)).unwrap_or_default();
    with_log(py, |log| log.add(event_loop, About { name, function, place, ident: 0, identity }))
        .unwrap_or_default()
}

fn known_as(task: &Bound<'_, PyAny>) -> Identity {
    identity(task).unwrap_or((task.as_ptr().addr(), 0))
}

/// The task's name, without making a text of one that is a number.
pub(super) fn name_of(task: &Bound<'_, PyAny>) -> String {
    let name = Tsk::cast_exact(task).and_then(Tsk::name);
    let name = match name {
        Some(number) if number.is_exact_instance_of::<PyInt>() => return format!("Task-{number}"),
        Some(name) => Ok(name),
        None => task.call_method0(intern!(task.py(), "get_name")),
    };
    super::log::cut(&text_of(name, "?")).to_owned()
}

/// A job begins.
pub(crate) fn begin<'py>(this: &Bound<'py, EventLoop>, job: &Job) -> Open<'py> {
    let py = this.py();
    let mut place = place(this);
    place.ran += 1;
    place.seen = place.seen.saturating_sub(1);
    let cause = match job {
        Job::Callback { .. } | Job::Hook { .. } => {
            with_log(py, |log| log.cause(place.track, place.ran)).flatten()
        }
        _ => None,
    };
    let what = match job {
        Job::Step(task) | Job::Throw { task, .. } | Job::Wake { task, .. } => {
            let task = task.bind(py).clone();
            let track = track_of(place.track, &task);
            What::Task(task, track)
        }
        Job::Handle(handle) => handle
            .bind(py)
            .getattr(intern!(py, "_callback"))
            .map_or(What::Call(0), |callback| called(place.track, &callback)),
        Job::Callback { callback, .. } => called(place.track, callback.bind(py)),
        Job::Hook { hook, .. } => What::Call(class_of(hook.bind(py))),
        Job::Complete(_) => What::Call(text(py, "timer")),
        Job::Expire { .. } => What::Call(text(py, "timeout")),
        Job::Connected { .. } => What::Call(text(py, "connection made")),
        Job::Lost { .. } => What::Call(text(py, "connection lost")),
        Job::Io(key, _) => {
            What::Call(text(py, this.get().source(py, *key).map_or("I/O", |source| kind(&source))))
        }
    };
    let start = now();
    if let What::Task(_, track) = what {
        with_log(py, |log| log.begin(track, start));
        place.current = Some((track, start));
    }
    this.get().trace.set(place);
    Open { trace: place.trace, what, start, cause }
}

fn text(py: Python<'_>, text: &str) -> Text {
    with_log(py, |log| log.texts.number(text)).unwrap_or_default()
}

fn kind(source: &Source) -> &'static str {
    match source {
        Source::Watch(watch) if watch.listener().is_some() => "server",
        Source::Waker | Source::Watch(_) => "I/O",
        Source::Signals => "signals",
        Source::Tcp(_) => "connection",
        Source::ReadPipe(_) | Source::WritePipe(_) => "pipe",
        Source::Datagram(_) => "datagrams",
        Source::Child(_) => "child process",
    }
}

/// A class, by what it is for if it is one of ours.
fn class_of(object: &Bound<'_, PyAny>) -> Text {
    let name = text_of(object.get_type().name().map(Bound::into_any), "?");
    let name = match name.as_str() {
        "_GatheringFuture" => "gather",
        "Courier" => "result from a thread",
        "Submission" => "run_coroutine_threadsafe",
        "Served" => "end of a connection's handler",
        name => name,
    };
    text(object.py(), name)
}

/// What a callback is: a step of a task that isn't ours, or something by its name.
fn called<'py>(event_loop: TrackId, callback: &Bound<'py, PyAny>) -> What<'py> {
    let py = callback.py();
    let mut callback = callback.clone();
    if callback.is_none() {
        return What::Call(text(py, "cancelled"));
    }
    for _ in 0..5 {
        // functools.partial and its like
        match callback.getattr_opt(intern!(py, "func")) {
            Ok(Some(inner)) => callback = inner,
            _ => break,
        }
    }
    if callback.hasattr(intern!(py, "__self__")).unwrap_or(false)
        && let Ok(task) = callback.getattr(intern!(py, "__self__"))
        && task.hasattr(intern!(py, "get_coro")).unwrap_or(false)
    {
        let track = track_of(event_loop, &task);
        return What::Task(task, track);
    }
    match callback.getattr_opt(intern!(py, "__qualname__")) {
        Ok(Some(name)) => What::Call(text(py, &text_of(Ok(name), "?"))),
        _ => What::Call(class_of(&callback)),
    }
}

/// How a task ended, if it has.
fn outcome(task: &Bound<'_, PyAny>) -> Option<String> {
    let py = task.py();
    if let Some(known) = Tsk::cast_any(task) {
        let known = known.fut();
        return match known.state() {
            State::Pending => None,
            State::Cancelled => Some(String::from("cancelled")),
            State::Finished => Some(match known.exception() {
                None => String::from("returned"),
                Some(error) => {
                    format!("raised {}", text_of(error.get_type().qualname().map(Bound::into_any), "?"))
                }
            }),
        };
    }
    let done = task.call_method0(intern!(py, "done")).and_then(|done| done.is_truthy());
    done.unwrap_or(true).then(|| String::from("done"))
}

/// The job is over.
pub(crate) fn end(this: &Bound<'_, EventLoop>, open: Open<'_>) {
    let (py, end) = (this.py(), now());
    let span = Span { start: open.start, end };
    let mut place = place(this);
    if place.trace != open.trace {
        return; // another trace than the one that has seen it begin
    }
    place.current = None;
    this.get().trace.set(place);
    let (track, culprit) = match &open.what {
        What::Task(task, track) => {
            let how = outcome(task);
            let name = how.as_ref().map(|_| name_of(task));
            with_log(py, |log| {
                let text = how.as_ref().map_or(0, |how| log.texts.number(how));
                log.push(*track, span, Event::Step { how: text });
                if let Some(name) = name {
                    log.rename(*track, &name);
                    log.end(*track);
                }
            });
            (*track, Culprit::Task(*track))
        }
        What::Call(name) => {
            with_log(py, |log| log.push(place.track, span, Event::Call { name: *name }));
            (place.track, Culprit::Call(*name))
        }
    };
    with_log(py, |log| {
        if end - open.start >= log.stall {
            log.push(place.track, span, Event::Stall { culprit });
        }
    });
    // Within the slice, so that viewers know which one is meant.
    let own = Origin { track, at: end.saturating_sub(1).max(open.start) };
    look_at_queue(this, Some(open.cause.unwrap_or(own)), end);
    // By now the tasks are known that it may wait for.
    if let What::Task(task, track) = &open.what
        && let Some(parked) = parked_on(task)
    {
        with_log(py, |log| log.park(*track, end, parked));
    }
}

/// What a task is parked on that goes on when a future is done.
fn parked_on(task: &Bound<'_, PyAny>) -> Option<super::log::Parked> {
    let py = task.py();
    let (waiter, coroutine) = match Tsk::cast_any(task) {
        Some(known) if !known.fut().is_pending() => return None,
        Some(known) => (known.fut_waiter()?, known.coro()?),
        None => {
            let waiter = task.getattr_opt(intern!(py, "_fut_waiter")).ok()??;
            (waiter, task.call_method0(intern!(py, "get_coro")).ok()?)
        }
    };
    (!waiter.is_none()).then(|| parked::look(&coroutine, &waiter))
}

/// A task that the trace has not seen make a step.
pub(super) fn note(this: &Bound<'_, EventLoop>, task: &Bound<'_, PyAny>) {
    let track = track_of(place(this).track, task);
    if let Some(parked) = parked_on(task) {
        with_log(task.py(), |log| log.park(track, now(), parked));
    }
}

/// Looks at the jobs that have become ready since the last look, because of `cause`.
fn look_at_queue(this: &Bound<'_, EventLoop>, cause: Option<Origin>, now: u64) {
    let (py, core) = (this.py(), EventLoop::core(this));
    let mut place = place(this);
    let (mut woken, mut later) = (Vec::new(), Vec::new());
    place.seen = core.scheduler().with(py, |scheduler| {
        let count = scheduler.ready_len();
        if count > place.seen {
            for (number, job) in scheduler.ready_mut().iter().enumerate().skip(place.seen) {
                match job {
                    Job::Step(task) | Job::Throw { task, .. } | Job::Wake { task, .. } => {
                        woken.push(task.clone_ref(py));
                    }
                    Job::Callback { .. } | Job::Hook { .. } => later.push(place.ran + 1 + number as u64),
                    Job::Handle(_)
                    | Job::Complete(_)
                    | Job::Expire { .. }
                    | Job::Connected { .. }
                    | Job::Lost { .. }
                    | Job::Io(..) => {}
                }
            }
        }
        count
    });
    this.get().trace.set(place);
    if let Some(cause) = cause
        && !later.is_empty()
    {
        with_log(py, |log| later.iter().for_each(|number| log.expect(place.track, *number, cause)));
    }
    for task in woken {
        let task = task.into_bound(py);
        let track = track_of(place.track, &task);
        // Who gives others a turn isn't woken by itself.
        with_log(py, |log| log.wake(track, now, cause.filter(|cause| cause.track != track)));
    }
}

/// A turn begins: what is ready by now and was not before, input or output, a timer or another thread has brought.
pub(crate) fn turn(this: &Bound<'_, EventLoop>) {
    let ready = EventLoop::core(this).scheduler().with(this.py(), |s| s.ready_len());
    if ready > place(this).seen {
        look_at_queue(this, None, now());
    }
}

/// The loop goes to sleep, or comes back from it.
pub(crate) fn sleep(this: &Bound<'_, EventLoop>, falls: bool) {
    let mut place = place(this);
    if falls {
        place.asleep = Some(now());
    } else if let Some(start) = place.asleep.take() {
        with_log(this.py(), |log| log.push(place.track, Span { start, end: now() }, Event::Sleep));
    }
    this.get().trace.set(place);
}

/// The trace is over while a loop sleeps or a task runs.
pub(super) fn close(this: &Bound<'_, EventLoop>) {
    let place = place(this);
    if place.asleep.is_some() {
        sleep(this, false);
    }
    if let Some((track, start)) = place.current {
        with_log(this.py(), |log| log.push(track, Span { start, end: now() }, Event::Step { how: 0 }));
    }
}

/// A task that lives on when the trace is over: its name may be another by now.
pub(super) fn refresh(task: &Bound<'_, PyAny>) {
    let (name, identity) = (name_of(task), known_as(task));
    with_log(task.py(), |log| {
        if let Some(track) = log.find(identity) {
            log.rename(track, &name);
        }
    });
}
