//! Host names: `getaddrinfo` and `getnameinfo`, in threads of their own (python/aioxide/_resolver.py).
//!
//! Numbers need no thread: they are answered at once. `socket.getaddrinfo` is looked up at each call, as programs replace
//! it, and what replaces it always gets a thread, as nobody knows how long it takes.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyInt, PyString, PyTuple};

use super::executor::wrap_future;
use super::{EventLoop, debug};
use crate::async_fn;

/// `socket.getaddrinfo` and `getnameinfo` as they were when the extension was imported.
static OWN: PyOnceLock<[Py<PyAny>; 2]> = PyOnceLock::new();

/// Looks them up, before a program can replace them.
pub(crate) fn init(py: Python<'_>) -> PyResult<()> {
    let socket = py.import("socket")?;
    let own = [
        socket.getattr(intern!(py, "getaddrinfo"))?.unbind(),
        socket.getattr(intern!(py, "getnameinfo"))?.unbind(),
    ];
    let _ = OWN.set(py, own);
    Ok(())
}

fn is_own(function: &Bound<'_, PyAny>) -> bool {
    OWN.get(function.py()).is_some_and(|own| own.iter().any(|each| each.is(function)))
}

/// What is known at once, or what is to be waited for.
enum Answer {
    Known(Py<PyAny>),
    Coming(Py<PyAny>),
}

async fn answered(answer: Answer) -> PyResult<Py<PyAny>> {
    match answer {
        Answer::Known(result) => Ok(result),
        Answer::Coming(future) => async_fn::wait(future).await,
    }
}

/// `getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0)`; `query` has all six.
pub(super) fn getaddrinfo<'py>(
    this: &Bound<'py, EventLoop>,
    query: [Bound<'py, PyAny>; 6],
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let (event_loop, query) = (this.clone().unbind(), query.map(Bound::unbind));
    async_fn::coroutine(py, "BaseEventLoop.getaddrinfo", async move {
        let answer = async_fn::attached(|py| {
            let this = event_loop.bind(py);
            EventLoop::core(this).check_closed()?;
            let plain = py.import(intern!(py, "socket"))?.getattr(intern!(py, "getaddrinfo"))?;
            let at_once =
                is_own(&plain) && is_numeric_host(query[0].bind(py)) && is_numeric_port(query[1].bind(py));
            let resolve = if EventLoop::core(this).is_debug() {
                this.getattr(intern!(py, "_getaddrinfo_debug"))?
            } else {
                plain
            };
            if at_once {
                return resolve.call1(PyTuple::new(py, query)?).map(|found| Answer::Known(found.unbind()));
            }
            in_thread(this, &resolve, &query)
        })?;
        answered(answer).await
    })
}

/// `getnameinfo(sockaddr, flags=0)`.
pub(super) fn getnameinfo<'py>(
    this: &Bound<'py, EventLoop>,
    sockaddr: Bound<'py, PyAny>,
    flags: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let (event_loop, query) = (this.clone().unbind(), [sockaddr.unbind(), flags.unbind()]);
    async_fn::coroutine(py, "BaseEventLoop.getnameinfo", async move {
        let answer = async_fn::attached(|py| {
            let this = event_loop.bind(py);
            EventLoop::core(this).check_closed()?;
            let socket = py.import(intern!(py, "socket"))?;
            let resolve = socket.getattr(intern!(py, "getnameinfo"))?;
            if is_own(&resolve) && wants_numbers(&socket, query[1].bind(py))? {
                return resolve.call1(PyTuple::new(py, query)?).map(|found| Answer::Known(found.unbind()));
            }
            in_thread(this, &resolve, &query)
        })?;
        answered(answer).await
    })
}

/// Whether a host is a numeric address, perhaps with a zone, or none at all.
fn is_numeric_host(host: &Bound<'_, PyAny>) -> bool {
    let is_numeric = |text: &str| {
        text.parse::<IpAddr>().is_ok()
            || text.split_once('%').is_some_and(|(address, _zone)| address.parse::<Ipv6Addr>().is_ok())
    };
    if let Ok(text) = host.cast_exact::<PyString>() {
        return text.to_str().is_ok_and(is_numeric);
    }
    match host.cast_exact::<PyBytes>() {
        Ok(bytes) => str::from_utf8(bytes.as_bytes()).is_ok_and(is_numeric),
        Err(_) => host.is_none(),
    }
}

/// Whether a port needs no look into the list of services.
fn is_numeric_port(port: &Bound<'_, PyAny>) -> bool {
    let digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    if let Ok(text) = port.cast_exact::<PyString>() {
        return text.to_str().is_ok_and(|text| digits(text.as_bytes()));
    }
    match port.cast_exact::<PyBytes>() {
        Ok(bytes) => digits(bytes.as_bytes()),
        Err(_) => port.is_none() || port.is_exact_instance_of::<PyInt>(),
    }
}

/// Whether `getnameinfo` is asked for numbers only.
fn wants_numbers(socket: &Bound<'_, PyModule>, flags: &Bound<'_, PyAny>) -> PyResult<bool> {
    let Ok(flags) = flags.extract::<i32>() else { return Ok(false) };
    let host: i32 = socket.getattr(intern!(socket.py(), "NI_NUMERICHOST"))?.extract()?;
    let port: i32 = socket.getattr(intern!(socket.py(), "NI_NUMERICSERV"))?.extract()?;
    Ok(flags & (host | port) == host | port)
}

/// Asks in a thread of the resolver's pool.
fn in_thread(
    this: &Bound<'_, EventLoop>,
    resolve: &Bound<'_, PyAny>,
    query: &[Py<PyAny>],
) -> PyResult<Answer> {
    static SUBMIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = this.py();
    let submit = SUBMIT.import(py, "aioxide._resolver", "submit")?;
    let arguments = std::iter::once(resolve.clone()).chain(query.iter().map(|each| each.bind(py).clone()));
    let lookup = submit.call1(PyTuple::new(py, arguments.collect::<Vec<_>>())?)?;
    wrap_future(this.as_any(), &lookup).map(|future| Answer::Coming(future.unbind()))
}

/// `_getaddrinfo_debug(…)`: resolves, in the worker thread, and logs how long that took.
pub(super) fn resolve_and_log<'py>(
    this: &Bound<'py, EventLoop>,
    query: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, core) = (this.py(), EventLoop::core(this));
    let mut shown = format!("{}:{}", query.get_item(0)?.str()?, query.get_item(1)?.repr()?);
    for (name, value) in ["family", "type", "proto", "flags"].into_iter().zip(query.iter().skip(2)) {
        if value.is_truthy()? {
            let _ = write!(shown, ", {name}={}", value.repr()?); // a String takes everything
        }
    }
    let logger = debug::logger(py)?;
    logger.call_method1(intern!(py, "debug"), ("Get address info %s", PyString::new(py, &shown)))?;
    let started = core.now();
    let found = py.import("socket")?.getattr(intern!(py, "getaddrinfo"))?.call1(query)?;
    let seconds = core.now() - started;
    let text = format!("Getting address info {shown} took {:.3}ms: {}", seconds * 1e3, found.repr()?);
    let level = if seconds >= this.get().debug.slow_callback_duration() { "info" } else { "debug" };
    logger.call_method1(level, (text,))?;
    Ok(found)
}
