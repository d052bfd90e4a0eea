//! `asyncio.Future`: result, exception, cancellation, callbacks.
//!
//! Completion is one path: [`complete`] turns every callback into a job of the future's loop. A waiter is either a
//! Python callable with its context, or a native task or hook, kept in the same place without a context.

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFrozenSet, PyInt, PyList, PyString, PyTuple, PyType};
use pyo3::{Borrowed, PyTypeInfo, intern};

use crate::ffi::args::{Args, Signature};
use crate::ffi::attach::attached;
use crate::ffi::class::Builder;
use crate::ffi::iter::raised;
use crate::ffi::layout::{Fut, State, Tsk};
use crate::ffi::method::{AnyFuture, anyargs, getter, noargs, onearg};
use crate::ffi::{context, thread, types};
use crate::job::{self, Job};
use crate::local::LoopCore;
use crate::names::boolean;
use crate::names::none;
use crate::names::{invalid_state, names};
use crate::{gather, handles, tasks, version};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

// --- making ------------------------------------------------------------------------------------

/// A pending future of a loop: `loop.create_future()`.
#[inline]
pub(crate) fn new<'py>(event_loop: &Bound<'py, PyAny>) -> Object<'py> {
    make(event_loop, LoopCore::of(event_loop))
}

/// As [`new`], for those who know the loop's native part.
#[inline]
pub(crate) fn make<'py>(event_loop: &Bound<'py, PyAny>, core: Option<&LoopCore>) -> Object<'py> {
    let object = types::alloc_future(event_loop.py())?;
    if let Some(future) = Fut::cast_exact(&object) {
        drop(future.set_event_loop(Some(event_loop.clone())));
        if core.is_none_or(LoopCore::is_debug) {
            note_source(future, event_loop)?;
        }
    }
    Ok(object)
}

/// `Future(*, loop=None)`.
pub(crate) fn init(this: Fut<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "Future",
        positional: &[],
        required: 0,
        positional_only: 0,
        keyword_only: &["loop"],
    };
    let [event_loop] = SIGNATURE.bind::<1>(args)?;
    init_with(this, event_loop)
}

/// What `Future.__init__` and `Task.__init__` share.
pub(crate) fn init_with<'py>(
    this: Fut<'_, 'py>,
    event_loop: Option<Borrowed<'_, 'py, PyAny>>,
) -> PyResult<()> {
    if this.is_initialized() {
        if version::INIT_ONCE {
            let class = this.object().get_type().name()?;
            return Err(PyRuntimeError::new_err(format!("{class} object is already initialized")));
        }
        reset(this);
    }
    let event_loop = match event_loop.filter(|l| !l.is_none()) {
        Some(event_loop) => event_loop.to_owned(),
        None => current_event_loop(this.py())?,
    };
    this.set_state(State::Pending);
    this.set_log_tb(false);
    this.set_blocking(false);
    drop(this.set_event_loop(Some(event_loop.clone())));
    note_source(this, &event_loop)
}

/// Blank again, for a second `__init__`.
fn reset(this: Fut<'_, '_>) {
    this.set_state(State::Pending);
    drop((this.take_callback0(), this.take_context0(), this.take_callbacks()));
    drop((this.take_result(), this.take_exception(), this.take_exception_tb(), this.take_source_tb()));
    drop((this.take_cancel_msg(), this.take_cancelled_exc(), this.take_event_loop()));
}

