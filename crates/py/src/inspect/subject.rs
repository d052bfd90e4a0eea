//! What a task waits for: the future it is parked on, and what is behind that: a timer, a lock, a socket, a task …
//!
//! Three sources, from the surest to the vaguest: native coroutines say it; the future or who watches it says it; the
//! names of the coroutines of asyncio's own code say it. So tasks that aren't ours are understood too.

use std::collections::HashMap;
use std::os::fd::RawFd;

use pyo3::intern;
use pyo3::prelude::*;

use super::chain::{Chain, Link, text_of};
use super::json::Json;
use crate::event_loop::EventLoop;
use crate::ffi::class::Inst;
use crate::ffi::layout::Tsk;
use crate::job::Due;
use crate::local::LoopCore;
use crate::shield::Shield;
use crate::timeouts;

/// Futures within futures (a gather of gathers) are followed this deep.
const DEEPEST: usize = 50;

/// What one task waits for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    /// "lock", "timer", "task", …
    pub(crate) kind: String,
    /// The object, by its class and address.
    pub(crate) object: Option<(String, usize)>,
    /// The tasks whose end it waits for.
    pub(crate) tasks: Vec<usize>,
    /// The tasks that hold the lock or the permits.
    pub(crate) owners: Vec<usize>,
    /// Holders that aren't tasks any more, by name.
    pub(crate) gone: Vec<String>,
    /// Seconds until it is over by itself.
    pub(crate) left: Option<f64>,
    pub(crate) fd: Option<RawFd>,
}

impl Subject {
    pub(super) fn write(&self, json: &mut Json) {
        json.object(|json| {
            json.key("kind").string(&self.kind);
            json.key("object").maybe(self.object.as_ref(), |json, (class, id)| {
                json.object(|json| {
                    json.key("class").string(class);
                    json.key("id").count(*id);
                });
            });
            json.key("tasks").counts(&self.tasks);
            json.key("owners").counts(&self.owners);
            json.key("ended_owners").array(|json| self.gone.iter().for_each(|name| json.string(name)));
            json.key("seconds_left").maybe(self.left, Json::seconds);
            json.key("fd").maybe(self.fd, Json::number);
        });
    }

    /// What a waiter of which nothing but the kind is known waits for.
    pub(super) fn plain(kind: &str, waiter: &Bound<'_, PyAny>) -> Self {
        Self { kind: kind.to_owned(), ..Self::default() }.about(waiter)
    }

    /// The word for a report: "lock", "3 tasks".
    fn about(mut self, object: &Bound<'_, PyAny>) -> Self {
        let class = text_of(object.get_type().qualname().map(Bound::into_any), "object");
        self.object = Some((class, object.as_ptr().addr()));
        self
    }
}

/// What a loop knows about its futures.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Deadlines of the futures that a timer completes, in seconds from now.
    timers: HashMap<usize, f64>,
    /// Descriptors, by the futures that wait for them.
    descriptors: HashMap<usize, RawFd>,
    /// How long the tasks have that are under a timeout.
    pub(super) timeouts: HashMap<usize, f64>,
}

impl Known {
    pub(super) fn of(event_loop: &Bound<'_, PyAny>) -> Self {
        let py = event_loop.py();
        let Some(core) = LoopCore::of(event_loop) else { return Self::default() };
        let now = core.now();
        let mut owners = Vec::new();
        let timers = core.scheduler().with(py, |scheduler| {
            let mut timers = HashMap::new();
            for (at, timed) in scheduler.timers().entries() {
                let left = (at - now).max(0.0);
                match timed.due(py) {
                    Due::Complete => drop(timers.insert(timed.object().as_ptr().addr(), left)),
                    Due::Expire { .. } => owners.push((timed.object().clone_ref(py), left)),
                    Due::Handle => {}
                }
            }
            timers
        });
        let mut deadlines: HashMap<usize, f64> = HashMap::new();
        for (owner, left) in owners {
            if let Some(task) = timeouts::task_of(&owner.into_bound(py)) {
                let first = deadlines.entry(task.as_ptr().addr()).or_insert(left);
                *first = first.min(left);
            }
        }
        let descriptors =
            EventLoop::of(event_loop).map_or_else(HashMap::new, |this| this.waiting_futures(py));
        Self { timers, descriptors, timeouts: deadlines }
    }
}

