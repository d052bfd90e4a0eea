//! Host names: `getaddrinfo` and `getnameinfo`, in the default executor.
//!
//! `socket.getaddrinfo` is looked up at each call: programs replace it.

use std::fmt::Write;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use super::{EventLoop, debug};
use crate::async_fn;

/// `getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0)`; `query` has all six.
pub(super) fn getaddrinfo<'py>(
    this: &Bound<'py, EventLoop>,
    query: [Bound<'py, PyAny>; 6],
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let (event_loop, query) = (this.clone().unbind(), query.map(Bound::unbind));
    async_fn::coroutine(py, "EventLoop.getaddrinfo", async move {
        let found = async_fn::attached(|py| {
            let this = event_loop.bind(py);
            let resolve = if EventLoop::core(this).is_debug() {
                this.getattr("_getaddrinfo_debug")?
            } else {
                py.import(intern!(py, "socket"))?.getattr(intern!(py, "getaddrinfo"))?
            };
            let mut arguments = vec![py.None(), resolve.unbind()];
            arguments.extend(query);
            in_executor(this, PyTuple::new(py, arguments)?)
        })?;
        async_fn::wait(found).await
    })
}

/// `getnameinfo(sockaddr, flags=0)`.
pub(super) fn getnameinfo<'py>(
    this: &Bound<'py, EventLoop>,
    sockaddr: Bound<'py, PyAny>,
    flags: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let (event_loop, sockaddr, flags) = (this.clone().unbind(), sockaddr.unbind(), flags.unbind());
    async_fn::coroutine(py, "EventLoop.getnameinfo", async move {
        let found = async_fn::attached(|py| {
            let resolve = py.import(intern!(py, "socket"))?.getattr(intern!(py, "getnameinfo"))?;
            let arguments = (py.None(), resolve, sockaddr, flags).into_pyobject(py)?;
            in_executor(event_loop.bind(py), arguments)
        })?;
        async_fn::wait(found).await
    })
}

fn in_executor<'py>(this: &Bound<'py, EventLoop>, arguments: Bound<'py, PyTuple>) -> PyResult<Py<PyAny>> {
    this.call_method1(intern!(this.py(), "run_in_executor"), arguments).map(Bound::unbind)
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
    logger.call_method1("debug", ("Get address info %s", PyString::new(py, &shown)))?;
    let started = core.now();
    let found = py.import("socket")?.getattr("getaddrinfo")?.call1(query)?;
    let seconds = core.now() - started;
    let text = format!("Getting address info {shown} took {:.3}ms: {}", seconds * 1e3, found.repr()?);
    let level = if seconds >= this.get().debug.slow_callback_duration() { "info" } else { "debug" };
    logger.call_method1(level, (text,))?;
    Ok(found)
}
