//! What Python sees of a StreamReader: asyncio's methods, and the private names that subclasses and libraries use.

use std::ffi::CStr;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString};
use pyo3::{Borrowed, ffi, intern};

use super::read::{self, Op};
use super::reader::{self, DEFAULT_LIMIT, Reader, This};
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::Slot;
use crate::ffi::class::{Builder, Class};
use crate::ffi::method::{Of, anyargs, constructor, getter, initializer, noargs, onearg, unary};
use crate::names::{boolean, names, none};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type Me = Of<Reader>;

fn done<'py>(this: This<'_, 'py>, result: PyResult<()>) -> Object<'py> {
    result.map(|()| none(this.py()))
}

fn held<'py>(this: This<'_, 'py>, slot: &Slot) -> Object<'py> {
    Ok(slot.get(this.py()).unwrap_or_else(|| none(this.py())))
}

/// Stores an attribute: None is nothing.
fn store<'py>(this: This<'_, 'py>, slot: &Slot, value: Borrowed<'_, 'py, PyAny>) {
    drop(slot.replace(this.py(), (!value.is_none()).then(|| value.to_owned())));
}

// --- reading -------------------------------------------------------------------------------------

/// The one argument of a method, if it was given.
fn argument<'py>(signature: &Signature, args: Args<'_, 'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if !args.has_names() && args.len() <= 1 && signature.required <= args.len() {
        return Ok(args.get(0).map(|value| value.to_owned()));
    }
    let [value] = signature.bind::<1>(args)?;
    Ok(value.map(|value| value.to_owned()))
}

fn read<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature =
        Signature { name: "read", positional: &["n"], required: 0, positional_only: 0, keyword_only: &[] };
    read::start(this, Op::Read, argument(&SIGNATURE, args)?)
}

fn readexactly<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature::of_one("readexactly", &["n"]);
    read::start(this, Op::Exactly, argument(&SIGNATURE, args)?)
}

fn readuntil<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "readuntil",
        positional: &["separator"],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    read::start(this, Op::Until, argument(&SIGNATURE, args)?)
}

/// What asyncio's own method does, where somebody has replaced one that it builds on.
fn by_asyncio<'py>(
    this: This<'_, 'py>,
    method: &CStr,
    parts: &[&CStr],
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let (py, object) = (this.py(), this.object());
    if reader::plain(&object).is_some() {
        return Ok(None);
    }
    for part in parts {
        if Reader::cell().is_replaced(&object, &this.dict, part)? {
            return names(py).stream_reader.bind(py).getattr(method)?.call1((object,)).map(Some);
        }
    }
    Ok(None)
}

fn readline<'py>(this: This<'_, 'py>) -> Object<'py> {
    match by_asyncio(this, c"readline", &[c"readuntil"])? {
        Some(result) => Ok(result),
        None => read::start(this, Op::Line, None),
    }
}

fn next<'py>(this: This<'_, 'py>) -> Object<'py> {
    match by_asyncio(this, c"__anext__", &[c"readline", c"readuntil"])? {
        Some(result) => Ok(result),
        None => read::start(this, Op::Next, None),
    }
}

fn itself<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.to_owned())
}

fn wait_for_data<'py>(this: This<'_, 'py>, name: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    read::start(this, Op::WaitForData, Some(name.to_owned()))
}

// --- feeding -------------------------------------------------------------------------------------

fn feed_data<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature::of_one("feed_data", &["data"]);
    let data = SIGNATURE.one(args)?;
    done(this, this.feed_any(data))
}

fn feed_eof<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.feed_eof())
}

fn at_eof<'py>(this: This<'_, 'py>) -> Object<'py> {
    let ended = this.buffer.with(this.py(), |inflow| inflow.has_eof());
    Ok(boolean(this.py(), ended && this.buffer.len(this.py())? == 0))
}

fn set_exception<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature::of_one("set_exception", &["exc"]);
    let exc = SIGNATURE.one(args)?;
    done(this, this.set_exception(&exc))
}

fn exception<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.exception)
}

fn set_transport<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature::of_one("set_transport", &["transport"]);
    let transport = SIGNATURE.one(args)?;
    done(this, this.set_transport(&transport))
}

fn replace_transport<'py>(this: This<'_, 'py>, transport: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, this.replace_transport(&transport))
}

fn maybe_resume<'py>(this: This<'_, 'py>) -> Object<'py> {
    let flow = this.buffer.release(this.py())?;
    done(this, this.resume(flow))
}

fn wakeup_waiter<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.wake(None))
}

// --- attributes ----------------------------------------------------------------------------------

fn get_buffer<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.buffer.object(this.py())
}

fn set_buffer<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.buffer.set_object(&value)
}

fn get_limit<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), this.buffer.with(this.py(), |inflow| inflow.limit())).into_any())
}

fn set_limit<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let limit = reader::limit_of(&value)?;
    this.buffer.with(this.py(), |inflow| inflow.set_limit(limit));
    Ok(())
}

fn get_eof<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.buffer.with(this.py(), |inflow| inflow.has_eof())))
}

fn set_eof<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let eof = value.is_truthy()?;
    this.buffer.with(this.py(), |inflow| inflow.set_eof(eof));
    Ok(())
}

fn get_paused<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.buffer.with(this.py(), |inflow| inflow.is_paused())))
}

fn set_paused<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let paused = value.is_truthy()?;
    this.buffer.with(this.py(), |inflow| inflow.set_paused(paused));
    Ok(())
}

fn get_loop<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.event_loop)
}

fn set_loop<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.event_loop, value);
    Ok(())
}

fn get_waiter<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.waiter)
}

fn set_waiter<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.waiter, value);
    Ok(())
}

