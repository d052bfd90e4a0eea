//! `asyncio.Handle` and `TimerHandle`: a callback with its arguments and context, to be run by a loop once.
//!
//! calls.rs makes most of them, a turn runs them.

mod make;
mod run;

use aioxide_core::TimerPlace;
use pyo3::basic::CompareOp;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyList, PyString, PyTuple, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{Borrowed, intern};

pub(crate) use self::make::{Arguments, soon, threadsafe, timer};
use self::run::run;
pub(crate) use self::run::{context_of, for_job, for_report, run_object};
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::{Flag, Late, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell};
use crate::ffi::context;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{Of, constructor, getter, hash, initializer, noargs, richcompare, unary};
use crate::ffi::spares::Spares;
use crate::ffi::thread::thread_id;
use crate::futures;
use crate::local::{self, LoopCore, NUMBER_BITS};
use crate::names::names;
use crate::names::none;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// A callback with its arguments and context. A timer's has the time it is due.
#[repr(C)] // what `cancel` of a timer touches comes first: with the object's header half a cache line
pub(crate) struct Handle {
    /// Where it waits for its time in its loop, exactly as long as it does.
    place: Flag<Option<TimerPlace>>,
    marks: Flag<Marks>,
    callback: Slot,
    /// A tuple (anything iterable, if Python code has made the handle), or one argument, or empty for none.
    args: Slot,
    /// The loop, or a weak reference to it (see `Marks::WEAK`).
    event_loop: Slot,
    /// The context, or what it is to be made of when the callback runs (see `ffi::context`).
    context: Slot,
    /// Of a timer, when it is due; of a threadsafe handle, the thread that runs it now (see `thread_id`).
    moment: Flag<Moment>,
    rest: Late<Rest>,
}

/// What is so or not so, one bit each, and above them the number of a loop that `cancel` can find by it, or 0.
#[derive(Clone, Copy)]
struct Marks(u32);

impl Marks {
    const CANCELLED: u32 = 1;
    /// It has arguments.
    const ARGS: u32 = 1 << 1;
    /// `args` is the argument itself.
    const SINGLE: u32 = 1 << 2;
    /// Made by `call_soon_threadsafe`.
    const THREADSAFE: u32 = 1 << 3;
    /// Its context has no variables and `rest` is empty, so that it holds nothing but what `cancel` knows of.
    const PLAIN: u32 = 1 << 4;
    /// It does not keep its loop alive.
    const WEAK: u32 = 1 << 5;
    /// Where the loop's number begins.
    const NUMBER: u32 = u32::BITS - NUMBER_BITS;
}

/// Eight bytes for one of two numbers.
#[derive(Clone, Copy)]
struct Moment(u64);

const _: () = assert!(size_of::<Handle>() == 56, "there may be many handles");

/// What hardly any handle has.
#[derive(Default)]
struct Rest {
    /// Debug mode: where the handle was made, and how it looked before it was cancelled.
    source: Slot,
    repr: Slot,
    /// The time as it was given, where that was not a float.
    given: Slot,
    /// What other threads wait for while a threadsafe handle runs.
    finished: Slot,
    /// Whether a loop of asyncio's own keeps this timer: its note, not ours.
    scheduled: Flag<bool>,
}

/// The type of what `call_soon_threadsafe` returns (3.14's `_ThreadSafeHandle`): while its callback runs, `cancel()` and
/// `cancelled()` of other threads wait for the end (gh-128308).
static THREADSAFE: TypeCell = TypeCell::new();

/// The type TimerHandle: the same instances as Handle's, with a time.
static TIMER: TypeCell = TypeCell::new();

