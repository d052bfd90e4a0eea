//! Calls that block for a moment, as asyncio makes them too: through Python functions that say that they are asyncio's.
//! (python/aioxide/_blocking.py tells what for.)

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// Where asyncio makes the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    SubprocessExec,
    SubprocessShell,
    CreateUnixServer,
    StopServing,
}

impl Place {
    const fn name(self) -> &'static str {
        match self {
            Self::SubprocessExec => "subprocess_exec",
            Self::SubprocessShell => "subprocess_shell",
            Self::CreateUnixServer => "create_unix_server",
            Self::StopServing => "stop_serving",
        }
    }

    /// The function that makes a call there: of its first argument, with the others.
    pub(crate) fn of(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
        let import = || py.import("aioxide._blocking").map(Bound::unbind);
        MODULE.get_or_try_init(py, import)?.bind(py).getattr(self.name())
    }
}
