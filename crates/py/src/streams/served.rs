//! What becomes of a server's connection when its handler ends: nothing, if it ends in peace; else the transport is
//! closed, and an exception is reported.
//!
//! A [`Served`] is the hook that watches the handler's task for the protocol.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::ffi::cell::Slot;
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::hooks;
use crate::transports::sender::Sender;

/// A connection whose handler is a task.
pub(crate) struct Served {
    transport: Slot,
    event_loop: Slot,
}

impl Class for Served {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.Served";

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.transport.traverse(visit)?;
        self.event_loop.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop((self.transport.take(py), self.event_loop.take(py)));
    }
}

/// Watches the task of a handler.
pub(super) fn watch<'py>(
    task: &Bound<'py, PyAny>,
    transport: &Bound<'py, PyAny>,
    event_loop: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let served = Served {
        transport: Slot::holding(transport.clone().unbind()),
        event_loop: Slot::holding(event_loop.clone().unbind()),
    };
    hooks::watch(task, &create(task.py(), served)?)
}

/// The task is done.
pub(crate) fn on_done<'py>(this: Inst<'_, 'py, Served>, task: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = task.py();
    let (Some(transport), Some(event_loop)) = (this.transport.get(py), this.event_loop.get(py)) else {
        return Ok(());
    };
    if !task.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
        let error = task.call_method0(intern!(py, "exception"))?;
        if error.is_none() {
            return Ok(());
        }
        report(&event_loop, &transport, &error)?;
    }
    Sender::of(&transport).close()
}

/// Reports what a `client_connected_cb` raised.
pub(super) fn report<'py>(
    event_loop: &Bound<'py, PyAny>,
    transport: &Bound<'py, PyAny>,
    error: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = event_loop.py();
    let details = PyDict::new(py);
    details.set_item(intern!(py, "message"), "Unhandled exception in client_connected_cb")?;
    details.set_item(intern!(py, "exception"), error)?;
    details.set_item(intern!(py, "transport"), transport)?;
    event_loop.call_method1(intern!(py, "call_exception_handler"), (details,)).map(drop)
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Served>().build(module, None, Served::cell())?;
    Ok(())
}
