//! One step of a task: resume the coroutine, then wait for what it yields. Called by the turn, by eager starts, and by
//! the callables that foreign loops and futures hold.

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySet, PyString};

use crate::ffi::iter::{self, Sent, Step};
use crate::ffi::layout::{Fut, Tsk};
use crate::ffi::thread::Here;
use crate::ffi::{context, thread, types};
use crate::futures;
use crate::job::{self, Job};
use crate::names::{invalid_state, names};
use crate::{tasks, version};

/// What a step leaves to do for whoever runs it. The error, if there is one, is kept beside it: a word here is passed
/// up in a register, through everything that a step goes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "whoever steps a task gives it its next turn"]
pub(crate) enum Next {
    /// The task goes on in the next turn, without waiting for anything.
    Turn,
    Nothing,
}

/// The error of a step that could not be made or not be ended; the coroutine's own errors end in the task.
pub(crate) type Failure = Option<PyErr>;

/// Runs one step as the thread's current task; the context is entered by the caller.
#[inline(always)]
#[allow(clippy::inline_always, reason = "one frame, and not five, between the turn and the coroutine")]
pub(crate) fn step<'py>(
    here: Here<'py>,
    this: Tsk<'_, 'py>,
    error: Option<Bound<'py, PyAny>>,
    failure: &mut Failure,
) -> Next {
    let entered = match thread::enter_task(here, this) {
        Ok(entered) => entered,
        Err(error) => return failed(failure, error),
    };
    let next = advance(this, error, failure);
    match thread::leave_task(this, entered) {
        Ok(()) => next,
        Err(error) => failed(failure, error),
    }
}

/// Notes an error, unless there is one already.
#[cold]
pub(crate) fn failed(failure: &mut Failure, error: PyErr) -> Next {
    failure.get_or_insert(error);
    Next::Nothing
}

/// As the callers of [`step`] do that know nothing of the loop.
pub(crate) fn go_on(this: Tsk<'_, '_>, next: Next, failure: Failure) -> PyResult<()> {
    match (failure, next) {
        (Some(error), _) => Err(error),
        (None, Next::Turn) => soon(this, Job::Step(this.object().to_owned().unbind())),
        (None, Next::Nothing) => Ok(()),
    }
}

/// What the task waited for is done: passes its failure on, or goes on.
#[inline]
pub(crate) fn wake<'py>(
    here: Here<'py>,
    this: Tsk<'_, 'py>,
    future: &Bound<'py, PyAny>,
    failure: &mut Failure,
) -> Next {
    if let Some(known) = Fut::cast_exact(future)
        && known.has_result()
        && discard_one(known, this)
    {
        known.set_log_tb(false);
        return step(here, this, None, failure);
    }
    match outcome(this, future) {
        Ok(error) => step(here, this, error, failure),
        Err(error) => failed(failure, error),
    }
}

/// How the future that the task waited for ended: nothing, or the exception to throw.
fn outcome<'py>(this: Tsk<'_, 'py>, future: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Some(known) = Fut::cast_any(future) {
        discard_awaited_by(known, this)?;
    }
    let ended = match Fut::cast_exact(future) {
        Some(future) => futures::failure(future),
        None => future.call_method0(intern!(this.py(), "result")).map(|_| None),
    };
    Ok(ended.unwrap_or_else(|error| Some(error.into_value(this.py()).into_bound(this.py()).into_any())))
}

/// The first step of an eager task, inside the task that creates it.
pub(crate) fn eager<'py>(this: Tsk<'_, 'py>, event_loop: &Bound<'py, PyAny>) -> PyResult<()> {
    let object = this.object().to_owned();
    let previous = thread::swap_current(event_loop, Some(&object))?;
    let registered = thread::register_eager(this);
    let entered = match (registered, this.context()) {
        (Ok(()), Some(context)) => {
            let mut failure = None;
            context::run(&context, || Ok(advance(this, None, &mut failure)))
                .and_then(|next| go_on(this, next, failure))
        }
        (registered, _) => registered,
    };
    thread::unregister_eager(this)?;
    thread::swap_current(event_loop, previous.as_ref())?;
    if this.fut().is_pending() {
        thread::register(this)?;
    } else {
        drop(this.take_coro());
    }
    entered
}

/// The step itself. The short way is that of a task that nothing happens to but its next turn.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as for `step`")]
fn advance<'py>(this: Tsk<'_, 'py>, error: Option<Bound<'py, PyAny>>, failure: &mut Failure) -> Next {
    if error.is_some() || !this.fut().is_pending() || this.must_cancel() {
        return throw_or_refuse(this, error, failure);
    }
    drop(this.take_fut_waiter());
    let Some(coro) = this.coro_ref() else {
        return failed(failure, uninitialized());
    };
    let sent = iter::send(&coro);
    this.show();
    match sent {
        Sent::Yield(value) if value.is_none() => Next::Turn,
        sent => settle(this, sent, failure),
    }
}

