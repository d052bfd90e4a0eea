//! `create_datagram_endpoint`: from addresses or a socket to a datagram transport and its protocol. Called by api.rs.

use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use super::connect::close_quietly;
use super::debug::logger;
use super::resolve::{Wanted, constant, number, resolve};
use crate::async_fn::{self, attached, coroutine};
use crate::futures::{self, is_debug};
use crate::transports::{socket_file, udp};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// The arguments of `create_datagram_endpoint`; what is false or None is missing.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) protocol_factory: Py<PyAny>,
    pub(super) local_addr: Option<Py<PyAny>>,
    pub(super) remote_addr: Option<Py<PyAny>>,
    pub(super) family: Py<PyAny>,
    pub(super) proto: Py<PyAny>,
    pub(super) flags: Py<PyAny>,
    pub(super) reuse_port: Option<Py<PyAny>>,
    pub(super) allow_broadcast: Option<Py<PyAny>>,
    pub(super) sock: Option<Py<PyAny>>,
}

/// A way to make the socket: family and protocol, and the addresses of both ends.
#[derive(Debug)]
struct Way {
    family: i32,
    proto: i32,
    local: Option<Py<PyAny>>,
    remote: Option<Py<PyAny>>,
}

fn is_given(py: Python<'_>, value: Option<&Py<PyAny>>) -> PyResult<bool> {
    value.map_or(Ok(false), |value| value.bind(py).is_truthy())
}

impl Request {
    fn has_local(&self, py: Python<'_>) -> PyResult<bool> {
        is_given(py, self.local_addr.as_ref())
    }

    fn has_remote(&self, py: Python<'_>) -> PyResult<bool> {
        is_given(py, self.remote_addr.as_ref())
    }

    fn broadcasts(&self, py: Python<'_>) -> PyResult<bool> {
        is_given(py, self.allow_broadcast.as_ref())
    }

    /// ValueError for a given socket that is no datagram socket, or for options that it makes meaningless.
    fn check_socket(&self, sock: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = sock.py();
        if sock.getattr(intern!(py, "type"))?.eq(constant(py, "SOCK_STREAM")?)? {
            return Err(PyValueError::new_err(format!(
                "A datagram socket was expected, got {}",
                sock.repr()?
            )));
        }
        let options = [
            ("local_addr", self.local_addr.as_ref()),
            ("remote_addr", self.remote_addr.as_ref()),
            ("family", Some(&self.family)),
            ("proto", Some(&self.proto)),
            ("flags", Some(&self.flags)),
            ("reuse_port", self.reuse_port.as_ref()),
            ("allow_broadcast", self.allow_broadcast.as_ref()),
        ];
        let mut problems = Vec::new();
        for (name, value) in options {
            if let Some(value) = value.map(|value| value.bind(py))
                && value.is_truthy()?
            {
                problems.push(format!("{name}={}", value.str()?));
            }
        }
        if problems.is_empty() {
            return sock.call_method1(intern!(py, "setblocking"), (false,)).map(drop);
        }
        let problems = problems.join(", ");
        Err(PyValueError::new_err(format!(
            "socket modifier keyword arguments can not be used when sock is specified. ({problems})"
        )))
    }

    /// The ways for which no name has to be looked up: no addresses at all, or paths.
    fn plain_ways(&self, py: Python<'_>) -> PyResult<Option<Vec<Way>>> {
        let (family, proto) = (self.family.extract::<i32>(py)?, self.proto.extract::<i32>(py)?);
        if !self.has_local(py)? && !self.has_remote(py)? {
            if family == 0 {
                return Err(PyValueError::new_err("unexpected address family"));
            }
            return Ok(Some(vec![Way { family, proto, local: None, remote: None }]));
        }
        if family != number(py, "AF_UNIX")? {
            return Ok(None);
        }
        for address in [&self.local_addr, &self.remote_addr].into_iter().flatten() {
            if !address.bind(py).is_instance_of::<PyString>() {
                return Err(PyTypeError::new_err("string is expected"));
            }
        }
        if let Some(local) = self.local_addr.as_ref().filter(|_| self.has_local(py).unwrap_or(false)) {
            let local = local.bind(py);
            if socket_file::is_file(local)? {
                socket_file::remove_stale(local)?;
            }
        }
        let copy = |address: &Option<Py<PyAny>>| address.as_ref().map(|a| a.clone_ref(py));
        Ok(Some(vec![Way { family, proto, local: copy(&self.local_addr), remote: copy(&self.remote_addr) }]))
    }

