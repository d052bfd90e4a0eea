//! Seeing inside a running program: its tasks and what they wait for.
//!
//! `tasks` takes the picture, `chain` follows coroutines, `subject` says what is waited for, `running` knows the loops,
//! `json` writes it down; `watchdog` looks when a loop does not come back, `trace` records what happens all the time.
//! `picture` is all that for those outside, whom `serve` and `web` answer. Nothing here changes what it looks at, and
//! nothing shows the values of variables.

pub(crate) mod accounts;
mod chain;
mod http;
mod intrude;
pub(crate) mod json;
mod measures;
mod picture;
pub(crate) mod running;
mod serve;
mod subject;
mod tasks;
pub(crate) mod trace;
pub(crate) mod watchdog;
mod web;

use pyo3::prelude::*;

/// `_tasks(event_loop=None)`: the tasks of a loop, or of every loop that runs, as JSON.
#[pyfunction]
#[pyo3(signature = (event_loop = None))]
fn _tasks(py: Python<'_>, event_loop: Option<Bound<'_, PyAny>>) -> PyResult<String> {
    let loops = tasks::snapshot(py, event_loop, None)?;
    let mut json = json::Json::new();
    tasks::write(&loops, &mut json);
    Ok(json.into_text())
}

/// Makes the functions.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_tasks, module)?)?;
    module.add_function(wrap_pyfunction!(accounts::_keep_accounts, module)?)?;
    module.add_function(wrap_pyfunction!(measures::_metrics, module)?)?;
    module.add_function(wrap_pyfunction!(serve::_serve_start, module)?)?;
    module.add_function(wrap_pyfunction!(serve::_serve_stop, module)?)?;
    module.add_function(wrap_pyfunction!(serve::_serve_forked, module)?)?;
    module.add_function(wrap_pyfunction!(web::_web_start, module)?)?;
    module.add_function(wrap_pyfunction!(web::_web_stop, module)?)?;
    module.add_function(wrap_pyfunction!(web::_web_forked, module)?)?;
    module.add_function(wrap_pyfunction!(intrude::_throw, module)?)?;
    module.add_function(wrap_pyfunction!(trace::_trace_start, module)?)?;
    module.add_function(wrap_pyfunction!(trace::_trace_stop, module)?)?;
    module.add_function(wrap_pyfunction!(trace::_trace_forked, module)?)?;
    module.add_function(wrap_pyfunction!(watchdog::_watchdog_start, module)?)?;
    module.add_function(wrap_pyfunction!(watchdog::_watchdog_stop, module)?)?;
    module.add_function(wrap_pyfunction!(watchdog::_watchdog_forked, module)?)?;
    module.add_function(wrap_pyfunction!(watchdog::_stalls, module)?)
}
