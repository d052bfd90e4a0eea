//! From the session to the program: whole records, decrypted, and the peer's close_notify.

use aioxide_core::tls_phase::TlsHappening;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::engine::End;
use super::{App, FAILED, Sender, This, soon, write};
use crate::errors::ends_the_loop;
use crate::event_loop::debug::logger;
use crate::ffi::buffer;
use crate::ffi::scratch::Scratch;
use crate::transports::receiver::Receiver;

/// Hands over what has come in, and sends what that led to. What fails ends the connection.
pub(super) fn read(this: This<'_, '_>) -> PyResult<()> {
    if !this.phase.get().may_read() {
        return Ok(());
    }
    hand_over(this).or_else(|error| this.failed(error, FAILED))
}

fn hand_over(this: This<'_, '_>) -> PyResult<()> {
    let mut drained = false;
    if !this.pauses.get().reading {
        let receiver = this.receiver.get();
        drained = if receiver == Receiver::Buffered { into_lent(this)? } else { in_pieces(this)? };
    }
    write::flush(this)?;
    control_below(this, drained)
}

/// As bytes objects, each as much as has come in. Whether nothing is left.
fn in_pieces(this: This<'_, '_>) -> PyResult<bool> {
    let py = this.py();
    loop {
        let Some(protocol) = this.protocol.get(py) else { return Ok(false) };
        let mut scratch = Scratch::take(py)?;
        let (length, end) = this.engine.read(&mut scratch, py);
        let data = if length == 0 { None } else { Some(scratch.bytes(length)?) };
        drop(scratch);
        if let Some(data) = data {
            this.receiver.get().data_received(&protocol, data)?;
        }
        match end {
            End::Drained => return Ok(true),
            End::Full if this.pauses.get().reading || !this.phase.get().may_read() => return Ok(false),
            End::Full if this.receiver.get() == Receiver::Buffered => return into_lent(this),
            End::Full => {}
            End::Closed => return peer_closed(this).map(|()| true),
            End::Failed(error) => return Err(error),
        }
    }
}

/// Into memory that the protocol lends. Whether nothing is left.
fn into_lent(this: This<'_, '_>) -> PyResult<bool> {
    let py = this.py();
    let Some(protocol) = this.protocol.get(py) else { return Ok(false) };
    let memory = protocol.call_method1(intern!(py, "get_buffer"), (this.engine.fed(py)?,))?;
    let room = buffer::write(&memory, |bytes| bytes.len())?;
    if room == 0 {
        return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
    }
    let (length, end) = this.engine.read_lent(&memory, room)?;
    drop(memory);
    if matches!(end, End::Full)
        && let Some(event_loop) = this.event_loop.get(py)
    {
        // What is left finds its place once this has been looked at.
        soon(&event_loop, &this.object().getattr(intern!(py, "_do_read"))?, None)?;
    }
    if length > 0 {
        protocol.call_method1(intern!(py, "buffer_updated"), (length,))?;
    }
    match end {
        End::Drained => Ok(true),
        End::Full => Ok(false),
        End::Closed => peer_closed(this).map(|()| true),
        End::Failed(error) => Err(error),
    }
}

/// The peer has sent close_notify: it sends no more, and nor do we.
fn peer_closed(this: This<'_, '_>) -> PyResult<()> {
    tell_eof(this)?;
    close(this)
}

/// `close()`, by whoever wants it.
pub(super) fn close(this: This<'_, '_>) -> PyResult<()> {
    if let Some(transport) = this.app_transport.get(this.py()) {
        super::surface::mark_closed(&transport);
    }
    this.happened(TlsHappening::Close)
}

/// `eof_received()`, once.
pub(super) fn tell_eof(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    if this.app.get() != App::Connected {
        return Ok(());
    }
    let Some(protocol) = this.protocol.get(py) else { return Ok(()) };
    this.app.set(App::Ended);
    match this.receiver.get().eof_received(&protocol) {
        Ok(false) => Ok(()),
        Ok(true) => {
            let text = "returning true from eof_received() has no effect when using ssl";
            logger(py)?.call_method1(intern!(py, "warning"), (text,)).map(drop)
        }
        Err(error) if ends_the_loop(py, &error) => Err(error),
        Err(error) => this.fatal(error.into_value(py).bind(py).as_any(), "Error calling eof_received()"),
    }
}

/// Asks the transport below to stop or to go on, by how much of what it brought nobody has looked at.
fn control_below(this: This<'_, '_>, drained: bool) -> PyResult<()> {
    let (py, marks) = (this.py(), this.read_marks.get());
    let paused = this.pauses.get().below_reading;
    if drained && !paused && marks.high > 0 {
        return Ok(());
    }
    let size = this.engine.fed(py)?;
    let Some(transport) = this.transport.get(py) else { return Ok(()) };
    if size >= marks.high && !paused {
        this.pause(|pauses| pauses.below_reading = true);
        return Sender::of(&transport).pause_reading();
    }
    if size <= marks.low && paused {
        this.pause(|pauses| pauses.below_reading = false);
        return Sender::of(&transport).resume_reading();
    }
    Ok(())
}

/// New marks for what may wait to be looked at.
pub(super) fn set_limits(this: This<'_, '_>, marks: super::Marks) -> PyResult<()> {
    this.read_marks.set(marks);
    control_below(this, false)
}

/// `pause_reading()`: what comes in waits.
pub(super) fn pause(this: This<'_, '_>) {
    this.pause(|pauses| pauses.reading = true);
}

/// `resume_reading()`: what waits is handed over in the next turn.
pub(super) fn resume(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    if !this.pauses.get().reading {
        return Ok(());
    }
    this.pause(|pauses| pauses.reading = false);
    match this.event_loop.get(py) {
        Some(event_loop) => soon(&event_loop, &this.object().getattr(intern!(py, "_resume"))?, None),
        None => Ok(()),
    }
}
