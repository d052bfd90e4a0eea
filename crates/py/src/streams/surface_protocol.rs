//! What Python sees of StreamReaderProtocol and FlowControlMixin: asyncio's methods, and the private names that
//! subclasses and libraries use.

use pyo3::exceptions::PyNotImplementedError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{Borrowed, ffi, intern};

use super::drain;
use super::protocol::{self, Protocol, STREAM, This};
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::Slot;
use crate::ffi::class::{Builder, Class};
use crate::ffi::method::{Of, anyargs, constructor, getter, initializer, noargs, onearg};
use crate::names::{boolean, none};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type Me = Of<Protocol>;

fn done<'py>(this: This<'_, 'py>, result: PyResult<()>) -> Object<'py> {
    result.map(|()| none(this.py()))
}

fn held<'py>(this: This<'_, 'py>, slot: &Slot) -> Object<'py> {
    Ok(slot.get(this.py()).unwrap_or_else(|| none(this.py())))
}

/// Stores an attribute: None is nothing.
fn store<'py>(this: This<'_, 'py>, slot: &Slot, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    drop(slot.replace(this.py(), (!value.is_none()).then(|| value.to_owned())));
    Ok(())
}

// --- the mixin -----------------------------------------------------------------------------------

fn pause_writing<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.set_paused(true))
}

fn resume_writing<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.set_paused(false))
}

fn mixin_connection_lost<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature::of_one("connection_lost", &["exc"]);
    let error = SIGNATURE.one(args)?;
    done(this, this.connection_is_lost(Some(&error).filter(|error| !error.is_none()).map(|error| &**error)))
}

fn drain_helper<'py>(this: This<'_, 'py>) -> Object<'py> {
    drain::helper(this)
}

fn no_close_waiter<'py>(_: This<'_, 'py>, _: Args<'_, 'py>) -> Object<'py> {
    Err(PyNotImplementedError::new_err(()))
}

fn get_loop<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.event_loop)
}

fn set_loop<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.event_loop, value)
}

fn get_paused<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.paused.get()))
}

fn set_paused<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.paused.set(value.is_truthy()?);
    Ok(())
}

fn get_lost<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.lost.get()))
}

fn set_lost<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.lost.set(value.is_truthy()?);
    Ok(())
}

fn get_waiters<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.waiters()?.into_any())
}

// --- the protocol --------------------------------------------------------------------------------

fn connection_made<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature::of_one("connection_made", &["transport"]);
    let transport = SIGNATURE.one(args)?;
    done(this, this.connection_made(&transport))
}

fn connection_lost<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature::of_one("connection_lost", &["exc"]);
    let error = SIGNATURE.one(args)?;
    done(this, this.connection_lost(&error))
}

fn data_received<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature::of_one("data_received", &["data"]);
    let data = SIGNATURE.one(args)?;
    match data.cast_exact() {
        Ok(bytes) => done(this, this.data_received(bytes.to_owned())),
        Err(_) => match this.reader() {
            Some(reader) => reader.call_method1(intern!(this.py(), "feed_data"), (data,)),
            None => Ok(none(this.py())),
        },
    }
}

fn eof_received<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.eof_received().map(|keep| boolean(this.py(), keep))
}

fn get_close_waiter<'py>(this: This<'_, 'py>, _: Args<'_, 'py>) -> Object<'py> {
    this.closed()
}

fn replace_transport<'py>(this: This<'_, 'py>, transport: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, this.replace_transport(&transport))
}

/// What `_replace_transport` was called before 3.13, and took.
fn replace_writer<'py>(this: This<'_, 'py>, writer: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let transport = writer.getattr(intern!(this.py(), "transport"))?;
    done(this, this.replace_transport(&transport))
}

fn get_reader<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.reader().unwrap_or_else(|| none(this.py())))
}

fn get_reader_reference<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.reader)
}

fn set_reader_reference<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.reader, value)
}

fn get_strong<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.strong)
}

fn set_strong<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.strong, value)
}

fn get_transport<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.transport)
}

fn set_transport<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.transport, value)
}

fn get_callback<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.callback)
}

fn set_callback<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.callback, value)
}

fn get_task<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.task)
}

fn set_task<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.task, value)
}

fn get_over_ssl<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.over_ssl.get()))
}

fn set_over_ssl<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.over_ssl.set(value.is_truthy()?);
    Ok(())
}

fn get_rejecting<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.rejecting.get()))
}

