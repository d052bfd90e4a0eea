//! What a program may hook into the loop: the exception handler and the asynchronous generators' hooks; and the
//! reports that end in the former.
//!
//! turn.rs reports here what a job raised; futures, handles and transports go through `call_exception_handler`.

use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use super::{EventLoop, debug, lifecycle};
use crate::async_fn::{self, attached};
use crate::errors::ends_the_loop;
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::context;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::handled::handling;
use crate::names::{asyncio, names};
use crate::{futures, handles, tasks};

/// The hooks that are set.
#[derive(Debug)]
pub(super) struct Hooks {
    exception_handler: Slot,
    /// A weakref.WeakSet of the generators that are being iterated; made when the first one is.
    asyncgens: Slot,
    asyncgens_shut_down: Flag<bool>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            exception_handler: Slot::empty(),
            asyncgens: Slot::empty(),
            asyncgens_shut_down: Flag::new(false),
        }
    }
}

impl Hooks {
    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.exception_handler.traverse(visit)?;
        self.asyncgens.traverse(visit)
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        drop((self.exception_handler.take(py), self.asyncgens.take(py)));
    }
}

// --- the exception handler ---------------------------------------------------------------------

/// `get_exception_handler()`.
pub(super) fn exception_handler<'py>(this: &Bound<'py, EventLoop>) -> Option<Bound<'py, PyAny>> {
    this.get().hooks.exception_handler.get(this.py())
}

/// `set_exception_handler(handler)`.
pub(super) fn set_exception_handler<'py>(
    this: &Bound<'py, EventLoop>,
    handler: Bound<'py, PyAny>,
) -> PyResult<()> {
    if !handler.is_none() && !handler.is_callable() {
        let text = format!("A callable object or None is expected, got {}", handler.repr()?);
        return Err(PyTypeError::new_err(text));
    }
    let handler = (!handler.is_none()).then_some(handler);
    drop(this.get().hooks.exception_handler.replace(this.py(), handler));
    Ok(())
}

/// `call_exception_handler(context)`: never raises, but for SystemExit and KeyboardInterrupt.
pub(super) fn handle_exception(this: &Bound<'_, EventLoop>, details: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = this.py();
    let Some(handler) = exception_handler(this) else {
        let result = this.call_method1(intern!(py, "default_exception_handler"), (details,));
        return guarded(py, result.map(drop), "Exception in default exception handler");
    };
    match call_in_its_context(this, &handler, details) {
        Ok(()) => Ok(()),
        Err(error) if ends_the_loop(py, &error) => Err(error),
        Err(error) => {
            let report = PyDict::new(py);
            report.set_item("message", "Unhandled error in exception handler")?;
            report.set_item("exception", error.into_value(py))?;
            report.set_item("context", details)?;
            let result = this.call_method1(intern!(py, "default_exception_handler"), (report,));
            let text = "Exception in default exception handler while handling an unexpected error in custom \
                        exception handler";
            guarded(py, result.map(drop), text)
        }
    }
}

/// Logs what a handler raised, as asyncio does in its `except` block.
fn guarded(py: Python<'_>, result: PyResult<()>, text: &str) -> PyResult<()> {
    match result {
        Err(error) if !ends_the_loop(py, &error) => {
            let keywords = PyDict::new(py);
            keywords.set_item("exc_info", true)?;
            let logger = debug::logger(py)?;
            handling(error.into_value(py).bind(py), || {
                logger.call_method(intern!(py, "error"), (text,), Some(&keywords))
            })
            .map(drop)
        }
        result => result,
    }
}

/// Calls the program's handler in the context of the task, future or handle that the report is about.
fn call_in_its_context(
    this: &Bound<'_, EventLoop>,
    handler: &Bound<'_, PyAny>,
    details: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let mut thing = None;
    for key in ["task", "future", "handle"] {
        let found = details.call_method1(intern!(details.py(), "get"), (key,))?;
        if !found.is_none() {
            thing = Some(found);
            break;
        }
    }
    let get_context = match thing {
        Some(thing) => thing.getattr_opt(intern!(thing.py(), "get_context"))?,
        None => None,
    };
    let context = match get_context {
        Some(get_context) => get_context.call0()?,
        None => return handler.call1((this, details)).map(drop),
    };
    match context.getattr_opt(intern!(context.py(), "run"))? {
        Some(run) if !context.is_none() => run.call1((handler, this, details)).map(drop),
        _ => handler.call1((this, details)).map(drop),
    }
}

