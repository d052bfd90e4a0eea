//! `asyncio.streams`: StreamReader, StreamWriter, StreamReaderProtocol, and the functions that open them.
//!
//! A byte of a socket comes to the reader without Python: the transport knows the protocol for ours
//! (transports/receiver.rs), the protocol knows its reader, and the reader completes the future of the task that
//! waits. A write goes the other way through transports/sender.rs. Subclasses, and readers and protocols with
//! attributes of their own, are used by their methods.

mod buffer;
mod drain;
mod open;
mod protocol;
mod read;
mod reader;
mod served;
mod surface;
mod surface_protocol;
mod writer;

use pyo3::prelude::*;

pub(crate) use protocol::{Protocol, is_exact as is_protocol, plain as plain_protocol};
pub(crate) use served::{Served, on_done};

/// Makes the types and functions.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    read::register(module)?;
    surface::register(module)?;
    drain::register(module)?;
    protocol::register(module)?;
    writer::register(module)?;
    served::register(module)?;
    open::register(module)
}