impl Class for Handle {
    const NAME: &'static std::ffi::CStr = c"aioxide.Handle";
    const SPARE: usize = 32768;
    const SUBCLASSABLE: bool = true;
    const SIBLINGS: &'static [&'static TypeCell] = &[&TIMER, &THREADSAFE];

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn spares() -> Option<&'static Spares> {
        static SPARES: Spares = Spares::new();
        Some(&SPARES)
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.slots().into_iter().try_for_each(|slot| slot.traverse(visit))?;
        match self.rest.get() {
            Some(rest) => rest.slots().into_iter().try_for_each(|slot| slot.traverse(visit)),
            None => Ok(()),
        }
    }

    fn clear(&self, py: Python<'_>) {
        for slot in self.slots() {
            drop(slot.take(py));
        }
        if let Some(rest) = self.rest.get() {
            for slot in rest.slots() {
                drop(slot.take(py));
            }
        }
    }
}

impl Rest {
    fn slots(&self) -> [&Slot; 4] {
        let Self { source, repr, given, finished, scheduled: _ } = self;
        [source, repr, given, finished]
    }
}

impl Handle {
    fn slots(&self) -> [&Slot; 4] {
        [&self.callback, &self.args, &self.event_loop, &self.context]
    }

    #[inline]
    fn is(&self, mark: u32) -> bool {
        self.marks.get().0 & mark != 0
    }

    #[inline]
    fn mark(&self, mark: u32) {
        self.marks.set(Marks(self.marks.get().0 | mark));
    }

    /// It holds more than `cancel` knows of.
    #[inline]
    fn holds_more(&self) {
        self.marks.set(Marks(self.marks.get().0 & !Marks::PLAIN));
    }

    /// From here on it does not keep its loop alive.
    #[inline]
    fn loosen(&self, event_loop: &Bound<'_, PyAny>, core: &LoopCore) -> PyResult<()> {
        self.event_loop.set(event_loop.py(), core.weak(event_loop)?);
        self.mark(Marks::WEAK);
        Ok(())
    }

    /// Its loop, if that is still there.
    #[inline]
    fn event_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let event_loop = self.event_loop.get(py)?;
        if !self.is(Marks::WEAK) {
            return Some(event_loop);
        }
        event_loop.cast_exact::<PyWeakrefReference>().ok()?.upgrade()
    }

    /// Whether its loop is in debug mode.
    fn is_debug(&self, py: Python<'_>) -> PyResult<bool> {
        self.event_loop(py).map_or(Ok(false), |event_loop| futures::is_debug(&event_loop))
    }

    /// When a timer is due.
    #[inline]
    fn when(&self) -> f64 {
        f64::from_bits(self.moment.get().0)
    }

    #[inline]
    fn set_when(&self, when: f64) {
        self.moment.set(Moment(when.to_bits()));
    }

    /// Whether it is a threadsafe handle that another thread runs now.
    #[inline]
    fn runs_elsewhere(&self) -> bool {
        self.is(Marks::THREADSAFE) && ![0, thread_id() as u64].contains(&self.moment.get().0)
    }

    #[inline]
    fn set_runner(&self, thread: usize) {
        self.moment.set(Moment(thread as u64));
    }

    /// Debug mode: remembers where the handle was made.
    pub(crate) fn note_source(&self, py: Python<'_>) -> PyResult<()> {
        let source = names(py).extract_stack.bind(py).call0()?;
        self.make_rest().source.set(py, source);
        Ok(())
    }

    /// Remembers the time as it was given: `when` gives an int back, say, where it got one.
    #[inline]
    pub(crate) fn note_time(&self, given: &Bound<'_, PyAny>) {
        if !given.is_exact_instance_of::<PyFloat>() {
            self.make_rest().given.set(given.py(), given.clone());
        }
    }

    /// The arguments as a tuple.
    fn args<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self.args.get(py) {
            None => PyTuple::empty(py).into_any(),
            Some(arg) if self.is(Marks::SINGLE) => PyTuple::new(py, [arg])?.into_any(),
            Some(args) => args,
        })
    }

    /// The context, made if need be.
    #[inline]
    fn context<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(context) = self.context.get(py) else { return Ok(None) };
        if context::is_context(&context) {
            return Ok(Some(context));
        }
        let context = context::of(context)?;
        self.holds_more();
        self.context.set(py, context.clone());
        Ok(Some(context))
    }

    fn make_rest(&self) -> &Rest {
        self.holds_more();
        self.rest.get_or_make()
    }

    fn rest_of<'py>(&self, py: Python<'py>, slot: impl FnOnce(&Rest) -> &Slot) -> Option<Bound<'py, PyAny>> {
        self.rest.get().and_then(|rest| slot(rest).get(py))
    }
}

