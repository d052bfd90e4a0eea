//! Running a handle: its callback in its context, and the report of what it raised.
//!
//! A turn calls this, and nobody else but `Handle._run`.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::{Arguments, Handle, Marks, Object, This};
use crate::errors;
use crate::ffi::class::{Inst, create};
use crate::ffi::context;
use crate::ffi::thread::thread_id;
use crate::futures;
use crate::names::names;

/// Runs the callback unless it was cancelled; its exception goes to the loop's exception handler.
#[inline]
pub(crate) fn run(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    if this.is(Marks::CANCELLED) {
        return Ok(());
    }
    let (Some(callback), Some(context)) = (this.callback.get(py), this.context(py)?) else {
        return Ok(());
    };
    let args = this.args.get(py);
    if this.is(Marks::THREADSAFE) {
        this.set_runner(thread_id());
    }
    let result = context::run(&context, || match &args {
        None => callback.call0(),
        Some(arg) if this.is(Marks::SINGLE) => callback.call1((arg,)),
        Some(args) => call(&callback, args),
    });
    if this.is(Marks::THREADSAFE) {
        this.set_runner(0);
        if let Some(finished) = this.rest_of(py, |rest| &rest.finished) {
            finished.call_method0(intern!(py, "set"))?;
        }
    }
    if let Err(error) = result {
        if errors::ends_the_loop(py, &error) {
            this.show();
            return Err(error);
        }
        report(this, error, &callback)?;
    }
    if this.references() == 1 {
        // Nobody but the turn knows the handle.
        drop(this.context.take(py));
        context::give_back(context);
    } else {
        this.show();
    }
    Ok(())
}

fn call<'py>(callback: &Bound<'py, PyAny>, args: &Bound<'py, PyAny>) -> Object<'py> {
    match args.cast::<PyTuple>() {
        Ok(args) => callback.call1(args),
        Err(_) => {
            let args = args.try_iter()?.collect::<PyResult<Vec<_>>>()?;
            callback.call1(PyTuple::new(callback.py(), args)?)
        }
    }
}

#[cold]
fn report(this: This<'_, '_>, error: PyErr, callback: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = this.py();
    let Some(event_loop) = this.event_loop(py) else { return Err(error) }; // there is nobody to report to
    let details = PyDict::new(py);
    let shown = names(py).format_callback(callback, &this.args(py)?, futures::is_debug(&event_loop)?)?;
    details.set_item("message", format!("Exception in callback {shown}"))?;
    details.set_item("exception", error.into_value(py))?;
    details.set_item("handle", this.object())?;
    if let Some(source) = this.rest_of(py, |rest| &rest.source) {
        details.set_item("source_traceback", source)?;
    }
    event_loop.call_method1(intern!(py, "call_exception_handler"), (details,))?;
    Ok(())
}

/// A Handle for a job that had none, to show it in reports: where it was made nobody knows any more.
pub(crate) fn for_report<'py>(
    event_loop: &Bound<'py, PyAny>,
    callback: Bound<'py, PyAny>,
    args: Bound<'py, PyTuple>,
    context: Bound<'py, PyAny>,
) -> Object<'py> {
    let args = Arguments::Many(args.into_any());
    let handle = Handle::new(event_loop, None, callback, args, Some(context))?;
    create(event_loop.py(), handle)
}

/// A Handle that the caller gives to the loop himself; in debug mode it knows where that was.
pub(crate) fn for_job<'py>(
    event_loop: &Bound<'py, PyAny>,
    callback: Bound<'py, PyAny>,
    args: Bound<'py, PyTuple>,
    context: Bound<'py, PyAny>,
) -> Object<'py> {
    let args = Arguments::Many(args.into_any());
    let handle = Handle::new(event_loop, None, callback, args, Some(context))?;
    if futures::is_debug(event_loop)? {
        handle.note_source(event_loop.py())?;
    }
    create(event_loop.py(), handle)
}

/// The context that a job's Handle runs in.
pub(crate) fn context_of<'py>(handle: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    match Inst::<Handle>::cast(handle) {
        Some(handle) => Ok(handle.context.get(handle.py())),
        None => handle.getattr_opt(intern!(handle.py(), "_context")),
    }
}

/// Runs what [`for_job`] made or a job's Handle.
pub(crate) fn run_object(handle: &Bound<'_, PyAny>) -> PyResult<()> {
    match Inst::<Handle>::cast(handle) {
        Some(handle) => run(handle),
        None => handle.call_method0(intern!(handle.py(), "_run")).map(drop),
    }
}