/// The running loop, or the policy's.
pub(crate) fn current_event_loop(py: Python<'_>) -> Object<'_> {
    if let Some(running) = thread::running_loop(py)? {
        return Ok(running);
    }
    names(py).get_event_loop_policy.bind(py).call0()?.call_method0(intern!(py, "get_event_loop"))
}

/// In debug mode: remembers where the future was made.
fn note_source(this: Fut<'_, '_>, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    if is_debug(event_loop)? {
        drop(this.set_source_tb(Some(names(this.py()).extract_stack.bind(this.py()).call0()?)));
    }
    Ok(())
}

/// `loop.get_debug()`, of any loop.
pub(crate) fn is_debug(event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
    match LoopCore::of(event_loop) {
        Some(core) => Ok(core.is_debug()),
        None => event_loop.call_method0(intern!(event_loop.py(), "get_debug"))?.is_truthy(),
    }
}

pub(crate) fn check_initialized(this: Fut<'_, '_>) -> PyResult<()> {
    if this.is_initialized() {
        Ok(())
    } else {
        Err(PyRuntimeError::new_err("Future object is not initialized."))
    }
}

// --- completion --------------------------------------------------------------------------------

/// Schedules every waiter of a future that has just become done.
pub(crate) fn complete(this: Fut<'_, '_>) -> PyResult<()> {
    let first = this.take_callback0();
    let context = this.take_context0();
    let rest = this.take_callbacks();
    if first.is_none() && rest.is_none() {
        return Ok(());
    }
    if let Some(waiter) = first {
        notify(this, waiter, context)?;
    }
    if let Some(rest) = rest {
        for pair in rest.cast::<PyList>()?.iter() {
            let pair = pair.cast_into::<PyTuple>()?;
            let context = pair.get_item(1)?;
            notify(this, pair.get_item(0)?, (!context.is_none()).then_some(context))?;
        }
    }
    Ok(())
}

/// Schedules one waiter: a native one has no context here.
#[inline]
fn notify<'py>(
    this: Fut<'_, 'py>,
    waiter: Bound<'py, PyAny>,
    context: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let future = this.object().to_owned().unbind();
    let job = match context {
        Some(context)
            if this.loop_core().is_some_and(|core| core.is_debug() && !core.overrides_call_soon()) =>
        {
            let event_loop = this.event_loop().unwrap_or_else(|| none(this.py()));
            let args = PyTuple::new(this.py(), [this.object()])?;
            Job::Handle(handles::for_job(&event_loop, waiter, args, context)?.unbind())
        }
        Some(context) => Job::Callback { callback: waiter.unbind(), future, context: context.unbind() },
        None if Tsk::cast(&waiter).is_some() => Job::Wake { task: waiter.unbind(), future },
        None => Job::Hook { hook: waiter.unbind(), future },
    };
    job::soon_for(this, job)
}

/// Adds a native waiter, a task or a hook, to a pending future.
#[inline]
pub(crate) fn add_waiter<'py>(this: Fut<'_, 'py>, waiter: Bound<'py, PyAny>) -> PyResult<()> {
    store(this, waiter, None)
}

fn store<'py>(
    this: Fut<'_, 'py>,
    waiter: Bound<'py, PyAny>,
    context: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    if !this.has_callbacks() {
        drop(this.set_callback0(Some(waiter)));
        drop(this.set_context0(context));
        return Ok(());
    }
    let py = this.py();
    let pair = (waiter, context).into_pyobject(py)?;
    match this.callbacks() {
        Some(list) => list.cast::<PyList>()?.append(pair),
        None => {
            drop(this.set_callbacks(Some(PyList::new(py, [pair])?.into_any())));
            Ok(())
        }
    }
}

/// Takes a native waiter out again.
pub(crate) fn remove_waiter(this: Fut<'_, '_>, waiter: &Bound<'_, PyAny>) -> PyResult<()> {
    if this.context0().is_none() && this.callback0().is_some_and(|c| c.is(waiter)) {
        drop(this.take_callback0());
        return Ok(());
    }
    if let Some(list) = this.callbacks() {
        let list = list.cast_into::<PyList>()?;
        for (i, pair) in list.iter().enumerate() {
            let pair = pair.cast_into::<PyTuple>()?;
            if pair.get_item(0)?.is(waiter) && pair.get_item(1)?.is_none() {
                return list.del_item(i);
            }
        }
    }
    Ok(())
}

/// Sets the result of a pending future (InvalidStateError otherwise).
#[inline]
pub(crate) fn set_result<'py>(this: Fut<'_, 'py>, result: Bound<'py, PyAny>) -> PyResult<()> {
    check_initialized(this)?;
    if !this.is_pending() {
        return Err(invalid_state(this.py(), "invalid state"));
    }
    drop(this.set_result(Some(result)));
    this.set_state(State::Finished);
    complete(this)
}