/// What `waiter`, the future a task is parked on, stands for.
pub(super) fn of<'py>(
    waiter: &Bound<'py, PyAny>,
    chain: &Chain<'py>,
    known: &Known,
    holders: &dyn Fn(&Bound<'py, PyAny>, &mut Subject),
) -> Subject {
    let address = waiter.as_ptr().addr();
    let mut subject = Subject::default();
    let mut object = waiter.clone();
    if let Some((kind, native)) = &chain.waits_for {
        subject.kind.clone_from(kind);
        if matches!(kind.as_str(), "group" | "tasks") {
            subject.tasks = native.as_ref().map_or_else(Vec::new, members);
        } else if let Some(native) = native {
            object = native.clone();
        }
    } else if is_task(waiter) {
        subject.kind = String::from("task");
        subject.tasks = vec![address];
    } else if let Some(children) = children(waiter) {
        subject.kind = String::from("gather");
        subject.tasks = members(&children);
    } else if let Some((kind, inner)) = watcher(waiter) {
        subject.kind = kind;
        subject.tasks = inner.map_or_else(Vec::new, |inner| tasks_of(&inner, 0));
    } else if let Some((kind, owner)) = chain.frame.as_ref().zip(chain.links.last()).and_then(by_name) {
        let is_barrier =
            kind == "condition" && chain.links.iter().any(|link| link.function == "Barrier._wait");
        subject.kind = String::from(if is_barrier { "barrier" } else { kind });
        match (kind, owner) {
            ("group", Some(group)) => {
                subject.tasks = group.getattr("_tasks").map_or_else(|_| Vec::new(), |tasks| members(&tasks));
                object = group;
            }
            ("tasks", Some(futures)) => subject.tasks = members(&futures),
            (_, Some(owner)) => object = owner,
            (_, None) => {}
        }
    } else if let Some(kind) = chain.links.iter().rev().find_map(|link| by_function(&link.function)) {
        subject.kind = String::from(kind);
    }
    subject.fd = known.descriptors.get(&address).copied();
    subject.left = known.timers.get(&address).copied();
    if subject.kind.is_empty() {
        subject.kind = String::from(match (subject.fd, subject.left) {
            (Some(_), _) => "socket",
            (None, Some(_)) => "timer",
            (None, None) => "future",
        });
    }
    holders(&object, &mut subject);
    subject.about(&object)
}

fn is_task(object: &Bound<'_, PyAny>) -> bool {
    Tsk::cast_any(object).is_some() || {
        // A task in Python: has a coroutine to step.
        object.hasattr(intern!(object.py(), "get_coro")).unwrap_or(false)
    }
}

/// The children of the future of a `gather`, ours or asyncio's.
fn children<'py>(future: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    future.getattr_opt(intern!(future.py(), "_children")).ok()?.filter(|children| !children.is_none())
}

