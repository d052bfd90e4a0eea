//! `sock_recv` and its kin: socket operations as coroutines, for programs that keep their sockets themselves.
//!
//! Each tries at once and otherwise waits until the descriptor is ready and tries again. The operation is only done
//! when the waiting task runs, so a cancelled one never takes bytes that nobody gets. Called by api.rs.

use aioxide_sys::stream;
use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyMemoryView, PySlice, PyType};

use super::readers::{self, Direction};
use super::resolve::{Wanted, number, resolve};
use crate::async_fn::{self, attached, coroutine};
use crate::errors::os_error;
use crate::ffi::buffer;
use crate::futures::{self, is_debug};
use crate::transports::read::{self, is_later};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
/// What an attempt gave: a result, or nothing yet.
type Attempt<'py> = PyResult<Option<Bound<'py, PyAny>>>;

/// The socket and the loop of one operation.
struct Op {
    event_loop: Py<PyAny>,
    sock: Py<PyAny>,
}

impl Op {
    fn new(event_loop: &Bound<'_, PyAny>, sock: Py<PyAny>) -> Self {
        Self { event_loop: event_loop.clone().unbind(), sock }
    }

    /// What asyncio checks first.
    fn check(&self) -> PyResult<()> {
        attached(|py| {
            let sock = self.sock.bind(py);
            check_ssl_socket(sock)?;
            if is_debug(self.event_loop.bind(py))? && !sock.call_method0(intern!(py, "gettimeout"))?.eq(0)? {
                return Err(PyValueError::new_err("the socket must be non-blocking"));
            }
            Ok(())
        })
    }

    /// Tries until there is a result.
    async fn until_done(
        &self,
        direction: Direction,
        mut attempt: impl for<'py> FnMut(&Bound<'py, PyAny>) -> Attempt<'py> + Send,
    ) -> PyResult<Py<PyAny>> {
        loop {
            let result = attached(|py| attempt(self.sock.bind(py)).map(|done| done.map(Bound::unbind)))?;
            if let Some(done) = result {
                return Ok(done);
            }
            self.ready(direction).await?;
        }
    }

    /// Waits until the descriptor is ready. Whatever ends the wait, nothing of it is left behind.
    async fn ready(&self, direction: Direction) -> PyResult<()> {
        let (fd, future) = attached(|py| -> PyResult<_> {
            let event_loop = self.event_loop.bind(py);
            let fd = fileno(self.sock.bind(py))?;
            let number = fd.into_pyobject(py)?;
            readers::ensure_fd_no_transport(event_loop, &number)?;
            let future = futures::new(event_loop)?;
            match direction {
                Direction::Read => readers::add_read_future(event_loop, fd, &future)?,
                Direction::Write => readers::add_write_future(event_loop, fd, &future)?,
            }
            Ok((fd, future.unbind()))
        })?;
        let Err((error, left)) = async_fn::wait_for_future(future).await else { return Ok(()) };
        attached(|py| {
            let Some(left) = left else { return };
            let (event_loop, future) = (self.event_loop.bind(py), left.bind(py));
            match direction {
                Direction::Read => readers::drop_read_future(event_loop, fd, future),
                Direction::Write => readers::drop_write_future(event_loop, fd, future),
            }
        });
        Err(error)
    }
}

fn fileno(sock: &Bound<'_, PyAny>) -> PyResult<i32> {
    sock.call_method0(intern!(sock.py(), "fileno"))?.extract()
}

/// TypeError for a TLS socket: its bytes are not the descriptor's.
pub(super) fn check_ssl_socket(sock: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = sock.py();
    let modules = py.import("sys")?.getattr("modules")?;
    let is_tls = match modules.call_method1(intern!(py, "get"), (intern!(py, "ssl"),))? {
        ssl if ssl.is_none() => false, // never imported: then nothing is one
        ssl => sock.is_instance(&ssl.getattr(intern!(py, "SSLSocket"))?)?,
    };
    if is_tls { Err(PyTypeError::new_err("Socket cannot be of type SSLSocket")) } else { Ok(()) }
}

