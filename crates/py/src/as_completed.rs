//! `asyncio.as_completed`: an iterator, plain and asynchronous, over awaitables in the order in which they are done.

use std::collections::VecDeque;

use aioxide_core::{WaiterKey, Waiters};
use pyo3::exceptions::{PyStopAsyncIteration, PyTimeoutError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PySet;

use crate::alarm::{Alarm, When};
use crate::anyfuture::{self, running_loop};
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::iter::{Coroutine, Life, Step, next_slot, reused};
use crate::ffi::method::{Of, unary};
use crate::ffi::{function, thread};
use crate::frame::{Frame, class};
use crate::job::Timed;
use crate::parked::Parked;
use crate::tasks::create;
use crate::{futures, hooks};
use crate::{timeouts, wait};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// What was done and not taken yet, and who waits for more.
#[derive(Default)]
struct Line {
    /// None stands for one that the timeout has overtaken.
    done: VecDeque<Option<Py<PyAny>>>,
    takers: Waiters<Py<PyAny>>,
}

/// The iterator.
pub(crate) struct AsCompleted {
    line: GilCell<Line>,
    /// The set of futures that have not told yet that they are done.
    todo: Slot,
    /// How many steps the iteration has left.
    left: Flag<usize>,
    /// The task that called `as_completed`.
    task: Slot,
    alarm: Alarm,
}

type This<'a, 'py> = Inst<'a, 'py, AsCompleted>;

impl Class for AsCompleted {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.AsCompletedIterator";

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.todo.traverse(visit)?;
        self.task.traverse(visit)?;
        self.alarm.traverse(visit)?;
        self.line
            .visit(|line| {
                line.done.iter().try_for_each(|one| visit.call(one.as_ref()))?;
                line.takers.iter().try_for_each(|(_, _, taker)| visit.call(Some(taker)))
            })
            .unwrap_or(Ok(()))
    }

    fn clear(&self, py: Python<'_>) {
        self.alarm.cancel(py);
        let line = self.line.with(py, std::mem::take);
        drop((line, self.todo.take(py), self.task.take(py)));
    }
}

/// `as_completed(fs, *, timeout=None)`.
fn as_completed<'py>(args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "as_completed",
        positional: &["fs"],
        required: 1,
        positional_only: 0,
        keyword_only: &["timeout"],
    };
    let py = args.py();
    let [awaitables, timeout] = SIGNATURE.bind::<2>(args)?;
    let Some(awaitables) = awaitables else {
        return Err(PyTypeError::new_err("as_completed() needs an argument"));
    };
    if !wait::is_collection(&awaitables)
        && py.import("inspect")?.call_method1(intern!(py, "isawaitable"), (awaitables,))?.is_truthy()?
    {
        let class = awaitables.get_type().name()?;
        return Err(PyTypeError::new_err(format!("expects an iterable of awaitables, not {class}")));
    }
    let event_loop = futures::current_event_loop(py)?;
    let task = thread::current_task(&running_loop(py)?)?;
    let (todo, mut futures) = (PySet::empty(py)?, Vec::new());
    for awaitable in distinct(&awaitables)? {
        let future = create::ensure_future(&awaitable?, Some(&event_loop))?;
        if !todo.contains(&future)? {
            todo.add(&future)?;
            futures.push(future);
        }
    }
    let iterator = AsCompleted {
        line: GilCell::new(Line::default()),
        todo: Slot::empty(),
        left: Flag::new(todo.len()),
        task: Slot::new(task.as_ref().map(|t| t.clone().unbind())),
        alarm: Alarm::unset(),
    };
    let iterator = create(py, iterator)?;
    let Some(this) = This::cast_exact(&iterator) else { return Ok(iterator) };
    for future in futures {
        hooks::watch(&future, &iterator)?;
        anyfuture::add_awaited_by(&future, task.as_ref())?;
    }
    if let Some(timeout) = given(timeout)
        && !todo.is_empty()
    {
        let when = When::after(&event_loop, &timeout)?;
        let timed = Timed::new(&iterator);
        this.alarm.set_at(&event_loop, &when, timed, || timeouts::on_timeout(&iterator))?;
    }
    this.todo.set(py, todo.into_any());
    Ok(iterator)
}

