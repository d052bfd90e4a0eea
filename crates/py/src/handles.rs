//! `asyncio.Handle` and `TimerHandle`, and the loop methods that make them: `call_soon`, `call_later`, `call_at`,
//! `call_soon_threadsafe`, with `time`, `create_future` and `create_task`, which are as hot.

use aioxide_core::TimerKey;
use pyo3::basic::CompareOp;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyList, PyString, PyTuple, PyType};
use pyo3::{Borrowed, intern};

use crate::errors;
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::{Builder, Class, Inst, Spare, TypeCell, create, create_in};
use crate::ffi::context;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{
    AnyLoop, LoopRef, Method, Of, anyargs, constructor, getter, hash, noargs, richcompare, unary,
};
use crate::ffi::thread::thread_id;
use crate::futures;
use crate::job::Job;
use crate::local::LoopCore;
use crate::names::names;
use crate::names::none;
use crate::tasks;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// A callback with its arguments and context. A timer's has the time it is due.
#[repr(C)] // what `cancel` touches first: with the header, two cache lines
pub(crate) struct Handle {
    callback: Slot,
    args: Slot,
    event_loop: Slot,
    timer: Flag<Option<TimerKey>>,
    cancelled: Flag<bool>,
    /// Whether a loop of asyncio's own keeps this timer: its note, not ours.
    scheduled: Flag<bool>,
    context: Slot,
    source: Slot,
    repr: Slot,
    when: Flag<f64>,
    /// The time as it was given, where that was not a float.
    given: Slot,
    /// Made by `call_soon_threadsafe`: the thread that runs it now (see `thread_id`), and what others wait for then.
    threadsafe: Flag<bool>,
    runner: Flag<usize>,
    finished: Slot,
}

/// The type of what `call_soon_threadsafe` returns (3.14's `_ThreadSafeHandle`): while its callback runs, `cancel()` and
/// `cancelled()` of other threads wait for the end (gh-128308).
static THREADSAFE: TypeCell = TypeCell::new();

/// The type TimerHandle: the same instances as Handle's, with a time.
static TIMER: TypeCell = TypeCell::new();

impl Class for Handle {
    const NAME: &'static std::ffi::CStr = c"aioxide.Handle";
    const SPARE: usize = 256;
    const SUBCLASSABLE: bool = true;

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn spare() -> Option<&'static GilCell<Vec<Spare>>> {
        static SPARE: GilCell<Vec<Spare>> = GilCell::new(Vec::new());
        Some(&SPARE)
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.slots().into_iter().try_for_each(|slot| slot.traverse(visit))
    }

    fn clear(&self, py: Python<'_>) {
        for slot in self.slots() {
            drop(slot.take(py));
        }
    }
}

impl Handle {
    fn slots(&self) -> [&Slot; 8] {
        let Self { callback, args, event_loop, context, source, repr, given, finished, .. } = self;
        [callback, args, event_loop, context, source, repr, given, finished]
    }

    #[inline]
    fn new<'py>(
        event_loop: &Bound<'py, PyAny>,
        callback: Bound<'py, PyAny>,
        args: Bound<'py, PyAny>,
        context: Option<Bound<'py, PyAny>>,
        when: f64,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let context = match context {
            Some(context) => context,
            None => context::copy_current(py)?,
        };
        let source = if futures::is_debug(event_loop)? {
            Slot::holding(names(py).extract_stack.bind(py).call0()?.unbind())
        } else {
            Slot::empty()
        };
        Ok(Self {
            callback: Slot::holding(callback.unbind()),
            args: Slot::holding(args.unbind()),
            event_loop: Slot::holding(event_loop.clone().unbind()),
            context: Slot::holding(context.unbind()),
            source,
            repr: Slot::empty(),
            cancelled: Flag::new(false),
            scheduled: Flag::new(false),
            when: Flag::new(when),
            timer: Flag::new(None),
            given: Slot::empty(),
            threadsafe: Flag::new(false),
            runner: Flag::new(0),
            finished: Slot::empty(),
        })
    }
}

/// `Handle(callback, args, loop, context=None)`.
fn new_handle(args: Args<'_, '_>) -> PyResult<Handle> {
    const SIGNATURE: Signature = Signature {
        name: "Handle",
        positional: &["callback", "args", "loop", "context"],
        required: 3,
        positional_only: 0,
        keyword_only: &[],
    };
    from_arguments(SIGNATURE.bind::<4>(args)?, 0.0)
}

