//! What this build is, and what the kernel offers it: the native half of `aioxide doctor`. Changes nothing.

use aioxide_sys::kernel;
use pyo3::prelude::*;

/// `_profile()`: with which of cargo's profiles this was built ("release" is the fast one), or "pgo" for that one trained.
#[pyfunction]
fn _profile() -> &'static str {
    env!("AIOXIDE_PROFILE")
}

/// `_kernel_calls()`: the system calls that aioxide has a use for, each with the number of the error that stands in the
/// way, or 0.
#[pyfunction]
fn _kernel_calls() -> Vec<(&'static str, i32)> {
    kernel::calls()
}

/// Makes the functions.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_profile, module)?)?;
    module.add_function(wrap_pyfunction!(_kernel_calls, module)?)
}
