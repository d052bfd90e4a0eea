//! `create_unix_connection` and `create_unix_server`: stream connections by a path or an abstract name.
//!
//! What they make are the transports and servers of connect.rs and serve.rs. Called by api.rs.

use pyo3::exceptions::{PyAssertionError, PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyList, PyString};

use super::connect::{check_tls_options, close_quietly, finish, wants_tls};
use super::resolve::constant;
use super::sockets::check_ssl_socket;
use crate::async_fn::{self, attached, coroutine};
use crate::transports::{server, socket_file, tls};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// The arguments of `create_unix_connection`.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) protocol_factory: Py<PyAny>,
    pub(super) path: Option<Py<PyAny>>,
    pub(super) ssl: Option<Py<PyAny>>,
    pub(super) sock: Option<Py<PyAny>>,
    pub(super) server_hostname: Option<Py<PyAny>>,
    pub(super) ssl_handshake_timeout: Option<Py<PyAny>>,
    pub(super) ssl_shutdown_timeout: Option<Py<PyAny>>,
}

/// The arguments of `create_unix_server`.
#[derive(Debug)]
pub(super) struct Serve {
    pub(super) protocol_factory: Py<PyAny>,
    pub(super) path: Option<Py<PyAny>>,
    pub(super) sock: Option<Py<PyAny>>,
    pub(super) backlog: i32,
    pub(super) ssl: Option<Py<PyAny>>,
    pub(super) ssl_handshake_timeout: Option<Py<PyAny>>,
    pub(super) ssl_shutdown_timeout: Option<Py<PyAny>>,
    pub(super) start_serving: bool,
    pub(super) cleanup_socket: bool,
}

fn both_given() -> PyErr {
    PyValueError::new_err("path and sock can not be specified at the same time")
}

fn timeouts(handshake: Option<&Py<PyAny>>, shutdown: Option<&Py<PyAny>>) -> [(&'static str, bool); 2] {
    [("ssl_handshake_timeout", handshake.is_some()), ("ssl_shutdown_timeout", shutdown.is_some())]
}

/// A new socket.
fn new_socket(py: Python<'_>) -> Object<'_> {
    constant(py, "socket")?.call1((constant(py, "AF_UNIX")?, constant(py, "SOCK_STREAM")?, 0))
}

/// ValueError for what is no Unix stream socket.
fn check_socket(sock: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = sock.py();
    check_ssl_socket(sock)?;
    let is_unix = sock.getattr(intern!(py, "family"))?.eq(constant(py, "AF_UNIX")?)?;
    if is_unix && sock.getattr(intern!(py, "type"))?.eq(constant(py, "SOCK_STREAM")?)? {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("A UNIX Domain Stream Socket was expected, got {}", sock.repr()?)))
}

/// `os.fspath(path)`.
fn fspath<'py>(path: &Bound<'py, PyAny>) -> Object<'py> {
    let py = path.py();
    py.import(intern!(py, "os"))?.call_method1(intern!(py, "fspath"), (path,))
}

// --- connections ---------------------------------------------------------------------------------

impl Dial {
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let hostname = self.server_hostname.as_ref().map(|name| name.bind(py));
        if hostname.is_some_and(|name| !name.is_instance_of::<PyString>()) {
            return Err(PyAssertionError::new_err("server_hostname must be a str or None"));
        }
        let tls = wants_tls(py, self.ssl.as_ref())?;
        match (tls, hostname) {
            (true, None) => {
                return Err(PyValueError::new_err("you have to pass server_hostname when using ssl"));
            }
            (false, Some(_)) => {
                return Err(PyValueError::new_err("server_hostname is only meaningful with ssl"));
            }
            _ => {}
        }
        let (handshake, shutdown) = (self.ssl_handshake_timeout.as_ref(), self.ssl_shutdown_timeout.as_ref());
        check_tls_options(tls, timeouts(handshake, shutdown))?;
        if self.path.is_some() && self.sock.is_some() {
            return Err(both_given());
        }
        Ok(())
    }

    /// What is asked of TLS, if it is wanted.
    fn tls(&self, py: Python<'_>) -> PyResult<Option<tls::Options>> {
        let timeouts = (self.ssl_handshake_timeout.as_ref(), self.ssl_shutdown_timeout.as_ref());
        tls::Options::client(py, self.ssl.as_ref(), self.server_hostname.as_ref(), timeouts)
    }
}

