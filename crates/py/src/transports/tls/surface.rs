//! The side that the program sees: a transport, with asyncio's names. The type is a true subclass of
//! `asyncio.Transport`.
//!
//! It holds the TLS layer, and the layer holds it until the connection is lost.

use aioxide_core::TlsPhase;
use pyo3::exceptions::{PyImportError, PyNotImplementedError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyTuple};
use pyo3::{Borrowed, ffi, intern};

use super::{This as Layer, read, write};
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Find, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{Of, anyargs, getter, noargs, onearg};
use crate::futures;
use crate::names::{asyncio, boolean, none};
use crate::transports::report;

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type Transport = Of<TlsTransport>;
pub(crate) type This<'a, 'py> = Inst<'a, 'py, TlsTransport>;

/// The transport of a program that uses TLS.
pub(crate) struct TlsTransport {
    /// The layer; nothing once it was closed twice.
    layer: Slot,
    event_loop: Slot,
    closed: Flag<bool>,
    /// What a program has put on the instance, methods in the place of ours among it.
    attributes: Slot,
}

impl Class for TlsTransport {
    const NAME: &'static std::ffi::CStr = c"aioxide._core._SSLProtocolTransport";
    const INHERITED: usize = 1; // asyncio.BaseTransport's `_extra`
    const DICT: Option<usize> = Some(std::mem::offset_of!(Self, attributes));
    const STANDS_FOR: Option<Find> =
        Some(|py| asyncio(py).sslproto.bind(py).getattr(intern!(py, "_SSLProtocolTransport")));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.layer.traverse(visit)?;
        self.event_loop.traverse(visit)?;
        self.attributes.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop((self.layer.take(py), self.event_loop.take(py), self.attributes.take(py)));
    }

    /// Nobody has closed it and nobody can any more; the transport below sees to its socket.
    fn finalize(this: This<'_, '_>) {
        let py = this.py();
        if this.closed.replace(true) {
            return;
        }
        futures::without_current_error(py, || report::unclosed(this.object()));
    }

    fn wants_finalize(&self) -> bool {
        !self.closed.get()
    }
}

/// Makes the transport of a layer.
pub(super) fn make<'py>(layer: &Bound<'py, PyAny>, event_loop: &Bound<'py, PyAny>) -> Object<'py> {
    let value = TlsTransport {
        layer: Slot::holding(layer.clone().unbind()),
        event_loop: Slot::holding(event_loop.clone().unbind()),
        closed: Flag::new(false),
        attributes: Slot::empty(),
    };
    create(layer.py(), value)
}

/// The connection is closed, or about to be.
pub(super) fn mark_closed(transport: &Bound<'_, PyAny>) {
    if let Some(this) = This::cast_exact(transport) {
        this.closed.set(true);
    }
}

impl TlsTransport {
    /// Whether its methods are ours: a program can put others on an instance.
    pub(crate) fn is_plain(&self) -> bool {
        !self.attributes.is_some()
    }
}

impl<'py> This<'_, 'py> {
    /// Runs `f` with the layer, if there still is one.
    #[inline]
    fn layer<R>(self, f: impl FnOnce(Layer<'_, 'py>) -> PyResult<R>) -> PyResult<Option<R>> {
        let Some(layer) = self.layer.get(self.py()) else { return Ok(None) };
        Layer::cast_exact(&layer).map(f).transpose()
    }

    /// `write(data)`.
    #[inline]
    pub(crate) fn write(self, data: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
        self.layer(|layer| write::write(layer, data)).map(drop)
    }

    /// `writelines(lines)`.
    pub(crate) fn write_lines(self, lines: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
        self.layer(|layer| write::write_lines(layer, lines)).map(drop)
    }

    /// `close()`: shuts down in order. A second call lets go of the layer.
    pub(crate) fn close(self) -> PyResult<()> {
        if self.closed.replace(true) {
            drop(self.layer.take(self.py()));
            return Ok(());
        }
        self.layer(read::close).map(drop)
    }

    /// `is_closing()`.
    pub(crate) fn is_closing(self) -> PyResult<bool> {
        if self.closed.get() {
            return Ok(true);
        }
        let below = self.layer(|layer| match layer.transport.get(layer.py()) {
            Some(transport) => super::Sender::of(&transport).is_closing(),
            None => Ok(false),
        })?;
        Ok(below.unwrap_or(true))
    }

    /// `pause_reading()`.
    pub(crate) fn pause_reading(self) -> PyResult<()> {
        self.layer(|layer| {
            read::pause(layer);
            Ok(())
        })
        .map(drop)
    }

    /// `resume_reading()`.
    pub(crate) fn resume_reading(self) -> PyResult<()> {
        self.layer(read::resume).map(drop)
    }

    /// `_force_close(error)`.
    pub(crate) fn force_close(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        self.closed.set(true);
        self.layer(|layer| layer.abort(error)).map(drop)
    }
}

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
    let found = this.layer(|layer| layer.extra_info(&name, default.clone()))?;
    Ok(found.unwrap_or(default))
}

