//! The loop's life: `run_forever`, `run_until_complete`, `stop`, `close`.
//!
//! While it runs, this thread's running loop and asynchronous generator hooks are its own; both are given back when
//! it stops, whatever ended it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PyResourceWarning, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::turn::Turns;
use super::{EventLoop, debug, executor, instruments, nested, signals};
use crate::anyfuture;
use crate::errors::ends_the_loop;
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::layout::Fut;
use crate::ffi::{class, thread};
use crate::inspect::running;
use crate::names::asyncio;
use crate::transports::held;

/// What a run has to give back.
#[derive(Debug)]
pub(super) struct Life {
    /// `threading.get_ident()` of the thread that runs the loop.
    ident: Flag<Option<u64>>,
    hooks_before: Slot,
}

impl Default for Life {
    fn default() -> Self {
        Self { ident: Flag::new(None), hooks_before: Slot::empty() }
    }
}

impl Life {
    pub(super) fn ident(&self) -> Option<u64> {
        self.ident.get()
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.hooks_before.traverse(visit)
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        drop(self.hooks_before.take(py));
    }
}

/// RuntimeError if this loop runs already, or another one in this thread.
pub(super) fn check_running(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    if EventLoop::core(this).thread() != 0 {
        return Err(PyRuntimeError::new_err("This event loop is already running"));
    }
    if thread::running_loop(this.py())?.is_some() {
        return Err(PyRuntimeError::new_err("Cannot run the event loop while another loop is running"));
    }
    Ok(())
}

/// Makes this thread the loop's.
pub(super) fn set_up(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let (py, core, life) = (this.py(), EventLoop::core(this), &this.get().life);
    core.check_closed()?;
    check_running(this)?;
    super::note_overrides(core, &this.get_type())?; // what was put into the class since the loop was made
    debug::track_origins(this, core.is_debug())?;
    let sys = py.import(intern!(py, "sys"))?;
    let hooks = sys.call_method0(intern!(py, "get_asyncgen_hooks"))?;
    drop(life.hooks_before.replace(py, Some(hooks)));
    let ident =
        py.import(intern!(py, "threading"))?.call_method0(intern!(py, "get_ident"))?.extract::<u64>()?;
    life.ident.set(Some(ident));
    let first = this.getattr(intern!(py, "_asyncgen_firstiter_hook"))?;
    let last = this.getattr(intern!(py, "_asyncgen_finalizer_hook"))?;
    sys.call_method1(intern!(py, "set_asyncgen_hooks"), (first, last))?;
    thread::set_running_loop(py, Some(this.as_any()))?;
    core.begin_run(this.as_any(), thread::thread_id());
    running::add(this, ident);
    instruments::run_through(this, true);
    Ok(())
}

/// Gives the thread back. The first error is returned, after everything has been tried.
pub(super) fn clean_up(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let (py, core, life) = (this.py(), EventLoop::core(this), &this.get().life);
    core.set_stopping(false);
    held::end(this);
    core.end_run(py);
    running::remove(this);
    instruments::run_through(this, false);
    core.show_jobs(py);
    life.ident.set(None);
    let unset = thread::set_running_loop(py, None);
    let untracked = debug::track_origins(this, false);
    let restored = match life.hooks_before.take(py) {
        Some(hooks) => py.import(intern!(py, "sys")).and_then(|sys| {
            sys.call_method1(intern!(py, "set_asyncgen_hooks"), hooks.cast_into::<PyTuple>()?)
        }),
        None => return unset.and(untracked),
    };
    unset.and(untracked).and(restored.map(drop))
}

/// `run_forever()`.
pub(super) fn run_forever(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    if nested::are_allowed() { nested::run_forever(this) } else { run(this, None) }
}

/// Makes this thread the loop's, until `stop()` or the end of the future.
pub(super) fn run(this: &Bound<'_, EventLoop>, until: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    set_up(this)?;
    let result = turns(this, until);
    let cleaned = clean_up(this);
    result.and(cleaned)
}

/// Turn after turn, until `stop()` or the end of the future, whose callbacks are called still.
pub(super) fn turns(this: &Bound<'_, EventLoop>, until: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let core = EventLoop::core(this);
    let all = || {
        let mut turns = Turns::new(this)?;
        loop {
            if let Some(future) = until
                && is(future, intern!(this.py(), "done"))?
            {
                let is_over = core.scheduler().with(this.py(), |s| s.ready_len()) == 0;
                return if is_over { Ok(()) } else { turns.once(this) };
            }
            turns.once(this)?;
            if core.is_stopping() {
                return Ok(());
            }
        }
    };
    // A bug of ours must not leave the thread in the loop's hands.
    catch_unwind(AssertUnwindSafe(all)).unwrap_or_else(|panic| Err(class::bug(panic.as_ref())))
}

/// `_run_once()`: one turn, for programs that drive the loop themselves.
pub(super) fn run_once(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    held::end(this); // what called this may wait for an answer
    let result = Turns::new(this)?.once(this);
    held::end(this);
    result
}

/// `run_until_complete(future)`.
pub(super) fn run_until_complete<'py>(
    this: &Bound<'py, EventLoop>,
    awaitable: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    EventLoop::core(this).check_closed()?;
    super::note_overrides(EventLoop::core(this), &this.get_type())?;
    if nested::are_allowed() {
        return nested::run_until_complete(this, awaitable);
    }
    check_running(this)?;
    let awaited = Awaited::new(this, awaitable)?;
    let stop = stopper(py)?;
    awaited.future.call_method1(intern!(py, "add_done_callback"), (stop,))?;
    let result = this.call_method0(intern!(py, "run_forever")).map(drop);
    if result.is_err() {
        awaited.note_error()?;
    }
    awaited.future.call_method1(intern!(py, "remove_done_callback"), (stop,))?;
    result.and_then(|()| awaited.result())
}