/// Sets the exception of a pending future (InvalidStateError otherwise).
pub(crate) fn set_exception<'py>(this: Fut<'_, 'py>, error: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    check_initialized(this)?;
    let check_pending = || if this.is_pending() { Ok(()) } else { Err(invalid_state(py, "invalid state")) };
    check_pending()?;
    let base = pyo3::exceptions::PyBaseException::type_object(py);
    let mut error = match error.cast::<PyType>() {
        Ok(class) if class.is_subclass(&base)? => class.call0()?,
        _ => error.clone(),
    };
    check_pending()?;
    if !error.is_instance(&base)? {
        return Err(PyTypeError::new_err("invalid exception object"));
    }
    if error.is_instance_of::<PyStopIteration>() {
        let text = "StopIteration interacts badly with generators and cannot be raised into a Future";
        let wrapped = py.get_type::<PyRuntimeError>().call1((text,))?;
        wrapped.setattr(intern!(py, "__cause__"), &error)?;
        wrapped.setattr(intern!(py, "__context__"), &error)?;
        error = wrapped;
    }
    drop(this.set_exception_tb(traceback_of(&error)?));
    drop(this.set_exception(Some(error)));
    this.set_state(State::Finished);
    complete(this)?;
    this.set_log_tb(true);
    Ok(())
}

fn traceback_of<'py>(error: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let traceback = error.getattr(intern!(error.py(), "__traceback__"))?;
    Ok((!traceback.is_none()).then_some(traceback))
}

/// Cancels a pending future; false if it is done.
pub(crate) fn cancel<'py>(this: Fut<'_, 'py>, message: Option<Bound<'py, PyAny>>) -> PyResult<bool> {
    check_initialized(this)?;
    this.set_log_tb(false);
    if !this.is_pending() {
        return Ok(false);
    }
    if let Some(gathering) = this.gathered() {
        return gather::cancel(gathering, this.py(), message);
    }
    this.set_state(State::Cancelled);
    drop(this.set_cancel_msg(message));
    complete(this)?;
    Ok(true)
}

/// The CancelledError of a cancelled future: the one it was cancelled with, or a new one with its message.
pub(crate) fn cancelled_error<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    let py = this.py();
    if let Some(error) = this.take_cancelled_exc() {
        return Ok(error);
    }
    let class = names(py).cancelled_error.bind(py);
    match this.cancel_msg().filter(|m| !m.is_none()) {
        Some(message) => class.call1((message,)),
        None => class.call0(),
    }
}

/// The result of a done future, or the exception it holds.
#[inline]
pub(crate) fn result<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    let py = this.py();
    match this.state() {
        State::Finished if this.is_initialized() => {
            this.set_log_tb(false);
            if let Some(error) = this.exception() {
                return Err(raised(raisable(this, error).value(py).as_any()));
            }
            Ok(this.result().unwrap_or_else(|| none(py)))
        }
        State::Cancelled => Err(raised(&cancelled_error(this)?)),
        _ if !this.is_initialized() => Err(invalid_state(py, "Future object is not initialized.")),
        _ => Err(invalid_state(py, "Result is not set.")),
    }
}

/// The exception as it was when it was set, without the frames that raising it elsewhere has added.
fn raisable<'py>(this: Fut<'_, 'py>, error: Bound<'py, PyAny>) -> PyErr {
    if let Err(unsettable) = error.setattr(intern!(this.py(), "__traceback__"), this.take_exception_tb()) {
        return unsettable;
    }
    PyErr::from_value(error)
}

/// How a done future ended, for the task that waited for it: nothing, or the exception to throw.
#[inline]
pub(crate) fn failure<'py>(this: Fut<'_, 'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    match this.state() {
        State::Finished => {
            this.set_log_tb(false);
            match this.exception() {
                None => Ok(None),
                Some(error) => {
                    Ok(Some(raisable(this, error).into_value(this.py()).into_bound(this.py()).into_any()))
                }
            }
        }
        State::Cancelled => cancelled_error(this).map(Some),
        State::Pending => Err(invalid_state(this.py(), "Result is not set.")),
    }
}

