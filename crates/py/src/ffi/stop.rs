//! The StopIteration that carries a result from a native awaitable to whoever awaits it (CPython 3.12 and later).
//!
//! The interpreter takes the result out and drops the exception at once, so ours is of a subclass whose instances are
//! kept when they go, and whose `args` are made when somebody looks at them. iter.rs raises it, nobody else.
#![allow(unsafe_code, reason = "an exception type with a dealloc of its own")]

use std::os::raw::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::Borrowed;
use pyo3::ffi::{self, PyObject, PyStopIterationObject};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::class::{Builder, TypeCell, free};
use super::method::{AnyObject, getter, noargs, unary};
use super::spares::{Spares, revive};
use super::types::forget_finalized;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

static CLASS: TypeCell = TypeCell::new();
static SPARES: Spares = Spares::new();
/// The empty tuple, which stands for arguments that are still to be made: `args` is never null to CPython.
static NO_ARGS: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// How many are kept: one is enough but where awaitables are driven by hand.
const MOST: usize = 16;

/// One that carried an int and went, whole but for its references: ready to carry the next one.
static KEPT: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// `StopIteration(value)` as a new reference; null and an exception if there is no memory.
#[inline]
pub(super) fn new(value: &Bound<'_, PyAny>) -> *mut PyObject {
    // SAFETY: a live object.
    if unsafe { is_int(value.as_ptr()) } { with_int(value) } else { fresh(value) }
}

/// Whether the object is exactly an int or a bool: other kinds of int may have a `__del__`. Not so for null.
#[inline]
unsafe fn is_int(object: *mut PyObject) -> bool {
    if object.is_null() {
        return false;
    }
    // SAFETY: reads the type of a live object.
    let class = unsafe { ffi::Py_TYPE(object) };
    ptr::eq(class, &raw const ffi::PyLong_Type) || ptr::eq(class, &raw const ffi::PyBool_Type)
}

/// Nobody can tell how long an int is kept, so the StopIteration that carried one keeps its fields for the next.
fn with_int(value: &Bound<'_, PyAny>) -> *mut PyObject {
    let kept = KEPT.swap(ptr::null_mut(), Ordering::Relaxed);
    if kept.is_null() {
        return fresh(value);
    }
    // SAFETY: the GIL is held. `dealloc` has kept a dead instance of this class, untracked, that is as it was made but for
    // its int; dropping that runs nothing.
    unsafe {
        revive(kept);
        let before =
            ptr::replace(&raw mut (*kept.cast::<PyStopIterationObject>()).value, value.clone().into_ptr());
        ffi::Py_DECREF(before);
        ffi::PyObject_GC_Track(kept.cast());
    }
    kept
}

/// Whether an instance is as [`fresh`] makes one for an int.
unsafe fn is_untouched(stop: *mut PyStopIterationObject) -> bool {
    // SAFETY: a live instance; its fields are null or own references.
    unsafe {
        let traces = [(*stop).traceback, (*stop).context, (*stop).cause, (*stop).notes, (*stop).dict];
        is_int((*stop).value)
            && (*stop).args == NO_ARGS.load(Ordering::Relaxed)
            && (*stop).suppress_context == '\0'
            && traces.iter().all(|trace| trace.is_null())
    }
}

#[inline]
fn fresh(value: &Bound<'_, PyAny>) -> *mut PyObject {
    // SAFETY: the GIL is held. Kept memory is that of a freed instance of this class, untracked and with every field
    // null; new memory comes zeroed and tracked. The reference is given to the field.
    unsafe {
        let stop = match SPARES.take(value.py()) {
            Some(stop) => {
                ffi::PyObject_GC_Track(stop.as_ptr().cast());
                stop.as_ptr()
            }
            None => ffi::PyType_GenericAlloc(CLASS.ptr(), 0),
        };
        if !stop.is_null() {
            let fields = stop.cast::<PyStopIterationObject>();
            (*fields).args = NO_ARGS.load(Ordering::Relaxed);
            ffi::Py_INCREF((*fields).args);
            (*fields).value = value.clone().into_ptr();
        }
        stop
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: CPython calls this once with the last reference gone and the GIL held. Each field is null or owns a
    // reference; what dropping one runs finds the fields before it null, in an object that nobody can reach.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        let class = ffi::Py_TYPE(slf);
        let stop = slf.cast::<PyStopIterationObject>();
        let is_ours = ptr::eq(class, CLASS.ptr());
        if is_ours && KEPT.load(Ordering::Relaxed).is_null() && is_untouched(stop) {
            forget_finalized(slf);
            KEPT.store(slf, Ordering::Relaxed);
            return;
        }
        let fields = [
            &raw mut (*stop).dict,
            &raw mut (*stop).args,
            &raw mut (*stop).notes,
            &raw mut (*stop).traceback,
            &raw mut (*stop).context,
            &raw mut (*stop).cause,
            &raw mut (*stop).value,
        ];
        for field in fields {
            let object = ptr::replace(field, ptr::null_mut());
            ffi::Py_XDECREF(object);
        }
        (*stop).suppress_context = '\0';
        let kept = is_ours && SPARES.keep(Python::assume_attached(), slf, MOST);
        if !kept {
            free(slf, class);
        }
    }
}

