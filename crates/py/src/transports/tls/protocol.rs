//! The side that the transport below sees: asyncio's BufferedProtocol, of which the type is a true subclass; and the
//! private names by which programs and tests look into a TLS layer.

use aioxide_core::TlsPhase;
use aioxide_core::tls_phase::TlsHappening;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyInt, PyMemoryView, PyTuple};
use pyo3::{Borrowed, ffi, intern};

use super::{This, Tls, handshake, read, shutdown};
use crate::ffi::buffer;
use crate::ffi::cell::Slot;
use crate::ffi::class::{Builder, Class};
use crate::ffi::method::{Of, getter, noargs, onearg};
use crate::ffi::scratch;
use crate::names::{asyncio, boolean, none};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type Layer = Of<Tls>;

/// The answer of a method that has none.
fn done<'py>(this: This<'_, 'py>, result: PyResult<()>) -> Object<'py> {
    result.map(|()| none(this.py()))
}

fn held<'py>(this: This<'_, 'py>, slot: &Slot) -> Object<'py> {
    Ok(slot.get(this.py()).unwrap_or_else(|| none(this.py())))
}

// --- what a transport calls ----------------------------------------------------------------------

fn connection_made<'py>(this: This<'_, 'py>, transport: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, this.connection_made(&transport))
}

fn connection_lost<'py>(this: This<'_, 'py>, error: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, this.connection_lost(&error))
}

/// Memory to receive into: for transports that have no native way.
fn get_buffer<'py>(this: This<'_, 'py>, _hint: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let py = this.py();
    if let Some(landing) = this.landing.get(py) {
        return Ok(landing);
    }
    let memory = PyByteArray::new_with(py, scratch::SIZE, |_| Ok(()))?;
    let landing = PyMemoryView::from(&memory)?.into_any();
    this.landing.set(py, landing.clone());
    Ok(landing)
}

fn buffer_updated<'py>(this: This<'_, 'py>, length: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let py = this.py();
    let length: usize = length.extract()?;
    if let Some(landing) = this.landing.get(py) {
        let bytes = buffer::read(&landing, |bytes| bytes[..length.min(bytes.len())].to_vec())?;
        this.engine.feed(pyo3::types::PyBytes::new(py, &bytes).as_any())?;
    }
    done(this, this.received())
}

fn data_received<'py>(this: This<'_, 'py>, data: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    done(this, this.data_received(&data))
}

fn eof_received<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.eof_received().map(|stays| if stays { boolean(this.py(), true) } else { none(this.py()) })
}

fn pause_writing<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.pause_writing())
}

fn resume_writing<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, this.resume_writing())
}

// --- what the loop calls -------------------------------------------------------------------------

fn check_handshake_timeout<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, handshake::check_timeout(this))
}

fn check_shutdown_timeout<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, shutdown::check_timeout(this))
}

/// More has been decrypted than a lent buffer could hold.
fn do_read<'py>(this: This<'_, 'py>) -> Object<'py> {
    done(this, read::read(this))
}

/// The program reads again.
fn resume<'py>(this: This<'_, 'py>) -> Object<'py> {
    let result = match this.phase.get() {
        TlsPhase::Handshaking => Ok(()),
        _ => this.happened(TlsHappening::Received),
    };
    done(this, result)
}

// --- private names -------------------------------------------------------------------------------

/// As a member of asyncio's own enumeration.
fn get_state<'py>(this: This<'_, 'py>) -> Object<'py> {
    let name = match this.phase.get() {
        TlsPhase::Fresh | TlsPhase::Ended => "UNWRAPPED",
        TlsPhase::Handshaking => "DO_HANDSHAKE",
        TlsPhase::Wrapped => "WRAPPED",
        TlsPhase::Flushing => "FLUSHING",
        TlsPhase::Shutting => "SHUTDOWN",
    };
    asyncio(this.py()).sslproto.bind(this.py()).getattr(intern!(this.py(), "SSLProtocolState"))?.getattr(name)
}

fn get_transport<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.transport)
}

fn get_app_protocol<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.protocol)
}

fn get_app_transport<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.app_transport)
}

fn get_loop<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.event_loop)
}

fn get_waiter<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.waiter)
}

