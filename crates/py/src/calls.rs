//! How a callback gets into a loop: `call_soon`, `call_later`, `call_at`, `call_soon_threadsafe`, with `time`,
//! `create_future` and `create_task`, which are as hot. These are methods of LoopCore, and of EventLoop once more.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyTuple, PyType};

use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::Slot;
use crate::ffi::method::{AnyLoop, LoopRef, Method, anyargs, noargs};
use crate::futures;
use crate::handles::{self, Arguments, Handle};
use crate::job::Job;
use crate::local::LoopCore;
use crate::names::asyncio;
use crate::tasks;
use crate::version::FACTORIES_TAKE_NAMES;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// Debug mode: TypeError for coroutines and for what can't be called.
pub(crate) fn check_callback(callback: &Bound<'_, PyAny>, method: &str) -> PyResult<()> {
    let py = callback.py();
    let coroutines = asyncio(py).coroutines.bind(py);
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

/// A handle for the callback at place `at` of the arguments, and those after it.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as for `Handle::new`")]
fn make<'py>(
    this: LoopRef<'_, 'py>,
    args: Args<'_, 'py>,
    at: usize,
    timer_of: Option<&LoopCore>,
    method: &str,
) -> PyResult<Handle> {
    let Some(callback) = args.get(at) else { return Err(missing(method, "callback")) };
    let context = if args.has_names() { given(args.only_keyword(method, "context")?) } else { None };
    if this.core.is_debug() {
        check_callback(&callback, method)?;
    }
    let arguments = Arguments::from(args, at + 1)?;
    Handle::new(&this.object, timer_of, callback.to_owned(), arguments, context)
}

/// `call_soon(callback, *args, context=None)`.
fn call_soon<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    this.core.check_closed()?;
    if this.core.is_debug() {
        this.core.check_thread()?;
    }
    let handle = make(this, args, 0, None, "call_soon")?;
    let handle = handles::soon(args.py(), this.core, handle)?;
    this.core.soon(args.py(), Job::Handle(handle.clone().unbind()))?;
    Ok(handle)
}

/// `call_soon_threadsafe(callback, *args, context=None)`: from any thread, or from a signal handler.
fn call_soon_threadsafe<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    this.core.check_closed()?;
    let handle = make(this, args, 0, None, "call_soon_threadsafe")?;
    let handle = handles::threadsafe(args.py(), this.core, handle)?;
    this.core.soon_from_anywhere(args.py(), Job::Handle(handle.clone().unbind()));
    Ok(handle)
}

/// `call_at(when, callback, *args, context=None)`; `when` in seconds of `time()`.
fn call_at<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    let Some(when) = args.get(0) else { return Err(missing("call_at", "when")) };
    if when.is_none() {
        return Err(PyTypeError::new_err("when cannot be None"));
    }
    schedule(this, args, seconds(&when)?, Some(&when), "call_at")
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
    schedule(this, args, when, None, "call_later")
}

#[inline]
fn seconds(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let seconds: f64 = match value.cast_exact::<PyFloat>() {
        Ok(float) => float.value(),
        Err(_) => value.extract()?,
    };
    if seconds.is_nan() {
        return Err(PyValueError::new_err("Invalid delay: NaN (not a number)"));
    }
    Ok(seconds)
}

#[inline]
fn schedule<'py>(
    this: LoopRef<'_, 'py>,
    args: Args<'_, 'py>,
    when: f64,
    given: Option<&Bound<'py, PyAny>>,
    method: &str,
) -> Object<'py> {
    this.core.check_closed()?;
    if this.core.is_debug() {
        this.core.check_thread()?;
    }
    let handle = make(this, args, 1, Some(this.core), method)?;
    handles::timer(args.py(), this.core, when, given, handle)
}

/// `time()`: seconds of the monotonic clock.
fn time<'py>(this: LoopRef<'_, 'py>) -> Object<'py> {
    Ok(PyFloat::new(this.object.py(), this.core.now()).into_any())
}

/// `create_future()`.
fn create_future<'py>(this: LoopRef<'_, 'py>) -> Object<'py> {
    futures::make(&this.object, Some(this.core))
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
        return by_factory(this, &factory, args);
    }
    let [coro, name, context, eager] = SIGNATURE.bind::<4>(args)?;
    let Some(coro) = coro else { return Err(missing("create_task", "coro")) };
    let eager = eager.map_or(Ok(is_eager), |e| e.is_truthy())?;
    tasks::new(&this.object, coro.to_owned(), given(name), given(context), eager)
}

/// A task that `factory` makes. Those written for a Python before 3.14 need not know `name`, nor a context of None:
/// there, they are not told, and the task gets its name afterwards.
fn by_factory<'py>(this: LoopRef<'_, 'py>, factory: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Object<'py> {
    let py = args.py();
    let (positional, keywords) = args.to_call()?;
    let mut forwarded = vec![this.object.to_owned()];
    forwarded.extend(positional.iter());
    let mut name = None;
    if let Some(keywords) = keywords.as_ref().filter(|_| !FACTORIES_TAKE_NAMES) {
        name = keywords.get_item("name")?;
        if name.is_some() {
            keywords.del_item("name")?;
        }
        if keywords.get_item("context")?.is_some_and(|context| context.is_none()) {
            keywords.del_item("context")?;
        }
    }
    let task = factory.call(PyTuple::new(py, forwarded)?, keywords.as_ref())?;
    if let Some(name) = name.filter(|name| !name.is_none()) {
        task.call_method1(intern!(py, "set_name"), (name,))?;
    }
    Ok(task)
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

/// The class of loops that has the methods as its own.
static OWNER: Slot = Slot::empty();

/// Puts these methods on the class of loops, `aioxide.EventLoop`, as its own, and returns the class: the interpreter has a
/// quicker way to call a native method of an object's very class than an inherited one.
#[pyfunction(name = "_with_own_calls")]
fn with_own_calls(loops: Bound<'_, PyType>) -> PyResult<Bound<'_, PyType>> {
    if !loops.is_subclass_of::<LoopCore>()? {
        return Err(PyTypeError::new_err("a class of native event loops is needed"));
    }
    give_methods(&loops)?;
    OWNER.set(loops.py(), loops.clone().into_any());
    Ok(loops)
}

fn give_methods(loops: &Bound<'_, PyType>) -> PyResult<()> {
    loop_methods().into_iter().try_for_each(|(name, method)| loops.setattr(name, method.descriptor(loops)?))
}

/// Whether the method of that name which a class of loops has is the native one.
pub(crate) fn is_native(class: &Bound<'_, PyType>, name: &str) -> PyResult<bool> {
    let py = class.py();
    let native = py.get_type::<LoopCore>().getattr(name)?;
    let method = class.getattr(name)?;
    if method.is(&native) {
        return Ok(true);
    }
    let Some(owner) = OWNER.get(py) else { return Ok(false) };
    Ok(method.get_type().is(native.get_type())
        && method.getattr("__objclass__")?.is(&owner)
        && method.getattr("__name__")?.eq(name)?)
}

/// Puts these methods on LoopCore.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    give_methods(&module.py().get_type::<LoopCore>())?;
    module.add_function(wrap_pyfunction!(with_own_calls, module)?)
}