fn set_protocol<'py>(this: This<'_, 'py>, protocol: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, this.layer(|layer| layer.set_protocol(&protocol)).map(drop))
}

fn get_protocol<'py>(this: This<'_, 'py>) -> Object<'py> {
    let protocol = this.layer(|layer| Ok(layer.protocol.get(layer.py())))?;
    Ok(protocol.flatten().unwrap_or_else(|| none(this.py())))
}

fn is_closing<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.is_closing()?))
}

fn close<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.close())
}

// --- reading -------------------------------------------------------------------------------------

fn is_reading<'py>(this: This<'_, 'py>) -> Object<'py> {
    let reading = this.layer(|layer| Ok(!layer.pauses.get().reading))?;
    Ok(boolean(this.py(), reading.unwrap_or(false)))
}

fn pause_reading<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.pause_reading())
}

fn resume_reading<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.resume_reading())
}

// --- writing -------------------------------------------------------------------------------------

fn write_data<'py>(this: This<'_, 'py>, data: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, this.write(data))
}

fn writelines<'py>(this: This<'_, 'py>, lines: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, this.write_lines(lines))
}

/// TLS has no half-closed connections.
fn write_eof<'py>(_this: This<'_, 'py>) -> Object<'py> {
    Err(PyNotImplementedError::new_err(()))
}

fn can_write_eof<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), false))
}

fn abort<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.force_close(None))
}

fn force_close<'py>(this: This<'_, 'py>, error: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let error = given(Some(error));
    done(this, this.force_close(error.as_ref()))
}

// --- flow control --------------------------------------------------------------------------------

type Limits = (Option<i64>, Option<i64>);

fn limits(args: Args<'_, '_>, signature: &Signature) -> PyResult<Limits> {
    let [high, low] = signature.bind::<2>(args)?;
    let number = |value| given(value).map(|value| value.extract::<i64>()).transpose();
    Ok((number(high)?, number(low)?))
}

/// asyncio's default mark, in bytes.
fn default_mark(py: Python<'_>, name: &str) -> PyResult<usize> {
    Ok(asyncio(py).constants.bind(py).getattr(name)?.extract::<usize>()? * 1024)
}

fn set_write_buffer_limits<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "set_write_buffer_limits",
        positional: &["high", "low"],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let (high, low) = limits(args, &SIGNATURE)?;
    let marks = write::marks(high, low, default_mark(this.py(), "FLOW_CONTROL_HIGH_WATER_SSL_WRITE")?)?;
    done(this, this.layer(|layer| write::set_limits(layer, marks)).map(drop))
}

fn set_read_buffer_limits<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "set_read_buffer_limits",
        positional: &["high", "low"],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let (high, low) = limits(args, &SIGNATURE)?;
    let marks = write::marks(high, low, default_mark(this.py(), "FLOW_CONTROL_HIGH_WATER_SSL_READ")?)?;
    done(this, this.layer(|layer| read::set_limits(layer, marks)).map(drop))
}

fn pair<'py>(this: This<'_, 'py>, marks: impl FnOnce(Layer<'_, 'py>) -> super::Marks) -> Object<'py> {
    let marks = this.layer(|layer| Ok(marks(layer)))?;
    let (low, high) = marks.map_or((0, 0), |marks| (marks.low, marks.high));
    Ok((low, high).into_pyobject(this.py())?.into_any())
}

fn get_write_buffer_limits<'py>(this: This<'_, 'py>) -> Object<'py> {
    pair(this, |layer| layer.write_marks.get())
}

fn get_read_buffer_limits<'py>(this: This<'_, 'py>) -> Object<'py> {
    pair(this, |layer| layer.read_marks.get())
}

fn get_write_buffer_size<'py>(this: This<'_, 'py>) -> Object<'py> {
    let size = this.layer(write::size)?.unwrap_or(0);
    Ok(PyInt::new(this.py(), size).into_any())
}

fn get_read_buffer_size<'py>(this: This<'_, 'py>) -> Object<'py> {
    let size = this.layer(|layer| layer.engine.fed(layer.py()))?.unwrap_or(0);
    Ok(PyInt::new(this.py(), size).into_any())
}

