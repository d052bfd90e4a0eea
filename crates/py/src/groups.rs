//! `asyncio.TaskGroup`: tasks that are waited for together; the first failure cancels the others.
//!
//! The group itself watches its tasks: it is the hook that a turn calls for each that is done (see `hooks`).

use pyo3::exceptions::{
    PyBaseExceptionGroup, PyGeneratorExit, PyKeyboardInterrupt, PyRuntimeError, PySystemExit,
};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyString, PyType};
use pyo3::{Borrowed, intern};

use crate::anyfuture::{self, Outcome, running_loop};
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::iter::{Coroutine, Life, Step, raised, reused};
use crate::ffi::method::{Of, anyargs, constructor, getter, initializer, noargs, onearg, unary};
use crate::ffi::thread;
use crate::frame::{Frame, class};
use crate::members::Members;
use crate::names::{boolean, names, none};
use crate::parked::Parked;
use crate::tasks::create;
use crate::timeouts::exit_arguments;
use crate::{hooks, prompt};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// `TaskGroup()`.
pub(crate) struct TaskGroup {
    entered: Flag<bool>,
    exiting: Flag<bool>,
    aborting: Flag<bool>,
    /// We have cancelled the parent, so we must take that back.
    parent_cancel_requested: Flag<bool>,
    cancel_on_enter: Flag<bool>,
    event_loop: Slot,
    parent: Slot,
    /// The tasks that are not done.
    tasks: Members,
    /// The list of what they raised.
    errors: Slot,
    /// The first SystemExit or KeyboardInterrupt among it.
    base_error: Slot,
    /// What `__aexit__` waits for while there are tasks.
    on_completed: Slot,
    dict: Slot,
}

type This<'a, 'py> = Inst<'a, 'py, TaskGroup>;

impl Class for TaskGroup {
    const NAME: &'static std::ffi::CStr = c"aioxide.TaskGroup";
    const SUBCLASSABLE: bool = true;
    const DICT: Option<usize> = Some(std::mem::offset_of!(Self, dict));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.tasks.traverse(visit)?;
        self.slots().into_iter().try_for_each(|slot| slot.traverse(visit))
    }

    fn clear(&self, py: Python<'_>) {
        self.tasks.clear(py);
        for slot in self.slots() {
            drop(slot.take(py));
        }
    }
}

impl TaskGroup {
    fn slots(&self) -> [&Slot; 6] {
        [&self.event_loop, &self.parent, &self.errors, &self.base_error, &self.on_completed, &self.dict]
    }

    /// Whether the methods are surely ours.
    #[inline]
    fn is_plain(this: This<'_, '_>) -> bool {
        !this.dict.is_some() && Self::cell().is_plain(&this.object())
    }

    fn errors<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyList>> {
        self.errors.get(py).and_then(|errors| errors.cast_into().ok())
    }

    fn has_errors(&self, py: Python<'_>) -> bool {
        self.errors(py).is_some_and(|errors| !errors.is_empty())
    }

    fn add_error(&self, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = error.py();
        match self.errors(py) {
            Some(errors) => errors.append(error),
            None => {
                self.errors.set(py, PyList::new(py, [error])?.into_any());
                Ok(())
            }
        }
    }

    /// Remembers the first error that is no Exception in disguise: `self._is_base_error(error)`.
    fn note_base_error(this: This<'_, '_>, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let is_base = if Self::is_plain(this) {
            is_base_error(error)
        } else {
            this.object().call_method1(intern!(error.py(), "_is_base_error"), (error,))?.is_truthy()?
        };
        if is_base && !this.base_error.is_some() {
            this.base_error.set(error.py(), error.clone());
        }
        Ok(())
    }

    /// `self._abort()`: cancels what is not done, and refuses more. A subclass may do otherwise.
    fn abort(this: This<'_, '_>) -> PyResult<()> {
        if Self::is_plain(this) {
            return this.cancel_tasks(this.py());
        }
        this.object().call_method0(intern!(this.py(), "_abort")).map(drop)
    }

