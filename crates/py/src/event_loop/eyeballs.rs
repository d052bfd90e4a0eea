//! Happy eyeballs: attempts to connect with staggered starts, of which the first that succeeds wins.
//!
//! Called by connect.rs. When to start which attempt is core's `Race`; here each attempt is a task, and none of them,
//! nor its socket, outlives the race.

use aioxide_core::race::{Next, Race};
use pyo3::exceptions::{PyGeneratorExit, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::connect::{Dialled, attempt, close_quietly};
use crate::async_fn::{self, attached, coroutine};
use crate::local::LoopCore;
use crate::names::{asyncio, names};

/// What is known of the attempts of a race. Their tasks are in a list, the root of the coroutine that races.
struct Attempts {
    /// Which of the tasks have been looked at since they ended.
    seen: Vec<bool>,
    errors: Vec<PyErr>,
    sock: Option<Py<PyAny>>,
}

fn tasks(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    Ok(async_fn::root(py)?.cast_into()?)
}

/// Attempts with staggered starts; the first socket that connects wins. The root of the running coroutine is an empty
/// list.
pub(super) async fn staggered(
    event_loop: &Py<PyAny>,
    infos: Vec<Py<PyAny>>,
    local: Option<Vec<Py<PyAny>>>,
    delay: f64,
) -> PyResult<Dialled> {
    let mut race = Race::new(infos.len(), Some(delay));
    let mut attempts = Attempts { seen: Vec::new(), errors: Vec::new(), sock: None };
    let mut outcome = run_race(event_loop, &infos, local.as_deref(), &mut race, &mut attempts).await;
    if let Err(error) = &outcome
        && attached(|py| error.is_instance_of::<PyGeneratorExit>(py))
    {
        return outcome.map(|()| (None, Vec::new())); // closed: there may be no loop to wait in
    }
    // Whoever still runs is stopped, and waited for: its socket must not outlive this call.
    attached(|py| tasks(py)?.iter().try_for_each(|task| task.call_method0(intern!(py, "cancel")).map(drop)))?;
    loop {
        let running =
            attached(|py| attempts.collect(py, &mut race).and_then(|()| attempts.running(py, None)))?;
        let Some(running) = running else { break };
        if let Err(error) = async_fn::wait(running).await {
            outcome = Err(error);
        }
    }
    match outcome {
        Ok(()) => Ok((attempts.sock, attempts.errors)),
        Err(error) => {
            if let Some(sock) = attempts.sock {
                attached(|py| close_quietly(sock.bind(py)));
            }
            Err(error)
        }
    }
}

async fn run_race(
    event_loop: &Py<PyAny>,
    infos: &[Py<PyAny>],
    local: Option<&[Py<PyAny>]>,
    race: &mut Race,
    attempts: &mut Attempts,
) -> PyResult<()> {
    loop {
        attached(|py| attempts.collect(py, race))?;
        let now = attached(|py| LoopCore::of(event_loop.bind(py)).map_or(0.0, LoopCore::now));
        let seconds = match race.next(now) {
            Next::Won(_) | Next::Lost => return Ok(()),
            Next::Start(number) => {
                attached(|py| attempts.start(py, event_loop, &infos[number], local))?;
                continue;
            }
            Next::Wait => None,
            Next::WaitUntil(when) => Some(when - now),
        };
        if let Some(running) = attached(|py| attempts.running(py, seconds))? {
            async_fn::wait(running).await?;
        }
    }
}

impl Attempts {
    /// Starts the next attempt.
    fn start(
        &mut self,
        py: Python<'_>,
        event_loop: &Py<PyAny>,
        info: &Py<PyAny>,
        local: Option<&[Py<PyAny>]>,
    ) -> PyResult<()> {
        let (own_loop, info) = (event_loop.clone_ref(py), info.clone_ref(py));
        let local: Option<Vec<_>> = local.map(|l| l.iter().map(|info| info.clone_ref(py)).collect());
        let body = coroutine(py, "BaseEventLoop._connect_sock", async move {
            let mut errors = Vec::new();
            let result = attempt(&own_loop, &info, local.as_deref(), &mut errors).await;
            // (the socket or None, the errors): a task's exception would be reported as never retrieved.
            attached(|py| {
                let sock = match result {
                    Ok(sock) => sock,
                    Err(error) if error.is_instance_of::<PyOSError>(py) => {
                        errors.push(error);
                        py.None()
                    }
                    Err(error) => return Err(error),
                };
                let errors = PyList::new(py, errors.into_iter().map(|error| error.into_value(py)))?;
                Ok((sock, errors).into_pyobject(py)?.into_any().unbind())
            })
        })?;
        tasks(py)?.append(event_loop.bind(py).call_method1(intern!(py, "create_task"), (body,))?)?;
        self.seen.push(false);
        Ok(())
    }

    /// Looks at the attempts that have ended.
    fn collect(&mut self, py: Python<'_>, race: &mut Race) -> PyResult<()> {
        for (number, task) in tasks(py)?.iter().enumerate() {
            if self.seen[number] || !task.call_method0(intern!(py, "done"))?.is_truthy()? {
                continue;
            }
            self.seen[number] = true;
            match task.call_method0(intern!(py, "result")) {
                Ok(result) => {
                    let sock = result.get_item(0)?;
                    for error in result.get_item(1)?.try_iter()? {
                        self.errors.push(PyErr::from_value(error?));
                    }
                    if sock.is_none() {
                        race.failed(number);
                    } else if race.succeeded(number) {
                        self.sock = Some(sock.unbind());
                    } else {
                        close_quietly(&sock); // two connected in the same turn
                    }
                }
                Err(error) if error.is_instance(py, names(py).cancelled_error.bind(py)) => {
                    race.failed(number);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What to wait for until one of the running attempts ends or some time has passed; nothing when none runs.
    fn running(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        let tasks = tasks(py)?;
        let running: Vec<_> =
            tasks.iter().zip(&self.seen).filter(|(_, seen)| !**seen).map(|(task, _)| task).collect();
        if running.is_empty() {
            return Ok(None);
        }
        let keywords = PyDict::new(py);
        keywords.set_item("timeout", seconds)?;
        keywords.set_item("return_when", "FIRST_COMPLETED")?;
        let wait = asyncio(py).tasks.bind(py).getattr(intern!(py, "wait"))?;
        Ok(Some(wait.call((running,), Some(&keywords))?.unbind()))
    }
}
