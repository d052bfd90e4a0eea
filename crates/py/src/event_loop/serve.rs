//! `create_server`: from addresses or a socket to a listening [`Server`](crate::transports::server::Server).

use std::collections::HashSet;

use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyString};

use super::connect::{bind_error, check_stream, check_tls_options};
use super::debug::logger;
use super::resolve::{Wanted, constant, number, resolve};
use super::sockets::check_ssl_socket;
use crate::async_fn::{self, attached, coroutine};
use crate::futures::is_debug;
use crate::names::asyncio;
use crate::transports::{server, tls};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// The arguments of `create_server`.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) protocol_factory: Py<PyAny>,
    pub(super) host: Option<Py<PyAny>>,
    pub(super) port: Option<Py<PyAny>>,
    pub(super) family: i32,
    pub(super) flags: i32,
    pub(super) sock: Option<Py<PyAny>>,
    pub(super) backlog: i32,
    pub(super) ssl: Option<Py<PyAny>>,
    pub(super) reuse_address: Option<bool>,
    pub(super) reuse_port: Option<bool>,
    pub(super) keep_alive: Option<bool>,
    pub(super) ssl_handshake_timeout: Option<Py<PyAny>>,
    pub(super) ssl_shutdown_timeout: Option<Py<PyAny>>,
    pub(super) start_serving: bool,
}

impl Request {
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        if self.ssl.as_ref().is_some_and(|ssl| ssl.bind(py).is_instance_of::<PyBool>()) {
            return Err(PyTypeError::new_err("ssl argument must be an SSLContext or None"));
        }
        let options = [
            ("ssl_handshake_timeout", self.ssl_handshake_timeout.is_some()),
            ("ssl_shutdown_timeout", self.ssl_shutdown_timeout.is_some()),
        ];
        check_tls_options(self.ssl.is_some(), options)?;
        if let Some(sock) = &self.sock {
            check_ssl_socket(sock.bind(py))?;
        }
        if self.by_address() && self.sock.is_some() {
            return Err(PyValueError::new_err("host/port and sock can not be specified at the same time"));
        }
        Ok(())
    }

    const fn by_address(&self) -> bool {
        self.host.is_some() || self.port.is_some()
    }

    /// The hosts to bind to: one, each of a sequence, or every interface.
    fn hosts(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let Some(host) = &self.host else { return Ok(vec![py.None()]) };
        let host = host.bind(py);
        if let Ok(name) = host.cast::<PyString>() {
            return Ok(vec![if name.is_empty()? { py.None() } else { host.clone().unbind() }]);
        }
        match host.try_iter() {
            Ok(hosts) => hosts.map(|host| host.map(Bound::unbind)).collect(),
            Err(_) => Ok(vec![host.clone().unbind()]),
        }
    }

    fn wanted(&self, py: Python<'_>, host: &Py<PyAny>) -> PyResult<Wanted> {
        Ok(Wanted {
            host: host.clone_ref(py),
            port: self.port.as_ref().map_or_else(|| py.None(), |port| port.clone_ref(py)),
            family: self.family,
            kind: number(py, "SOCK_STREAM")?,
            proto: 0,
            flags: self.flags,
            more: Vec::new(),
        })
    }
}

