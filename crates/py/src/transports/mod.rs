//! What a loop may watch: the closed list of sources. Vocabulary only: each kind acts in its own file.
//!
//! The driver owns one [`Source`] a descriptor. A turn takes a clone out, ends the borrow and calls
//! [`Source::on_ready`]; so what a source does may run Python code, close it, or close the loop.

mod addresses;
mod ahead;
mod base;
mod census;
pub(crate) mod flow;
pub(crate) mod held;
pub(crate) mod listener;
pub(crate) mod owned;
pub(crate) mod pipe_read;
pub(crate) mod pipe_write;
pub(crate) mod process;
pub(crate) mod process_pipe;
mod process_surface;
pub(crate) mod read;
pub(crate) mod receiver;
mod report;
pub(crate) mod sender;
pub(crate) mod server;
pub(crate) mod socket_file;
mod surface;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod udp;
mod write;

use aioxide_sys::{Key, Readiness};
use pyo3::prelude::*;

use crate::event_loop::readers::Watch;
use crate::event_loop::{EventLoop, signals};
use crate::ffi::class::Inst;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::prefetch::fetch;

/// Who is told that a descriptor is ready.
#[derive(Debug)]
pub(crate) enum Source {
    /// The loop's own waker.
    Waker,
    /// Where Python's signal handler writes signal numbers.
    Signals,
    /// `add_reader`, `add_writer`, the waits of `sock_*` and the listening sockets of servers.
    Watch(Watch),
    /// A stream transport.
    Tcp(Py<PyAny>),
    /// The transport of a pipe that is read.
    ReadPipe(Py<PyAny>),
    /// The transport of a pipe that is written.
    WritePipe(Py<PyAny>),
    /// A datagram transport.
    Datagram(Py<PyAny>),
    /// The transport of a child process.
    Child(Py<PyAny>),
}

impl Source {
    /// Another reference to the same source.
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Waker => Self::Waker,
            Self::Signals => Self::Signals,
            Self::Watch(watch) => Self::Watch(watch.clone_ref(py)),
            Self::Tcp(transport) => Self::Tcp(transport.clone_ref(py)),
            Self::ReadPipe(transport) => Self::ReadPipe(transport.clone_ref(py)),
            Self::WritePipe(transport) => Self::WritePipe(transport.clone_ref(py)),
            Self::Datagram(transport) => Self::Datagram(transport.clone_ref(py)),
            Self::Child(transport) => Self::Child(transport.clone_ref(py)),
        }
    }

    /// Shows what it holds to the garbage collector.
    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        match self {
            Self::Waker | Self::Signals => Ok(()),
            Self::Watch(watch) => watch.traverse(visit),
            Self::Tcp(transport)
            | Self::ReadPipe(transport)
            | Self::WritePipe(transport)
            | Self::Datagram(transport)
            | Self::Child(transport) => visit.call(Some(transport)),
        }
    }

    /// The transport that owns the descriptor, if one does.
    pub(crate) fn transport<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match self {
            Self::Tcp(transport)
            | Self::ReadPipe(transport)
            | Self::WritePipe(transport)
            | Self::Datagram(transport) => Some(transport.bind(py).clone()),
            Self::Waker | Self::Signals | Self::Watch(_) | Self::Child(_) => None,
        }
    }

    /// [`on_ready`](Self::on_ready) will be called soon: has the processor fetch the transport.
    #[inline]
    pub(crate) fn foresee(&self) {
        if let Self::Tcp(transport) = self {
            fetch::<3>(transport);
        }
    }

    /// Now that the transport is at hand, has the processor fetch what it needs first.
    #[inline]
    pub(crate) fn foresee_parts(&self, py: Python<'_>) {
        if let Self::Tcp(transport) = self
            && let Some(transport) = tcp::This::cast_exact(transport.bind(py))
        {
            transport.foresee_parts(py);
        }
    }

    /// [`on_ready`](Self::on_ready) will be called in this turn, to read.
    pub(crate) fn receive_ahead(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Tcp(transport) => Inst::cast(transport.bind(py)).map_or(Ok(()), ahead::receive),
            _ => Ok(()),
        }
    }

    /// The descriptor is ready. The waker never comes here, and of a watch only its listener: a turn makes other jobs of them.
    pub(crate) fn on_ready(
        self,
        event_loop: &Bound<'_, EventLoop>,
        _key: Key,
        ready: Readiness,
    ) -> PyResult<()> {
        match self {
            Self::Waker => Ok(()),
            Self::Watch(watch) => watch.listener().map_or(Ok(()), |it| listener::on_ready(event_loop, it)),
            Self::Signals => signals::on_ready(event_loop),
            Self::Tcp(transport) => match Inst::cast(transport.bind(event_loop.py())) {
                Some(transport) => tcp::on_ready(transport, ready),
                None => Ok(()),
            },
            Self::ReadPipe(transport) => match Inst::cast(transport.bind(event_loop.py())) {
                Some(transport) => pipe_read::on_ready(transport),
                None => Ok(()),
            },
            Self::WritePipe(transport) => match Inst::cast(transport.bind(event_loop.py())) {
                Some(transport) => pipe_write::on_ready(transport, ready),
                None => Ok(()),
            },
            Self::Datagram(transport) => match Inst::cast(transport.bind(event_loop.py())) {
                Some(transport) => udp::on_ready(event_loop, transport, ready),
                None => Ok(()),
            },
            Self::Child(transport) => match Inst::cast(transport.bind(event_loop.py())) {
                Some(transport) => process::on_ready(transport),
                None => Ok(()),
            },
        }
    }
}

/// Makes the types.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    surface::register(module)?;
    pipe_read::register(module)?;
    pipe_write::register(module)?;
    udp::register(module)?;
    process_surface::register(module)?;
    process_pipe::register(module)?;
    tls::register(module)?;
    server::register(module)
}
