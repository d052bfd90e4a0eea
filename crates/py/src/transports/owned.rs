//! The socket of a stream transport: a Python object, or a descriptor alone until somebody asks for the object.
//!
//! An accepted connection starts as a descriptor and an address: most programs never look at more, so neither the
//! socket object nor what `get_extra_info` tells is made before it is asked for. The transport is the one owner of the
//! descriptor either way.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use aioxide_sys::{Address, socket};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use super::addresses;
use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::references;
use crate::ffi::gc::{Stopped, Visit};
use crate::names::{asyncio, none};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// What a transport is made of.
#[derive(Debug)]
pub(crate) enum Socket<'py> {
    /// A socket object, connected to `peername` if that is known already.
    Object(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>),
    /// A connection that a plain TCP server has accepted.
    Accepted(OwnedFd, Option<Address>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Owned {
    /// The object, if there is one and it is open.
    object: Slot,
    /// The descriptor, as long as there is no object.
    descriptor: GilCell<Option<OwnedFd>>,
    /// Both ends, once they can't be asked for any more or could be gone when they are.
    names: GilCell<Names>,
    /// `_extra`, once it is made.
    extra: Slot,
    open: Flag<bool>,
}

#[derive(Debug, Default)]
struct Names {
    local: Option<Box<Address>>,
    peer: Option<Box<Address>>,
}

impl Owned {
    /// The socket and its descriptor's number.
    pub(super) fn new(py: Python<'_>, socket: Socket<'_>) -> PyResult<(Self, RawFd)> {
        let names = |peer: Option<Address>| GilCell::new(Names { local: None, peer: peer.map(Box::new) });
        match socket {
            Socket::Object(object, peername) => {
                let fd = object.call_method0(intern!(py, "fileno"))?.extract()?;
                let extra = Slot::holding(describe(&object, peername)?.into_any().unbind());
                let owned = Self {
                    object: Slot::holding(object.unbind()),
                    descriptor: GilCell::new(None),
                    names: names(None),
                    extra,
                    open: Flag::new(true),
                };
                Ok((owned, fd))
            }
            Socket::Accepted(descriptor, peer) => {
                let fd = descriptor.as_raw_fd();
                let owned = Self {
                    object: Slot::empty(),
                    descriptor: GilCell::new(Some(descriptor)),
                    names: names(peer),
                    extra: Slot::empty(),
                    open: Flag::new(true),
                };
                Ok((owned, fd))
            }
        }
    }

    /// Whether it has not been closed.
    pub(super) fn is_open(&self) -> bool {
        self.open.get()
    }

    /// Whether nobody can do anything to the socket without asking the transport for it first.
    pub(super) fn is_private(&self, py: Python<'_>) -> bool {
        if self.descriptor.with(py, |descriptor| descriptor.is_some()) {
            return true;
        }
        let (Some(object), Some(extra)) = (self.object.get(py), self.extra.get(py)) else { return false };
        let Ok(Some(shown)) = extra
            .cast::<PyDict>()
            .map_err(drop)
            .and_then(|extra| extra.get_item(intern!(py, "socket")).map_err(drop))
        else {
            return false;
        };
        // Ours and these three; the object is also what is shown by `get_extra_info`.
        references(&extra) == 2 && references(&shown) == 2 && references(&object) == 3
    }

    /// The object of an open socket.
    pub(super) fn object<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let bare = self.descriptor.with(py, |descriptor| descriptor.as_ref().map(AsRawFd::as_raw_fd));
        let Some(fd) = bare else { return Ok(self.object.get(py)) };
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "fileno"), fd)?;
        let object = class(py)?.call((), Some(&keywords))?;
        // From here on the object owns the descriptor.
        let _ = self.descriptor.with(py, Option::take).map(IntoRawFd::into_raw_fd);
        self.object.set(py, object.clone());
        object.call_method1(intern!(py, "setblocking"), (false,))?;
        Ok(Some(object))
    }

    /// `_extra`.
    pub(super) fn extra<'py>(&self, py: Python<'py>) -> Object<'py> {
        if let Some(extra) = self.extra.get(py) {
            return Ok(extra);
        }
        self.note_local(py);
        let show = |address: Option<Box<Address>>| match address {
            Some(address) => addresses::shown(py, &address),
            None => Ok(none(py)),
        };
        let (local, peer) = self.names.with(py, |names| (names.local.clone(), names.peer.clone()));
        let object = match self.object(py)? {
            Some(object) => object,
            None => {
                // Closed, as asyncio's would be.
                let family = local.as_ref().map(|address| address.family());
                let closed = class(py)?.call1((family.map_or(-1, i32::from),))?;
                closed.call_method0(intern!(py, "close"))?;
                closed
            }
        };
        let extra = PyDict::new(py);
        extra.set_item(intern!(py, "socket"), transport_socket(&object)?)?;
        extra.set_item(intern!(py, "sockname"), show(local)?)?;
        extra.set_item(intern!(py, "peername"), show(peer)?)?;
        let extra = extra.into_any();
        self.extra.set(py, extra.clone());
        Ok(extra)
    }

    /// `_extra = value`.
    pub(super) fn set_extra(&self, value: Bound<'_, PyAny>) {
        self.extra.set(value.py(), value);
    }

    /// Remembers our own address, which a closed socket has no more.
    fn note_local(&self, py: Python<'_>) {
        if !self.extra.is_some() {
            let local = self.descriptor.with(py, |descriptor| {
                descriptor.as_ref().and_then(|descriptor| socket::local_addr(descriptor).ok())
            });
            if let Some(local) = local {
                self.names.with(py, |names| names.local = Some(Box::new(local)));
            }
        }
    }

    /// Closes it.
    pub(super) fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.note_local(py);
        self.open.set(false);
        drop(self.descriptor.with(py, Option::take));
        match self.object.take(py) {
            Some(object) => object.call_method0(intern!(py, "close")).map(drop),
            None => Ok(()),
        }
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.object.traverse(visit)?;
        self.extra.traverse(visit)
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        drop((self.object.take(py), self.extra.take(py)));
    }
}

/// `socket.socket`.
fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "socket", "socket")
}

/// The dict behind `get_extra_info`.
pub(super) fn describe<'py>(
    sock: &Bound<'py, PyAny>,
    peername: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = sock.py();
    let name = |method| match sock.call_method0(method) {
        Err(error) if error.is_instance_of::<PyOSError>(py) => Ok(none(py)),
        result => result,
    };
    let extra = PyDict::new(py);
    extra.set_item(intern!(py, "socket"), transport_socket(sock)?)?;
    extra.set_item(intern!(py, "sockname"), name(intern!(py, "getsockname"))?)?;
    let peername = match peername {
        Some(peername) => peername,
        None => name(intern!(py, "getpeername"))?,
    };
    extra.set_item(intern!(py, "peername"), peername)?;
    Ok(extra)
}

/// `asyncio.trsock.TransportSocket(sock)`.
pub(crate) fn transport_socket<'py>(sock: &Bound<'py, PyAny>) -> Object<'py> {
    let py = sock.py();
    asyncio(py).trsock.bind(py).call_method1(intern!(py, "TransportSocket"), (sock,))
}
