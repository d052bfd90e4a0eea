//! All tasks at one moment: where each is, what it waits for and who waits for it.
//!
//! The result holds no Python objects, so that any thread may write it out. Taking it may run Python code of foreign
//! tasks and of names; whatever that raises stays here. Tasks may end meanwhile: they were there when the look began.

use std::collections::HashMap;

use aioxide_sys::clock;
use pyo3::intern;
use pyo3::prelude::*;

use super::accounts::{self, Account};
use super::chain::{self, Chain, Link, text_of};
use super::json::Json;
use super::running;
use super::subject::{self, Known, Subject};
use crate::ffi::layout::Tsk;
use crate::ffi::thread;
use crate::locks::holders::{self, Claim, Identity};
use crate::names::asyncio;

/// One task.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: usize,
    pub(crate) name: String,
    /// "running", "ready" or "waiting".
    pub(crate) state: &'static str,
    /// How often it was asked to cancel.
    pub(crate) cancelling: usize,
    /// Seconds until a timeout cancels it.
    pub(crate) timeout: Option<f64>,
    pub(crate) account: Option<Account>,
    pub(crate) chain: Vec<Link>,
    pub(crate) waits_for: Option<Subject>,
    pub(crate) awaited_by: Vec<usize>,
}

/// One loop and its tasks.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) id: usize,
    /// `threading.get_ident()` of the thread that runs it.
    pub(crate) ident: Option<u64>,
    pub(crate) tasks: Vec<Task>,
    /// How many more there are.
    pub(crate) left: usize,
}

/// The loops to look at: the one that is given; else those that run, and the one of this thread.
fn loops<'py>(
    py: Python<'py>,
    given: Option<Bound<'py, PyAny>>,
) -> PyResult<Vec<(Bound<'py, PyAny>, Option<u64>)>> {
    let mut all: Vec<_> =
        running::all(py).into_iter().map(|(one, ident)| (one.into_any(), Some(ident))).collect();
    if let Some(given) = given {
        let ident = all.iter().find(|(one, _)| one.is(&given)).and_then(|(_, ident)| *ident);
        let here = thread::running_loop(py)?.is_some_and(|here| here.is(&given));
        let ident = if ident.is_none() && here { Some(this_thread(py)?) } else { ident };
        return Ok(vec![(given, ident)]);
    }
    if let Some(here) = thread::running_loop(py)?
        && !all.iter().any(|(one, _)| one.is(&here))
    {
        all.push((here, Some(this_thread(py)?)));
    }
    Ok(all)
}

fn this_thread(py: Python<'_>) -> PyResult<u64> {
    py.import(intern!(py, "threading"))?.call_method0(intern!(py, "get_ident"))?.extract()
}

/// Looks at the tasks of those loops, at no more than `most` of each if that is said.
pub(crate) fn snapshot<'py>(
    py: Python<'py>,
    given: Option<Bound<'py, PyAny>>,
    most: Option<usize>,
) -> PyResult<Vec<Loop>> {
    let mut found = Vec::new();
    for (event_loop, ident) in loops(py, given)? {
        found.push(look(&event_loop, ident, most.unwrap_or(usize::MAX))?);
    }
    Ok(found)
}

fn look(event_loop: &Bound<'_, PyAny>, ident: Option<u64>, most: usize) -> PyResult<Loop> {
    let py = event_loop.py();
    let module = asyncio(py).tasks.bind(py);
    let mut all: Vec<Bound<'_, PyAny>> =
        module.call_method1(intern!(py, "all_tasks"), (event_loop,))?.try_iter()?.collect::<PyResult<_>>()?;
    accounts::tidy(py, &all);
    let current = thread::current_task(event_loop).unwrap_or_default();
    let known = Known::of(event_loop);
    if all.len() > most {
        // The one that runs, and else the same ones at each look.
        let is_current = |task: &Bound<'_, PyAny>| current.as_ref().is_some_and(|current| current.is(task));
        all.sort_by_key(|task| (!is_current(task), task.as_ptr().addr()));
    }
    let mut tasks: Vec<Task> =
        all.iter().take(most).map(|task| describe(task, &all, current.as_ref(), ident, &known)).collect();
    let mut awaited_by: HashMap<usize, Vec<usize>> = HashMap::new();
    for task in &tasks {
        for &other in task.waits_for.iter().flat_map(|subject| &subject.tasks) {
            awaited_by.entry(other).or_default().push(task.id);
        }
    }
    for task in &mut tasks {
        task.awaited_by = awaited_by.remove(&task.id).unwrap_or_default();
    }
    // The order in which they were made, where the names tell.
    tasks.sort_by(|a, b| natural(&a.name).cmp(&natural(&b.name)));
    let left = all.len() - tasks.len();
    Ok(Loop { id: event_loop.as_ptr().addr(), ident, tasks, left })
}

