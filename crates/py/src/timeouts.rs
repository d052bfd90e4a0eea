//! `asyncio.timeout`, `timeout_at` and `Timeout`.
//!
//! [`Countdown`] is the rule: it cancels the task at the deadline and, on the way out, tells its own cancellation from
//! others. `Timeout` and `wait_for` each have one. On a native loop the deadline is one job of the scheduler.

use pyo3::exceptions::{
    PyAssertionError, PyBaseExceptionGroup, PyRuntimeError, PyTimeoutError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString, PyType};
use pyo3::{Borrowed, intern};

use crate::alarm::{Alarm, When};
use crate::anyfuture::{self, running_loop};
use crate::as_completed::{self, AsCompleted};
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::method::{AnyObject, Method, Of, anyargs, constructor, getter, initializer, noargs, unary};
use crate::ffi::spares::Spares;
use crate::ffi::{function, thread};
use crate::job::Timed;
use crate::local::LoopCore;
use crate::names::{asyncio, names, none};
use crate::prompt;
use crate::wait_for::WaitFor;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

// --- the rule ----------------------------------------------------------------------------------

/// Where a countdown is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Created,
    Entered,
    /// The task has been cancelled, and has not come out yet.
    Expiring,
    Expired,
    Exited,
}

impl State {
    const ALL: [Self; 5] = [Self::Created, Self::Entered, Self::Expiring, Self::Expired, Self::Exited];

    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Entered => "active",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Exited => "finished",
        }
    }
}

/// How to leave the block.
#[derive(Debug)]
pub(crate) enum Exit<'py> {
    /// As it ended.
    Plain,
    /// By raising this TimeoutError instead of the CancelledError.
    TimedOut(Bound<'py, PyAny>),
}

/// Cancels the task that entered it when a time has come.
#[derive(Debug)]
pub(crate) struct Countdown {
    state: Flag<State>,
    task: Slot,
    /// How many cancellations the task had when it entered.
    cancelling: Flag<i32>,
    alarm: Alarm,
    /// Counts the deadlines: a job for an earlier one is void.
    turn: Flag<u32>,
}

impl Countdown {
    pub(crate) const fn new() -> Self {
        Self {
            state: Flag::new(State::Created),
            task: Slot::empty(),
            cancelling: Flag::new(0),
            alarm: Alarm::unset(),
            turn: Flag::new(0),
        }
    }

    /// Starts counting for the current task; `owner` is the object that holds this.
    #[inline]
    pub(crate) fn enter<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        owner: &Bound<'py, PyAny>,
        when: Option<&When<'py>>,
    ) -> PyResult<()> {
        let Some(task) = thread::current_task(event_loop)? else {
            return Err(PyRuntimeError::new_err("Timeout should be used inside a task"));
        };
        self.state.set(State::Entered);
        self.cancelling.set(anyfuture::cancelling(&task)?);
        self.task.set(event_loop.py(), task);
        self.set(event_loop, owner, when)
    }

    /// Sets the deadline, in place of the one before.
    fn set<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        owner: &Bound<'py, PyAny>,
        when: Option<&When<'py>>,
    ) -> PyResult<()> {
        let py = event_loop.py();
        self.alarm.cancel(py);
        let Some(when) = when else { return Ok(()) };
        self.turn.set(self.turn.get().wrapping_add(1));
        let is_due = when.seconds <= now(event_loop)?;
        if let Some(this) = Inst::<Timeout>::cast(owner)
            && (this.dict.is_some() || !Timeout::cell().is_plain(owner))
            && Timeout::cell().is_replaced(owner, &this.dict, c"_on_timeout")?
        {
            let callback = owner.getattr(intern!(py, "_on_timeout"))?;
            return if is_due {
                self.alarm.call_soon(event_loop, &callback)
            } else {
                self.alarm.call_at(event_loop, when, &callback)
            };
        }
        let timed = Timed::new(owner);
        if is_due {
            self.alarm.set_soon(event_loop, timed, || on_timeout(owner))
        } else {
            self.alarm.set_at(event_loop, when, timed, || on_timeout(owner))
        }
    }

    /// The time has come.
    fn expire(&self, py: Python<'_>) -> PyResult<()> {
        if self.state.get() != State::Entered {
            return Ok(()); // left in the same turn, before this job's turn came
        }
        self.alarm.forget(py);
        if let Some(task) = self.task.get(py) {
            anyfuture::cancel(&task)?;
        }
        self.state.set(State::Expiring);
        Ok(())
    }

    /// Stops counting. `error` is the exception with which the block ended: its class and itself.
    #[inline]
    pub(crate) fn exit<'py>(
        &self,
        py: Python<'py>,
        error: Option<(&Bound<'py, PyAny>, Option<&Bound<'py, PyAny>>)>,
    ) -> PyResult<Exit<'py>> {
        self.alarm.cancel(py);
        let expiring = self.state.get() == State::Expiring;
        self.state.set(if expiring { State::Expired } else { State::Exited });
        let task = self.task.take(py);
        if !expiring {
            return Ok(Exit::Plain);
        }
        let left = task.map_or(Ok(0), |task| anyfuture::uncancel(&task))?;
        match error {
            // Without further requests to cancel, this one is ours to deal with.
            Some((class, value)) if left <= self.cancelling.get() => timed_out(class, value),
            _ => Ok(Exit::Plain),
        }
    }
}

