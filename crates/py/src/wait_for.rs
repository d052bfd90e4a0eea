//! `asyncio.wait_for`: awaits in place, under a countdown.

use pyo3::exceptions::PyGeneratorExit;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt};

use crate::alarm::When;
use crate::anyfuture::{self, running_loop};
use crate::await_on::{Awaited, already_executing};
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, create};
use crate::ffi::iter::{Coroutine, Life, Step, reused};
use crate::ffi::{function, thread};
use crate::frame::{Frame, class};
use crate::hooks;
use crate::names::{names, none};
use crate::parked::Parked;
use crate::tasks::create;
use crate::timeouts::{self, Countdown, Exit};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Created,
    /// What was given runs just now, or is being cancelled.
    Running,
    /// What was given waits.
    Inside,
    /// There was no time to begin with: waits for the end of what it has cancelled.
    Cancelling,
    Over,
}

/// `wait_for(fut, timeout)`.
pub(crate) struct WaitFor {
    phase: Flag<Phase>,
    /// The argument; while cancelling, the future that was made of it.
    future: Slot,
    timeout: Slot,
    countdown: Countdown,
    awaited: Awaited,
    parked: Parked,
    task: Slot,
}

type This<'a, 'py> = Inst<'a, 'py, WaitFor>;

class!(WaitFor, c"aioxide._core.WaitFor", spare 64, [future, timeout, countdown, awaited, parked, task]);

impl WaitFor {
    pub(crate) fn countdown(&self) -> &Countdown {
        &self.countdown
    }
}

impl Frame for WaitFor {
    fn at(&self) -> Life {
        match self.phase.get() {
            Phase::Created => Life::Created,
            Phase::Running => Life::Running,
            Phase::Inside | Phase::Cancelling => Life::Suspended,
            Phase::Over => Life::Closed,
        }
    }

    fn end(&self) {
        self.phase.set(Phase::Over);
    }

    #[inline]
    fn step<'py>(this: This<'_, 'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        let py = this.py();
        match (this.phase.replace(Phase::Running), error) {
            (Phase::Created, _) => begin(this),
            (Phase::Inside, None) => settle(this, this.awaited.resume(py)),
            (Phase::Inside, Some(error)) if error.is_instance_of::<PyGeneratorExit>(py) => {
                let closed = this.awaited.close(py);
                settle(this, Err(closed.err().unwrap_or(error)))
            }
            (Phase::Inside, Some(error)) => settle(this, this.awaited.throw(py, error)),
            (Phase::Cancelling, error) => {
                let result = error.map_or_else(|| this.parked.outcome(py).map(drop), Err);
                let future = leave(this);
                result?;
                match future? {
                    Some(future) => ended(&future).map(Step::Return),
                    None => Err(reused()),
                }
            }
            (Phase::Running, _) => Err(already_executing()),
            (Phase::Over, _) => {
                this.phase.set(Phase::Over);
                Err(reused())
            }
        }
    }
}

/// The first step.
#[inline]
fn begin<'py>(this: This<'_, 'py>) -> PyResult<Step<'py>> {
    let py = this.py();
    let timeout = this.timeout.take(py);
    let future = this.future.take(py).unwrap_or_else(|| none(py));
    let entered = match timeout.as_ref().map_or(Ok(false), is_over) {
        Ok(true) => return cancel_at_once(this, &future),
        Ok(false) => enter(this, timeout.as_ref()),
        Err(error) => Err(error),
    };
    if let Err(error) = entered {
        this.get().clear(py);
        return Err(error);
    }
    settle(this, this.awaited.begin(future))
}

impl Coroutine for WaitFor {
    fn qualname(_: This<'_, '_>) -> &'static str {
        "wait_for"
    }

    fn awaited<'py>(this: This<'_, 'py>) -> Option<Bound<'py, PyAny>> {
        this.awaited.get(this.py()).or_else(|| this.parked.future(this.py()))
    }

    fn life(this: This<'_, '_>) -> Life {
        this.at()
    }

    fn within(this: This<'_, '_>) -> &'static [&'static str] {
        if this.phase.get() == Phase::Cancelling { &["_cancel_and_wait"] } else { &[] }
    }
}

/// `timeout <= 0`.
fn is_over(timeout: &Bound<'_, PyAny>) -> PyResult<bool> {
    if let Ok(timeout) = timeout.cast_exact::<PyFloat>() {
        return Ok(timeout.value() <= 0.0);
    }
    if timeout.is_exact_instance_of::<PyInt>() {
        return timeout.extract::<f64>().map(|seconds| seconds <= 0.0).or_else(|_| timeout.le(0));
    }
    timeout.le(0)
}

