//! The writing end of a pipe (or a socket, or a terminal) as a transport: what `connect_write_pipe` makes.
//!
//! Each write is tried at once; what the pipe does not take waits in the outbox until it can be written. The driver
//! also watches for the reader to go away, which ends the transport.

use std::io::{self, IoSlice};

use std::mem::offset_of;

use aioxide_core::Flow;
use aioxide_core::outbox::Outbox;
use aioxide_core::phase::Happening;
use aioxide_sys::pipe::{self, FileKind};
use aioxide_sys::{Interest, Raw, Readiness};
use pyo3::Borrowed;
use pyo3::exceptions::{PyAssertionError, PyBrokenPipeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyInt, PyMemoryView, PyString};

use super::base::{self, Base, Based};
use super::flow::{self, Chunk};
use super::pipe_read::{prepare, set_extra};
use super::read::is_later;
use super::{Source, report};
use crate::async_fn::attached;
use crate::errors::os_error;
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::buffer;
use crate::ffi::cell::{Flag, GilCell};
use crate::ffi::class::{Class, Find, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{Of, anyargs, getter, noargs, onearg, unary};
use crate::names::{asyncio, boolean, none};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type This<'a, 'py> = Inst<'a, 'py, WritePipe>;

const WRITE_FAILED: &str = "Fatal write error on pipe transport";

/// How many chunks one call of the system writes at most.
const PIECES: usize = 256;

/// The transport of a pipe that is written.
pub(crate) struct WritePipe {
    base: Base,
    outbox: GilCell<Outbox<Chunk>>,
    /// Something is in the outbox.
    unsent: Flag<bool>,
    lost_writes: Flag<u32>,
    /// The system tells when the reader goes away: of pipes and sockets, not of terminals.
    hears_of_end: bool,
}

impl Class for WritePipe {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.UnixWritePipeTransport";
    const INHERITED: usize = 1; // asyncio.BaseTransport's `_extra`
    const DICT: Option<usize> = Some(offset_of!(Self, base) + offset_of!(Base, attributes));
    const STANDS_FOR: Option<Find> =
        Some(|py| asyncio(py).unix_events.bind(py).getattr(intern!(py, "_UnixWritePipeTransport")));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.base.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.base.clear(py);
        self.discard(py);
    }

    fn finalize(this: This<'_, '_>) {
        base::finalize(this);
    }

    fn wants_finalize(&self) -> bool {
        self.base.file.is_some()
    }
}

impl Based for WritePipe {
    fn base(&self) -> &Base {
        &self.base
    }

    fn source(transport: Py<PyAny>) -> Source {
        Source::WritePipe(transport)
    }

    fn wanted(&self) -> Interest {
        if self.base.phase.get().is_lost() {
            return Interest::NONE;
        }
        let end = if self.hears_of_end && self.base.started.get() { Interest::READ } else { Interest::NONE };
        if self.unsent.get() { end | Interest::WRITE } else { end }
    }

    fn has_unsent(&self) -> bool {
        self.unsent.get()
    }

    fn discard(&self, py: Python<'_>) {
        let unsent = self.outbox.with(py, Outbox::take_all);
        self.unsent.set(false);
        attached(|_| drop(unsent)); // at once, in a finalizer too
    }
}

/// Makes a transport. The protocol is told in the next turn, and then the waiter is completed.
pub(crate) fn make<'py>(
    event_loop: &Bound<'py, PyAny>,
    pipe: &Bound<'py, PyAny>,
    protocol: &Bound<'py, PyAny>,
    waiter: Option<&Bound<'py, PyAny>>,
) -> Object<'py> {
    let (fd, kind) = prepare(pipe, "Pipe transport is only for pipes, sockets and character devices")?;
    let value = WritePipe {
        base: Base::new(event_loop, protocol, pipe, fd)?,
        outbox: GilCell::new(Outbox::new()),
        unsent: Flag::new(false),
        lost_writes: Flag::new(0),
        hears_of_end: kind != FileKind::Character,
    };
    let object = create(pipe.py(), value)?;
    set_extra(&object, pipe)?;
    base::begin::<WritePipe>(&object, waiter)?;
    Ok(object)
}

/// The descriptor is ready.
pub(super) fn on_ready(this: This<'_, '_>, ready: Readiness) -> PyResult<()> {
    base::in_context(this, || {
        // A reader that is gone makes the pipe "readable".
        if ready.readable && this.hears_of_end { on_end(this) } else { flush(this) }
    })
}

/// Nobody reads any more.
fn on_end(this: This<'_, '_>) -> PyResult<()> {
    base::log(this, "info", "%r was closed by peer")?;
    if this.unsent.get() {
        let error = PyBrokenPipeError::new_err(()).into_value(this.py());
        return base::happened(this, Happening::Fail, Some(error.bind(this.py()).as_any()));
    }
    base::happened(this, Happening::Fail, None)
}

/// Writes what waits.
fn flush(this: This<'_, '_>) -> PyResult<()> {
    let (py, fd) = (this.py(), Raw(this.base.fd));
    if this.base.phase.get().is_lost() || !this.unsent.get() {
        return Ok(());
    }
    let written = this.outbox.with(py, |outbox| {
        let pieces: Vec<_> = outbox.pieces(PIECES).map(IoSlice::new).collect();
        pipe::write_vectored(fd, &pieces)
    });
    let length = match written {
        Ok(length) => length,
        Err(error) if is_later(error.kind()) => return Ok(()),
        Err(error) => {
            this.discard(py);
            this.lost_writes.set(this.lost_writes.get().saturating_add(1));
            return base::failed(this, os_error(&error), WRITE_FAILED);
        }
    };
    let mut spent = Vec::new();
    let (asked, is_empty) = this.outbox.with(py, |outbox| {
        let asked = outbox.advance(length, &mut spent);
        (asked, outbox.is_empty())
    });
    drop(spent);
    this.unsent.set(!is_empty);
    base::watch(this)?;
    tell(this, asked)?; // which may write more
    if this.unsent.get() { Ok(()) } else { base::happened(this, Happening::Flushed, None) }
}