/// `TimerHandle(when, callback, args, loop, context=None)`; `when` in seconds of the loop's clock.
fn new_timer(args: Args<'_, '_>) -> PyResult<Handle> {
    const SIGNATURE: Signature = Signature {
        name: "TimerHandle",
        positional: &["when", "callback", "args", "loop", "context"],
        required: 4,
        positional_only: 0,
        keyword_only: &[],
    };
    let [when, callback, arguments, event_loop, context] = SIGNATURE.bind::<5>(args)?;
    let Some(when) = when else { return Err(missing("TimerHandle", "when")) };
    let handle = from_arguments([callback, arguments, event_loop, context], when.extract()?)?;
    if !when.is_exact_instance_of::<PyFloat>() {
        handle.given.set(args.py(), when.to_owned());
    }
    Ok(handle)
}

fn from_arguments(bound: [Option<Borrowed<'_, '_, PyAny>>; 4], when: f64) -> PyResult<Handle> {
    let [Some(callback), Some(args), Some(event_loop), context] = bound else {
        return Err(PyTypeError::new_err("Handle() needs a callback, arguments and a loop"));
    };
    let context = context.filter(|c| !c.is_none()).map(|c| c.to_owned());
    Handle::new(&event_loop, callback.to_owned(), args.to_owned(), context, when)
}

// --- methods -----------------------------------------------------------------------------------

type This<'a, 'py> = Inst<'a, 'py, Handle>;

fn or_none<'py>(py: Python<'py>, slot: &Slot) -> Bound<'py, PyAny> {
    slot.get(py).unwrap_or_else(|| none(py))
}

fn cancel<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    wait_for_runner(this)?;
    if this.cancelled.get() {
        return Ok(none(py));
    }
    this.cancelled.set(true);
    let event_loop = or_none(py, &this.event_loop);
    if futures::is_debug(&event_loop)? {
        // What "Executing <Handle ...> took 2.5 seconds" will show.
        let shown = this.object().repr()?.into_any();
        this.repr.set(py, shown);
    }
    drop((this.callback.take(py), this.args.take(py)));
    if TIMER.is_instance(&this.object()) {
        match (this.timer.get(), LoopCore::of(&event_loop)) {
            (Some(key), Some(core)) => {
                this.timer.set(None);
                drop(core.cancel_timer(py, key));
            }
            (None, None) => {
                event_loop.call_method1(intern!(py, "_timer_handle_cancelled"), (this.object(),))?;
            }
            _ => {}
        }
    }
    Ok(none(py))
}

fn cancelled<'py>(this: This<'_, 'py>) -> Object<'py> {
    wait_for_runner(this)?;
    get_cancelled(this)
}

/// While another thread runs the callback of a threadsafe handle: waits for the end.
fn wait_for_runner(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    while this.runner.get() != 0 && this.runner.get() != thread_id() {
        let finished = match this.finished.get(py) {
            Some(finished) => finished,
            None => {
                let event = py.import("threading")?.getattr("Event")?.call0()?;
                this.finished.set(py, event.clone());
                event
            }
        };
        finished.call_method0(intern!(py, "wait"))?;
    }
    Ok(())
}

fn get_cancelled<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyBool::new(this.py(), this.cancelled.get()).to_owned().into_any())
}

fn get_context<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(or_none(this.py(), &this.context))
}

fn get_callback<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(or_none(this.py(), &this.callback))
}

fn get_args<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(or_none(this.py(), &this.args))
}

fn get_loop<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(or_none(this.py(), &this.event_loop))
}

fn get_source<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(or_none(this.py(), &this.source))
}

fn set_source<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    drop(this.source.replace(this.py(), (!value.is_none()).then(|| value.to_owned())));
    Ok(())
}

fn get_repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(or_none(this.py(), &this.repr))
}

fn when<'py>(this: This<'_, 'py>) -> Object<'py> {
    if let Some(given) = this.given.get(this.py()) {
        return Ok(given);
    }
    Ok(PyFloat::new(this.py(), this.when.get()).into_any())
}

fn get_scheduled<'py>(this: This<'_, 'py>) -> Object<'py> {
    let core = this.event_loop.get(this.py());
    let waiting = match (this.timer.get(), core.as_ref().and_then(LoopCore::of)) {
        (Some(key), Some(core)) => core.scheduler().with(this.py(), |s| s.timers().get(&key).is_some()),
        _ => this.scheduled.get(),
    };
    Ok(PyBool::new(this.py(), waiting).to_owned().into_any())
}

