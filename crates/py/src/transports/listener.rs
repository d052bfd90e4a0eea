//! Listening sockets: how a server starts and stops accepting, and what becomes of each connection.
//!
//! Told by the turn when a socket has connections waiting. A protocol is made in the server's context, copied anew for
//! each connection, and gets its transport at once.

use std::os::fd::RawFd;
use std::sync::Arc;

use aioxide_sys::{Interest, Key, Raw, socket, stream};
use pyo3::exceptions::{PyBlockingIOError, PyConnectionAbortedError, PyInterruptedError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::owned::{self, Socket};
use super::server::This;
use super::{Source, tcp, tls};
use crate::errors::{ends_the_loop, os_error};
use crate::event_loop::EventLoop;
use crate::event_loop::debug::logger;
use crate::ffi::context;
use crate::ffi::gc::{Stopped, Visit};
use crate::futures::is_debug;

/// How long to leave a listening socket alone when the system is out of descriptors or memory, in seconds.
const RETRY_DELAY: f64 = 1.0;

/// A listening socket of a server, as the driver knows it.
#[derive(Debug)]
pub(crate) struct Listener {
    server: Py<PyAny>,
    sock: Py<PyAny>,
    fd: RawFd,
    /// A plain TCP socket: what it accepts needs no object.
    plain: bool,
}

impl Listener {
    fn new(server: Py<PyAny>, sock: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = sock.py();
        let module = py.import("socket")?;
        let number = |name| module.getattr(name)?.extract::<i32>();
        let family: i32 = sock.getattr(intern!(py, "family"))?.extract()?;
        let protocol: i32 = sock.getattr(intern!(py, "proto"))?.extract()?;
        let plain = sock.get_type().is(&module.getattr(intern!(py, "socket"))?)
            && (family == number("AF_INET")? || family == number("AF_INET6")?)
            && (protocol == 0 || protocol == number("IPPROTO_TCP")?);
        Ok(Self { server, sock: sock.clone().unbind(), fd: fileno(sock)?, plain })
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
        visit.call(Some(&self.server))?;
        visit.call(Some(&self.sock))
    }
}

fn fileno(sock: &Bound<'_, PyAny>) -> PyResult<i32> {
    sock.call_method0(intern!(sock.py(), "fileno"))?.extract()
}

/// Starts accepting; also the end of a pause (`_resume`), when the server may have been closed meanwhile.
pub(super) fn listen<'py>(this: This<'_, 'py>, sock: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    let (Some(event_loop), Some(sockets)) = (this.event_loop.get(py), this.sockets.get(py)) else {
        return Ok(());
    };
    let Some(event_loop) = EventLoop::of(&event_loop) else { return Ok(()) };
    if !sockets.contains(sock)? {
        return Ok(());
    }
    let fd = fileno(sock)?;
    if let Some(stale) = event_loop.key_of_fd(py, fd) {
        drop(event_loop.forget(py, stale));
    }
    let listener = Listener::new(this.to_owned().unbind(), sock)?;
    event_loop.register(py, fd, Interest::READ, Source::Listener(Arc::new(listener))).map(drop)
}

/// Stops accepting.
pub(super) fn unlisten(event_loop: &Bound<'_, PyAny>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = sock.py();
    let Some(event_loop) = EventLoop::of(event_loop) else { return Ok(()) };
    let is_ours =
        |key: &Key| matches!(event_loop.source(py, *key), Some(Source::Listener(l)) if l.sock.is(sock));
    if let Some(key) = event_loop.key_of_fd(py, fileno(sock)?).filter(is_ours) {
        drop(event_loop.forget(py, key));
    }
    Ok(())
}

/// The listening socket is ready: accepts what waits, at most the backlog.
pub(super) fn on_ready(event_loop: &Bound<'_, EventLoop>, listener: &Listener) -> PyResult<()> {
    let py = event_loop.py();
    let (server, sock) = (listener.server.bind(py), listener.sock.bind(py));
    let Some(this) = This::cast_exact(server) else { return Ok(()) };
    for _ in 0..=this.backlog.max(0) {
        if !this.serving.get() {
            return Ok(()); // closed by a protocol factory
        }
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
            Err(error) if is_out_of_resources(py, &error) => {
                return back_off(this, event_loop.as_any(), sock, error);
            }
            Err(error) => return Err(error),
        };
        if let (true, Socket::Object(conn, peername)) = (debug, &socket) {
            let text = "%r got a new connection from %r: %r";
            logger(py)?.call_method1(intern!(py, "debug"), (text, server, peername, conn))?;
        }
        connected(this, event_loop.as_any(), socket)?;
        if !stream::is_readable(listener.fd).unwrap_or(true) {
            return Ok(()); // cheaper to ask than to be told by an exception
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
fn back_off<'py>(
    this: This<'_, 'py>,
    event_loop: &Bound<'py, PyAny>,
    sock: &Bound<'py, PyAny>,
    error: PyErr,
) -> PyResult<()> {
    let py = this.py();
    let details = PyDict::new(py);
    details.set_item("message", "socket.accept() out of system resource")?;
    details.set_item("exception", error.into_value(py))?;
    details.set_item("socket", owned::transport_socket(sock)?)?;
    unlisten(event_loop, sock)?;
    let resume = this.object().getattr(intern!(py, "_resume"))?;
    event_loop.call_method1(intern!(py, "call_later"), (RETRY_DELAY, resume, sock))?;
    event_loop.call_method1(intern!(py, "call_exception_handler"), (details,)).map(drop)
}

/// A new connection: its protocol and its transport, in a context of its own.
fn connected<'py>(this: This<'_, 'py>, event_loop: &Bound<'py, PyAny>, socket: Socket<'py>) -> PyResult<()> {
    let py = this.py();
    let (Some(factory), Some(context)) = (this.protocol_factory.get(py), this.context.get(py)) else {
        return Ok(());
    };
    let context = context.call_method0(intern!(py, "copy"))?;
    let server = this.to_owned();
    let object = match &socket {
        Socket::Object(object, _) => Some(object.clone()),
        Socket::Accepted(..) => None, // closes itself
    };
    let mut protocol = None;
    let made = context::run(&context, || {
        let made = factory.call0()?;
        let parts = tcp::Parts {
            event_loop,
            socket,
            protocol: protocol.insert(made),
            waiter: None,
            server: Some(&server),
            context: &context,
        };
        match this.tls(py) {
            Some(options) => tls::over_socket(parts, &options),
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
