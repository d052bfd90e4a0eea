//! `start_tls`: TLS on a connection that is already in use.
//!
//! The protocol stays, its transport is another one from then on: a TLS layer takes the protocol's place with the old
//! one. What the peer has sent for TLS before that is not lost: a server's reader hands it on.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;

use crate::async_fn::{self, attached, coroutine};
use crate::ffi::class::Inst;
use crate::futures;
use crate::names::asyncio;
use crate::streams;
use crate::transports::tls;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// An upgrade under way.
struct Begun {
    waiter: Py<PyAny>,
    /// The layer, which knows the transport that the program gets.
    layer: Py<PyAny>,
    /// What was scheduled for it.
    handles: [Py<PyAny>; 2],
}

/// `start_tls(transport, protocol, sslcontext, …)`.
pub(super) fn start_tls<'py>(
    event_loop: &Bound<'py, PyAny>,
    transport: Py<PyAny>,
    protocol: Py<PyAny>,
    options: tls::Options,
) -> Object<'py> {
    let py = event_loop.py();
    let event_loop = event_loop.clone().unbind();
    coroutine(py, "BaseEventLoop.start_tls", async move {
        let begun = attached(|py| {
            let (transport, protocol) = (transport.bind(py), protocol.into_bound(py));
            begin(event_loop.bind(py), transport, &protocol, &options)
        })?;
        match async_fn::wait(begun.waiter).await {
            // None if the connection was lost meanwhile: asyncio's answer to a transport that was closed before.
            Ok(_) => attached(|py| begun.layer.getattr(py, intern!(py, "_app_transport"))),
            Err(error) => {
                attached(|py| {
                    transport.call_method0(py, intern!(py, "close"))?;
                    for handle in &begun.handles {
                        handle.call_method0(py, intern!(py, "cancel"))?;
                    }
                    Ok::<_, PyErr>(())
                })?;
                Err(error)
            }
        }
    })
}

fn begin<'py>(
    event_loop: &Bound<'py, PyAny>,
    transport: &Bound<'py, PyAny>,
    protocol: &Bound<'py, PyAny>,
    options: &tls::Options,
) -> PyResult<Begun> {
    let py = event_loop.py();
    options.check_context(py)?;
    let able = match transport.getattr_opt(intern!(py, "_start_tls_compatible"))? {
        Some(able) => able.is_truthy()?,
        None => false,
    };
    if !able {
        let shown = transport.repr()?;
        return Err(PyTypeError::new_err(format!("transport {shown} is not supported by start_tls()")));
    }
    let waiter = futures::new(event_loop)?;
    let parts =
        tls::Parts { event_loop, protocol, waiter: Some(&waiter), options, upgrade: true, accepted: false };
    let (layer, _) = tls::make(parts)?;
    // Nothing may reach the layer before it knows its transport.
    transport.call_method0(intern!(py, "pause_reading"))?;
    if options.server_side {
        hand_on(protocol, &layer)?;
    }
    transport.call_method1(intern!(py, "set_protocol"), (&layer,))?;
    let soon = |callback| event_loop.call_method1(intern!(py, "call_soon"), (callback,));
    let connected = soon_with(event_loop, &layer.getattr(intern!(py, "connection_made"))?, transport)?;
    let resumed = soon(transport.getattr(intern!(py, "resume_reading"))?)?;
    Ok(Begun {
        waiter: waiter.unbind(),
        layer: layer.unbind(),
        handles: [connected.unbind(), resumed.unbind()],
    })
}

fn soon_with<'py>(
    event_loop: &Bound<'py, PyAny>,
    callback: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
) -> Object<'py> {
    event_loop.call_method1(intern!(event_loop.py(), "call_soon"), (callback, argument))
}

/// A client may begin its handshake right behind what it said in the clear: then that is in the reader by now.
fn hand_on<'py>(protocol: &Bound<'py, PyAny>, layer: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = protocol.py();
    let is_streams = Inst::<streams::Protocol>::cast(protocol).is_some()
        || protocol
            .is_instance(&asyncio(py).streams.bind(py).getattr(intern!(py, "StreamReaderProtocol"))?)?;
    if !is_streams {
        return Ok(());
    }
    let reader = match protocol.getattr_opt(intern!(py, "_stream_reader"))? {
        Some(reader) if !reader.is_none() => reader,
        _ => return Ok(()),
    };
    let buffer = reader.getattr(intern!(py, "_buffer"))?;
    if !buffer.is_truthy()? {
        return Ok(());
    }
    tls::feed(layer, &buffer)?;
    buffer.call_method0(intern!(py, "clear")).map(drop)
}
