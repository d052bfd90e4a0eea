//! `asyncio.Task`: a coroutine in steps. step.rs moves it, sleep.rs is what it awaits most.

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PySet, PyString};
use pyo3::{Borrowed, intern};

use crate::ffi::args::{self, Args, Signature};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::layout::{Fut, State, Tsk};
use crate::ffi::method::{AnyTask, Method, Of, anyargs, caller, getter, noargs, onearg};
use crate::ffi::thread::Here;
use crate::ffi::{context, thread, types};
use crate::futures;
use crate::job::{self, Job};
use crate::local::LoopCore;
use crate::names::boolean;
use crate::names::names;
use crate::names::none;

pub(crate) mod create;
pub(crate) mod sleep;
pub(crate) mod step;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

// --- making ------------------------------------------------------------------------------------

/// How many tasks have been named "Task-N".
static COUNTER: Flag<u64> = Flag::new(0);

/// How many tasks there have been, of those that four bytes can count.
static SERIAL: Flag<u32> = Flag::new(0);

static MADE: Flag<u64> = Flag::new(0);
static DONE: Flag<u64> = Flag::new(0);
static CANCELLED: Flag<u64> = Flag::new(0);

/// How many tasks the process has made and ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) made: u64,
    pub(crate) done: u64,
    pub(crate) cancelled: u64,
}

/// See [`Counted`]. Those cancelled are done too.
pub(crate) fn counted() -> Counted {
    Counted { made: MADE.get(), done: DONE.get(), cancelled: CANCELLED.get() }
}

/// A task has ended.
#[inline]
pub(crate) fn count_end(is_cancelled: bool) {
    DONE.set(DONE.get() + 1);
    if is_cancelled {
        CANCELLED.set(CANCELLED.get() + 1);
    }
}

/// `Task(coro, *, loop=None, name=None, context=None, eager_start=False)`.
pub(crate) fn init(this: Tsk<'_, '_>, arguments: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "Task",
        positional: &["coro"],
        required: 1,
        positional_only: 0,
        keyword_only: &["loop", "name", "context", "eager_start"],
    };
    let [coro, event_loop, name, context, eager] = SIGNATURE.bind::<5>(arguments)?;
    let py = this.py();
    this.show(); // a second `__init__` lets go of the first one's context
    futures::init_with(this.fut(), event_loop)?;
    let coro = coro.map_or_else(|| none(py), |c| c.to_owned());
    start(this, coro, args::given(name), args::given(context), eager.map_or(Ok(false), |e| e.is_truthy())?)
}

/// A task of exactly our class: `loop.create_task(coro)` without a factory.
#[inline]
pub(crate) fn new<'py>(
    event_loop: &Bound<'py, PyAny>,
    coro: Bound<'py, PyAny>,
    name: Option<Bound<'py, PyAny>>,
    context: Option<Bound<'py, PyAny>>,
    eager: bool,
) -> Object<'py> {
    let object = types::alloc_task(event_loop.py())?;
    if let Some(task) = Tsk::cast_exact(&object) {
        if eager || !runs_here(event_loop) {
            task.show();
        }
        futures::init_with(task.fut(), Some(event_loop.as_borrowed()))?;
        start(task, coro, name, context, eager)?;
    }
    Ok(object)
}

/// Whether the loop's own turn will run the next job that it is given.
#[inline]
fn runs_here(event_loop: &Bound<'_, PyAny>) -> bool {
    LoopCore::of(event_loop)
        .is_some_and(|core| core.thread() == thread::thread_id() && !core.overrides_call_soon())
}

