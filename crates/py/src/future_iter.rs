//! The iterator behind `await future`: native, one object an await, reused.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::ffi::cell::{GilCell, Slot};
use crate::ffi::class::{Builder, Class, Inst, Spare, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::iter::{Awaitable, Step};
use crate::ffi::layout::Fut;
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

    fn spare() -> Option<&'static GilCell<Vec<Spare>>> {
        static SPARE: GilCell<Vec<Spare>> = GilCell::new(Vec::new());
        Some(&SPARE)
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.future.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop(self.future.take(py));
    }
}

impl Awaitable for FutureIter {
    #[inline]
    fn resume<'py>(this: Inst<'_, 'py, Self>) -> PyResult<Step<'py>> {
        let py = this.py();
        let object = this.future.get(py);
        let Some(future) = object.as_ref().and_then(Fut::cast_any) else {
            return Ok(Step::Return(py.None().into_bound(py)));
        };
        if future.is_pending() {
            if future.blocking() {
                return Err(PyRuntimeError::new_err("await wasn't used with future"));
            }
            future.set_blocking(true);
            return Ok(Step::Yield(future.object().to_owned()));
        }
        result(future).map(Step::Return)
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

/// `__await__` and `__iter__`.
pub(crate) fn iterate<'py>(this: Fut<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    check_initialized(this)?;
    create(this.py(), FutureIter { future: Slot::holding(this.object().to_owned().unbind()) })
}

/// Makes the iterator's type.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<FutureIter>().iterator::<FutureIter>().build(module, None, FutureIter::cell())?;
    Ok(())
}
