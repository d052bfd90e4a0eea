//! What Python sees of a stream transport: asyncio.Transport's methods, and the private names that asyncio's own
//! code and popular libraries use. The type is a true subclass of `asyncio.Transport`, and leaves `get_extra_info` to it:
//! it looks into `_extra`, and who puts another method in its place in asyncio's class finds it called.

use aioxide_core::outbox::Outbox;
use aioxide_core::phase::Happening;
use aioxide_sys::Interest;
use pyo3::exceptions::{PyImportError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyString, PyTuple};
use pyo3::{Borrowed, ffi, intern};

use super::tcp::{TcpTransport, This, given};
use super::write;
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::Slot;
use crate::ffi::class::{Builder, Class};
use crate::ffi::method::{Of, anyargs, getter, noargs, onearg, unary};
use crate::local::LoopCore;
use crate::names::{asyncio, none};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type Tcp = Of<TcpTransport>;

fn boolean<'py>(this: This<'_, 'py>, value: bool) -> Bound<'py, PyAny> {
    PyBool::new(this.py(), value).to_owned().into_any()
}

/// The answer of a method that has none.
fn done<'py>(this: This<'_, 'py>, result: PyResult<()>) -> Object<'py> {
    result.map(|()| none(this.py()))
}

fn held<'py>(this: This<'_, 'py>, slot: &Slot) -> Object<'py> {
    Ok(slot.get(this.py()).unwrap_or_else(|| none(this.py())))
}

// --- any transport -------------------------------------------------------------------------------

fn is_closing<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this, this.phase.get().is_closing()))
}

fn close<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.happened(Happening::Close, None))
}

fn set_protocol<'py>(this: This<'_, 'py>, protocol: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, this.set_protocol(&protocol))
}

fn get_protocol<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.protocol)
}

// --- reading -------------------------------------------------------------------------------------

fn is_reading<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this, this.phase.get().may_read() && !this.reading.get().paused))
}

fn pause_reading<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.pause_reading())
}

fn resume_reading<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.resume_reading())
}

// --- writing -------------------------------------------------------------------------------------

fn write_data<'py>(this: This<'_, 'py>, data: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, write::write(this, data))
}

fn writelines<'py>(this: This<'_, 'py>, lines: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, write::write_lines(this, lines))
}

fn write_eof<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, write::write_eof(this))
}

fn can_write_eof<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this, true))
}

fn abort<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.happened(Happening::Fail, None))
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
    done(this, write::set_limits(this, number(high)?, number(low)?))
}

fn get_write_buffer_limits<'py>(this: This<'_, 'py>) -> Object<'py> {
    let limits = this.outbox.with(this.py(), |outbox| outbox.limits());
    Ok(limits.into_pyobject(this.py())?.into_any())
}

fn get_write_buffer_size<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), this.outbox.with(this.py(), |outbox| outbox.size())).into_any())
}

// --- private names -------------------------------------------------------------------------------

fn start<'py>(this: This<'_, 'py>, waiter: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, this.start(&waiter))
}

fn call_connection_lost<'py>(this: This<'_, 'py>, error: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, this.connection_lost(&error))
}

fn force_close<'py>(this: This<'_, 'py>, error: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, this.happened(Happening::Fail, Some(&error)))
}

fn fatal_error<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "_fatal_error",
        positional: &["exc", "message"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [error, message] = SIGNATURE.bind::<2>(args)?;
    let Some(error) = error else { return Err(PyTypeError::new_err("_fatal_error() needs an exception")) };
    let message = given(message).map(|m| m.extract::<String>()).transpose()?;
    done(this, this.fatal(&error, message.as_deref().unwrap_or("Fatal error on transport")))
}

fn make_empty_waiter<'py>(this: This<'_, 'py>) -> Object<'py> {
    write::make_empty_waiter(this)
}

fn reset_empty_waiter<'py>(this: This<'_, 'py>) -> Object<'py> {
    drop(this.flushed.take(this.py()));
    Ok(none(this.py()))
}

fn get_loop<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.event_loop)
}

fn get_extra<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.uncorked.set(false); // whoever gets the socket may cork it
    this.sock.extra(this.py())
}

fn set_extra<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.sock.set_extra(value.to_owned());
    Ok(())
}

fn get_sock<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.uncorked.set(false);
    Ok(this.sock.object(this.py())?.unwrap_or_else(|| none(this.py())))
}

fn get_server<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.server)
}

fn get_sock_fd<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), this.fd).into_any())
}

fn get_paused<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this, this.reading.get().paused))
}

fn get_eof<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this, this.eof.get()))
}

fn get_protocol_paused<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this, this.outbox.with(this.py(), |outbox| outbox.is_paused())))
}

/// 0 while connected, then one more for each write that was lost.
fn get_conn_lost<'py>(this: This<'_, 'py>) -> Object<'py> {
    let count = if this.phase.get().is_lost() { this.lost_writes.get() } else { 0 };
    Ok(PyInt::new(this.py(), count).into_any())
}

