//! From a host and a port to socket addresses: numeric addresses at once, names by `loop.getaddrinfo`.
//!
//! Used by connect.rs, serve.rs and sockets.rs; the results are `getaddrinfo`'s tuples, as Python code knows them.

use std::net::{Ipv4Addr, Ipv6Addr};

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};

use crate::async_fn::{self, attached};

/// What is to be resolved.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) host: Py<PyAny>,
    pub(super) port: Py<PyAny>,
    pub(super) family: i32,
    pub(super) kind: i32,
    pub(super) proto: i32,
    pub(super) flags: i32,
    /// What an IPv6 address has beyond host and port: flow information and scope.
    pub(super) more: Vec<Py<PyAny>>,
}

/// A number of the socket module.
pub(super) fn constant<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import(intern!(py, "socket"))?.getattr(name)
}

/// The same as a plain number.
pub(super) fn number(py: Python<'_>, name: &str) -> PyResult<i32> {
    constant(py, name)?.extract()
}

impl Wanted {
    /// An address as a program gives it: a tuple that starts with host and port.
    pub(super) fn of_address(
        address: &Bound<'_, PyAny>,
        family: i32,
        kind: i32,
        proto: i32,
    ) -> PyResult<Self> {
        let mut parts =
            address.try_iter()?.map(|part| part.map(Bound::unbind)).collect::<PyResult<Vec<_>>>()?;
        let more = parts.split_off(parts.len().min(2));
        let [host, port] = <[_; 2]>::try_from(parts).map_err(|parts| {
            PyValueError::new_err(format!("not enough values to unpack (expected 2, got {})", parts.len()))
        })?;
        Ok(Self { host, port, family, kind, proto, flags: 0, more })
    }

    /// The address that a socket is to connect to, if its family has names.
    pub(super) fn of_socket(sock: &Bound<'_, PyAny>, address: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let py = sock.py();
        let attribute = |name| -> PyResult<i32> { sock.getattr(name)?.extract() };
        let family = attribute(intern!(py, "family"))?;
        if family != number(py, "AF_INET")? && family != number(py, "AF_INET6")? {
            return Ok(None);
        }
        let (kind, proto) = (attribute(intern!(py, "type"))?, attribute(intern!(py, "proto"))?);
        Self::of_address(address, family, kind, proto).map(Some)
    }

    /// The one result for a host that is a number already.
    fn numeric<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let (tcp, udp) = (number(py, "IPPROTO_TCP")?, number(py, "IPPROTO_UDP")?);
        let host = self.host.bind(py);
        if ![0, tcp, udp].contains(&self.proto) || host.is_none() {
            return Ok(None);
        }
        let proto = if self.kind == number(py, "SOCK_STREAM")? {
            tcp
        } else if self.kind == number(py, "SOCK_DGRAM")? {
            udp
        } else {
            return Ok(None);
        };
        let Some(port) = port_number(self.port.bind(py))? else { return Ok(None) };
        let host = match host.cast::<PyBytes>() {
            Ok(bytes) => bytes.call_method1(intern!(py, "decode"), ("idna",))?,
            Err(_) => host.clone(),
        };
        let Ok(text) = host.cast::<PyString>().map_err(PyErr::from).and_then(|host| host.to_str()) else {
            return Ok(None); // getaddrinfo says what is wrong with it
        };
        let family = |name: &'static str| constant(py, name);
        let (inet, inet6) = (family("AF_INET")?, family("AF_INET6")?);
        let any = self.family == number(py, "AF_UNSPEC")?;
        if (any || inet.eq(self.family)?) && text.parse::<Ipv4Addr>().is_ok() {
            return (inet, self.kind, proto, "", (host, port)).into_pyobject(py).map(Some);
        }
        // An address with a zone, `fe80::1%eth0`, does not parse: getaddrinfo knows the interfaces.
        if (any || inet6.eq(self.family)?) && text.parse::<Ipv6Addr>().is_ok() {
            let more = |i: usize| {
                self.more.get(i).map_or_else(|| PyInt::new(py, 0).into_any(), |m| m.bind(py).clone())
            };
            let address = (host, port, more(0), more(1));
            return (inet6, self.kind, proto, "", address).into_pyobject(py).map(Some);
        }
        Ok(None)
    }
}

/// The port as a number; nothing for the name of a service.
fn port_number<'py>(port: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = port.py();
    let missing = port.is_none()
        || port.cast::<PyString>().is_ok_and(|p| p.is_empty().unwrap_or(false))
        || port.cast::<PyBytes>().is_ok_and(|p| p.as_bytes().is_empty());
    if missing {
        return Ok(Some(PyInt::new(py, 0).into_any()));
    }
    match py.get_type::<PyInt>().call1((port,)) {
        Ok(number) => Ok(Some(number)),
        Err(error)
            if error.is_instance_of::<PyTypeError>(py)
                || error.is_instance_of::<PyValueError>(py)
                || error.is_instance_of::<PyOverflowError>(py) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The list of results, each a tuple as `socket.getaddrinfo` gives them.
pub(super) async fn resolve(event_loop: &Py<PyAny>, wanted: Wanted) -> PyResult<Py<PyAny>> {
    let asked = attached(|py| -> PyResult<_> {
        if let Some(info) = wanted.numeric(py)? {
            return Ok(Err(PyList::new(py, [info])?.into_any().unbind()));
        }
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "family"), wanted.family)?;
        keywords.set_item(intern!(py, "type"), wanted.kind)?;
        keywords.set_item(intern!(py, "proto"), wanted.proto)?;
        keywords.set_item(intern!(py, "flags"), wanted.flags)?;
        let method = event_loop.bind(py).getattr(intern!(py, "getaddrinfo"))?;
        Ok(Ok(method.call((&wanted.host, &wanted.port), Some(&keywords))?.unbind()))
    })?;
    match asked {
        Ok(coroutine) => async_fn::wait(coroutine).await,
        Err(known) => Ok(known),
    }
}