/// Whether it is exactly a `socket.socket`: then its methods are known, and the system may be called directly.
fn is_plain(sock: &Bound<'_, PyAny>) -> bool {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(sock.py(), "socket", "socket").is_ok_and(|class| sock.get_type().is(class))
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ip {
    V4,
    V6,
}

/// Which version of IP a plain socket speaks, if it is one.
pub(crate) fn plain_ip(sock: &Bound<'_, PyAny>) -> PyResult<Option<Ip>> {
    if !is_plain(sock) {
        return Ok(None);
    }
    let py = sock.py();
    let family: i32 = sock.getattr(intern!(py, "family"))?.extract()?;
    Ok(if family == number(py, "AF_INET")? {
        Some(Ip::V4)
    } else if family == number(py, "AF_INET6")? {
        Some(Ip::V6)
    } else {
        None
    })
}

/// The result of a socket method; nothing when it would have blocked.
fn tried(result: Object<'_>) -> Attempt<'_> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => attached(|py| {
            let later = error.is_instance_of::<PyBlockingIOError>(py)
                || error.is_instance_of::<PyInterruptedError>(py);
            if later { Ok(None) } else { Err(error) }
        }),
    }
}

/// As [`tried`], for a call of the system.
fn called<T>(result: std::io::Result<T>) -> PyResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_later(error.kind()) => Ok(None),
        Err(error) => Err(os_error(&error)),
    }
}

/// `sock_recv(sock, n)`.
pub(super) fn sock_recv<'py>(event_loop: &Bound<'py, PyAny>, sock: Py<PyAny>, n: Py<PyAny>) -> Object<'py> {
    let op = Op::new(event_loop, sock);
    coroutine(event_loop.py(), "EventLoop.sock_recv", async move {
        op.check()?;
        op.until_done(Direction::Read, |sock| {
            let py = sock.py();
            match n.extract::<usize>(py) {
                Ok(most) if most <= read::MOST && is_plain(sock) => {
                    Ok(called(read::receive(py, fileno(sock)?, most))?.map(Bound::into_any))
                }
                _ => tried(sock.call_method1(intern!(py, "recv"), (&n,))),
            }
        })
        .await
    })
}

/// `sock_recv_into(sock, buf)`.
pub(super) fn sock_recv_into<'py>(
    event_loop: &Bound<'py, PyAny>,
    sock: Py<PyAny>,
    buf: Py<PyAny>,
) -> Object<'py> {
    let op = Op::new(event_loop, sock);
    coroutine(event_loop.py(), "EventLoop.sock_recv_into", async move {
        op.check()?;
        op.until_done(Direction::Read, |sock| {
            let py = sock.py();
            if !is_plain(sock) {
                return tried(sock.call_method1(intern!(py, "recv_into"), (&buf,)));
            }
            let fd = fileno(sock)?;
            let length = called(buffer::write(buf.bind(py), |bytes| stream::recv(fd, bytes))?)?;
            length.map(|length| Ok(length.into_pyobject(py)?.into_any())).transpose()
        })
        .await
    })
}

/// `sock_recvfrom(sock, bufsize)`.
pub(super) fn sock_recvfrom<'py>(
    event_loop: &Bound<'py, PyAny>,
    sock: Py<PyAny>,
    bufsize: Py<PyAny>,
) -> Object<'py> {
    let op = Op::new(event_loop, sock);
    coroutine(event_loop.py(), "EventLoop.sock_recvfrom", async move {
        op.check()?;
        op.until_done(Direction::Read, |sock| {
            tried(sock.call_method1(intern!(sock.py(), "recvfrom"), (&bufsize,)))
        })
        .await
    })
}

/// `sock_recvfrom_into(sock, buf, nbytes=0)`.
pub(super) fn sock_recvfrom_into<'py>(
    event_loop: &Bound<'py, PyAny>,
    sock: Py<PyAny>,
    buf: Py<PyAny>,
    nbytes: Py<PyAny>,
) -> Object<'py> {
    let op = Op::new(event_loop, sock);
    coroutine(event_loop.py(), "EventLoop.sock_recvfrom_into", async move {
        op.check()?;
        let length = attached(|py| -> PyResult<_> {
            let given = nbytes.bind(py).is_truthy()?;
            Ok(if given { nbytes } else { buf.bind(py).len()?.into_pyobject(py)?.into_any().unbind() })
        })?;
        op.until_done(Direction::Read, |sock| {
            tried(sock.call_method1(intern!(sock.py(), "recvfrom_into"), (&buf, &length)))
        })
        .await
    })
}

