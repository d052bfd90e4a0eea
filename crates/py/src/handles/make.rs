//! Making handles: from the arguments of `call_soon` and its like to an object that the loop gets.

use pyo3::prelude::*;

use super::{Handle, Marks, Moment, Object, THREADSAFE, TIMER, show};
use crate::ffi::args::Args;
use crate::ffi::cell::{Flag, Late, Slot};
use crate::ffi::class::{Class, Inst, TypeCell, create_hidden};
use crate::ffi::context;
use crate::job::Timed;
use crate::local::LoopCore;

/// The arguments of a callback.
pub(crate) enum Arguments<'py> {
    None,
    One(Bound<'py, PyAny>),
    /// A tuple; anything iterable if Python code has made the handle.
    Many(Bound<'py, PyAny>),
}

impl<'py> Arguments<'py> {
    /// Those given by position, from `start` on.
    #[inline]
    pub(crate) fn from(args: Args<'_, 'py>, start: usize) -> PyResult<Self> {
        Ok(match (args.get(start), args.get(start + 1)) {
            (None, _) => Self::None,
            (Some(one), None) => Self::One(one.to_owned()),
            _ => Self::Many(args.rest(start)?.into_any()),
        })
    }
}

impl Handle {
    /// A handle of a native loop; `timer_of` is its native part, if the handle is to be one of its timers. While a loop runs it
    /// lives, and a cancelled timer without variables that does not keep it alive needs no attention of the collector.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "from the arguments to the object in registers: a stop in memory stalls"
    )]
    pub(crate) fn new<'py>(
        event_loop: &Bound<'py, PyAny>,
        timer_of: Option<&LoopCore>,
        callback: Bound<'py, PyAny>,
        args: Arguments<'py>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let context = match context {
            Some(context) => context,
            None => context::snapshot(event_loop.py())?,
        };
        let plain = if context::is_empty(&context) { Marks::PLAIN } else { 0 };
        let (event_loop, hold) = match timer_of {
            Some(core) if plain != 0 && core.runs_somewhere() && !core.is_debug() => {
                (core.weak(event_loop)?, Marks::WEAK | core.number() << Marks::NUMBER)
            }
            _ => (event_loop.clone(), 0),
        };
        let (args, shape) = match args {
            Arguments::None => (None, 0),
            Arguments::One(arg) => (Some(arg), Marks::ARGS | Marks::SINGLE),
            Arguments::Many(args) => (Some(args), Marks::ARGS),
        };
        Ok(Self {
            place: Flag::new(None),
            marks: Flag::new(Marks(hold | plain | shape)),
            callback: Slot::holding(callback.unbind()),
            args: Slot::new(args.map(Bound::unbind)),
            event_loop: Slot::holding(event_loop.unbind()),
            context: Slot::holding(context.unbind()),
            moment: Flag::new(Moment(0)),
            rest: Late::new(),
        })
    }
}

/// The handle of `call_soon`, which the loop is about to get.
#[inline]
pub(crate) fn soon<'py>(py: Python<'py>, core: &LoopCore, handle: Handle) -> Object<'py> {
    create_for(py, core, Handle::cell(), handle)
}

/// As [`soon`], of `call_soon_threadsafe`.
#[inline]
pub(crate) fn threadsafe<'py>(py: Python<'py>, core: &LoopCore, handle: Handle) -> Object<'py> {
    handle.mark(Marks::THREADSAFE);
    create_for(py, core, &THREADSAFE, handle)
}

/// The handle of `call_at`, which is due at `when` and in the hands of `core`; `given` is the time as it was given, if so.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as for `Handle::new`")]
pub(crate) fn timer<'py>(
    py: Python<'py>,
    core: &LoopCore,
    when: f64,
    given: Option<&Bound<'py, PyAny>>,
    handle: Handle,
) -> Object<'py> {
    handle.set_when(when);
    let object = create_for(py, core, &TIMER, handle)?;
    let this = Inst::<Handle>::cast(&object);
    if let (Some(this), Some(given)) = (this, given) {
        this.note_time(given);
    }
    let key = core.at(py, when, Timed::new(&object))?;
    if let Some(this) = this {
        this.place.set(Some(key.place()));
    }
    Ok(object)
}

/// The object of a handle that `core` gets before Python code runs again. Where that loop runs, the garbage collector need
/// not see it.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as for `Handle::new`")]
fn create_for<'py>(py: Python<'py>, core: &LoopCore, class: &TypeCell, handle: Handle) -> Object<'py> {
    let object = create_hidden(py, class, handle)?;
    if core.is_debug()
        && let Some(this) = Inst::<Handle>::cast(&object)
    {
        this.note_source(py)?; // which may take long enough for another thread to end the loop's run
    }
    if !core.runs_somewhere() {
        show(&object);
    }
    Ok(object)
}