/// The elements, each once.
fn distinct<'py>(awaitables: &Bound<'py, PyAny>) -> PyResult<impl Iterator<Item = Object<'py>>> {
    // A dict keeps the order; a set, which asyncio uses, leaves it to the addresses.
    let keys = awaitables
        .py()
        .get_type::<pyo3::types::PyDict>()
        .call_method1(intern!(awaitables.py(), "fromkeys"), (awaitables,))?;
    keys.try_iter()
}

// --- what becomes done -------------------------------------------------------------------------

impl<'py> This<'_, 'py> {
    fn todo(self) -> Option<Bound<'py, PySet>> {
        self.todo.get(self.py()).and_then(|todo| todo.cast_into().ok())
    }

    /// Adds to the line and wakes who waits longest.
    fn put(self, one: Option<Py<PyAny>>) -> PyResult<()> {
        self.line.with(self.py(), |line| line.done.push_back(one));
        self.wake_next()
    }

    /// Wakes who waits longest, if anybody still does.
    fn wake_next(self) -> PyResult<()> {
        let py = self.py();
        loop {
            let next = self.line.with(py, |line| {
                let key = line.takers.first_waiting()?;
                line.takers.wake(key);
                line.takers.get(key).map(|taker| taker.clone_ref(py))
            });
            let Some(taker) = next.map(|taker| taker.into_bound(py)) else { return Ok(()) };
            if !anyfuture::is_done(&taker)? {
                return anyfuture::release(&taker, py.None().into_bound(py));
            }
        }
    }
}

/// One of the futures is done.
pub(crate) fn on_done<'py>(this: This<'_, 'py>, future: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    let Some(todo) = this.todo() else { return Ok(()) }; // the timeout was first
    todo.discard(future)?;
    anyfuture::discard_awaited_by(future, this.task.get(py).as_ref())?;
    if todo.is_empty() {
        this.alarm.cancel(py);
    }
    this.put(Some(future.clone().unbind()))
}

/// The timeout has passed: what is not done will not be waited for.
pub(crate) fn on_timeout(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    let Some(todo) = this.todo().filter(|todo| !todo.is_empty()) else { return Ok(()) };
    drop(this.todo.take(py));
    this.alarm.forget(py);
    let task = this.task.get(py);
    for future in todo.iter() {
        hooks::unwatch(&future, &this.object())?;
        anyfuture::discard_awaited_by(&future, task.as_ref())?;
        this.put(None)?;
    }
    Ok(())
}

// --- iteration ---------------------------------------------------------------------------------

fn itself<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.to_owned())
}

/// `__next__`: a coroutine for the result of the next one.
fn next<'py>(this: This<'_, 'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let left = this.left.get();
    if left == 0 {
        return Ok(None);
    }
    this.left.set(left - 1);
    Take::create(this, Kind::Result).map(Some)
}

/// `__anext__`: a coroutine for the next one itself.
fn anext<'py>(this: This<'_, 'py>) -> Object<'py> {
    Take::create(this, Kind::Future)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Result,
    Future,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Created,
    Waiting,
    Over,
}

/// The coroutine that takes from the line.
pub(crate) struct Take {
    iterator: Slot,
    kind: Kind,
    phase: Flag<Phase>,
    parked: Parked,
    key: Flag<Option<WaiterKey>>,
}

class!(Take, c"aioxide._core.AsCompletedStep", spare 256, [parked, iterator]);

impl Take {
    fn create<'py>(iterator: This<'_, 'py>, kind: Kind) -> Object<'py> {
        let take = Self {
            iterator: Slot::holding(iterator.to_owned().unbind()),
            kind,
            phase: Flag::new(Phase::Created),
            parked: Parked::new(),
            key: Flag::new(None),
        };
        create(iterator.py(), take)
    }

    /// Takes what is first in the line, or waits for something to be there.
    fn go_on<'py>(this: Inst<'_, 'py, Self>, iterator: This<'_, 'py>) -> PyResult<Step<'py>> {
        let py = this.py();
        if let Some(one) = iterator.line.with(py, |line| line.done.pop_front()) {
            this.get().clear(py);
            let Some(future) = one.map(|future| future.into_bound(py)) else {
                return Err(PyErr::from_value(py.get_type::<PyTimeoutError>().call0()?));
            };
            return match this.kind {
                Kind::Result => anyfuture::result(&future).map(Step::Return),
                Kind::Future => Ok(Step::Return(future)),
            };
        }
        let event_loop = running_loop(py).inspect_err(|_| iterator.left.set(iterator.left.get() + 1))?;
        let taker = anyfuture::create(&event_loop)?;
        let payload = taker.clone().unbind();
        this.key.set(Some(iterator.line.with(py, |line| line.takers.join(payload))));
        this.phase.set(Phase::Waiting);
        this.parked.wait(taker)
    }