/// `create_server(protocol_factory, host, port, …)`.
pub(super) fn create_server<'py>(event_loop: &Bound<'py, PyAny>, request: Request) -> Object<'py> {
    let py = event_loop.py();
    let event_loop = event_loop.clone().unbind();
    coroutine(py, "BaseEventLoop.create_server", async move {
        attached(|py| request.check(py))?;
        let sockets = if request.by_address() {
            let infos = addresses(&event_loop, &request).await?;
            attached(|py| bind_all(event_loop.bind(py), &request, &infos).map(Bound::unbind))?
        } else {
            attached(|py| given_socket(py, request.sock.as_ref()).map(Bound::unbind))?
        };
        let server = attached(|py| {
            let sockets = sockets.into_bound(py);
            for sock in &sockets {
                sock.call_method1(intern!(py, "setblocking"), (false,))?;
            }
            let timeouts = (request.ssl_handshake_timeout.as_ref(), request.ssl_shutdown_timeout.as_ref());
            let tls = tls::Options::server(py, request.ssl.as_ref(), timeouts)?;
            let factory = request.protocol_factory.bind(py).clone();
            server::make(event_loop.bind(py), sockets, factory, request.backlog, tls).map(Bound::unbind)
        })?;
        if request.start_serving {
            attached(|py| server::start(server.bind(py)))?;
            async_fn::pause().await?;
        }
        attached(|py| {
            if is_debug(event_loop.bind(py))? {
                logger(py)?.call_method1(intern!(py, "info"), ("%r is serving", &server))?;
            }
            Ok(server)
        })
    })
}

fn given_socket<'py>(py: Python<'py>, sock: Option<&Py<PyAny>>) -> PyResult<Bound<'py, PyList>> {
    let Some(sock) = sock else {
        return Err(PyValueError::new_err("Neither host/port nor sock were specified"));
    };
    check_stream(sock.bind(py))?;
    PyList::new(py, [sock])
}

/// Every address of every host, each once. Several hosts are resolved at the same time.
async fn addresses(event_loop: &Py<PyAny>, request: &Request) -> PyResult<Vec<Py<PyAny>>> {
    let hosts = attached(|py| request.hosts(py))?;
    let mut lists = Vec::new();
    if let [host] = hosts.as_slice() {
        let wanted = attached(|py| request.wanted(py, host))?;
        lists.push(infos_of(event_loop, wanted).await?);
    } else {
        let gathered = attached(|py| {
            let mut queries = Vec::new();
            for host in &hosts {
                let (event_loop, wanted) = (event_loop.clone_ref(py), request.wanted(py, host)?);
                queries.push(coroutine(py, "BaseEventLoop._create_server_getaddrinfo", async move {
                    infos_of(&event_loop, wanted).await
                })?);
            }
            let gather = asyncio(py).tasks.bind(py).getattr(intern!(py, "gather"))?;
            gather.call1(pyo3::types::PyTuple::new(py, queries)?).map(Bound::unbind)
        })?;
        lists.push(async_fn::wait(gathered).await?);
    }
    let several = lists.len() == 1 && hosts.len() != 1;
    attached(|py| {
        let mut flat = Vec::new();
        for list in &lists {
            for item in list.bind(py).try_iter()? {
                if several {
                    for info in item?.try_iter()? {
                        flat.push(info?);
                    }
                } else {
                    flat.push(item?);
                }
            }
        }
        // In the order they came, unlike a set of Python: what is bound first is the same in every run.
        let mut known = HashSet::new();
        let mut unique = Vec::new();
        for info in flat {
            if known.insert(info.repr()?.to_string()) {
                unique.push(info.unbind());
            }
        }
        Ok(unique)
    })
}

async fn infos_of(event_loop: &Py<PyAny>, wanted: Wanted) -> PyResult<Py<PyAny>> {
    let host = attached(|py| wanted.host.clone_ref(py));
    let infos = resolve(event_loop, wanted).await?;
    attached(|py| {
        if infos.bind(py).is_truthy()? {
            return Ok(infos);
        }
        Err(PyOSError::new_err(format!("getaddrinfo({}) returned empty list", host.bind(py).repr()?)))
    })
}