fn set_rejecting<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.rejecting.set(value.is_truthy()?);
    Ok(())
}

fn get_closed<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.closed()
}

fn set_closed<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.closed, value)
}

fn get_source<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.source)
}

fn set_source<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.source, value)
}

/// Makes both types; `bases` is asyncio.Protocol.
pub(super) fn register(module: &Bound<'_, PyModule>, bases: &Bound<'_, PyTuple>) -> PyResult<()> {
    let mixin = Builder::of::<Protocol>()
        .doc(c"FlowControlMixin(loop=None)\n--\n\nA protocol that one can wait for when it must not write.")
        .slot(ffi::Py_tp_new, constructor::<Protocol, _>(protocol::new))
        .slot(ffi::Py_tp_init, initializer::<Me, _>(protocol::init_mixin))
        .method(noargs::<Me, _>(c"pause_writing", pause_writing))
        .method(noargs::<Me, _>(c"resume_writing", resume_writing))
        .method(
            anyargs::<Me, _>(c"connection_lost", mixin_connection_lost)
                .doc(c"connection_lost($self, exc)\n--\n\nWake those who wait to write."),
        )
        .method(noargs::<Me, _>(c"_drain_helper", drain_helper))
        .method(anyargs::<Me, _>(c"_get_close_waiter", no_close_waiter))
        .attribute(getter::<Me, _>(c"_loop", get_loop).setter::<Me, _>(set_loop))
        .attribute(getter::<Me, _>(c"_paused", get_paused).setter::<Me, _>(set_paused))
        .attribute(getter::<Me, _>(c"_connection_lost", get_lost).setter::<Me, _>(set_lost))
        .attribute(getter::<Me, _>(c"_drain_waiters", get_waiters))
        .build(module, Some(bases), Protocol::cell())?;
    let class = Builder::of::<Protocol>()
        .named(c"aioxide.StreamReaderProtocol")
        .doc(
            c"StreamReaderProtocol(stream_reader, client_connected_cb=None, loop=None)\n--\n\n\
              The protocol between a transport and a StreamReader.",
        )
        .slot(ffi::Py_tp_new, constructor::<Protocol, _>(protocol::new))
        .slot(ffi::Py_tp_init, initializer::<Me, _>(protocol::init))
        .method(
            anyargs::<Me, _>(c"connection_made", connection_made)
                .doc(c"connection_made($self, transport)\n--\n\nGive the streams their transport."),
        )
        .method(
            anyargs::<Me, _>(c"connection_lost", connection_lost).doc(
                c"connection_lost($self, exc)\n--\n\nEnd the streams, with an exception if it is not None.",
            ),
        )
        .method(
            anyargs::<Me, _>(c"data_received", data_received)
                .doc(c"data_received($self, data)\n--\n\nHand bytes to the reader."),
        )
        .method(noargs::<Me, _>(c"eof_received", eof_received))
        .method(anyargs::<Me, _>(c"_get_close_waiter", get_close_waiter))
        .method(onearg::<Me, _>(c"_replace_transport", replace_transport))
        .method(onearg::<Me, _>(c"_replace_writer", replace_writer))
        .attribute(getter::<Me, _>(c"_stream_reader", get_reader))
        .attribute(
            getter::<Me, _>(c"_stream_reader_wr", get_reader_reference).setter::<Me, _>(set_reader_reference),
        )
        .attribute(getter::<Me, _>(c"_strong_reader", get_strong).setter::<Me, _>(set_strong))
        .attribute(getter::<Me, _>(c"_transport", get_transport).setter::<Me, _>(set_transport))
        .attribute(getter::<Me, _>(c"_client_connected_cb", get_callback).setter::<Me, _>(set_callback))
        .attribute(getter::<Me, _>(c"_task", get_task).setter::<Me, _>(set_task))
        .attribute(getter::<Me, _>(c"_over_ssl", get_over_ssl).setter::<Me, _>(set_over_ssl))
        .attribute(getter::<Me, _>(c"_reject_connection", get_rejecting).setter::<Me, _>(set_rejecting))
        .attribute(getter::<Me, _>(c"_closed", get_closed).setter::<Me, _>(set_closed))
        .attribute(getter::<Me, _>(c"_source_traceback", get_source).setter::<Me, _>(set_source))
        .build(module, Some(&PyTuple::new(module.py(), [&mixin])?), &STREAM)?;
    module.add("FlowControlMixin", mixin)?;
    module.add("StreamReaderProtocol", class)
}
