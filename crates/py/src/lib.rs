//! `aioxide._core`: asyncio's event loop, tasks and primitives, native. This page lists everything it exports.

mod async_fn;
mod errors;
mod event_loop;
mod ffi;
mod futures;
mod handles;
mod hooks;
mod job;
mod local;
mod locks;
mod names;
mod parked;
mod queues;
mod tasks;
mod transports;
mod version;
mod waiters;

use pyo3::prelude::*;

/// Makes the types and functions, once an interpreter.
#[pymodule(name = "_core")]
fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    ffi::layout::verify(py)?;
    names::init(py)?;
    ffi::thread::calibrate(py)?;
    ffi::function::register(module)?;
    ffi::types::init(module)?;
    futures::register(module)?;
    tasks::register(module)?;
    handles::register(module)?;
    async_fn::register(module)?;
    transports::register(module)?;
    waiters::register(module)?;
    locks::register(module)?;
    queues::register(module)?;
    module.add_class::<local::LoopCore>()?;
    module.add_class::<event_loop::EventLoop>()?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
