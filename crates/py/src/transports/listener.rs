//! Listening sockets: how a loop starts and stops accepting, and what becomes of each connection.
//!
//! Told by the turn when a socket has connections waiting. A protocol is made in the context of the service, copied anew
//! for each connection, and gets its transport at once. Any object may be the server that the connections are counted
//! by: ours, asyncio's, or none.

use std::os::fd::RawFd;
use std::sync::Arc;

use aioxide_sys::{Interest, Key, Raw, socket, stream};
use pyo3::exceptions::{PyBlockingIOError, PyConnectionAbortedError, PyInterruptedError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::owned::{self, Socket};
use super::{Source, tcp, tls};
use crate::errors::{ends_the_loop, os_error};
use crate::event_loop::EventLoop;
use crate::event_loop::debug::logger;
use crate::event_loop::readers;
use crate::ffi::context;
use crate::ffi::gc::{Stopped, Visit};
use crate::futures::is_debug;

/// How long to leave a listening socket alone when the system is out of descriptors or memory, in seconds.
const RETRY_DELAY: f64 = 1.0;

/// A listening socket, as the driver knows it, and what its connections get.
#[derive(Debug)]
pub(crate) struct Listener {
    sock: Py<PyAny>,
    fd: RawFd,
    /// A plain TCP socket: what it accepts needs no object.
    plain: bool,
    service: Service,
}

/// What is asked of a listening socket.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) protocol_factory: Py<PyAny>,
    pub(crate) tls: Option<tls::Options>,
    /// Whom the connections belong to.
    pub(crate) server: Option<Py<PyAny>>,
    pub(crate) backlog: i32,
    /// Copied for each connection.
    pub(crate) context: Py<PyAny>,
}

impl Listener {
    fn new(sock: &Bound<'_, PyAny>, service: Service) -> PyResult<Self> {
        let py = sock.py();
        let module = py.import("socket")?;
        let number = |name| module.getattr(name)?.extract::<i32>();
        let family: i32 = sock.getattr(intern!(py, "family"))?.extract()?;
        let protocol: i32 = sock.getattr(intern!(py, "proto"))?.extract()?;
        let plain = sock.get_type().is(&module.getattr(intern!(py, "socket"))?)
            && (family == number("AF_INET")? || family == number("AF_INET6")?)
            && (protocol == 0 || protocol == number("IPPROTO_TCP")?);
        Ok(Self { sock: sock.clone().unbind(), fd: readers::number(sock)?, plain, service })
    }

    /// The next connection. In debug mode an object is made at once, to be shown.
    fn accept<'py>(&self, py: Python<'py>, debug: bool) -> PyResult<Socket<'py>> {
        if self.plain && !debug {
            let (descriptor, peer) = socket::accept(Raw(self.fd)).map_err(|error| os_error(&error))?;
            return Ok(Socket::Accepted(descriptor, peer));
        }
        let pair = self.sock.bind(py).call_method0(intern!(py, "accept"))?;
        let (sock, peername): (Bound<'py, PyAny>, Bound<'py, PyAny>) = pair.extract()?;
        sock.call_method1(intern!(py, "setblocking"), (false,))?;
        Ok(Socket::Object(sock, Some(peername)))
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        let Self { sock, service: Service { protocol_factory, tls, server, context, .. }, .. } = self;
        [Some(sock), Some(protocol_factory), Some(context), server.as_ref()]
            .into_iter()
            .try_for_each(|object| visit.call(object))?;
        tls.as_ref().map_or(Ok(()), |tls| tls.traverse(visit))
    }
}

/// `_start_serving`: accepts connections from now on.
pub(crate) fn start(this: &Bound<'_, EventLoop>, sock: &Bound<'_, PyAny>, service: Service) -> PyResult<()> {
    let listener = Listener::new(sock, service)?;
    let fd = listener.fd;
    stop(this, fd);
    let source = Source::Listener(Arc::new(listener));
    this.get().register(this.py(), fd, Interest::READ, source).map(drop)
}

/// Accepts no more on that descriptor; whether it did.
pub(crate) fn stop(this: &Bound<'_, EventLoop>, fd: RawFd) -> bool {
    let Some((key, _)) = find(this, fd) else { return false };
    drop(this.get().forget(this.py(), key));
    true
}

/// The listener of a descriptor.
fn find(this: &Bound<'_, EventLoop>, fd: RawFd) -> Option<(Key, Arc<Listener>)> {
    let (py, event_loop) = (this.py(), this.get());
    let key = event_loop.key_of_fd(py, fd)?;
    match event_loop.source(py, key)? {
        Source::Listener(listener) => Some((key, listener)),
        _ => None,
    }
}

/// `_stop_serving`: accepts no more and closes the socket.
pub(crate) fn end(this: &Bound<'_, EventLoop>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
    stop(this, fileno(sock)?);
    sock.call_method0(intern!(sock.py(), "close")).map(drop)
}

