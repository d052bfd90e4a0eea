//! Debug mode: slow callbacks are logged, and coroutines remember where they were made.
//!
//! turn.rs runs each job through [`run`] while the mode is on. Also here: asyncio's logger, for everybody.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::EventLoop;
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::{context, origins};
use crate::handles;
use crate::job::Job;
use crate::names::asyncio;
use crate::transports::Source;

/// What debug mode keeps.
#[derive(Debug)]
pub(super) struct Debug {
    /// `slow_callback_duration`, in seconds.
    slow: Flag<f64>,
    /// The Handle that runs now, in debug mode.
    current: Slot,
    /// The interpreter's depth of coroutine origins before this loop changed it.
    depth_before: Flag<Option<i32>>,
}

impl Default for Debug {
    fn default() -> Self {
        Self { slow: Flag::new(0.1), current: Slot::empty(), depth_before: Flag::new(None) }
    }
}

impl Debug {
    /// The Handle that runs now, if debug mode is on.
    pub(super) fn current_handle<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.current.get(py)
    }

    pub(super) fn slow_callback_duration(&self) -> f64 {
        self.slow.get()
    }

    pub(super) fn set_slow_callback_duration(&self, seconds: f64) {
        self.slow.set(seconds);
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.current.traverse(visit)
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        drop(self.current.take(py));
    }
}

/// The logger "asyncio". Looked up once: reports also come while the interpreter shuts down and imports nothing more.
pub(crate) fn logger(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static LOGGER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let logger = LOGGER
        .get_or_try_init(py, || asyncio(py).log.bind(py).getattr(intern!(py, "logger")).map(Bound::unbind))?;
    Ok(logger.bind(py).clone())
}

/// Whether new loops start in debug mode: -X dev or PYTHONASYNCIODEBUG.
pub(super) fn is_default(py: Python<'_>) -> PyResult<bool> {
    asyncio(py).coroutines.bind(py).call_method0(intern!(py, "_is_debug_mode"))?.is_truthy()
}

/// `set_debug(enabled)`.
pub(super) fn set(this: &Bound<'_, EventLoop>, enabled: bool) -> PyResult<()> {
    let core = EventLoop::core(this);
    core.set_debug(enabled);
    if core.thread() != 0 {
        // Origins are tracked by thread, so the thread that runs the loop has to say so.
        let track = this.getattr(intern!(this.py(), "_set_coroutine_origin_tracking"))?;
        this.call_method1(intern!(this.py(), "call_soon_threadsafe"), (track, enabled))?;
    }
    Ok(())
}

/// Lets coroutines remember where they were made, or no longer.
pub(super) fn track_origins(this: &Bound<'_, EventLoop>, enabled: bool) -> PyResult<()> {
    let (py, before) = (this.py(), &this.get().debug.depth_before);
    if enabled == before.get().is_some() {
        return Ok(());
    }
    let sys = py.import("sys")?;
    let depth = match before.get() {
        None => {
            before
                .set(Some(sys.call_method0(intern!(py, "get_coroutine_origin_tracking_depth"))?.extract()?));
            asyncio(py).constants.bind(py).getattr(intern!(py, "DEBUG_STACK_DEPTH"))?.extract()?
        }
        Some(depth) => {
            before.set(None);
            depth
        }
    };
    sys.call_method1(intern!(py, "set_coroutine_origin_tracking_depth"), (depth,))?;
    origins::want(enabled);
    Ok(())
}

/// What a slow job shows.
enum Subject {
    Handle(Py<PyAny>),
    Object(Py<PyAny>),
    Callback { callback: Py<PyAny>, future: Py<PyAny> },
    Nothing,
}

impl Subject {
    fn of(this: &Bound<'_, EventLoop>, job: &Job) -> Self {
        let py = this.py();
        match job {
            Job::Handle(handle) => Self::Handle(handle.clone_ref(py)),
            Job::Step(task) | Job::Throw { task, .. } | Job::Wake { task, .. } => {
                Self::Object(task.clone_ref(py))
            }
            Job::Callback { callback, future, .. } => {
                Self::Callback { callback: callback.clone_ref(py), future: future.clone_ref(py) }
            }
            Job::Hook { hook: owner, .. } | Job::Expire { owner, .. } => Self::Object(owner.clone_ref(py)),
            Job::Connected { transport, .. } | Job::Lost { transport, .. } => {
                Self::Object(transport.clone_ref(py))
            }
            Job::Complete(future) => Self::Object(future.clone_ref(py)),
            Job::Io(key, _) => match this.get().source(py, *key).and_then(|s: Source| s.transport(py)) {
                Some(transport) => Self::Object(transport.unbind()),
                None => Self::Nothing,
            },
        }
    }

    /// As asyncio formats it: a task's callback shows the task, any other its Handle.
    fn show(&self, this: &Bound<'_, EventLoop>) -> PyResult<String> {
        let py = this.py();
        let handle = match self {
            Self::Handle(handle) => handle.bind(py).clone(),
            Self::Object(object) => return Ok(object.bind(py).repr()?.to_string()),
            Self::Callback { callback, future } => {
                let args = pyo3::types::PyTuple::new(py, [future])?;
                handles::for_report(
                    this.as_any(),
                    callback.bind(py).clone(),
                    args,
                    context::copy_current(py)?,
                )?
            }
            Self::Nothing => return Ok("input or output".to_owned()),
        };
        let callback = handle.getattr(intern!(py, "_callback"))?;
        if let Some(receiver) = callback.getattr_opt(intern!(py, "__self__"))?
            && receiver.is_instance(&asyncio(py).tasks.bind(py).getattr(intern!(py, "Task"))?)?
        {
            return Ok(receiver.repr()?.to_string());
        }
        Ok(handle.str()?.to_string())
    }
}

/// Runs a job and logs it if it took too long.
pub(super) fn run(
    this: &Bound<'_, EventLoop>,
    job: Job,
    run: impl FnOnce(&Bound<'_, EventLoop>, Job) -> PyResult<()>,
) -> PyResult<()> {
    let (py, core, debug) = (this.py(), EventLoop::core(this), &this.get().debug);
    let subject = Subject::of(this, &job);
    let current = if let Subject::Handle(handle) = &subject { Some(handle.bind(py).clone()) } else { None };
    drop(debug.current.replace(py, current));
    let started = core.now();
    let result = run(this, job);
    let seconds = core.now() - started;
    drop(debug.current.take(py));
    result?;
    if seconds >= debug.slow.get() {
        let arguments = ("Executing %s took %.3f seconds", subject.show(this)?, seconds);
        logger(py)?.call_method1(intern!(py, "warning"), arguments)?;
    }
    Ok(())
}