fn start<'py>(
    this: Tsk<'_, 'py>,
    coro: Bound<'py, PyAny>,
    name: Option<Bound<'py, PyAny>>,
    context: Option<Bound<'py, PyAny>>,
    eager: bool,
) -> PyResult<()> {
    let py = this.py();
    this.fut().set_is_task(true);
    MADE.set(MADE.get() + 1);
    SERIAL.set(SERIAL.get().checked_add(1).unwrap_or(1));
    this.set_serial(SERIAL.get());
    if !is_coroutine(&coro)? {
        this.set_log_destroy_pending(false);
        return Err(PyTypeError::new_err(format!("a coroutine was expected, got {}", coro.repr()?)));
    }
    let name = match name {
        Some(name) if name.is_exact_instance_of::<PyString>() => name,
        Some(name) => name.str()?.into_any(),
        None => {
            COUNTER.set(COUNTER.get() + 1);
            PyInt::new(py, COUNTER.get()).into_any() // spelt out when somebody asks for it
        }
    };
    let given = context.is_some();
    let context = match context {
        Some(context) if !context::is_context(&context) => {
            this.set_log_destroy_pending(false);
            return Err(context::not_a_context(&context));
        }
        Some(context) => context,
        None => context::copy_current(py)?,
    };
    let before = (this.set_context(Some(context)), this.set_coro(Some(coro)));
    if before.1.as_ref().is_some_and(is_running) {
        std::mem::forget(before); // a second `__init__`, while the first coroutine runs: who steps it has no reference
    }
    if !given {
        this.hide_context();
    }
    drop(this.take_fut_waiter());
    this.set_must_cancel(false);
    this.set_log_destroy_pending(true);
    this.set_num_cancels(0);
    drop(this.set_name(Some(name)));
    let Some(event_loop) = this.fut().event_loop() else { return Ok(()) };
    if eager && event_loop.call_method0(intern!(py, "is_running"))?.is_truthy()? {
        return step::eager(this, &event_loop).inspect_err(|_| this.set_log_destroy_pending(false));
    }
    job::soon_for(this.fut(), Job::Step(this.object().to_owned().unbind()))?;
    thread::register(this)
}

/// Whether the coroutine may run just now: a plain one tells, of any other there is no saying.
#[cold]
fn is_running(coro: &Bound<'_, PyAny>) -> bool {
    let told = || coro.getattr(intern!(coro.py(), "cr_running"))?.is_truthy();
    !types::is_native_coroutine(coro) || told().unwrap_or(true)
}

/// What a Task accepts: a coroutine, by its type or by `asyncio.iscoroutine`, whose yes is remembered for the type.
pub(crate) fn is_coroutine(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    static KNOWN: PyOnceLock<Py<PySet>> = PyOnceLock::new();
    if types::is_native_coroutine(object) {
        return Ok(true);
    }
    let py = object.py();
    let known = KNOWN.get_or_try_init(py, || PySet::empty(py).map(Bound::unbind))?.bind(py);
    let class = object.get_type();
    if known.contains(&class)? {
        return Ok(true);
    }
    let yes = names(py).iscoroutine.bind(py).call1((object,))?.is_truthy()?;
    if yes && known.len() < 100 {
        known.add(class)?;
    }
    Ok(yes)
}

// --- methods -----------------------------------------------------------------------------------

/// `cancel(msg=None)`: at the next step CancelledError is thrown into the coroutine.
pub(crate) fn cancel<'py>(this: Tsk<'_, 'py>, message: Option<Bound<'py, PyAny>>) -> PyResult<bool> {
    this.fut().set_log_tb(false);
    if !this.fut().is_pending() {
        return Ok(false);
    }
    this.set_num_cancels(this.num_cancels() + 1);
    if let Some(waiter) = this.fut_waiter()
        && cancel_waiter(&waiter, message.as_ref())?
    {
        return Ok(true);
    }
    this.set_must_cancel(true);
    drop(this.fut().set_cancel_msg(message));
    Ok(true)
}

/// `waiter.cancel(msg=message)`, by the shortest way that is right.
pub(crate) fn cancel_waiter<'py>(
    waiter: &Bound<'py, PyAny>,
    message: Option<&Bound<'py, PyAny>>,
) -> PyResult<bool> {
    if let Some(task) = Tsk::cast_exact(waiter) {
        return context::recursive(waiter.py(), || cancel(task, message.cloned()));
    }
    if let Some(future) = Fut::cast_exact(waiter) {
        return futures::cancel(future, message.cloned());
    }
    let py = waiter.py();
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "msg"), message)?;
    waiter.call_method(intern!(py, "cancel"), (), Some(&keywords))?.is_truthy()
}

fn method_cancel<'py>(this: Tsk<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    let message = futures::cancel_message(args)?;
    cancel(this, message).map(|done| boolean(this.py(), done))
}

fn method_cancelling<'py>(this: Tsk<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), this.num_cancels()).into_any())
}

/// `uncancel()`: takes one cancellation back and says how many are left.
pub(crate) fn uncancel(this: Tsk<'_, '_>) -> i32 {
    let left = this.num_cancels();
    if left > 0 {
        this.set_num_cancels(left - 1);
        if left == 1 {
            this.set_must_cancel(false);
        }
    }
    this.num_cancels()
}