// --- methods -----------------------------------------------------------------------------------

fn method_exception<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    let py = this.py();
    match this.state() {
        _ if !this.is_initialized() => Err(invalid_state(py, "Future object is not initialized.")),
        State::Cancelled => Err(raised(&cancelled_error(this)?)),
        State::Pending => Err(invalid_state(py, "Exception is not set.")),
        State::Finished => {
            let error = this.exception();
            if error.is_some() {
                this.set_log_tb(false);
            }
            Ok(error.unwrap_or_else(|| none(py)))
        }
    }
}

fn method_set_result<'py>(this: Fut<'_, 'py>, result: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    set_result(this, result.to_owned())?;
    Ok(none(this.py()))
}

fn method_set_exception<'py>(this: Fut<'_, 'py>, error: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    set_exception(this, &error)?;
    Ok(none(this.py()))
}

fn method_add_done_callback<'py>(this: Fut<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "add_done_callback",
        positional: &["fn"],
        required: 1,
        positional_only: 1,
        keyword_only: &["context"],
    };
    let [callback, context] = SIGNATURE.bind::<2>(args)?;
    let py = this.py();
    if !this.is_initialized() {
        return Err(PyRuntimeError::new_err("uninitialized Future object"));
    }
    let callback = callback.map_or_else(|| none(py), |c| c.to_owned());
    let context = match context {
        Some(context) => context.to_owned(),
        None => context::copy_current(py)?,
    };
    if this.is_pending() {
        store(this, callback, Some(context))?;
    } else {
        notify(this, callback, Some(context))?;
    }
    Ok(none(py))
}

fn method_remove_done_callback<'py>(this: Fut<'_, 'py>, callback: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    check_initialized(this)?;
    let py = this.py();
    let mut removed = 0_usize;
    if this.context0().is_some()
        && let Some(first) = this.callback0()
        && first.eq(callback)?
    {
        drop(this.take_callback0());
        drop(this.take_context0());
        removed += 1;
    }
    // Comparing runs Python code, which may change the list: look at what is there each time.
    let kept = PyList::empty(py);
    let mut index = 0;
    while let Some(list) = this.callbacks() {
        let list = list.cast_into::<PyList>()?;
        let Ok(pair) = list.get_item(index) else { break };
        let tuple = pair.cast::<PyTuple>()?;
        if !tuple.get_item(1)?.is_none() && tuple.get_item(0)?.eq(callback)? {
            removed += 1;
        } else {
            kept.append(&pair)?;
        }
        index += 1;
    }
    if this.callbacks().is_some() {
        drop(this.set_callbacks((!kept.is_empty()).then(|| kept.into_any())));
    }
    Ok(PyInt::new(py, removed).into_any())
}

fn method_cancel<'py>(this: Fut<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    let message = cancel_message(args)?;
    cancel(this, message).map(|done| boolean(this.py(), done))
}

/// The argument of `cancel(msg=None)`.
pub(crate) fn cancel_message<'py>(args: Args<'_, 'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    const SIGNATURE: Signature = Signature {
        name: "cancel",
        positional: &["msg"],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let [message] = SIGNATURE.bind::<1>(args)?;
    Ok(message.filter(|m| !m.is_none()).map(|m| m.to_owned()))
}

fn method_cancelled<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.is_initialized() && this.state() == State::Cancelled))
}

fn method_done<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.is_initialized() && !this.is_pending()))
}

fn method_get_loop<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    check_initialized(this)?;
    Ok(this.event_loop().unwrap_or_else(|| none(this.py())))
}

fn get_blocking<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.is_initialized() && this.blocking()))
}

fn set_blocking<'py>(this: Fut<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    check_initialized(this)?;
    this.set_blocking(value.is_truthy()?);
    Ok(())
}

fn get_log_traceback<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    check_initialized(this)?;
    Ok(boolean(this.py(), this.log_tb()))
}

fn set_log_traceback<'py>(this: Fut<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    if value.is_truthy()? {
        return Err(PyValueError::new_err("_log_traceback can only be set to False"));
    }
    this.set_log_tb(false);
    Ok(())
}