    /// Waits no more; `woken` for something that it will not take now goes to the next in line.
    fn give_up<'py>(this: Inst<'_, 'py, Self>, iterator: This<'_, 'py>) -> PyResult<()> {
        let py = this.py();
        let taker = this.parked.leave(py);
        Self::leave_line(this, iterator);
        iterator.left.set(iterator.left.get() + 1);
        this.get().clear(py);
        let woken = match taker {
            Some(taker) => {
                anyfuture::cancel(&taker)?;
                !anyfuture::is_cancelled(&taker)?
            }
            None => false,
        };
        let some = iterator.line.with(py, |line| !line.done.is_empty());
        if woken && some { iterator.wake_next() } else { Ok(()) }
    }

    fn leave_line(this: Inst<'_, '_, Self>, iterator: This<'_, '_>) {
        if let Some(key) = this.key.replace(None) {
            drop(iterator.line.with(this.py(), |line| line.takers.leave(key)));
        }
    }
}

impl Frame for Take {
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

    fn step<'py>(this: Inst<'_, 'py, Self>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        let py = this.py();
        let phase = this.phase.replace(Phase::Over); // unless it gets to wait
        let holder = this.iterator.get(py).filter(|_| phase != Phase::Over);
        let Some(iterator) = holder.as_ref().and_then(This::cast_exact) else { return Err(reused()) };
        if phase == Phase::Created {
            if this.kind == Kind::Future {
                if iterator.left.get() == 0 {
                    this.get().clear(py);
                    return Err(PyStopAsyncIteration::new_err(()));
                }
                iterator.left.set(iterator.left.get() - 1);
            }
            return Self::go_on(this, iterator);
        }
        if let Some(error) = error.or_else(|| this.parked.outcome(py).err()) {
            Self::give_up(this, iterator)?;
            return Err(error);
        }
        drop(this.parked.leave(py));
        Self::leave_line(this, iterator);
        Self::go_on(this, iterator)
    }
}

impl Coroutine for Take {
    fn qualname(this: Inst<'_, '_, Self>) -> &'static str {
        match this.kind {
            Kind::Result => "_AsCompletedIterator._wait_for_one",
            Kind::Future => "_AsCompletedIterator.__anext__",
        }
    }

    fn awaited<'py>(this: Inst<'_, 'py, Self>) -> Option<Bound<'py, PyAny>> {
        this.parked.future(this.py())
    }

    fn waits_for<'py>(this: Inst<'_, 'py, Self>) -> Option<(&'static str, Option<Bound<'py, PyAny>>)> {
        let iterator = this.iterator.get(this.py());
        let todo = iterator.as_ref().and_then(Inst::<AsCompleted>::cast).and_then(|i| i.todo.get(this.py()));
        Some(("tasks", todo))
    }

    fn life(this: Inst<'_, '_, Self>) -> Life {
        this.at()
    }

    fn within(this: Inst<'_, '_, Self>) -> &'static [&'static str] {
        match this.kind {
            Kind::Result => &["Queue.get"],
            Kind::Future => &["_AsCompletedIterator._wait_for_one", "Queue.get"],
        }
    }
}

/// Makes the types and the function.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<AsCompleted>()
        .slot(pyo3::ffi::Py_tp_iter, unary::<Of<AsCompleted>, _>(itself))
        .slot(pyo3::ffi::Py_tp_iternext, next_slot::<AsCompleted, _>(next))
        .slot(pyo3::ffi::Py_am_aiter, unary::<Of<AsCompleted>, _>(itself))
        .slot(pyo3::ffi::Py_am_anext, unary::<Of<AsCompleted>, _>(anext))
        .build(module, None, AsCompleted::cell())?;
    Builder::of::<Take>().coroutine::<Take>().build(module, None, Take::cell())?;
    module
        .add("as_completed", function::function(module.py(), "asyncio.tasks", "as_completed", as_completed)?)
}
