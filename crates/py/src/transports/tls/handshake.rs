//! The handshake: begun when the transport below is connected, gone on with whenever bytes come in, and its end.

use aioxide_core::tls_phase::TlsHappening;
use pyo3::exceptions::{PyConnectionAbortedError, PyException};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::engine::Got;
use super::options::names;
use super::{App, This, report, write};
use crate::errors::ends_the_loop;
use crate::futures::is_debug;

/// The transport below is connected.
pub(super) fn begin(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    this.log("%r starts SSL handshake")?;
    if let Some(event_loop) = this.event_loop.get(py)
        && is_debug(&event_loop)?
    {
        this.handshake_start.set(now(&event_loop)?);
    }
    this.start_timer(&this.handshake_timer, &this.handshake_timeout, "_check_handshake_timeout")?;
    go_on(this)
}

fn now(event_loop: &Bound<'_, PyAny>) -> PyResult<f64> {
    event_loop.call_method0(intern!(event_loop.py(), "time"))?.extract()
}

/// Does as much of the handshake as can be done now.
pub(super) fn go_on(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    match this.engine.shake(py) {
        Ok(Got::Later) => write::send_owed(this),
        Ok(Got::Done(())) => complete(this, Ok(())),
        Err(error) if error.matches(py, names(py)?.ssl_error.bind(py))? => complete(this, Err(error)),
        Err(error) => Err(error),
    }
}

/// The handshake is over.
pub(super) fn complete(this: This<'_, '_>, result: PyResult<()>) -> PyResult<()> {
    let py = this.py();
    this.stop_timer(&this.handshake_timer)?;
    let known = result.and_then(|()| {
        this.happened(TlsHappening::Shaken)?;
        learn(this)
    });
    if let Err(error) = known {
        return give_up(this, error);
    }
    if let Some(event_loop) = this.event_loop.get(py)
        && !this.handshake_start.get().is_nan()
        && is_debug(&event_loop)?
    {
        let milliseconds = (now(&event_loop)? - this.handshake_start.get()) * 1e3;
        let milliseconds = milliseconds.into_pyobject(py)?.into_any();
        report::debug(&event_loop, "%r: SSL handshake took %.1f ms", &[&this.to_owned(), &milliseconds])?;
    }
    if this.app.get() == App::Unaware
        && let (Some(protocol), Some(transport)) = (this.protocol.get(py), this.app_transport.get(py))
    {
        this.app.set(App::Connected);
        protocol.call_method1(intern!(py, "connection_made"), (transport,))?;
    }
    this.wake(None)?;
    this.received() // what came in behind the handshake
}

/// What `get_extra_info` knows from now on.
fn learn(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    let (Some(object), Some(extra)) = (this.engine.object.get(py), this.extra.get(py)) else {
        return Ok(());
    };
    let ask = |method| object.call_method0(method);
    extra.set_item(intern!(py, "peercert"), ask(intern!(py, "getpeercert"))?)?;
    extra.set_item(intern!(py, "cipher"), ask(intern!(py, "cipher"))?)?;
    extra.set_item(intern!(py, "compression"), ask(intern!(py, "compression"))?)?;
    extra.set_item(intern!(py, "ssl_object"), object)
}

/// The handshake has failed.
fn give_up(this: This<'_, '_>, error: PyErr) -> PyResult<()> {
    let py = this.py();
    if ends_the_loop(py, &error) || !error.is_instance_of::<PyException>(py) {
        return Err(error);
    }
    // OpenSSL has an alert for the peer, which says what was wrong; where it can't go, the connection ends all the same.
    let _ = write::send_owed(this);
    this.happened(TlsHappening::End)?;
    let certificate = error.matches(py, names(py)?.certificate_error.bind(py))?;
    let message = if certificate {
        "SSL handshake failed on verifying the certificate"
    } else {
        "SSL handshake failed"
    };
    let error = error.into_value(py);
    let error = error.bind(py).as_any();
    this.fatal(error, message)?;
    let (protocol, transport) = (this.protocol.get(py), this.app_transport.get(py));
    report_accepted(this, error, protocol.as_ref(), transport.as_ref())?;
    this.wake(Some(error))
}

/// Nobody waits for the handshake of an accepted connection: in debug mode the program hears of it all the same.
pub(super) fn report_accepted<'py>(
    this: This<'_, 'py>,
    error: &Bound<'py, PyAny>,
    protocol: Option<&Bound<'py, PyAny>>,
    transport: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let py = this.py();
    let Some(event_loop) = this.event_loop.get(py).filter(|_| this.accepted) else { return Ok(()) };
    if !is_debug(&event_loop)? {
        return Ok(());
    }
    let details = PyDict::new(py);
    details.set_item("message", "Error on transport creation for incoming connection")?;
    details.set_item("exception", error)?;
    details.set_item("protocol", protocol)?;
    details.set_item("transport", transport)?;
    event_loop.call_method1(intern!(py, "call_exception_handler"), (details,)).map(drop)
}

/// `_check_handshake_timeout()`: the time is up.
pub(super) fn check_timeout(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    if this.phase.get() != aioxide_core::TlsPhase::Handshaking {
        return Ok(());
    }
    let timeout = this.handshake_timeout.get(py).unwrap_or_else(|| crate::names::none(py));
    let error = PyConnectionAbortedError::new_err(format!(
        "SSL handshake is taking longer than {timeout} seconds: aborting the connection"
    ));
    this.fatal(error.into_value(py).bind(py).as_any(), "Fatal error on transport")
}
