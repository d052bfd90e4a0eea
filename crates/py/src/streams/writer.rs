//! `asyncio.StreamWriter`: writes to a transport, waits for it, closes it.
//!
//! A transport of ours is written to directly (transports/sender.rs), any other by its methods.

use pyo3::exceptions::{PyAssertionError, PyAttributeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyType};
use pyo3::{Borrowed, ffi, intern};

use super::drain;
use super::reader::{Reader, future, settle};
use crate::async_fn::{self, attached};
use crate::await_on;
use crate::errors::warn_of_resource;
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::Slot;
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{Of, anyargs, constructor, getter, initializer, noargs, unary};
use crate::futures;
use crate::names::{boolean, none};
use crate::transports::sender::Sender;

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type Me = Of<Writer>;
pub(super) type This<'a, 'py> = Inst<'a, 'py, Writer>;

/// A stream to write to.
pub(crate) struct Writer {
    transport: Slot,
    pub(super) protocol: Slot,
    pub(super) reader: Slot,
    event_loop: Slot,
    /// `_complete_fut`, once somebody has asked for it.
    complete: Slot,
    dict: Slot,
}

impl Class for Writer {
    const NAME: &'static std::ffi::CStr = c"aioxide.StreamWriter";
    const SUBCLASSABLE: bool = true;
    const DICT: Option<usize> = Some(std::mem::offset_of!(Self, dict));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.slots().into_iter().try_for_each(|slot| slot.traverse(visit))
    }

    fn clear(&self, py: Python<'_>) {
        for slot in self.slots() {
            drop(slot.take(py));
        }
    }

    fn wants_finalize(&self) -> bool {
        self.transport.is_some()
    }

    /// Nobody closed it.
    fn finalize(this: This<'_, '_>) {
        let py = this.py();
        futures::without_current_error(py, || {
            let (Some(transport), Some(event_loop)) = (this.transport.get(py), this.event_loop.get(py))
            else {
                return Ok(());
            };
            if Sender::of(&transport).is_closing()? {
                return Ok(());
            }
            let text = if event_loop.call_method0(intern!(py, "is_closed"))?.is_truthy()? {
                "loop is closed".to_owned()
            } else {
                this.object().call_method0(intern!(py, "close"))?;
                format!("unclosed {}", this.object().repr()?)
            };
            warn_of_resource(this.object(), &text)
        });
    }
}

impl Writer {
    const fn blank() -> Self {
        Self {
            transport: Slot::empty(),
            protocol: Slot::empty(),
            reader: Slot::empty(),
            event_loop: Slot::empty(),
            complete: Slot::empty(),
            dict: Slot::empty(),
        }
    }

    fn slots(&self) -> [&Slot; 6] {
        [&self.transport, &self.protocol, &self.reader, &self.event_loop, &self.complete, &self.dict]
    }
}

/// `StreamWriter(transport, protocol, reader, loop)`.
pub(super) fn make<'py>(
    transport: &Bound<'py, PyAny>,
    protocol: &Bound<'py, PyAny>,
    reader: Option<Bound<'py, PyAny>>,
    event_loop: &Bound<'py, PyAny>,
) -> Object<'py> {
    let hold = |object: &Bound<'py, PyAny>| Slot::holding(object.clone().unbind());
    let writer = Writer {
        transport: hold(transport),
        protocol: hold(protocol),
        reader: Slot::new(reader.map(Bound::unbind)),
        event_loop: hold(event_loop),
        ..Writer::blank()
    };
    create(transport.py(), writer)
}

fn new(_: Args<'_, '_>) -> PyResult<Writer> {
    Ok(Writer::blank())
}

fn init(this: This<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "StreamWriter.__init__",
        positional: &["transport", "protocol", "reader", "loop"],
        required: 4,
        positional_only: 0,
        keyword_only: &[],
    };
    let py = this.py();
    let [transport, protocol, reader, event_loop] = SIGNATURE.bind::<4>(args)?;
    let reader = given(reader);
    if let Some(reader) = &reader
        && !is_reader(reader)?
    {
        return Err(PyAssertionError::new_err(()));
    }
    let values = [(&this.transport, transport), (&this.protocol, protocol), (&this.event_loop, event_loop)];
    for (slot, value) in values {
        drop(slot.replace(py, value.map(|value| value.to_owned())));
    }
    drop(this.reader.replace(py, reader));
    Ok(())
}

/// asyncio's own class, looked up before `install` can put ours in its place.
static STOCK: PyOnceLock<Py<PyType>> = PyOnceLock::new();