/// The end of a pause, if nothing else has become of the socket meanwhile.
pub(crate) fn resume(this: &Bound<'_, EventLoop>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
    match find(this, fileno(sock)?) {
        Some((key, listener)) if listener.sock.is(sock) => this.get().rearm(this.py(), key, Interest::READ),
        _ => Ok(()),
    }
}

/// The descriptor of a socket, -1 if it is closed.
fn fileno(sock: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    sock.call_method0(intern!(sock.py(), "fileno"))?.extract()
}

/// The listening socket is ready: accepts what waits, at most the backlog.
pub(super) fn on_ready(event_loop: &Bound<'_, EventLoop>, listener: &Arc<Listener>) -> PyResult<()> {
    let py = event_loop.py();
    let Service { server, backlog, .. } = &listener.service;
    for _ in 0..=(*backlog).max(0) {
        let debug = is_debug(event_loop.as_any())?;
        let socket = match listener.accept(py, debug) {
            Ok(socket) => socket,
            Err(error) if error.is_instance_of::<PyConnectionAbortedError>(py) => continue,
            Err(error)
                if error.is_instance_of::<PyBlockingIOError>(py)
                    || error.is_instance_of::<PyInterruptedError>(py) =>
            {
                return Ok(());
            }
            Err(error) if is_out_of_resources(py, &error) => return back_off(event_loop, listener, error),
            Err(error) => return Err(error),
        };
        if let (true, Socket::Object(conn, peername)) = (debug, &socket) {
            let text = "%r got a new connection from %r: %r";
            logger(py)?.call_method1(intern!(py, "debug"), (text, server, peername, conn))?;
        }
        listener.connected(event_loop.as_any(), socket)?;
        let still = find(event_loop, listener.fd).is_some_and(|(_, now)| Arc::ptr_eq(&now, listener));
        if !still || !stream::is_readable(listener.fd).unwrap_or(true) {
            return Ok(()); // closed by a protocol factory; or cheaper to ask than to be told by an exception
        }
    }
    Ok(())
}

fn is_out_of_resources(py: Python<'_>, error: &PyErr) -> bool {
    const KINDS: [&str; 4] = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"];
    let matches = || -> PyResult<bool> {
        let number = error.value(py).getattr(intern!(py, "errno"))?;
        let errno = py.import("errno")?;
        for kind in KINDS {
            if number.eq(errno.getattr(kind)?)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    error.is_instance_of::<PyOSError>(py) && matches().unwrap_or(false)
}

/// The kernel would report the socket as ready again and again: tells the program and waits a while.
fn back_off(event_loop: &Bound<'_, EventLoop>, listener: &Listener, error: PyErr) -> PyResult<()> {
    let py = event_loop.py();
    let sock = listener.sock.bind(py);
    let details = PyDict::new(py);
    details.set_item("message", "socket.accept() out of system resource")?;
    details.set_item("exception", error.into_value(py))?;
    details.set_item("socket", owned::transport_socket(sock)?)?;
    if let Some((key, _)) = find(event_loop, listener.fd) {
        event_loop.get().rearm(py, key, Interest::NONE)?;
    }
    let resume = event_loop.getattr(intern!(py, "_resume_serving"))?;
    event_loop.call_method1(intern!(py, "call_later"), (RETRY_DELAY, resume, sock))?;
    event_loop.call_method1(intern!(py, "call_exception_handler"), (details,)).map(drop)
}

impl Listener {
    /// A new connection: its protocol and its transport, in a context of its own.
    fn connected<'py>(&self, event_loop: &Bound<'py, PyAny>, socket: Socket<'py>) -> PyResult<()> {
        let py = event_loop.py();
        let Service { protocol_factory, tls, server, context, .. } = &self.service;
        let context = context.bind(py).call_method0(intern!(py, "copy"))?;
        let object = match &socket {
            Socket::Object(object, _) => Some(object.clone()),
            Socket::Accepted(..) => None, // closes itself
        };
        let mut protocol = None;
        let made = context::run(&context, || {
            let made = protocol_factory.bind(py).call0()?;
            let parts = tcp::Parts {
                event_loop,
                socket,
                protocol: protocol.insert(made),
                waiter: None,
                server: server.as_ref().map(|server| server.bind(py)),
                context: &context,
            };
            match tls {
                Some(options) => tls::over_socket(parts, options),
                None => tcp::make(parts),
            }
        });
        let Err(error) = made else { return Ok(()) };
        if let Some(object) = object {
            object.call_method0(intern!(py, "close"))?;
        }
        if ends_the_loop(py, &error) || !is_debug(event_loop)? {
            return if ends_the_loop(py, &error) { Err(error) } else { Ok(()) };
        }
        let details = PyDict::new(py);
        details.set_item("message", "Error on transport creation for incoming connection")?;
        details.set_item("exception", error.into_value(py))?;
        if let Some(protocol) = protocol {
            details.set_item("protocol", protocol)?;
        }
        event_loop.call_method1(intern!(py, "call_exception_handler"), (details,)).map(drop)
    }
}