fn get_context<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.context)
}

fn get_server_hostname<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.server_hostname)
}

fn get_extra<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.extra)
}

fn get_sslobj<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.engine.object)
}

fn get_incoming<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.engine.incoming)
}

fn get_outgoing<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.engine.outgoing)
}

fn get_handshake_timeout<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.handshake_timeout)
}

fn get_shutdown_timeout<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.shutdown_timeout)
}

fn get_server_side<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.server_side))
}

fn get_app_reading_paused<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.pauses.get().reading))
}

fn get_app_writing_paused<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.pauses.get().writing))
}

fn get_ssl_reading_paused<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.pauses.get().below_reading))
}

fn get_ssl_writing_paused<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.pauses.get().below_writing))
}

fn get_conn_lost<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), this.lost_writes.get()).into_any())
}

fn get_write_buffer_size<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    Ok(PyInt::new(py, this.backlog.with(py, |backlog| backlog.size())).into_any())
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let base = asyncio(py).protocols.bind(py).getattr(intern!(py, "BufferedProtocol"))?;
    super::surface::check_layout(&base, size_of::<ffi::PyObject>(), "asyncio.BufferedProtocol")?;
    let class = Builder::of::<Tls>()
        .method(onearg::<Layer, _>(c"connection_made", connection_made))
        .method(onearg::<Layer, _>(c"connection_lost", connection_lost))
        .method(onearg::<Layer, _>(c"get_buffer", get_buffer))
        .method(onearg::<Layer, _>(c"buffer_updated", buffer_updated))
        .method(onearg::<Layer, _>(c"data_received", data_received))
        .method(noargs::<Layer, _>(c"eof_received", eof_received))
        .method(noargs::<Layer, _>(c"pause_writing", pause_writing))
        .method(noargs::<Layer, _>(c"resume_writing", resume_writing))
        .method(noargs::<Layer, _>(c"_check_handshake_timeout", check_handshake_timeout))
        .method(noargs::<Layer, _>(c"_check_shutdown_timeout", check_shutdown_timeout))
        .method(noargs::<Layer, _>(c"_do_read", do_read))
        .method(noargs::<Layer, _>(c"_resume", resume))
        .attribute(getter::<Layer, _>(c"_state", get_state))
        .attribute(getter::<Layer, _>(c"_transport", get_transport))
        .attribute(getter::<Layer, _>(c"_app_protocol", get_app_protocol))
        .attribute(getter::<Layer, _>(c"_app_transport", get_app_transport))
        .attribute(getter::<Layer, _>(c"_loop", get_loop))
        .attribute(getter::<Layer, _>(c"_waiter", get_waiter))
        .attribute(getter::<Layer, _>(c"_sslcontext", get_context))
        .attribute(getter::<Layer, _>(c"_server_hostname", get_server_hostname))
        .attribute(getter::<Layer, _>(c"_server_side", get_server_side))
        .attribute(getter::<Layer, _>(c"_extra", get_extra))
        .attribute(getter::<Layer, _>(c"_sslobj", get_sslobj))
        .attribute(getter::<Layer, _>(c"_incoming", get_incoming))
        .attribute(getter::<Layer, _>(c"_outgoing", get_outgoing))
        .attribute(getter::<Layer, _>(c"_ssl_handshake_timeout", get_handshake_timeout))
        .attribute(getter::<Layer, _>(c"_ssl_shutdown_timeout", get_shutdown_timeout))
        .attribute(getter::<Layer, _>(c"_app_reading_paused", get_app_reading_paused))
        .attribute(getter::<Layer, _>(c"_app_writing_paused", get_app_writing_paused))
        .attribute(getter::<Layer, _>(c"_ssl_reading_paused", get_ssl_reading_paused))
        .attribute(getter::<Layer, _>(c"_ssl_writing_paused", get_ssl_writing_paused))
        .attribute(getter::<Layer, _>(c"_conn_lost", get_conn_lost))
        .attribute(getter::<Layer, _>(c"_write_buffer_size", get_write_buffer_size))
        .build(module, Some(&PyTuple::new(py, [base])?), Tls::cell())?;
    module.add(intern!(py, "SSLProtocol"), class)
}
