//! The picture for those who look from outside: what a native thread tells of this process, also while a loop is
//! stalled.
//!
//! A helper thread takes it with the GIL; where that can't be had in time the answer says so, and what is known without
//! it. serve.rs and web.rs ask, each from a thread of its own; nobody who doesn't ask pays. No helper is left when the
//! last of them has stopped: an interpreter that ends ends threads that wait for its lock, and with them the process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aioxide_sys::{clock, thread};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::json::Json;
use super::{chain, measures, running, tasks, watchdog};
use crate::event_loop::EventLoop;
use crate::ffi::cell::GilCell;
use crate::pulse::Pulse;

/// So many tasks of a loop are looked at in a hundredth of a second or two, in which the program stands still.
const SOME: usize = 1000;
/// How long to wait for the GIL before an answer without it.
const FOR_THE_GIL: Duration = Duration::from_secs(1);

/// What somebody wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Every task, with figures in short.
    Tasks,
    /// The same, and the Python stack of each thread.
    Stacks,
    /// As many tasks as can be looked at again and again.
    SomeTasks,
    /// The Python stack of each thread alone.
    Threads,
    /// Figures alone, but whole.
    Figures,
}

/// How many servers there are, and how many helpers.
static SERVERS: AtomicUsize = AtomicUsize::new(0);
static HELPERS: AtomicUsize = AtomicUsize::new(0);
/// How long to wait for helpers at the end: longer only if one of them is stuck.
const FOR_HELPERS: f64 = 5.0;

type Pulses = Arc<Mutex<Vec<Arc<Pulse>>>>;

/// The loops that run, known also without the GIL; there is a list once somebody wants to look.
static PULSES: GilCell<Option<Pulses>> = GilCell::new(None);

fn lock(pulses: &Pulses) -> MutexGuard<'_, Vec<Arc<Pulse>>> {
    pulses.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A loop starts to run.
pub(super) fn follow(event_loop: &Bound<'_, EventLoop>) {
    let Some(pulses) = PULSES.with(event_loop.py(), |pulses| pulses.clone()) else { return };
    let pulse = EventLoop::core(event_loop).pulse();
    let mut list = lock(&pulses);
    // Those that have stopped go here, so that the list is never longer than that of the loops that run.
    list.retain(|known| known.ident() != 0 && !Arc::ptr_eq(known, pulse));
    list.push(Arc::clone(pulse));
}

/// In a child process nobody looks, and whoever had locked the list is gone.
pub(super) fn forked(py: Python<'_>) {
    std::mem::forget(PULSES.with(py, Option::take));
    SERVERS.store(0, Ordering::SeqCst);
    HELPERS.store(0, Ordering::SeqCst);
}

