//! Memory that Python objects lend for the time of one call: the buffer protocol.
//!
//! And bytes objects that are received into, before anybody sees them or when nobody does any more. The closures get plain
//! slices and no interpreter: nothing in them can run Python code, so nobody else changes or frees the memory meanwhile.
#![allow(unsafe_code, reason = "the buffer protocol")]

use std::hint::black_box;
use std::io;
use std::mem::MaybeUninit;
use std::sync::Once;
use std::{ptr, slice};

use aioxide_sys::landing;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PySlice};

use super::cell::GilCell;
use super::class::references;

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

/// Bytes objects that were received into, about as many as were in use together.
static LATEST: GilCell<Latest> = GilCell::new(Latest { objects: Vec::new(), at: 0 });
/// How many are kept at most.
const MOST: usize = 128;
/// At how many of them a receive looks for one that nobody has.
const LOOKS: usize = 4;
/// From how many bytes on an object is not kept for another receive.
const TOO_LARGE: usize = 16 * 1024;

struct Latest {
    objects: Vec<Py<PyBytes>>,
    /// The one that was received into last.
    at: usize,
}

impl Latest {
    /// Receives into the last object or, where somebody has that, into one of the next.
    fn reuse<'py>(&mut self, py: Python<'py>, data: &[u8]) -> Option<Bound<'py, PyBytes>> {
        let mut looks = 1;
        while !self.is_free(py) {
            if looks == LOOKS {
                return None;
            }
            looks += 1;
            self.at = if self.at + 1 < self.objects.len() { self.at + 1 } else { 0 };
        }
        let object = self.objects.get(self.at)?.bind(py);
        if object.as_bytes().len() != data.len() {
            return None;
        }
        let place = object.as_ptr().cast::<ffi::PyBytesObject>();
        // SAFETY: the only reference is ours, from a list that lends none: whoever looks at the bytes, be it by a view or by
        // a reference that the interpreter borrows, has or leans on another that counts, and so has whoever lends `data`,
        // which is as long. With the GIL held and no Python code run nobody gets one meanwhile. Objects that are shared for
        // good never have a count of one. -1 is a hash that is still to be computed.
        unsafe {
            #[allow(deprecated, reason = "CPython's for use from outside, not as a field")]
            (&raw mut (*place).ob_shash).write(-1);
            ptr::copy_nonoverlapping(data.as_ptr(), (&raw mut (*place).ob_sval).cast(), data.len());
        }
        Some(object.clone())
    }

    /// Whether nobody has the object whose turn it is.
    fn is_free(&self, py: Python<'_>) -> bool {
        self.objects.get(self.at).is_some_and(|object| references(object.bind(py)) == 1)
    }

    /// Keeps an object for later; gives back another one that makes way for it.
    fn keep(&mut self, py: Python<'_>, object: Py<PyBytes>) -> Option<Py<PyBytes>> {
        let makes_way = self.is_free(py) || self.objects.len() >= MOST;
        match self.objects.get_mut(self.at) {
            Some(place) if makes_way => Some(std::mem::replace(place, object)),
            Some(_) | None => {
                self.at = self.objects.len();
                self.objects.push(object);
                None
            }
        }
    }
}

/// Received bytes as an object: one that was used for that before, if it is as long and nobody else has it. Most programs are
/// through with their data before more comes, and peers often send as much each time; a new object costs as much as a call,
/// and lies in memory that is in no cache.
#[inline]
pub(crate) fn received<'py>(py: Python<'py>, data: &[u8]) -> Bound<'py, PyBytes> {
    // Of no byte and of one there is an object for good.
    if !(2..TOO_LARGE).contains(&data.len()) {
        return PyBytes::new(py, data);
    }
    if let Some(object) = LATEST.with(py, |latest| latest.reuse(py, data)) {
        return object;
    }
    let object = PyBytes::new(py, data);
    let old = LATEST.with(py, |latest| latest.keep(py, object.clone().unbind()));
    drop(old);
    object
}