    fn cancel_tasks(&self, py: Python<'_>) -> PyResult<()> {
        self.aborting.set(true);
        for task in self.tasks.list(py)? {
            if !anyfuture::is_done(&task)? {
                anyfuture::cancel(&task)?;
            }
        }
        Ok(())
    }

    /// Cancels the task that runs the block.
    fn cancel_parent(&self, py: Python<'_>) -> PyResult<()> {
        self.parent_cancel_requested.set(true);
        match self.parent.get(py) {
            Some(parent) => anyfuture::cancel(&parent).map(drop),
            None => Ok(()),
        }
    }

    fn cancel(this: This<'_, '_>) -> PyResult<()> {
        let py = this.py();
        if !this.entered.get() {
            this.cancel_on_enter.set(true);
            return Ok(());
        }
        if this.aborting.get() || this.exiting.get() && !this.tasks.has_any(py)? {
            return Ok(());
        }
        Self::abort(this)?;
        if this.parent.is_some() && !this.parent_cancel_requested.get() {
            return this.cancel_parent(py);
        }
        Ok(())
    }
}

fn is_base_error(error: &Bound<'_, PyAny>) -> bool {
    error.is_instance_of::<PySystemExit>() || error.is_instance_of::<PyKeyboardInterrupt>()
}

fn new_group(_: Args<'_, '_>) -> PyResult<TaskGroup> {
    Ok(TaskGroup {
        entered: Flag::new(false),
        exiting: Flag::new(false),
        aborting: Flag::new(false),
        parent_cancel_requested: Flag::new(false),
        cancel_on_enter: Flag::new(false),
        event_loop: Slot::empty(),
        parent: Slot::empty(),
        tasks: Members::new(),
        errors: Slot::empty(),
        base_error: Slot::empty(),
        on_completed: Slot::empty(),
        dict: Slot::empty(),
    })
}

fn init<'py>(_: This<'_, 'py>, args: Args<'_, 'py>) -> PyResult<()> {
    const SIGNATURE: Signature =
        Signature { name: "TaskGroup", positional: &[], required: 0, positional_only: 0, keyword_only: &[] };
    let [] = SIGNATURE.bind::<0>(args)?;
    Ok(())
}

// --- tasks -------------------------------------------------------------------------------------

/// Refuses a task: its coroutine never runs.
#[cold]
fn refuse<'py>(this: This<'_, 'py>, args: Args<'_, 'py>, reason: &str) -> PyErr {
    let refused = || -> PyResult<PyErr> {
        let coro = match args.get(0) {
            Some(coro) => Some(coro.to_owned()),
            None => args.to_call()?.1.map(|keywords| keywords.get_item("coro")).transpose()?.flatten(),
        };
        if let Some(coro) = coro {
            coro.call_method0(intern!(coro.py(), "close"))?;
        }
        Ok(PyRuntimeError::new_err(format!("TaskGroup {} {reason}", this.object().repr()?)))
    };
    refused().unwrap_or_else(|error| error)
}

/// `create_task(coro, **kwargs)`.
fn method_create_task<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    let py = this.py();
    if !this.entered.get() {
        return Err(refuse(this, args, "has not been entered"));
    }
    if this.exiting.get() && !this.tasks.has_any(py)? {
        return Err(refuse(this, args, "is finished"));
    }
    if this.aborting.get() {
        return Err(refuse(this, args, "is shutting down"));
    }
    let Some(event_loop) = this.event_loop.get(py) else {
        return Err(refuse(this, args, "has not been entered"));
    };
    let task = create::task_with(&event_loop, args)?;
    anyfuture::add_awaited_by(&task, this.parent.get(py).as_ref())?;
    this.tasks.add(&task)?;
    // Also for one that is done already: what it raised must not cancel the parent before its next step.
    if TaskGroup::is_plain(this) {
        hooks::watch(&task, &this.object())?;
    } else {
        let on_done = this.object().getattr(intern!(py, "_on_task_done"))?;
        task.call_method1(intern!(py, "add_done_callback"), (on_done,))?;
    }
    if this.aborting.get() && !anyfuture::is_done(&task)? {
        // It ran eagerly and cancelled the group before it was one of it.
        anyfuture::cancel(&task)?;
    }
    Ok(task)
}

