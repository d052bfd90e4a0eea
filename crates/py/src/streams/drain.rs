//! The coroutines that wait until a stream may write on: `StreamWriter.drain` and its protocol's `_drain_helper`.
//!
//! One native awaitable for both. Where nothing is to be waited for, it is over in its first step.

use pyo3::intern;
use pyo3::prelude::*;

use super::protocol::{self, This as ProtocolInst};
use super::reader;
use super::writer::This as WriterInst;
use crate::await_on::Awaited;
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::iter::{Awaitable, Coroutine, Life, Step, reused, warn_never_awaited};
use crate::ffi::spares::Spares;
use crate::names::none;
use crate::parked::Parked;
use crate::transports::sender::Sender;

type This<'a, 'py> = Inst<'a, 'py, Drain>;
type Object<'py> = PyResult<Bound<'py, PyAny>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    /// Gave the loop a turn, as the transport is closing.
    Yielded,
    /// Waits for a future among the protocol's waiters.
    Waiting,
    /// Awaits a protocol's own `_drain_helper()`.
    Delegating,
    Over,
}

/// One call of `drain` or `_drain_helper`.
pub(super) struct Drain {
    phase: Flag<Phase>,
    /// The writer; nothing for `_drain_helper`.
    writer: Slot,
    /// The protocol, once it is asked.
    protocol: Slot,
    parked: Parked,
    awaited: Awaited,
}

impl Class for Drain {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.Drain";
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
        self.writer.traverse(visit)?;
        self.protocol.traverse(visit)?;
        self.parked.traverse(visit)?;
        self.awaited.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.phase.set(Phase::Over);
        drop((self.writer.take(py), self.protocol.take(py), self.parked.leave(py)));
        self.awaited.clear(py);
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

/// `writer.drain()`.
#[inline]
pub(super) fn drain<'py>(writer: WriterInst<'_, 'py>) -> Object<'py> {
    make(writer.py(), Slot::holding(writer.to_owned().unbind()), Slot::empty())
}

/// `protocol._drain_helper()`.
pub(super) fn helper<'py>(protocol: ProtocolInst<'_, 'py>) -> Object<'py> {
    make(protocol.py(), Slot::empty(), Slot::holding(protocol.to_owned().unbind()))
}

#[inline]
fn make(py: Python<'_>, writer: Slot, protocol: Slot) -> PyResult<Bound<'_, PyAny>> {
    let phase = Flag::new(Phase::Created);
    create(py, Drain { phase, writer, protocol, parked: Parked::new(), awaited: Awaited::nothing() })
}

impl Drain {
    /// The first look: at the reader's exception, then at the transport.
    #[inline]
    fn begin<'py>(&self, py: Python<'py>) -> PyResult<Step<'py>> {
        if let Some(writer) = self.writer.get(py)
            && let Some(writer) = WriterInst::cast(&writer)
        {
            if let Some(object) = writer.reader.get(py) {
                match reader::plain(&object) {
                    Some(reader) => reader.check_exception()?,
                    None => {
                        let error = object.call_method0(intern!(py, "exception"))?;
                        if !error.is_none() {
                            return Err(PyErr::from_value(error));
                        }
                    }
                }
            }
            let transport = writer.transport()?;
            if Sender::of(&transport).is_closing()? {
                // The protocol learns of a lost connection in a turn of its own: a program that writes and drains
                // in a loop must come to see it.
                self.phase.set(Phase::Yielded);
                return Ok(Step::Yield(none(py)));
            }
        }
        self.ask(py)
    }

