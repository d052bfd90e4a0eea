//! The reading end of a pipe (or a socket, or a terminal) as a transport: what `connect_read_pipe` makes.
//!
//! Told by the turn when there is something to read, or when the writers are gone. asyncio's rules: the end of the
//! stream ends the transport, and a terminal that hangs up (EIO) is nothing to shout about.

use std::mem::offset_of;

use aioxide_core::phase::Happening;
use aioxide_sys::pipe::{self, FileKind};
use aioxide_sys::{Interest, Raw, socket};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyString};

use super::base::{self, Base, Based};
use super::{Source, read};
use crate::errors::os_error;
use crate::ffi::cell::Flag;
use crate::ffi::class::{Class, Find, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{Of, getter, noargs, onearg, unary};
use crate::names::{asyncio, boolean, none};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type This<'a, 'py> = Inst<'a, 'py, ReadPipe>;

/// The transport of a pipe that is read.
pub(crate) struct ReadPipe {
    base: Base,
    paused: Flag<bool>,
}

impl Class for ReadPipe {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.UnixReadPipeTransport";
    const INHERITED: usize = 1; // asyncio.BaseTransport's `_extra`
    const DICT: Option<usize> = Some(offset_of!(Self, base) + offset_of!(Base, attributes));
    const STANDS_FOR: Option<Find> =
        Some(|py| asyncio(py).unix_events.bind(py).getattr(intern!(py, "_UnixReadPipeTransport")));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.base.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.base.clear(py);
    }

    fn finalize(this: This<'_, '_>) {
        base::finalize(this);
    }

    fn wants_finalize(&self) -> bool {
        self.base.file.is_some()
    }
}

impl Based for ReadPipe {
    fn base(&self) -> &Base {
        &self.base
    }

    fn source(transport: Py<PyAny>) -> Source {
        Source::ReadPipe(transport)
    }

    fn wanted(&self) -> Interest {
        if self.base.started.get() && self.is_reading() { Interest::READ } else { Interest::NONE }
    }

    fn is_ordinary(error: &Bound<'_, PyAny>) -> bool {
        let number = error.getattr(intern!(error.py(), "errno")).and_then(|n| n.extract::<i32>());
        error.is_instance_of::<PyOSError>() && number.is_ok_and(pipe::is_hung_up_terminal)
    }
}

impl ReadPipe {
    fn is_reading(&self) -> bool {
        !self.paused.get() && !self.base.phase.get().is_closing()
    }
}

/// The number of a pipe's descriptor and what it is; made non-blocking. ValueError for what can't be waited for.
pub(super) fn prepare(pipe: &Bound<'_, PyAny>, complaint: &'static str) -> PyResult<(i32, FileKind)> {
    let fd: i32 = pipe.call_method0(intern!(pipe.py(), "fileno"))?.extract()?;
    let kind = pipe::kind(Raw(fd)).map_err(|e| os_error(&e))?;
    if kind == FileKind::Other {
        return Err(PyValueError::new_err(complaint));
    }
    socket::set_nonblocking(Raw(fd), true).map_err(|e| os_error(&e))?;
    Ok((fd, kind))
}

/// The dict behind `get_extra_info`.
pub(super) fn set_extra(transport: &Bound<'_, PyAny>, pipe: &Bound<'_, PyAny>) -> PyResult<()> {
    let extra = PyDict::new(pipe.py());
    extra.set_item(intern!(pipe.py(), "pipe"), pipe)?;
    transport.setattr(intern!(pipe.py(), "_extra"), extra)
}

/// Makes a transport. The protocol is told in the next turn, and then reading starts and the waiter is completed.
pub(crate) fn make<'py>(
    event_loop: &Bound<'py, PyAny>,
    pipe: &Bound<'py, PyAny>,
    protocol: &Bound<'py, PyAny>,
    waiter: Option<&Bound<'py, PyAny>>,
) -> Object<'py> {
    let (fd, _) = prepare(pipe, "Pipe transport is for pipes/sockets only.")?;
    let base = Base::new(event_loop, protocol, pipe, fd)?;
    let object = create(pipe.py(), ReadPipe { base, paused: Flag::new(false) })?;
    set_extra(&object, pipe)?;
    base::begin::<ReadPipe>(&object, waiter)?;
    Ok(object)
}

/// The descriptor is ready.
pub(super) fn on_ready(this: This<'_, '_>) -> PyResult<()> {
    if !this.is_reading() {
        return Ok(());
    }
    base::in_context(this, || receive(this))
}

fn receive(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    let Some(protocol) = this.base.protocol.get(py) else { return Ok(()) };
    match read::receive_by(py, read::MOST, |buffer| pipe::read(Raw(this.base.fd), buffer)) {
        Ok(data) if data.as_bytes().is_empty() => {
            base::log(this, "info", "%r was closed by peer")?;
            base::soon(this, &protocol.getattr(intern!(py, "eof_received"))?, [])?;
            base::happened(this, Happening::Close, None)
        }
        Ok(data) => this.base.receiver.get().data_received(&protocol, data),
        Err(error) if read::is_later(error.kind()) => Ok(()),
        Err(error) => base::failed(this, os_error(&error), "Fatal read error on pipe transport"),
    }
}

fn pause_reading<'py>(this: This<'_, 'py>) -> Object<'py> {
    if this.is_reading() {
        this.paused.set(true);
        base::watch(this)?;
        base::log(this, "debug", "%r pauses reading")?;
    }
    Ok(none(this.py()))
}

fn resume_reading<'py>(this: This<'_, 'py>) -> Object<'py> {
    if this.paused.get() && !this.base.phase.get().is_closing() {
        this.paused.set(false);
        base::watch(this)?;
        base::log(this, "debug", "%r resumes reading")?;
    }
    Ok(none(this.py()))
}

fn is_reading<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.is_reading()))
}

fn get_paused<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.paused.get()))
}

fn get_most<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), read::MOST).into_any())
}

fn read_ready<'py>(this: This<'_, 'py>) -> Object<'py> {
    on_ready(this).map(|()| none(this.py()))
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let text = format!("{} {}>", base::shown(this)?, base::polling(this, Interest::READ));
    Ok(PyString::new(this.py(), &text).into_any())
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let builder = base::surface::<ReadPipe>([c"_pipe", c"_fileno"])
        .slot(pyo3::ffi::Py_tp_repr, unary::<Of<ReadPipe>, _>(repr))
        .method(noargs::<Of<ReadPipe>, _>(c"is_reading", is_reading))
        .method(noargs::<Of<ReadPipe>, _>(c"pause_reading", pause_reading))
        .method(noargs::<Of<ReadPipe>, _>(c"resume_reading", resume_reading))
        .method(noargs::<Of<ReadPipe>, _>(c"_read_ready", read_ready))
        .method(onearg::<Of<ReadPipe>, _>(c"_close", base::force_close::<ReadPipe>))
        .attribute(getter::<Of<ReadPipe>, _>(c"_paused", get_paused))
        .attribute(getter::<Of<ReadPipe>, _>(c"max_size", get_most));
    let class = base::build::<ReadPipe>(builder, module, &["ReadTransport"])?;
    module.add("UnixReadPipeTransport", class)
}