/// One of the tasks is done.
#[inline]
pub(crate) fn on_done<'py>(this: This<'_, 'py>, task: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    let parent = this.parent.get(py);
    let last = this.tasks.remove(task)?;
    anyfuture::discard_awaited_by(task, parent.as_ref())?;
    if last && let Some(waiter) = this.on_completed.get(py) {
        anyfuture::release(&waiter, PyBool::new(py, true).to_owned().into_any())?;
    }
    let Outcome::Failed(error) = anyfuture::outcome(task)? else { return Ok(()) };
    this.add_error(&error)?;
    TaskGroup::note_base_error(this, &error)?;
    if let Some(parent) = &parent
        && anyfuture::is_done(parent)?
        && let Some(event_loop) = this.event_loop.get(py)
    {
        let details = PyDict::new(py);
        let (shown, parent) = (task.repr()?, parent.repr()?);
        let text = format!("Task {shown} has errored out but its parent task {parent} is already completed");
        details.set_item("message", text)?;
        details.set_item("exception", &error)?;
        details.set_item("task", task)?;
        return event_loop.call_method1(intern!(py, "call_exception_handler"), (details,)).map(drop);
    }
    if !this.aborting.get() && !this.parent_cancel_requested.get() {
        // Nobody has cancelled the parent yet: we do, so that the block ends, and take it back in `__aexit__`.
        TaskGroup::abort(this)?;
        this.cancel_parent(py)?;
    }
    Ok(())
}

// --- the block ---------------------------------------------------------------------------------

fn method_enter<'py>(this: This<'_, 'py>) -> Object<'py> {
    fn enter<'py>(
        owner: &Bound<'py, PyAny>,
        _: Option<Bound<'py, PyAny>>,
        _: Option<Bound<'py, PyAny>>,
    ) -> Object<'py> {
        let Some(this) = This::cast(owner) else { return Ok(owner.clone()) };
        let py = owner.py();
        if this.entered.get() {
            return Err(PyRuntimeError::new_err(format!(
                "TaskGroup {} has already been entered",
                owner.repr()?
            )));
        }
        let event_loop = match this.event_loop.get(py) {
            Some(event_loop) => event_loop,
            None => running_loop(py)?,
        };
        this.event_loop.set(py, event_loop.clone());
        let Some(parent) = thread::current_task(&event_loop)? else {
            let text = format!("TaskGroup {} cannot determine the parent task", owner.repr()?);
            return Err(PyRuntimeError::new_err(text));
        };
        this.parent.set(py, parent);
        this.entered.set(true);
        if this.cancel_on_enter.get() {
            TaskGroup::cancel(this)?;
        }
        Ok(owner.clone())
    }
    prompt::coroutine("TaskGroup.__aenter__", this.to_owned(), (None, None), enter)
}

fn method_exit<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    let (class, error) = exit_arguments(args)?;
    let exit = GroupExit {
        group: Slot::holding(this.to_owned().unbind()),
        phase: Flag::new(Phase::Created),
        class: Slot::new(class.map(Bound::unbind)),
        error: Slot::new(error.map(Bound::unbind)),
        cancellation: Slot::empty(),
        latest: Slot::empty(),
        parked: Parked::new(),
    };
    create(this.py(), exit)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Created,
    Waiting,
    Over,
}

/// `TaskGroup.__aexit__(et, exc, tb)`.
pub(crate) struct GroupExit {
    group: Slot,
    phase: Flag<Phase>,
    /// The exception that ended the block: its class and itself.
    class: Slot,
    error: Slot,
    /// The CancelledError to pass on, if any.
    cancellation: Slot,
    /// The last CancelledError that interrupted the wait.
    latest: Slot,
    parked: Parked,
}

