//! `sock_recv` and its kin: socket operations as coroutines, for programs that keep their sockets themselves.
//!
//! sock_op.rs is the coroutine behind all but `sock_connect`, which may have to look up a name first. They are put on
//! LoopCore as raw methods, being too hot for PyO3's argument parsing.

use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use super::readers::{self, Direction};
use super::resolve::{Wanted, number, resolve};
pub(super) use super::sock_op::fileno;
use super::sock_op::{self, Kind, tried};
use crate::async_fn::{self, attached, coroutine};
use crate::ffi::args::{Args, Signature};
use crate::ffi::method::{AnyLoop, LoopRef, Method, anyargs};
use crate::futures::{self, is_debug};
use crate::local::LoopCore;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// TypeError for a TLS socket: its bytes are not the descriptor's.
pub(super) fn check_ssl_socket(sock: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = sock.py();
    let modules = py.import("sys")?.getattr(intern!(py, "modules"))?;
    let is_tls = match modules.call_method1(intern!(py, "get"), (intern!(py, "ssl"),))? {
        ssl if ssl.is_none() => false, // never imported: then nothing is one
        ssl => sock.is_instance(&ssl.getattr(intern!(py, "SSLSocket"))?)?,
    };
    if is_tls { Err(PyTypeError::new_err("Socket cannot be of type SSLSocket")) } else { Ok(()) }
}

/// Whether it is exactly a `socket.socket`: then its methods are known, and the system may be called directly.
pub(super) fn is_plain(sock: &Bound<'_, PyAny>) -> bool {
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

/// What asyncio checks first.
pub(super) fn check(event_loop: &Bound<'_, PyAny>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
    check_ssl_socket(sock)?;
    if is_debug(event_loop)? && !sock.call_method0(intern!(sock.py(), "gettimeout"))?.eq(0)? {
        return Err(PyValueError::new_err("the socket must be non-blocking"));
    }
    Ok(())
}

/// Waits until the socket can be written. Whatever ends the wait, nothing of it is left behind.
async fn writable(event_loop: &Py<PyAny>, sock: &Py<PyAny>) -> PyResult<()> {
    let (fd, future) = attached(|py| -> PyResult<_> {
        let event_loop = event_loop.bind(py);
        let fd = fileno(sock.bind(py))?;
        let number = fd.into_pyobject(py)?;
        readers::ensure_fd_no_transport(event_loop, &number)?;
        let future = futures::new(event_loop)?;
        readers::add_future(event_loop, fd, Direction::Write, &future)?;
        Ok((fd, future.unbind()))
    })?;
    let Err((error, left)) = async_fn::wait_for_future(future).await else { return Ok(()) };
    attached(|py| {
        if let Some(left) = left {
            readers::drop_future(event_loop.bind(py), fd, Direction::Write, left.bind(py));
        }
    });
    Err(error)
}

/// `sock_connect(sock, address)`.
pub(super) fn sock_connect<'py>(
    event_loop: &Bound<'py, PyAny>,
    sock: Py<PyAny>,
    address: Py<PyAny>,
) -> Object<'py> {
    let (py, event_loop) = (event_loop.py(), event_loop.clone().unbind());
    coroutine(py, "BaseSelectorEventLoop.sock_connect", async move {
        attached(|py| check(event_loop.bind(py), sock.bind(py)))?;
        let address = match attached(|py| Wanted::of_socket(sock.bind(py), address.bind(py)))? {
            Some(wanted) => {
                let infos = resolve(&event_loop, wanted).await?;
                attached(|py| infos.bind(py).get_item(0)?.get_item(4).map(Bound::unbind))?
            }
            None => address,
        };
        let connected = attached(|py| {
            let connected = sock.bind(py).call_method1(intern!(py, "connect"), (&address,));
            tried(connected).map(|done| done.is_some())
        })?;
        if !connected {
            writable(&event_loop, &sock).await?;
            attached(|py| connect_outcome(sock.bind(py), address.bind(py)))?;
        }
        async_fn::none()
    })
}

