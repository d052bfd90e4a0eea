//! What is behind `await future`: the future itself where the interpreter asks, and an iterator of its own for those who
//! call `__await__` and drive what it returns.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::ffi::cell::Slot;
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::iter::{Awaitable, Brief, Step};
use crate::ffi::layout::Fut;
use crate::ffi::spares::Spares;
use crate::ffi::types;
use crate::futures::{check_initialized, result};

/// The iterator behind `await future`: yields the future once, then gives its result.
pub(crate) struct FutureIter {
    future: Slot,
}

impl Class for FutureIter {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.FutureIter";
    const SPARE: usize = 256;

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn spares() -> Option<&'static Spares> {
        static SPARES: Spares = Spares::new();
        Some(&SPARES)
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.future.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop(self.future.take(py));
    }
}

/// Yields the future once, then gives its result.
#[inline]
pub(crate) fn resume<'py>(future: Fut<'_, 'py>) -> PyResult<Step<'py>> {
    if let Some(brief) = resume_at_once(future) {
        return Ok(brief.step(future.py()));
    }
    if future.is_pending() {
        return Err(PyRuntimeError::new_err("await wasn't used with future"));
    }
    result(future).map(Step::Return)
}

/// As [`resume`], unless that fails.
#[inline]
pub(crate) fn resume_at_once<'py>(future: Fut<'_, 'py>) -> Option<Brief<'py>> {
    if future.is_pending() {
        let first = !future.blocking();
        return first.then(|| {
            future.set_blocking(true);
            Brief::Yield(future.object().to_owned())
        });
    }
    if !future.has_result() || !future.is_initialized() {
        return None;
    }
    future.set_log_tb(false);
    future.result().map(Brief::Return)
}

impl Awaitable for FutureIter {
    fn resume<'py>(this: Inst<'_, 'py, Self>) -> PyResult<Step<'py>> {
        let py = this.py();
        match this.future.get(py).as_ref().and_then(Fut::cast_any) {
            Some(future) => resume(future),
            None => Ok(Step::Return(py.None().into_bound(py))),
        }
    }

    fn throw<'py>(this: Inst<'_, 'py, Self>, error: PyErr) -> PyResult<Step<'py>> {
        drop(this.future.take(this.py()));
        Err(error)
    }

    fn close(this: Inst<'_, '_, Self>) -> PyResult<()> {
        drop(this.future.take(this.py()));
        Ok(())
    }
}

/// `__await__` and `__iter__`, as Python code calls them.
pub(crate) fn iterate<'py>(this: Fut<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    check_initialized(this)?;
    create(this.py(), FutureIter { future: Slot::holding(this.object().to_owned().unbind()) })
}

/// What the interpreter's `await` iterates: the future itself, which spares an object. `throw` and `close` are not missed:
/// without them both happen in the coroutine that awaits.
#[inline]
pub(crate) fn awaited<'py>(this: Fut<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if !types::iterates_itself(this) {
        return iterate(this);
    }
    check_initialized(this)?;
    Ok(this.object().to_owned())
}

/// Makes the iterator's type.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<FutureIter>().iterator::<FutureIter>().build(module, None, FutureIter::cell())?;
    Ok(())
}
