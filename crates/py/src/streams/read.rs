//! The coroutines of StreamReader: `read`, `readline`, `readuntil`, `readexactly`, `__anext__`, `_wait_for_data`.
//!
//! One native awaitable for all. What finds its data returns it in its first step and never meets the loop; what does
//! not waits for the one future that the reader completes, and asks again.

use aioxide_core::inflow::Search;
use pyo3::exceptions::{PyStopAsyncIteration, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::buffer::{Answer, Request};
use super::reader::{This as ReaderInst, separator};
use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::iter::{Awaitable, Coroutine, Life, Step, reused, warn_never_awaited};
use crate::ffi::spares::Spares;
use crate::names::{asyncio, none};
use crate::parked::Parked;

type This<'a, 'py> = Inst<'a, 'py, Read>;

/// Which method it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Read,
    /// `read(-1)`: everything up to the end.
    ReadAll,
    Exactly,
    Until,
    Line,
    Next,
    WaitForData,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    Waiting,
    Over,
}

/// One call of a method that reads.
pub(super) struct Read {
    phase: Flag<Phase>,
    op: Flag<Op>,
    reader: Slot,
    /// As given; once it has begun, a tuple of separators or nothing.
    argument: Slot,
    /// How many bytes.
    count: Flag<usize>,
    search: Flag<Search>,
    parked: Parked,
    /// What `read(-1)` has so far.
    collected: GilCell<Vec<u8>>,
}

impl Class for Read {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.Read";
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
        self.reader.traverse(visit)?;
        self.argument.traverse(visit)?;
        self.parked.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.end(py);
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

/// The coroutine of a call.
#[inline]
pub(super) fn start<'py>(
    reader: ReaderInst<'_, 'py>,
    op: Op,
    argument: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let read = Read {
        phase: Flag::new(Phase::Created),
        op: Flag::new(op),
        reader: Slot::holding(reader.to_owned().unbind()),
        argument: Slot::new(argument.map(Bound::unbind)),
        count: Flag::new(0),
        search: Flag::new(Search::default()),
        parked: Parked::new(),
        collected: GilCell::new(Vec::new()),
    };
    create(reader.py(), read)
}

/// What an attempt leads to.
enum Attempt<'py> {
    Done(Bound<'py, PyAny>),
    Wait,
}

impl Read {
    /// Over, whatever way; the reader has no waiter any more.
    fn end(&self, py: Python<'_>) {
        self.phase.set(Phase::Over);
        if let (Some(waiter), Some(reader)) = (self.parked.leave(py), self.reader.get(py))
            && let Some(reader) = ReaderInst::cast(&reader)
            && reader.waiter.holds(&waiter)
        {
            drop(reader.waiter.take(py));
        }
        drop((self.reader.take(py), self.argument.take(py)));
    }