impl Holds for Countdown {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.task.traverse(visit)?;
        self.alarm.traverse(visit)
    }

    #[inline]
    fn clear(&self, py: Python<'_>) {
        self.alarm.cancel(py);
        drop(self.task.take(py));
    }
}

/// `event_loop.time()`.
fn now(event_loop: &Bound<'_, PyAny>) -> PyResult<f64> {
    match LoopCore::of(event_loop) {
        Some(core) if !core.overrides_timers() => Ok(core.now()),
        _ => event_loop.call_method0(intern!(event_loop.py(), "time"))?.extract(),
    }
}

/// What a turn does with a job that says `owner`'s deadline has passed.
pub(crate) fn expire(owner: &Bound<'_, PyAny>, turn: u32) -> PyResult<()> {
    let py = owner.py();
    if let Some(iterator) = Inst::<AsCompleted>::cast_exact(owner) {
        return as_completed::on_timeout(iterator);
    }
    match countdown_of(owner) {
        Some(countdown) if countdown.turn.get() == turn => countdown.expire(py),
        _ => Ok(()),
    }
}

/// The task that a deadline would cancel, and the deadline's own object counts: for those who ask who can be woken.
pub(crate) fn task_of<'py>(owner: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    countdown_of(owner).and_then(|countdown| countdown.task.get(owner.py()))
}

/// Which of its deadlines an owner has now.
#[inline]
pub(crate) fn turn_of(owner: &Bound<'_, PyAny>) -> u32 {
    countdown_of(owner).map_or(0, |countdown| countdown.turn.get())
}

#[inline]
fn countdown_of<'a>(owner: &'a Bound<'_, PyAny>) -> Option<&'a Countdown> {
    Inst::<Timeout>::cast(owner)
        .map(|timeout| &timeout.get().countdown)
        .or_else(|| Inst::<WaitFor>::cast_exact(owner).map(|wait_for| wait_for.get().countdown()))
}

/// `owner._on_timeout`, for a loop that isn't native.
pub(crate) fn on_timeout<'py>(owner: &Bound<'py, PyAny>) -> Object<'py> {
    fn call<'py>(owner: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
        if let Some(iterator) = Inst::<AsCompleted>::cast_exact(&owner) {
            as_completed::on_timeout(iterator)?;
        } else if let Some(countdown) = countdown_of(&owner) {
            countdown.expire(owner.py())?;
        }
        Ok(none(owner.py()))
    }
    static CALL: std::sync::OnceLock<Method> = std::sync::OnceLock::new();
    CALL.get_or_init(|| noargs::<AnyObject, _>(c"_on_timeout", call)).bound(owner)
}

/// The block ended with an exception because of the timeout.
#[cold]
fn timed_out<'py>(class: &Bound<'py, PyAny>, value: Option<&Bound<'py, PyAny>>) -> PyResult<Exit<'py>> {
    let py = class.py();
    let cancelled = names(py).cancelled_error.bind(py);
    if class.cast::<PyType>()?.is_subclass(cancelled)? {
        return timeout_error(py, value).map(Exit::TimedOut);
    }
    if let Some(value) = value {
        insert_timeout_error(value)?;
        if value.is_instance_of::<PyBaseExceptionGroup>()
            && value.is_instance_of::<pyo3::exceptions::PyException>()
        {
            for one in value.getattr(intern!(py, "exceptions"))?.try_iter()? {
                insert_timeout_error(&one?)?;
            }
        }
    }
    Ok(Exit::Plain)
}

