//! Where a task is parked and for what, as `subject` says it, at a price that each step can pay.
//!
//! No frame is looked at twice: a place in the code is known by its code object and the instruction. Where a native
//! coroutine says what it waits for, nothing else is asked; everything else goes the way of `aioxide.tasks()`.

use std::cell::RefCell;
use std::fmt::Write;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use rustc_hash::FxHashMap;

use super::log::{Log, Parked, Text, TrackId, cut};
use super::with_log;
use crate::ffi::cell::GilCell;
use crate::ffi::layout::{Fut, Tsk};
use crate::ffi::types;
use crate::inspect::chain::{self, Chain, text_of};
use crate::inspect::subject::{self, Known, Subject};
use crate::locks::holders::{self, Claim, Identity};
use crate::names::asyncio;

/// More than this many coroutines within each other are not followed.
const DEEPEST: usize = 500;
/// So many places are remembered.
const MOST_PLACES: usize = 20_000;
/// So many names fit into one text.
const MOST_NAMES: usize = 5;

/// Places in code: what keeps the code object where it is, the function, and the place in words.
type Places = FxHashMap<(usize, i32), (Py<PyAny>, Text, Text)>;

static PLACES: GilCell<Option<Places>> = GilCell::new(None);

/// Forgets all places, when a trace is over.
pub(super) fn forget(py: Python<'_>) {
    let places = PLACES.with(py, Option::take);
    for (_, (code, ..)) in places.into_iter().flatten() {
        drop(code.into_bound(py));
    }
}

/// The function and the place of a piece of code: of an instruction in it, or of its beginning.
fn place(
    code: &Bound<'_, PyAny>,
    instruction: i32,
    line: impl FnOnce() -> PyResult<u32>,
) -> PyResult<(Text, Text)> {
    let py = code.py();
    let key = (code.as_ptr().addr(), instruction);
    if let Some(found) = PLACES.with(py, |places| {
        places.as_ref().and_then(|places| places.get(&key)).map(|(_, function, place)| (*function, *place))
    }) {
        return Ok(found);
    }
    let function = text_of(code.getattr(intern!(py, "co_qualname")), "?");
    let file = text_of(code.getattr(intern!(py, "co_filename")), "?");
    let text = if file == "<aioxide>" { function.clone() } else { format!("{function}  {file}:{}", line()?) };
    let found =
        with_log(py, |log| (log.texts.number(&function), log.texts.number(&text))).unwrap_or_default();
    let held = code.clone().unbind();
    let refused = PLACES.with(py, |places| {
        let places = places.get_or_insert_default();
        if places.len() >= MOST_PLACES {
            return Some(held);
        }
        places.insert(key, (held, found.0, found.1)).map(|(code, ..)| code)
    });
    drop(refused.map(|code| code.into_bound(py)));
    Ok(found)
}

/// The function that a coroutine runs, and where that begins.
pub(super) fn definition(coroutine: &Bound<'_, PyAny>) -> PyResult<(Text, Text)> {
    let py = coroutine.py();
    for name in [intern!(py, "cr_code"), intern!(py, "gi_code"), intern!(py, "ag_code")] {
        if let Some(code) = coroutine.getattr_opt(name)? {
            return place(&code, -2, || code.getattr(intern!(py, "co_firstlineno"))?.extract());
        }
    }
    let name = text_of(coroutine.get_type().qualname().map(Bound::into_any), "?");
    Ok(with_log(py, |log| (log.texts.number(&name), log.texts.number(&name))).unwrap_or_default())
}

/// Where a coroutine of Python code is.
fn whereabouts(coroutine: &Bound<'_, PyAny>) -> PyResult<Text> {
    let py = coroutine.py();
    let frame = match coroutine.getattr_opt(intern!(py, "cr_frame"))? {
        Some(frame) => frame,
        None => coroutine.getattr(intern!(py, "gi_frame"))?,
    };
    if frame.is_none() {
        return Ok(0);
    }
    let code = frame.getattr(intern!(py, "f_code"))?;
    let instruction = frame.getattr(intern!(py, "f_lasti"))?.extract()?;
    let line = || {
        let line: Option<u32> = frame.getattr(intern!(py, "f_lineno"))?.extract()?;
        line.map_or_else(|| code.getattr(intern!(py, "co_firstlineno"))?.extract(), Ok)
    };
    place(&code, instruction, line).map(|(_, place)| place)
}

/// Where the way inwards has led.
enum Inside<'py> {
    /// To a native coroutine that says what it waits for.
    Says((String, Option<Bound<'py, PyAny>>)),
    /// To a stream's coroutine.
    Stream,
    /// To the future itself.
    Future,
    /// To something that needs a closer look.
    Unclear,
}

/// Follows a coroutine inwards; with the innermost one of Python code.
fn inside<'py>(coroutine: &Bound<'py, PyAny>) -> PyResult<(Option<Bound<'py, PyAny>>, Inside<'py>)> {
    let py = coroutine.py();
    let (mut python, mut is_stream) = (None, false);
    let mut next = coroutine.clone();
    for _ in 0..DEEPEST {
        if Fut::cast_any(&next).is_some() || next.is_none() {
            return Ok((python, if is_stream { Inside::Stream } else { Inside::Future }));
        }
        let awaited = if types::is_native_coroutine(&next) {
            next.getattr(intern!(py, "cr_await"))?
        } else if types::is_generator(&next) {
            next.getattr(intern!(py, "gi_yieldfrom"))?
        } else if next.get_type().hasattr(intern!(py, "_waits_for"))? {
            let says = next.getattr(intern!(py, "_waits_for"))?;
            if !says.is_none() {
                return Ok((python, Inside::Says(says.extract()?)));
            }
            let name = next.getattr(intern!(py, "__qualname__"))?;
            is_stream = name.cast::<PyString>()?.to_cow()?.starts_with("Stream");
            next = next.getattr(intern!(py, "cr_await"))?;
            continue;
        } else {
            break;
        };
        is_stream = false;
        python = Some(next);
        next = awaited;
    }
    Ok((python, Inside::Unclear))
}

