//! The vocabulary of the ready queue: everything a turn can run. Matched by turn.rs alone, without a wildcard.

use aioxide_sys::{Key, Readiness};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::layout::{Fut, Tsk};
use crate::local::LoopCore;
use crate::{handles, hooks, tasks, timeouts};

/// One thing to run. The tag takes a whole word: a job is moved as four words, never byte by byte.
#[derive(Debug)]
#[repr(usize)]
pub(crate) enum Job {
    /// A Handle or TimerHandle: `context.run(callback, *args)` unless cancelled.
    Handle(Py<PyAny>),
    /// A done-callback of a future: `context.run(callback, future)`, without a Handle of its own.
    Callback { callback: Py<PyAny>, future: Py<PyAny>, context: Py<PyAny> },
    /// The next step of a task.
    Step(Py<PyAny>),
    /// The next step of a task, with an exception.
    Throw { task: Py<PyAny>, error: Py<PyAny> },
    /// What a task waited for is done.
    Wake { task: Py<PyAny>, future: Py<PyAny> },
    /// What a native waiter (see `hooks`) waited for is done.
    Hook { hook: Py<PyAny>, future: Py<PyAny> },
    /// `future.set_result(None)` unless it is done: the end of a sleep.
    Complete(Py<PyAny>),
    /// The deadline of a timeout has passed (see `timeouts`): the `turn`-th it was given, unless it has another by now.
    Expire { owner: Py<PyAny>, turn: u32 },
    /// A stream transport tells its protocol that it is connected, and starts; then the waiter is told.
    Connected { transport: Py<PyAny>, waiter: Option<Py<PyAny>> },
    /// A stream transport tells its protocol that the connection is lost.
    Lost { transport: Py<PyAny>, error: Py<PyAny> },
    /// A descriptor is ready.
    Io(Key, Readiness),
}

/// An object that waits for its time, and no more: there may be many. Its class says what a turn does with it then.
#[derive(Debug)]
pub(crate) struct Timed(Py<PyAny>);

/// What an object waits for its time for.
pub(crate) enum Due {
    /// A TimerHandle is run.
    Handle,
    /// A future is completed.
    Complete,
    /// To whatever has a deadline, it has passed: this one of those it was given.
    Expire { turn: u32 },
}

impl Timed {
    /// A TimerHandle, a future, or an owner of a deadline (see `timeouts`).
    #[inline]
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> Self {
        Self(object.clone().unbind())
    }

    #[inline]
    pub(crate) fn object(&self) -> &Py<PyAny> {
        &self.0
    }

    #[inline]
    pub(crate) fn due(&self, py: Python<'_>) -> Due {
        let object = self.0.bind(py);
        if handles::is_timer(object) {
            Due::Handle
        } else if Fut::cast_any(object).is_some() {
            Due::Complete
        } else {
            Due::Expire { turn: timeouts::turn_of(object) }
        }
    }

    /// The same once more, to show it.
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }

    /// The job that it is when its time has come. An owner cancels its timer before it gets another deadline: the turn is
    /// the one that this timer was made for.
    #[inline]
    pub(crate) fn into_job(self, py: Python<'_>) -> Job {
        match self.due(py) {
            Due::Handle => {
                handles::on_due(self.0.bind(py));
                Job::Handle(self.0)
            }
            Due::Complete => Job::Complete(self.0),
            Due::Expire { turn } => Job::Expire { owner: self.0, turn },
        }
    }

    /// Drops it, with the GIL at hand: the short way.
    #[inline]
    pub(crate) fn drop(self, py: Python<'_>) {
        drop(self.0.into_bound(py));
    }
}

