//! The page in the browser: HTTP on the loopback interface, for whoever knows the token, by native threads that answer
//! also while the loop is stalled.
//!
//! Whoever else can reach the port (another user of the machine, a page of another site in the same browser) has no
//! token, and gets nothing. The name of the host is looked at too, so that no other site can give its own name this
//! address. http.rs reads and writes HTTP; what is told is picture.rs's business, and what it looks like the page's.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aioxide_sys::{Driver, Events, Interest, Waker, clock, thread};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;

use super::http::{Answer, LONGEST, Request};
use super::picture::{self, Looker, What};
use crate::ffi::cell::GilCell;

/// How long a browser may take to ask, and to read. Browsers open connections that they may use later.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to leave it when no connection can be taken, for want of descriptors.
const A_WHILE: Duration = Duration::from_millis(100);
/// So many are answered at a time.
const MOST: usize = 32;

static WEB: GilCell<Option<Arc<Site>>> = GilCell::new(None);

/// What all threads know.
struct Site {
    /// Taken out at the end: nobody else closes it, in a child process least of all.
    listener: Mutex<Option<TcpListener>>,
    /// Kept until the thread has seen it: a descriptor that is closed wakes nobody.
    waker: Waker,
    port: u16,
    token: String,
    page: String,
    policy: String,
    looker: Mutex<Looker>,
    is_wanted: AtomicBool,
    busy: AtomicUsize,
}

/// `_web_start(port, token, page, policy)`: serves the page; returns the port, chosen by the system if it is 0.
#[pyfunction]
pub(super) fn _web_start(
    py: Python<'_>,
    port: u16,
    token: String,
    page: String,
    policy: String,
) -> PyResult<u16> {
    if WEB.with(py, |web| web.is_some()) {
        return Err(PyRuntimeError::new_err("the page is served already"));
    }
    let failed = |error: std::io::Error| PyOSError::new_err((error.raw_os_error(), error.to_string()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let waker = Waker::new().map_err(failed)?;
    let mut driver = Driver::new().map_err(failed)?;
    driver.register(listener.as_raw_fd(), Interest::READ, ()).map_err(failed)?;
    driver.register(waker.as_raw_fd(), Interest::READ, ()).map_err(failed)?;
    let site = Arc::new(Site {
        listener: Mutex::new(Some(listener)),
        waker,
        port,
        token,
        page,
        policy,
        looker: Mutex::new(Looker::new(py)),
        is_wanted: AtomicBool::new(true),
        busy: AtomicUsize::new(0),
    });
    let shared = Arc::clone(&site);
    let spawned = thread::spawn("aioxide-web", move || accept(&shared, &driver));
    spawned.inspect_err(|_| picture::closed(py)).map_err(failed)?;
    WEB.with(py, |web| *web = Some(site));
    Ok(port)
}

/// `_web_stop()`: serves no more.
#[pyfunction]
pub(super) fn _web_stop(py: Python<'_>) {
    let Some(web) = WEB.with(py, Option::take) else { return };
    web.is_wanted.store(false, Ordering::Release);
    drop(web.listener.lock().unwrap_or_else(PoisonError::into_inner).take());
    // Nobody waits for the threads: they touch Python only through helpers.
    let _ = web.waker.wake();
    picture::closed(py);
}

/// `_web_forked()`: in a child process there are no such threads, and it does not keep the parent's port.
#[pyfunction]
pub(super) fn _web_forked(py: Python<'_>) {
    let Some(web) = WEB.with(py, Option::take) else { return };
    picture::forked(py);
    // Locked only if the thread accepted just when the process forked; then the descriptor stays.
    if let Ok(mut listener) = web.listener.try_lock() {
        drop(listener.take());
    }
    std::mem::forget(web);
}

/// The thread that takes connections; each is answered by one of its own, for browsers open some in advance.
fn accept(site: &Arc<Site>, driver: &Driver<()>) {
    let poller = driver.poller();
    let mut events = Events::new();
    while site.is_wanted.load(Ordering::Acquire) {
        // The one error is an interrupted call: then look again.
        let _ = poller.wait(&mut events, None);
        events.clear();
        while let Some(client) = site.next_client() {
            if site.busy.fetch_add(1, Ordering::Relaxed) < MOST {
                let shared = Arc::clone(site);
                let spawned = thread::spawn("aioxide-page", move || {
                    // Whoever goes away in the middle has no answer to get.
                    let _ = shared.serve(client);
                    shared.busy.fetch_sub(1, Ordering::Relaxed);
                });
                if spawned.is_ok() {
                    continue;
                }
            }
            site.busy.fetch_sub(1, Ordering::Relaxed); // and the connection is closed
        }
    }
}

impl Site {
    fn next_client(&self) -> Option<TcpStream> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let accepted = listener.as_ref()?.accept();
        drop(listener);
        if accepted.as_ref().is_err_and(|error| error.kind() != ErrorKind::WouldBlock) {
            std::thread::sleep(A_WHILE);
        }
        accepted.ok().map(|(client, _)| client)
    }

    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        client.set_nonblocking(false)?;
        client.set_write_timeout(Some(PATIENCE))?;
        let end = clock::monotonic() + PATIENCE.as_secs_f64();
        let mut head = Vec::new();
        let mut buffer = [0; 2048];
        let length = loop {
            if let Some(length) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                break length;
            }
            let left = Duration::try_from_secs_f64(end - clock::monotonic()).unwrap_or_default();
            if head.len() > LONGEST || left.is_zero() {
                return Ok(());
            }
            client.set_read_timeout(Some(left))?;
            match client.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => head.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {} // by a signal, which is nothing to us
                Err(error) => return Err(error),
            }
        };
        let text = self.answer(&head[..length]);
        client.write_all(text.as_bytes())
    }

    fn answer(&self, head: &[u8]) -> String {
        let policy = &self.policy;
        let Some(request) = Request::parse(head) else {
            return Answer::plain("400 Bad Request", "this is not understood\n").into_text(policy);
        };
        let hosts = [format!("127.0.0.1:{}", self.port), format!("localhost:{}", self.port)];
        if !hosts.iter().any(|host| host.eq_ignore_ascii_case(request.host)) {
            return Answer::plain("403 Forbidden", "no host by that name\n").into_text(policy);
        }
        if !request.has_token(&self.token) {
            let content = "open the address that the program has printed: its token is missing or wrong\n";
            return Answer::plain("403 Forbidden", content).into_text(policy);
        }
        if request.method != "GET" {
            return Answer::plain("405 Method Not Allowed", "only GET\n").into_text(policy);
        }
        let what = match request.path {
            "/" => {
                let page = Answer { status: "200 OK", content_type: "text/html", content: &self.page };
                return page.into_text(policy);
            }
            "/figures" => What::Figures,
            "/tasks" => What::SomeTasks,
            "/stacks" => What::Threads,
            _ => return Answer::plain("404 Not Found", "no such page\n").into_text(policy),
        };
        let picture = self.looker.lock().unwrap_or_else(PoisonError::into_inner).picture(what);
        Answer { status: "200 OK", content_type: "application/json", content: &picture }.into_text(policy)
    }
}