/// `TimeoutError()` as raised from, and while handling, a cancellation.
pub(crate) fn timeout_error<'py>(py: Python<'py>, cause: Option<&Bound<'py, PyAny>>) -> Object<'py> {
    let error = py.get_type::<PyTimeoutError>().call0()?;
    error.setattr(intern!(py, "__cause__"), cause)?;
    error.setattr(intern!(py, "__context__"), cause)?;
    Ok(error)
}

/// Puts a TimeoutError between an exception and the cancellation during which it was raised.
fn insert_timeout_error(error: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = error.py();
    let name = intern!(py, "__context__");
    let mut error = error.clone();
    loop {
        let context = error.getattr(name)?;
        if context.is_none() {
            return Ok(());
        }
        if context.is_instance(names(py).cancelled_error.bind(py))? {
            return error.setattr(name, timeout_error(py, Some(&context))?);
        }
        error = context;
    }
}

// --- Timeout -----------------------------------------------------------------------------------

/// `asyncio.Timeout`.
pub(crate) struct Timeout {
    countdown: Countdown,
    /// The deadline: none, the object that was given, or (without one) a number.
    seconds: Flag<Option<f64>>,
    given: Slot,
    dict: Slot,
}

type This<'a, 'py> = Inst<'a, 'py, Timeout>;

impl Class for Timeout {
    const NAME: &'static std::ffi::CStr = c"aioxide.Timeout";
    const SPARE: usize = 64;
    const SUBCLASSABLE: bool = true;
    const DICT: Option<usize> = Some(std::mem::offset_of!(Self, dict));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn spares() -> Option<&'static Spares> {
        static SPARES: Spares = Spares::new();
        Some(&SPARES)
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.countdown.traverse(visit)?;
        self.given.traverse(visit)?;
        self.dict.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.countdown.clear(py);
        drop((self.given.take(py), self.dict.take(py)));
    }
}

impl Timeout {
    fn with(seconds: Option<f64>) -> Self {
        Self {
            countdown: Countdown::new(),
            seconds: Flag::new(seconds),
            given: Slot::empty(),
            dict: Slot::empty(),
        }
    }

    fn set_when<'py>(&self, py: Python<'py>, when: Option<Bound<'py, PyAny>>) {
        self.seconds.set(None);
        drop(self.given.replace(py, when));
    }

    fn when<'py>(&self, py: Python<'py>) -> PyResult<Option<When<'py>>> {
        match (self.given.get(py), self.seconds.get()) {
            (Some(given), _) => When::of(given).map(Some),
            (None, Some(seconds)) => Ok(Some(When { seconds, given: None })),
            (None, None) => Ok(None),
        }
    }

    fn when_object<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match (self.given.get(py), self.seconds.get()) {
            (Some(given), _) => given,
            (None, Some(seconds)) => When { seconds, given: None }.object(py),
            (None, None) => none(py),
        }
    }
}

fn new_timeout(_: Args<'_, '_>) -> PyResult<Timeout> {
    Ok(Timeout::with(None))
}

/// `Timeout(when)`.
fn init<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "Timeout",
        positional: &["when"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [when] = SIGNATURE.bind::<1>(args)?;
    this.set_when(this.py(), given(when));
    Ok(())
}

fn method_when<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.when_object(this.py()))
}

fn method_reschedule<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "reschedule",
        positional: &["when"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [when] = SIGNATURE.bind::<1>(args)?;
    let py = this.py();
    match this.countdown.state.get() {
        State::Entered => {}
        State::Created => return Err(PyRuntimeError::new_err("Timeout has not been entered")),
        state => {
            return Err(PyRuntimeError::new_err(format!("Cannot change state of {} Timeout", state.name())));
        }
    }
    this.set_when(py, given(when));
    let when = this.when(py)?;
    if when.is_none() {
        this.countdown.turn.set(this.countdown.turn.get().wrapping_add(1));
        this.countdown.alarm.cancel(py);
    } else {
        this.countdown.set(&running_loop(py)?, &this.object(), when.as_ref())?;
    }
    Ok(none(py))
}

