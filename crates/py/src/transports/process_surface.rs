//! What Python sees of a process's transport: asyncio.SubprocessTransport's methods, and the private names that
//! asyncio's own code and popular libraries use. The type is a true subclass of `asyncio.SubprocessTransport`.

use pyo3::exceptions::{PyImportError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyString, PyTuple};
use pyo3::{Borrowed, ffi, intern};

use super::process::{ProcessTransport, This};
use super::process_pipe::Pipe;
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::Slot;
use crate::ffi::class::{Builder, Class, Inst};
use crate::ffi::method::{Of, anyargs, getter, noargs, onearg, unary};
use crate::names::{asyncio, boolean, none};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type Process = Of<ProcessTransport>;

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// The answer of a method that has none.
fn done<'py>(this: This<'_, 'py>, result: PyResult<()>) -> Object<'py> {
    result.map(|()| none(this.py()))
}

fn held<'py>(this: This<'_, 'py>, slot: &Slot) -> Object<'py> {
    Ok(slot.get(this.py()).unwrap_or_else(|| none(this.py())))
}

// --- any transport -------------------------------------------------------------------------------

fn get_extra_info<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "get_extra_info",
        positional: &["name", "default"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let py = this.py();
    let [name, default] = SIGNATURE.bind::<2>(args)?;
    let default = default.map_or_else(|| none(py), Borrowed::to_owned);
    let Some(name) = name else { return Ok(default) };
    this.object().getattr(intern!(py, "_extra"))?.call_method1(intern!(py, "get"), (name, default))
}

fn is_closing<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.closed.get()))
}

fn close<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.close())
}

fn set_protocol<'py>(this: This<'_, 'py>, protocol: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    this.protocol.set(this.py(), protocol.to_owned());
    Ok(none(this.py()))
}

fn get_protocol<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.protocol)
}

// --- the process ---------------------------------------------------------------------------------

fn get_pid<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), this.pid).into_any())
}

fn get_returncode<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.returncode.get().into_pyobject(this.py())?)
}

fn get_pipe_transport<'py>(this: This<'_, 'py>, fd: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let py = this.py();
    let pipe = match fd.extract::<usize>() {
        Ok(fd) if fd < this.pipes.len() => this.pipes[fd].get(py),
        _ => None,
    };
    let transport = pipe.as_ref().and_then(Inst::<Pipe>::cast_exact).and_then(|pipe| pipe.transport(py));
    Ok(transport.unwrap_or_else(|| none(py)))
}

fn send_signal<'py>(this: This<'_, 'py>, signal: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    if !signal.is_instance_of::<PyInt>() {
        let class = signal.get_type().name()?;
        return Err(PyTypeError::new_err(format!("'{class}' object cannot be interpreted as an integer")));
    }
    done(this, this.send_signal(signal.extract()?))
}

fn terminate<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.send_signal(SIGTERM))
}

fn kill<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.send_signal(SIGKILL))
}

// --- private names -------------------------------------------------------------------------------

fn wait<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.wait()
}

fn call_connection_lost<'py>(this: This<'_, 'py>, error: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, this.connection_lost(&error))
}

/// What a child watcher calls: `(pid, returncode)`.
fn process_ended<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    match args.get(1) {
        Some(returncode) => done(this, this.exited(returncode.extract()?)),
        None => Err(PyTypeError::new_err("a pid and a return code are expected")),
    }
}

fn get_loop<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.event_loop)
}

fn get_proc<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.process)
}

fn get_finished<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.finished.get()))
}

/// `_pipes`: the pipes' protocols by descriptor.
fn get_pipes<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let pipes = PyDict::new(py);
    for fd in this.unconnected() {
        pipes.set_item(fd, none(py))?;
    }
    for (fd, pipe) in this.pipes.iter().enumerate() {
        if let Some(pipe) = pipe.get(py) {
            pipes.set_item(fd, pipe)?;
        }
    }
    Ok(pipes.into_any())
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let mut text = format!("<{}", this.object().get_type().name()?);
    if this.closed.get() {
        text.push_str(" closed");
    }
    text.push_str(&format!(" pid={}", this.pid));
    match this.returncode.get() {
        Some(returncode) => text.push_str(&format!(" returncode={returncode}")),
        None => text.push_str(" running"),
    }
    for (pipe, name) in this.pipes.iter().zip(super::process::STREAMS) {
        let pipe = pipe.get(py);
        if let Some(pipe) = pipe.as_ref().and_then(Inst::<Pipe>::cast_exact) {
            let transport = pipe.transport(py).unwrap_or_else(|| none(py));
            text.push_str(&format!(" {name}={}", transport.repr()?));
        }
    }
    text.push('>');
    Ok(PyString::new(py, &text).into_any())
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let base = asyncio(py).transports.bind(py).getattr("SubprocessTransport")?;
    let size: usize = base.getattr("__basicsize__")?.extract()?;
    let plain = base.getattr("__dictoffset__")?.extract::<isize>()? == 0
        && base.getattr("__weakrefoffset__")?.extract::<isize>()? == 0;
    if !plain || size != size_of::<ffi::PyObject>() + ProcessTransport::INHERITED * size_of::<usize>() {
        return Err(PyImportError::new_err(
            "aioxide does not know the layout of this Python's asyncio.SubprocessTransport",
        ));
    }
    let class = Builder::of::<ProcessTransport>()
        .slot(ffi::Py_tp_repr, unary::<Process, _>(repr))
        .method(anyargs::<Process, _>(c"get_extra_info", get_extra_info))
        .method(noargs::<Process, _>(c"is_closing", is_closing))
        .method(noargs::<Process, _>(c"close", close))
        .method(onearg::<Process, _>(c"set_protocol", set_protocol))
        .method(noargs::<Process, _>(c"get_protocol", get_protocol))
        .method(noargs::<Process, _>(c"get_pid", get_pid))
        .method(noargs::<Process, _>(c"get_returncode", get_returncode))
        .method(onearg::<Process, _>(c"get_pipe_transport", get_pipe_transport))
        .method(onearg::<Process, _>(c"send_signal", send_signal))
        .method(noargs::<Process, _>(c"terminate", terminate))
        .method(noargs::<Process, _>(c"kill", kill))
        .method(noargs::<Process, _>(c"_wait", wait))
        .method(onearg::<Process, _>(c"_call_connection_lost", call_connection_lost))
        .method(anyargs::<Process, _>(c"_process_ended", process_ended))
        .attribute(getter::<Process, _>(c"_loop", get_loop))
        .attribute(getter::<Process, _>(c"_proc", get_proc))
        .attribute(getter::<Process, _>(c"_pid", get_pid))
        .attribute(getter::<Process, _>(c"_returncode", get_returncode))
        .attribute(getter::<Process, _>(c"_protocol", get_protocol))
        .attribute(getter::<Process, _>(c"_closed", is_closing))
        .attribute(getter::<Process, _>(c"_finished", get_finished))
        .attribute(getter::<Process, _>(c"_pipes", get_pipes))
        .build(module, Some(&PyTuple::new(py, [base])?), ProcessTransport::cell())?;
    module.add("ProcessTransport", class)
}
