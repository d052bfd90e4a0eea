//! The coroutine behind `Queue.put`, `get` and `join`: done at once where it can be, else in line until it is
//! woken, and then it tries again.

use aioxide_core::WaiterKey;
use pyo3::prelude::*;

use super::{Queue, This, finished, is_empty, is_full, try_get, try_put, wake_getters, wake_putters};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, create};
use crate::ffi::iter::{Coroutine, Life, Step, reused};
use crate::ffi::layout::{Fut, State};
use crate::frame::{Frame, class};
use crate::futures;
use crate::locks::Event;
use crate::parked::{Parked, outcome_of};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// What is awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Get,
    Put,
    Join,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Created,
    /// In line: for an item, for room, or for the last `task_done`.
    Waiting,
    Over,
}

/// One `put`, `get` or `join`.
pub(super) struct Transfer {
    op: Op,
    phase: Flag<Phase>,
    key: Flag<Option<WaiterKey>>,
    owner: Slot,
    /// Of `put`.
    item: Slot,
    parked: Parked,
}

class!(Transfer, c"aioxide._core.QueueWait", spare 512, [owner, item, parked]);

/// The coroutine for `op` on `owner`.
#[inline]
pub(super) fn make<'py>(owner: This<'_, 'py>, op: Op, item: Option<Bound<'py, PyAny>>) -> Object<'py> {
    let transfer = Transfer {
        op,
        phase: Flag::new(Phase::Created),
        key: Flag::new(None),
        owner: Slot::holding(owner.to_owned().unbind()),
        item: Slot::new(item.map(Bound::unbind)),
        parked: Parked::new(),
    };
    create(owner.py(), transfer)
}

impl Transfer {
    /// Goes through, or gets in line.
    #[inline]
    fn attempt<'py>(&self, this: This<'_, 'py>) -> PyResult<Step<'py>> {
        let py = this.py();
        match self.op {
            Op::Get => {
                if let Some(item) = try_get(this)? {
                    return Ok(Step::Return(item));
                }
                let future = this.home.future(&this.object())?;
                let parked = future.clone().unbind();
                self.park(this.with(py, |inner| inner.rules.wait_to_get(parked)), future)
            }
            Op::Put => {
                let item = self.item.take(py).unwrap_or_else(|| py.None().into_bound(py));
                match try_put(this, item)? {
                    Ok(result) => Ok(Step::Return(result)),
                    Err(item) => {
                        self.item.set(py, item);
                        let future = this.home.future(&this.object())?;
                        let parked = future.clone().unbind();
                        self.park(this.with(py, |inner| inner.rules.wait_to_put(parked)), future)
                    }
                }
            }
            Op::Join => {
                if this.with(py, |inner| inner.rules.is_finished()) {
                    return Ok(Step::Return(py.None().into_bound(py)));
                }
                let event = finished(this)?;
                let (key, future) = Event::join(Inst::<Event>::cast(&event).ok_or_else(reused)?)?;
                self.park(key, future)
            }
        }
    }

    fn park<'py>(&self, key: WaiterKey, future: Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        self.key.set(Some(key));
        self.phase.set(Phase::Waiting);
        self.parked.wait(future)
    }

    /// The wait is over: tries again, or passes the chance on and fails.
    #[inline]
    fn go_on<'py>(&self, this: This<'_, 'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        let py = this.py();
        let future = self.parked.leave(py);
        let outcome = error.map_or_else(|| outcome_of(future.as_ref()), Err);
        match (self.op, outcome) {
            (Op::Join, outcome) => {
                let event = finished(this)?;
                if let (Some(event), Some(key)) = (Inst::<Event>::cast(&event), self.key.get()) {
                    event.leave(py, key);
                }
                outcome.map(|()| Step::Return(py.None().into_bound(py)))
            }
            (Op::Get | Op::Put, Ok(())) => self.attempt(this),
            (Op::Get | Op::Put, Err(error)) => {
                self.give_up(this, future)?;
                Err(error)
            }
        }
    }

    /// Leaves the line. One that was woken, and can't use it, wakes the next.
    fn give_up<'py>(&self, this: This<'_, 'py>, future: Option<Bound<'py, PyAny>>) -> PyResult<()> {
        let py = this.py();
        let Some(future) = future else { return Ok(()) };
        let mut cancelled = false;
        if let Some(known) = Fut::cast_exact(&future) {
            futures::cancel(known, None)?;
            cancelled = known.state() == State::Cancelled;
        }
        let Some(key) = self.key.get() else { return Ok(()) };
        let left = this.with(py, |inner| match self.op {
            Op::Put => inner.rules.leave_put(key),
            Op::Get | Op::Join => inner.rules.leave_get(key),
        });
        drop(left.map(|parked| parked.into_bound(py)));
        match self.op {
            Op::Get if !is_empty(this)? && !cancelled => {
                let next = this.with(py, |inner| inner.rules.next_getter());
                wake_getters(this, next)
            }
            Op::Put if !is_full(this)? && !cancelled => {
                let next = this.with(py, |inner| inner.rules.next_putter());
                wake_putters(this, next)
            }
            _ => Ok(()),
        }
    }
}

impl Frame for Transfer {
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

    #[inline]
    fn step<'py>(this: Inst<'_, 'py, Self>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        let py = this.py();
        let phase = this.phase.replace(Phase::Over); // unless it waits again
        let Some(object) = this.owner.take(py).filter(|_| phase != Phase::Over) else { return Err(reused()) };
        let queue = Inst::<Queue>::cast(&object).ok_or_else(reused)?;
        let step = if phase == Phase::Waiting { this.go_on(queue, error) } else { this.attempt(queue) };
        if this.phase.get() == Phase::Waiting {
            this.owner.set(py, object);
        } else if this.item.is_some() {
            drop(this.item.take(py));
        }
        step
    }
}

impl Coroutine for Transfer {
    fn qualname(this: Inst<'_, '_, Self>) -> &'static str {
        match this.op {
            Op::Get => "Queue.get",
            Op::Put => "Queue.put",
            Op::Join => "Queue.join",
        }
    }

    fn awaited<'py>(this: Inst<'_, 'py, Self>) -> Option<Bound<'py, PyAny>> {
        this.parked.future(this.py())
    }

    fn waits_for<'py>(this: Inst<'_, 'py, Self>) -> Option<(&'static str, Option<Bound<'py, PyAny>>)> {
        Some(("queue", this.owner.get(this.py())))
    }

    fn life(this: Inst<'_, '_, Self>) -> Life {
        this.at()
    }

    fn within(this: Inst<'_, '_, Self>) -> &'static [&'static str] {
        if this.op == Op::Join { &["Event.wait"] } else { &[] }
    }
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Transfer>().coroutine::<Transfer>().build(module, None, Transfer::cell())?;
    Ok(())
}
