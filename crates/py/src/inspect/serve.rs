//! Answering other processes of the same user: a Unix socket that only its owner can open, and a native thread behind
//! it that answers also while the loop is stalled.
//!
//! A client sends one line, "tasks" or "stacks", and gets the picture as one JSON text. Between two clients the thread
//! sleeps in the poller.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aioxide_sys::{Driver, Events, Interest, Waker, thread};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;

use super::picture::{self, Looker, What};
use crate::ffi::cell::GilCell;

/// How long a client may take to ask, and to read.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to leave it when no client can be taken, for want of descriptors.
const A_WHILE: Duration = Duration::from_millis(100);
/// Requests are words.
const LONGEST: usize = 64;

struct Server {
    path: PathBuf,
    waker: Arc<Waker>,
    is_wanted: Arc<AtomicBool>,
}

static SERVER: GilCell<Option<Server>> = GilCell::new(None);

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
    let is_wanted = Arc::new(AtomicBool::new(true));
    let host = Host {
        listener,
        driver,
        is_wanted: Arc::clone(&is_wanted),
        looker: Looker::new(py),
        _waker: Arc::clone(&waker),
    };
    thread::spawn("aioxide-inspect", move || host.run())
        .inspect_err(|_| picture::closed(py))
        .map_err(failed)?;
    SERVER.with(py, |server| *server = Some(Server { path, waker, is_wanted }));
    Ok(())
}

/// `_serve_stop()`: listens no more; the socket's file is removed.
#[pyfunction]
pub(super) fn _serve_stop(py: Python<'_>) {
    let Some(server) = SERVER.with(py, Option::take) else { return };
    let _ = std::fs::remove_file(&server.path);
    server.is_wanted.store(false, Ordering::Release);
    // Nobody waits for the thread: a client may keep it for a while, and it touches Python only through helpers.
    let _ = server.waker.wake();
    picture::closed(py);
}

/// `_serve_forked()`: in a child process there is no such thread, and the socket is the parent's.
#[pyfunction]
pub(super) fn _serve_forked(py: Python<'_>) {
    picture::forked(py);
    std::mem::forget(SERVER.with(py, Option::take));
}

/// The thread's part.
struct Host {
    listener: UnixListener,
    driver: Driver<()>,
    is_wanted: Arc<AtomicBool>,
    looker: Looker,
    /// Kept until the thread has seen it: a descriptor that is closed wakes nobody.
    _waker: Arc<Waker>,
}

impl Host {
    fn run(mut self) {
        let poller = self.driver.poller();
        let mut events = Events::new();
        loop {
            // The one error is an interrupted call: then look again.
            let _ = poller.wait(&mut events, None);
            events.clear();
            if !self.is_wanted.load(Ordering::Acquire) {
                return;
            }
            loop {
                match self.listener.accept() {
                    // Whoever goes away in the middle has no answer to get.
                    Ok((client, _)) => drop(self.answer(client)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => {
                        std::thread::sleep(A_WHILE);
                        break;
                    }
                }
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
            match client.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => request.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {} // by a signal, which is nothing to us
                Err(error) => return Err(error),
            }
        }
        let text = match request.split(|byte| *byte == b'\n').next().unwrap_or_default() {
            b"tasks" => self.looker.picture(What::Tasks),
            b"stacks" => self.looker.picture(What::Stacks),
            _ => "{\"error\":\"unknown request\"}".to_owned(),
        };
        client.write_all(text.as_bytes())
    }
}