fn get_loop<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    Ok(this.event_loop().unwrap_or_else(|| none(this.py())))
}

/// `_callbacks`: None or a list of (callback, context); native waiters show as what a foreign future would hold.
fn get_callbacks<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    check_initialized(this)?;
    let py = this.py();
    let shown = PyList::empty(py);
    let show = |waiter: Bound<'py, PyAny>, context: Option<Bound<'py, PyAny>>| -> PyResult<()> {
        match (context, Tsk::cast(&waiter)) {
            (None, Some(task)) => shown.append((tasks::wakeup_callback(&waiter)?, task.context())),
            (context, _) => shown.append((waiter, context)),
        }
    };
    if let Some(first) = this.callback0() {
        show(first, this.context0())?;
    }
    if let Some(rest) = this.callbacks() {
        for pair in rest.cast::<PyList>()?.iter() {
            let context = pair.get_item(1)?;
            show(pair.get_item(0)?, (!context.is_none()).then_some(context))?;
        }
    }
    Ok(if shown.is_empty() { none(py) } else { shown.into_any() })
}

fn get_result<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    check_initialized(this)?;
    Ok(this.result().unwrap_or_else(|| none(this.py())))
}

fn get_exception<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    check_initialized(this)?;
    Ok(this.exception().unwrap_or_else(|| none(this.py())))
}

fn get_source_traceback<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    Ok(this.source_tb().unwrap_or_else(|| none(this.py())))
}

fn get_cancel_message<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    Ok(this.cancel_msg().unwrap_or_else(|| none(this.py())))
}

fn set_cancel_message<'py>(this: Fut<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    drop(this.set_cancel_msg(Some(value.to_owned())));
    Ok(())
}

fn get_state<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    check_initialized(this)?;
    let text = match this.state() {
        State::Pending => "PENDING",
        State::Cancelled => "CANCELLED",
        State::Finished => "FINISHED",
    };
    Ok(PyString::intern(this.py(), text).into_any())
}

/// `_asyncio_awaited_by`: None or a frozenset of the tasks that wait for this future (3.14 and later keep them).
fn get_awaited_by<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    let py = this.py();
    if let Some(waiters) = this.awaited_by() {
        if this.awaited_by_is_set() {
            return py.get_type::<PyFrozenSet>().call1((waiters,));
        }
        return Ok(PyFrozenSet::new(py, [waiters])?.into_any());
    }
    Ok(none(py))
}

fn method_make_cancelled_error<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    cancelled_error(this)
}

pub(crate) fn repr<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    check_initialized(this)?;
    names(this.py()).future_repr.bind(this.py()).call1((this.object(),))
}

