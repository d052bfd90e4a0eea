//! The end: what is there goes first, then close_notify, then the transport below is closed; and the clock that runs
//! meanwhile.

use aioxide_core::tls_phase::TlsHappening;
use pyo3::exceptions::PyTimeoutError;
use pyo3::intern;
use pyo3::prelude::*;

use super::engine::Got;
use super::options::names;
use super::{Sender, This, read, soon, write};

/// Hands over and sends what there is, then goes on to the exchange of close_notify.
pub(super) fn flush(this: This<'_, '_>, timed: bool) -> PyResult<()> {
    if timed {
        this.start_timer(&this.shutdown_timer, &this.shutdown_timeout, "_check_shutdown_timeout")?;
    }
    read::read(this)?;
    this.happened(TlsHappening::Flushed)
}

/// The peer sends no more: sends what there is.
pub(super) fn drain(this: This<'_, '_>) -> PyResult<()> {
    write::send_backlog(this)?;
    this.happened(TlsHappening::Flushed)
}

/// As much of the exchange as can be done now.
pub(super) fn shut(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    // Once the peer's stream has ended there is nobody to answer.
    let result = if this.peer_ended.get() { Ok(Got::Done(())) } else { this.engine.unwrap(py) };
    match result {
        Ok(Got::Later) => write::send_owed(this),
        Ok(Got::Done(())) => {
            write::send_owed(this)?;
            read::tell_eof(this)?;
            finish(this)
        }
        Err(error) if error.matches(py, names(py)?.ssl_error.bind(py))? => {
            this.stop_timer(&this.shutdown_timer)?;
            this.fatal(error.into_value(py).bind(py).as_any(), "Fatal error on transport")
        }
        Err(error) => Err(error),
    }
}

/// Closes the transport below, in the next turn. That one sends what it has first, which a peer that does not read can
/// put off for ever: the clock runs until the connection is lost.
fn finish(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    if !this.shutdown_timer.is_some() {
        this.start_timer(&this.shutdown_timer, &this.shutdown_timeout, "_check_shutdown_timeout")?;
    }
    match (this.event_loop.get(py), this.transport.get(py)) {
        (Some(event_loop), Some(transport)) => {
            soon(&event_loop, &transport.getattr(intern!(py, "close"))?, None)
        }
        _ => Ok(()),
    }
}

/// `_check_shutdown_timeout()`: the time is up.
pub(super) fn check_timeout(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    if !this.phase.get().is_closing() {
        return Ok(());
    }
    let Some(transport) = this.transport.get(py) else { return Ok(()) };
    let error = PyTimeoutError::new_err("SSL shutdown timed out").into_value(py);
    Sender::of(&transport).force_close(Some(error.bind(py).as_any()))
}
