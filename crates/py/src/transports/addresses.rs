//! The addresses of IP sockets as Python shows them, `(host, port)` or `(host, port, flow, zone)`, both ways.
//!
//! A transport keeps those of its latest peers: whoever answers gives back the very tuple that came with the question.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use aioxide_sys::Address;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString, PyTuple};
use rustc_hash::FxHashMap;

use crate::ffi::cell::GilCell;
use crate::ffi::gc::{Stopped, Visit};
use crate::names::none;

/// How many peers are kept.
const MOST: usize = 256;

/// The latest peers of a transport.
#[derive(Debug)]
pub(super) struct Addresses {
    known: GilCell<Known>,
    /// Of an IPv6 socket.
    is_v6: bool,
}

#[derive(Debug, Default)]
struct Known {
    shown: FxHashMap<Address, Py<PyAny>>,
    /// The one that was shown last.
    last: Option<(Address, Py<PyAny>)>,
}

impl Addresses {
    pub(super) fn new(is_v6: bool) -> Self {
        Self { known: GilCell::new(Known::default()), is_v6 }
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        let all = |known: &Known| {
            visit.call(known.last.as_ref().map(|(_, shown)| shown))?;
            known.shown.values().try_for_each(|shown| visit.call(Some(shown)))
        };
        self.known.visit(all).unwrap_or(Ok(()))
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        let known = self.known.with(py, std::mem::take);
        crate::async_fn::attached(|_| drop(known));
    }

    /// The tuple for an address.
    pub(super) fn show<'py>(
        &self,
        py: Python<'py>,
        address: Option<&Address>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some(address) = address else { return Ok(none(py)) };
        let (found, old) = self.known.with(py, |known| match &known.last {
            Some((last, shown)) if last == address => (Some(shown.clone_ref(py)), None),
            _ => match known.shown.get(address) {
                Some(shown) => {
                    let last = (address.clone(), shown.clone_ref(py));
                    (Some(shown.clone_ref(py)), known.last.replace(last))
                }
                None => (None, None),
            },
        });
        drop(old);
        if let Some(shown) = found {
            return Ok(shown.into_bound(py));
        }
        let shown = shown(py, address)?;
        let (entry, last) = (shown.clone().unbind(), shown.clone().unbind());
        let dropped = self.known.with(py, |known| {
            let full = if known.shown.len() < MOST { None } else { Some(std::mem::take(&mut known.shown)) };
            (full, known.last.replace((address.clone(), last)), known.shown.insert(address.clone(), entry))
        });
        drop(dropped);
        Ok(shown)
    }

    /// The address that a tuple means. None: the socket's own method must look at it, as it may be a name.
    pub(super) fn parse(&self, shown: &Bound<'_, PyAny>) -> PyResult<Option<Address>> {
        let py = shown.py();
        let same = self.known.with(py, |known| match &known.last {
            Some((address, last)) if last.is(shown) => Some(address.clone()),
            _ => None,
        });
        let matches = |address: &Address| matches!(address, Address::V6(_)) == self.is_v6;
        Ok(same.or_else(|| parse(shown)).filter(matches))
    }
}

/// A new tuple for an address.
pub(super) fn shown<'py>(py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyAny>> {
    let host = address.host().unwrap_or_default();
    Ok(match address {
        Address::V4(v4) => (host, v4.port()).into_pyobject(py)?.into_any(),
        Address::V6(v6) => (host, v6.port(), v6.flowinfo(), v6.scope_id()).into_pyobject(py)?.into_any(),
        Address::Unix(_) | Address::Other(_) => none(py),
    })
}

/// A numeric address in a plain tuple.
fn parse(shown: &Bound<'_, PyAny>) -> Option<Address> {
    let tuple = shown.cast_exact::<PyTuple>().ok()?;
    let host = tuple.get_borrowed_item(0).ok()?;
    let host = host.cast_exact::<PyString>().ok()?;
    let host = host.to_str().ok()?;
    let number = |i: usize| -> Option<u32> {
        let item = tuple.get_borrowed_item(i).ok()?;
        item.cast_exact::<PyInt>().ok()?.extract().ok()
    };
    let port = u16::try_from(number(1)?).ok()?;
    if let Ok(host) = host.parse::<Ipv4Addr>() {
        return (tuple.len() == 2).then_some(Address::V4(SocketAddrV4::new(host, port)));
    }
    let host = host.parse::<Ipv6Addr>().ok()?;
    let more = |i| if tuple.len() > i { number(i) } else { Some(0) };
    let (flow, zone) = (more(2)?, more(3)?);
    (tuple.len() <= 4 && flow < 1 << 20).then(|| Address::V6(SocketAddrV6::new(host, port, flow, zone)))
}