/// Methods and attributes that Future and Task share.
pub(crate) fn shared_methods(builder: Builder) -> Builder {
    builder
        .method(
            noargs::<AnyFuture, _>(c"result", result)
                .doc(c"result($self, /)\n--\n\nReturn the result, or raise the exception; CancelledError if cancelled, InvalidStateError if not done."),
        )
        .method(
            noargs::<AnyFuture, _>(c"exception", method_exception)
                .doc(c"exception($self, /)\n--\n\nReturn the exception or None; CancelledError if cancelled, InvalidStateError if not done."),
        )
        .method(
            anyargs::<AnyFuture, _>(c"add_done_callback", method_add_done_callback)
                .doc(c"add_done_callback($self, fn, /, *, context=None)\n--\n\nCall fn(future) with call_soon once the future is done, in the given or the current context."),
        )
        .method(
            onearg::<AnyFuture, _>(c"remove_done_callback", method_remove_done_callback)
                .doc(c"remove_done_callback($self, fn, /)\n--\n\nRemove every instance of a callback; return how many there were (int)."),
        )
        .method(
            noargs::<AnyFuture, _>(c"cancelled", method_cancelled)
                .doc(c"cancelled($self, /)\n--\n\nReturn True if the future was cancelled."),
        )
        .method(
            noargs::<AnyFuture, _>(c"done", method_done)
                .doc(c"done($self, /)\n--\n\nReturn True if the future has a result or an exception, or was cancelled."),
        )
        .method(
            noargs::<AnyFuture, _>(c"get_loop", method_get_loop)
                .doc(c"get_loop($self, /)\n--\n\nReturn the event loop the future belongs to."),
        )
        .method(noargs::<AnyFuture, _>(c"_make_cancelled_error", method_make_cancelled_error))
        .attribute(
            getter::<AnyFuture, _>(c"_asyncio_future_blocking", get_blocking).setter::<AnyFuture, _>(set_blocking),
        )
        .attribute(
            getter::<AnyFuture, _>(c"_log_traceback", get_log_traceback).setter::<AnyFuture, _>(set_log_traceback),
        )
        .attribute(
            getter::<AnyFuture, _>(c"_cancel_message", get_cancel_message).setter::<AnyFuture, _>(set_cancel_message),
        )
        .attribute(getter::<AnyFuture, _>(c"_loop", get_loop))
        .attribute(getter::<AnyFuture, _>(c"_callbacks", get_callbacks))
        .attribute(getter::<AnyFuture, _>(c"_result", get_result))
        .attribute(getter::<AnyFuture, _>(c"_exception", get_exception))
        .attribute(getter::<AnyFuture, _>(c"_source_traceback", get_source_traceback))
        .attribute(getter::<AnyFuture, _>(c"_state", get_state))
        .attribute(getter::<AnyFuture, _>(c"_asyncio_awaited_by", get_awaited_by))
}

/// Everything that Future has.
pub(crate) fn methods(builder: Builder) -> Builder {
    shared_methods(builder)
        .method(
            onearg::<AnyFuture, _>(c"set_result", method_set_result)
                .doc(c"set_result($self, result, /)\n--\n\nMark the future done with a result; InvalidStateError if it is done."),
        )
        .method(
            onearg::<AnyFuture, _>(c"set_exception", method_set_exception)
                .doc(c"set_exception($self, exception, /)\n--\n\nMark the future done with an exception; InvalidStateError if it is done."),
        )
        .method(
            anyargs::<AnyFuture, _>(c"cancel", method_cancel)
                .doc(c"cancel($self, /, msg=None)\n--\n\nCancel the future and schedule its callbacks; return False if it is done."),
        )
}

/// Reports an exception that nobody asked for.
pub(crate) fn finalize(this: Fut<'_, '_>) {
    let py = this.py();
    if !this.log_tb() {
        return;
    }
    this.set_log_tb(false);
    let report = || -> PyResult<()> {
        let context = PyDict::new(py);
        let class = this.object().get_type().name()?;
        context.set_item(intern!(py, "message"), format!("{class} exception was never retrieved"))?;
        context.set_item(intern!(py, "exception"), this.exception())?;
        context.set_item(intern!(py, "future"), this.object())?;
        call_exception_handler(this, &context)
    };
    without_current_error(py, report);
}

/// Runs a report from a finalizer: the error under way is kept, one of its own is shown as unraisable.
pub(crate) fn without_current_error(py: Python<'_>, report: impl FnOnce() -> PyResult<()>) {
    let current = PyErr::take(py);
    // PyO3 is to know, for it needs the interpreter when it makes an exception of an error.
    attached(|py| {
        if let Err(error) = report() {
            error.write_unraisable(py, None);
        }
    });
    if let Some(error) = current {
        error.restore(py);
    }
}

/// `loop.call_exception_handler(context)`, with where the future was made.
pub(crate) fn call_exception_handler<'py>(this: Fut<'_, 'py>, context: &Bound<'py, PyDict>) -> PyResult<()> {
    let py = this.py();
    if let Some(source) = this.source_tb() {
        context.set_item(intern!(py, "source_traceback"), source)?;
    }
    if let Some(event_loop) = this.event_loop() {
        let handler = event_loop.getattr(intern!(py, "call_exception_handler"))?;
        if let Err(error) = handler.call1((context,)) {
            error.write_unraisable(py, Some(&handler));
        }
    }
    Ok(())
}