    /// Asks the protocol.
    #[inline]
    fn ask<'py>(&self, py: Python<'py>) -> PyResult<Step<'py>> {
        let protocol = match self.writer.get(py) {
            Some(writer) => WriterInst::cast(&writer).and_then(|writer| writer.protocol.get(py)),
            None => self.protocol.get(py),
        };
        let Some(protocol) = protocol else { return Err(reused()) };
        let known = if self.writer.is_some() {
            protocol::plain(&protocol)
        } else {
            ProtocolInst::cast(&protocol) // of a subclass: it is its own `_drain_helper` that runs
        };
        match known {
            Some(known) => match known.drain()? {
                None => Ok(Step::Return(none(py))),
                Some(waiter) => {
                    self.protocol.set(py, protocol);
                    self.phase.set(Phase::Waiting);
                    self.parked.wait(waiter)
                }
            },
            None => {
                self.phase.set(Phase::Delegating);
                self.awaited.begin(protocol.call_method0(intern!(py, "_drain_helper"))?)
            }
        }
    }

    /// The wait is over: out of the protocol's list.
    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        let (Some(waiter), Some(protocol)) = (self.parked.leave(py), self.protocol.take(py)) else {
            return Ok(());
        };
        let Some(protocol) = ProtocolInst::cast(&protocol) else { return Ok(()) };
        let waiters = protocol.waiters()?;
        match waiters.iter().position(|each| each.is(&waiter)) {
            Some(place) => waiters.del_item(place),
            None => Ok(()),
        }
    }

    #[inline]
    fn settle<'py>(&self, py: Python<'py>, step: PyResult<Step<'py>>) -> PyResult<Step<'py>> {
        if !matches!(step, Ok(Step::Yield(_))) {
            self.phase.set(Phase::Over);
            drop((self.writer.take(py), self.protocol.take(py)));
        }
        step
    }
}

impl Awaitable for Drain {
    #[inline]
    fn resume<'py>(this: This<'_, 'py>) -> PyResult<Step<'py>> {
        let py = this.py();
        let step = match this.phase.get() {
            Phase::Created => {
                this.phase.set(Phase::Over); // unless it gets to wait
                this.begin(py)
            }
            Phase::Yielded => this.ask(py),
            Phase::Waiting => {
                let outcome = this.parked.outcome(py);
                this.leave(py)?;
                outcome.map(|_| Step::Return(none(py)))
            }
            Phase::Delegating => this.awaited.resume(py),
            Phase::Over => return Err(reused()),
        };
        this.settle(py, step)
    }

    fn throw<'py>(this: This<'_, 'py>, error: PyErr) -> PyResult<Step<'py>> {
        let py = this.py();
        let step = match this.phase.get() {
            Phase::Created | Phase::Yielded => Err(error),
            Phase::Waiting => {
                this.leave(py)?;
                Err(error)
            }
            Phase::Delegating => this.awaited.throw(py, error),
            Phase::Over => return Err(reused()),
        };
        this.settle(py, step)
    }

    fn close(this: This<'_, '_>) -> PyResult<()> {
        let py = this.py();
        let left = this.leave(py);
        let closed = this.awaited.close(py);
        this.clear(py);
        left.and(closed)
    }
}

impl Coroutine for Drain {
    fn qualname(this: This<'_, '_>) -> &'static str {
        if this.writer.is_some() || this.phase.get() == Phase::Over {
            "StreamWriter.drain"
        } else {
            "FlowControlMixin._drain_helper"
        }
    }

    fn life(this: This<'_, '_>) -> Life {
        match this.phase.get() {
            Phase::Created => Life::Created,
            Phase::Yielded | Phase::Waiting | Phase::Delegating => Life::Suspended,
            Phase::Over => Life::Closed,
        }
    }

    fn awaited<'py>(this: This<'_, 'py>) -> Option<Bound<'py, PyAny>> {
        this.parked.future(this.py()).or_else(|| this.awaited.get(this.py()))
    }

    fn within(this: This<'_, '_>) -> &'static [&'static str] {
        match this.phase.get() {
            Phase::Waiting if this.writer.is_some() => &["FlowControlMixin._drain_helper"],
            _ => &[],
        }
    }
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Drain>().coroutine::<Drain>().build(module, None, Drain::cell())?;
    Ok(())
}
