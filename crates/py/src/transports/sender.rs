//! A transport as native code writes to it: StreamWriter, and layers that stand between a transport and a program.
//!
//! One of ours is called directly; any other object has asyncio's methods. The kinds are listed here and nowhere else.

use pyo3::prelude::*;
use pyo3::{Borrowed, intern};

use aioxide_core::phase::Happening;

use super::{tcp, write};
use crate::ffi::class::Inst;

/// A transport to write to. Any call may run Python code.
#[derive(Clone, Copy)]
pub(crate) enum Sender<'a, 'py> {
    /// A stream socket.
    Tcp(tcp::This<'a, 'py>),
    /// Whatever has the methods.
    Python(Borrowed<'a, 'py, PyAny>),
}

impl<'a, 'py> Sender<'a, 'py> {
    /// What `transport` is: of exactly which type, as subclasses may have methods of their own, and so may an instance
    /// that something has been put on.
    #[inline]
    pub(crate) fn of(transport: &'a Bound<'py, PyAny>) -> Self {
        match Inst::<tcp::TcpTransport>::cast_exact(transport) {
            Some(tcp) if tcp.is_plain() => Self::Tcp(tcp),
            _ => Self::Python(transport.as_borrowed()),
        }
    }

    /// `write(data)`.
    #[inline]
    pub(crate) fn write(self, data: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
        match self {
            Self::Tcp(tcp) => write::write(tcp, data),
            Self::Python(object) => object.call_method1(intern!(object.py(), "write"), (data,)).map(drop),
        }
    }

    /// `writelines(lines)`.
    pub(crate) fn write_lines(self, lines: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
        match self {
            Self::Tcp(tcp) => write::write_lines(tcp, lines),
            Self::Python(object) => {
                object.call_method1(intern!(object.py(), "writelines"), (lines,)).map(drop)
            }
        }
    }

    /// `get_extra_info("sslcontext") is not None`.
    pub(crate) fn is_tls(self) -> PyResult<bool> {
        match self {
            Self::Tcp(_) => Ok(false),
            Self::Python(object) => {
                let py = object.py();
                let context =
                    object.call_method1(intern!(py, "get_extra_info"), (intern!(py, "sslcontext"),))?;
                Ok(!context.is_none())
            }
        }
    }

    /// `close()`.
    pub(crate) fn close(self) -> PyResult<()> {
        match self {
            Self::Tcp(tcp) => tcp.happened(Happening::Close, None),
            Self::Python(object) => object.call_method0(intern!(object.py(), "close")).map(drop),
        }
    }

    /// `is_closing()`.
    #[inline]
    pub(crate) fn is_closing(self) -> PyResult<bool> {
        match self {
            Self::Tcp(tcp) => Ok(tcp.phase.get().is_closing()),
            Self::Python(object) => object.call_method0(intern!(object.py(), "is_closing"))?.is_truthy(),
        }
    }

    /// `pause_reading()`.
    pub(crate) fn pause_reading(self) -> PyResult<()> {
        match self {
            Self::Tcp(tcp) => tcp.pause_reading(),
            Self::Python(object) => object.call_method0(intern!(object.py(), "pause_reading")).map(drop),
        }
    }

    /// `resume_reading()`.
    pub(crate) fn resume_reading(self) -> PyResult<()> {
        match self {
            Self::Tcp(tcp) => tcp.resume_reading(),
            Self::Python(object) => object.call_method0(intern!(object.py(), "resume_reading")).map(drop),
        }
    }
}
