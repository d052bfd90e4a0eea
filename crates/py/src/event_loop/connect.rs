//! `create_connection` and `connect_accepted_socket`: from an address or a socket to a transport and its protocol.

use aioxide_core::race;
use pyo3::exceptions::{PyOSError, PyTimeoutError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::debug::logger;
use super::eyeballs::staggered;
use super::resolve::{Wanted, constant, number, resolve};
use super::sockets::check_ssl_socket;
use crate::async_fn::{self, attached, coroutine};
use crate::ffi::context;
use crate::futures::{self, is_debug};
use crate::transports::owned::Socket;
use crate::transports::{tcp, tls};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// The arguments of `create_connection`.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) protocol_factory: Py<PyAny>,
    pub(super) host: Option<Py<PyAny>>,
    pub(super) port: Option<Py<PyAny>>,
    pub(super) ssl: Option<Py<PyAny>>,
    pub(super) family: i32,
    pub(super) proto: i32,
    pub(super) flags: i32,
    pub(super) sock: Option<Py<PyAny>>,
    pub(super) local_addr: Option<Py<PyAny>>,
    pub(super) server_hostname: Option<Py<PyAny>>,
    pub(super) ssl_handshake_timeout: Option<Py<PyAny>>,
    pub(super) ssl_shutdown_timeout: Option<Py<PyAny>>,
    pub(super) happy_eyeballs_delay: Option<f64>,
    pub(super) interleave: Option<usize>,
    pub(super) all_errors: bool,
}

/// Whether TLS is asked for.
pub(super) fn wants_tls(py: Python<'_>, ssl: Option<&Py<PyAny>>) -> PyResult<bool> {
    ssl.map_or(Ok(false), |ssl| ssl.bind(py).is_truthy())
}

/// ValueError for options that mean nothing without TLS.
pub(super) fn check_tls_options(tls: bool, options: [(&str, bool); 2]) -> PyResult<()> {
    match options.into_iter().find(|(_, given)| *given && !tls) {
        Some((name, _)) => Err(PyValueError::new_err(format!("{name} is only meaningful with ssl"))),
        None => Ok(()),
    }
}

impl Request {
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let tls = wants_tls(py, self.ssl.as_ref())?;
        if self.server_hostname.is_some() && !tls {
            return Err(PyValueError::new_err("server_hostname is only meaningful with ssl"));
        }
        if tls && self.server_hostname.is_none() {
            let named = self.host.as_ref().map_or(Ok(false), |host| host.bind(py).is_truthy())?;
            if !named {
                return Err(PyValueError::new_err(
                    "You must set server_hostname when using ssl without a host",
                ));
            }
        }
        let options = [
            ("ssl_handshake_timeout", self.ssl_handshake_timeout.is_some()),
            ("ssl_shutdown_timeout", self.ssl_shutdown_timeout.is_some()),
        ];
        check_tls_options(tls, options)?;
        if let Some(sock) = &self.sock {
            check_ssl_socket(sock.bind(py))?;
        }
        if self.by_address() && self.sock.is_some() {
            return Err(PyValueError::new_err("host/port and sock can not be specified at the same time"));
        }
        Ok(())
    }

    /// What is asked of TLS, if it is wanted. The name to check is the host's unless another is given.
    fn tls(&self, py: Python<'_>) -> PyResult<Option<tls::Options>> {
        let name = self.server_hostname.as_ref().or(self.host.as_ref());
        let timeouts = (self.ssl_handshake_timeout.as_ref(), self.ssl_shutdown_timeout.as_ref());
        tls::Options::client(py, self.ssl.as_ref(), name, timeouts)
    }

    const fn by_address(&self) -> bool {
        self.host.is_some() || self.port.is_some()
    }

    fn wanted(&self, py: Python<'_>) -> PyResult<Wanted> {
        let or_none =
            |value: &Option<Py<PyAny>>| value.as_ref().map_or_else(|| py.None(), |v| v.clone_ref(py));
        Ok(Wanted {
            host: or_none(&self.host),
            port: or_none(&self.port),
            family: self.family,
            kind: number(py, "SOCK_STREAM")?,
            proto: self.proto,
            flags: self.flags,
            more: Vec::new(),
        })
    }
}

