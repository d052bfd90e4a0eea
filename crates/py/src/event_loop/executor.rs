//! Work in other threads: `run_in_executor`, the default executor and its end.
//!
//! A [`Courier`] brings the result back: the worker thread leaves one job in the loop's inbox, and the loop's thread
//! copies the state of the concurrent future into the asyncio one.

use pyo3::exceptions::{PyAssertionError, PyRuntimeError, PyRuntimeWarning, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::EventLoop;
use crate::anyfuture;
use crate::async_fn::{self, attached};
use crate::calls::check_callback;
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::gc::{Stopped, Visit, traverse_pyclass};
use crate::ffi::layout::Fut;
use crate::ffi::thread;
use crate::ffi::{context, function};
use crate::futures;
use crate::job::Job;
use crate::local::LoopCore;
use crate::names::{asyncio, names};

/// The default executor.
#[derive(Debug)]
pub(super) struct Default {
    executor: Slot,
    shut_down: Flag<bool>,
}

impl std::default::Default for Default {
    fn default() -> Self {
        Self { executor: Slot::empty(), shut_down: Flag::new(false) }
    }
}

impl Default {
    pub(super) fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.executor.get(py)
    }

    pub(super) fn replace<'py>(&self, py: Python<'py>, executor: Option<Bound<'py, PyAny>>) {
        drop(self.executor.replace(py, executor));
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.executor.traverse(visit)
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        drop(self.executor.take(py));
    }
}

fn concurrent<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import(intern!(py, "concurrent.futures"))?.getattr(name)
}

/// `run_in_executor(executor, func, *args)`.
pub(super) fn run<'py>(
    this: &Bound<'py, EventLoop>,
    executor: &Bound<'py, PyAny>,
    func: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, core) = (this.py(), EventLoop::core(this));
    core.check_closed()?;
    if core.is_debug() {
        check_callback(func, "run_in_executor")?;
    }
    let executor = if executor.is_none() { default_executor(this)? } else { executor.clone() };
    let mut submitted = Vec::with_capacity(1 + args.len());
    submitted.push(func.clone());
    submitted.extend(args.iter());
    let future = executor.call_method1(intern!(py, "submit"), PyTuple::new(py, submitted)?)?;
    wrap_future(this.as_any(), &future)
}

fn default_executor<'py>(this: &Bound<'py, EventLoop>) -> PyResult<Bound<'py, PyAny>> {
    let (py, state) = (this.py(), &this.get().executor);
    if state.shut_down.get() {
        return Err(PyRuntimeError::new_err("Executor shutdown has been called"));
    }
    if let Some(executor) = state.executor.get(py) {
        return Ok(executor);
    }
    let keywords = PyDict::new(py);
    keywords.set_item("thread_name_prefix", "asyncio")?;
    let executor = concurrent(py, "ThreadPoolExecutor")?.call((), Some(&keywords))?;
    state.executor.set(py, executor.clone());
    Ok(executor)
}

/// `set_default_executor(executor)`.
pub(super) fn set_default<'py>(this: &Bound<'py, EventLoop>, executor: Bound<'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    if !executor.is_instance(&concurrent(py, "ThreadPoolExecutor")?)? {
        return Err(PyTypeError::new_err("executor must be ThreadPoolExecutor instance"));
    }
    this.get().executor.replace(py, Some(executor));
    Ok(())
}

/// Ends the default executor without waiting for it, when the loop is closed.
pub(super) fn close(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let (py, state) = (this.py(), &this.get().executor);
    state.shut_down.set(true);
    match state.executor.take(py) {
        Some(executor) => shut_down(&executor, false),
        None => Ok(()),
    }
}

fn shut_down(executor: &Bound<'_, PyAny>, wait: bool) -> PyResult<()> {
    let keywords = PyDict::new(executor.py());
    keywords.set_item("wait", wait)?;
    executor.call_method(intern!(executor.py(), "shutdown"), (), Some(&keywords)).map(drop)
}

// --- the end -----------------------------------------------------------------------------------

/// `shutdown_default_executor(timeout=None)`.
pub(super) fn shutdown_default<'py>(
    this: &Bound<'py, EventLoop>,
    timeout: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (event_loop, timeout) = (this.clone().unbind(), timeout.map(Bound::unbind));
    async_fn::coroutine(this.py(), "BaseEventLoop.shutdown_default_executor", join(event_loop, timeout))
}

async fn join(event_loop: Py<EventLoop>, timeout: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
    let begun = attached(|py| begin(event_loop.bind(py), timeout.as_ref().map(|t| t.bind(py))))?;
    let Some(Joining { thread, end, timer }) = begun else { return async_fn::none() };
    let ended = async_fn::wait(attached(|py| end.clone_ref(py))).await;
    attached(|py| {
        if let Some(timer) = timer {
            timer.call_method0(py, "cancel")?;
        }
        let is_late = ended?.bind(py).is(end.bind(py));
        if !is_late {
            thread.call_method0(py, "join")?;
            return Ok(());
        }
        let timeout = timeout.unwrap_or_else(|| py.None());
        let text = format!("The executor did not finishing joining its threads within {timeout} seconds.");
        let category = py.get_type::<PyRuntimeWarning>();
        py.import("warnings")?.call_method1(intern!(py, "warn"), (text, category, 2))?;
        match event_loop.bind(py).get().executor.get(py) {
            Some(executor) => shut_down(&executor, false),
            None => Ok(()),
        }
    })?;
    async_fn::none()
}

