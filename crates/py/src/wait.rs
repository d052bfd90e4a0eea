//! `asyncio.wait`: until all, the first, or the first failure of some futures.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PySet, PyString, PyTuple};

use crate::alarm::{Alarm, When};
use crate::anyfuture::{self, Outcome, running_loop};
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, create};
use crate::ffi::iter::{Coroutine, Life, Step, reused};
use crate::ffi::layout::Fut;
use crate::ffi::{function, thread};
use crate::frame::{Frame, class};
use crate::job::Timed;
use crate::names::asyncio;
use crate::parked::Parked;
use crate::{hooks, tasks};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Created,
    Waiting,
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Until {
    All,
    First,
    FirstException,
}

/// `wait(fs, *, timeout=None, return_when=ALL_COMPLETED)`.
pub(crate) struct Wait {
    phase: Flag<Phase>,
    /// The argument, then the tuple of different futures.
    futures: Slot,
    timeout: Slot,
    return_when: Slot,
    until: Flag<Until>,
    left: Flag<usize>,
    /// The task that waits.
    task: Slot,
    parked: Parked,
    alarm: Alarm,
}

type This<'a, 'py> = Inst<'a, 'py, Wait>;

class!(Wait, c"aioxide._core.Wait", spare 64, [alarm, parked, futures, timeout, return_when, task]);

impl Frame for Wait {
    fn at(&self) -> Life {
        match self.phase.get() {
            Phase::Created => Life::Created,
            Phase::Waiting => Life::Suspended,
            Phase::Over => Life::Closed,
        }
    }

    fn end(&self) {
        self.phase.set(Phase::Over);
    }

    fn step<'py>(this: This<'_, 'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        match this.phase.replace(Phase::Over) {
            Phase::Created => begin(this),
            Phase::Waiting => {
                let result = error.map_or_else(|| this.parked.outcome(this.py()).map(drop), Err);
                let futures = this.leave()?;
                result?;
                sorted(&futures).map(Step::Return)
            }
            Phase::Over => Err(reused()),
        }
    }
}

impl Coroutine for Wait {
    fn qualname(_: This<'_, '_>) -> &'static str {
        "wait"
    }

    fn awaited<'py>(this: This<'_, 'py>) -> Option<Bound<'py, PyAny>> {
        this.parked.future(this.py())
    }

    fn waits_for<'py>(this: This<'_, 'py>) -> Option<(&'static str, Option<Bound<'py, PyAny>>)> {
        Some(("tasks", this.futures.get(this.py())))
    }

    fn life(this: This<'_, '_>) -> Life {
        this.at()
    }

    fn within(_: This<'_, '_>) -> &'static [&'static str] {
        &["_wait"]
    }
}

/// Checks the arguments, then watches the futures.
fn begin<'py>(this: This<'_, 'py>) -> PyResult<Step<'py>> {
    let py = this.py();
    let argument = this.futures.take(py).unwrap_or_else(|| py.None().into_bound(py));
    let return_when = this.return_when.take(py);
    if !is_collection(&argument) && (anyfuture::is_future(&argument)? || tasks::is_coroutine(&argument)?) {
        let class = argument.get_type().name()?;
        return Err(PyTypeError::new_err(format!("expect a list of futures, not {class}")));
    }
    if !argument.is_truthy()? {
        return Err(PyValueError::new_err("Set of Tasks/Futures is empty."));
    }
    let until = until(return_when.as_ref())?;
    let futures = distinct(&argument)?;
    for future in futures.iter_borrowed() {
        if !anyfuture::is_future(&future)? && tasks::is_coroutine(&future)? {
            return Err(PyTypeError::new_err("Passing coroutines is forbidden, use tasks explicitly."));
        }
    }
    let event_loop = running_loop(py)?;
    let waiter = anyfuture::create(&event_loop)?;
    if let Some(timeout) = this.timeout.take(py) {
        let when = When::after(&event_loop, &timeout)?;
        this.alarm.set_at(&event_loop, &when, Timed::new(&waiter), || release(&waiter))?;
    }
    let task = thread::current_task(&event_loop)?;
    this.until.set(until);
    this.left.set(futures.len());
    this.futures.set(py, futures.clone().into_any());
    if let Some(task) = &task {
        this.task.set(py, task.clone());
    }
    this.phase.set(Phase::Waiting);
    for future in futures.iter_borrowed() {
        if let Err(error) = hooks::watch(&future, &this.object())
            .and_then(|()| anyfuture::add_awaited_by(&future, task.as_ref()))
        {
            this.leave()?;
            return Err(error);
        }
    }
    this.parked.wait(waiter)
}

/// Whether this is neither a future nor a coroutine at first sight.
pub(crate) fn is_collection(argument: &Bound<'_, PyAny>) -> bool {
    argument.is_exact_instance_of::<PyTuple>()
        || argument.is_exact_instance_of::<PyList>()
        || argument.is_exact_instance_of::<PySet>()
}