class!(GroupExit, c"aioxide._core.GroupExit", spare 64, [group, class, error, cancellation, latest, parked]);

impl GroupExit {
    /// Runs `step`; unless it waits, the group lets go of exceptions and of the parent, which may form cycles.
    fn run<'py>(
        this: Inst<'_, 'py, Self>,
        step: impl FnOnce(This<'_, 'py>) -> PyResult<Step<'py>>,
    ) -> PyResult<Step<'py>> {
        let py = this.py();
        let Some(group) = this.group.get(py) else { return Err(reused()) };
        let Some(known) = This::cast(&group) else { return Err(reused()) };
        let result = step(known);
        if !matches!(result, Ok(Step::Yield(_))) {
            this.get().clear(py);
            drop((known.parent.take(py), known.errors.take(py), known.base_error.take(py)));
        }
        result
    }

    /// The block has ended.
    fn begin<'py>(&self, group: This<'_, 'py>) -> PyResult<Step<'py>> {
        let py = group.py();
        group.exiting.set(true);
        if let Some(error) = self.error.get(py) {
            TaskGroup::note_base_error(group, &error)?;
        }
        if let Some(class) = self.class.get(py) {
            if is_subclass(&class, names(py).cancelled_error.bind(py))? {
                drop(self.cancellation.replace(py, self.error.get(py)));
            }
            if !group.aborting.get() {
                TaskGroup::abort(group)?;
            }
        }
        self.go_on(group)
    }

    /// Waits while there are tasks.
    fn go_on<'py>(&self, group: This<'_, 'py>) -> PyResult<Step<'py>> {
        let py = group.py();
        if !group.tasks.has_any(py)? {
            return self.end(group).map(Step::Return);
        }
        let waiter = match (group.on_completed.get(py), group.event_loop.get(py)) {
            (Some(waiter), _) => waiter,
            (None, Some(event_loop)) => anyfuture::create(&event_loop)?,
            (None, None) => return Err(reused()),
        };
        group.on_completed.set(py, waiter.clone());
        self.phase.set(Phase::Waiting);
        self.parked.wait(waiter)
    }

    /// The wait has ended: all tasks are done, or somebody cancels us.
    fn resumed<'py>(&self, group: This<'_, 'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        let py = group.py();
        drop(self.parked.leave(py));
        if let Some(error) = error {
            let value = error.into_value(py).into_bound(py).into_any();
            if !value.is_instance(names(py).cancelled_error.bind(py))? {
                return Err(PyErr::from_value(value));
            }
            self.latest.set(py, value.clone());
            if !group.aborting.get() {
                self.cancellation.set(py, value);
                TaskGroup::abort(group)?;
            }
        }
        drop(group.on_completed.take(py));
        self.go_on(group)
    }

    /// All tasks are done: what to raise, if anything.
    fn end<'py>(&self, group: This<'_, 'py>) -> Object<'py> {
        let py = group.py();
        let (class, error) = (self.class.take(py), self.error.take(py));
        let mut cancellation = self.cancellation.take(py);
        if let Some(error) = group.base_error.get(py) {
            return Err(raised(&error));
        }
        let parent = group.parent.get(py).unwrap_or_else(|| none(py));
        if group.parent_cancel_requested.get() {
            if anyfuture::uncancel(&parent)? == 0 {
                cancellation = None;
            } else if cancellation.is_none() {
                // What is left is not ours to swallow.
                cancellation = self.latest.take(py);
            }
        }
        if let Some(cancellation) = cancellation
            && !group.has_errors(py)
        {
            return Err(raised(&cancellation));
        }
        let cancelled = match &class {
            Some(class) => is_subclass(class, names(py).cancelled_error.bind(py))?,
            None => true,
        };
        if !cancelled && let Some(error) = &error {
            group.add_error(error)?;
        }
        let Some(errors) = group.errors(py).filter(|errors| !errors.is_empty()) else {
            // Whatever deserved to be raised has been.
            return Ok(PyBool::new(py, true).to_owned().into_any());
        };
        if anyfuture::cancelling(&parent)? > 0 {
            // Cancelled from outside: once more, so that the request outlives this exception.
            anyfuture::uncancel(&parent)?;
            anyfuture::cancel(&parent)?;
        }
        if let (Some(class), Some(error), 1) = (&class, &error, errors.len())
            && is_subclass(class, &py.get_type::<PyGeneratorExit>())?
        {
            // An asynchronous generator that is being closed must see its GeneratorExit plain.
            return Err(raised(error));
        }
        let all = py.get_type::<PyBaseExceptionGroup>().call1(("unhandled errors in a TaskGroup", errors))?;
        all.setattr(intern!(py, "__cause__"), py.None())?;
        Err(raised(&all))
    }
}