/// Whether it is a TimerHandle.
#[inline]
pub(crate) fn is_timer(object: &Bound<'_, PyAny>) -> bool {
    TIMER.is_exact(object)
}

/// A TimerHandle of something else than a call of `call_at`, to show it or to run it; no loop has it.
pub(crate) fn timer_of<'py>(
    when: f64,
    callback: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    event_loop: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    TIMER.get(event_loop.py()).call1((when, callback, args, event_loop))
}

/// A timer has come to its time (or its loop is closed) and is a job from now on.
#[inline]
pub(crate) fn on_due(handle: &Bound<'_, PyAny>) {
    if let Some(this) = Inst::<Handle>::cast(handle) {
        this.place.set(None);
    }
}

/// Lets the garbage collector see a handle.
pub(crate) fn show(object: &Bound<'_, PyAny>) {
    if let Some(handle) = Inst::<Handle>::cast(object) {
        handle.show();
    }
}

/// A handle of nothing, as a subclass has it that does not call `__init__`.
fn blank(_: Args<'_, '_>) -> PyResult<Handle> {
    Ok(Handle {
        place: Flag::new(None),
        marks: Flag::new(Marks(0)),
        callback: Slot::empty(),
        args: Slot::empty(),
        event_loop: Slot::empty(),
        context: Slot::empty(),
        moment: Flag::new(Moment(0)),
        rest: Late::new(),
    })
}

/// `Handle(callback, args, loop, context=None)`.
fn init_handle(this: This<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "Handle",
        positional: &["callback", "args", "loop", "context"],
        required: 3,
        positional_only: 0,
        keyword_only: &[],
    };
    start(this, SIGNATURE.bind::<4>(args)?)
}

/// `TimerHandle(when, callback, args, loop, context=None)`; `when` in seconds of the loop's clock.
fn init_timer(this: This<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "TimerHandle",
        positional: &["when", "callback", "args", "loop", "context"],
        required: 4,
        positional_only: 0,
        keyword_only: &[],
    };
    let [when, callback, arguments, event_loop, context] = SIGNATURE.bind::<5>(args)?;
    let Some(when) = when else { return Err(PyTypeError::new_err("TimerHandle() needs a time")) };
    let seconds = when.extract()?;
    start(this, [callback, arguments, event_loop, context])?;
    this.set_when(seconds);
    this.note_time(&when);
    Ok(())
}

fn start(this: This<'_, '_>, bound: [Option<Borrowed<'_, '_, PyAny>>; 4]) -> PyResult<()> {
    let [Some(callback), Some(args), Some(event_loop), context] = bound else {
        return Err(PyTypeError::new_err("Handle() needs a callback, arguments and a loop"));
    };
    let context = context.filter(|c| !c.is_none()).map(|c| c.to_owned());
    let args = Arguments::Many(args.to_owned());
    let (py, made) = (this.py(), Handle::new(&event_loop, None, callback.to_owned(), args, context)?);
    this.marks.set(made.marks.get());
    for (slot, made) in this.slots().into_iter().zip(made.slots()) {
        drop(slot.replace(py, made.take(py)));
    }
    if futures::is_debug(&event_loop)? {
        this.note_source(py)?;
    }
    Ok(())
}

// --- methods -----------------------------------------------------------------------------------

type This<'a, 'py> = Inst<'a, 'py, Handle>;

fn or_none<'py>(py: Python<'py>, slot: &Slot) -> Bound<'py, PyAny> {
    slot.get(py).unwrap_or_else(|| none(py))
}