/// Up to here looking for doubles among all is faster than a set.
const FEW: usize = 8;

/// The elements, each once.
fn distinct<'py>(argument: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    let py = argument.py();
    if let Ok(set) = argument.cast_exact::<PySet>() {
        return PyTuple::new(py, set.iter());
    }
    let all = argument
        .cast_exact::<PyTuple>()
        .map_or_else(|_| argument.try_iter()?.collect(), |t| Ok(t.iter().collect()));
    let all: Vec<_> = all?;
    let few = all.len() <= FEW
        && all
            .iter()
            .enumerate()
            .all(|(i, one)| Fut::cast_exact(one).is_some() && !all[..i].iter().any(|other| other.is(one)));
    if few { PyTuple::new(py, all) } else { PyTuple::new(py, PySet::new(py, all)?.iter()) }
}

/// `return_when`, which is one of three strings.
fn until(return_when: Option<&Bound<'_, PyAny>>) -> PyResult<Until> {
    let Some(return_when) = return_when else { return Ok(Until::All) };
    match return_when.cast::<PyString>().ok().and_then(|text| text.to_str().ok()) {
        Some("ALL_COMPLETED") => Ok(Until::All),
        Some("FIRST_COMPLETED") => Ok(Until::First),
        Some("FIRST_EXCEPTION") => Ok(Until::FirstException),
        _ => Err(PyValueError::new_err(format!("Invalid return_when value: {}", return_when.str()?))),
    }
}

/// `_release_waiter` with its argument, for a loop that isn't native.
fn release<'py>(waiter: &Bound<'py, PyAny>) -> Object<'py> {
    let py = waiter.py();
    let release = asyncio(py).tasks.bind(py).getattr("_release_waiter")?;
    py.import("functools")?.call_method1("partial", (release, waiter))
}

impl<'py> This<'_, 'py> {
    /// Waits no more: nothing watches the futures, and they are handed back.
    fn leave(self) -> PyResult<Bound<'py, PyTuple>> {
        let py = self.py();
        self.phase.set(Phase::Over);
        self.alarm.cancel(py);
        drop(self.parked.leave(py));
        let task = self.task.take(py);
        let futures = self.futures.take(py).and_then(|futures| futures.cast_into::<PyTuple>().ok());
        let Some(futures) = futures else { return Ok(PyTuple::empty(py)) };
        for future in futures.iter_borrowed() {
            hooks::unwatch(&future, &self.object())?;
            anyfuture::discard_awaited_by(&future, task.as_ref())?;
        }
        Ok(futures)
    }
}

/// One of the futures is done.
pub(crate) fn on_done<'py>(this: This<'_, 'py>, future: &Bound<'py, PyAny>) -> PyResult<()> {
    // A call that was on its way when the wait ended still counts and looks, as asyncio's does: looking retrieves an
    // exception.
    let py = this.py();
    this.left.set(this.left.get().saturating_sub(1));
    let enough = this.left.get() == 0
        || match this.until.get() {
            Until::All => false,
            Until::First => true,
            Until::FirstException => matches!(anyfuture::outcome(future)?, Outcome::Failed(_)),
        };
    if enough {
        this.alarm.cancel(py);
        if let Some(waiter) = this.parked.future(py) {
            anyfuture::release(&waiter, py.None().into_bound(py))?;
        }
    }
    anyfuture::discard_awaited_by(future, this.task.get(py).as_ref())
}

/// `(done, pending)`.
fn sorted<'py>(futures: &Bound<'py, PyTuple>) -> Object<'py> {
    let py = futures.py();
    let (done, pending) = (PySet::empty(py)?, PySet::empty(py)?);
    for future in futures.iter_borrowed() {
        if anyfuture::is_done(&future)? { done.add(future)? } else { pending.add(future)? }
    }
    Ok(PyTuple::new(py, [done, pending])?.into_any())
}

fn wait<'py>(args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "wait",
        positional: &["fs"],
        required: 1,
        positional_only: 0,
        keyword_only: &["timeout", "return_when"],
    };
    let [futures, timeout, return_when] = SIGNATURE.bind::<3>(args)?;
    let wait = Wait {
        phase: Flag::new(Phase::Created),
        futures: Slot::new(futures.map(|f| f.to_owned().unbind())),
        timeout: Slot::new(given(timeout).map(Bound::unbind)),
        return_when: Slot::new(return_when.map(|r| r.to_owned().unbind())),
        until: Flag::new(Until::All),
        left: Flag::new(0),
        task: Slot::empty(),
        parked: Parked::new(),
        alarm: Alarm::unset(),
    };
    create(args.py(), wait)
}

/// Makes the type and the function.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Wait>().coroutine::<Wait>().build(module, None, Wait::cell())?;
    module.add("wait", function::coroutine_function(module.py(), "asyncio.tasks", "wait", wait)?)
}