/// `create_unix_connection(protocol_factory, path, …)`.
pub(super) fn create_connection<'py>(event_loop: &Bound<'py, PyAny>, request: Dial) -> Object<'py> {
    let (py, event_loop) = (event_loop.py(), event_loop.clone().unbind());
    coroutine(py, "_UnixSelectorEventLoop.create_unix_connection", async move {
        let tls = attached(|py| request.check(py).and_then(|()| request.tls(py)))?;
        let sock = match (&request.path, request.sock) {
            (Some(path), _) => dial(&event_loop, path).await?,
            (None, Some(sock)) => {
                attached(|py| check_socket(sock.bind(py)))?;
                sock
            }
            (None, None) => return Err(PyValueError::new_err("no path and sock were specified")),
        };
        finish(event_loop, sock, request.protocol_factory, tls, |_, _, _| Ok(())).await
    })
}

/// A socket that is connected to a path.
async fn dial(event_loop: &Py<PyAny>, path: &Py<PyAny>) -> PyResult<Py<PyAny>> {
    let (sock, connecting) = attached(|py| {
        let path = fspath(path.bind(py))?;
        let sock = new_socket(py)?;
        let start = || {
            sock.call_method1(intern!(py, "setblocking"), (false,))?;
            event_loop.bind(py).call_method1(intern!(py, "sock_connect"), (&sock, path))
        };
        match start() {
            Ok(connecting) => Ok((sock.unbind(), connecting.unbind())),
            Err(error) => {
                close_quietly(&sock);
                Err(error)
            }
        }
    })?;
    match async_fn::wait(connecting).await {
        Ok(_) => Ok(sock),
        Err(error) => {
            attached(|py| close_quietly(sock.bind(py)));
            Err(error)
        }
    }
}

// --- servers -------------------------------------------------------------------------------------

impl Serve {
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        if self.ssl.as_ref().is_some_and(|ssl| ssl.bind(py).is_instance_of::<PyBool>()) {
            return Err(PyTypeError::new_err("ssl argument must be an SSLContext or None"));
        }
        let tls = wants_tls(py, self.ssl.as_ref())?;
        let (handshake, shutdown) = (self.ssl_handshake_timeout.as_ref(), self.ssl_shutdown_timeout.as_ref());
        check_tls_options(tls, timeouts(handshake, shutdown))?;
        if self.path.is_some() && self.sock.is_some() {
            return Err(both_given());
        }
        Ok(())
    }

    /// The listening socket: bound to the path, or the one that was given.
    fn socket<'py>(&self, py: Python<'py>) -> Object<'py> {
        match (&self.path, &self.sock) {
            (Some(path), _) => bind(&fspath(path.bind(py))?),
            (None, Some(sock)) => {
                let sock = sock.bind(py);
                check_socket(sock)?;
                Ok(sock.clone())
            }
            (None, None) => Err(PyValueError::new_err("path was not specified, and no sock specified")),
        }
    }
}

fn bind<'py>(path: &Bound<'py, PyAny>) -> Object<'py> {
    let py = path.py();
    let sock = new_socket(py)?;
    let make = || {
        if socket_file::is_file(path)? {
            socket_file::remove_stale(path)?;
        }
        sock.call_method1(intern!(py, "bind"), (path,))
    };
    let Err(error) = make() else { return Ok(sock) };
    close_quietly(&sock);
    let in_use = py.import(intern!(py, "errno"))?.getattr(intern!(py, "EADDRINUSE"))?;
    let is_in_use = error.is_instance_of::<PyOSError>(py)
        && error.value(py).getattr(intern!(py, "errno"))?.eq(&in_use)?;
    if !is_in_use {
        return Err(error);
    }
    Err(PyOSError::new_err((in_use.unbind(), format!("Address {} is already in use", path.repr()?))))
}

/// `create_unix_server(protocol_factory, path, …)`.
pub(super) fn create_server<'py>(event_loop: &Bound<'py, PyAny>, request: Serve) -> Object<'py> {
    let (py, event_loop) = (event_loop.py(), event_loop.clone().unbind());
    coroutine(py, "_UnixSelectorEventLoop.create_unix_server", async move {
        let (server, start) = attached(|py| {
            request.check(py)?;
            let sock = request.socket(py)?;
            let inode = if request.cleanup_socket { socket_file::inode(&sock)? } else { None };
            sock.call_method1(intern!(py, "setblocking"), (false,))?;
            let (sockets, factory) = (PyList::new(py, [sock])?, request.protocol_factory.into_bound(py));
            let timeouts = (request.ssl_handshake_timeout.as_ref(), request.ssl_shutdown_timeout.as_ref());
            let tls = tls::Options::server(py, request.ssl.as_ref(), timeouts)?;
            let server = server::make(event_loop.bind(py), sockets, factory, request.backlog, tls)?;
            server::owns_file(&server, inode);
            Ok::<_, PyErr>((server.unbind(), request.start_serving))
        })?;
        if start {
            attached(|py| server::start(server.bind(py)))?;
            async_fn::pause().await?;
        }
        Ok(server)
    })
}
