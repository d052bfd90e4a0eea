//! The type aioxide._GatheringFuture: our Future with the state of `gather` behind it.
//!
//! Its methods are Future's own (`futures::cancel` knows it), so it counts as exactly a Future everywhere
//! ([`Fut::cast_exact`]).
#![allow(unsafe_code, reason = "type slots of a subtype of Future")]

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;

use pyo3::Borrowed;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::class::{Builder, TypeCell};
use super::gc::traverse_raw;
use super::layout::{FUTURE_SIZE, Fut};
use super::types::{self, STOCK_FUTURE};
use crate::gather::Gathering;

pub(super) static GATHERING: TypeCell = TypeCell::new();

#[repr(C)]
struct Memory {
    future: [u8; FUTURE_SIZE],
    state: ManuallyDrop<Gathering>,
}

const _: () = assert!(align_of::<Gathering>() <= align_of::<PyObject>());
const _: () = assert!(FUTURE_SIZE.is_multiple_of(align_of::<Gathering>()));

impl<'a, 'py> Fut<'a, 'py> {
    /// The object if it is the future of a `gather`.
    #[inline]
    pub(crate) fn gathering(object: &'a Bound<'py, PyAny>) -> Option<Self> {
        // SAFETY: checked; the type derives from Future.
        GATHERING.is_exact(object).then(|| unsafe { Self::new(object.as_borrowed()) })
    }

    /// What `gather` keeps in its future; none in any other.
    #[inline]
    pub(crate) fn gathered(self) -> Option<&'a Gathering> {
        let memory: *const Memory = self.object().as_ptr().cast();
        // SAFETY: the type says that there is such a state; it was written by `alloc` and lives as long as the object.
        GATHERING
            .is_exact(&self.object())
            .then(|| unsafe { &*(&raw const (*memory).state).cast::<Gathering>() })
    }
}

/// A blank gathering future with that state.
pub(crate) fn alloc(py: Python<'_>, state: Gathering) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: a ready heap type; the memory comes zeroed, and a zeroed `Gathering` holds no object should the
    // collector come before the state is written.
    unsafe {
        let object = Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(GATHERING.ptr(), 0))?;
        let memory: *mut Memory = object.as_ptr().cast();
        ptr::write(&raw mut (*memory).state, ManuallyDrop::new(state));
        Ok(object)
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: CPython calls this once with the last reference gone and the GIL held.
    unsafe {
        let py = Python::assume_attached();
        if Fut::new(Borrowed::from_ptr(py, slf)).log_tb() && ffi::PyObject_CallFinalizerFromDealloc(slf) < 0 {
            return; // alive again
        }
        let class = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        ffi::PyObject_ClearWeakRefs(slf);
        clear(slf);
        ManuallyDrop::drop(&mut (*slf.cast::<Memory>()).state);
        (*class).tp_free.unwrap_or(ffi::PyObject_GC_Del)(slf.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector calls this with a live instance and its own visit function.
    unsafe {
        let status = (*STOCK_FUTURE.ptr()).tp_traverse.map_or(0, |base| base(slf, visit, arg));
        if status != 0 {
            return status;
        }
        traverse_raw(visit, arg, |v| (*slf.cast::<Memory>()).state.traverse(v))
    }
}

unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    // SAFETY: the collector calls this with a live instance and the GIL held.
    unsafe {
        (*slf.cast::<Memory>()).state.clear(Python::assume_attached());
        (*STOCK_FUTURE.ptr()).tp_clear.map_or(0, |base| base(slf))
    }
}

/// Where weak references and attributes are kept: flags that a subtype made from C has to repeat.
fn managed_flags() -> u64 {
    #[cfg(Py_3_12)]
    let flags = {
        const MANAGED_WEAKREF_AND_DICT: u64 = (1 << 3) | (1 << 4);
        // SAFETY: reads the flags of a live type.
        unsafe { (*STOCK_FUTURE.ptr()).tp_flags as u64 & MANAGED_WEAKREF_AND_DICT }
    };
    #[cfg(not(Py_3_12))]
    let flags = 0;
    flags
}

/// Makes the type.
pub(crate) fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let builder = Builder::extending(c"aioxide._GatheringFuture", size_of::<Memory>())
        .flags(managed_flags() | u64::from(ffi::Py_TPFLAGS_HAVE_GC))
        .slot(ffi::Py_tp_dealloc, dealloc as *mut c_void)
        .slot(ffi::Py_tp_traverse, traverse as *mut c_void)
        .slot(ffi::Py_tp_clear, clear as *mut c_void);
    let bases = PyTuple::new(py, [types::future_type(py)])?;
    crate::gather::attributes(builder).build(module, Some(&bases), &GATHERING)?;
    Ok(())
}
