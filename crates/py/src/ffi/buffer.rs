//! Memory that Python objects lend for the time of one call: the buffer protocol.
//!
//! The closures get plain slices and no interpreter: nothing in them can run Python code, so nobody else changes or
//! frees the memory meanwhile.
#![allow(unsafe_code, reason = "the buffer protocol")]

use std::mem::MaybeUninit;
use std::slice;

use pyo3::ffi;
use pyo3::prelude::*;

/// Releases the buffer when the call is over, whatever happens in it.
struct Lent(ffi::Py_buffer);

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: filled by PyObject_GetBuffer, released once; the GIL is held by the function that made it.
        unsafe { ffi::PyBuffer_Release(&raw mut self.0) };
    }
}

impl Lent {
    /// A simple contiguous buffer: nothing in it points to itself, so that it may be moved.
    fn new(object: &Bound<'_, PyAny>, flags: i32) -> PyResult<Self> {
        let mut view = MaybeUninit::uninit();
        // SAFETY: a live object and a place for the view, which is filled when the answer is 0.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), flags) } != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        // SAFETY: filled.
        Ok(Self(unsafe { view.assume_init() }))
    }

    fn len(&self) -> usize {
        self.0.len.unsigned_abs()
    }
}

/// Reads the bytes of a bytes-like object (TypeError for any other).
#[inline]
pub(crate) fn read<R>(object: &Bound<'_, PyAny>, f: impl FnOnce(&[u8]) -> R) -> PyResult<R> {
    let lent = Lent::new(object, ffi::PyBUF_SIMPLE)?;
    if lent.len() == 0 {
        return Ok(f(&[]));
    }
    // SAFETY: the exporter keeps this many bytes alive and in place until the release; `f` runs no Python code.
    Ok(f(unsafe { slice::from_raw_parts(lent.0.buf.cast(), lent.len()) }))
}

/// Fills the memory of a writable bytes-like object (TypeError or BufferError for any other).
#[inline]
pub(crate) fn write<R>(object: &Bound<'_, PyAny>, f: impl FnOnce(&mut [u8]) -> R) -> PyResult<R> {
    let lent = Lent::new(object, ffi::PyBUF_WRITABLE)?;
    if lent.len() == 0 {
        return Ok(f(&mut []));
    }
    // SAFETY: as above; the exporter allows writing, and with the GIL held nobody else looks at the bytes.
    Ok(f(unsafe { slice::from_raw_parts_mut(lent.0.buf.cast(), lent.len()) }))
}