/// Starts the countdown.
fn enter<'py>(this: This<'_, 'py>, timeout: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
    let event_loop = running_loop(this.py())?;
    let when = match timeout {
        Some(timeout) => Some(When::after(&event_loop, timeout)?),
        None => None,
    };
    this.countdown.enter(&event_loop, &this.object(), when.as_ref())
}

/// What was awaited waits, or is over: then so is the countdown.
#[inline]
fn settle<'py>(this: This<'_, 'py>, step: PyResult<Step<'py>>) -> PyResult<Step<'py>> {
    let py = this.py();
    match step {
        Ok(Step::Yield(value)) => {
            this.phase.set(Phase::Inside);
            Ok(Step::Yield(value))
        }
        Ok(step) => {
            this.phase.set(Phase::Over);
            this.countdown.exit(py, None)?;
            Ok(step)
        }
        Err(error) => {
            this.phase.set(Phase::Over);
            let value = error.into_value(py).into_bound(py).into_any();
            match this.countdown.exit(py, Some((value.get_type().as_any(), Some(&value))))? {
                Exit::Plain => Err(PyErr::from_value(value)),
                Exit::TimedOut(error) => Err(PyErr::from_value(error)),
            }
        }
    }
}

// --- no time at all ----------------------------------------------------------------------------

/// Cancels what was given and waits until it is over.
fn cancel_at_once<'py>(this: This<'_, 'py>, future: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
    let step = begin_to_cancel(this, future);
    if !matches!(step, Ok(Step::Yield(_))) {
        leave(this)?;
    }
    step
}

fn begin_to_cancel<'py>(this: This<'_, 'py>, future: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
    let py = this.py();
    let future = create::ensure_future(future, None)?;
    if anyfuture::is_done(&future)? {
        return anyfuture::result(&future).map(Step::Return);
    }
    let event_loop = running_loop(py)?;
    let waiter = anyfuture::create(&event_loop)?;
    let task = thread::current_task(&event_loop)?;
    this.future.set(py, future.clone());
    hooks::watch(&future, &this.object())?;
    anyfuture::add_awaited_by(&future, task.as_ref())?;
    if let Some(task) = task {
        this.task.set(py, task);
    }
    anyfuture::cancel(&future)?;
    this.phase.set(Phase::Cancelling);
    this.parked.wait(waiter)
}

/// Waits no more for what was cancelled, which is handed back.
fn leave<'py>(this: This<'_, 'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = this.py();
    let (future, task) = (this.future.take(py), this.task.take(py));
    this.get().clear(py);
    if let Some(future) = &future {
        hooks::unwatch(future, &this.object())?;
        anyfuture::discard_awaited_by(future, task.as_ref())?;
    }
    Ok(future)
}

/// What was cancelled is done.
pub(crate) fn on_done(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    match this.parked.future(py) {
        Some(waiter) => anyfuture::release(&waiter, py.None().into_bound(py)),
        None => Ok(()),
    }
}

/// The result of what was cancelled: usually none.
fn ended<'py>(future: &Bound<'py, PyAny>) -> Object<'py> {
    let py = future.py();
    anyfuture::result(future).map_err(|error| {
        if !error.value(py).is_instance(names(py).cancelled_error.bind(py)).unwrap_or(false) {
            return error;
        }
        let cause = error.into_value(py).into_bound(py).into_any();
        timeouts::timeout_error(py, Some(&cause)).map_or_else(|e| e, PyErr::from_value)
    })
}

fn wait_for<'py>(args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "wait_for",
        positional: &["fut", "timeout"],
        required: 2,
        positional_only: 0,
        keyword_only: &[],
    };
    let [future, timeout] = SIGNATURE.bind::<2>(args)?;
    let wait_for = WaitFor {
        phase: Flag::new(Phase::Created),
        future: Slot::new(future.map(|f| f.to_owned().unbind())),
        timeout: Slot::new(given(timeout).map(Bound::unbind)),
        countdown: Countdown::new(),
        awaited: Awaited::nothing(),
        parked: Parked::new(),
        task: Slot::empty(),
    };
    create(args.py(), wait_for)
}

/// Makes the type and the function.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<WaitFor>().coroutine::<WaitFor>().build(module, None, WaitFor::cell())?;
    module.add("wait_for", function::coroutine_function(module.py(), "asyncio.tasks", "wait_for", wait_for)?)
}