fn method_uncancel<'py>(this: Tsk<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), uncancel(this)).into_any())
}

fn method_get_stack<'py>(this: Tsk<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "get_stack",
        positional: &[],
        required: 0,
        positional_only: 0,
        keyword_only: &["limit"],
    };
    let [limit] = SIGNATURE.bind::<1>(args)?;
    names(this.py()).task_get_stack.bind(this.py()).call1((this.object(), limit))
}

fn method_print_stack<'py>(this: Tsk<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "print_stack",
        positional: &[],
        required: 0,
        positional_only: 0,
        keyword_only: &["limit", "file"],
    };
    let [limit, file] = SIGNATURE.bind::<2>(args)?;
    names(this.py()).task_print_stack.bind(this.py()).call1((this.object(), limit, file))
}

fn method_set_result<'py>(_: Tsk<'_, 'py>, _: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    Err(PyRuntimeError::new_err("Task does not support set_result operation"))
}

fn method_set_exception<'py>(_: Tsk<'_, 'py>, _: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    Err(PyRuntimeError::new_err("Task does not support set_exception operation"))
}

fn method_get_coro<'py>(this: Tsk<'_, 'py>) -> Object<'py> {
    Ok(this.coro().unwrap_or_else(|| none(this.py())))
}

fn method_get_context<'py>(this: Tsk<'_, 'py>) -> Object<'py> {
    Ok(this.context().unwrap_or_else(|| none(this.py())))
}

fn method_get_name<'py>(this: Tsk<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let Some(name) = this.name() else { return Ok(none(py)) };
    if !name.is_exact_instance_of::<PyInt>() {
        return Ok(name);
    }
    let name = PyString::new(py, &format!("Task-{name}")).into_any();
    drop(this.set_name(Some(name.clone())));
    Ok(name)
}

fn method_set_name<'py>(this: Tsk<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let name =
        if value.is_exact_instance_of::<PyString>() { value.to_owned() } else { value.str()?.into_any() };
    drop(this.set_name(Some(name)));
    Ok(none(this.py()))
}

fn get_log_destroy_pending<'py>(this: Tsk<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.log_destroy_pending()))
}

fn set_log_destroy_pending<'py>(this: Tsk<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.set_log_destroy_pending(value.is_truthy()?);
    Ok(())
}

fn get_must_cancel<'py>(this: Tsk<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.must_cancel()))
}

fn get_fut_waiter<'py>(this: Tsk<'_, 'py>) -> Object<'py> {
    Ok(this.fut_waiter().unwrap_or_else(|| none(this.py())))
}

pub(crate) fn repr<'py>(this: Tsk<'_, 'py>) -> Object<'py> {
    names(this.py()).task_repr.bind(this.py()).call1((this.object(),))
}

/// What Task has besides the methods it shares with Future.
pub(crate) fn methods(builder: Builder) -> Builder {
    builder
        .method(
            onearg::<AnyTask, _>(c"set_result", method_set_result)
                .doc(c"set_result($self, result, /)\n--\n\nRuntimeError: a task gets its result from its coroutine."),
        )
        .method(
            onearg::<AnyTask, _>(c"set_exception", method_set_exception)
                .doc(c"set_exception($self, exception, /)\n--\n\nRuntimeError: a task gets its exception from its coroutine."),
        )
        .method(
            anyargs::<AnyTask, _>(c"cancel", method_cancel)
                .doc(c"cancel($self, /, msg=None)\n--\n\nAsk for CancelledError to be thrown into the coroutine; return False if the task is done."),
        )
        .method(
            noargs::<AnyTask, _>(c"cancelling", method_cancelling)
                .doc(c"cancelling($self, /)\n--\n\nReturn how many cancellations were asked for and not taken back (int)."),
        )
        .method(
            noargs::<AnyTask, _>(c"uncancel", method_uncancel)
                .doc(c"uncancel($self, /)\n--\n\nTake one cancellation back; return how many are left (int)."),
        )
        .method(
            anyargs::<AnyTask, _>(c"get_stack", method_get_stack)
                .doc(c"get_stack($self, /, *, limit=None)\n--\n\nReturn the list of stack frames of the coroutine, oldest first."),
        )
        .method(
            anyargs::<AnyTask, _>(c"print_stack", method_print_stack)
                .doc(c"print_stack($self, /, *, limit=None, file=None)\n--\n\nPrint the stack or traceback of the coroutine (to stderr by default)."),
        )
        .method(
            noargs::<AnyTask, _>(c"get_coro", method_get_coro)
                .doc(c"get_coro($self, /)\n--\n\nReturn the coroutine, or None if the task ended eagerly."),
        )
        .method(
            noargs::<AnyTask, _>(c"get_context", method_get_context)
                .doc(c"get_context($self, /)\n--\n\nReturn the contextvars.Context of the task."),
        )
        .method(
            noargs::<AnyTask, _>(c"get_name", method_get_name)
                .doc(c"get_name($self, /)\n--\n\nReturn the name of the task (str)."),
        )
        .method(
            onearg::<AnyTask, _>(c"set_name", method_set_name)
                .doc(c"set_name($self, value, /)\n--\n\nSet the name of the task: str(value)."),
        )
        .attribute(
            getter::<AnyTask, _>(c"_log_destroy_pending", get_log_destroy_pending)
                .setter::<AnyTask, _>(set_log_destroy_pending),
        )
        .attribute(getter::<AnyTask, _>(c"_must_cancel", get_must_cancel))
        .attribute(getter::<AnyTask, _>(c"_coro", method_get_coro))
        .attribute(getter::<AnyTask, _>(c"_fut_waiter", get_fut_waiter))
}