/// The tasks among some futures, and those behind the others.
fn members(futures: &Bound<'_, PyAny>) -> Vec<usize> {
    let mut found = Vec::new();
    let Ok(all) = futures.try_iter() else { return found };
    for future in all.flatten() {
        found.extend(tasks_of(&future, 0));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The tasks on which a future depends.
fn tasks_of(future: &Bound<'_, PyAny>, depth: usize) -> Vec<usize> {
    if depth > DEEPEST {
        return Vec::new();
    }
    if is_task(future) {
        // One that is done keeps nobody waiting.
        let done = future.call_method0(intern!(future.py(), "done")).and_then(|done| done.is_truthy());
        return if done.unwrap_or(false) { Vec::new() } else { vec![future.as_ptr().addr()] };
    }
    if let Some(children) = children(future)
        && let Ok(children) = children.try_iter()
    {
        return children.flatten().flat_map(|child| tasks_of(&child, depth + 1)).collect();
    }
    match watcher(future) {
        Some((_, Some(inner))) => tasks_of(&inner, depth + 1),
        _ => Vec::new(),
    }
}

/// Who watches the future to pass its cancellation on tells what it stands for.
fn watcher<'py>(future: &Bound<'py, PyAny>) -> Option<(String, Option<Bound<'py, PyAny>>)> {
    let callbacks = future.getattr_opt(intern!(future.py(), "_callbacks")).ok()??;
    for pair in callbacks.try_iter().ok()?.flatten() {
        let Ok(callback) = pair.get_item(0) else { continue };
        if let Some(shield) = Inst::<Shield>::cast(&callback) {
            return Some(("shield".to_owned(), shield.inner(future.py())));
        }
        let name =
            callback.getattr("__qualname__").or_else(|_| callback.get_type().name().map(Bound::into_any));
        match text_of(name, "").as_str() {
            "Courier" | "_chain_future.<locals>._call_check_cancel" => {
                return Some(("thread".to_owned(), None));
            }
            "shield.<locals>._outer_done_callback" => {
                return Some(("shield".to_owned(), free_variable(&callback, "inner").ok()));
            }
            _ => {}
        }
    }
    None
}

/// A variable of the function around a function.
fn free_variable<'py>(function: &Bound<'py, PyAny>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let place = function.getattr("__code__")?.getattr("co_freevars")?.call_method1("index", (name,))?;
    function.getattr("__closure__")?.get_item(place)?.getattr("cell_contents")
}

/// What asyncio's own coroutine waits for, if that is where a task is: the kind, and the object it belongs to.
fn by_name<'py>(at: (&Bound<'py, PyAny>, &Link)) -> Option<(&'static str, Option<Bound<'py, PyAny>>)> {
    let (frame, link) = at;
    if !link.file.contains("/asyncio/") {
        return None;
    }
    let kind = by_function(&link.function)?;
    let variable = match link.function.as_str() {
        "_wait" => "fs",
        _ => "self",
    };
    let variables = frame.getattr(intern!(frame.py(), "f_locals")).ok()?;
    Some((kind, variables.get_item(variable).ok()))
}

/// What the coroutines of asyncio's API wait for, by their names.
fn by_function(name: &str) -> Option<&'static str> {
    let (class, method) = name.split_once('.').unwrap_or(("", name));
    Some(match (class, method) {
        ("", "sleep") => "timer",
        ("", "_wait") => "tasks",
        ("", "to_thread") => "thread",
        ("Lock", "acquire") => "lock",
        ("Event", "wait") => "event",
        ("Condition", "wait") => "condition",
        ("Semaphore" | "BoundedSemaphore", "acquire") => "semaphore",
        ("Barrier", "_block" | "_wait") => "barrier",
        ("Queue", "get" | "put" | "join") => "queue",
        ("TaskGroup", "_aexit" | "__aexit__") => "group",
        ("Process", "wait" | "communicate") | ("BaseSubprocessTransport", "_wait") => "subprocess",
        ("Server", _) => "server",
        ("StreamReader" | "StreamWriter" | "FlowControlMixin" | "StreamReaderProtocol", _) => "stream",
        (
            "EventLoop"
            | "BaseSelectorEventLoop"
            | "BaseEventLoop"
            | "UnixSelectorEventLoop"
            | "_UnixSelectorEventLoop",
            m,
        ) => {
            if m.starts_with("sock_") || m.starts_with("_sock_") {
                "socket"
            } else if m.starts_with("create_") || m.starts_with("connect_") || m.starts_with("subprocess_") {
                "connection"
            } else if m.starts_with("getaddrinfo")
                || m.starts_with("getnameinfo")
                || m.starts_with("shutdown_default")
            {
                "thread"
            } else {
                return None;
            }
        }
        _ => return None,
    })
}
