//! Between threads: `to_thread` and `run_coroutine_threadsafe`.
//!
//! A [`Submission`] is what `run_coroutine_threadsafe` leaves with the loop: called there, it starts the coroutine; it
//! then stands between the task and the concurrent future and is told when either is done.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::anyfuture::{self, Outcome, running_loop};
use crate::await_on;
use crate::errors::ends_the_loop;
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::Slot;
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{Of, caller};
use crate::ffi::{context, function, thread};
use crate::names::asyncio;
use crate::tasks::create;
use crate::{hooks, tasks};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// `to_thread(func, /, *args, **kwargs)`.
fn to_thread<'py>(args: Args<'_, 'py>) -> Object<'py> {
    let py = args.py();
    if args.len() == 0 {
        return Err(PyTypeError::new_err("to_thread() missing 1 required positional argument: 'func'"));
    }
    let (positional, keywords) = args.to_call()?;
    let call = PyTuple::new(py, [Some(positional.into_any()), keywords.map(Bound::into_any)])?;
    await_on::coroutine("to_thread", call.into_any(), submit)
}

/// Hands the call over to a thread: `loop.run_in_executor(None, partial(context.run, func, *args, **kwargs))`.
fn submit(call: Bound<'_, PyAny>) -> Object<'_> {
    let py = call.py();
    let event_loop = running_loop(py)?;
    let positional = call.get_item(0)?.cast_into::<PyTuple>()?;
    let keywords = call.get_item(1)?.cast_into().ok();
    let mut arguments = vec![context::copy_current(py)?.getattr(intern!(py, "run"))?];
    arguments.extend(positional.iter());
    let partial = py.import(intern!(py, "functools"))?.getattr(intern!(py, "partial"))?;
    let call = partial.call(PyTuple::new(py, arguments)?, keywords.as_ref())?;
    event_loop.call_method1(intern!(py, "run_in_executor"), (py.None(), call))
}

// --- coroutines from other threads -------------------------------------------------------------

/// One call of `run_coroutine_threadsafe`.
pub(crate) struct Submission {
    event_loop: Slot,
    coro: Slot,
    /// The concurrent future that the other thread holds.
    future: Slot,
    /// The task, once it runs.
    task: Slot,
}

type This<'a, 'py> = Inst<'a, 'py, Submission>;

impl Class for Submission {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.Submission";

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        [&self.event_loop, &self.coro, &self.future, &self.task]
            .into_iter()
            .try_for_each(|slot| slot.traverse(visit))
    }

    fn clear(&self, py: Python<'_>) {
        drop((self.event_loop.take(py), self.coro.take(py), self.future.take(py), self.task.take(py)));
    }
}

/// `run_coroutine_threadsafe(coro, loop)`.
fn run_coroutine_threadsafe<'py>(args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "run_coroutine_threadsafe",
        positional: &["coro", "loop"],
        required: 2,
        positional_only: 0,
        keyword_only: &[],
    };
    let [Some(coro), Some(event_loop)] = SIGNATURE.bind::<2>(args)? else {
        return Err(PyTypeError::new_err("run_coroutine_threadsafe() needs a coroutine and a loop"));
    };
    let py = args.py();
    if !tasks::is_coroutine(&coro)? {
        return Err(PyTypeError::new_err("A coroutine object is required"));
    }
    let future = py.import(intern!(py, "concurrent.futures"))?.getattr(intern!(py, "Future"))?.call0()?;
    let submission = Submission {
        event_loop: Slot::holding(event_loop.to_owned().unbind()),
        coro: Slot::holding(coro.to_owned().unbind()),
        future: Slot::holding(future.clone().unbind()),
        task: Slot::empty(),
    };
    let submission = create(py, submission)?;
    event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (submission,))?;
    Ok(future)
}

/// Called by the loop to begin, and by the concurrent future (with itself) when that is done.
fn call<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let called = if args.len() == 0 { begin(this) } else { pass_cancellation_on(this) };
    called.map(|()| py.None().into_bound(py))
}

/// In the loop's thread: makes the task.
fn begin<'py>(this: This<'_, 'py>) -> PyResult<()> {
    let py = this.py();
    let (Some(coro), Some(event_loop)) = (this.coro.take(py), this.event_loop.get(py)) else { return Ok(()) };
    let Some(future) = this.future.get(py) else { return Ok(()) };
    let submission = this.to_owned();
    let begun = create::ensure_future(&coro, Some(&event_loop)).and_then(|task| {
        this.task.set(py, task.clone());
        future.call_method1(intern!(py, "add_done_callback"), (&submission,))?;
        hooks::watch(&task, &submission)
    });
    begun.or_else(|error| {
        if !ends_the_loop(py, &error) && is_wanted(&future)? {
            future.call_method1(intern!(py, "set_exception"), (error.value(py),))?;
        }
        Err(error)
    })
}

/// Whether somebody still waits for the concurrent future, which runs from now on.
fn is_wanted(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    future.call_method0(intern!(future.py(), "set_running_or_notify_cancel"))?.is_truthy()
}

/// In any thread: the concurrent future is done; if it was cancelled, so is the task.
fn pass_cancellation_on(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    let (Some(task), Some(event_loop), Some(future)) =
        (this.task.get(py), this.event_loop.get(py), this.future.get(py))
    else {
        return Ok(());
    };
    if !future.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
        return Ok(());
    }
    if thread::running_loop(py)?.is_some_and(|running| running.is(&event_loop)) {
        return anyfuture::cancel(&task).map(drop);
    }
    let cancel = task.getattr(intern!(py, "cancel"))?;
    event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (cancel,)).map(drop)
}

/// In the loop's thread: the task is done, and so is the concurrent future.
pub(crate) fn on_done<'py>(this: This<'_, 'py>, task: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    let Some(future) = this.future.take(py) else { return Ok(()) };
    this.get().clear(py); // the future keeps us among its callbacks for good
    let outcome = anyfuture::outcome(task)?;
    if matches!(outcome, Outcome::Cancelled) {
        future.call_method0(intern!(py, "cancel"))?;
    }
    if !is_wanted(&future)? {
        return Ok(());
    }
    match outcome {
        Outcome::Failed(error) => {
            let convert = asyncio(py).futures.bind(py).getattr(intern!(py, "_convert_future_exc"))?;
            future.call_method1(intern!(py, "set_exception"), (convert.call1((error,))?,))?;
        }
        Outcome::Returned(value) => drop(future.call_method1(intern!(py, "set_result"), (value,))?),
        Outcome::Pending | Outcome::Cancelled => {}
    }
    Ok(())
}

/// Makes the type and the functions.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    Builder::of::<Submission>().slot(pyo3::ffi::Py_tp_call, caller::<Of<Submission>, _>(call)).build(
        module,
        None,
        Submission::cell(),
    )?;
    module.add("to_thread", function::coroutine_function(py, "asyncio.threads", "to_thread", to_thread)?)?;
    let submit =
        function::function(py, "asyncio.tasks", "run_coroutine_threadsafe", run_coroutine_threadsafe)?;
    module.add("run_coroutine_threadsafe", submit)
}
