//! `__dict__` of our objects: where programs save and restore it, what we keep natively is in it, too.
#![allow(unsafe_code, reason = "the generic getter and setter of __dict__")]

use std::ffi::c_void;
use std::ptr;

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use super::class::guard;

/// The `__dict__` attribute of a class whose instances have a slot for one; with what is native in it, or without.
pub(super) fn attribute(shows_state: bool) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef {
        name: c"__dict__".as_ptr(),
        get: Some(if shows_state { get } else { ffi::PyObject_GenericGetDict }),
        set: Some(ffi::PyObject_GenericSetDict),
        doc: ptr::null(),
        closure: ptr::null_mut(),
    }
}

unsafe extern "C" fn get(slf: *mut PyObject, closure: *mut c_void) -> *mut PyObject {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    // SAFETY: CPython calls a getter with the GIL held and a live object, whose class has a slot for its dict; the
    // generic functions keep to that slot and count the references in it.
    unsafe {
        let py = Python::assume_attached();
        guard(py, || {
            let now = || Bound::from_owned_ptr_or_err(py, ffi::PyObject_GenericGetDict(slf, closure));
            if !now()?.is_exact_instance_of::<PyDict>() {
                return now(); // made before, or the program's own
            }
            let class = CLASS.import(py, "aioxide._attributes", "InstanceDict")?;
            let ours = class.call1((Bound::from_borrowed_ptr(py, slf),))?;
            // What other threads have done in that call; from here on no Python runs.
            let Ok(further) = now()?.cast_into_exact::<PyDict>() else { return now() };
            ours.cast::<PyDict>()?.update(further.as_mapping())?;
            if ffi::PyObject_GenericSetDict(slf, ours.as_ptr(), closure) < 0 {
                return Err(PyErr::fetch(py));
            }
            Ok(ours)
        })
    }
}