fn is_subclass(class: &Bound<'_, PyAny>, base: &Bound<'_, PyType>) -> PyResult<bool> {
    class.cast::<PyType>()?.is_subclass(base)
}

impl Frame for GroupExit {
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
        match this.phase.replace(Phase::Over) {
            Phase::Created => Self::run(this, |group| this.begin(group)),
            Phase::Waiting => {
                let error = error.or_else(|| this.parked.outcome(this.py()).err());
                Self::run(this, |group| this.resumed(group, error))
            }
            Phase::Over => Err(reused()),
        }
    }
}

impl Coroutine for GroupExit {
    fn qualname(_: Inst<'_, '_, Self>) -> &'static str {
        "TaskGroup.__aexit__"
    }

    fn awaited<'py>(this: Inst<'_, 'py, Self>) -> Option<Bound<'py, PyAny>> {
        this.parked.future(this.py())
    }

    fn waits_for<'py>(this: Inst<'_, 'py, Self>) -> Option<(&'static str, Option<Bound<'py, PyAny>>)> {
        let group = this.group.get(this.py());
        let tasks = group
            .as_ref()
            .and_then(Inst::<TaskGroup>::cast)
            .and_then(|group| group.tasks.list(this.py()).ok());
        let tasks = tasks.and_then(|tasks| PyList::new(this.py(), tasks).ok()).map(Bound::into_any);
        Some(("group", tasks))
    }

    fn life(this: Inst<'_, '_, Self>) -> Life {
        this.at()
    }

    fn within(_: Inst<'_, '_, Self>) -> &'static [&'static str] {
        &["TaskGroup._aexit"]
    }
}

// --- the rest ----------------------------------------------------------------------------------

fn method_cancel<'py>(this: This<'_, 'py>) -> Object<'py> {
    TaskGroup::cancel(this)?;
    Ok(none(this.py()))
}

fn method_abort<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.cancel_tasks(this.py())?;
    Ok(none(this.py()))
}

fn method_task_done<'py>(this: This<'_, 'py>, task: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    on_done(this, &task)?;
    Ok(none(this.py()))
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let mut text = String::from("<TaskGroup");
    if this.tasks.has_any(py)? {
        text.push_str(&format!(" tasks={}", this.tasks.len(py)?));
    }
    if let Some(errors) = this.errors(py).filter(|errors| !errors.is_empty()) {
        text.push_str(&format!(" errors={}", errors.len()));
    }
    if this.aborting.get() {
        text.push_str(" cancelling");
    } else if this.entered.get() {
        text.push_str(" entered");
    }
    text.push('>');
    Ok(PyString::new(py, &text).into_any())
}

fn method_is_base_error<'py>(this: This<'_, 'py>, error: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    Ok(boolean(this.py(), is_base_error(&error)))
}

fn set_errors<'py>(this: This<'_, 'py>, errors: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    drop(this.errors.replace(this.py(), (!errors.is_none()).then(|| errors.to_owned())));
    Ok(())
}

fn get_tasks<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.tasks.show(this.py())
}

fn set_tasks<'py>(this: This<'_, 'py>, tasks: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.tasks.replace(&tasks);
    Ok(())
}