/// How a connect that went on in the background ended.
fn connect_outcome(sock: &Bound<'_, PyAny>, address: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = sock.py();
    let module = py.import("socket")?;
    let option = (module.getattr(intern!(py, "SOL_SOCKET"))?, module.getattr(intern!(py, "SO_ERROR"))?);
    let errno: i32 = sock.call_method1(intern!(py, "getsockopt"), option)?.extract()?;
    if errno == 0 {
        return Ok(());
    }
    Err(PyOSError::new_err((errno, format!("Connect call failed {}", address.str()?))))
}

// --- the methods ---------------------------------------------------------------------------------

/// The function of a method: sorts the arguments and makes the coroutine.
macro_rules! operation {
    ($method:ident, $kind:ident, $names:expr, $required:literal) => {
        fn $method<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
            const NAMES: &[&str] = &$names;
            const SIGNATURE: Signature = Signature {
                name: stringify!($method),
                positional: NAMES,
                required: $required,
                positional_only: 0,
                keyword_only: &[],
            };
            let bound = SIGNATURE.bind::<{ NAMES.len() }>(args)?;
            let given = |place: usize| bound.get(place).copied().flatten().map(|value| value.to_owned());
            let Some(sock) = given(0) else { return Err(PyTypeError::new_err("sock is missing")) };
            sock_op::make(&this.object, Kind::$kind, sock, given(1), given(2))
        }
    };
}

operation!(sock_recv, Recv, ["sock", "n"], 2);
operation!(sock_recv_into, RecvInto, ["sock", "buf"], 2);
operation!(sock_recvfrom, RecvFrom, ["sock", "bufsize"], 2);
operation!(sock_recvfrom_into, RecvFromInto, ["sock", "buf", "nbytes"], 2);
operation!(sock_sendall, SendAll, ["sock", "data"], 2);
operation!(sock_sendto, SendTo, ["sock", "data", "address"], 3);
operation!(sock_accept, Accept, ["sock"], 1);

/// Makes the type behind them and puts the methods on LoopCore.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    sock_op::register(module)?;
    let core = module.py().get_type::<LoopCore>();
    let methods: [(&str, Method); 7] = [
        (
            "sock_recv",
            anyargs::<AnyLoop, _>(c"sock_recv", sock_recv)
                .doc(c"sock_recv($self, /, sock, n)\n--\n\nReceive up to n bytes."),
        ),
        (
            "sock_recv_into",
            anyargs::<AnyLoop, _>(c"sock_recv_into", sock_recv_into)
                .doc(c"sock_recv_into($self, /, sock, buf)\n--\n\nReceive into a buffer; return how much."),
        ),
        (
            "sock_recvfrom",
            anyargs::<AnyLoop, _>(c"sock_recvfrom", sock_recvfrom)
                .doc(c"sock_recvfrom($self, /, sock, bufsize)\n--\n\nReceive a datagram and its sender."),
        ),
        (
            "sock_recvfrom_into",
            anyargs::<AnyLoop, _>(c"sock_recvfrom_into", sock_recvfrom_into).doc(
                c"sock_recvfrom_into($self, /, sock, buf, nbytes=0)\n--\n\nReceive a datagram into a buffer.",
            ),
        ),
        (
            "sock_sendall",
            anyargs::<AnyLoop, _>(c"sock_sendall", sock_sendall)
                .doc(c"sock_sendall($self, /, sock, data)\n--\n\nSend all of the data."),
        ),
        (
            "sock_sendto",
            anyargs::<AnyLoop, _>(c"sock_sendto", sock_sendto)
                .doc(c"sock_sendto($self, /, sock, data, address)\n--\n\nSend a datagram."),
        ),
        (
            "sock_accept",
            anyargs::<AnyLoop, _>(c"sock_accept", sock_accept).doc(
                c"sock_accept($self, /, sock)\n--\n\nAccept a connection; return its socket and its peer.",
            ),
        ),
    ];
    for (name, method) in methods {
        core.setattr(name, method.descriptor(&core)?)?;
    }
    Ok(())
}
