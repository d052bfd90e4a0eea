//! `asyncio.sleep`: a native coroutine. No Handle, no frame; a sleep of zero takes one trip through the ready queue.

use aioxide_core::TimerKey;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt};

use crate::ffi::args::{self, Args, Signature};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::function;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::iter::{Awaitable, Brief, Coroutine, Life, Step, reused, warn_never_awaited};
use crate::ffi::layout::Fut;
use crate::ffi::spares::Spares;
use crate::ffi::thread;
use crate::futures;
use crate::job::Timed;
use crate::local::LoopCore;
use crate::names::asyncio;
use crate::parked::Parked;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    /// Gave others a turn; there is nothing to wait for.
    Yielded,
    /// Waits for the future that the timer completes.
    Waiting,
    Over,
}

/// `sleep(delay, result=None)`.
pub(crate) struct Sleep {
    phase: Flag<Phase>,
    delay: Slot,
    result: Slot,
    parked: Parked,
    /// The timer's handle, on a loop that isn't ours or sets its timers itself.
    handle: Slot,
    timer: Flag<Option<TimerKey>>,
}

impl Class for Sleep {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.Sleep";
    const HAS_ORIGIN: bool = true;
    const SPARE: usize = 256;

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn spares() -> Option<&'static Spares> {
        static SPARES: Spares = Spares::new();
        Some(&SPARES)
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.delay.traverse(visit)?;
        self.result.traverse(visit)?;
        self.parked.traverse(visit)?;
        self.handle.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.end(py);
        drop((self.delay.take(py), self.result.take(py)));
    }

    fn wants_finalize(&self) -> bool {
        self.phase.get() == Phase::Created
    }

    fn finalize(this: Inst<'_, '_, Self>) {
        if this.wants_finalize() {
            warn_never_awaited(&this.object());
        }
    }
}

impl Sleep {
    /// Over, whatever way: the timer goes.
    fn end(&self, py: Python<'_>) {
        self.phase.set(Phase::Over);
        let future = self.parked.leave(py);
        if let Some(key) = self.timer.get() {
            self.timer.set(None);
            let event_loop = future.as_ref().and_then(Fut::cast_any).and_then(Fut::event_loop);
            if let Some(core) = event_loop.as_ref().and_then(LoopCore::of) {
                core.cancel_timer(py, key);
            }
        }
        if let Some(handle) = self.handle.take(py)
            && let Err(error) = handle.call_method0(intern!(py, "cancel"))
        {
            error.write_unraisable(py, Some(&handle));
        }
    }

    fn finish<'py>(&self, py: Python<'py>) -> Step<'py> {
        self.end(py);
        Step::Return(self.result.take(py).unwrap_or_else(|| py.None().into_bound(py)))
    }
}

/// The delay in seconds; none for "zero or less".
fn seconds(delay: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    let exact = delay.is_exact_instance_of::<PyInt>() || delay.is_exact_instance_of::<PyFloat>();
    if !exact && delay.le(0)? {
        return Ok(None);
    }
    let delay: f64 = delay.extract()?;
    if delay.is_nan() {
        return Err(PyValueError::new_err("Invalid delay: NaN (not a number)"));
    }
    Ok((delay > 0.0).then_some(delay))
}

impl Awaitable for Sleep {
    fn resume<'py>(this: Inst<'_, 'py, Self>) -> PyResult<Step<'py>> {
        let py = this.py();
        match this.phase.get() {
            Phase::Created => {
                this.phase.set(Phase::Over); // unless it gets to wait
                let delay = this.delay.take(py).unwrap_or_else(|| py.None().into_bound(py));
                match seconds(&delay)? {
                    None => {
                        this.phase.set(Phase::Yielded);
                        Ok(Step::Yield(py.None().into_bound(py)))
                    }
                    Some(seconds) => wait(this, seconds, delay),
                }
            }
            Phase::Yielded => Ok(this.finish(py)),
            Phase::Waiting => {
                let result = this.parked.outcome(py);
                let step = this.finish(py);
                result.map(|_| step)
            }
            Phase::Over => Err(reused()),
        }
    }

    fn throw<'py>(this: Inst<'_, 'py, Self>, error: PyErr) -> PyResult<Step<'py>> {
        if this.phase.get() == Phase::Over {
            return Err(reused());
        }
        this.end(this.py());
        Err(error)
    }

    fn close(this: Inst<'_, '_, Self>) -> PyResult<()> {
        this.end(this.py());
        Ok(())
    }
}

impl Coroutine for Sleep {
    fn qualname(_: Inst<'_, '_, Self>) -> &'static str {
        "sleep"
    }

    fn life(this: Inst<'_, '_, Self>) -> Life {
        match this.phase.get() {
            Phase::Created => Life::Created,
            Phase::Yielded | Phase::Waiting => Life::Suspended,
            Phase::Over => Life::Closed,
        }
    }

    fn awaited<'py>(this: Inst<'_, 'py, Self>) -> Option<Bound<'py, PyAny>> {
        this.parked.future(this.py())
    }

    fn waits_for<'py>(_: Inst<'_, 'py, Self>) -> Option<(&'static str, Option<Bound<'py, PyAny>>)> {
        Some(("timer", None))
    }
}