/// An executor that is being shut down by a thread.
struct Joining {
    thread: Py<PyAny>,
    /// Completed by the thread; by the timer with itself as the result.
    end: Py<PyAny>,
    timer: Option<Py<PyAny>>,
}

fn begin(this: &Bound<'_, EventLoop>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Joining>> {
    let (py, state) = (this.py(), &this.get().executor);
    state.shut_down.set(true);
    if state.executor.get(py).is_none() {
        return Ok(None);
    }
    let end = futures::new(this.as_any())?;
    let keywords = PyDict::new(py);
    keywords.set_item("target", this.getattr(intern!(py, "_do_shutdown"))?)?;
    keywords.set_item("args", (&end,))?;
    let thread = py.import("threading")?.getattr(intern!(py, "Thread"))?.call((), Some(&keywords))?;
    thread.call_method0(intern!(py, "start"))?;
    let timer = match timeout.filter(|t| !t.is_none()) {
        Some(timeout) => {
            let late = wrap_pyfunction!(_too_late, py)?;
            Some(this.call_method1(intern!(py, "call_later"), (timeout, late, &end))?.unbind())
        }
        None => None,
    };
    Ok(Some(Joining { thread: thread.unbind(), end: end.unbind(), timer }))
}

#[pyfunction]
fn _too_late(end: &Bound<'_, PyAny>) -> PyResult<()> {
    match Fut::cast(end) {
        Some(future) if future.is_pending() => futures::set_result(future, end.clone()),
        _ => Ok(()),
    }
}

/// `_do_shutdown(future)`: waits for the executor, in a thread of its own.
pub(super) fn do_shutdown(this: &Bound<'_, EventLoop>, future: &Bound<'_, PyAny>) -> PyResult<()> {
    let (py, core) = (this.py(), EventLoop::core(this));
    let Some(executor) = this.get().executor.get(py) else { return Ok(()) };
    let result = shut_down(&executor, true);
    if core.is_closed() {
        return Ok(());
    }
    match result {
        Ok(()) => core.remote().push(Job::Complete(future.clone().unbind())),
        Err(error) => {
            if !future.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
                let set = future.getattr(intern!(py, "set_exception"))?;
                this.call_method1(intern!(py, "call_soon_threadsafe"), (set, error.into_value(py)))?;
            }
        }
    }
    Ok(())
}

// --- concurrent futures ------------------------------------------------------------------------

/// `asyncio.wrap_future(future, *, loop=None)`.
fn wrap_future_function<'py>(args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    const SIGNATURE: Signature = Signature {
        name: "wrap_future",
        positional: &["future"],
        required: 1,
        positional_only: 0,
        keyword_only: &["loop"],
    };
    let [future, event_loop] = SIGNATURE.bind::<2>(args)?;
    let Some(future) = future else { return Err(PyTypeError::new_err("wrap_future() needs a future")) };
    let py = args.py();
    if anyfuture::is_future(&future)? {
        return Ok(future.to_owned());
    }
    let event_loop = match given(event_loop) {
        Some(event_loop) => event_loop,
        None => futures::current_event_loop(py)?,
    };
    if EventLoop::of(&event_loop).is_some() {
        return wrap_future(&event_loop, &future);
    }
    // Another loop: as asyncio does it, by `call_soon_threadsafe`.
    check_concurrent(&future)?;
    let target = event_loop.call_method0(intern!(py, "create_future"))?;
    asyncio(py).futures.bind(py).call_method1(intern!(py, "_chain_future"), (future, &target))?;
    Ok(target)
}

fn check_concurrent(future: &Bound<'_, PyAny>) -> PyResult<()> {
    if future.is_instance(&concurrent(future.py(), "Future")?)? {
        return Ok(());
    }
    let text = format!("concurrent.futures.Future is expected, got {}", future.repr()?);
    Err(PyAssertionError::new_err(text))
}

/// Makes the function.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let function = function::function(module.py(), "asyncio.futures", "wrap_future", wrap_future_function)?;
    module.add("wrap_future", function)
}

/// `asyncio.wrap_future(future, loop=event_loop)` for a native loop.
pub(crate) fn wrap_future<'py>(
    event_loop: &Bound<'py, PyAny>,
    source: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    if Fut::cast_any(source).is_some() || anyfuture::is_future(source)? {
        return Ok(source.clone());
    }
    check_concurrent(source)?;
    let target = event_loop.call_method0(intern!(py, "create_future"))?;
    let courier = Courier {
        event_loop: Slot::holding(event_loop.clone().unbind()),
        source: Slot::holding(source.clone().unbind()),
        target: Slot::holding(target.clone().unbind()),
        context: Slot::holding(context::copy_current(py)?.unbind()),
        is_sent: Flag::new(false),
    };
    let courier = Bound::new(py, courier)?;
    target.call_method1(intern!(py, "add_done_callback"), (&courier,))?;
    source.call_method1(intern!(py, "add_done_callback"), (&courier,))?;
    Ok(target)
}