fn is_reader(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    Ok(object.is_instance(&Reader::cell().get(py))?
        || object.is_instance(STOCK.import(py, "asyncio.streams", "StreamReader")?)?)
}

impl<'py> This<'_, 'py> {
    /// The transport.
    #[inline]
    pub(super) fn transport(self) -> Object<'py> {
        self.transport.get(self.py()).ok_or_else(|| PyAttributeError::new_err("_transport"))
    }
}

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

// --- writing -------------------------------------------------------------------------------------

fn write<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature::of_one("write", &["data"]);
    let data = SIGNATURE.one(args)?;
    let transport = this.transport()?;
    done(this, Sender::of(&transport).write(data))
}

fn writelines<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature::of_one("writelines", &["data"]);
    let data = SIGNATURE.one(args)?;
    let transport = this.transport()?;
    done(this, Sender::of(&transport).write_lines(data))
}

fn write_eof<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.transport()?.call_method0(intern!(this.py(), "write_eof"))
}

fn can_write_eof<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.transport()?.call_method0(intern!(this.py(), "can_write_eof"))
}

fn close<'py>(this: This<'_, 'py>) -> Object<'py> {
    let transport = this.transport()?;
    match Sender::of(&transport) {
        Sender::Python(object) => object.call_method0(intern!(this.py(), "close")),
        native => done(this, native.close()),
    }
}

fn is_closing<'py>(this: This<'_, 'py>) -> Object<'py> {
    let transport = this.transport()?;
    match Sender::of(&transport) {
        Sender::Python(object) => object.call_method0(intern!(this.py(), "is_closing")),
        native => Ok(boolean(this.py(), native.is_closing()?)),
    }
}

fn get_extra_info<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "get_extra_info",
        positional: &["name", "default"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [name, default] = SIGNATURE.bind::<2>(args)?;
    let default = default.map_or_else(|| none(this.py()), Borrowed::to_owned);
    this.transport()?.call_method1(intern!(this.py(), "get_extra_info"), (name, default))
}

// --- waiting -------------------------------------------------------------------------------------

fn drain<'py>(this: This<'_, 'py>) -> Object<'py> {
    drain::drain(this)
}

fn wait_closed<'py>(this: This<'_, 'py>) -> Object<'py> {
    fn close_waiter<'py>(writer: Bound<'py, PyAny>) -> Object<'py> {
        let py = writer.py();
        let Some(this) = This::cast(&writer) else { return Ok(none(py)) };
        match this.protocol.get(py) {
            Some(protocol) => protocol.call_method1(intern!(py, "_get_close_waiter"), (writer,)),
            None => Err(PyAttributeError::new_err("_protocol")),
        }
    }
    await_on::coroutine("StreamWriter.wait_closed", this.to_owned(), close_waiter)
}

fn start_tls<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "start_tls",
        positional: &["sslcontext"],
        required: 1,
        positional_only: 0,
        keyword_only: &["server_hostname", "ssl_handshake_timeout", "ssl_shutdown_timeout"],
    };
    let py = this.py();
    let [context, hostname, handshake, shutdown] = SIGNATURE.bind::<4>(args)?;
    let Some(context) = context else { return Err(PyTypeError::new_err("start_tls() needs an SSLContext")) };
    let context = context.to_owned().unbind();
    let keywords = PyDict::new(py);
    for (name, value) in [
        ("server_hostname", hostname),
        ("ssl_handshake_timeout", handshake),
        ("ssl_shutdown_timeout", shutdown),
    ] {
        keywords.set_item(name, value)?;
    }
    let keywords = keywords.unbind();
    async_fn::rooted(this.to_owned(), "StreamWriter.start_tls", async move {
        let protocol =
            attached(|py| async_fn::root(py)?.getattr(intern!(py, "_protocol")).map(Bound::unbind))?;
        attached(|py| {
            let server_side = !protocol.bind(py).getattr(intern!(py, "_client_connected_cb"))?.is_none();
            keywords.bind(py).set_item("server_side", server_side)
        })?;
        let draining =
            attached(|py| async_fn::root(py)?.call_method0(intern!(py, "drain")).map(Bound::unbind))?;
        async_fn::wait(draining).await?;
        let starting = attached(|py| {
            let writer = async_fn::root(py)?;
            let args = (writer.getattr(intern!(py, "_transport"))?, &protocol, context);
            writer
                .getattr(intern!(py, "_loop"))?
                .call_method(intern!(py, "start_tls"), args, Some(keywords.bind(py)))
                .map(Bound::unbind)
        })?;
        let transport = async_fn::wait(starting).await?;
        attached(|py| {
            async_fn::root(py)?.setattr(intern!(py, "_transport"), &transport)?;
            protocol.bind(py).call_method1(intern!(py, "_replace_transport"), (transport,)).map(Bound::unbind)
        })?;
        async_fn::none()
    })
}

