//! Answering other processes of the same user: a Unix socket that only its owner can open, and a native thread behind
//! it that answers also while the loop is stalled.
//!
//! A client sends one line, "tasks" or "stacks", and gets one JSON text. The picture is taken by a helper thread with
//! the GIL; where that can't be had in time the answer says so and what is known without it. A task that asks for
//! nothing pays nothing: between two clients the thread sleeps in the poller.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use aioxide_sys::{Driver, Events, Interest, Waker, clock};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::json::Json;
use super::{chain, measures, running, tasks, watchdog};
use crate::event_loop::EventLoop;
use crate::ffi::cell::GilCell;
use crate::pulse::Pulse;

/// How long a client may take to ask, and to read.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for the GIL before an answer without it.
const FOR_THE_GIL: Duration = Duration::from_secs(1);
/// Requests are words.
const LONGEST: usize = 64;

struct Server {
    path: PathBuf,
    waker: Arc<Waker>,
    loops: Sender<Arc<Pulse>>,
}

static SERVER: GilCell<Option<Server>> = GilCell::new(None);

/// A loop starts to run: the server knows it also without the GIL.
pub(super) fn follow(event_loop: &Bound<'_, EventLoop>) {
    let pulse = Arc::clone(EventLoop::core(event_loop).pulse());
    SERVER.with(event_loop.py(), |server| {
        if let Some(server) = server {
            let _ = server.loops.send(pulse); // the thread has ended: nobody to tell
        }
    });
}

/// `_serve_start(path)`: listens there; the directory is the caller's business.
#[pyfunction]
pub(super) fn _serve_start(py: Python<'_>, path: PathBuf) -> PyResult<()> {
    if SERVER.with(py, |server| server.is_some()) {
        return Err(PyRuntimeError::new_err("this process can be inspected already"));
    }
    let failed = |error: std::io::Error| PyOSError::new_err((error.raw_os_error(), error.to_string()));
    let listener = UnixListener::bind(&path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let waker = Arc::new(Waker::new().map_err(failed)?);
    let mut driver = Driver::new().map_err(failed)?;
    driver.register(listener.as_raw_fd(), Interest::READ, ()).map_err(failed)?;
    driver.register(waker.as_raw_fd(), Interest::READ, ()).map_err(failed)?;
    let (loops, news) = channel();
    let host = Host { listener, driver, news, pulses: Vec::new(), helper: None };
    std::thread::Builder::new()
        .name("aioxide-inspect".to_owned())
        .spawn(move || host.run())
        .map_err(failed)?;
    SERVER.with(py, |server| *server = Some(Server { path, waker, loops }));
    for (event_loop, _) in running::all(py) {
        follow(&event_loop);
    }
    Ok(())
}

/// `_serve_stop()`: listens no more; the socket's file is removed.
#[pyfunction]
pub(super) fn _serve_stop(py: Python<'_>) {
    let Some(server) = SERVER.with(py, Option::take) else { return };
    let _ = std::fs::remove_file(&server.path);
    drop(server.loops); // tells the thread that it is over
    // Nobody waits for the thread: a client may keep it for a while, and it touches Python only through helpers.
    let _ = server.waker.wake();
}

/// `_serve_forked()`: in a child process there is no such thread, and the socket is the parent's.
#[pyfunction]
pub(super) fn _serve_forked(py: Python<'_>) {
    std::mem::forget(SERVER.with(py, Option::take));
}

/// The thread's part.
struct Host {
    listener: UnixListener,
    driver: Driver<()>,
    news: Receiver<Arc<Pulse>>,
    pulses: Vec<Arc<Pulse>>,
    /// A helper that still waits for the GIL, and where its answer comes.
    helper: Option<Receiver<Option<String>>>,
}

impl Host {
    fn run(mut self) {
        let poller = self.driver.poller();
        let mut events = Events::new();
        loop {
            // The one error is an interrupted call: then look again.
            let _ = poller.wait(&mut events, None);
            events.clear();
            loop {
                match self.news.try_recv() {
                    Ok(pulse) => self.pulses.push(pulse),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
            self.pulses.retain(|pulse| pulse.ident() != 0);
            while let Ok((client, _)) = self.listener.accept() {
                // Whoever goes away in the middle has no answer to get.
                let _ = self.answer(client);
            }
        }
    }

    fn answer(&mut self, mut client: UnixStream) -> std::io::Result<()> {
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.set_write_timeout(Some(PATIENCE))?;
        let mut request = Vec::new();
        let mut buffer = [0; LONGEST];
        while !request.contains(&b'\n') && request.len() < LONGEST {
            match client.read(&mut buffer)? {
                0 => return Ok(()),
                n => request.extend_from_slice(&buffer[..n]),
            }
        }
        let text = match request.split(|byte| *byte == b'\n').next().unwrap_or_default() {
            b"tasks" => self.picture(false),
            b"stacks" => self.picture(true),
            _ => "{\"error\":\"unknown request\"}".to_owned(),
        };
        client.write_all(text.as_bytes())
    }

    /// What there is to see, if the GIL can be had in time.
    fn picture(&mut self, of_stacks: bool) -> String {
        if self.helper.as_ref().is_some_and(|late| late.try_recv().is_ok()) {
            self.helper = None;
        }
        let pending = self.helper.take().map_or_else(|| help(of_stacks), Ok);
        let Ok(answers) = pending else { return self.without_gil("no thread to look") };
        match answers.recv_timeout(FOR_THE_GIL) {
            Ok(Some(text)) => text,
            Ok(None) => self.without_gil("the interpreter is shutting down"),
            Err(_) => {
                self.helper = Some(answers);
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
                for pulse in &self.pulses {
                    json.object(|json| {
                        json.key("thread").number(pulse.ident());
                        json.key("turns").number(pulse.turns());
                        json.key("busy").raw(if pulse.busy_turn().is_some() { "true" } else { "false" });
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
fn help(of_stacks: bool) -> std::io::Result<Receiver<Option<String>>> {
    let (answer, answers) = channel();
    std::thread::Builder::new().name("aioxide-look".to_owned()).spawn(move || {
        let text = Python::try_attach(|py| look(py, of_stacks));
        let _ = answer.send(text); // nobody waits any more: so be it
    })?;
    Ok(answers)
}

fn look(py: Python<'_>, of_stacks: bool) -> String {
    let mut json = Json::new();
    json.object(|json| {
        head(json);
        match tasks::snapshot(py, None) {
            Ok(loops) => {
                json.key("loops");
                tasks::write(&loops, json);
            }
            Err(error) => json.key("error").string(&error.to_string()),
        }
        json.key("metrics").array(|json| {
            for (event_loop, _) in running::all(py) {
                measures::write(&event_loop, json);
            }
        });
        json.key("stalls").raw(&watchdog::stalls());
        if of_stacks {
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

fn thread_names(py: Python<'_>) -> PyResult<Vec<(u64, String)>> {
    let mut names = Vec::new();
    for thread in py.import("threading")?.call_method0("enumerate")?.try_iter()? {
        let thread = thread?;
        let Some(ident) = thread.getattr("ident")?.extract()? else { continue };
        names.push((ident, chain::text_of(thread.getattr("name"), "?")));
    }
    Ok(names)
}
