//! Coroutines that never wait: `__aenter__` and `__aexit__` where there is nothing to wait for.
//!
//! What such a method does runs when the coroutine is awaited, not when it is made, and is over with the first step.

use pyo3::prelude::*;

use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::iter::{Awaitable, Coroutine, Life, Step, reused, warn_never_awaited};
use crate::ffi::spares::Spares;

/// What is done: with the object whose method it is, and the exception of an `__aexit__` (its class and itself).
pub(crate) type Body = for<'py> fn(
    &Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>>;

/// The coroutine.
pub(crate) struct Prompt {
    body: Body,
    qualname: &'static str,
    fresh: Flag<bool>,
    owner: Slot,
    class: Slot,
    error: Slot,
}

impl Class for Prompt {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.Prompt";
    const HAS_ORIGIN: bool = true;
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
        self.owner.traverse(visit)?;
        self.class.traverse(visit)?;
        self.error.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.fresh.set(false);
        drop((self.owner.take(py), self.class.take(py), self.error.take(py)));
    }

    fn wants_finalize(&self) -> bool {
        self.fresh.get()
    }

    fn finalize(this: Inst<'_, '_, Self>) {
        if this.fresh.get() {
            warn_never_awaited(&this.object());
        }
    }
}

impl Awaitable for Prompt {
    #[inline]
    fn resume<'py>(this: Inst<'_, 'py, Self>) -> PyResult<Step<'py>> {
        let py = this.py();
        this.fresh.set(false);
        let Some(owner) = this.owner.take(py) else { return Err(reused()) };
        (this.body)(&owner, this.class.take(py), this.error.take(py)).map(Step::Return)
    }

    fn throw<'py>(this: Inst<'_, 'py, Self>, error: PyErr) -> PyResult<Step<'py>> {
        if !this.fresh.get() {
            return Err(reused());
        }
        this.clear(this.py());
        Err(error)
    }

    fn close(this: Inst<'_, '_, Self>) -> PyResult<()> {
        this.clear(this.py());
        Ok(())
    }
}

impl Coroutine for Prompt {
    fn qualname(this: Inst<'_, '_, Self>) -> &'static str {
        this.qualname
    }

    fn life(this: Inst<'_, '_, Self>) -> Life {
        if this.fresh.get() { Life::Created } else { Life::Closed }
    }
}

/// A coroutine that runs `body(owner, class, error)` when it is awaited.
#[inline]
pub(crate) fn coroutine<'py>(
    qualname: &'static str,
    owner: Bound<'py, PyAny>,
    error: (Option<Bound<'py, PyAny>>, Option<Bound<'py, PyAny>>),
    body: Body,
) -> PyResult<Bound<'py, PyAny>> {
    let py = owner.py();
    create(
        py,
        Prompt {
            body,
            qualname,
            fresh: Flag::new(true),
            owner: Slot::holding(owner.unbind()),
            class: Slot::new(error.0.map(Bound::unbind)),
            error: Slot::new(error.1.map(Bound::unbind)),
        },
    )
}

/// Makes the type.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Prompt>().coroutine::<Prompt>().build(module, None, Prompt::cell())?;
    Ok(())
}
