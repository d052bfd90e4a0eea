//! `aioxide._core`: asyncio's event loop, tasks and primitives, native. This page lists everything it exports.

mod about;
mod alarm;
mod anyfuture;
mod as_completed;
mod async_fn;
mod await_on;
mod blocking;
mod calls;
mod errors;
mod event_loop;
mod ffi;
mod frame;
mod future_iter;
mod futures;
mod gather;
mod groups;
mod handles;
mod hooks;
mod inspect;
mod job;
mod local;
mod locks;
mod members;
mod names;
mod parked;
mod prompt;
mod pulse;
mod queues;
mod shield;
mod streams;
mod tasks;
mod threads;
mod timeouts;
mod transports;
mod version;
mod wait;
mod wait_for;
mod waiters;

use pyo3::prelude::*;

/// Makes the types and functions, once an interpreter. Free-threaded Pythons turn their GIL on for it.
#[pymodule(name = "_core", gil_used = true)]
fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    ffi::layout::verify(py)?;
    names::init(py)?;
    event_loop::names::init(py)?;
    ffi::thread::calibrate(py)?;
    ffi::context::calibrate(py)?;
    ffi::iter::init(py)?;
    ffi::args::init(py);
    errors::init(py)?;
    ffi::function::register(module)?;
    ffi::types::init(module)?;
    ffi::gathering::init(module)?;
    future_iter::register(module)?;
    tasks::register(module)?;
    await_on::register(module)?;
    ffi::frames::register(module)?;
    prompt::register(module)?;
    gather::register(module)?;
    wait::register(module)?;
    wait_for::register(module)?;
    as_completed::register(module)?;
    shield::register(module)?;
    timeouts::register(module)?;
    groups::register(module)?;
    threads::register(module)?;
    event_loop::executor::register(module)?;
    event_loop::nested::register(module)?;
    event_loop::sockets::register(module)?;
    event_loop::subprocess::register(module)?;
    event_loop::sendfile::register(module)?;
    handles::register(module)?;
    calls::register(module)?;
    async_fn::register(module)?;
    ffi::scratch::register(module)?;
    transports::register(module)?;
    streams::register(module)?;
    waiters::register(module)?;
    locks::register(module)?;
    queues::register(module)?;
    inspect::register(module)?;
    about::register(module)?;
    module.add_class::<local::LoopCore>()?;
    module.add_class::<event_loop::EventLoop>()?;
    ffi::coroutine_method::init(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