/// A bound socket for each address; all are closed again when one fails.
fn bind_all<'py>(
    event_loop: &Bound<'py, PyAny>,
    request: &Request,
    infos: &[Py<PyAny>],
) -> PyResult<Bound<'py, PyList>> {
    let py = event_loop.py();
    let sockets = PyList::empty(py);
    let bind_each = || {
        for info in infos {
            bind_one(event_loop, request, info.bind(py), &sockets)?;
        }
        if sockets.is_empty() {
            let addresses =
                infos.iter().map(|info| info.bind(py).get_item(4)).collect::<PyResult<Vec<_>>>()?;
            let shown = PyList::new(py, addresses)?.repr()?;
            return Err(PyOSError::new_err(format!("could not bind on any address out of {shown}")));
        }
        Ok(())
    };
    let result = bind_each();
    if result.is_err() {
        for sock in &sockets {
            sock.call_method0(intern!(py, "close"))?;
        }
    }
    result.map(|()| sockets)
}

/// Allows several sockets on the same address; ValueError where the system does not know how.
pub(super) fn set_reuse_port(sock: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = sock.py();
    let args = (constant(py, "SOL_SOCKET")?, constant(py, "SO_REUSEPORT")?, 1);
    match sock.call_method1(intern!(py, "setsockopt"), args) {
        Err(error) if error.is_instance_of::<PyOSError>(py) => Err(PyValueError::new_err(
            "reuse_port not supported by socket module, SO_REUSEPORT defined but not implemented.",
        )),
        result => result.map(drop),
    }
}

fn bind_one<'py>(
    event_loop: &Bound<'py, PyAny>,
    request: &Request,
    info: &Bound<'py, PyAny>,
    sockets: &Bound<'py, PyList>,
) -> PyResult<()> {
    let py = event_loop.py();
    let (family, kind, proto, address) =
        (info.get_item(0)?, info.get_item(1)?, info.get_item(2)?, info.get_item(4)?);
    let sock = match constant(py, "socket")?.call1((&family, &kind, &proto)) {
        Ok(sock) => sock,
        Err(error) if error.is_instance_of::<PyOSError>(py) => {
            // The family may be one that this machine does not have.
            if is_debug(event_loop)? {
                let keywords = PyDict::new(py);
                keywords.set_item("exc_info", error.into_value(py))?;
                let text = "create_server() failed to create socket.socket(%r, %r, %r)";
                logger(py)?.call_method(
                    intern!(py, "warning"),
                    (text, family, kind, proto),
                    Some(&keywords),
                )?;
            }
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    sockets.append(&sock)?;
    let set = |level: &str, option: &str| -> PyResult<()> {
        let args = (constant(py, level)?, constant(py, option)?, true);
        sock.call_method1(intern!(py, "setsockopt"), args).map(drop)
    };
    let is_inet6 = family.eq(constant(py, "AF_INET6")?)?;
    if request.reuse_address.unwrap_or(true) {
        set("SOL_SOCKET", "SO_REUSEADDR")?;
    }
    if request.reuse_port == Some(true) && (is_inet6 || family.eq(constant(py, "AF_INET")?)?) {
        set_reuse_port(&sock)?;
    }
    if request.keep_alive == Some(true) {
        set("SOL_SOCKET", "SO_KEEPALIVE")?;
    }
    if is_inet6 {
        // One socket for both families would take the port away from the IPv4 socket.
        set("IPPROTO_IPV6", "IPV6_V6ONLY")?;
    }
    let Err(error) = sock.call_method1(intern!(py, "bind"), (&address,)) else { return Ok(()) };
    if !error.is_instance_of::<PyOSError>(py) {
        return Err(error);
    }
    let explained = bind_error(&address, &error)?;
    let errno = error.value(py).getattr(intern!(py, "errno"))?;
    if !errno.eq(py.import("errno")?.getattr(intern!(py, "EADDRNOTAVAIL"))?)? {
        return Err(explained);
    }
    // The family may be switched off.
    sockets.del_item(sockets.len() - 1)?;
    sock.call_method0(intern!(py, "close"))?;
    if is_debug(event_loop)? {
        let text = explained.value(py).getattr(intern!(py, "strerror"))?;
        logger(py)?.call_method1(intern!(py, "warning"), (text,))?;
    }
    Ok(())
}