/// The done-callback of both futures: of the concurrent one to bring its state home, of the asyncio one to cancel
/// the other when it is cancelled.
#[pyclass(frozen, module = "aioxide._core")]
#[derive(Debug)]
struct Courier {
    event_loop: Slot,
    source: Slot,
    target: Slot,
    context: Slot,
    is_sent: Flag<bool>,
}

#[pymethods]
impl Courier {
    fn __call__(slf: &Bound<'_, Self>, done: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let (Some(event_loop), Some(target)) = (this.event_loop.get(py), this.target.get(py)) else {
            return Ok(());
        };
        if done.is(&target) {
            return this.cancel_source(py, &target);
        }
        let is_here = thread::running_loop(py)?.is_some_and(|running| running.is(&event_loop));
        if this.is_sent.get() || is_here {
            return this.copy_state(py, &target, done);
        }
        let (Some(core), Some(context)) = (LoopCore::of(&event_loop), this.context.get(py)) else {
            return Ok(());
        };
        if !core.is_closed() {
            this.is_sent.set(true);
            let (callback, future) = (slf.clone().into_any().unbind(), done.clone().unbind());
            core.remote().push(Job::Callback { callback, future, context: context.unbind() });
        }
        Ok(())
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        traverse_pyclass(&visit, |v| {
            [&self.event_loop, &self.source, &self.target, &self.context]
                .into_iter()
                .try_for_each(|s| s.traverse(v))
        })
    }

    fn __clear__(&self) {
        attached(|py| self.forget(py));
    }
}

impl Courier {
    fn forget(&self, py: Python<'_>) {
        drop((self.event_loop.take(py), self.source.take(py), self.target.take(py), self.context.take(py)));
    }

    /// The asyncio future is done.
    fn cancel_source(&self, py: Python<'_>, target: &Bound<'_, PyAny>) -> PyResult<()> {
        if target.call_method0(intern!(py, "cancelled"))?.is_truthy()?
            && let Some(source) = self.source.get(py)
        {
            source.call_method0(intern!(py, "cancel"))?;
        }
        Ok(())
    }

    /// In the loop's thread: the asyncio future becomes what the concurrent one is.
    fn copy_state(
        &self,
        py: Python<'_>,
        target: &Bound<'_, PyAny>,
        source: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.forget(py);
        match Fut::cast(target) {
            Some(future) if !future.is_pending() => return Ok(()),
            None if target.call_method0(intern!(py, "done"))?.is_truthy()? => return Ok(()),
            _ => {}
        }
        match outcome(source)? {
            Outcome::Cancelled => target.call_method0(intern!(py, "cancel")).map(drop),
            Outcome::Failed(error) => {
                target.call_method1(intern!(py, "set_exception"), (ours(error)?,)).map(drop)
            }
            Outcome::Returned(result) => match Fut::cast_exact(target) {
                Some(future) => futures::set_result(future, result),
                None => target.call_method1(intern!(py, "set_result"), (result,)).map(drop),
            },
        }
    }
}

enum Outcome<'py> {
    Cancelled,
    Failed(Bound<'py, PyAny>),
    Returned(Bound<'py, PyAny>),
}

/// How a concurrent future ended. A plain one that is done changes no more, so its fields are read without its lock.
fn outcome<'py>(source: &Bound<'py, PyAny>) -> PyResult<Outcome<'py>> {
    static PLAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = source.py();
    let plain = PLAIN.get_or_try_init(py, || concurrent(py, "Future").map(Bound::unbind))?;
    if source.get_type().is(plain.bind(py)) {
        let error = source.getattr(intern!(py, "_exception"))?;
        if !error.is_none() {
            return Ok(Outcome::Failed(error));
        }
        if source.getattr(intern!(py, "_state"))?.eq(intern!(py, "FINISHED"))? {
            return Ok(Outcome::Returned(source.getattr(intern!(py, "_result"))?));
        }
        return Ok(Outcome::Cancelled);
    }
    if source.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
        return Ok(Outcome::Cancelled);
    }
    let error = source.call_method0(intern!(py, "exception"))?;
    if error.is_none() {
        return source.call_method0(intern!(py, "result")).map(Outcome::Returned);
    }
    Ok(Outcome::Failed(error))
}

/// concurrent.futures' own exceptions as asyncio's of the same name.
fn ours(error: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let py = error.py();
    let class = error.get_type();
    let table: [(&str, &Py<PyType>); 2] = [
        ("CancelledError", &names(py).cancelled_error),
        ("InvalidStateError", &names(py).invalid_state_error),
    ];
    for (name, twin) in table {
        if class.is(&concurrent(py, name)?) {
            let args = error.getattr(intern!(py, "args"))?.cast_into::<PyTuple>()?;
            let twin = twin.bind(py).call1(args)?;
            return twin.call_method1(
                intern!(py, "with_traceback"),
                (error.getattr(intern!(py, "__traceback__"))?,),
            );
        }
    }
    Ok(error)
}
