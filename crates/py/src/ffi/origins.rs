//! Where native coroutines were made: `cr_origin`, for the warning about one that was never awaited.
//!
//! debug.rs turns this on for as long as a loop in debug mode runs; class.rs then notes each coroutine that it makes
//! and forgets it with its memory. While it is off, that costs a look at a flag each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::ffi::PyObject;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::cell::GilCell;

/// How many loops want it.
static WANTED: AtomicUsize = AtomicUsize::new(0);
/// How many origins there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static ORIGINS: GilCell<Option<HashMap<usize, Py<PyAny>>>> = GilCell::new(None);

/// A loop in debug mode starts or stops to run.
pub(crate) fn want(on: bool) {
    if on {
        WANTED.fetch_add(1, Ordering::Relaxed);
    } else {
        WANTED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A coroutine has been made.
#[inline]
pub(super) fn made(coroutine: &Bound<'_, PyAny>) {
    if WANTED.load(Ordering::Relaxed) > 0 {
        note(coroutine);
    }
}

/// A coroutine's memory goes.
#[inline]
pub(super) fn gone(py: Python<'_>, coroutine: *mut PyObject) {
    if COUNT.load(Ordering::Relaxed) > 0 {
        forget(py, coroutine);
    }
}

#[cold]
fn note(coroutine: &Bound<'_, PyAny>) {
    let py = coroutine.py();
    // As the interpreter does: without an origin if there is none to be had.
    let Ok(Some(origin)) = here(py) else { return };
    let address = coroutine.as_ptr().addr();
    let stale = ORIGINS.with(py, |origins| {
        let origins = origins.get_or_insert_default();
        let stale = origins.insert(address, origin.unbind());
        COUNT.store(origins.len(), Ordering::Relaxed);
        stale
    });
    drop(stale);
}

#[cold]
fn forget(py: Python<'_>, coroutine: *mut PyObject) {
    let origin = ORIGINS.with(py, |origins| {
        let origins = origins.as_mut()?;
        let origin = origins.remove(&coroutine.addr());
        COUNT.store(origins.len(), Ordering::Relaxed);
        origin
    });
    drop(origin.map(|origin| origin.into_bound(py)));
}

/// The frames that run in this thread, innermost first, as many as `sys.set_coroutine_origin_tracking_depth` asks for.
fn here(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let sys = py.import(intern!(py, "sys"))?;
    let depth: usize = sys.call_method0(intern!(py, "get_coroutine_origin_tracking_depth"))?.extract()?;
    if depth == 0 {
        return Ok(None); // another thread's loop wants it
    }
    let mut places = Vec::new();
    let mut next = sys.call_method0(intern!(py, "_getframe")).ok();
    while let Some(frame) = next.filter(|frame| !frame.is_none() && places.len() < depth) {
        let code = frame.getattr(intern!(py, "f_code"))?;
        places.push((
            code.getattr(intern!(py, "co_filename"))?,
            frame.getattr(intern!(py, "f_lineno"))?,
            code.getattr(intern!(py, "co_name"))?,
        ));
        next = Some(frame.getattr(intern!(py, "f_back"))?);
    }
    Ok(Some(PyTuple::new(py, places)?.into_any()))
}

/// `cr_origin`: where a native coroutine was made; None unless that was noted.
pub(crate) fn of<'py>(coroutine: &Bound<'py, PyAny>) -> Bound<'py, PyAny> {
    let (py, address) = (coroutine.py(), coroutine.as_ptr().addr());
    ORIGINS
        .with(py, |origins| origins.as_ref()?.get(&address).map(|origin| origin.clone_ref(py)))
        .map_or_else(|| py.None().into_bound(py), |origin| origin.into_bound(py))
}