/// Sets the timer and waits for the future it completes.
fn wait<'py>(this: Inst<'_, 'py, Sleep>, seconds: f64, delay: Bound<'py, PyAny>) -> PyResult<Step<'py>> {
    let py = this.py();
    let Some(event_loop) = thread::running_loop(py)? else {
        return Err(pyo3::exceptions::PyRuntimeError::new_err("no running event loop"));
    };
    let future = match LoopCore::of(&event_loop) {
        Some(core) if !core.overrides_timers() => {
            let future = futures::new(&event_loop)?;
            let key = core.at(py, core.now() + seconds, Timed::new(&future))?;
            this.timer.set(Some(key));
            future
        }
        _ => {
            let future = event_loop.call_method0(intern!(py, "create_future"))?;
            let done = asyncio(py).futures.bind(py).getattr(intern!(py, "_set_result_unless_cancelled"))?;
            let arguments = (delay, done, &future, py.None());
            this.handle.set(py, event_loop.call_method1(intern!(py, "call_later"), arguments)?);
            future
        }
    };
    this.phase.set(Phase::Waiting);
    this.parked.wait(future)
}

/// `sleep(0)`, the way to give others a turn, without the places that a timer needs.
pub(crate) struct Yield {
    phase: Flag<Phase>,
}

impl Class for Yield {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.Yield";
    const HAS_ORIGIN: bool = true;
    const SPARE: usize = 256;
    const TRACKED: bool = false;

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn spares() -> Option<&'static Spares> {
        static SPARES: Spares = Spares::new();
        Some(&SPARES)
    }

    fn traverse(&self, _: &Visit<'_>) -> Result<(), Stopped> {
        Ok(())
    }

    fn clear(&self, _: Python<'_>) {}

    fn wants_finalize(&self) -> bool {
        self.phase.get() == Phase::Created
    }

    fn finalize(this: Inst<'_, '_, Self>) {
        warn_never_awaited(&this.object());
    }
}

impl Awaitable for Yield {
    #[inline]
    fn resume_at_once<'py>(this: Inst<'_, 'py, Self>) -> Option<Brief<'py>> {
        match this.phase.get() {
            Phase::Created => {
                this.phase.set(Phase::Yielded);
                Some(Brief::Pause)
            }
            Phase::Yielded => {
                this.phase.set(Phase::Over);
                Some(Brief::End)
            }
            Phase::Waiting | Phase::Over => None,
        }
    }

    fn resume<'py>(this: Inst<'_, 'py, Self>) -> PyResult<Step<'py>> {
        Self::resume_at_once(this).map(|brief| brief.step(this.py())).ok_or_else(reused)
    }

    fn throw<'py>(this: Inst<'_, 'py, Self>, error: PyErr) -> PyResult<Step<'py>> {
        let over = this.phase.get() == Phase::Over;
        this.phase.set(Phase::Over);
        Err(if over { reused() } else { error })
    }

    fn close(this: Inst<'_, '_, Self>) -> PyResult<()> {
        this.phase.set(Phase::Over);
        Ok(())
    }
}

impl Coroutine for Yield {
    fn qualname(_: Inst<'_, '_, Self>) -> &'static str {
        "sleep"
    }

    fn waits_for<'py>(_: Inst<'_, 'py, Self>) -> Option<(&'static str, Option<Bound<'py, PyAny>>)> {
        Some(("turn", None))
    }

    fn life(this: Inst<'_, '_, Self>) -> Life {
        match this.phase.get() {
            Phase::Created => Life::Created,
            Phase::Yielded | Phase::Waiting => Life::Suspended,
            Phase::Over => Life::Closed,
        }
    }
}

/// `sleep(0)`.
#[inline]
fn sleep_zero(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    create(py, Yield { phase: Flag::new(Phase::Created) })
}

fn sleep<'py>(args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    const SIGNATURE: Signature = Signature {
        name: "sleep",
        positional: &["delay", "result"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [delay, result] = SIGNATURE.bind::<2>(args)?;
    let sleep = Sleep {
        phase: Flag::new(Phase::Created),
        delay: Slot::new(delay.map(|d| d.to_owned().unbind())),
        result: Slot::new(result.map(|r| r.to_owned().unbind())),
        parked: Parked::new(),
        handle: Slot::empty(),
        timer: Flag::new(None),
    };
    create(args.py(), sleep)
}

/// Makes the type and the function.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Yield>().coroutine::<Yield>().build(module, None, Yield::cell())?;
    Builder::of::<Sleep>().coroutine::<Sleep>().build(module, None, Sleep::cell())?;
    let quick = (args::is_zero, sleep_zero);
    let function = function::quick_coroutine_function(module.py(), "asyncio.tasks", "sleep", quick, sleep)?;
    module.add("sleep", function)
}