    fn wanted(&self, py: Python<'_>, address: &Py<PyAny>) -> PyResult<Wanted> {
        let address = address.bind(py);
        if !address.cast::<PyTuple>().is_ok_and(|tuple| tuple.len() == 2) {
            return Err(PyTypeError::new_err("2-tuple is expected"));
        }
        let (family, proto) = (self.family.extract(py)?, self.proto.extract(py)?);
        let wanted = Wanted::of_address(address, family, number(py, "SOCK_DGRAM")?, proto)?;
        Ok(Wanted { flags: self.flags.extract(py)?, ..wanted })
    }

    /// Every family and protocol in which each address that is given has a meaning, in the order of the results.
    async fn resolved_ways(&self, event_loop: &Py<PyAny>) -> PyResult<Vec<Way>> {
        let mut ways: Vec<Way> = Vec::new();
        for (is_local, address) in [(true, &self.local_addr), (false, &self.remote_addr)] {
            let Some(address) = address else { continue };
            let wanted = attached(|py| self.wanted(py, address))?;
            let infos = resolve(event_loop, wanted).await?;
            attached(|py| {
                let infos = infos.bind(py);
                if !infos.is_truthy()? {
                    return Err(PyOSError::new_err("getaddrinfo() returned empty list"));
                }
                for info in infos.try_iter()? {
                    let info = info?;
                    let (family, proto) = (info.get_item(0)?.extract()?, info.get_item(2)?.extract()?);
                    let found = info.get_item(4)?.unbind();
                    let place = ways.iter().position(|way| (way.family, way.proto) == (family, proto));
                    let place = place.unwrap_or_else(|| {
                        ways.push(Way { family, proto, local: None, remote: None });
                        ways.len() - 1
                    });
                    if let Some(way) = ways.get_mut(place) {
                        let side = if is_local { &mut way.local } else { &mut way.remote };
                        *side = Some(found);
                    }
                }
                Ok(())
            })?;
        }
        attached(|py| {
            let (local, remote) = (self.has_local(py)?, self.has_remote(py)?);
            ways.retain(|way| !(local && way.local.is_none() || remote && way.remote.is_none()));
            if ways.is_empty() {
                return Err(PyValueError::new_err("can not get address information"));
            }
            Ok(ways)
        })
    }

