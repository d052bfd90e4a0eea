//! `asyncio.locks`: Lock, Event, Condition, Semaphore, BoundedSemaphore, Barrier.
//!
//! Who is woken next is decided in `aioxide_core::sync`; here are the Python objects around it. wait.rs is
//! the coroutine behind every wait that parks once (`acquire`, `Event.wait`, `async with`), notified.rs the
//! one behind `Condition.wait`, which parks twice. holders.rs knows who holds a lock, for reports.

mod barrier;
mod condition;
mod delegate;
mod event;
pub(crate) mod holders;
mod lock;
mod notified;
mod passage;
mod primitive;
mod semaphore;
mod wait;

use pyo3::prelude::*;

pub(crate) use event::Event;

/// Makes the types.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    wait::register(module)?;
    notified::register(module)?;
    holders::register(module)?;
    lock::register(module)?;
    event::register(module)?;
    semaphore::register(module)?;
    condition::register(module)?;
    barrier::register(module)
}