/// `sock_sendall(sock, data)`.
pub(super) fn sock_sendall<'py>(
    event_loop: &Bound<'py, PyAny>,
    sock: Py<PyAny>,
    data: Py<PyAny>,
) -> Object<'py> {
    let op = Op::new(event_loop, sock);
    coroutine(event_loop.py(), "EventLoop.sock_sendall", async move {
        op.check()?;
        let mut start = 0;
        op.until_done(Direction::Write, |sock| {
            let py = sock.py();
            let (sent, length) = send_some(sock, data.bind(py), start)?;
            start += sent;
            Ok((start >= length).then(|| py.None().into_bound(py)))
        })
        .await
    })
}

/// Sends what the socket takes of `data` from `start` on: how much that was, and how long the data are.
fn send_some(sock: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>, start: usize) -> PyResult<(usize, usize)> {
    let py = sock.py();
    if is_plain(sock) {
        let fd = fileno(sock)?;
        let (sent, length) = buffer::read(data, |bytes| {
            (stream::send(fd, bytes.get(start..).unwrap_or_default()), bytes.len())
        })?;
        return Ok((called(sent)?.unwrap_or(0), length));
    }
    let length = data.len()?;
    let rest = if start == 0 {
        data.clone()
    } else {
        let slice = py.get_type::<PySlice>().call1((start, py.None()))?;
        PyMemoryView::from(data)?.get_item(slice)?
    };
    let sent = tried(sock.call_method1(intern!(py, "send"), (rest,)))?;
    Ok((sent.map_or(Ok(0), |sent| sent.extract())?, length))
}

/// `sock_sendto(sock, data, address)`.
pub(super) fn sock_sendto<'py>(
    event_loop: &Bound<'py, PyAny>,
    sock: Py<PyAny>,
    data: Py<PyAny>,
    address: Py<PyAny>,
) -> Object<'py> {
    let op = Op::new(event_loop, sock);
    coroutine(event_loop.py(), "EventLoop.sock_sendto", async move {
        op.check()?;
        op.until_done(Direction::Write, |sock| {
            tried(sock.call_method1(intern!(sock.py(), "sendto"), (&data, &address)))
        })
        .await
    })
}

/// `sock_connect(sock, address)`.
pub(super) fn sock_connect<'py>(
    event_loop: &Bound<'py, PyAny>,
    sock: Py<PyAny>,
    address: Py<PyAny>,
) -> Object<'py> {
    let op = Op::new(event_loop, sock);
    coroutine(event_loop.py(), "EventLoop.sock_connect", async move {
        op.check()?;
        let address = match attached(|py| Wanted::of_socket(op.sock.bind(py), address.bind(py)))? {
            Some(wanted) => {
                let infos = resolve(&op.event_loop, wanted).await?;
                attached(|py| infos.bind(py).get_item(0)?.get_item(4).map(Bound::unbind))?
            }
            None => address,
        };
        let connected = attached(|py| {
            tried(op.sock.bind(py).call_method1(intern!(py, "connect"), (&address,)))
                .map(|done| done.is_some())
        })?;
        if !connected {
            op.ready(Direction::Write).await?;
            attached(|py| connect_outcome(op.sock.bind(py), address.bind(py)))?;
        }
        async_fn::none()
    })
}

/// How a connect that went on in the background ended.
fn connect_outcome(sock: &Bound<'_, PyAny>, address: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = sock.py();
    let module = py.import("socket")?;
    let option = (module.getattr("SOL_SOCKET")?, module.getattr("SO_ERROR")?);
    let errno: i32 = sock.call_method1(intern!(py, "getsockopt"), option)?.extract()?;
    if errno == 0 {
        return Ok(());
    }
    Err(PyOSError::new_err((errno, format!("Connect call failed {}", address.str()?))))
}

/// `sock_accept(sock)`.
pub(super) fn sock_accept<'py>(event_loop: &Bound<'py, PyAny>, sock: Py<PyAny>) -> Object<'py> {
    let op = Op::new(event_loop, sock);
    coroutine(event_loop.py(), "EventLoop.sock_accept", async move {
        op.check()?;
        op.until_done(Direction::Read, |sock| {
            let py = sock.py();
            let Some(pair) = tried(sock.call_method0(intern!(py, "accept")))? else { return Ok(None) };
            pair.get_item(0)?.call_method1(intern!(py, "setblocking"), (false,))?;
            Ok(Some(pair))
        })
        .await
    })
}
