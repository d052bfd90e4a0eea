//! Setting attributes the plain way, for a class that looks at each before it is set.
#![allow(unsafe_code, reason = "PyObject_GenericSetAttr")]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// What `object.__setattr__` (or, without a value, `object.__delattr__`) does.
pub(crate) fn set_generic(
    object: &Bound<'_, PyAny>,
    name: &Bound<'_, PyString>,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let value = value.map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: live objects, and null means "delete"; the GIL is held.
    if unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value) } < 0 {
        return Err(PyErr::fetch(object.py()));
    }
    Ok(())
}
