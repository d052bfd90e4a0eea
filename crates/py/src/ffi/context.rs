//! contextvars.Context: copied, entered, left. And the interpreter's guard against endless recursion.
//!
//! A context keeps its variables in a map that never changes: setting one makes another map. So a callback need not
//! have a context of its own before it runs: the map of the context in which it was scheduled is enough ([`snapshot`]),
//! and a context made of it then ([`of`]) is the copy it would have had. `calibrate` finds by experiment at import where
//! the map is; where it can't be found a snapshot is a copy of the context.
#![allow(unsafe_code, reason = "PyContext_* and recursion functions, the fields of a context")]

use std::os::raw::c_int;
use std::ptr;
use std::sync::atomic::{AtomicIsize, AtomicPtr, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi::{self, PyObject};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyInt;

use super::thread::Here;
use super::watchers;

/// CPython's `PyContext`.
#[repr(C)]
struct ContextObj {
    ob_base: PyObject,
    previous: *mut PyObject,
    variables: *mut PyObject,
    weakrefs: *mut PyObject,
    entered: c_int,
}

/// Distance in bytes from the thread state to its current context; 0 when unknown.
static CURRENT: AtomicIsize = AtomicIsize::new(0);
/// The same where contexts can be entered and left without a call: their version is counted in the next word, and it is
/// known who watches ([`watchers`]); 0 elsewhere.
static DIRECT: AtomicIsize = AtomicIsize::new(0);
/// A context that [`of`] lets CPython copy, once it has the right variables.
static TEMPLATE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// The map without variables, of which there is one; null when unknown.
static EMPTY: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());
/// A context that has been used and that nobody has, for the next use; it has the template's variables: none.
static USED: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// The variables of the current context, for [`of`].
#[inline]
pub(crate) fn snapshot(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let offset = CURRENT.load(Ordering::Relaxed);
    if offset != 0 {
        // SAFETY: the GIL is held, so there is a thread state; `offset` is that of its context (calibrated), which is
        // null or a live Context, whose variables are never null.
        unsafe {
            let current = *ffi::PyThreadState_Get().byte_offset(offset).cast::<*mut ContextObj>();
            if !current.is_null() {
                return Ok(Bound::from_borrowed_ptr(py, (*current).variables));
            }
        }
    }
    copy_current(py)
}

/// Whether a snapshot is that of a context without variables: then it keeps nothing alive.
#[inline]
pub(crate) fn is_empty(snapshot: &Bound<'_, PyAny>) -> bool {
    ptr::eq(snapshot.as_ptr(), EMPTY.load(Ordering::Relaxed))
}

/// A context with the variables of a snapshot (or the context itself, if it is one).
#[inline]
pub(crate) fn of(snapshot: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    if is_context(&snapshot) {
        return Ok(snapshot);
    }
    let py = snapshot.py();
    let used = USED.load(Ordering::Relaxed);
    if used.is_null() {
        return copy_of(&snapshot);
    }
    USED.store(ptr::null_mut(), Ordering::Relaxed);
    // SAFETY: the cell owned the only reference to this context, which is ours now. Each reference to variables is given
    // to the field or taken from it; dropping the old ones, which are kept for good, runs nothing.
    unsafe {
        let variables = &mut (*used.cast::<ContextObj>()).variables;
        let none = std::mem::replace(variables, snapshot.into_ptr());
        ffi::Py_DECREF(none);
        Ok(Bound::from_owned_ptr(py, used))
    }
}

/// A new context with the variables of a snapshot.
#[cold]
fn copy_of<'py>(variables: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = variables.py();
    let template = TEMPLATE.load(Ordering::Relaxed);
    // SAFETY: a snapshot that is no context was made by `snapshot`, which calibration has allowed, so there is a
    // template, kept for good. It owns the variables for as long as it has them; where copying runs Python code that
    // gets here again, that leaves the template as it was.
    unsafe {
        let field = &raw mut (*template.cast::<ContextObj>()).variables;
        let none = ptr::replace(field, variables.clone().into_ptr());
        let copy = ffi::PyContext_Copy(template);
        let variables = ptr::replace(field, none);
        ffi::Py_DECREF(variables);
        Bound::from_owned_ptr_or_err(py, copy)
    }
}