/// "Task-9" comes before "Task-10".
fn natural(name: &str) -> (&str, u64, &str) {
    let text = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (text, name[text.len()..].parse().unwrap_or(0), name)
}

fn describe<'py>(
    task: &Bound<'py, PyAny>,
    all: &[Bound<'py, PyAny>],
    current: Option<&Bound<'py, PyAny>>,
    ident: Option<u64>,
    known: &Known,
) -> Task {
    let py = task.py();
    let coroutine = task.call_method0(intern!(py, "get_coro")).ok().filter(|coroutine| !coroutine.is_none());
    let mut chain = coroutine.clone().map_or_else(Chain::default, chain::of);
    let is_current = current.is_some_and(|current| current.is(task));
    if is_current && let (Some(coroutine), Some(ident)) = (coroutine, ident) {
        running_stack(&mut chain, &coroutine, ident);
    }
    let waiter = match Tsk::cast_any(task) {
        Some(task) => task.fut_waiter(),
        None => task.getattr_opt(intern!(py, "_fut_waiter")).unwrap_or_default(),
    };
    let is_done = |future: &Bound<'py, PyAny>| {
        future.call_method0(intern!(py, "done")).and_then(|done| done.is_truthy()).unwrap_or(false)
    };
    let waiter = waiter.filter(|waiter| !waiter.is_none() && !is_current && !is_done(waiter));
    let state = match &waiter {
        _ if is_current => "running",
        Some(_) => "waiting",
        None => "ready",
    };
    let add = |object: &Bound<'py, PyAny>, subject: &mut Subject| add_holders(object, all, subject);
    Task {
        id: task.as_ptr().addr(),
        name: text_of(task.call_method0(intern!(py, "get_name")), "?"),
        state,
        cancelling: task.call_method0(intern!(py, "cancelling")).and_then(|n| n.extract()).unwrap_or(0),
        waits_for: waiter.map(|waiter| subject::of(&waiter, &chain, known, &add)),
        timeout: known.timeouts.get(&task.as_ptr().addr()).copied(),
        account: accounts::of(task),
        chain: chain.links,
        awaited_by: Vec::new(),
    }
}

/// The tasks that hold a lock or permits.
fn add_holders<'py>(object: &Bound<'py, PyAny>, all: &[Bound<'py, PyAny>], subject: &mut Subject) {
    let find =
        |wanted: &Identity| all.iter().find(|task| holders::identity(task).as_ref() == Some(wanted)).cloned();
    for claim in holders::claims(object, find).unwrap_or_default() {
        match claim {
            Claim::Task(task) => subject.owners.push(task.as_ptr().addr()),
            Claim::Ended(Some(name)) => subject.gone.push(text_of(Ok(name), "?")),
            Claim::Ended(None) => subject.gone.push("a task".to_owned()),
            Claim::Unknown => subject.gone.push("somebody".to_owned()),
        }
    }
}

/// The running task is where its thread is.
fn running_stack<'py>(chain: &mut Chain<'py>, coroutine: &Bound<'py, PyAny>, ident: u64) {
    let py = coroutine.py();
    let outermost =
        ["cr_frame", "gi_frame"].iter().find_map(|name| coroutine.getattr_opt(*name).ok().flatten());
    let Some(outermost) = outermost.filter(|frame| !frame.is_none()) else { return };
    if let Ok(Some(frame)) = chain::innermost(py, ident) {
        let links = chain::stack(frame, Some(&outermost));
        if !links.is_empty() {
            chain.links = links;
        }
    }
}

/// The snapshot as JSON.
pub(crate) fn write(loops: &[Loop], json: &mut Json) {
    json.array(|json| {
        for one in loops {
            json.object(|json| {
                json.key("id").count(one.id);
                json.key("thread").maybe(one.ident, Json::number);
                json.key("tasks").array(|json| one.tasks.iter().for_each(|task| task.write(json)));
                json.key("left").count(one.left);
            });
        }
    });
}

impl Task {
    fn write(&self, json: &mut Json) {
        json.object(|json| {
            json.key("id").count(self.id);
            json.key("name").string(&self.name);
            json.key("state").string(self.state);
            json.key("cancelling").count(self.cancelling);
            json.key("timeout").maybe(self.timeout, Json::seconds);
            let account = self.account;
            json.key("age").maybe(account.map(|a| clock::monotonic() - a.since), Json::seconds);
            json.key("steps").maybe(account.map(|a| a.steps), Json::number);
            json.key("cpu").maybe(account.map(|a| a.cpu), Json::seconds);
            json.key("chain").array(|json| self.chain.iter().for_each(|link| link.write(json)));
            json.key("waits_for").maybe(self.waits_for.as_ref(), |json, subject| subject.write(json));
            json.key("awaited_by").counts(&self.awaited_by);
        });
    }
}