/// `create_connection(protocol_factory, host, port, …)`.
pub(super) fn create_connection<'py>(event_loop: &Bound<'py, PyAny>, request: Request) -> Object<'py> {
    let py = event_loop.py();
    let event_loop = event_loop.clone().unbind();
    // The root: the tasks of a race.
    async_fn::rooted(PyList::empty(py).into_any(), "BaseEventLoop.create_connection", async move {
        let tls = attached(|py| request.check(py).and_then(|()| request.tls(py)))?;
        let sock = if request.by_address() {
            dial(&event_loop, &request).await?
        } else {
            attached(|py| given_socket(py, request.sock.as_ref()))?
        };
        let (host, port) = (request.host, request.port);
        finish(event_loop, sock, request.protocol_factory, tls, move |py, sock, pair| {
            let (transport, protocol) = (pair.get_item(0)?, pair.get_item(1)?);
            let args = ("%r connected to %s:%r: (%r, %r)", sock, host, port, transport, protocol);
            logger(py)?.call_method1("debug", args).map(drop)
        })
        .await
    })
}

/// `connect_accepted_socket(protocol_factory, sock, …)`.
pub(super) fn connect_accepted_socket<'py>(
    event_loop: &Bound<'py, PyAny>,
    protocol_factory: Py<PyAny>,
    sock: Py<PyAny>,
    ssl: Option<Py<PyAny>>,
    ssl_handshake_timeout: Option<Py<PyAny>>,
    ssl_shutdown_timeout: Option<Py<PyAny>>,
) -> Object<'py> {
    let py = event_loop.py();
    let event_loop = event_loop.clone().unbind();
    coroutine(py, "BaseEventLoop.connect_accepted_socket", async move {
        let tls = attached(|py| {
            check_stream(sock.bind(py))?;
            let tls = wants_tls(py, ssl.as_ref())?;
            let options = [
                ("ssl_handshake_timeout", ssl_handshake_timeout.is_some()),
                ("ssl_shutdown_timeout", ssl_shutdown_timeout.is_some()),
            ];
            check_tls_options(tls, options)?;
            check_ssl_socket(sock.bind(py))?;
            let timeouts = (ssl_handshake_timeout.as_ref(), ssl_shutdown_timeout.as_ref());
            tls::Options::server(py, ssl.as_ref(), timeouts)
        })?;
        finish(event_loop, sock, protocol_factory, tls, |py, sock, pair| {
            let args = ("%r handled: (%r, %r)", sock, pair.get_item(0)?, pair.get_item(1)?);
            logger(py)?.call_method1("debug", args).map(drop)
        })
        .await
    })
}

/// ValueError for what is no stream socket.
pub(super) fn check_stream(sock: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = sock.py();
    if sock.getattr(intern!(py, "type"))?.eq(constant(py, "SOCK_STREAM")?)? {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("A Stream Socket was expected, got {}", sock.repr()?)))
}

fn given_socket(py: Python<'_>, sock: Option<&Py<PyAny>>) -> PyResult<Py<PyAny>> {
    let Some(sock) = sock else {
        return Err(PyValueError::new_err("host and port was not specified and no sock specified"));
    };
    check_stream(sock.bind(py))?;
    Ok(sock.clone_ref(py))
}