fn cancel<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let marks = this.marks.get().0;
    let at_once = marks & (Marks::CANCELLED | Marks::THREADSAFE | Marks::PLAIN) == Marks::PLAIN;
    if at_once && let Some(event_loop) = local::latest(py, marks >> Marks::NUMBER) {
        // Of a hundred thousand timers the handle is in no cache: no look at its second half.
        if let Some(core) = LoopCore::of(&event_loop).filter(|core| !core.is_debug()) {
            this.marks.set(Marks(marks | Marks::CANCELLED));
            let dead = this.place.replace(None).and_then(|place| core.abandon_timer(py, place));
            drop(this.callback.take(py));
            if marks & Marks::ARGS != 0 {
                drop(this.args.take(py));
            }
            local::drop_dead(py, dead);
            return Ok(none(py));
        }
    }
    cancel_any(this)
}

/// Cancels any handle, in any mode.
#[inline(never)]
fn cancel_any<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    wait_for_runner(this)?;
    if this.is(Marks::CANCELLED) {
        return Ok(none(py));
    }
    this.mark(Marks::CANCELLED);
    let event_loop = this.event_loop(py);
    let core = event_loop.as_ref().and_then(LoopCore::of);
    let debug = match (core, &event_loop) {
        (Some(core), _) => core.is_debug(),
        (None, Some(event_loop)) => futures::is_debug(event_loop)?,
        (None, None) => false,
    };
    if debug {
        // What "Executing <Handle ...> took 2.5 seconds" will show.
        let shown = this.object().repr()?.into_any();
        this.make_rest().repr.set(py, shown);
    }
    // At once: when Python code has run, somebody else may have the place.
    let place = this.place.replace(None);
    let dead = place.zip(core).and_then(|(place, core)| core.abandon_timer(py, place));
    drop((this.callback.take(py), this.args.take(py)));
    local::drop_dead(py, dead);
    // From here on it is kept by those who hold it, and no more by the loop. The garbage collector has to know it if what it
    // still holds can come to hold it. Mostly that is the loop alone: so that the collector need not know (to join and
    // leave its list in no order costs as much as cancelling), the handle keeps the loop alive no more.
    match (core, &event_loop) {
        (Some(core), Some(event_loop)) if this.is(Marks::PLAIN) => {
            if !this.is(Marks::WEAK) {
                this.loosen(event_loop, core)?;
            }
        }
        _ => this.show(),
    }
    if place.is_none()
        && core.is_none()
        && TIMER.is_instance(&this.object())
        && let Some(event_loop) = event_loop
    {
        event_loop.call_method1(intern!(py, "_timer_handle_cancelled"), (this.object(),))?;
    }
    Ok(none(py))
}

fn cancelled<'py>(this: This<'_, 'py>) -> Object<'py> {
    wait_for_runner(this)?;
    get_cancelled(this)
}

/// While another thread runs the callback of a threadsafe handle: waits for the end.
#[inline]
fn wait_for_runner(this: This<'_, '_>) -> PyResult<()> {
    while this.runs_elsewhere() {
        wait_for_end(this)?;
    }
    Ok(())
}

#[cold]
fn wait_for_end(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    let slot = &this.get().make_rest().finished;
    let finished = match slot.get(py) {
        Some(finished) => finished,
        None => {
            let event = py.import("threading")?.getattr("Event")?.call0()?;
            slot.set(py, event.clone());
            event
        }
    };
    finished.call_method0(intern!(py, "wait")).map(drop)
}

fn get_cancelled<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyBool::new(this.py(), this.is(Marks::CANCELLED)).to_owned().into_any())
}

fn get_context<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.show(); // a context may come to hold the handle
    Ok(this.context(this.py())?.unwrap_or_else(|| none(this.py())))
}

fn get_callback<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(or_none(this.py(), &this.callback))
}

fn get_args<'py>(this: This<'_, 'py>) -> Object<'py> {
    if this.is(Marks::CANCELLED) { Ok(none(this.py())) } else { this.args(this.py()) }
}

fn get_loop<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.event_loop(this.py()).unwrap_or_else(|| none(this.py())))
}

fn get_source<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.rest_of(this.py(), |rest| &rest.source).unwrap_or_else(|| none(this.py())))
}