/// `default_exception_handler(context)`: logs message, exception, and everything else in the context by name.
pub(super) fn default_exception_handler(
    this: &Bound<'_, EventLoop>,
    details: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = this.py();
    let get = |key: &str| details.call_method1(intern!(py, "get"), (key,));
    let mut message = get("message")?;
    if !message.is_truthy()? {
        message = PyString::new(py, "Unhandled exception in event loop").into_any();
    }
    let exception = get("exception")?;
    let info = if exception.is_none() {
        false.into_pyobject(py)?.to_owned().into_any()
    } else {
        (exception.get_type(), &exception, exception.getattr(intern!(py, "__traceback__"))?)
            .into_pyobject(py)?
            .into_any()
    };
    if !details.contains("source_traceback")?
        && let Some(handle) = this.get().debug.current_handle(py)
        && let Some(source) = handle.getattr_opt(intern!(py, "_source_traceback"))?
        && source.is_truthy()?
    {
        details.set_item("handle_traceback", source)?;
    }
    let mut lines = vec![message.str()?.to_string()];
    let keys = PyList::empty(py);
    for key in details.try_iter()? {
        keys.append(key?)?;
    }
    keys.sort()?;
    for key in keys.iter() {
        let name = key.str()?.to_string();
        let value = details.get_item(&key)?;
        let shown = match name.as_str() {
            "message" | "exception" => continue,
            "source_traceback" => {
                format!("Object created at (most recent call last):\n{}", traceback(&value)?)
            }
            "handle_traceback" => {
                format!("Handle created at (most recent call last):\n{}", traceback(&value)?)
            }
            _ => value.repr()?.to_string(),
        };
        lines.push(format!("{name}: {shown}"));
    }
    let keywords = PyDict::new(py);
    keywords.set_item("exc_info", info)?;
    debug::logger(py)?.call_method(intern!(py, "error"), (lines.join("\n"),), Some(&keywords)).map(drop)
}

fn traceback(summary: &Bound<'_, PyAny>) -> PyResult<String> {
    let lines = match summary.getattr_opt(intern!(summary.py(), "format"))? {
        Some(format) => format.call0()?, // asyncio's own, also while the interpreter ends and imports nothing more
        None => summary
            .py()
            .import("traceback")?
            .getattr(intern!(summary.py(), "format_list"))?
            .call1((summary,))?,
    };
    let text: Vec<String> = lines.extract()?;
    Ok(text.concat().trim_end().to_owned())
}

// --- reports -----------------------------------------------------------------------------------

/// Calls the loop's `call_exception_handler`, which a program may have replaced.
pub(crate) fn call_exception_handler(
    event_loop: &Bound<'_, PyAny>,
    details: &Bound<'_, PyDict>,
) -> PyResult<()> {
    event_loop.call_method1(intern!(event_loop.py(), "call_exception_handler"), (details,)).map(drop)
}

/// Reports an error with a message and the objects that it concerns.
pub(crate) fn report(
    event_loop: &Bound<'_, PyAny>,
    message: &str,
    error: PyErr,
    objects: &[(&str, &Bound<'_, PyAny>)],
) -> PyResult<()> {
    let py = event_loop.py();
    let details = PyDict::new(py);
    details.set_item(intern!(py, "message"), message)?;
    details.set_item(intern!(py, "exception"), error.into_value(py))?;
    for (name, object) in objects {
        details.set_item(*name, object)?;
    }
    call_exception_handler(event_loop, &details)
}

/// Runs the done-callback of a future. A Handle is only made to report what it raised.
#[inline]
pub(super) fn run_callback<'py>(
    this: &Bound<'py, EventLoop>,
    callback: &Bound<'py, PyAny>,
    future: &Bound<'py, PyAny>,
    context: &Bound<'py, PyAny>,
) -> PyResult<()> {
    match context::run(context, || callback.call1((future,))) {
        Ok(_) => Ok(()),
        Err(error) if ends_the_loop(this.py(), &error) => Err(error),
        Err(error) => report_callback(this, callback, &PyTuple::new(this.py(), [future])?, context, error),
    }
}

/// Reports an error of a task's machinery (the coroutine's own errors end in the task).
#[cold]
pub(super) fn report_step(
    this: &Bound<'_, EventLoop>,
    task: &Bound<'_, PyAny>,
    error: PyErr,
) -> PyResult<()> {
    let py = this.py();
    if ends_the_loop(py, &error) {
        return Err(error);
    }
    let context = task.call_method0(intern!(py, "get_context"))?;
    let step = tasks::step_callback(task, None)?;
    report_callback(this, &step, &PyTuple::empty(py), &context, error)
}

/// Reports what a callback raised, with the Handle that it would have had.
#[cold]
pub(crate) fn report_callback<'py>(
    event_loop: &Bound<'py, PyAny>,
    callback: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    context: &Bound<'py, PyAny>,
    error: PyErr,
) -> PyResult<()> {
    let handle = handles::for_report(event_loop, callback.clone(), args.clone(), context.clone())?;
    let shown =
        names(event_loop.py()).format_callback(callback, args.as_any(), futures::is_debug(event_loop)?)?;
    report(event_loop, &format!("Exception in callback {shown}"), error, &[("handle", &handle)])
}