/// Reads the bytes of a bytes-like object (TypeError for any other).
#[inline]
pub(crate) fn read<R>(object: &Bound<'_, PyAny>, f: impl FnOnce(&[u8]) -> R) -> PyResult<R> {
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        return Ok(f(bytes.as_bytes()));
    }
    let lent = Lent::new(object, ffi::PyBUF_SIMPLE)?;
    if lent.len() == 0 {
        return Ok(f(&[]));
    }
    // SAFETY: the exporter keeps this many bytes alive and in place until the release; `f` runs no Python code.
    Ok(f(unsafe { slice::from_raw_parts(lent.0.buf.cast(), lent.len()) }))
}

/// The bytes of a bytes-like object in one that nobody can change: the same object if it is one (TypeError for any other).
pub(crate) fn fixed<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    match object.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.clone()),
        Err(_) => read(object, <[u8]>::to_vec).map(|copy| PyBytes::new(object.py(), &copy)),
    }
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

/// A view of a bytes-like object from `start` up to `end`, counted as the object's own items.
pub(crate) fn part<'py>(object: &Bound<'py, PyAny>, start: usize, end: usize) -> PyResult<Bound<'py, PyAny>> {
    // By the class: PySlice::new never gives its numbers back.
    let range = object.py().get_type::<PySlice>().call1((start, end))?;
    PyMemoryView::from(object)?.get_item(range)
}

unsafe extern "C" {
    fn _PyBytes_Resize(object: *mut *mut ffi::PyObject, length: ffi::Py_ssize_t) -> std::ffi::c_int;
}

/// Has the C library keep memory that is freed for what comes next. It gives the end of its heap back to the system when
/// that is twice as large as the largest block that it had for itself (not from the heap) and freed, 128 kB if there was
/// none; memory that is new to a process costs a fault for each 4 kB, and large data are new and freed with each message.
fn keep_memory() {
    const BLOCK: usize = 1024 * 1024;
    static KEPT: Once = Once::new();
    KEPT.call_once(|| drop(black_box(Vec::<u8>::with_capacity(BLOCK))));
}

/// A new object for `room` bytes or a few more, which nobody has written yet, at a place where the kernel copies fast unless
/// four in a row have none.
fn room_for(py: Python<'_>, room: usize) -> PyResult<Bound<'_, PyBytes>> {
    let mut held = Vec::new(); // while these have their places the next gets another; of one size all might be slow
    loop {
        let size = room + 64 * held.len();
        // SAFETY: the reference is ours, and the pointer to the bytes is only looked at.
        let (object, place) = unsafe {
            let object = ffi::PyBytes_FromStringAndSize(ptr::null(), size.cast_signed());
            let object = Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked::<PyBytes>();
            let place = ffi::PyBytes_AsString(object.as_ptr());
            (object, place)
        };
        if held.len() == 3 || !landing::copies_slowly(place.cast()) {
            return Ok(object);
        }
        held.push(object);
    }
}

/// A bytes object of what `fill` writes to the start of fresh memory for `room` bytes.
#[inline]
pub(crate) fn fresh<'py>(
    py: Python<'py>,
    room: usize,
    fill: impl for<'a> FnOnce(&'a mut [MaybeUninit<u8>]) -> io::Result<&'a mut [u8]>,
) -> PyResult<io::Result<Bound<'py, PyBytes>>> {
    keep_memory();
    let object = room_for(py, room)?;
    // SAFETY: a new object whose bytes nobody has written and nobody else sees yet; they are as many as asked for or more.
    // What `fill` gives back was written and is no longer than that, so the object, which gets its length, is initialised
    // throughout. `_PyBytes_Resize` does nothing if it has that already, else takes the only reference over, and gives it
    // back unless it fails.
    unsafe {
        let memory: &mut [MaybeUninit<u8>] =
            slice::from_raw_parts_mut(ffi::PyBytes_AsString(object.as_ptr()).cast(), room);
        let start = memory.as_ptr().cast::<u8>();
        let length = match fill(memory) {
            Ok(written) if ptr::eq(written.as_ptr(), start) => written.len().min(room),
            Ok(_) => 0,
            Err(error) => return Ok(Err(error)),
        };
        let mut object = object.into_ptr();
        if _PyBytes_Resize(&raw mut object, length.cast_signed()) != 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(Ok(Bound::from_owned_ptr(py, object).cast_into_unchecked()))
    }
}