// --- private names -------------------------------------------------------------------------------

fn get_loop<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.event_loop)
}

fn get_layer<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.layer)
}

fn get_closed<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.closed.get()))
}

fn get_protocol_paused<'py>(this: This<'_, 'py>) -> Object<'py> {
    let paused = this.layer(|layer| Ok(layer.pauses.get().writing))?;
    Ok(boolean(this.py(), paused.unwrap_or(false)))
}

fn start_tls_compatible<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), true))
}

fn sendfile_compatible<'py>(this: This<'_, 'py>) -> Object<'py> {
    asyncio(this.py())
        .constants
        .bind(this.py())
        .getattr(intern!(this.py(), "_SendfileMode"))?
        .getattr(intern!(this.py(), "FALLBACK"))
}

/// Puts data where writes wait for the handshake; CPython's tests look at what becomes of it.
fn append_write_backlog<'py>(this: This<'_, 'py>, data: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let data = data.cast::<PyBytes>()?;
    let kept = this.layer(|layer| {
        if layer.phase.get() != TlsPhase::Ended {
            layer.keep(layer.py(), &data);
        }
        Ok(())
    });
    done(this, kept.map(drop))
}

/// ImportError if a base class of ours is not as long as we take it for, or has a `__dict__`.
pub(super) fn check_layout(base: &Bound<'_, PyAny>, expected: usize, name: &str) -> PyResult<()> {
    let size: usize = base.getattr(intern!(base.py(), "__basicsize__"))?.extract()?;
    let plain = base.getattr(intern!(base.py(), "__dictoffset__"))?.extract::<isize>()? == 0
        && base.getattr(intern!(base.py(), "__weakrefoffset__"))?.extract::<isize>()? == 0;
    if plain && size == expected {
        return Ok(());
    }
    Err(PyImportError::new_err(format!("aioxide does not know the layout of this Python's {name}")))
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let base = asyncio(py).transports.bind(py).getattr(intern!(py, "Transport"))?;
    let size = size_of::<ffi::PyObject>() + TlsTransport::INHERITED * size_of::<usize>();
    check_layout(&base, size, "asyncio.Transport")?;
    let class = Builder::of::<TlsTransport>()
        .method(anyargs::<Transport, _>(c"get_extra_info", get_extra_info))
        .method(noargs::<Transport, _>(c"is_closing", is_closing))
        .method(noargs::<Transport, _>(c"close", close))
        .method(onearg::<Transport, _>(c"set_protocol", set_protocol))
        .method(noargs::<Transport, _>(c"get_protocol", get_protocol))
        .method(noargs::<Transport, _>(c"is_reading", is_reading))
        .method(noargs::<Transport, _>(c"pause_reading", pause_reading))
        .method(noargs::<Transport, _>(c"resume_reading", resume_reading))
        .method(onearg::<Transport, _>(c"write", write_data))
        .method(onearg::<Transport, _>(c"writelines", writelines))
        .method(noargs::<Transport, _>(c"write_eof", write_eof))
        .method(noargs::<Transport, _>(c"can_write_eof", can_write_eof))
        .method(noargs::<Transport, _>(c"abort", abort))
        .method(anyargs::<Transport, _>(c"set_write_buffer_limits", set_write_buffer_limits))
        .method(noargs::<Transport, _>(c"get_write_buffer_limits", get_write_buffer_limits))
        .method(noargs::<Transport, _>(c"get_write_buffer_size", get_write_buffer_size))
        .method(anyargs::<Transport, _>(c"set_read_buffer_limits", set_read_buffer_limits))
        .method(noargs::<Transport, _>(c"get_read_buffer_limits", get_read_buffer_limits))
        .method(noargs::<Transport, _>(c"get_read_buffer_size", get_read_buffer_size))
        .method(onearg::<Transport, _>(c"_force_close", force_close))
        .method(onearg::<Transport, _>(c"_test__append_write_backlog", append_write_backlog))
        .attribute(getter::<Transport, _>(c"_loop", get_loop))
        .attribute(getter::<Transport, _>(c"_ssl_protocol", get_layer))
        .attribute(getter::<Transport, _>(c"_closed", get_closed))
        .attribute(getter::<Transport, _>(c"_protocol_paused", get_protocol_paused))
        .attribute(getter::<Transport, _>(c"_start_tls_compatible", start_tls_compatible))
        .attribute(getter::<Transport, _>(c"_sendfile_compatible", sendfile_compatible))
        .build(module, Some(&PyTuple::new(py, [base])?), TlsTransport::cell())?;
    module.add(intern!(py, "_SSLProtocolTransport"), class)
}
