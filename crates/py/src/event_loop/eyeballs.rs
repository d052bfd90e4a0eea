//! Happy eyeballs: attempts to connect with staggered starts, of which the first that succeeds wins.
//!
//! Called by connect.rs. When to start which attempt is core's `Race`; here each attempt is a task, and none of them,
//! nor its socket, outlives the race.

use aioxide_core::race::{Next, Race};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyList};

use super::connect::{Dialled, attempt, close_quietly};
use crate::async_fn::{self, attached, coroutine};
use crate::futures;
use crate::local::LoopCore;
use crate::names::names;

/// The attempts of a race, each a task; told apart by number.
struct Attempts {
    tasks: Vec<Py<PyAny>>,
    /// Which of them have been looked at since they ended.
    seen: Vec<bool>,
    errors: Vec<PyErr>,
    sock: Option<Py<PyAny>>,
}

/// Attempts with staggered starts; the first socket that connects wins.
pub(super) async fn staggered(
    event_loop: &Py<PyAny>,
    infos: Vec<Py<PyAny>>,
    local: Option<Vec<Py<PyAny>>>,
    delay: f64,
) -> PyResult<Dialled> {
    let mut race = Race::new(infos.len(), Some(delay));
    let mut attempts = Attempts { tasks: Vec::new(), seen: Vec::new(), errors: Vec::new(), sock: None };
    let result = run_race(event_loop, &infos, local.as_deref(), &mut race, &mut attempts).await;
    // Whoever still runs is stopped, and waited for: its socket must not outlive this call.
    for task in &attempts.tasks {
        attached(|py| task.call_method0(py, intern!(py, "cancel")))?;
    }
    let mut outcome = result;
    loop {
        let rung =
            attached(|py| attempts.collect(py, &mut race).and_then(|()| attempts.bell(py, event_loop)))?;
        let Some(rung) = rung else { break };
        if let Err(error) = async_fn::wait(rung).await {
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
        let timer = match race.next(now) {
            Next::Won(_) | Next::Lost => return Ok(()),
            Next::Start(number) => {
                attached(|py| attempts.start(py, event_loop, &infos[number], local))?;
                continue;
            }
            Next::Wait => None,
            Next::WaitUntil(when) => Some(when - now),
        };
        let Some(bell) = attached(|py| attempts.bell(py, event_loop))? else { continue };
        let alarm = match timer {
            Some(seconds) => Some(attached(|py| set_alarm(py, event_loop, &bell, seconds))?),
            None => None,
        };
        let result = async_fn::wait(bell).await;
        if let Some(alarm) = alarm {
            attached(|py| alarm.call_method0(py, intern!(py, "cancel")))?;
        }
        result?;
    }
}

/// Rings the bell after some time.
fn set_alarm(py: Python<'_>, event_loop: &Py<PyAny>, bell: &Py<PyAny>, seconds: f64) -> PyResult<Py<PyAny>> {
    let ring = ringer(py, bell)?;
    event_loop.call_method1(py, intern!(py, "call_later"), (seconds, ring))
}

/// A callable that completes the future, whatever it is called with.
fn ringer<'py>(py: Python<'py>, bell: &Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let bell = bell.clone_ref(py);
    let ring = PyCFunction::new_closure(py, None, None, move |args, _| -> PyResult<()> {
        let py = args.py();
        let bell = bell.bind(py);
        if !bell.call_method0(intern!(py, "done"))?.is_truthy()? {
            bell.call_method1(intern!(py, "set_result"), (py.None(),))?;
        }
        Ok(())
    })?;
    Ok(ring.into_any())
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
        let body = coroutine(py, "EventLoop._connect_sock", async move {
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
        self.tasks.push(event_loop.bind(py).call_method1(intern!(py, "create_task"), (body,))?.unbind());
        self.seen.push(false);
        Ok(())
    }

    /// Looks at the attempts that have ended.
    fn collect(&mut self, py: Python<'_>, race: &mut Race) -> PyResult<()> {
        for (number, task) in self.tasks.iter().enumerate() {
            let task = task.bind(py);
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

    /// A future that is completed when one of the running attempts ends; nothing when none runs.
    fn bell(&self, py: Python<'_>, event_loop: &Py<PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let running: Vec<_> =
            self.tasks.iter().zip(&self.seen).filter(|(_, seen)| !**seen).map(|(t, _)| t).collect();
        if running.is_empty() {
            return Ok(None);
        }
        let bell = futures::new(event_loop.bind(py))?.unbind();
        let ring = ringer(py, &bell)?;
        for task in running {
            task.call_method1(py, intern!(py, "add_done_callback"), (&ring,))?;
        }
        Ok(Some(bell))
    }
}
