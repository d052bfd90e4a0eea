//! Throwing an exception into a task that waits: how a deadlock is broken open.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::ffi::layout::{Fut, Tsk};
use crate::futures;
use crate::job::{self, Job};

/// `_throw(task, error)`: `error` is raised in the task where it waits.
#[pyfunction]
pub(super) fn _throw(task: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>) -> PyResult<()> {
    let Some(known) = Tsk::cast(task) else {
        return Err(PyTypeError::new_err("only tasks of aioxide can be thrown into"));
    };
    let Some(waiter) = known.fut_waiter() else {
        return Err(PyTypeError::new_err("the task waits for nothing"));
    };
    match Fut::cast_exact(&waiter) {
        Some(future) => {
            futures::remove_waiter(future, task)?;
            crate::tasks::step::discard_awaited_by(future, known)?;
        }
        // The end of what it waited for will find it elsewhere; a wake-up too many would be an error, so it gets the
        // only one.
        None => return Err(PyTypeError::new_err("the task waits for a future that isn't aioxide's")),
    }
    job::soon_for(known.fut(), Job::Throw { task: task.clone().unbind(), error: error.clone().unbind() })
}