/// A server has stopped. After the last one no helper looks any more.
pub(super) fn closed(py: Python<'_>) {
    if SERVERS.fetch_sub(1, Ordering::SeqCst) > 1 {
        return;
    }
    py.detach(|| {
        let end = clock::monotonic() + FOR_HELPERS;
        while HELPERS.load(Ordering::SeqCst) > 0 && clock::monotonic() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// A helper, counted.
struct Helper;

impl Helper {
    /// None if nobody is left who might want it.
    fn new() -> Option<Self> {
        HELPERS.fetch_add(1, Ordering::SeqCst);
        let helper = Self;
        (SERVERS.load(Ordering::SeqCst) > 0).then_some(helper)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        HELPERS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Takes pictures for one server.
#[derive(Debug)]
pub(super) struct Looker {
    pulses: Pulses,
    /// Helpers that still wait for the GIL, and where their answers come.
    late: Vec<(What, Receiver<Option<String>>)>,
}

impl Looker {
    pub(super) fn new(py: Python<'_>) -> Self {
        SERVERS.fetch_add(1, Ordering::SeqCst);
        let pulses = PULSES.with(py, |pulses| Arc::clone(pulses.get_or_insert_default()));
        for (event_loop, _) in running::all(py) {
            follow(&event_loop);
        }
        Self { pulses, late: Vec::new() }
    }

    /// What there is to see, if the GIL can be had in time.
    pub(super) fn picture(&mut self, what: What) -> String {
        self.late.retain(|(_, answers)| answers.try_recv().is_err()); // too old by now
        let waiting = self.late.iter().position(|(wanted, _)| *wanted == what);
        let pending = waiting.map_or_else(|| help(what), |place| Ok(self.late.swap_remove(place).1));
        let Ok(answers) = pending else { return self.without_gil("no thread to look") };
        match answers.recv_timeout(FOR_THE_GIL) {
            Ok(Some(text)) => text,
            Ok(None) => self.without_gil("the interpreter is shutting down"),
            Err(_) => {
                self.late.push((what, answers));
                self.without_gil("native code keeps the interpreter's lock")
            }
        }
    }

    fn without_gil(&self, why: &str) -> String {
        let mut json = Json::new();
        json.object(|json| {
            head(json);
            json.key("unavailable").string(why);
            json.key("pulses").array(|json| {
                for pulse in lock(&self.pulses).iter().filter(|pulse| pulse.ident() != 0) {
                    json.object(|json| {
                        json.key("thread").number(pulse.ident());
                        json.key("turns").number(pulse.turns());
                        json.key("busy").raw(if pulse.is_busy() { "true" } else { "false" });
                    });
                }
            });
            json.key("stalls").raw(&watchdog::stalls());
        });
        json.into_text()
    }
}

fn head(json: &mut Json) {
    json.key("pid").number(std::process::id());
    json.key("aioxide").string(env!("CARGO_PKG_VERSION"));
    json.key("time").seconds(clock::monotonic());
}

/// Takes the picture in another thread, which waits for the GIL as long as it takes.
fn help(what: What) -> std::io::Result<Receiver<Option<String>>> {
    let (answer, answers) = channel();
    let helper = Helper::new().ok_or(std::io::ErrorKind::NotConnected)?;
    thread::spawn("aioxide-look", move || {
        let _counted = helper;
        let text = Python::try_attach(|py| look(py, what));
        let _ = answer.send(text); // nobody waits any more: so be it
    })?;
    Ok(answers)
}

fn look(py: Python<'_>, what: What) -> String {
    let mut json = Json::new();
    json.object(|json| {
        head(json);
        let most = (what == What::SomeTasks).then_some(SOME);
        if !matches!(what, What::Figures | What::Threads) {
            match tasks::snapshot(py, None, most) {
                Ok(loops) => {
                    json.key("loops");
                    tasks::write(&loops, json);
                }
                Err(error) => json.key("error").string(&error.to_string()),
            }
        }
        json.key("metrics").array(|json| {
            for (event_loop, ident) in running::all(py) {
                match what {
                    What::Figures => measures::write_whole(&event_loop, ident, json),
                    _ => measures::write(&event_loop, json),
                }
            }
        });
        json.key("stalls").raw(&watchdog::stalls());
        if matches!(what, What::Stacks | What::Threads) {
            json.key("stacks");
            stacks(py, json);
        }
    });
    json.into_text()
}

/// The Python stack of each thread.
fn stacks(py: Python<'_>, json: &mut Json) {
    let frames = py
        .import(intern!(py, "sys"))
        .and_then(|sys| sys.call_method0(intern!(py, "_current_frames")))
        .and_then(|frames| Ok(frames.cast_into::<PyDict>()?));
    let names = thread_names(py).unwrap_or_default();
    json.array(|json| {
        let Ok(frames) = frames else { return };
        for (ident, frame) in frames {
            let ident: u64 = ident.extract().unwrap_or(0);
            let Some((_, name)) = names.iter().find(|(known, _)| *known == ident) else { continue };
            json.object(|json| {
                json.key("thread").number(ident);
                json.key("name").string(name);
                json.key("stack")
                    .array(|json| chain::stack(frame, None).iter().for_each(|link| link.write(json)));
            });
        }
    });
}

pub(super) fn thread_names(py: Python<'_>) -> PyResult<Vec<(u64, String)>> {
    let mut names = Vec::new();
    for thread in py.import("threading")?.call_method0("enumerate")?.try_iter()? {
        let thread = thread?;
        let Some(ident) = thread.getattr("ident")?.extract()? else { continue };
        names.push((ident, chain::text_of(thread.getattr("name"), "?")));
    }
    Ok(names)
}