    /// Looks at the arguments, as the body of an `async def` does: when it starts.
    #[inline]
    fn begin<'py>(&self, py: Python<'py>, reader: ReaderInst<'_, 'py>) -> PyResult<Attempt<'py>> {
        match self.op.get() {
            Op::Read => {
                reader.check_exception()?;
                match self.number(py)? {
                    None => self.op.set(Op::ReadAll),
                    Some(0) => return Ok(Attempt::Done(PyBytes::new(py, b"").into_any())),
                    Some(count) => self.count.set(count),
                }
            }
            Op::Exactly => {
                let Some(count) = self.number(py)? else {
                    return Err(PyValueError::new_err("readexactly size can not be less than zero"));
                };
                reader.check_exception()?;
                if count == 0 {
                    return Ok(Attempt::Done(PyBytes::new(py, b"").into_any()));
                }
                self.count.set(count);
            }
            Op::Until => {
                let separators = separators(py, self.argument.take(py))?;
                self.argument.set(py, separators.into_any());
                reader.check_exception()?;
            }
            Op::Line | Op::Next => reader.check_exception()?,
            Op::ReadAll => {}
            Op::WaitForData => return Ok(Attempt::Wait),
        }
        self.attempt(py, reader)
    }

    /// The number of bytes that was given; none if it is negative, or not given.
    #[inline]
    fn number(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        let Some(argument) = self.argument.take(py) else { return Ok(None) };
        let count: isize = argument.extract()?;
        Ok(usize::try_from(count).ok())
    }

    /// Asks the buffer.
    #[inline]
    fn attempt<'py>(&self, py: Python<'py>, reader: ReaderInst<'_, 'py>) -> PyResult<Attempt<'py>> {
        let mut search = self.search.get();
        let (answer, flow) = match self.op.get() {
            Op::Read => reader.buffer.ask(py, Request::Read(self.count.get()), &mut search)?,
            Op::Exactly => reader.buffer.ask(py, Request::Exactly(self.count.get()), &mut search)?,
            Op::Line | Op::Next => reader.buffer.ask(py, Request::Line, &mut search)?,
            Op::Until => {
                let separators = separators(py, self.argument.get(py))?;
                let separators =
                    separators.iter().map(|each| separator(&each)).collect::<PyResult<Vec<_>>>()?;
                reader.buffer.ask(py, Request::Until(&separators), &mut search)?
            }
            Op::ReadAll => return self.collect(py, reader),
            Op::WaitForData => return Ok(Attempt::Done(none(py))),
        };
        self.search.set(search);
        match answer {
            Answer::Bytes(bytes) => {
                reader.resume(flow)?;
                if self.op.get() == Op::Next && bytes.as_bytes().is_empty() {
                    return Err(PyStopAsyncIteration::new_err(()));
                }
                Ok(Attempt::Done(bytes.into_any()))
            }
            Answer::Wait => Ok(Attempt::Wait),
            Answer::Incomplete(partial) => {
                let wanted = match self.op.get() {
                    Op::Exactly => Some(self.count.get()),
                    _ => None,
                };
                Err(incomplete(&partial, wanted))
            }
            Answer::SeparatorTooFar(begin) => Err(overrun(py, TOO_FAR, begin)),
            Answer::NoSeparator(offset) => Err(overrun(py, NO_SEPARATOR, offset)),
            Answer::LineTooLong { ended } => {
                reader.resume(flow)?;
                Err(PyValueError::new_err(if ended { TOO_FAR } else { NO_SEPARATOR }))
            }
        }
    }

    /// `read(-1)`: takes what there is, until the end.
    fn collect<'py>(&self, py: Python<'py>, reader: ReaderInst<'_, 'py>) -> PyResult<Attempt<'py>> {
        reader.check_exception()?;
        let (answer, flow) = reader.buffer.ask(py, Request::Read(usize::MAX), &mut Search::default())?;
        let Answer::Bytes(bytes) = answer else { return Ok(Attempt::Wait) };
        reader.resume(flow)?;
        let ended = reader.buffer.with(py, |inflow| inflow.has_eof());
        if ended && self.collected.with(py, |collected| collected.is_empty()) {
            return Ok(Attempt::Done(bytes.into_any()));
        }
        self.collected.with(py, |collected| collected.extend_from_slice(bytes.as_bytes()));
        if !ended {
            return Ok(Attempt::Wait);
        }
        let all = self.collected.with(py, std::mem::take);
        Ok(Attempt::Done(PyBytes::new(py, &all).into_any()))
    }

    fn settle<'py>(
        &self,
        reader: ReaderInst<'_, 'py>,
        attempt: PyResult<Attempt<'py>>,
    ) -> PyResult<Step<'py>> {
        let py = reader.py();
        let waiter = match attempt {
            Ok(Attempt::Done(value)) => {
                self.end(py);
                return Ok(Step::Return(value));
            }
            Ok(Attempt::Wait) => reader.wait(|| self.method(py)),
            Err(error) => Err(error),
        };
        match waiter {
            Ok(waiter) => {
                self.phase.set(Phase::Waiting);
                self.parked.wait(waiter)
            }
            Err(error) => {
                self.end(py);
                Err(error)
            }
        }
    }

    /// The name in the error of a second reader.
    fn method(&self, py: Python<'_>) -> String {
        match (self.op.get(), self.argument.get(py)) {
            (Op::WaitForData, Some(name)) => name.to_string(),
            (Op::WaitForData, None) => "_wait_for_data".to_owned(),
            (Op::Read | Op::ReadAll, _) => "read".to_owned(),
            (Op::Exactly, _) => "readexactly".to_owned(),
            (Op::Until | Op::Line | Op::Next, _) => "readuntil".to_owned(),
        }
    }
}

const TOO_FAR: &str = "Separator is found, but chunk is longer than limit";
const NO_SEPARATOR: &str = "Separator is not found, and chunk exceed the limit";