fn start_tls_compatible<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this, true))
}

fn sendfile_compatible<'py>(this: This<'_, 'py>) -> Object<'py> {
    let modes = asyncio(this.py()).constants.bind(this.py()).getattr(intern!(this.py(), "_SendfileMode"))?;
    modes.getattr(intern!(modes.py(), "TRY_NATIVE"))
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let mut text = format!("<{}", this.object().get_type().name()?);
    if !this.sock.is_open() {
        text.push_str(" closed");
    } else if this.phase.get().is_closing() {
        text.push_str(" closing");
    }
    text.push_str(&format!(" fd={}", this.fd));
    let event_loop = this.event_loop.get(py);
    if event_loop.as_ref().and_then(LoopCore::of).is_some_and(|core| !core.is_closed()) {
        let watched = this.watched();
        let state = |direction: Interest| if watched.contains(direction) { "polling" } else { "idle" };
        let size = this.outbox.with(py, |outbox: &mut Outbox<_>| outbox.size());
        let (read, write) = (state(Interest::READ), state(Interest::WRITE));
        text.push_str(&format!(" read={read} write=<{write}, bufsize={size}>"));
    }
    text.push('>');
    Ok(PyString::new(py, &text).into_any())
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let base = asyncio(py).transports.bind(py).getattr(intern!(py, "Transport"))?;
    let size: usize = base.getattr(intern!(py, "__basicsize__"))?.extract()?;
    let plain = base.getattr(intern!(py, "__dictoffset__"))?.extract::<isize>()? == 0
        && base.getattr(intern!(py, "__weakrefoffset__"))?.extract::<isize>()? == 0;
    if !plain || size != size_of::<ffi::PyObject>() + TcpTransport::INHERITED * size_of::<usize>() {
        return Err(PyImportError::new_err(
            "aioxide does not know the layout of this Python's asyncio.Transport",
        ));
    }
    let class = Builder::of::<TcpTransport>()
        .slot(ffi::Py_tp_repr, unary::<Tcp, _>(repr))
        .method(noargs::<Tcp, _>(c"is_closing", is_closing))
        .method(noargs::<Tcp, _>(c"close", close))
        .method(onearg::<Tcp, _>(c"set_protocol", set_protocol))
        .method(noargs::<Tcp, _>(c"get_protocol", get_protocol))
        .method(noargs::<Tcp, _>(c"is_reading", is_reading))
        .method(noargs::<Tcp, _>(c"pause_reading", pause_reading))
        .method(noargs::<Tcp, _>(c"resume_reading", resume_reading))
        .method(onearg::<Tcp, _>(c"write", write_data))
        .method(onearg::<Tcp, _>(c"writelines", writelines))
        .method(noargs::<Tcp, _>(c"write_eof", write_eof))
        .method(noargs::<Tcp, _>(c"can_write_eof", can_write_eof))
        .method(noargs::<Tcp, _>(c"abort", abort))
        .method(anyargs::<Tcp, _>(c"set_write_buffer_limits", set_write_buffer_limits))
        .method(noargs::<Tcp, _>(c"get_write_buffer_limits", get_write_buffer_limits))
        .method(noargs::<Tcp, _>(c"get_write_buffer_size", get_write_buffer_size))
        .method(onearg::<Tcp, _>(c"_start", start))
        .method(onearg::<Tcp, _>(c"_call_connection_lost", call_connection_lost))
        .method(onearg::<Tcp, _>(c"_force_close", force_close))
        .method(anyargs::<Tcp, _>(c"_fatal_error", fatal_error))
        .method(noargs::<Tcp, _>(c"_make_empty_waiter", make_empty_waiter))
        .method(noargs::<Tcp, _>(c"_reset_empty_waiter", reset_empty_waiter))
        .attribute(getter::<Tcp, _>(c"_loop", get_loop))
        .attribute(getter::<Tcp, _>(c"_extra", get_extra).setter::<Tcp, _>(set_extra))
        .attribute(getter::<Tcp, _>(c"_sock", get_sock))
        .attribute(getter::<Tcp, _>(c"_sock_fd", get_sock_fd))
        .attribute(getter::<Tcp, _>(c"_server", get_server))
        .attribute(getter::<Tcp, _>(c"_protocol", get_protocol))
        .attribute(getter::<Tcp, _>(c"_closing", is_closing))
        .attribute(getter::<Tcp, _>(c"_paused", get_paused))
        .attribute(getter::<Tcp, _>(c"_eof", get_eof))
        .attribute(getter::<Tcp, _>(c"_conn_lost", get_conn_lost))
        .attribute(getter::<Tcp, _>(c"_protocol_paused", get_protocol_paused))
        .attribute(getter::<Tcp, _>(c"_start_tls_compatible", start_tls_compatible))
        .attribute(getter::<Tcp, _>(c"_sendfile_compatible", sendfile_compatible))
        .build(module, Some(&PyTuple::new(py, [base])?), TcpTransport::cell())?;
    module.add("SocketTransport", class)
}