/// asyncio's own loops, which may make our TimerHandles, note there what they have done with them.
fn set_scheduled<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.scheduled.set(value.is_truthy()?);
    Ok(())
}

fn repr_info<'py>(this: This<'_, 'py>) -> PyResult<Bound<'py, PyList>> {
    let py = this.py();
    let info = PyList::new(py, [this.object().get_type().name()?])?;
    if this.cancelled.get() {
        info.append("cancelled")?;
    }
    if TIMER.is_instance(&this.object()) {
        info.append(format!("when={}", when(this)?.str()?))?;
    }
    if let Some(callback) = this.callback.get(py) {
        let debug = futures::is_debug(&or_none(py, &this.event_loop))?;
        info.append(names(py).format_callback(&callback, &or_none(py, &this.args), debug)?)?;
    }
    if let Some(source) = this.source.get(py)
        && source.is_truthy()?
    {
        let frame = source.get_item(-1)?;
        info.append(format!("created at {}:{}", frame.get_item(0)?, frame.get_item(1)?))?;
    }
    Ok(info)
}

fn method_repr_info<'py>(this: This<'_, 'py>) -> Object<'py> {
    repr_info(this).map(Bound::into_any)
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    if let Some(kept) = this.repr.get(py) {
        return Ok(kept);
    }
    let info = this.object().call_method0(intern!(py, "_repr_info"))?;
    let words = intern!(py, " ").call_method1(intern!(py, "join"), (info,))?;
    Ok(PyString::new(py, &format!("<{words}>")).into_any())
}

fn method_run<'py>(this: This<'_, 'py>) -> Object<'py> {
    run(this)?;
    Ok(none(this.py()))
}

fn compare<'py>(this: This<'_, 'py>, other: Borrowed<'_, 'py, PyAny>, op: CompareOp) -> Object<'py> {
    let py = this.py();
    let Some(other) = Inst::<Handle>::cast(&other).filter(|_| TIMER.is_instance(&other)) else {
        return Ok(py.NotImplemented().into_bound(py));
    };
    #[allow(clippy::float_cmp, reason = "the very time that was asked for, as in asyncio")]
    let equal = || -> PyResult<bool> {
        Ok(this.when.get() == other.when.get()
            && this.cancelled.get() == other.cancelled.get()
            && or_none(py, &this.callback).eq(or_none(py, &other.callback))?
            && or_none(py, &this.args).eq(or_none(py, &other.args))?)
    };
    let (mine, theirs) = (this.when.get(), other.when.get());
    let answer = match op {
        CompareOp::Lt => mine < theirs,
        CompareOp::Le => mine < theirs || equal()?,
        CompareOp::Gt => mine > theirs,
        CompareOp::Ge => mine > theirs || equal()?,
        CompareOp::Eq => equal()?,
        CompareOp::Ne => !equal()?,
    };
    Ok(PyBool::new(py, answer).to_owned().into_any())
}

fn hash_when(this: This<'_, '_>) -> PyResult<isize> {
    PyFloat::new(this.py(), this.when.get()).hash()
}

/// `isinstance(handle, asyncio.Handle)` holds also where asyncio's own class is asked for: `__class__` says so.
fn get_class<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let class = this.object().get_type();
    let (object, classes) = (this.object(), names(py));
    let stock = if TIMER.is_exact(&object) {
        &classes.timer_handle
    } else if THREADSAFE.is_exact(&object) {
        &classes.threadsafe_handle
    } else if Handle::cell().is_exact(&object) {
        &classes.handle
    } else {
        return Ok(class.into_any());
    };
    Ok(stock.bind(py).clone().into_any())
}

// --- running -----------------------------------------------------------------------------------

/// Runs the callback unless it was cancelled; its exception goes to the loop's exception handler.
#[inline]
pub(crate) fn run(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    if this.cancelled.get() {
        return Ok(());
    }
    let (Some(callback), Some(context)) = (this.callback.get(py), this.context.get(py)) else {
        return Ok(());
    };
    let args = or_none(py, &this.args);
    if this.threadsafe.get() {
        this.runner.set(thread_id());
    }
    let result = context::run(&context, || match args.cast::<PyTuple>() {
        Ok(args) if args.is_empty() => callback.call0(),
        Ok(args) => callback.call1(args),
        Err(_) => {
            callback.call1(args.try_iter()?.collect::<PyResult<Vec<_>>>().and_then(|a| PyTuple::new(py, a))?)
        }
    });
    if this.threadsafe.get() {
        this.runner.set(0);
        if let Some(finished) = this.finished.take(py) {
            finished.call_method0(intern!(py, "set"))?;
        }
    }
    match result {
        Ok(_) => Ok(()),
        Err(error) if errors::ends_the_loop(py, &error) => Err(error),
        Err(error) => report(this, error, &callback, &args),
    }
}