// --- attributes ----------------------------------------------------------------------------------

fn get_transport<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.transport)
}

fn set_transport<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.transport, value)
}

fn get_protocol<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.protocol)
}

fn set_protocol<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.protocol, value)
}

fn get_reader<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.reader)
}

fn set_reader<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.reader, value)
}

fn get_loop<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.event_loop)
}

fn set_loop<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    store(this, &this.event_loop, value)
}

/// A future that is done.
fn get_complete<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    if let Some(complete) = this.complete.get(py) {
        return Ok(complete);
    }
    let complete = future(this.event_loop.get(py).as_ref())?;
    settle(&complete, None)?;
    this.complete.set(py, complete.clone());
    Ok(complete)
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let mut text =
        format!("<{} transport={}", this.object().get_type().name()?, held(this, &this.transport)?.repr()?);
    if let Some(reader) = this.reader.get(py) {
        text.push_str(&format!(" reader={}", reader.repr()?));
    }
    text.push('>');
    Ok(PyString::new(py, &text).into_any())
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    STOCK.import(module.py(), "asyncio.streams", "StreamReader")?;
    let class = Builder::of::<Writer>()
        .short_name()
        .doc(
            c"StreamWriter(transport, protocol, reader, loop)\n--\n\nA transport to write to, and a way to \
              wait for it.",
        )
        .slot(ffi::Py_tp_new, constructor::<Writer, _>(new))
        .slot(ffi::Py_tp_init, initializer::<Me, _>(init))
        .slot(ffi::Py_tp_repr, unary::<Me, _>(repr))
        .method(anyargs::<Me, _>(c"write", write).doc(
            c"write($self, data)\n--\n\nWrite bytes: at once as far as they go, the rest in the background.",
        ))
        .method(
            anyargs::<Me, _>(c"writelines", writelines)
                .doc(c"writelines($self, data)\n--\n\nWrite an iterable of bytes-like objects."),
        )
        .method(
            noargs::<Me, _>(c"write_eof", write_eof)
                .doc(c"write_eof($self, /)\n--\n\nEnd our direction of the stream once everything is sent."),
        )
        .method(
            noargs::<Me, _>(c"can_write_eof", can_write_eof)
                .doc(c"can_write_eof($self, /)\n--\n\nReturn True if the transport supports write_eof()."),
        )
        .method(noargs::<Me, _>(c"close", close).doc(
            c"close($self, /)\n--\n\nClose the stream once everything is sent; wait_closed() waits for it.",
        ))
        .method(
            noargs::<Me, _>(c"is_closing", is_closing)
                .doc(c"is_closing($self, /)\n--\n\nReturn True if the stream is closed or being closed."),
        )
        .method(
            noargs::<Me, _>(c"wait_closed", wait_closed)
                .doc(c"wait_closed($self, /)\n--\n\nWait until the stream is closed."),
        )
        .method(noargs::<Me, _>(c"drain", drain).doc(
            c"drain($self, /)\n--\n\nWait until it is right to write more.\n\n\
              Raises what the connection was lost by.",
        ))
        .method(anyargs::<Me, _>(c"get_extra_info", get_extra_info).doc(
            c"get_extra_info($self, name, default=None)\n--\n\nReturn what the transport knows under a name.",
        ))
        .method(anyargs::<Me, _>(c"start_tls", start_tls).doc(
            c"start_tls($self, sslcontext, *, server_hostname=None, ssl_handshake_timeout=None, \
              ssl_shutdown_timeout=None)\n--\n\nGo on over TLS on the same connection.",
        ))
        .attribute(getter::<Me, _>(c"transport", get_transport))
        .attribute(getter::<Me, _>(c"_transport", get_transport).setter::<Me, _>(set_transport))
        .attribute(getter::<Me, _>(c"_protocol", get_protocol).setter::<Me, _>(set_protocol))
        .attribute(getter::<Me, _>(c"_reader", get_reader).setter::<Me, _>(set_reader))
        .attribute(getter::<Me, _>(c"_loop", get_loop).setter::<Me, _>(set_loop))
        .attribute(getter::<Me, _>(c"_complete_fut", get_complete))
        .build(module, None, Writer::cell())?;
    module.add("StreamWriter", class)
}