/// `_errors`: a list, until the block is over.
fn get_errors<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let is_over = this.exiting.get() && !this.parent.is_some();
    if !this.errors.is_some() && !is_over {
        this.errors.set(py, PyList::empty(py).into_any());
    }
    Ok(this.errors.get(py).unwrap_or_else(|| none(py)))
}

/// One of asyncio's private attributes that is a flag, to read and to write.
macro_rules! flag {
    ($name:literal, $field:ident) => {{
        fn get<'py>(this: This<'_, 'py>) -> Object<'py> {
            Ok(boolean(this.py(), this.$field.get()))
        }
        fn set<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
            this.$field.set(value.is_truthy()?);
            Ok(())
        }
        getter::<Of<TaskGroup>, _>($name, get).setter::<Of<TaskGroup>, _>(set)
    }};
}

/// … that is an object or None.
macro_rules! object {
    ($name:literal, $field:ident) => {{
        fn get<'py>(this: This<'_, 'py>) -> Object<'py> {
            Ok(this.$field.get(this.py()).unwrap_or_else(|| none(this.py())))
        }
        fn set<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
            let value = (!value.is_none()).then(|| value.to_owned());
            drop(this.$field.replace(this.py(), value));
            Ok(())
        }
        getter::<Of<TaskGroup>, _>($name, get).setter::<Of<TaskGroup>, _>(set)
    }};
}

/// Makes the types.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = Builder::of::<TaskGroup>()
        .doc(
            c"TaskGroup()\n--\n\nAn asynchronous context manager that waits for the tasks it has made; the first to \
              fail cancels the others.",
        )
        .slot(pyo3::ffi::Py_tp_new, constructor::<TaskGroup, _>(new_group))
        .slot(pyo3::ffi::Py_tp_init, initializer::<Of<TaskGroup>, _>(init))
        .slot(pyo3::ffi::Py_tp_repr, unary::<Of<TaskGroup>, _>(repr))
        .method(noargs::<Of<TaskGroup>, _>(c"__aenter__", method_enter).doc(c"__aenter__($self, /)\n--\n\n"))
        .method(anyargs::<Of<TaskGroup>, _>(c"__aexit__", method_exit).doc(c"__aexit__($self, et, exc, tb)\n--\n\n"))
        .method(anyargs::<Of<TaskGroup>, _>(c"create_task", method_create_task).doc(c"create_task($self, coro, *, name=None, context=None, **kwargs)\n--\n\nMake a task of the group, as asyncio.create_task() does."))
        .method(noargs::<Of<TaskGroup>, _>(c"cancel", method_cancel).doc(c"cancel($self, /)\n--\n\nCancel what is not done, the block too, and leave it without an exception."))
        .method(noargs::<Of<TaskGroup>, _>(c"_abort", method_abort))
        .method(onearg::<Of<TaskGroup>, _>(c"_on_task_done", method_task_done))
        .attribute(getter::<Of<TaskGroup>, _>(c"_tasks", get_tasks).setter::<Of<TaskGroup>, _>(set_tasks))
        .method(onearg::<Of<TaskGroup>, _>(c"_is_base_error", method_is_base_error))
        .attribute(getter::<Of<TaskGroup>, _>(c"_errors", get_errors).setter::<Of<TaskGroup>, _>(set_errors))
        .attribute(flag!(c"_entered", entered))
        .attribute(flag!(c"_exiting", exiting))
        .attribute(flag!(c"_aborting", aborting))
        .attribute(flag!(c"_parent_cancel_requested", parent_cancel_requested))
        .attribute(object!(c"_parent_task", parent))
        .attribute(object!(c"_loop", event_loop))
        .attribute(object!(c"_base_error", base_error))
        .attribute(object!(c"_on_completed_fut", on_completed))
        .build(module, None, TaskGroup::cell())?;
    module.add("TaskGroup", class)?;
    Builder::of::<GroupExit>().coroutine::<GroupExit>().build(module, None, GroupExit::cell())?;
    Ok(())
}