#[cold]
fn report(
    this: This<'_, '_>,
    error: PyErr,
    callback: &Bound<'_, PyAny>,
    args: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = this.py();
    let event_loop = or_none(py, &this.event_loop);
    let details = PyDict::new(py);
    let shown = names(py).format_callback(callback, args, futures::is_debug(&event_loop)?)?;
    details.set_item("message", format!("Exception in callback {shown}"))?;
    details.set_item("exception", error.into_value(py))?;
    details.set_item("handle", this.object())?;
    if let Some(source) = this.source.get(py) {
        details.set_item("source_traceback", source)?;
    }
    event_loop.call_method1(intern!(py, "call_exception_handler"), (details,))?;
    Ok(())
}

/// A Handle for a job that had none, to show it in reports.
pub(crate) fn for_report<'py>(
    event_loop: &Bound<'py, PyAny>,
    callback: Bound<'py, PyAny>,
    args: Bound<'py, PyTuple>,
    context: Bound<'py, PyAny>,
) -> Object<'py> {
    create(event_loop.py(), Handle::new(event_loop, callback, args.into_any(), Some(context), 0.0)?)
}

/// Runs what [`for_report`] made or a job's Handle.
pub(crate) fn run_object(handle: &Bound<'_, PyAny>) -> PyResult<()> {
    match Inst::<Handle>::cast(handle) {
        Some(handle) => run(handle),
        None => handle.call_method0(intern!(handle.py(), "_run")).map(drop),
    }
}

// --- the loop's side ---------------------------------------------------------------------------

/// Debug mode: TypeError for coroutines and for what can't be called.
pub(crate) fn check_callback(callback: &Bound<'_, PyAny>, method: &str) -> PyResult<()> {
    let py = callback.py();
    let coroutines = py.import("asyncio.coroutines")?;
    let is = |name: &str| -> PyResult<bool> { coroutines.getattr(name)?.call1((callback,))?.is_truthy() };
    let inspect = py.import("inspect")?;
    let function = inspect.getattr("iscoroutinefunction")?.call1((callback,))?.is_truthy()?;
    if is("iscoroutine")? || function {
        return Err(PyTypeError::new_err(format!("coroutines cannot be used with {method}()")));
    }
    if !callback.is_callable() {
        let text = format!("a callable object was expected by {method}(), got {}", callback.repr()?);
        return Err(PyTypeError::new_err(text));
    }
    Ok(())
}

fn missing(method: &str, parameter: &str) -> PyErr {
    PyTypeError::new_err(format!("{method}() missing 1 required positional argument: '{parameter}'"))
}

#[inline]
fn make<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>, method: &str) -> PyResult<Handle> {
    let Some(callback) = args.get(0) else { return Err(missing(method, "callback")) };
    let context = given(args.only_keyword(method, "context")?);
    if this.core.is_debug() {
        check_callback(&callback, method)?;
    }
    Handle::new(&this.object, callback.to_owned(), args.rest(1)?.into_any(), context, 0.0)
}

/// `call_soon(callback, *args, context=None)`.
fn call_soon<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    this.core.check_closed()?;
    if this.core.is_debug() {
        this.core.check_thread()?;
    }
    let handle = create(args.py(), make(this, args, "call_soon")?)?;
    this.core.soon(args.py(), Job::Handle(handle.clone().unbind()))?;
    Ok(handle)
}

/// `call_soon_threadsafe(callback, *args, context=None)`: from any thread, or from a signal handler.
fn call_soon_threadsafe<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    this.core.check_closed()?;
    let handle = make(this, args, "call_soon_threadsafe")?;
    handle.threadsafe.set(true);
    let handle = create_in(args.py(), &THREADSAFE, handle)?;
    this.core.soon_from_anywhere(args.py(), Job::Handle(handle.clone().unbind()));
    Ok(handle)
}