fn method_expired<'py>(this: This<'_, 'py>) -> Object<'py> {
    let expired = matches!(this.countdown.state.get(), State::Expiring | State::Expired);
    Ok(pyo3::types::PyBool::new(this.py(), expired).to_owned().into_any())
}

fn method_on_timeout<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.countdown.expire(this.py())?;
    Ok(none(this.py()))
}

/// `_timeout_handler`: from when it is asked for, the deadline is a handle of the loop.
fn get_timeout_handler<'py>(this: This<'_, 'py>) -> Object<'py> {
    let (py, alarm) = (this.py(), &this.countdown.alarm);
    if let Some(when) = this.when(py)?
        && let Some(event_loop) = alarm.native_loop(py)
    {
        let callback = on_timeout(&this.object())?;
        let handle = event_loop.call_method1(intern!(py, "call_at"), (when.object(py), callback))?;
        alarm.keep(Some(handle), py);
    }
    Ok(alarm.handle(py).unwrap_or_else(|| none(py)))
}

fn set_timeout_handler<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.countdown.alarm.keep((!value.is_none()).then(|| value.to_owned()), this.py());
    Ok(())
}

fn get_task<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.countdown.task.get(this.py()).unwrap_or_else(|| none(this.py())))
}

fn set_when<'py>(this: This<'_, 'py>, when: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.set_when(this.py(), given(Some(when)));
    Ok(())
}

fn set_task<'py>(this: This<'_, 'py>, task: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    drop(this.countdown.task.replace(this.py(), given(Some(task))));
    Ok(())
}

fn get_cancelling<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), this.countdown.cancelling.get()).into_any())
}

fn set_cancelling<'py>(this: This<'_, 'py>, count: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.countdown.cancelling.set(count.extract()?);
    Ok(())
}

fn set_state<'py>(this: This<'_, 'py>, state: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let name: String = state.getattr(intern!(this.py(), "value"))?.extract()?;
    let found = State::ALL.into_iter().find(|state| state.name() == name);
    this.countdown.state.set(found.ok_or_else(|| PyValueError::new_err("no state of a timeout"))?);
    Ok(())
}

/// `_state`, which is asyncio's own enumeration.
fn get_state<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    asyncio(py).timeouts.bind(py).getattr(intern!(py, "_State"))?.call1((this.countdown.state.get().name(),))
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let state = this.countdown.state.get();
    let mut text = format!("<Timeout [{}]", state.name());
    if state == State::Entered {
        let mut when = this.when_object(py);
        if !when.is_none() {
            when = py.import("builtins")?.call_method1("round", (when, 3))?;
        }
        text.push_str(&format!(" when={}", when.str()?));
    }
    text.push('>');
    Ok(PyString::new(py, &text).into_any())
}

fn method_enter<'py>(this: This<'_, 'py>) -> Object<'py> {
    fn enter<'py>(
        owner: &Bound<'py, PyAny>,
        _: Option<Bound<'py, PyAny>>,
        _: Option<Bound<'py, PyAny>>,
    ) -> Object<'py> {
        let Some(this) = This::cast(owner) else { return Ok(owner.clone()) };
        let py = owner.py();
        if this.countdown.state.get() != State::Created {
            return Err(PyRuntimeError::new_err("Timeout has already been entered"));
        }
        let when = this.when(py)?;
        this.countdown.enter(&running_loop(py)?, owner, when.as_ref())?;
        Ok(owner.clone())
    }
    prompt::coroutine("Timeout.__aenter__", this.to_owned(), (None, None), enter)
}

fn method_exit<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    fn exit<'py>(
        owner: &Bound<'py, PyAny>,
        class: Option<Bound<'py, PyAny>>,
        error: Option<Bound<'py, PyAny>>,
    ) -> Object<'py> {
        let Some(this) = This::cast(owner) else { return Ok(owner.clone()) };
        if !matches!(this.countdown.state.get(), State::Entered | State::Expiring) {
            return Err(PyAssertionError::new_err("Timeout is not active"));
        }
        match this.countdown.exit(owner.py(), class.as_ref().map(|class| (class, error.as_ref())))? {
            Exit::Plain => Ok(none(owner.py())),
            Exit::TimedOut(error) => Err(PyErr::from_value(error)),
        }
    }
    let error = exit_arguments(args)?;
    prompt::coroutine("Timeout.__aexit__", this.to_owned(), error, exit)
}