/// What a task does after its coroutine came back with something to wait for, a result or an exception.
#[inline(never)]
fn settle<'py>(this: Tsk<'_, 'py>, sent: Sent<'py>, failure: &mut Failure) -> Next {
    let settled = match sent {
        Sent::Yield(value) => wait_for(this, value),
        Sent::Return(value) => finish(this, value),
        Sent::Raised => fail(this, PyErr::fetch(this.py())),
    };
    if let Err(error) = settled {
        *failure = Some(error);
    }
    Next::Nothing
}

/// A step with an exception, or of a task that has been cancelled; and one that can't be made any more.
#[cold]
fn throw_or_refuse<'py>(this: Tsk<'_, 'py>, error: Option<Bound<'py, PyAny>>, failure: &mut Failure) -> Next {
    let py = this.py();
    let throw = || -> PyResult<Next> {
        if !this.fut().is_pending() {
            let shown = error.map_or_else(|| Ok("None".to_owned()), |e| e.repr().map(|r| r.to_string()))?;
            let text = format!("__step(): already done: {} {shown}", this.object().repr()?);
            return Err(invalid_state(py, &text));
        }
        let error = match error {
            Some(error) if !this.must_cancel() || is_cancelled_error(&error) => error,
            _ => futures::cancelled_error(this.fut())?,
        };
        this.set_must_cancel(false);
        drop(this.take_fut_waiter());
        let Some(coro) = this.coro() else {
            return Err(uninitialized());
        };
        let step = iter::throw(&coro, &error);
        this.show();
        match step {
            Ok(Step::Yield(value)) if value.is_none() => return Ok(Next::Turn),
            Ok(Step::Yield(value)) => wait_for(this, value),
            Ok(Step::Return(value)) => finish(this, value),
            Err(error) => fail(this, error),
        }
        .map(|()| Next::Nothing)
    };
    throw().unwrap_or_else(|error| failed(failure, error))
}

#[cold]
fn uninitialized() -> PyErr {
    PyRuntimeError::new_err("uninitialized Task object")
}

fn is_cancelled_error(error: &Bound<'_, PyAny>) -> bool {
    error.is_instance(names(error.py()).cancelled_error.bind(error.py())).unwrap_or(false)
}

/// The coroutine returned.
#[inline]
fn finish<'py>(this: Tsk<'_, 'py>, value: Bound<'py, PyAny>) -> PyResult<()> {
    thread::unregister(this);
    tasks::count_end(this.must_cancel());
    if this.must_cancel() {
        // Cancelled right before the end.
        this.set_must_cancel(false);
        let message = this.fut().cancel_msg();
        return futures::cancel(this.fut(), message).map(drop);
    }
    futures::set_result(this.fut(), value)
}

/// The coroutine raised.
fn fail(this: Tsk<'_, '_>, error: PyErr) -> PyResult<()> {
    let py = this.py();
    thread::unregister(this);
    let value = error.into_value(py).into_bound(py).into_any();
    let is_cancelled = is_cancelled_error(&value);
    tasks::count_end(is_cancelled);
    if is_cancelled {
        drop(this.fut().set_cancelled_exc(Some(value)));
        return futures::cancel(this.fut(), None).map(drop);
    }
    futures::set_exception(this.fut(), &value)?;
    if value.is_instance_of::<PyKeyboardInterrupt>() || value.is_instance_of::<PySystemExit>() {
        return Err(PyErr::from_value(value));
    }
    Ok(())
}

/// The coroutine waits for `value`.
#[inline]
fn wait_for<'py>(this: Tsk<'_, 'py>, value: Bound<'py, PyAny>) -> PyResult<()> {
    if let Some(future) = Fut::cast_exact(&value) {
        if value.is(this.object()) {
            return later(this, format!("Task cannot await on itself: {}", this.object().repr()?));
        }
        if future.loop_ptr() != this.fut().loop_ptr() {
            return different_loop(this, &value);
        }
        if !future.blocking() {
            return bare_yield(this, &value);
        }
        future.set_blocking(false);
        if !future.is_pending() {
            // Completed by somebody between the yield and now: wake at once, as a done-callback would.
            add_awaited_by(future, this)?;
            let (task, future) = (this.object().to_owned().unbind(), value.clone().unbind());
            drop(this.set_fut_waiter(Some(value)));
            return soon(this, Job::Wake { task, future });
        }
        add_awaited_by(future, this)?;
        futures::add_waiter(future, this.object().to_owned())?;
        drop(this.set_fut_waiter(Some(value.clone())));
        return cancel_if_asked(this, &value);
    }
    wait_for_any(this, value)
}