/// The separators of a `readuntil`, as a tuple ordered by length.
fn separators<'py>(py: Python<'py>, given: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyTuple>> {
    let Some(given) = given else { return PyTuple::new(py, [PyBytes::new(py, b"\n")]) };
    let Ok(several) = given.cast::<PyTuple>() else {
        let only = separator(&given)?;
        if only.as_bytes().is_empty() {
            return Err(PyValueError::new_err("Separator should be at least one-byte string"));
        }
        return PyTuple::new(py, [only]);
    };
    let mut known = several.iter().map(|each| separator(&each)).collect::<PyResult<Vec<_>>>()?;
    known.sort_by_key(|separator| separator.as_bytes().len());
    match known.first() {
        None => Err(PyValueError::new_err("Separator should contain at least one element")),
        Some(shortest) if shortest.as_bytes().is_empty() => {
            Err(PyValueError::new_err("Separator should be at least one-byte string"))
        }
        Some(_) => PyTuple::new(py, known),
    }
}

/// `IncompleteReadError(partial, wanted)`.
fn incomplete(partial: &Bound<'_, PyBytes>, wanted: Option<usize>) -> PyErr {
    let py = partial.py();
    let error = asyncio(py).exceptions.bind(py).call_method1("IncompleteReadError", (partial, wanted));
    error.map_or_else(|e| e, PyErr::from_value)
}

/// `LimitOverrunError(text, consumed)`.
fn overrun(py: Python<'_>, text: &str, consumed: usize) -> PyErr {
    let error = asyncio(py).exceptions.bind(py).call_method1("LimitOverrunError", (text, consumed));
    error.map_or_else(|e| e, PyErr::from_value)
}

impl Awaitable for Read {
    #[inline]
    fn resume<'py>(this: This<'_, 'py>) -> PyResult<Step<'py>> {
        let py = this.py();
        let phase = this.phase.get();
        let Some(reader) = this.reader.get(py).filter(|_| phase != Phase::Over) else { return Err(reused()) };
        let Some(reader) = ReaderInst::cast(&reader) else { return Err(reused()) };
        match phase {
            Phase::Created => {
                this.phase.set(Phase::Over); // unless it gets to wait
                this.settle(reader, this.begin(py, reader))
            }
            Phase::Waiting => {
                let outcome = this.parked.outcome(py);
                if let Some(waiter) = this.parked.leave(py)
                    && reader.waiter.holds(&waiter)
                {
                    drop(reader.waiter.take(py));
                }
                this.settle(reader, outcome.and_then(|_| this.attempt(py, reader)))
            }
            Phase::Over => Err(reused()),
        }
    }

    fn throw<'py>(this: This<'_, 'py>, error: PyErr) -> PyResult<Step<'py>> {
        if this.phase.get() == Phase::Over {
            return Err(reused());
        }
        this.end(this.py());
        Err(error)
    }

    fn close(this: This<'_, '_>) -> PyResult<()> {
        this.end(this.py());
        Ok(())
    }
}

impl Coroutine for Read {
    fn qualname(this: This<'_, '_>) -> &'static str {
        match this.op.get() {
            Op::Read | Op::ReadAll => "StreamReader.read",
            Op::Exactly => "StreamReader.readexactly",
            Op::Until => "StreamReader.readuntil",
            Op::Line => "StreamReader.readline",
            Op::Next => "StreamReader.__anext__",
            Op::WaitForData => "StreamReader._wait_for_data",
        }
    }

    fn life(this: This<'_, '_>) -> Life {
        match this.phase.get() {
            Phase::Created => Life::Created,
            Phase::Waiting => Life::Suspended,
            Phase::Over => Life::Closed,
        }
    }

    fn awaited<'py>(this: This<'_, 'py>) -> Option<Bound<'py, PyAny>> {
        this.parked.future(this.py())
    }

    fn within(this: This<'_, '_>) -> &'static [&'static str] {
        match this.op.get() {
            Op::Read | Op::Exactly | Op::Until => &["StreamReader._wait_for_data"],
            Op::ReadAll => &["StreamReader.read", "StreamReader._wait_for_data"],
            Op::Line => &["StreamReader.readuntil", "StreamReader._wait_for_data"],
            Op::Next => &["StreamReader.readline", "StreamReader.readuntil", "StreamReader._wait_for_data"],
            Op::WaitForData => &[],
        }
    }
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Read>().coroutine::<Read>().build(module, None, Read::cell())?;
    Ok(())
}