/// The protocol and the transport of a connected socket, once the protocol knows of the connection: with TLS, once the
/// handshake is done.
pub(super) async fn finish(
    event_loop: Py<PyAny>,
    sock: Py<PyAny>,
    protocol_factory: Py<PyAny>,
    tls: Option<tls::Options>,
    log: impl for<'py> FnOnce(Python<'py>, &Bound<'py, PyAny>, &Bound<'py, PyAny>) -> PyResult<()> + Send,
) -> PyResult<Py<PyAny>> {
    let (transport, protocol, waiter) = attached(|py| {
        let (event_loop, sock) = (event_loop.bind(py), sock.bind(py));
        let make = || -> PyResult<_> {
            sock.call_method1(intern!(py, "setblocking"), (false,))?;
            let context = context::copy_current(py)?;
            let protocol = protocol_factory.bind(py).call0()?;
            let waiter = futures::new(event_loop)?;
            let parts = tcp::Parts {
                event_loop,
                socket: Socket::Object(sock.clone(), None),
                protocol: &protocol,
                waiter: Some(&waiter),
                server: None,
                context: &context,
            };
            let transport = match &tls {
                Some(options) => tls::over_socket(parts, options)?,
                None => tcp::make(parts)?,
            };
            Ok((transport.unbind(), protocol.unbind(), waiter.unbind()))
        };
        make().inspect_err(|_| close_quietly(sock))
    })?;
    if let Err(error) = async_fn::wait(waiter).await {
        attached(|py| transport.call_method0(py, intern!(py, "close")))?;
        return Err(error);
    }
    attached(|py| {
        let pair = (&transport, protocol).into_pyobject(py)?.into_any();
        if is_debug(event_loop.bind(py))? {
            let sock = transport.call_method1(py, intern!(py, "get_extra_info"), ("socket",))?;
            log(py, sock.bind(py), &pair)?;
        }
        Ok(pair.unbind())
    })
}

/// Closes a socket that came to nothing; the error under way matters more than one of closing.
pub(super) fn close_quietly(sock: &Bound<'_, PyAny>) {
    let _ = sock.call_method0(intern!(sock.py(), "close"));
}

// --- dialling ------------------------------------------------------------------------------------

/// A connected socket to the first address that answers.
async fn dial(event_loop: &Py<PyAny>, request: &Request) -> PyResult<Py<PyAny>> {
    let wanted = attached(|py| request.wanted(py))?;
    let infos = resolved(event_loop, wanted).await?;
    let local = match &request.local_addr {
        Some(address) => {
            let wanted = attached(|py| {
                let kind = number(py, "SOCK_STREAM")?;
                let wanted = Wanted::of_address(address.bind(py), request.family, kind, request.proto)?;
                Ok::<_, PyErr>(Wanted { flags: request.flags, ..wanted })
            })?;
            Some(resolved(event_loop, wanted).await?)
        }
        None => None,
    };
    let interleave =
        request.interleave.or(request.happy_eyeballs_delay.map(|_| 1)).filter(|count| *count > 0);
    let infos = match interleave {
        Some(count) => attached(|py| {
            let known: Vec<(i32, Py<PyAny>)> = infos
                .into_iter()
                .map(|info| Ok((info.bind(py).get_item(0)?.extract()?, info)))
                .collect::<PyResult<_>>()?;
            let mixed = race::interleave(known, count, |(family, _)| *family);
            Ok::<_, PyErr>(mixed.into_iter().map(|(_, info)| info).collect())
        })?,
        None => infos,
    };
    let (sock, errors) = match request.happy_eyeballs_delay {
        None => one_by_one(event_loop, infos, local).await?,
        Some(delay) => staggered(event_loop, infos, local, delay).await?,
    };
    match sock {
        Some(sock) => Ok(sock),
        None => Err(attached(|py| combined(py, errors, request.all_errors).unwrap_or_else(|e| e))),
    }
}

async fn resolved(event_loop: &Py<PyAny>, wanted: Wanted) -> PyResult<Vec<Py<PyAny>>> {
    let infos = resolve(event_loop, wanted).await?;
    let infos = attached(|py| -> PyResult<Vec<_>> {
        infos.bind(py).try_iter()?.map(|info| info.map(Bound::unbind)).collect()
    })?;
    if infos.is_empty() {
        return Err(PyOSError::new_err("getaddrinfo() returned empty list"));
    }
    Ok(infos)
}

/// A socket, if one connected, and what went wrong with the others.
pub(super) type Dialled = (Option<Py<PyAny>>, Vec<PyErr>);

