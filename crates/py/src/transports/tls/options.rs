//! What a caller asks of TLS, checked as asyncio checks it, and the parts of the `ssl` module.
//!
//! `ssl` is imported when TLS is first asked for: an interpreter without it works for everything else.

use crate::ffi::gc::{Stopped, Visit};
use crate::names::asyncio;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBool;

/// Names of the `ssl` module, looked up once.
pub(super) struct Names {
    pub(super) module: Py<PyModule>,
    pub(super) ssl_error: Py<PyAny>,
    pub(super) certificate_error: Py<PyAny>,
    /// What OpenSSL raises when it needs more from the peer: the first is the usual one.
    pub(super) again: [Py<PyAny>; 2],
    pub(super) ssl_object: Py<PyAny>,
    pub(super) memory_bio: Py<PyAny>,
    /// What is behind an SSLObject.
    pub(super) c_object: Py<PyAny>,
}

/// The table; ImportError where Python has no `ssl`.
#[inline]
pub(super) fn names(py: Python<'_>) -> PyResult<&'static Names> {
    static NAMES: PyOnceLock<Names> = PyOnceLock::new();
    NAMES.get_or_try_init(py, || {
        let module = py.import("ssl")?;
        let get = |name: &str| module.getattr(name).map(Bound::unbind);
        let own = py.import("_ssl")?;
        Ok(Names {
            ssl_error: get("SSLError")?,
            certificate_error: get("CertificateError")?,
            again: [get("SSLWantReadError")?, get("SSLSyscallError")?],
            ssl_object: get("SSLObject")?,
            memory_bio: own.getattr("MemoryBIO")?.unbind(),
            c_object: own.getattr("_SSLSocket")?.unbind(),
            module: module.unbind(),
        })
    })
}

/// What `create_connection`, `create_server`, `start_tls` and their kin are asked for.
#[derive(Debug)]
pub(crate) struct Options {
    /// An `ssl.SSLContext`; nothing: the default one, for clients.
    pub(crate) context: Option<Py<PyAny>>,
    pub(crate) server_side: bool,
    pub(crate) server_hostname: Option<Py<PyAny>>,
    pub(crate) handshake_timeout: Option<Py<PyAny>>,
    pub(crate) shutdown_timeout: Option<Py<PyAny>>,
}

/// `ssl_handshake_timeout` and `ssl_shutdown_timeout`.
type Timeouts<'a> = (Option<&'a Py<PyAny>>, Option<&'a Py<PyAny>>);

/// [`Options`] with every default filled in.
pub(super) struct Checked<'py> {
    pub(super) context: Bound<'py, PyAny>,
    pub(super) server_hostname: Option<Bound<'py, PyAny>>,
    pub(super) handshake_timeout: Bound<'py, PyAny>,
    pub(super) shutdown_timeout: Bound<'py, PyAny>,
}

impl Options {
    /// What a connection asks for, if `ssl=` says so; True stands for the default context.
    pub(crate) fn client(
        py: Python<'_>,
        ssl: Option<&Py<PyAny>>,
        server_hostname: Option<&Py<PyAny>>,
        timeouts: Timeouts<'_>,
    ) -> PyResult<Option<Self>> {
        let options = Self::of(py, ssl, false, timeouts)?;
        let server_hostname = server_hostname.map(|name| name.clone_ref(py));
        Ok(options.map(|options| Self { server_hostname, ..options }))
    }

    /// As [`client`](Self::client), for the other side.
    pub(crate) fn server(
        py: Python<'_>,
        ssl: Option<&Py<PyAny>>,
        timeouts: Timeouts<'_>,
    ) -> PyResult<Option<Self>> {
        Self::of(py, ssl, true, timeouts)
    }