/// The exception that `__aexit__(exc_type, exc_val, exc_tb)` is given: its class and itself.
#[inline]
pub(crate) fn exit_arguments<'py>(
    args: Args<'_, 'py>,
) -> PyResult<(Option<Bound<'py, PyAny>>, Option<Bound<'py, PyAny>>)> {
    const SIGNATURE: Signature = Signature {
        name: "__aexit__",
        positional: &["exc_type", "exc_val", "exc_tb"],
        required: 3,
        positional_only: 0,
        keyword_only: &[],
    };
    if let (Some(class), Some(value), 3, false) = (args.get(0), args.get(1), args.len(), args.has_names()) {
        return Ok((given(Some(class)), given(Some(value))));
    }
    let [class, value, _] = SIGNATURE.bind::<3>(args)?;
    Ok((given(class), given(value)))
}

// --- functions ---------------------------------------------------------------------------------

/// `timeout(delay)`.
fn timeout<'py>(args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "timeout",
        positional: &["delay"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [delay] = SIGNATURE.bind::<1>(args)?;
    let py = args.py();
    let event_loop = running_loop(py)?;
    let Some(delay) = delay.filter(|d| !d.is_none()) else { return create(py, Timeout::with(None)) };
    let when = When::after(&event_loop, &delay)?;
    let timeout = Timeout::with(Some(when.seconds));
    if when.given.is_some() {
        timeout.set_when(py, when.given);
    }
    create(py, timeout)
}

/// `timeout_at(when)`.
fn timeout_at<'py>(args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "timeout_at",
        positional: &["when"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [when] = SIGNATURE.bind::<1>(args)?;
    let timeout = Timeout::with(None);
    timeout.set_when(args.py(), given(when));
    create(args.py(), timeout)
}

/// Makes the type and the functions.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let class = Builder::of::<Timeout>()
        .doc(
            c"Timeout(when)\n--\n\nAn asynchronous context manager that cancels its block at a time of the loop's \
              clock.\n\n`timeout()` and `timeout_at()` make one.",
        )
        .slot(pyo3::ffi::Py_tp_new, constructor::<Timeout, _>(new_timeout))
        .slot(pyo3::ffi::Py_tp_init, initializer::<Of<Timeout>, _>(init))
        .slot(pyo3::ffi::Py_tp_repr, unary::<Of<Timeout>, _>(repr))
        .method(noargs::<Of<Timeout>, _>(c"when", method_when).doc(c"when($self, /)\n--\n\nReturn the deadline, or None."))
        .method(anyargs::<Of<Timeout>, _>(c"reschedule", method_reschedule).doc(c"reschedule($self, when)\n--\n\nSet another deadline, or none."))
        .method(noargs::<Of<Timeout>, _>(c"expired", method_expired).doc(c"expired($self, /)\n--\n\nWhether the deadline has passed inside of the block."))
        .method(noargs::<Of<Timeout>, _>(c"__aenter__", method_enter).doc(c"__aenter__($self, /)\n--\n\n"))
        .method(anyargs::<Of<Timeout>, _>(c"__aexit__", method_exit).doc(c"__aexit__($self, exc_type, exc_val, exc_tb)\n--\n\n"))
        .method(noargs::<Of<Timeout>, _>(c"_on_timeout", method_on_timeout))
        .attribute(getter::<Of<Timeout>, _>(c"_when", method_when).setter::<Of<Timeout>, _>(set_when))
        .attribute(getter::<Of<Timeout>, _>(c"_task", get_task).setter::<Of<Timeout>, _>(set_task))
        .attribute(
            getter::<Of<Timeout>, _>(c"_timeout_handler", get_timeout_handler)
                .setter::<Of<Timeout>, _>(set_timeout_handler),
        )
        .attribute(getter::<Of<Timeout>, _>(c"_state", get_state).setter::<Of<Timeout>, _>(set_state))
        .attribute(
            getter::<Of<Timeout>, _>(c"_cancelling", get_cancelling).setter::<Of<Timeout>, _>(set_cancelling),
        )
        .build(module, None, Timeout::cell())?;
    module.add("Timeout", class)?;
    module.add("timeout", function::function(py, "asyncio.timeouts", "timeout", timeout)?)?;
    module.add("timeout_at", function::function(py, "asyncio.timeouts", "timeout_at", timeout_at)?)
}