/// The arguments, made if need be: CPython's own functions want them to be there.
fn filled<'py>(this: Borrowed<'_, 'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    let py = this.py();
    let stop = this.as_ptr().cast::<PyStopIterationObject>();
    // SAFETY: a live instance of this class; the fields are null or own references.
    unsafe {
        if (*stop).args.is_null() || (*stop).args == NO_ARGS.load(Ordering::Relaxed) {
            let args = match Bound::from_borrowed_ptr_or_opt(py, (*stop).value) {
                Some(value) => PyTuple::new(py, [value])?.into_ptr(),
                None => PyTuple::empty(py).into_ptr(),
            };
            let old = ptr::replace(&raw mut (*stop).args, args);
            ffi::Py_XDECREF(old);
        }
        Ok(Bound::from_borrowed_ptr(py, (*stop).args).cast_into_unchecked())
    }
}

fn args<'py>(this: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    filled(this).map(Bound::into_any)
}

fn set_args<'py>(this: Borrowed<'_, 'py, PyAny>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let args = PyTuple::new(this.py(), value.try_iter()?.collect::<PyResult<Vec<_>>>()?)?.into_ptr();
    // SAFETY: as in `filled`.
    unsafe {
        let old = ptr::replace(&raw mut (*this.as_ptr().cast::<PyStopIterationObject>()).args, args);
        ffi::Py_XDECREF(old);
    }
    Ok(())
}

/// A function of StopIteration's own, once the arguments are there.
fn base<'py>(this: Borrowed<'_, 'py, PyAny>, slot: Option<ffi::reprfunc>) -> Object<'py> {
    filled(this)?;
    let Some(slot) = slot else { return Ok(this.py().None().into_bound(this.py())) };
    // SAFETY: a slot of the base class with an instance of a subclass; a new reference or an exception.
    unsafe { Bound::from_owned_ptr_or_err(this.py(), slot(this.as_ptr())) }
}

fn repr<'py>(this: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    // SAFETY: reads a slot of a static type.
    base(this, unsafe { (*ffi::PyExc_StopIteration.cast::<ffi::PyTypeObject>()).tp_repr })
}

fn text<'py>(this: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    // SAFETY: as above.
    base(this, unsafe { (*ffi::PyExc_StopIteration.cast::<ffi::PyTypeObject>()).tp_str })
}

/// Copies and pickles are plain StopIterations.
fn reduce<'py>(this: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let py = this.py();
    let class = py.get_type::<pyo3::exceptions::PyStopIteration>();
    Ok((class, filled(this)?).into_pyobject(py)?.into_any())
}

/// Makes the type.
pub(crate) fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = module.py().get_type::<pyo3::exceptions::PyStopIteration>();
    NO_ARGS.store(PyTuple::empty(module.py()).into_ptr(), Ordering::Relaxed);
    Builder::extending(c"builtins.StopIteration", size_of::<PyStopIterationObject>())
        .slot(ffi::Py_tp_dealloc, dealloc as *mut c_void)
        .slot(ffi::Py_tp_repr, unary::<AnyObject, _>(repr))
        .slot(ffi::Py_tp_str, unary::<AnyObject, _>(text))
        .method(noargs::<AnyObject, _>(c"__reduce__", reduce))
        .attribute(getter::<AnyObject, _>(c"args", args).setter::<AnyObject, _>(set_args))
        .build(module, Some(&PyTuple::new(module.py(), [class])?), &CLASS)?;
    Ok(())
}
