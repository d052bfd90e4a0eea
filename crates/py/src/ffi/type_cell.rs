//! A type of ours as native code knows it: whether an object is of it, and whether it still has our methods.
//!
//! Where a class is written in Python in asyncio, programs can put methods of their own into ours, as tests and
//! instruments do. Fast paths are for the class as it was at first.
#![allow(unsafe_code, reason = "type objects")]

use std::ffi::CStr;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use pyo3::ffi::{self, PyTypeObject};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use super::cell::Slot;

/// A type object made when the module is imported, for fast exact checks.
pub(crate) struct TypeCell {
    class: AtomicPtr<PyTypeObject>,
    /// What the type had in it then, by name.
    contents: PyOnceLock<Py<PyDict>>,
    /// CPython gives a type another number with every change of it, and none to one that it has not looked into since.
    /// These are the last one with which all of the contents were there, and the last with which some were not.
    same: AtomicU32,
    other: AtomicU32,
}

impl TypeCell {
    pub(crate) const fn new() -> Self {
        Self {
            class: AtomicPtr::new(ptr::null_mut()),
            contents: PyOnceLock::new(),
            same: AtomicU32::new(u32::MAX),
            other: AtomicU32::new(u32::MAX),
        }
    }

    #[inline]
    pub(super) fn ptr(&self) -> *mut PyTypeObject {
        self.class.load(Ordering::Relaxed)
    }

    /// Keeps the type for good: one more reference that is never given back.
    pub(super) fn set(&self, class: &Bound<'_, PyAny>) {
        self.class.store(class.clone().into_ptr().cast(), Ordering::Relaxed);
    }

    /// Keeps in mind what the type has in it: for [`is_plain`](Self::is_plain).
    pub(super) fn note_contents(&self, py: Python<'_>) -> PyResult<()> {
        let _ = self.contents.set(py, contents_of(&self.get(py))?.unbind());
        Ok(())
    }

    /// Whether `object` is an instance of exactly this type, and the type has in it what it had at first. (It may have
    /// more: `copyreg` puts something there.)
    #[inline]
    pub(crate) fn is_plain(&self, object: &Bound<'_, PyAny>) -> bool {
        self.is_exact(object) && self.is_unchanged(object.py())
    }

    /// Whether the type has in it what it had at first.
    #[inline]
    pub(crate) fn is_unchanged(&self, py: Python<'_>) -> bool {
        self.version() == self.same.load(Ordering::Relaxed) || self.is_as_at_first(py)
    }

    #[inline]
    fn version(&self) -> u32 {
        // SAFETY: `set` keeps the type; the GIL is held, without which nobody changes it.
        unsafe { (*self.ptr()).tp_version_tag }
    }

    /// Looks into the type, once a version of it.
    #[cold]
    fn is_as_at_first(&self, py: Python<'_>) -> bool {
        let version = self.version();
        if version == self.other.load(Ordering::Relaxed) {
            return false;
        }
        let Some(contents) = self.contents.get(py).map(|contents| contents.bind(py)) else { return false };
        let Ok(now) = contents_of(&self.get(py)) else { return false };
        let is_same = contents
            .iter()
            .all(|(name, was)| now.get_item(name).is_ok_and(|now| now.is_some_and(|now| now.is(&was))));
        // A type that has been changed a thousand times gets no number any more.
        let kept = if is_same && self.version() != 0 { &self.same } else { &self.other };
        kept.store(self.version(), Ordering::Relaxed);
        is_same
    }

    /// Whether the object has, in its own dict or by its class, which is ours or a subclass, something else under that name
    /// than ours had at first.
    pub(crate) fn is_replaced(&self, object: &Bound<'_, PyAny>, own: &Slot, name: &CStr) -> PyResult<bool> {
        if own.dict(object.py())?.map_or(Ok(false), |own| own.contains(name))? {
            return Ok(true);
        }
        let Some(contents) = self.contents.get(object.py()) else { return Ok(false) };
        let now = object.get_type().getattr(name)?;
        Ok(contents.bind(object.py()).get_item(name)?.is_none_or(|was| !was.is(&now)))
    }

    /// The type as an object.
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        // SAFETY: `set` keeps a reference for good; null (before import ended) is refused by from_borrowed_ptr.
        unsafe { Bound::from_borrowed_ptr(py, self.ptr().cast()) }
    }

    /// Whether `object` is an instance of exactly this type.
    #[inline]
    pub(crate) fn is_exact(&self, object: &Bound<'_, PyAny>) -> bool {
        // SAFETY: reads the type of a live object.
        ptr::eq(unsafe { ffi::Py_TYPE(object.as_ptr()) }, self.ptr())
    }

    /// Whether `object` is an instance of this type or of a subclass.
    #[inline]
    pub(crate) fn is_instance(&self, object: &Bound<'_, PyAny>) -> bool {
        // SAFETY: both are live; a null type was never reached (set at import).
        unsafe { ffi::PyObject_TypeCheck(object.as_ptr(), self.ptr()) != 0 }
    }
}

impl fmt::Debug for TypeCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypeCell").field(&self.ptr()).finish()
    }
}

/// What is found in a type by name, but for what every type has from `object`. CPython numbers the type with the look-up.
fn contents_of<'py>(class: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let py = class.py();
    let contents = PyDict::new(py);
    let mut line: Vec<_> = class.getattr(intern!(py, "__mro__"))?.try_iter()?.collect::<PyResult<_>>()?;
    line.pop();
    for class in line.into_iter().rev() {
        contents.call_method1(intern!(py, "update"), (class.getattr(intern!(py, "__dict__"))?,))?;
    }
    class.getattr(intern!(py, "__init__"))?;
    Ok(contents)
}