fn set_source<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.show();
    let slot = &this.get().make_rest().source;
    drop(slot.replace(this.py(), (!value.is_none()).then(|| value.to_owned())));
    Ok(())
}

fn get_repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.rest_of(this.py(), |rest| &rest.repr).unwrap_or_else(|| none(this.py())))
}

fn when<'py>(this: This<'_, 'py>) -> Object<'py> {
    if let Some(given) = this.rest_of(this.py(), |rest| &rest.given) {
        return Ok(given);
    }
    Ok(PyFloat::new(this.py(), this.when()).into_any())
}

fn get_scheduled<'py>(this: This<'_, 'py>) -> Object<'py> {
    let waiting = this.place.get().is_some() || this.rest.get().is_some_and(|rest| rest.scheduled.get());
    Ok(PyBool::new(this.py(), waiting).to_owned().into_any())
}

/// asyncio's own loops, which may make our TimerHandles, note there what they have done with them.
fn set_scheduled<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let scheduled = value.is_truthy()?;
    this.get().make_rest().scheduled.set(scheduled);
    Ok(())
}

fn repr_info<'py>(this: This<'_, 'py>) -> PyResult<Bound<'py, PyList>> {
    let py = this.py();
    let info = PyList::new(py, [this.object().get_type().name()?])?;
    if this.is(Marks::CANCELLED) {
        info.append("cancelled")?;
    }
    if TIMER.is_instance(&this.object()) {
        info.append(format!("when={}", when(this)?.str()?))?;
    }
    if let Some(callback) = this.callback.get(py) {
        info.append(names(py).format_callback(&callback, &this.args(py)?, this.is_debug(py)?)?)?;
    }
    if let Some(source) = this.rest_of(py, |rest| &rest.source)
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
    if let Some(kept) = this.rest_of(py, |rest| &rest.repr) {
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
        Ok(this.when() == other.when()
            && this.is(Marks::CANCELLED) == other.is(Marks::CANCELLED)
            && or_none(py, &this.callback).eq(or_none(py, &other.callback))?
            && get_args(this)?.eq(get_args(other)?)?)
    };
    let (mine, theirs) = (this.when(), other.when());
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
    PyFloat::new(this.py(), this.when()).hash()
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

/// Whether a turn may run callbacks as `Handle._run` does: nobody has put another one there, nor anything else into the
/// classes.
#[inline]
pub(crate) fn run_as_ours(py: Python<'_>) -> bool {
    TIMER.is_unchanged(py) && THREADSAFE.is_unchanged(py) // with what they inherit
}

/// Makes the types.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let builder = |builder: Builder| {
        builder
            .slot(pyo3::ffi::Py_tp_repr, unary::<Of<Handle>, _>(repr))
            .method(noargs::<Of<Handle>, _>(c"cancel", cancel))
            .method(noargs::<Of<Handle>, _>(c"cancelled", cancelled))
            .method(noargs::<Of<Handle>, _>(c"get_context", get_context))
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
        .slot(pyo3::ffi::Py_tp_new, constructor::<Handle, _>(blank))
        .slot(pyo3::ffi::Py_tp_init, initializer::<Of<Handle>, _>(init_handle))
        .method(noargs::<Of<Handle>, _>(c"_run", method_run))
        .doc(c"Handle(callback, args, loop, context=None)\n--\n\nA scheduled callback, which can be cancelled.")
        .build(module, None, Handle::cell())?;
    let timer = builder(Builder::of::<Handle>().named(c"aioxide.TimerHandle"))
        .slot(pyo3::ffi::Py_tp_new, constructor::<Handle, _>(blank))
        .slot(pyo3::ffi::Py_tp_init, initializer::<Of<Handle>, _>(init_timer))
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
        .slot(pyo3::ffi::Py_tp_new, constructor::<Handle, _>(blank))
        .slot(pyo3::ffi::Py_tp_init, initializer::<Of<Handle>, _>(init_handle))
        .build(module, Some(&PyTuple::new(module.py(), [&handle])?), &THREADSAFE)?;
    module.add("Handle", handle)?;
    module.add("TimerHandle", timer)
}