/// Gives back a context that [`of`] has made. If nobody else has it, it is used again; its variables go.
#[inline]
pub(crate) fn give_back(context: Bound<'_, PyAny>) {
    let template = TEMPLATE.load(Ordering::Relaxed).cast::<ContextObj>();
    let object = context.as_ptr().cast::<ContextObj>();
    // SAFETY: a live Context, whose fields are where calibration found them if there is a template. With one reference,
    // ours, which the cell gets, nobody sees the change; the variables are dropped when all is in its place.
    unsafe {
        if template.is_null()
            || ffi::Py_REFCNT(object.cast()) != 1
            || !(*object).weakrefs.is_null()
            || (*object).entered != 0
            || !USED.load(Ordering::Relaxed).is_null()
        {
            return;
        }
        let none = (*template).variables;
        ffi::Py_INCREF(none);
        let variables = std::mem::replace(&mut (*object).variables, none);
        USED.store(context.into_ptr(), Ordering::Relaxed);
        ffi::Py_DECREF(variables);
    }
}

/// Finds the current context in the thread state, and its variables in it, by entering one.
pub(crate) fn calibrate(py: Python<'_>) -> PyResult<()> {
    /// How many words of a thread state are looked at: every supported version has more.
    const WORDS: isize = 40;
    let module = py.import("contextvars")?;
    let (probe, empty) = (module.getattr("Context")?.call0()?, module.getattr("Context")?.call0()?);
    let size = probe.get_type().getattr("__basicsize__")?.extract::<usize>()?;
    if size != size_of::<ContextObj>() {
        return Ok(());
    }
    let variable = module.getattr("ContextVar")?.call1(("aioxide",))?;
    let object = probe.as_ptr().cast::<ContextObj>();
    // SAFETY: reads words inside the thread state and inside a context of that size.
    let read = |word: isize| unsafe { *ffi::PyThreadState_Get().cast::<*mut PyObject>().offset(word) };
    // SAFETY: as above.
    let fields =
        || unsafe { ((*object).previous, (*object).variables, (*object).weakrefs, (*object).entered) };
    let before: Vec<_> = (0..WORDS).map(read).collect();
    let outside = fields();
    let (inside, places, copied) = run(&probe, || {
        variable.call_method1("set", (1,))?;
        let places: Vec<_> = (0..WORDS).filter(|word| read(*word) == probe.as_ptr()).collect();
        let copy = copy_current(py)?;
        // SAFETY: as above.
        let copied = unsafe { (*copy.as_ptr().cast::<ContextObj>()).variables };
        Ok((fields(), places, copied))
    })?;
    let after = fields();
    let [place] = places[..] else { return Ok(()) };
    let was = before.get(place.unsigned_abs()).copied();
    let null = ptr::null_mut();
    let versions = (before.get(place.unsigned_abs() + 1).copied(), read(place + 1));
    let known = !outside.1.is_null()
        && outside.1 != inside.1
        && (outside.0, outside.2, outside.3) == (null, null, 0)
        && inside == (was.unwrap_or(null), copied, null, 1)
        && after == (null, inside.1, null, 0)
        && was == Some(read(place));
    if known {
        let empty = empty.into_ptr();
        // SAFETY: a live context of known layout, which is kept for good and has no variables but for a moment (`copy_of`).
        EMPTY.store(unsafe { (*empty.cast::<ContextObj>()).variables }, Ordering::Relaxed);
        TEMPLATE.store(empty, Ordering::Relaxed);
        let offset = place * size_of::<usize>().cast_signed();
        CURRENT.store(offset, Ordering::Relaxed);
        // Entering and leaving have counted one each.
        if versions.0.is_some_and(|version| version.addr() + 2 == versions.1.addr())
            && watchers::calibrate(py)
        {
            DIRECT.store(offset, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Where the thread keeps its context, and the version of it.
#[inline(always)]
#[allow(clippy::inline_always, reason = "a part of each step: see step.rs")]
fn places(here: Here<'_>) -> Option<(*mut *mut ContextObj, *mut u64)> {
    let offset = DIRECT.load(Ordering::Relaxed);
    if offset == 0 || watchers::are_there() {
        return None;
    }
    // SAFETY: `offset` is that of the context in a thread state (calibrated), the version is the next word.
    unsafe {
        let place = here.state().byte_offset(offset).cast::<*mut ContextObj>();
        Some((place, place.add(1).cast()))
    }
}

/// Makes the context the current one; whoever does that must [`exit`] it again.
#[inline(always)]
#[allow(clippy::inline_always, reason = "a part of each step: see step.rs")]
pub(crate) fn enter<'py>(here: Here<'py>, context: &Bound<'py, PyAny>) -> PyResult<()> {
    if !is_context(context) {
        return Err(not_a_context(context));
    }
    let object = context.as_ptr().cast::<ContextObj>();
    // SAFETY: a live Context, whose fields are where calibration found them if there are places. The thread's reference
    // to the context before is lent to `previous`, and the new reference is the thread's.
    unsafe {
        match places(here) {
            Some((place, version)) if (*object).entered == 0 => {
                (*object).previous = (*place).cast();
                (*object).entered = 1;
                ffi::Py_INCREF(object.cast());
                *place = object;
                *version += 1;
                Ok(())
            }
            _ => by_call(context, ffi::PyContext_Enter),
        }
    }
}

/// Leaves the context that was entered last.
#[inline(always)]
#[allow(clippy::inline_always, reason = "a part of each step: see step.rs")]
pub(crate) fn exit<'py>(here: Here<'py>, context: &Bound<'py, PyAny>) -> PyResult<()> {
    let object = context.as_ptr().cast::<ContextObj>();
    // SAFETY: as in `enter`. The thread's reference is dropped last: where it is the last one, whatever runs then finds
    // everything in its place.
    unsafe {
        match places(here) {
            Some((place, version)) if *place == object && (*object).entered != 0 => {
                *place = ptr::replace(&raw mut (*object).previous, ptr::null_mut()).cast();
                (*object).entered = 0;
                *version += 1;
                ffi::Py_DECREF(object.cast());
                Ok(())
            }
            _ => by_call(context, ffi::PyContext_Exit),
        }
    }
}

#[inline(never)]
fn by_call(context: &Bound<'_, PyAny>, call: unsafe extern "C" fn(*mut PyObject) -> c_int) -> PyResult<()> {
    let _kept = context.clone(); // the thread's reference may be the last one, and CPython looks at the context after it
    // SAFETY: a live Context; the GIL is held.
    if unsafe { call(context.as_ptr()) } < 0 { Err(PyErr::fetch(context.py())) } else { Ok(()) }
}

/// `contextvars.copy_context()`.
#[inline]
pub(crate) fn copy_current(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the GIL is held; a new reference or an exception.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }
}

/// Whether the object is a contextvars.Context.
pub(crate) fn is_context(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object.
    unsafe { ffi::PyContext_CheckExact(object.as_ptr()) != 0 }
}

/// Whether somebody is inside the context, and so nobody else can enter it. Of a snapshot, nobody is.
#[inline]
pub(crate) fn is_entered(context: &Bound<'_, PyAny>) -> PyResult<bool> {
    if !is_context(context) {
        return Ok(false);
    }
    if TEMPLATE.load(Ordering::Relaxed).is_null() {
        return refuses(context);
    }
    // SAFETY: a live Context, whose fields are where calibration found them, as there is a template.
    Ok(unsafe { (*context.as_ptr().cast::<ContextObj>()).entered != 0 })
}

#[cold]
fn refuses(context: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = context.py();
    match context.call_method1(intern!(py, "run"), (py.get_type::<PyInt>(),)) {
        Ok(_) => Ok(false),
        Err(error) if error.is_instance_of::<PyRuntimeError>(py) => Ok(true),
        Err(error) => Err(error),
    }
}

/// `context.run(f)`: enters the context, calls `f`, leaves it whatever `f` did.
#[inline(always)]
#[allow(clippy::inline_always, reason = "around each step and callback")]
pub(crate) fn run<'py, R>(context: &Bound<'py, PyAny>, f: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    let here = Here::new(context.py());
    enter(here, context)?;
    let result = f();
    match exit(here, context) {
        Ok(()) => result,
        Err(error) => result.and(Err(error)),
    }
}

/// As [`run`], for what the world outside asks for: in a copy of the context, if a call there waits for the end of an inner
/// run of the loop.
#[inline]
pub(crate) fn run_again<'py, R>(context: &Bound<'py, PyAny>, f: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    if is_entered(context)? {
        return run(&context.call_method0(intern!(context.py(), "copy"))?, f);
    }
    run(context, f)
}

/// Runs `f` one level deeper; RecursionError where Python's limit is reached (tasks that wait on each other in a circle).
pub(crate) fn recursive<R>(py: Python<'_>, f: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    // SAFETY: the GIL is held; every successful entry is left again below.
    if unsafe { ffi::Py_EnterRecursiveCall(c" while cancelling a task".as_ptr()) } != 0 {
        return Err(PyErr::fetch(py));
    }
    let result = f();
    // SAFETY: pairs with the entry above.
    unsafe { ffi::Py_LeaveRecursiveCall() };
    result
}

#[cold]
pub(crate) fn not_a_context(object: &Bound<'_, PyAny>) -> PyErr {
    let shown = object.get_type().name().map_or_else(|_| String::new(), |n| n.to_string());
    pyo3::exceptions::PyTypeError::new_err(format!("a contextvars.Context was expected, got {shown}"))
}
