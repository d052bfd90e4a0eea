//! What listens to one pipe of a child process: the protocol of the pipe's transport.
//!
//! Made by event_loop/subprocess.rs, called by the transports of pipes; it hands everything on to the process's
//! transport (process.rs) and keeps nothing.

use pyo3::Borrowed;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString, PyTuple};

use super::process;
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{Of, getter, noargs, onearg, unary};
use crate::names::{boolean, none};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type This<'a, 'py> = Inst<'a, 'py, Pipe>;

/// The protocol of one pipe.
pub(crate) struct Pipe {
    process: Slot,
    transport: Slot,
    fd: usize,
    lost: Flag<bool>,
}

impl Class for Pipe {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.SubprocessPipeProtocol";

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.process.traverse(visit)?;
        self.transport.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop((self.process.take(py), self.transport.take(py)));
    }
}

impl Pipe {
    /// The pipe's transport, once it is connected.
    pub(crate) fn transport<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.transport.get(py)
    }

    /// Whether the pipe's transport has said its last.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.get()
    }
}

/// The protocol of the pipe to the child's descriptor `fd`.
pub(crate) fn make<'py>(process: &Bound<'py, PyAny>, fd: usize) -> Object<'py> {
    let (kept, transport) = (Slot::holding(process.clone().unbind()), Slot::empty());
    create(process.py(), Pipe { process: kept, transport, fd, lost: Flag::new(false) })
}

/// Calls `f` with the process's transport, as long as there is one.
fn with_process<'py>(
    this: This<'_, 'py>,
    f: impl FnOnce(process::This<'_, 'py>) -> PyResult<()>,
) -> Object<'py> {
    let py = this.py();
    let process = this.process.get(py);
    if let Some(process) = process.as_ref().and_then(process::This::cast_exact) {
        f(process)?;
    }
    Ok(none(py))
}

fn connection_made<'py>(this: This<'_, 'py>, transport: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    this.transport.set(this.py(), transport.to_owned());
    Ok(none(this.py()))
}

fn connection_lost<'py>(this: This<'_, 'py>, error: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    this.lost.set(true);
    let told = with_process(this, |process| process.pipe_lost(this.fd, &error));
    drop(this.process.take(this.py()));
    told
}

fn data_received<'py>(this: This<'_, 'py>, data: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    with_process(this, |process| {
        let args = PyTuple::new(this.py(), [PyInt::new(this.py(), this.fd).into_any(), data.to_owned()])?;
        process.tell("pipe_data_received", args)
    })
}

/// False: the transport closes itself.
fn eof_received<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(none(this.py()))
}

/// Flow control is passed on at once.
fn pass_on<'py>(this: This<'_, 'py>, method: &Bound<'py, PyString>) -> Object<'py> {
    with_process(this, |process| match process.protocol.get(this.py()) {
        Some(protocol) => protocol.call_method0(method).map(drop),
        None => Ok(()),
    })
}

fn pause_writing<'py>(this: This<'_, 'py>) -> Object<'py> {
    pass_on(this, intern!(this.py(), "pause_writing"))
}

fn resume_writing<'py>(this: This<'_, 'py>) -> Object<'py> {
    pass_on(this, intern!(this.py(), "resume_writing"))
}

fn get_pipe<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.transport.get(this.py()).unwrap_or_else(|| none(this.py())))
}

fn get_proc<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.process.get(this.py()).unwrap_or_else(|| none(this.py())))
}

fn get_fd<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), this.fd).into_any())
}

fn get_disconnected<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.lost.get()))
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let text = format!("<SubprocessPipeProtocol fd={} pipe={}>", this.fd, get_pipe(this)?.repr()?);
    Ok(PyString::new(this.py(), &text).into_any())
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Pipe>()
        .slot(pyo3::ffi::Py_tp_repr, unary::<Of<Pipe>, _>(repr))
        .method(onearg::<Of<Pipe>, _>(c"connection_made", connection_made))
        .method(onearg::<Of<Pipe>, _>(c"connection_lost", connection_lost))
        .method(onearg::<Of<Pipe>, _>(c"data_received", data_received))
        .method(noargs::<Of<Pipe>, _>(c"eof_received", eof_received))
        .method(noargs::<Of<Pipe>, _>(c"pause_writing", pause_writing))
        .method(noargs::<Of<Pipe>, _>(c"resume_writing", resume_writing))
        .attribute(getter::<Of<Pipe>, _>(c"pipe", get_pipe))
        .attribute(getter::<Of<Pipe>, _>(c"proc", get_proc))
        .attribute(getter::<Of<Pipe>, _>(c"fd", get_fd))
        .attribute(getter::<Of<Pipe>, _>(c"disconnected", get_disconnected))
        .build(module, None, Pipe::cell())
        .map(drop)
}