/// As `wait_for`, for what isn't exactly our Future or Task: anything with `_asyncio_future_blocking`.
fn wait_for_any<'py>(this: Tsk<'_, 'py>, value: Bound<'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    let name = intern!(py, "_asyncio_future_blocking");
    let blocking = value.getattr_opt(name)?.filter(|b| !b.is_none());
    let Some(blocking) = blocking else {
        let (task, shown) = (this.object().repr()?, value.repr()?);
        let text = if types::is_generator(&value) {
            format!("yield was used instead of yield from for generator in task {task} with {shown}")
        } else {
            format!("Task got bad yield: {shown}")
        };
        return later(this, text);
    };
    let blocking = blocking.is_truthy()?;
    if value.is(this.object()) {
        return later(this, format!("Task cannot await on itself: {}", this.object().repr()?));
    }
    let its_loop = match value.getattr_opt(intern!(py, "get_loop"))? {
        Some(get_loop) => get_loop.call0()?,
        None => value.getattr(intern!(py, "_loop"))?,
    };
    if its_loop.as_ptr() != this.fut().loop_ptr() {
        return different_loop(this, &value);
    }
    if !blocking {
        return bare_yield(this, &value);
    }
    if let Some(future) = Fut::cast_any(&value) {
        add_awaited_by(future, this)?;
    }
    value.setattr(name, false)?;
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "context"), this.context())?;
    let wakeup = tasks::wakeup_callback(&this.object())?;
    value.call_method(intern!(py, "add_done_callback"), (wakeup,), Some(&keywords))?;
    drop(this.set_fut_waiter(Some(value.clone())));
    cancel_if_asked(this, &value)
}

/// `cancel()` was called while the coroutine ran: what it waits for now is cancelled at once.
#[inline]
fn cancel_if_asked<'py>(this: Tsk<'_, 'py>, waiter: &Bound<'py, PyAny>) -> PyResult<()> {
    if this.must_cancel() {
        let message = this.fut().cancel_msg();
        if tasks::cancel_waiter(waiter, message.as_ref())? {
            this.set_must_cancel(false);
        }
    }
    Ok(())
}

#[inline]
fn soon(this: Tsk<'_, '_>, job: Job) -> PyResult<()> {
    job::soon_for(this.fut(), job)
}

/// Throws RuntimeError into the coroutine in the next turn.
#[cold]
fn later(this: Tsk<'_, '_>, text: String) -> PyResult<()> {
    let error = PyRuntimeError::new_err(text).into_value(this.py()).into_any();
    soon(this, Job::Throw { task: this.object().to_owned().unbind(), error })
}

#[cold]
fn different_loop<'py>(this: Tsk<'_, 'py>, value: &Bound<'py, PyAny>) -> PyResult<()> {
    let (task, future): (Bound<'py, PyString>, Bound<'py, PyString>) = (this.object().repr()?, value.repr()?);
    later(this, format!("Task {task} got Future {future} attached to a different loop"))
}

#[cold]
fn bare_yield<'py>(this: Tsk<'_, 'py>, value: &Bound<'py, PyAny>) -> PyResult<()> {
    let (task, future) = (this.object().repr()?, value.repr()?);
    later(this, format!("yield was used instead of yield from in task {task} with {future}"))
}

/// Notes that `task` awaits `future`, for `capture_call_graph` and `ps`.
#[inline]
pub(crate) fn add_awaited_by<'py>(future: Fut<'_, 'py>, task: Tsk<'_, 'py>) -> PyResult<()> {
    if !version::AWAITED_BY {
        return Ok(());
    }
    match future.awaited_by() {
        None => drop(future.set_awaited_by(Some(task.object().to_owned()))),
        Some(set) if future.awaited_by_is_set() => set.cast_into::<PySet>()?.add(task.object())?,
        Some(other) => {
            let set = PySet::new(future.py(), [other, task.object().to_owned()])?;
            drop(future.set_awaited_by(Some(set.into_any())));
            future.set_awaited_by_is_set(true);
        }
    }
    Ok(())
}

/// As [`discard_awaited_by`], for the one task that waited for the future; false if there are others.
#[inline]
fn discard_one<'py>(future: Fut<'_, 'py>, task: Tsk<'_, 'py>) -> bool {
    let only = future.awaited_by_ptr() == task.object().as_ptr();
    if only {
        drop(future.take_awaited_by());
    }
    only || !future.awaited_by_is_set()
}

/// Ends [`add_awaited_by`].
#[inline]
pub(crate) fn discard_awaited_by<'py>(future: Fut<'_, 'py>, task: Tsk<'_, 'py>) -> PyResult<()> {
    if future.awaited_by_ptr() == task.object().as_ptr() {
        drop(future.take_awaited_by());
    } else if future.awaited_by_is_set()
        && let Some(set) = future.awaited_by()
    {
        set.cast_into::<PySet>()?.discard(task.object())?;
    }
    Ok(())
}
