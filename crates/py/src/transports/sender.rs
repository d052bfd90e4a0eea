//! A transport as native code writes to it: StreamWriter, and layers that stand between a transport and a program.
//!
//! One of ours is called directly; any other object has asyncio's methods. The kinds are listed here and nowhere else.

use pyo3::prelude::*;
use pyo3::{Borrowed, intern};

use aioxide_core::phase::Happening;

use super::tls::surface;
use super::{tcp, write};
use crate::ffi::class::Inst;

/// A transport to write to. Any call may run Python code.
#[derive(Clone, Copy)]
pub(crate) enum Sender<'a, 'py> {
    /// A stream socket.
    Tcp(tcp::This<'a, 'py>),
    /// TLS over another transport.
    Tls(surface::This<'a, 'py>),
    /// Whatever has the methods.
    Python(Borrowed<'a, 'py, PyAny>),
}

impl<'a, 'py> Sender<'a, 'py> {
    /// What `transport` is: of exactly which type, as subclasses may have methods of their own, and so may an instance
    /// that something has been put on.
    #[inline]
    pub(crate) fn of(transport: &'a Bound<'py, PyAny>) -> Self {
        if let Some(tcp) = Inst::<tcp::TcpTransport>::cast_exact(transport).filter(|tcp| tcp.is_plain()) {
            return Self::Tcp(tcp);
        }
        match Inst::<surface::TlsTransport>::cast_exact(transport) {
            Some(tls) if tls.is_plain() => Self::Tls(tls),
            _ => Self::Python(transport.as_borrowed()),
        }
    }

    /// `write(data)`.
    #[inline]
    pub(crate) fn write(self, data: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
        match self {
            Self::Tcp(tcp) => write::write(tcp, data),
            Self::Tls(tls) => tls.write(data),
            Self::Python(object) => object.call_method1(intern!(object.py(), "write"), (data,)).map(drop),
        }
    }

    /// `writelines(lines)`.
    pub(crate) fn write_lines(self, lines: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
        match self {
            Self::Tcp(tcp) => write::write_lines(tcp, lines),
            Self::Tls(tls) => tls.write_lines(lines),
            Self::Python(object) => {
                object.call_method1(intern!(object.py(), "writelines"), (lines,)).map(drop)
            }
        }
    }

    /// `get_extra_info("sslcontext") is not None`.
    pub(crate) fn is_tls(self) -> PyResult<bool> {
        match self {
            Self::Tcp(_) => Ok(false),
            Self::Tls(_) => Ok(true),
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
            Self::Tls(tls) => tls.close(),
            Self::Python(object) => object.call_method0(intern!(object.py(), "close")).map(drop),
        }
    }

    /// `is_closing()`.
    #[inline]
    pub(crate) fn is_closing(self) -> PyResult<bool> {
        match self {
            Self::Tcp(tcp) => Ok(tcp.phase.get().is_closing()),
            Self::Tls(tls) => tls.is_closing(),
            Self::Python(object) => object.call_method0(intern!(object.py(), "is_closing"))?.is_truthy(),
        }
    }

    /// `pause_reading()`.
    pub(crate) fn pause_reading(self) -> PyResult<()> {
        match self {
            Self::Tcp(tcp) => tcp.pause_reading(),
            Self::Tls(tls) => tls.pause_reading(),
            Self::Python(object) => object.call_method0(intern!(object.py(), "pause_reading")).map(drop),
        }
    }

    /// `resume_reading()`.
    pub(crate) fn resume_reading(self) -> PyResult<()> {
        match self {
            Self::Tcp(tcp) => tcp.resume_reading(),
            Self::Tls(tls) => tls.resume_reading(),
            Self::Python(object) => object.call_method0(intern!(object.py(), "resume_reading")).map(drop),
        }
    }

    /// `_force_close(error)`: what is unsent is thrown away.
    pub(crate) fn force_close(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        match self {
            Self::Tcp(tcp) => tcp.happened(Happening::Fail, error),
            Self::Tls(tls) => tls.force_close(error),
            Self::Python(object) => {
                object.call_method1(intern!(object.py(), "_force_close"), (error,)).map(drop)
            }
        }
    }
}
