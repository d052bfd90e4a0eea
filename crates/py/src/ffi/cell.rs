//! Cells for state that the GIL protects.
//!
//! [`GilCell`] gives a short mutable borrow to code that runs no Python: `with` takes a closure without a `Python`
//! token, so nothing in it can call back. [`Slot`] holds one Python object and gives references out, never borrows.
#![allow(unsafe_code, reason = "shared state under the GIL")]

use std::cell::{Cell, OnceCell, UnsafeCell};
use std::fmt;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::gc::{Stopped, Visit};
use super::prefetch::fetch;

/// State that only a thread holding the GIL touches, one short borrow at a time.
pub(crate) struct GilCell<T> {
    value: UnsafeCell<T>,
    borrowed: Cell<bool>,
}

// SAFETY: every access goes through `with`/`peek`, which need a `Python` token: the GIL orders them, and the module
// does not declare itself free-threading ready, so the GIL is always there.
unsafe impl<T: Send> Sync for GilCell<T> {}

impl<T> GilCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), borrowed: Cell::new(false) }
    }

    /// Borrows the state. `f` must not run Python code (nor drop Python objects): it gets no token for it.
    ///
    /// # Panics
    /// When `f` got back here all the same: a bug, reported as RuntimeError at the border.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a flag around a few instructions of the caller's")]
    pub(crate) fn with<R>(&self, _py: Python<'_>, f: impl FnOnce(&mut T) -> R) -> R {
        struct Release<'a>(&'a Cell<bool>);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }
        if self.borrowed.replace(true) {
            borrowed_twice();
        }
        let _release = Release(&self.borrowed);
        // SAFETY: the GIL is held and the flag says that no other borrow lives.
        f(unsafe { &mut *self.value.get() })
    }

    /// For the garbage collector's traversal, which runs between bytecodes and never inside `with`.
    pub(crate) fn visit<R>(&self, f: impl FnOnce(&T) -> R) -> Option<R> {
        if self.borrowed.get() {
            return None;
        }
        // SAFETY: the collector runs with the GIL held and no borrow lives; `f` only reads.
        Some(f(unsafe { &*self.value.get() }))
    }
}

#[cold]
fn borrowed_twice() -> ! {
    panic!("aioxide: state borrowed twice")
}

impl<T> fmt::Debug for GilCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GilCell")
    }
}

/// A small copyable value that the GIL protects.
pub(crate) struct Flag<T: Copy>(Cell<T>);

// SAFETY: as for GilCell: read and written with the GIL held only.
unsafe impl<T: Copy + Send> Sync for Flag<T> {}

impl<T: Copy> Flag<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Cell::new(value))
    }

    #[inline]
    pub(crate) fn get(&self) -> T {
        self.0.get()
    }

    #[inline]
    pub(crate) fn set(&self, value: T) {
        self.0.set(value);
    }

    /// Sets the value and returns the one before.
    #[inline]
    pub(crate) fn replace(&self, value: T) -> T {
        self.0.replace(value)
    }
}

impl<T: Copy + Default> Default for Flag<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for Flag<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.get().fmt(f)
    }
}

/// What few need: made in a box of its own when it is first written.
pub(crate) struct Late<T>(OnceCell<Box<T>>);

// SAFETY: as for GilCell: read and written with the GIL held only.
unsafe impl<T: Send> Sync for Late<T> {}

impl<T: Default> Late<T> {
    pub(crate) const fn new() -> Self {
        Self(OnceCell::new())
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.get().map(Box::as_ref)
    }

    pub(crate) fn get_or_make(&self) -> &T {
        self.0.get_or_init(Box::default)
    }
}

/// One Python object or nothing, replaced under the GIL. The old value is handed back or dropped after the exchange.
#[repr(transparent)] // class.rs gives one to CPython as the place of an instance's `__dict__`
pub(crate) struct Slot(Cell<Option<Py<PyAny>>>);

// SAFETY: as for GilCell.
unsafe impl Sync for Slot {}

impl Default for Slot {
    fn default() -> Self {
        Self::empty()
    }
}

impl Slot {
    pub(crate) const fn empty() -> Self {
        Self(Cell::new(None))
    }

    pub(crate) const fn holding(value: Py<PyAny>) -> Self {
        Self(Cell::new(Some(value)))
    }

    pub(crate) fn new(value: Option<Py<PyAny>>) -> Self {
        Self(Cell::new(value))
    }

    /// Has the processor fetch the first cache lines of the object.
    #[inline]
    pub(crate) fn fetch<const LINES: usize>(&self, _py: Python<'_>) {
        // SAFETY: the GIL is held; the object is alive while the cell owns it, longer than this.
        if let Some(object) = unsafe { (*self.0.as_ptr()).as_ref() } {
            fetch::<LINES>(object);
        }
    }

    /// A new reference to the object.
    #[inline]
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: the GIL is held; the object is alive while the cell owns it, and the clone owns it after.
        unsafe { (*self.0.as_ptr()).as_ref().map(|o| o.bind(py).clone()) }
    }

    /// The dict that it holds for an instance's own attributes, without what is native (`instance_dict.rs`).
    pub(crate) fn dict<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        Ok(self.get(py).map(Bound::cast_into).transpose()?)
    }

    #[inline]
    pub(crate) fn is_some(&self) -> bool {
        // SAFETY: a plain read under the GIL.
        unsafe { (*self.0.as_ptr()).is_some() }
    }

    /// Whether this very object is in the slot.
    #[inline]
    pub(crate) fn holds(&self, object: &Bound<'_, PyAny>) -> bool {
        // SAFETY: a plain read under the GIL.
        unsafe { (*self.0.as_ptr()).as_ref().is_some_and(|o| o.is(object)) }
    }

    /// Stores `value`; the old one is returned so that it is dropped where Python code may run.
    #[inline]
    pub(crate) fn replace<'py>(
        &self,
        py: Python<'py>,
        value: Option<Bound<'py, PyAny>>,
    ) -> Option<Bound<'py, PyAny>> {
        self.0.replace(value.map(Bound::unbind)).map(|o| o.into_bound(py))
    }

    #[inline]
    pub(crate) fn set(&self, py: Python<'_>, value: Bound<'_, PyAny>) {
        drop(self.0.replace(Some(value.unbind())).map(|o| o.into_bound(py)));
    }

    #[inline]
    pub(crate) fn take<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.0.take().map(|o| o.into_bound(py))
    }

    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        // SAFETY: the collector holds the GIL; a plain read.
        unsafe { visit.call((*self.0.as_ptr()).as_ref()) }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_some() { "Slot(object)" } else { "Slot(empty)" })
    }
}