fn tell(this: This<'_, '_>, asked: Flow) -> PyResult<()> {
    let py = this.py();
    match (asked, this.base.event_loop.get(py), this.base.protocol.get(py)) {
        (Flow::Pause | Flow::Resume, Some(event_loop), Some(protocol)) => {
            flow::tell(asked, this.base.receiver.get(), &event_loop, &this.to_owned(), &protocol)
        }
        _ => Ok(()),
    }
}

/// How much of `bytes` the pipe takes now.
fn try_write(fd: i32, bytes: &[u8]) -> io::Result<usize> {
    match pipe::write(Raw(fd), bytes) {
        Err(error) if is_later(error.kind()) => Ok(0),
        result => result,
    }
}

/// `write(data)`.
fn write<'py>(this: This<'_, 'py>, data: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let py = this.py();
    let is_bytes = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if !is_bytes {
        return Err(PyAssertionError::new_err(data.repr()?.to_string()));
    }
    if buffer::read(&data, <[u8]>::is_empty)? {
        return Ok(none(py));
    }
    let lost = this.lost_writes.get();
    if lost > 0 || this.base.phase.get().is_closing() {
        let text = "pipe closed by peer or os.write(pipe, data) raised exception.";
        this.lost_writes.set(report::lost_write(py, lost, text)?);
        return Ok(none(py));
    }
    let busy = this.unsent.get();
    let written = if busy { Ok(0) } else { buffer::read(&data, |bytes| try_write(this.base.fd, bytes))? };
    let from = match written {
        Ok(from) => from,
        Err(error) => {
            this.lost_writes.set(1);
            return base::failed(this, os_error(&error), WRITE_FAILED).map(|()| none(py));
        }
    };
    let chunk = match data.cast::<PyBytes>() {
        Ok(bytes) if bytes.as_bytes().len() == from => return Ok(none(py)),
        Ok(bytes) => Chunk::Shared { bytes: bytes.to_owned().into(), from },
        Err(_) => Chunk::Copied(buffer::read(&data, |bytes| bytes.get(from..).unwrap_or_default().to_vec())?),
    };
    let (asked, empty) = this.outbox.with(py, |outbox| outbox.push(chunk));
    if empty.is_some() {
        return Ok(none(py)); // everything went
    }
    this.unsent.set(true);
    base::watch(this)?;
    tell(this, asked).map(|()| none(py))
}

fn write_eof<'py>(this: This<'_, 'py>) -> Object<'py> {
    base::happened(this, Happening::Close, None).map(|()| none(this.py()))
}

fn can_write_eof<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), true))
}

/// `_close(error=None)`.
fn close_now<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    let error = given(args.get(0));
    base::happened(this, Happening::Fail, error.as_ref()).map(|()| none(this.py()))
}

fn set_write_buffer_limits<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "set_write_buffer_limits",
        positional: &["high", "low"],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let [high, low] = SIGNATURE.bind::<2>(args)?;
    let number = |value| given(value).map(|v| v.extract::<i64>()).transpose();
    let asked = flow::set_limits(&this.outbox, this.py(), number(high)?, number(low)?)?;
    tell(this, asked).map(|()| none(this.py()))
}

fn get_write_buffer_limits<'py>(this: This<'_, 'py>) -> Object<'py> {
    let limits = this.outbox.with(this.py(), |outbox| outbox.limits());
    Ok(limits.into_pyobject(this.py())?.into_any())
}

fn size(this: This<'_, '_>) -> usize {
    this.outbox.with(this.py(), |outbox| outbox.size())
}

fn get_write_buffer_size<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), size(this)).into_any())
}

fn get_protocol_paused<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.outbox.with(this.py(), |outbox| outbox.is_paused())))
}

fn get_conn_lost<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), this.lost_writes.get()).into_any())
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let mut text = format!("{} {}", base::shown(this)?, base::polling(this, Interest::WRITE));
    if this.base.file.is_some() {
        text.push_str(&format!(" bufsize={}", size(this)));
    }
    text.push('>');
    Ok(PyString::new(this.py(), &text).into_any())
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    type Pipe = Of<WritePipe>;
    let builder = base::surface::<WritePipe>([c"_pipe", c"_fileno"])
        .slot(pyo3::ffi::Py_tp_repr, unary::<Pipe, _>(repr))
        .method(onearg::<Pipe, _>(c"write", write))
        .method(noargs::<Pipe, _>(c"write_eof", write_eof))
        .method(noargs::<Pipe, _>(c"can_write_eof", can_write_eof))
        .method(noargs::<Pipe, _>(c"abort", base::abort::<WritePipe>))
        .method(anyargs::<Pipe, _>(c"_close", close_now))
        .method(anyargs::<Pipe, _>(c"set_write_buffer_limits", set_write_buffer_limits))
        .method(noargs::<Pipe, _>(c"get_write_buffer_limits", get_write_buffer_limits))
        .method(noargs::<Pipe, _>(c"get_write_buffer_size", get_write_buffer_size))
        .attribute(getter::<Pipe, _>(c"_protocol_paused", get_protocol_paused))
        .attribute(getter::<Pipe, _>(c"_conn_lost", get_conn_lost));
    let class = base::build::<WritePipe>(builder, module, &["Transport"])?;
    module.add("UnixWritePipeTransport", class)
}
