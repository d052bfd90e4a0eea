//! Listening sockets: how a loop starts and stops accepting, and what becomes of each connection.
//!
//! Told by the turn when a socket has connections waiting. A protocol is made in the context of the service, copied anew
//! for each connection, and gets its transport at once. Any object may be the server that the connections are counted
//! by: ours, asyncio's, or none.

use std::os::fd::RawFd;
use std::sync::Arc;

use aioxide_sys::{Raw, socket, stream};
use pyo3::exceptions::{
    PyBlockingIOError, PyConnectionAbortedError, PyInterruptedError, PyOSError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict, PyTuple};

use super::owned::{self, Socket};
use super::{Source, tcp, tls};
use crate::errors::{ends_the_loop, os_error};
use crate::event_loop::EventLoop;
use crate::event_loop::debug::logger;
use crate::event_loop::readers::{self, Direction};
use crate::ffi::context;
use crate::ffi::gc::{Stopped, Visit};
use crate::futures::is_debug;
use crate::names::none;

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
    pub(crate) backlog: i64,
    /// Copied for each connection.
    pub(crate) context: Py<PyAny>,
}

impl Listener {
    fn new(sock: &Bound<'_, PyAny>, service: Service) -> PyResult<Self> {
        let py = sock.py();
        let module = py.import("socket")?;
        let number = |name| module.getattr(name)?.extract::<i32>();
        let plain = sock.get_type().is(&module.getattr(intern!(py, "socket"))?) && {
            let family: i32 = sock.getattr(intern!(py, "family"))?.extract()?;
            let protocol: i32 = sock.getattr(intern!(py, "proto"))?.extract()?;
            (family == number("AF_INET")? || family == number("AF_INET6")?)
                && (protocol == 0 || protocol == number("IPPROTO_TCP")?)
        };
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

    pub(crate) const fn fd(&self) -> RawFd {
        self.fd
    }

    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        let Self { sock, service: Service { protocol_factory, tls, server, context, .. }, .. } = self;
        [Some(sock), Some(protocol_factory), Some(context), server.as_ref()]
            .into_iter()
            .try_for_each(|object| visit.call(object))?;
        tls.as_ref().map_or(Ok(()), |tls| tls.traverse(visit))
    }
}

/// `_start_serving`: accepts connections from now on.
pub(crate) fn start(this: &Bound<'_, EventLoop>, sock: &Bound<'_, PyAny>, service: Service) -> PyResult<()> {
    readers::listen(this, sock, &Arc::new(Listener::new(sock, service)?))
}

/// `_stop_serving`: nobody hears of connections any more, and the socket is closed.
pub(crate) fn end(this: &Bound<'_, EventLoop>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
    match readers::remove_unchecked(this, Direction::Read, sock) {
        Err(error) if !error.is_instance_of::<PyValueError>(sock.py()) => return Err(error),
        _ => {} // ValueError: it is closed already
    }
    sock.call_method0(intern!(sock.py(), "close")).map(drop)
}

/// The end of a pause: `_start_serving` with the same arguments, unless the socket has been closed.
pub(crate) fn resume(this: &Bound<'_, EventLoop>, args: &Bound<'_, PyTuple>) -> PyResult<()> {
    let py = this.py();
    if args.get_item(1)?.call_method0(intern!(py, "fileno"))?.extract::<RawFd>()? < 0 {
        return Ok(());
    }
    this.call_method1(intern!(py, "_start_serving"), args).map(drop)
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
        if !is_listening(event_loop, listener) || !stream::is_readable(listener.fd).unwrap_or(true) {
            return Ok(()); // closed by a protocol factory; or cheaper to ask than to be told by an exception
        }
    }
    Ok(())
}

/// Whether nobody has stopped it.
fn is_listening(this: &Bound<'_, EventLoop>, listener: &Arc<Listener>) -> bool {
    let (py, event_loop) = (this.py(), this.get());
    match event_loop.key_of_fd(py, listener.fd).and_then(|key| event_loop.source(py, key)) {
        Some(Source::Watch(watch)) => watch.listener().is_some_and(|now| Arc::ptr_eq(now, listener)),
        _ => false,
    }
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
fn back_off(event_loop: &Bound<'_, EventLoop>, listener: &Arc<Listener>, error: PyErr) -> PyResult<()> {
    let py = event_loop.py();
    let (sock, service) = (listener.sock.bind(py), &listener.service);
    let details = PyDict::new(py);
    details.set_item("message", "socket.accept() out of system resource")?;
    details.set_item("exception", error.into_value(py))?;
    details.set_item("socket", owned::transport_socket(sock)?)?;
    readers::unlisten(event_loop, listener);
    let resume = event_loop.getattr(intern!(py, "_resume_serving"))?;
    let (ssl, handshake_timeout, shutdown_timeout) = match &service.tls {
        Some(tls) => (tls.asked(py), &tls.handshake_timeout, &tls.shutdown_timeout),
        None => (none(py), &None, &None),
    };
    let (factory, server, backlog) = (&service.protocol_factory, &service.server, service.backlog);
    let again = (factory, sock, ssl, server, backlog, handshake_timeout, shutdown_timeout);
    let args = (RETRY_DELAY, resume).into_pyobject(py)?.add(again.into_pyobject(py)?)?;
    let keywords = [(intern!(py, "context"), &service.context)].into_py_dict(py)?;
    event_loop.call_method(intern!(py, "call_later"), args.cast::<PyTuple>()?, Some(&keywords))?;
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
        let closed = object.map_or(Ok(()), |object| object.call_method0(intern!(py, "close")).map(drop));
        if ends_the_loop(py, &error) {
            return Err(error);
        }
        closed?;
        if !is_debug(event_loop)? {
            return Ok(());
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
