//! Who tells that a child process has ended: the loop by its poller, where the kernel and the program let it.
//!
//! Where there is no pidfd (old kernels, filters of containers, no descriptor left) a thread of asyncio's own waits
//! instead. On Python 3.13 and before a program may have set a child watcher; one that is more than asyncio's two
//! plain ones is asked, as asyncio asks it.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::names::{asyncio, none};
use crate::transports::process;
use crate::version;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// Who watches the next child.
pub(super) enum Watcher<'py> {
    /// The loop.
    Own,
    /// What the program has set.
    Set(Bound<'py, PyAny>),
}

/// Runs `spawn` with the watcher for the child that it is going to start, made ready for it.
pub(super) fn around<'py>(
    py: Python<'py>,
    spawn: impl FnOnce(&Watcher<'py>) -> PyResult<()>,
) -> PyResult<()> {
    let Some(watcher) = set_by_program(py)? else { return spawn(&Watcher::Own) };
    watcher.call_method0(intern!(py, "__enter__"))?;
    let result = if watcher.call_method0(intern!(py, "is_active"))?.is_truthy()? {
        spawn(&Watcher::Set(watcher.clone()))
    } else {
        let text = "asyncio.get_child_watcher() is not activated, subprocess support is not installed.";
        Err(PyRuntimeError::new_err(text))
    };
    let left = watcher.call_method1(intern!(py, "__exit__"), (none(py), none(py), none(py)));
    result.and(left.map(drop))
}

/// The child watcher that the program has set, if it does more than tell the end of a process.
fn set_by_program(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    if !version::CHILD_WATCHERS {
        return Ok(None);
    }
    let policy = crate::names::names(py).get_event_loop_policy.bind(py).call0()?;
    let Some(watcher) = policy.getattr_opt(intern!(py, "_watcher"))?.filter(|w| !w.is_none()) else {
        return Ok(None);
    };
    let events = asyncio(py).unix_events.bind(py);
    for plain in ["PidfdChildWatcher", "ThreadedChildWatcher"] {
        if watcher.get_type().is(&events.getattr(plain)?) {
            return Ok(None);
        }
    }
    Ok(Some(watcher))
}

impl Watcher<'_> {
    /// Watches a process that has just been started. If that can't be, the process is ended here and now.
    pub(super) fn watch(&self, transport: &Bound<'_, PyAny>, process: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = transport.py();
        let Some(this) = process::This::cast(transport) else { return Ok(()) };
        let watched = match self {
            Self::Own => match this.watch() {
                Ok(true) => Ok(()),
                Ok(false) => threads(py).and_then(|threads| by(&threads, transport)),
                Err(error) => Err(error),
            },
            Self::Set(watcher) => by(watcher, transport),
        };
        watched.inspect_err(|_| {
            // The first error is the one to tell.
            let _ = this.give_up_pipes().and(this.close());
            let _ = process.call_method0(intern!(py, "wait")); // it has been killed
        })
    }
}

/// `watcher.add_child_handler(pid, callback)`.
fn by(watcher: &Bound<'_, PyAny>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = transport.py();
    let pid = transport.call_method0(intern!(py, "get_pid"))?;
    let callback = transport.getattr(intern!(py, "_process_ended"))?;
    watcher.call_method1(intern!(py, "add_child_handler"), (pid, callback)).map(drop)
}

/// asyncio's watcher that has a thread for each child.
fn threads(py: Python<'_>) -> Object<'_> {
    static THREADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let threads = THREADS.get_or_try_init(py, || {
        let events = asyncio(py).unix_events.bind(py);
        let class = match events.getattr_opt("_ThreadedChildWatcher")? {
            Some(class) => class,
            None => events.getattr("ThreadedChildWatcher")?,
        };
        class.call0().map(Bound::unbind)
    })?;
    Ok(threads.bind(py).clone())
}