/// Reports a task that goes away before it is done, and what a future reports.
pub(crate) fn finalize(this: Tsk<'_, '_>) {
    let py = this.py();
    if this.fut().state() == State::Pending && this.log_destroy_pending() {
        futures::without_current_error(py, || {
            let details = PyDict::new(py);
            details.set_item(intern!(py, "message"), "Task was destroyed but it is pending!")?;
            details.set_item(intern!(py, "task"), this.object())?;
            futures::call_exception_handler(this.fut(), &details)
        });
    }
    futures::finalize(this.fut());
}

// --- for loops and futures that aren't ours ----------------------------------------------------

/// The step of a task as a callable, for a foreign loop's `call_soon`.
pub(crate) struct TaskStep {
    task: Slot,
    error: Slot,
}

impl Class for TaskStep {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.TaskStep";

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.task.traverse(visit)?;
        self.error.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop((self.task.take(py), self.error.take(py)));
    }
}

fn call_step<'py>(this: Inst<'_, 'py, TaskStep>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature =
        Signature { name: "TaskStep", positional: &[], required: 0, positional_only: 0, keyword_only: &[] };
    let [] = SIGNATURE.bind::<0>(args)?;
    let py = this.py();
    if let Some(task) = this.task.get(py)
        && let Some(task) = Tsk::cast(&task)
    {
        let mut failure = None;
        let next = step::step(Here::new(py), task, this.error.get(py), &mut failure);
        step::go_on(task, next, failure)?;
    }
    Ok(none(py))
}

fn step_self<'py>(this: Inst<'_, 'py, TaskStep>) -> Object<'py> {
    Ok(this.task.get(this.py()).unwrap_or_else(|| none(this.py())))
}

/// `task.__step` as a callable.
pub(crate) fn step_callback<'py>(task: &Bound<'py, PyAny>, error: Option<Bound<'py, PyAny>>) -> Object<'py> {
    let step =
        TaskStep { task: Slot::holding(task.clone().unbind()), error: Slot::new(error.map(Bound::unbind)) };
    create(task.py(), step)
}

/// `task.__wakeup` as a callable, for a foreign future's `add_done_callback`.
pub(crate) fn wakeup_callback<'py>(task: &Bound<'py, PyAny>) -> Object<'py> {
    fn task_wakeup<'py>(this: Tsk<'_, 'py>, future: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
        let mut failure = None;
        let next = step::wake(Here::new(this.py()), this, &future, &mut failure);
        step::go_on(this, next, failure)?;
        Ok(none(this.py()))
    }
    static WAKEUP: std::sync::OnceLock<Method> = std::sync::OnceLock::new();
    WAKEUP.get_or_init(|| onearg::<AnyTask, _>(c"task_wakeup", task_wakeup)).bound(task)
}

/// Makes the types of this module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<TaskStep>()
        .slot(pyo3::ffi::Py_tp_call, caller::<Of<TaskStep>, _>(call_step))
        .attribute(getter::<Of<TaskStep>, _>(c"__self__", step_self))
        .build(module, None, TaskStep::cell())?;
    create::register(module)?;
    sleep::register(module)
}