impl Job {
    /// Shows what the job holds to the garbage collector.
    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        match self {
            Self::Handle(one) | Self::Step(one) | Self::Complete(one) | Self::Expire { owner: one, .. } => {
                visit.call(Some(one))
            }
            Self::Callback { callback, future, context } => {
                visit.call(Some(callback))?;
                visit.call(Some(future))?;
                visit.call(Some(context))
            }
            Self::Throw { task, error } => {
                visit.call(Some(task))?;
                visit.call(Some(error))
            }
            Self::Wake { task: one, future } | Self::Hook { hook: one, future } => {
                visit.call(Some(one))?;
                visit.call(Some(future))
            }
            Self::Connected { transport, waiter } => {
                visit.call(Some(transport))?;
                visit.call(waiter.as_ref())
            }
            Self::Lost { transport, error } => {
                visit.call(Some(transport))?;
                visit.call(Some(error))
            }
            Self::Io(..) => Ok(()),
        }
    }

    /// The same job once more, to show it.
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Handle(handle) => Self::Handle(handle.clone_ref(py)),
            Self::Callback { callback, future, context } => Self::Callback {
                callback: callback.clone_ref(py),
                future: future.clone_ref(py),
                context: context.clone_ref(py),
            },
            Self::Step(task) => Self::Step(task.clone_ref(py)),
            Self::Throw { task, error } => {
                Self::Throw { task: task.clone_ref(py), error: error.clone_ref(py) }
            }
            Self::Wake { task, future } => {
                Self::Wake { task: task.clone_ref(py), future: future.clone_ref(py) }
            }
            Self::Hook { hook, future } => {
                Self::Hook { hook: hook.clone_ref(py), future: future.clone_ref(py) }
            }
            Self::Complete(future) => Self::Complete(future.clone_ref(py)),
            Self::Expire { owner, turn } => Self::Expire { owner: owner.clone_ref(py), turn: *turn },
            Self::Connected { transport, waiter } => Self::Connected {
                transport: transport.clone_ref(py),
                waiter: waiter.as_ref().map(|waiter| waiter.clone_ref(py)),
            },
            Self::Lost { transport, error } => {
                Self::Lost { transport: transport.clone_ref(py), error: error.clone_ref(py) }
            }
            Self::Io(key, ready) => Self::Io(*key, *ready),
        }
    }

    /// Whether both are for the same Handle.
    pub(crate) fn is_handle_of(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Handle(one), Self::Handle(another)) if one.is(another))
    }

    /// The context that the job enters, or a snapshot of it; none for those that run in the loop's.
    pub(crate) fn context<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self {
            Self::Handle(handle) => handles::context_of(handle.bind(py)),
            Self::Callback { context, .. } => Ok(Some(context.bind(py).clone())),
            Self::Step(task) | Self::Throw { task, .. } | Self::Wake { task, .. } => {
                Ok(context_of(task.bind(py)))
            }
            Self::Hook { .. }
            | Self::Complete(_)
            | Self::Expire { .. }
            | Self::Connected { .. }
            | Self::Lost { .. }
            | Self::Io(..) => Ok(None),
        }
    }

    /// The job as a callback with its arguments, and their context; or itself, if it is one that only the loop knows.
    pub(crate) fn into_callback(self, py: Python<'_>) -> PyResult<Result<Callback<'_>, Self>> {
        Ok(Ok(match self {
            Self::Callback { callback, future, context } => Callback {
                function: callback.into_bound(py),
                argument: Some(future.into_bound(py)),
                context: Some(context.into_bound(py)),
            },
            Self::Step(task) => Callback::step(&task.into_bound(py), None)?,
            Self::Throw { task, error } => Callback::step(&task.into_bound(py), Some(error.into_bound(py)))?,
            Self::Wake { task, future } => {
                let task = task.into_bound(py);
                Callback {
                    function: tasks::wakeup_callback(&task)?,
                    argument: Some(future.into_bound(py)),
                    context: context_of(&task),
                }
            }
            Self::Hook { hook, future } => Callback {
                function: hooks::callback(&hook.into_bound(py))?,
                argument: Some(future.into_bound(py)),
                context: None,
            },
            other => return Ok(Err(other)),
        }))
    }

    /// The job as `call_soon(callback, *args, context=)`, for a loop that isn't ours or has its own `call_soon`.
    fn call_soon(self, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = event_loop.py();
        let Ok(Callback { function, argument, context }) = self.into_callback(py)? else {
            unreachable!("jobs that only the loop that made them gets")
        };
        let keywords = PyDict::new(py);
        if let Some(context) = context {
            keywords.set_item(pyo3::intern!(py, "context"), context)?;
        }
        let args = PyTuple::new(py, std::iter::once(function).chain(argument).collect::<Vec<_>>())?;
        event_loop.call_method(pyo3::intern!(py, "call_soon"), args, Some(&keywords))?;
        Ok(())
    }
}

/// A job as Python sees it.
pub(crate) struct Callback<'py> {
    pub(crate) function: Bound<'py, PyAny>,
    pub(crate) argument: Option<Bound<'py, PyAny>>,
    /// The current one where it has none of its own.
    pub(crate) context: Option<Bound<'py, PyAny>>,
}

impl<'py> Callback<'py> {
    fn step(task: &Bound<'py, PyAny>, error: Option<Bound<'py, PyAny>>) -> PyResult<Self> {
        Ok(Self { function: tasks::step_callback(task, error)?, argument: None, context: context_of(task) })
    }
}

fn context_of<'py>(task: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    Tsk::cast(task).and_then(Tsk::context)
}

/// Gives a job of a future (or task) to the future's loop.
#[inline]
pub(crate) fn soon_for(future: Fut<'_, '_>, job: Job) -> PyResult<()> {
    match future.loop_core() {
        Some(core) if !core.overrides_call_soon() => core.soon(future.py(), job),
        _ => match future.event_loop() {
            Some(event_loop) => job.call_soon(&event_loop),
            None => Ok(()),
        },
    }
}

/// Gives the job to the loop: at once to a native one, by its `call_soon` to any other.
#[inline]
pub(crate) fn soon(event_loop: &Bound<'_, PyAny>, job: Job) -> PyResult<()> {
    match LoopCore::of(event_loop) {
        Some(core) if !core.overrides_call_soon() => core.soon(event_loop.py(), job),
        _ => job.call_soon(event_loop),
    }
}