/// What a task that has just made a step is parked on.
pub(super) fn look<'py>(coroutine: &Bound<'py, PyAny>, waiter: &Bound<'py, PyAny>) -> Parked {
    let py = waiter.py();
    let (python, inside) = inside(coroutine).unwrap_or((None, Inside::Unclear));
    let mut chain = Chain::default();
    let subject = match inside {
        Inside::Stream => Subject::plain("stream", waiter),
        inside => {
            match inside {
                Inside::Says(says) => chain.waits_for = Some(says),
                Inside::Future if Tsk::cast_any(waiter).is_some() => {}
                _ => chain = chain::of(coroutine.clone()),
            }
            let holders =
                |object: &Bound<'py, PyAny>, subject: &mut Subject| add_holders(object, waiter, subject);
            subject::of(waiter, &chain, &Known::default(), &holders)
        }
    };
    let place = match chain.links.iter().rev().find(|link| !link.is_native()) {
        Some(link) => {
            let text = format!("{}  {}:{}", link.function, link.file, link.line);
            with_log(py, |log| log.texts.number(&text))
        }
        None => match python {
            Some(python) => whereabouts(&python).ok(),
            None => definition(coroutine).ok().map(|(_, place)| place),
        },
    };
    with_log(py, |log| Parked {
        kind: log.texts.number(&subject.kind),
        place: place.unwrap_or_default(),
        subject: cut(&words(log, &subject)).into(),
    })
    .unwrap_or_default()
}

/// The tasks that hold a lock or permits: those that the trace knows, else by a look at all.
fn add_holders<'py>(object: &Bound<'py, PyAny>, waiter: &Bound<'py, PyAny>, subject: &mut Subject) {
    let py = object.py();
    let known = RefCell::new(Vec::new());
    let find = |wanted: &Identity| {
        if with_log(py, |log| log.find(*wanted).is_some()).unwrap_or(false) {
            known.borrow_mut().push(wanted.0);
            return Some(object.clone()); // stands for the task
        }
        let event_loop = Fut::cast_any(waiter)?.event_loop()?;
        let all = asyncio(py).tasks.bind(py).call_method1("all_tasks", (event_loop,)).ok()?;
        all.try_iter().ok()?.flatten().find(|task| holders::identity(task).as_ref() == Some(wanted))
    };
    let claims = holders::claims(object, find).unwrap_or_default();
    subject.owners = known.into_inner();
    for claim in claims {
        match claim {
            Claim::Task(task) if task.is(object) => {}
            Claim::Task(task) => subject.owners.push(task.as_ptr().addr()),
            Claim::Ended(Some(name)) => subject.gone.push(text_of(Ok(name), "?")),
            Claim::Ended(None) => subject.gone.push(String::from("a task")),
            Claim::Unknown => subject.gone.push(String::from("somebody")),
        }
    }
}

/// As `aioxide.format_tasks()` says it.
fn words(log: &Log, subject: &Subject) -> String {
    let kind = subject.kind.as_str();
    let tasks = names(log, &subject.tasks);
    let tasks = some(tasks.iter().copied());
    match kind {
        "task" => return format!("task {}", if tasks.is_empty() { "of another loop" } else { &tasks }),
        "gather" | "group" | "tasks" | "shield" if tasks.is_empty() => return kind.to_owned(),
        "gather" | "group" | "tasks" | "shield" => return format!("{kind}: {tasks}"),
        "turn" => return String::from("its turn"),
        "timer" => return kind.to_owned(),
        _ => {}
    }
    let mut text = match &subject.object {
        Some((class, id)) if class.eq_ignore_ascii_case(kind) => format!("{kind} {id:#x}"),
        Some((class, id)) => format!("{kind} ({class} {id:#x})"),
        None => kind.to_owned(),
    };
    let owners = names(log, &subject.owners).into_iter().map(str::to_owned);
    let owners: Vec<_> =
        owners.chain(subject.gone.iter().map(|name| format!("{name} (which has ended)"))).collect();
    if !owners.is_empty() {
        let _ = write!(text, ", held by {}", some(owners.iter().map(String::as_str)));
    }
    text
}

/// The names of some tasks, in the order in which the trace has seen them first.
fn names<'a>(log: &'a Log, addresses: &[usize]) -> Vec<&'a str> {
    let mut found: Vec<_> =
        addresses.iter().map(|address| log.at(*address).unwrap_or((TrackId::MAX, "a task"))).collect();
    found.sort_by_key(|(track, _)| *track);
    found.into_iter().map(|(_, name)| name).collect()
}

/// The names, or as many as fit a line.
fn some<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(MOST_NAMES);
    let mut text = names.take(MOST_NAMES).collect::<Vec<_>>().join(", ");
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}
