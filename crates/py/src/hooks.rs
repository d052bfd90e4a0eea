//! Native waiters that aren't tasks: what a turn calls when a future that one of them watches is done.
//!
//! A hook is an instance of a raw class that was given to `futures::add_waiter`; one may watch many futures. The kinds
//! are listed here and nowhere else.

use pyo3::prelude::*;

/// The future `future`, which `hook` watched, is done.
#[inline]
pub(crate) fn done(hook: &Bound<'_, PyAny>, future: &Bound<'_, PyAny>) -> PyResult<()> {
    // Not one of ours: called, as a done-callback is.
    hook.call1((future,)).map(drop)
}