/// `call_at(when, callback, *args, context=None)`; `when` in seconds of `time()`.
fn call_at<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    let Some(when) = args.get(0) else { return Err(missing("call_at", "when")) };
    if when.is_none() {
        return Err(PyTypeError::new_err("when cannot be None"));
    }
    schedule(this, args, seconds(&when)?, "call_at")
}

/// `call_later(delay, callback, *args, context=None)`; `delay` in seconds.
fn call_later<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    let py = args.py();
    let Some(delay) = args.get(0) else { return Err(missing("call_later", "delay")) };
    if delay.is_none() {
        return Err(PyTypeError::new_err("delay must not be None"));
    }
    if this.core.overrides_timers() {
        // A subclass with its own clock or `call_at`: asyncio's way, through the methods.
        let now = this.object.call_method0(intern!(py, "time"))?;
        let keywords = PyDict::new(py);
        if let Some(context) = args.only_keyword("call_later", "context")? {
            keywords.set_item("context", context)?;
        }
        let mut forwarded = vec![now.add(delay)?];
        forwarded.extend(args.rest(1)?.iter());
        return this.object.call_method(
            intern!(py, "call_at"),
            PyTuple::new(py, forwarded)?,
            Some(&keywords),
        );
    }
    let when = this.core.now() + seconds(&delay)?;
    schedule(this, args, when, "call_later")
}

fn seconds(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let seconds: f64 = value.extract()?;
    if seconds.is_nan() {
        return Err(PyValueError::new_err("Invalid delay: NaN (not a number)"));
    }
    Ok(seconds)
}

#[inline]
fn schedule<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>, when: f64, method: &str) -> Object<'py> {
    let py = args.py();
    let Some(callback) = args.get(1) else { return Err(missing(method, "callback")) };
    this.core.check_closed()?;
    let context = given(args.only_keyword(method, "context")?);
    if this.core.is_debug() {
        this.core.check_thread()?;
        check_callback(&callback, method)?;
    }
    let handle = Handle::new(&this.object, callback.to_owned(), args.rest(2)?.into_any(), context, when)?;
    let handle = create_in(py, &TIMER, handle)?;
    let key = this.core.at(py, when, Job::Handle(handle.clone().unbind()))?;
    if let Some(this) = Inst::<Handle>::cast(&handle) {
        this.timer.set(Some(key));
    }
    Ok(handle)
}

/// `time()`: seconds of the monotonic clock.
fn time<'py>(this: LoopRef<'_, 'py>) -> Object<'py> {
    Ok(PyFloat::new(this.object.py(), this.core.now()).into_any())
}

/// `create_future()`.
fn create_future<'py>(this: LoopRef<'_, 'py>) -> Object<'py> {
    futures::new(&this.object)
}

/// `create_task(coro, *, name=None, context=None, eager_start=None, **kwargs)`; all go to the task factory if there is one.
pub(crate) fn create_task<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "create_task",
        positional: &["coro"],
        required: 1,
        positional_only: 0,
        keyword_only: &["name", "context", "eager_start"],
    };
    let py = args.py();
    this.core.check_closed()?;
    let factory = this.core.task_factory().get(py);
    let is_eager = factory.as_ref().is_some_and(tasks::create::is_native);
    if let Some(factory) = factory.filter(|_| !is_eager) {
        let (positional, keywords) = args.to_call()?;
        let mut forwarded = vec![this.object.to_owned()];
        forwarded.extend(positional.iter());
        return factory.call(PyTuple::new(py, forwarded)?, keywords.as_ref());
    }
    let [coro, name, context, eager] = SIGNATURE.bind::<4>(args)?;
    let Some(coro) = coro else { return Err(missing("create_task", "coro")) };
    let eager = eager.map_or(Ok(is_eager), |e| e.is_truthy())?;
    tasks::new(&this.object, coro.to_owned(), given(name), given(context), eager)
}