fn set_exception_attribute<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.exception, value);
    Ok(())
}

fn get_transport<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.transport)
}

fn set_transport_attribute<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.transport, value);
    Ok(())
}

fn get_source<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.source)
}

fn set_source<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.source, value);
    Ok(())
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let mut text = "<StreamReader".to_owned();
    let length = this.buffer.len(py)?;
    if length > 0 {
        text.push_str(&format!(" {length} bytes"));
    }
    let (ended, limit, paused) =
        this.buffer.with(py, |inflow| (inflow.has_eof(), inflow.limit(), inflow.is_paused()));
    if ended {
        text.push_str(" eof");
    }
    if limit != DEFAULT_LIMIT {
        text.push_str(&format!(" limit={limit}"));
    }
    let objects = [("waiter", &this.waiter), ("exception", &this.exception), ("transport", &this.transport)];
    for (name, slot) in objects {
        if let Some(object) = slot.get(py) {
            text.push_str(&format!(" {name}={}", object.repr()?));
        }
    }
    if paused {
        text.push_str(" paused");
    }
    text.push('>');
    Ok(PyString::new(py, &text).into_any())
}

/// A reader goes nowhere: not into another process, and not twice.
fn reduce<'py>(this: This<'_, 'py>, _: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let class = this.object().get_type().name()?.to_string();
    Err(PyTypeError::new_err(format!("cannot pickle '{class}' object")))
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = Builder::of::<Reader>()
        .short_name()
        .doc(
            c"StreamReader(limit=65536, loop=None)\n--\n\nBytes that arrive, to be read as they are needed.\n\n\
              More than twice the limit of unread bytes pause the transport.",
        )
        .slot(ffi::Py_tp_new, constructor::<Reader, _>(reader::new))
        .slot(ffi::Py_tp_init, initializer::<Me, _>(reader::init))
        .slot(ffi::Py_tp_repr, unary::<Me, _>(repr))
        .slot(ffi::Py_am_aiter, unary::<Me, _>(itself))
        .slot(ffi::Py_am_anext, unary::<Me, _>(next))
        .method(anyargs::<Me, _>(c"read", read).doc(
            c"read($self, n=-1)\n--\n\nRead up to n bytes, at least one unless the stream has ended; \
              everything up to the end if n is negative.",
        ))
        .method(noargs::<Me, _>(c"readline", readline).doc(
            c"readline($self, /)\n--\n\nRead up to and with the next line feed, or to the end.\n\n\
              ValueError if the line is longer than the limit.",
        ))
        .method(anyargs::<Me, _>(c"readuntil", readuntil).doc(
            c"readuntil($self, separator=b'\\n')\n--\n\nRead up to and with a separator, or the nearest of \
              a tuple of them.\n\nIncompleteReadError at the end of the stream, LimitOverrunError beyond \
              the limit.",
        ))
        .method(anyargs::<Me, _>(c"readexactly", readexactly).doc(
            c"readexactly($self, n)\n--\n\nRead n bytes.\n\nIncompleteReadError if the stream ends before.",
        ))
        .method(anyargs::<Me, _>(c"feed_data", feed_data).doc(
            c"feed_data($self, data)\n--\n\nAdd received bytes and wake who waits for them.",
        ))
        .method(noargs::<Me, _>(c"feed_eof", feed_eof).doc(
            c"feed_eof($self, /)\n--\n\nSay that nothing more will come.",
        ))
        .method(noargs::<Me, _>(c"at_eof", at_eof).doc(
            c"at_eof($self, /)\n--\n\nReturn True if the stream has ended and everything is read.",
        ))
        .method(noargs::<Me, _>(c"exception", exception).doc(
            c"exception($self, /)\n--\n\nReturn what set_exception was given, or None.",
        ))
        .method(anyargs::<Me, _>(c"set_exception", set_exception).doc(
            c"set_exception($self, exc)\n--\n\nMake every read raise an exception from now on.",
        ))
        .method(anyargs::<Me, _>(c"set_transport", set_transport).doc(
            c"set_transport($self, transport)\n--\n\nSay which transport to pause and to resume.",
        ))
        .method(onearg::<Me, _>(c"_replace_transport", replace_transport))
        .method(noargs::<Me, _>(c"_maybe_resume_transport", maybe_resume))
        .method(noargs::<Me, _>(c"_wakeup_waiter", wakeup_waiter))
        .method(onearg::<Me, _>(c"_wait_for_data", wait_for_data))
        .method(onearg::<Me, _>(c"__reduce_ex__", reduce))
        .attribute(getter::<Me, _>(c"_buffer", get_buffer).setter::<Me, _>(set_buffer))
        .attribute(getter::<Me, _>(c"_limit", get_limit).setter::<Me, _>(set_limit))
        .attribute(getter::<Me, _>(c"_eof", get_eof).setter::<Me, _>(set_eof))
        .attribute(getter::<Me, _>(c"_paused", get_paused).setter::<Me, _>(set_paused))
        .attribute(getter::<Me, _>(c"_loop", get_loop).setter::<Me, _>(set_loop))
        .attribute(getter::<Me, _>(c"_waiter", get_waiter).setter::<Me, _>(set_waiter))
        .attribute(getter::<Me, _>(c"_exception", exception).setter::<Me, _>(set_exception_attribute))
        .attribute(getter::<Me, _>(c"_transport", get_transport).setter::<Me, _>(set_transport_attribute))
        .attribute(getter::<Me, _>(c"_source_traceback", get_source).setter::<Me, _>(set_source))
        .build(module, None, Reader::cell())?;
    module.add(intern!(module.py(), "StreamReader"), class)
}
