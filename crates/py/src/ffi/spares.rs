//! Memory of freed instances, kept for the next ones: with their collector's header, their type and the reference to it.
//!
//! The list runs through the memory itself, so keeping and taking are a few words each. Used by class.rs, types.rs and
//! stop.rs, each for instances of exactly one size.
#![allow(unsafe_code, reason = "a list through the memory of dead objects")]

use std::cell::Cell;
use std::fmt;
use std::ptr::{self, NonNull};

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;

use super::types::forget_finalized;

unsafe extern "C" {
    /// Makes a reference count of one, and tells those who follow the making of objects.
    fn _Py_NewReference(object: *mut PyObject);
}

/// Kept memory, last in, first out.
pub(crate) struct Spares {
    first: Cell<*mut PyObject>,
    len: Cell<usize>,
}

// SAFETY: touched with the GIL held only, as every method asks for.
unsafe impl Sync for Spares {}

impl fmt::Debug for Spares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spares").field("len", &self.len.get()).finish_non_exhaustive()
    }
}

/// Where an instance keeps the next one in the list: its first word after the header.
#[inline]
unsafe fn next(object: *mut PyObject) -> *mut *mut PyObject {
    // SAFETY: every class here has at least one word behind the header.
    unsafe { object.add(1).cast() }
}

impl Spares {
    pub(crate) const fn new() -> Self {
        Self { first: Cell::new(ptr::null_mut()), len: Cell::new(0) }
    }

    /// An object with one reference: of the type it had, unknown to the collector, its first word null and all others
    /// as they were kept.
    #[inline]
    pub(super) fn take(&self, _: Python<'_>) -> Option<NonNull<PyObject>> {
        let object = NonNull::new(self.first.get())?;
        // SAFETY: what is in the list is the memory of a dead instance, which `keep` got and nobody else has.
        unsafe {
            self.first.set(ptr::replace(next(object.as_ptr()), ptr::null_mut()));
            self.len.set(self.len.get() - 1);
            revive(object.as_ptr());
        }
        Some(object)
    }

    /// Keeps the memory of a dead instance, with its reference to its type, unless there are `most` of them already.
    ///
    /// # Safety
    /// The caller has the last pointer to `object`, which is not tracked by the collector and whose value is gone. All
    /// of a list are of one size.
    #[inline]
    pub(super) unsafe fn keep(&self, _: Python<'_>, object: *mut PyObject, most: usize) -> bool {
        let room = self.len.get() < most;
        if room {
            // SAFETY: promised by the caller.
            unsafe {
                forget_finalized(object);
                *next(object) = self.first.replace(object);
            }
            self.len.set(self.len.get() + 1);
        }
        room
    }
}

/// Gives a dead object one reference.
///
/// # Safety
/// The caller has the last pointer to an object whose dealloc has left its memory whole, and its reference to its type.
#[inline]
pub(super) unsafe fn revive(object: *mut PyObject) {
    // SAFETY: promised by the caller.
    unsafe { _Py_NewReference(object) };
}

/// Gives an instance from [`Spares::take`] another type of the same kind.
///
/// # Safety
/// `object` is such an instance, and its memory is as right for `class`.
#[inline]
pub(super) unsafe fn become_a(object: *mut PyObject, class: *mut ffi::PyTypeObject) {
    // SAFETY: the instance owns a reference to its type, which changes hands.
    unsafe {
        let before = ffi::Py_TYPE(object);
        if !ptr::eq(before, class) {
            ffi::Py_INCREF(class.cast());
            (*object).ob_type = class;
            ffi::Py_DECREF(before.cast());
        }
    }
}
