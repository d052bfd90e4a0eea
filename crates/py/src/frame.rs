//! What native coroutines that are tables of phases have in common: how they are thrown into, closed and given up.
//!
//! Such a coroutine keeps its phase and says how to make one step; `Awaitable` follows from that. (async_fn.rs is the
//! other kind of native coroutine: an `async` block.)

use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError};
use pyo3::prelude::*;

use crate::await_on::already_executing;
use crate::errors::{generator_exit, made};
use crate::ffi::class::{Class, Inst};
use crate::ffi::iter::{Awaitable, Life, Step, reused, warn_never_awaited};
use crate::futures;

/// A native coroutine as a table of phases.
pub(crate) trait Frame: Class {
    /// Where it is.
    fn at(&self) -> Life;

    /// From now on it is over.
    fn end(&self);

    /// One step, with an exception if there is one; the first step never has one.
    fn step<'py>(this: Inst<'_, 'py, Self>, error: Option<PyErr>) -> PyResult<Step<'py>>;

    /// Nobody will resume it any more.
    fn abandon(this: Inst<'_, '_, Self>) -> PyResult<()> {
        Self::close(this)
    }
}

impl<T: Frame> Awaitable for T {
    #[inline]
    fn resume<'py>(this: Inst<'_, 'py, Self>) -> PyResult<Step<'py>> {
        T::step(this, None)
    }

    fn throw<'py>(this: Inst<'_, 'py, Self>, error: PyErr) -> PyResult<Step<'py>> {
        match this.at() {
            Life::Created => {
                this.get().clear(this.py());
                Err(error)
            }
            Life::Running => Err(already_executing()),
            Life::Suspended => T::step(this, Some(error)),
            Life::Closed => Err(reused()),
        }
    }

    fn close(this: Inst<'_, '_, Self>) -> PyResult<()> {
        let py = this.py();
        match this.at() {
            Life::Created | Life::Closed => {
                this.get().clear(py);
                Ok(())
            }
            Life::Running => Err(already_executing()),
            Life::Suspended => closed(py, T::step(this, Some(generator_exit(py)))),
        }
    }
}

/// What `close()` answers to the step that was thrown the GeneratorExit.
pub(crate) fn closed(py: Python<'_>, outcome: PyResult<Step<'_>>) -> PyResult<()> {
    match outcome {
        Ok(Step::Yield(_)) => Err(PyRuntimeError::new_err("coroutine ignored GeneratorExit")),
        Ok(Step::Return(_)) => Ok(()),
        Err(error) => {
            let error = made(py, error);
            if error.is_instance_of::<PyGeneratorExit>(py) { Ok(()) } else { Err(error) }
        }
    }
}

/// Whether [`finalize`] has something to do.
#[inline]
pub(crate) fn wants_finalize<T: Frame>(frame: &T) -> bool {
    matches!(frame.at(), Life::Created | Life::Suspended)
}

/// The end of one that nobody has any more: a warning if it never started; else it leaves what it waits for.
pub(crate) fn finalize<T: Frame>(this: Inst<'_, '_, T>) {
    match this.at() {
        Life::Created => warn_never_awaited(&this.object()),
        Life::Suspended => futures::without_current_error(this.py(), || T::abandon(this)),
        Life::Running | Life::Closed => {}
    }
}

/// The `Class` of a [`Frame`] whose Python objects are in the fields named: with `N` freed instances kept,
/// `class!(Type, c"name", spare N, [field, ...])`.
macro_rules! class {
    ($type:ident, $name:literal, spare $spare:literal, [$($field:ident),+ $(,)?]) => {
        impl $crate::ffi::class::Class for $type {
            const NAME: &'static std::ffi::CStr = $name;
            const HAS_ORIGIN: bool = true;
            const SPARE: usize = $spare;

            fn cell() -> &'static $crate::ffi::class::TypeCell {
                static CELL: $crate::ffi::class::TypeCell = $crate::ffi::class::TypeCell::new();
                &CELL
            }

            fn spares() -> Option<&'static $crate::ffi::spares::Spares> {
                static SPARES: $crate::ffi::spares::Spares = $crate::ffi::spares::Spares::new();
                ($spare > 0).then_some(&SPARES)
            }

            fn traverse(
                &self,
                visit: &$crate::ffi::gc::Visit<'_>,
            ) -> Result<(), $crate::ffi::gc::Stopped> {
                $($crate::ffi::holds::Holds::traverse(&self.$field, visit)?;)+
                Ok(())
            }

            #[inline]
            fn clear(&self, py: ::pyo3::Python<'_>) {
                $crate::frame::Frame::end(self);
                $($crate::ffi::holds::Holds::clear(&self.$field, py);)+
            }

            #[inline]
            fn wants_finalize(&self) -> bool {
                $crate::frame::wants_finalize(self)
            }

            fn finalize(this: $crate::ffi::class::Inst<'_, '_, Self>) {
                $crate::frame::finalize(this);
            }
        }
    };
}

pub(crate) use class;