fn loop_methods() -> [(&'static str, Method); 7] {
    [
        (
            "call_soon",
            anyargs::<AnyLoop, _>(c"call_soon", call_soon)
                .doc(c"call_soon($self, /, callback, *args, context=None)\n--\n\nCall callback(*args) in the next iteration, in order; return its Handle."),
        ),
        (
            "call_soon_threadsafe",
            anyargs::<AnyLoop, _>(c"call_soon_threadsafe", call_soon_threadsafe)
                .doc(c"call_soon_threadsafe($self, /, callback, *args, context=None)\n--\n\nAs call_soon, from any thread: wakes the loop."),
        ),
        (
            "call_at",
            anyargs::<AnyLoop, _>(c"call_at", call_at)
                .doc(c"call_at($self, /, when, callback, *args, context=None)\n--\n\nCall callback(*args) at a time of the clock of time(), in seconds; return its TimerHandle."),
        ),
        (
            "call_later",
            anyargs::<AnyLoop, _>(c"call_later", call_later)
                .doc(c"call_later($self, /, delay, callback, *args, context=None)\n--\n\nCall callback(*args) after a delay in seconds; return its TimerHandle."),
        ),
        (
            "time",
            noargs::<AnyLoop, _>(c"time", time).doc(c"time($self, /)\n--\n\nThe time of the loop's clock, in seconds (float)."),
        ),
        (
            "create_future",
            noargs::<AnyLoop, _>(c"create_future", create_future).doc(c"create_future($self, /)\n--\n\nA pending Future of this loop."),
        ),
        (
            "create_task",
            anyargs::<AnyLoop, _>(c"create_task", create_task)
                .doc(c"create_task($self, /, coro, *, name=None, context=None, eager_start=None, **kwargs)\n--\n\nRun a coroutine as a Task, made by the task factory if there is one."),
        ),
    ]
}

/// Makes the types and puts the loop's hot methods on LoopCore.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let builder = |builder: Builder| {
        builder
            .slot(pyo3::ffi::Py_tp_repr, unary::<Of<Handle>, _>(repr))
            .method(noargs::<Of<Handle>, _>(c"cancel", cancel))
            .method(noargs::<Of<Handle>, _>(c"cancelled", cancelled))
            .method(noargs::<Of<Handle>, _>(c"get_context", get_context))
            .method(noargs::<Of<Handle>, _>(c"_run", method_run))
            .method(noargs::<Of<Handle>, _>(c"_repr_info", method_repr_info))
            .attribute(getter::<Of<Handle>, _>(c"__class__", get_class))
            .attribute(getter::<Of<Handle>, _>(c"_callback", get_callback))
            .attribute(getter::<Of<Handle>, _>(c"_args", get_args))
            .attribute(getter::<Of<Handle>, _>(c"_loop", get_loop))
            .attribute(getter::<Of<Handle>, _>(c"_context", get_context))
            .attribute(getter::<Of<Handle>, _>(c"_cancelled", get_cancelled))
            .attribute(getter::<Of<Handle>, _>(c"_repr", get_repr))
            .attribute(
                getter::<Of<Handle>, _>(c"_source_traceback", get_source).setter::<Of<Handle>, _>(set_source),
            )
    };
    let handle = builder(Builder::of::<Handle>())
        .slot(pyo3::ffi::Py_tp_new, constructor::<Handle, _>(new_handle))
        .doc(c"Handle(callback, args, loop, context=None)\n--\n\nA scheduled callback, which can be cancelled.")
        .build(module, None, Handle::cell())?;
    let timer = builder(Builder::of::<Handle>().named(c"aioxide.TimerHandle"))
        .slot(pyo3::ffi::Py_tp_new, constructor::<Handle, _>(new_timer))
        .doc(
            c"TimerHandle(when, callback, args, loop, context=None)\n--\n\nA callback that is due at a time.",
        )
        .slot(pyo3::ffi::Py_tp_richcompare, richcompare::<Of<Handle>, _>(compare))
        .slot(pyo3::ffi::Py_tp_hash, hash::<Of<Handle>, _>(hash_when))
        .method(noargs::<Of<Handle>, _>(c"when", when))
        .attribute(getter::<Of<Handle>, _>(c"_when", when))
        .attribute(
            getter::<Of<Handle>, _>(c"_scheduled", get_scheduled).setter::<Of<Handle>, _>(set_scheduled),
        )
        .build(module, Some(&PyTuple::new(module.py(), [&handle])?), &TIMER)?;
    builder(Builder::of::<Handle>().named(c"aioxide._ThreadSafeHandle"))
        .slot(pyo3::ffi::Py_tp_new, constructor::<Handle, _>(new_handle))
        .build(module, Some(&PyTuple::new(module.py(), [&handle])?), &THREADSAFE)?;
    module.add("Handle", handle)?;
    module.add("TimerHandle", timer)?;
    let core: Bound<'_, PyType> = module.py().get_type::<LoopCore>();
    for (name, method) in loop_methods() {
        core.setattr(name, method.descriptor(&core)?)?;
    }
    Ok(())
}