    /// A socket, bound and with its options set; and the connecting of it, where that is wanted.
    fn prepare<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        way: &Way,
        sock: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = sock.py();
        let set = |option: &str| -> PyResult<()> {
            let args = (constant(py, "SOL_SOCKET")?, constant(py, option)?, 1);
            sock.call_method1(intern!(py, "setsockopt"), args).map(drop)
        };
        if is_given(py, self.reuse_port.as_ref())? {
            super::serve::set_reuse_port(sock)?;
        }
        if self.broadcasts(py)? {
            set("SO_BROADCAST")?;
        }
        sock.call_method1(intern!(py, "setblocking"), (false,))?;
        if self.has_local(py)? {
            sock.call_method1(intern!(py, "bind"), (&way.local,))?;
        }
        if self.has_remote(py)? && !self.broadcasts(py)? {
            let args = (sock, &way.remote);
            return event_loop.call_method1(intern!(py, "sock_connect"), args).map(Some);
        }
        Ok(None)
    }

    /// The socket of one way.
    async fn attempt(&self, event_loop: &Py<PyAny>, way: &Way) -> PyResult<Py<PyAny>> {
        let (sock, connecting) = attached(|py| {
            let kind = constant(py, "SOCK_DGRAM")?;
            let keywords = pyo3::types::PyDict::new(py);
            keywords.set_item(intern!(py, "family"), way.family)?;
            keywords.set_item(intern!(py, "type"), kind)?;
            keywords.set_item(intern!(py, "proto"), way.proto)?;
            let sock = constant(py, "socket")?.call((), Some(&keywords))?;
            match self.prepare(event_loop.bind(py), way, &sock) {
                Ok(connecting) => Ok((sock.unbind(), connecting.map(Bound::unbind))),
                Err(error) => {
                    close_quietly(&sock);
                    Err(error)
                }
            }
        })?;
        let Some(connecting) = connecting else { return Ok(sock) };
        match async_fn::wait(connecting).await {
            Ok(_) => Ok(sock),
            Err(error) => {
                attached(|py| close_quietly(sock.bind(py)));
                Err(error)
            }
        }
    }

    /// The first way that works: its socket and the address of the peer.
    async fn open(&self, event_loop: &Py<PyAny>) -> PyResult<(Py<PyAny>, Option<Py<PyAny>>)> {
        let ways = match attached(|py| self.plain_ways(py))? {
            Some(ways) => ways,
            None => self.resolved_ways(event_loop).await?,
        };
        let mut first = None;
        for way in ways {
            match self.attempt(event_loop, &way).await {
                Ok(sock) => {
                    let has_remote = attached(|py| self.has_remote(py))?;
                    return Ok((sock, way.remote.filter(|_| has_remote)));
                }
                Err(error) if attached(|py| error.is_instance_of::<PyOSError>(py)) => {
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(first.unwrap_or_else(|| PyValueError::new_err("can not get address information")))
    }

    fn log(
        &self,
        event_loop: &Bound<'_, PyAny>,
        transport: &Py<PyAny>,
        protocol: &Py<PyAny>,
    ) -> PyResult<()> {
        let py = event_loop.py();
        if !is_debug(event_loop)? {
            return Ok(());
        }
        let (local, remote) = (&self.local_addr, &self.remote_addr);
        let logger = logger(py)?;
        if self.has_local(py)? {
            let text = "Datagram endpoint local_addr=%r remote_addr=%r created: (%r, %r)";
            logger.call_method1("info", (text, local, remote, transport, protocol)).map(drop)
        } else {
            let text = "Datagram endpoint remote_addr=%r created: (%r, %r)";
            logger.call_method1("debug", (text, remote, transport, protocol)).map(drop)
        }
    }
}

/// `create_datagram_endpoint(protocol_factory, local_addr, remote_addr, …)`.
pub(super) fn create_endpoint<'py>(event_loop: &Bound<'py, PyAny>, request: Request) -> Object<'py> {
    let (py, event_loop) = (event_loop.py(), event_loop.clone().unbind());
    coroutine(py, "BaseEventLoop.create_datagram_endpoint", async move {
        let (sock, address) = match &request.sock {
            Some(sock) => attached(|py| {
                request.check_socket(sock.bind(py))?;
                Ok::<_, PyErr>((sock.clone_ref(py), None))
            })?,
            None => request.open(&event_loop).await?,
        };
        let (transport, protocol, waiter) = attached(|py| {
            let (event_loop, sock) = (event_loop.bind(py), sock.bind(py));
            let make = || -> PyResult<_> {
                let protocol = request.protocol_factory.bind(py).call0()?;
                let waiter = futures::new(event_loop)?;
                let address = address.map(|address| address.into_bound(py));
                let transport = udp::make(event_loop, sock, &protocol, address, Some(&waiter))?;
                request.log(event_loop, transport.as_unbound(), protocol.as_unbound())?;
                Ok((transport.unbind(), protocol.unbind(), waiter.unbind()))
            };
            let made = make();
            if made.is_err() && request.sock.is_none() {
                close_quietly(sock);
            }
            made
        })?;
        if let Err(error) = async_fn::wait(waiter).await {
            attached(|py| transport.call_method0(py, intern!(py, "close")))?;
            return Err(error);
        }
        attached(|py| Ok((transport, protocol).into_pyobject(py)?.into_any().unbind()))
    })
}