async fn one_by_one(
    event_loop: &Py<PyAny>,
    infos: Vec<Py<PyAny>>,
    local: Option<Vec<Py<PyAny>>>,
) -> PyResult<Dialled> {
    let mut errors = Vec::new();
    for info in infos {
        match attempt(event_loop, &info, local.as_deref(), &mut errors).await {
            Ok(sock) => return Ok((Some(sock), Vec::new())),
            Err(error) if attached(|py| error.is_instance_of::<PyOSError>(py)) => errors.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok((None, errors))
}

/// One address: a socket, bound and connected. Failures to bind, other than the last, go to `errors`.
pub(super) async fn attempt(
    event_loop: &Py<PyAny>,
    info: &Py<PyAny>,
    local: Option<&[Py<PyAny>]>,
    errors: &mut Vec<PyErr>,
) -> PyResult<Py<PyAny>> {
    let (sock, connecting) = attached(|py| {
        let info = info.bind(py);
        let part = |i: usize| info.get_item(i);
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "family"), part(0)?)?;
        keywords.set_item(intern!(py, "type"), part(1)?)?;
        keywords.set_item(intern!(py, "proto"), part(2)?)?;
        let sock = constant(py, "socket")?.call((), Some(&keywords))?;
        let mut prepare = || {
            sock.call_method1(intern!(py, "setblocking"), (false,))?;
            if let Some(local) = local {
                bind_local(&sock, &part(0)?, local, errors)?;
            }
            event_loop.bind(py).call_method1(intern!(py, "sock_connect"), (&sock, part(4)?))
        };
        match prepare() {
            Ok(connecting) => Ok((sock.clone().unbind(), connecting.unbind())),
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

/// Binds to the first local address of the family that can be had.
fn bind_local<'py>(
    sock: &Bound<'py, PyAny>,
    family: &Bound<'py, PyAny>,
    local: &[Py<PyAny>],
    errors: &mut Vec<PyErr>,
) -> PyResult<()> {
    let py = sock.py();
    let mut last = None;
    for info in local {
        let info = info.bind(py);
        if !info.get_item(0)?.eq(family)? {
            continue;
        }
        let address = info.get_item(4)?;
        match sock.call_method1(intern!(py, "bind"), (&address,)) {
            Ok(_) => return Ok(()),
            Err(error) if error.is_instance_of::<PyOSError>(py) => {
                errors.extend(last.replace(bind_error(&address, &error)?));
            }
            Err(error) => return Err(error),
        }
    }
    Err(match last {
        Some(error) => error,
        None => PyOSError::new_err(format!("no matching local address with family={} found", family.repr()?)),
    })
}

/// `OSError(errno, "error while attempting to bind on address …")`.
pub(super) fn bind_error(address: &Bound<'_, PyAny>, error: &PyErr) -> PyResult<PyErr> {
    let py = address.py();
    let value = error.value(py);
    let text = value.str()?.call_method0(intern!(py, "lower"))?;
    let text = format!("error while attempting to bind on address {}: {text}", address.repr()?);
    Ok(PyOSError::new_err((value.getattr(intern!(py, "errno"))?.unbind(), text)))
}

/// What `create_connection` raises when nothing answered.
fn combined(py: Python<'_>, errors: Vec<PyErr>, all_errors: bool) -> PyResult<PyErr> {
    let values: Vec<_> = errors.iter().map(|error| error.value(py).clone()).collect();
    if all_errors {
        let class = py.import("builtins")?.getattr("ExceptionGroup")?;
        return Ok(PyErr::from_value(class.call1(("create_connection failed", PyList::new(py, values)?))?));
    }
    let texts = values.iter().map(|value| value.str()?.extract()).collect::<PyResult<Vec<String>>>()?;
    let mut errors = errors.into_iter();
    Ok(match (errors.next(), texts.first()) {
        (Some(first), Some(model)) if texts.iter().all(|text| text == model) => first,
        (Some(_), _) => PyOSError::new_err(format!("Multiple exceptions: {}", texts.join(", "))),
        (None, _) => PyTimeoutError::new_err("create_connection failed"),
    })
}