    /// What `ssl` was: a context, or True for one of asyncio's making.
    pub(crate) fn asked<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match &self.context {
            Some(context) => context.bind(py).clone(),
            None => PyBool::new(py, true).to_owned().into_any(),
        }
    }

    fn of(
        py: Python<'_>,
        ssl: Option<&Py<PyAny>>,
        server_side: bool,
        (handshake, shutdown): Timeouts<'_>,
    ) -> PyResult<Option<Self>> {
        let Some(ssl) = ssl.filter(|ssl| !ssl.bind(py).is_none()) else { return Ok(None) };
        if !ssl.bind(py).is_truthy()? {
            return Ok(None);
        }
        Ok(Some(Self {
            context: (!ssl.bind(py).is_instance_of::<PyBool>()).then(|| ssl.clone_ref(py)),
            server_side,
            server_hostname: None,
            handshake_timeout: handshake.map(|timeout| timeout.clone_ref(py)),
            shutdown_timeout: shutdown.map(|timeout| timeout.clone_ref(py)),
        }))
    }

    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        let Self { context, server_hostname, handshake_timeout, shutdown_timeout, server_side: _ } = self;
        [context, server_hostname, handshake_timeout, shutdown_timeout]
            .into_iter()
            .try_for_each(|object| visit.call(object.as_ref()))
    }

    /// What `start_tls` wants to be sure of first.
    pub(crate) fn check_context(&self, py: Python<'_>) -> PyResult<()> {
        let names = names(py).map_err(|_| missing("Python ssl module is not available"))?;
        let class = names.module.bind(py).getattr(intern!(py, "SSLContext"))?;
        let none = py.None();
        let context = self.context.as_ref().unwrap_or(&none).bind(py);
        if context.is_instance(&class)? {
            return Ok(());
        }
        let shown = context.repr()?;
        Err(PyTypeError::new_err(format!(
            "sslcontext is expected to be an instance of ssl.SSLContext, got {shown}"
        )))
    }

    pub(super) fn check<'py>(&self, py: Python<'py>) -> PyResult<Checked<'py>> {
        let handshake_timeout =
            timeout(py, "ssl_handshake_timeout", self.handshake_timeout.as_ref(), "SSL_HANDSHAKE_TIMEOUT")?;
        let shutdown_timeout =
            timeout(py, "ssl_shutdown_timeout", self.shutdown_timeout.as_ref(), "SSL_SHUTDOWN_TIMEOUT")?;
        let hostname = self.server_hostname.as_ref().map(|name| name.bind(py).clone());
        let named = hostname.as_ref().map_or(Ok(false), Bound::is_truthy)?;
        let context = match self.context.as_ref().map(|context| context.bind(py)) {
            Some(context) if context.is_truthy()? => context.clone(),
            _ => default_context(py, self.server_side, named)?,
        };
        let server_hostname = hostname.filter(|_| named && !self.server_side);
        Ok(Checked { context, server_hostname, handshake_timeout, shutdown_timeout })
    }
}

/// A timeout that was given, or asyncio's own.
fn timeout<'py>(
    py: Python<'py>,
    name: &str,
    given: Option<&Py<PyAny>>,
    default: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(given) = given.map(|given| given.bind(py)).filter(|given| !given.is_none()) else {
        return asyncio(py).constants.bind(py).getattr(default);
    };
    if given.le(0)? {
        return Err(PyValueError::new_err(format!("{name} should be a positive number, got {given}")));
    }
    Ok(given.clone())
}

/// What `ssl=True` stands for.
fn default_context(py: Python<'_>, server_side: bool, named: bool) -> PyResult<Bound<'_, PyAny>> {
    if server_side {
        return Err(PyValueError::new_err("Server side SSL needs a valid SSLContext"));
    }
    let module = names(py).map_err(|_| missing("stdlib ssl module not available"))?.module.bind(py);
    let context = module.call_method0(intern!(py, "create_default_context"))?;
    if !named {
        context.setattr(intern!(py, "check_hostname"), false)?;
    }
    Ok(context)
}

/// What asyncio raises on a Python without `ssl`.
pub(super) fn missing(text: &'static str) -> PyErr {
    PyRuntimeError::new_err(text)
}