/// Reports what nobody below has: an error of input, output or the handler itself.
#[cold]
pub(crate) fn report_stray(this: &Bound<'_, EventLoop>, error: PyErr) -> PyResult<()> {
    let py = this.py();
    report(this.as_any(), "Exception in the event loop", error, &[]).or_else(|error| {
        if ends_the_loop(py, &error) {
            return Err(error);
        }
        error.write_unraisable(py, Some(this.as_any()));
        Ok(())
    })
}

// --- asynchronous generators -------------------------------------------------------------------

/// `_asyncgens`: the set of generators that are being iterated.
pub(super) fn asyncgens<'py>(this: &Bound<'py, EventLoop>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let slot = &this.get().hooks.asyncgens;
    if let Some(set) = slot.get(py) {
        return Ok(set);
    }
    let set = py.import("weakref")?.getattr(intern!(py, "WeakSet"))?.call0()?;
    slot.set(py, set.clone());
    Ok(set)
}

/// Called by Python when a generator is iterated for the first time.
pub(super) fn first_iteration(this: &Bound<'_, EventLoop>, agen: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = this.py();
    if this.get().hooks.asyncgens_shut_down.get() {
        let text = format!(
            "asynchronous generator {} was scheduled after loop.shutdown_asyncgens() call",
            agen.repr()?
        );
        lifecycle::warn_of_resource(this, &text)?;
    }
    asyncgens(this)?.call_method1(intern!(py, "add"), (agen,)).map(drop)
}

/// Called by Python when a generator goes away unfinished, in whichever thread that happens.
pub(super) fn finalize(this: &Bound<'_, EventLoop>, agen: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = this.py();
    asyncgens(this)?.call_method1(intern!(py, "discard"), (agen,))?;
    if !EventLoop::core(this).is_closed() {
        let create_task = this.getattr(intern!(py, "create_task"))?;
        let closing = agen.call_method0(intern!(py, "aclose"))?;
        this.call_method1(intern!(py, "call_soon_threadsafe"), (create_task, closing))?;
    }
    Ok(())
}

/// `shutdown_asyncgens()`: closes every generator that is still being iterated.
pub(super) fn shutdown_asyncgens<'py>(this: &Bound<'py, EventLoop>) -> PyResult<Bound<'py, PyAny>> {
    let event_loop = this.clone().unbind();
    async_fn::coroutine(this.py(), "BaseEventLoop.shutdown_asyncgens", close_asyncgens(event_loop))
}

async fn close_asyncgens(event_loop: Py<EventLoop>) -> PyResult<Py<PyAny>> {
    let started = attached(|py| -> PyResult<_> {
        let this = event_loop.bind(py);
        this.get().hooks.asyncgens_shut_down.set(true);
        let Some(set) = this.get().hooks.asyncgens.get(py).filter(|s| s.len().is_ok_and(|n| n > 0)) else {
            return Ok(None);
        };
        let closing: Vec<Py<PyAny>> =
            set.try_iter()?.map(|g| g.map(Bound::unbind)).collect::<PyResult<_>>()?;
        set.call_method0(intern!(py, "clear"))?;
        let ends: Vec<Bound<'_, PyAny>> = closing
            .iter()
            .map(|g| g.bind(py).call_method0(intern!(py, "aclose")))
            .collect::<PyResult<_>>()?;
        let keywords = PyDict::new(py);
        keywords.set_item("return_exceptions", true)?;
        let gather = asyncio(py).tasks.bind(py).getattr(intern!(py, "gather"))?;
        let all = gather.call(PyTuple::new(py, ends)?, Some(&keywords))?;
        Ok(Some((closing, all.unbind())))
    })?;
    let Some((closing, all)) = started else { return async_fn::none() };
    let results = async_fn::wait(all).await?;
    attached(|py| {
        let this = event_loop.bind(py);
        for (result, agen) in results.bind(py).try_iter()?.zip(&closing) {
            let result = result?;
            if result.is_instance_of::<PyException>() {
                let agen = agen.bind(py);
                let message =
                    format!("an error occurred during closing of asynchronous generator {}", agen.repr()?);
                report(this.as_any(), &message, PyErr::from_value(result), &[("asyncgen", agen)])?;
            }
        }
        Ok(py.None())
    })
}