/// What `run_until_complete` waits for.
pub(super) struct Awaited<'py> {
    pub(super) future: Bound<'py, PyAny>,
    /// Whether it is of our making.
    is_new: bool,
}

impl<'py> Awaited<'py> {
    pub(super) fn new(this: &Bound<'py, EventLoop>, awaitable: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = this.py();
        let is_new = Fut::cast_any(awaitable).is_none() && !anyfuture::is_future(awaitable)?;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "loop"), this)?;
        let ensure = asyncio(py).tasks.bind(py).getattr(intern!(py, "ensure_future"))?;
        let future = ensure.call((awaitable,), Some(&keywords))?;
        if is_new {
            // If the loop is stopped before the end an exception says so: no need for "destroyed but pending".
            future.setattr(intern!(py, "_log_destroy_pending"), false)?;
        }
        Ok(Self { future, is_new })
    }

    /// An error ended the run. If it is the coroutine's own SystemExit or the like it is seen, and so not to be
    /// reported as never retrieved.
    pub(super) fn note_error(&self) -> PyResult<()> {
        let py = self.future.py();
        if self.is_new
            && is(&self.future, intern!(py, "done"))?
            && !is(&self.future, intern!(py, "cancelled"))?
        {
            self.future.call_method0(intern!(py, "exception"))?;
        }
        Ok(())
    }

    pub(super) fn result(self) -> PyResult<Bound<'py, PyAny>> {
        let py = self.future.py();
        if !is(&self.future, intern!(py, "done"))? {
            return Err(PyRuntimeError::new_err("Event loop stopped before Future completed."));
        }
        self.future.call_method0(intern!(py, "result"))
    }
}

fn is(future: &Bound<'_, PyAny>, state: &Bound<'_, PyString>) -> PyResult<bool> {
    future.call_method0(state)?.is_truthy()
}

/// The done-callback that ends `run_until_complete`.
fn stopper(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static STOPPER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let stopper = STOPPER.get_or_try_init(py, || {
        Ok::<_, PyErr>(wrap_pyfunction!(_run_until_complete_cb, py)?.into_any().unbind())
    })?;
    Ok(stopper.bind(py))
}

/// Stops the loop of a future that is done.
#[pyfunction]
fn _run_until_complete_cb(fut: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = fut.py();
    if !fut.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
        let error = fut.call_method0(intern!(py, "exception"))?;
        if !error.is_none() && ends_the_loop(py, &PyErr::from_value(error)) {
            return Ok(()); // the run has ended by it already
        }
    }
    fut.call_method0(intern!(py, "get_loop"))?.call_method0(intern!(py, "stop")).map(drop)
}

/// `close()`: every job, timer and source is dropped, the executor is told to end, signals are given back.
pub(super) fn close(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let (py, core) = (this.py(), EventLoop::core(this));
    if core.thread() != 0 {
        return Err(PyRuntimeError::new_err("Cannot close a running event loop"));
    }
    if core.is_closed() {
        return Ok(());
    }
    if core.is_debug() {
        debug::logger(py)?.call_method1(intern!(py, "debug"), ("Close %r", this))?;
    }
    core.set_closed();
    let (jobs, sources) = (core.take_jobs(py), this.get().take_sources(py));
    drop(jobs);
    drop(sources);
    core.waker().close();
    let ended = executor::close(this);
    let given_back = signals::close(this);
    ended.and(given_back)
}

/// `__del__`: a loop that nobody closed says so and is closed.
pub(super) fn finalize(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let (py, core) = (this.py(), EventLoop::core(this));
    if core.is_closed() {
        return Ok(());
    }
    let warned = warn_of_resource(this, &format!("unclosed event loop {}", this.repr()?));
    if core.thread() == 0 {
        this.call_method0(intern!(py, "close"))?;
    }
    warned
}

/// What is needed when the interpreter is shutting down, where nothing can be imported any more.
struct AtTheEnd {
    warn: Py<PyAny>,
    is_finalizing: Py<PyAny>,
}

static AT_THE_END: PyOnceLock<AtTheEnd> = PyOnceLock::new();

/// Looks up in time what the end needs: called for each loop that is made.
pub(super) fn prepare_for_the_end(py: Python<'_>) -> PyResult<()> {
    debug::logger(py)?;
    AT_THE_END
        .get_or_try_init(py, || {
            Ok(AtTheEnd {
                warn: py.import("warnings")?.getattr(intern!(py, "warn"))?.unbind(),
                is_finalizing: py.import("sys")?.getattr(intern!(py, "is_finalizing"))?.unbind(),
            })
        })
        .map(drop)
}

/// `warnings.warn(text, ResourceWarning, source=loop)`.
pub(super) fn warn_of_resource(this: &Bound<'_, EventLoop>, text: &str) -> PyResult<()> {
    let py = this.py();
    let Some(end) = AT_THE_END.get(py) else { return Ok(()) };
    let keywords = PyDict::new(py);
    keywords.set_item("source", this)?;
    end.warn.bind(py).call((text, py.get_type::<PyResourceWarning>()), Some(&keywords)).map(drop)
}

/// `sys.is_finalizing()`.
pub(super) fn is_finalizing(py: Python<'_>) -> PyResult<bool> {
    AT_THE_END.get(py).map_or(Ok(false), |end| end.is_finalizing.bind(py).call0()?.is_truthy())
}
