//! Jobs as the Handles that asyncio has of them: for a program that has put its own `Handle._run` in the place, and for
//! whoever looks into `_ready` and `_scheduled`.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::{EventLoop, turn};
use crate::ffi::cell::GilCell;
use crate::ffi::context;
use crate::ffi::gc::traverse_pyclass;
use crate::ffi::thread::Here;
use crate::handles;
use crate::job::{Callback, Job};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// As [`turn::run`], by the `_run` of the job's Handle. What that raises ends the run of the loop: ours raises nothing else.
#[cold]
pub(super) fn run(this: &Bound<'_, EventLoop>, job: Job) -> PyResult<()> {
    let handle = handle_of(this, job)?;
    if handle.getattr(intern!(this.py(), "_cancelled"))?.is_truthy()? {
        return Ok(());
    }
    handle.call_method0(intern!(this.py(), "_run")).map(drop)
}

/// `_ready`: what runs next, the oldest first.
pub(super) fn ready<'py>(this: &Bound<'py, EventLoop>) -> PyResult<Bound<'py, PyTuple>> {
    let (py, core) = (this.py(), EventLoop::core(this));
    turn::admit_remote(py, core);
    let jobs =
        core.scheduler().with(py, |s| s.ready().iter().map(|job| job.clone_ref(py)).collect::<Vec<_>>());
    let all = jobs.into_iter().map(|job| handle_of(this, job)).collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(py, all)
}

/// `_scheduled`: what waits for its time, the next first.
pub(super) fn scheduled<'py>(this: &Bound<'py, EventLoop>) -> PyResult<Bound<'py, PyTuple>> {
    let (py, core) = (this.py(), EventLoop::core(this));
    let mut timers = core.scheduler().with(py, |scheduler| {
        scheduler.timers().entries().map(|(when, timed)| (when, timed.clone_ref(py))).collect::<Vec<_>>()
    });
    timers.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let timer_of = |(when, timed): (f64, crate::job::Timed)| {
        if handles::is_timer(timed.object().bind(py)) {
            handles::show(timed.object().bind(py));
            return Ok(timed.object().bind(py).clone());
        }
        let Callback { function, argument, .. } = callback_of(this, timed.into_job(py))?;
        handles::timer_of(when, &function, &PyTuple::new(py, argument)?, this.as_any())
    };
    PyTuple::new(py, timers.into_iter().map(timer_of).collect::<PyResult<Vec<_>>>()?)
}

fn handle_of<'py>(this: &Bound<'py, EventLoop>, job: Job) -> Object<'py> {
    let py = this.py();
    if let Job::Handle(handle) = job {
        handles::show(handle.bind(py));
        return Ok(handle.into_bound(py));
    }
    let Callback { function, argument, context } = callback_of(this, job)?;
    let context = context.map_or_else(|| context::copy_current(py), Ok)?;
    handles::for_job(this.as_any(), function, PyTuple::new(py, argument)?, context)
}

/// The job as a callable: of one that only the loop knows, under the name that asyncio has for its like.
fn callback_of<'py>(this: &Bound<'py, EventLoop>, job: Job) -> PyResult<Callback<'py>> {
    let py = this.py();
    let job = match job.into_callback(py)? {
        Ok(callback) => return Ok(callback),
        Err(job) => job,
    };
    let name = match &job {
        Job::Io(_, ready) if !ready.readable => "_write_ready",
        Job::Io(..) => "_read_ready",
        Job::Connected { .. } => "connection_made",
        Job::Lost { .. } => "_call_connection_lost",
        Job::Expire { .. } => "_on_timeout",
        _ => "_set_result_unless_cancelled",
    };
    let argument = if let Job::Complete(future) = &job { Some(future.bind(py).clone()) } else { None };
    let function = JobCall { event_loop: this.clone().unbind(), job: GilCell::new(Some(job)), name };
    Ok(Callback { function: Bound::new(py, function)?.into_any(), argument, context: None })
}

/// A job that only the loop knows, to be called once.
#[pyclass(frozen, module = "aioxide._core")]
struct JobCall {
    event_loop: Py<EventLoop>,
    job: GilCell<Option<Job>>,
    name: &'static str,
}

#[pymethods]
impl JobCall {
    #[pyo3(signature = (*_args))]
    fn __call__(&self, py: Python<'_>, _args: &Bound<'_, PyTuple>) -> PyResult<()> {
        match self.job.with(py, Option::take) {
            Some(job) => turn::run(self.event_loop.bind(py), Here::new(py), job),
            None => Ok(()),
        }
    }

    #[getter]
    fn __name__(&self) -> &'static str {
        self.name
    }

    #[getter]
    fn __qualname__(&self) -> &'static str {
        self.name
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.event_loop)?;
        traverse_pyclass(&visit, |v| {
            self.job.visit(|job| job.as_ref().map_or(Ok(()), |job| job.traverse(v))).unwrap_or(Ok(()))
        })
    }

    fn __clear__(&self) {
        crate::ffi::attach::attached(|py| drop(self.job.with(py, Option::take)));
    }
}
