//! `asyncio.StreamReader`: what has been received, whoever waits for more, and the transport that is paused when it is
//! too much.
//!
//! Fed by StreamReaderProtocol or by anybody's `feed_data`; the coroutines that read are read.rs. Any call that wakes
//! a reader or speaks to the transport may run Python code; no borrow is held meanwhile.

use aioxide_core::Flow;
use pyo3::exceptions::{
    PyAssertionError, PyNotImplementedError, PyOverflowError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFloat};
use pyo3::{Borrowed, intern};

use super::buffer::Buffer;
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::buffer;
use crate::ffi::cell::Slot;
use crate::ffi::class::{Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::layout::{Fut, State};
use crate::futures;
use crate::local::LoopCore;
use crate::names::{names, none};
use crate::transports::sender::Sender;

type Object<'py> = PyResult<Bound<'py, PyAny>>;
pub(super) type This<'a, 'py> = Inst<'a, 'py, Reader>;

/// The limit of asyncio's streams.
pub(super) const DEFAULT_LIMIT: usize = 64 * 1024;

/// A stream to read from.
pub(crate) struct Reader {
    pub(super) buffer: Buffer,
    pub(super) event_loop: Slot,
    /// The future of the coroutine that waits for data or the end.
    pub(super) waiter: Slot,
    pub(super) exception: Slot,
    pub(super) transport: Slot,
    /// Where it was made, in debug mode.
    pub(super) source: Slot,
    pub(super) dict: Slot,
}

impl Class for Reader {
    const NAME: &'static std::ffi::CStr = c"aioxide.StreamReader";
    const SUBCLASSABLE: bool = true;
    const DICT: Option<usize> = Some(std::mem::offset_of!(Self, dict));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.slots().into_iter().try_for_each(|slot| slot.traverse(visit))?;
        self.buffer.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        for slot in self.slots() {
            drop(slot.take(py));
        }
        self.buffer.clear(py);
    }
}

impl Reader {
    const fn blank(limit: usize) -> Self {
        Self {
            buffer: Buffer::new(limit),
            event_loop: Slot::empty(),
            waiter: Slot::empty(),
            exception: Slot::empty(),
            transport: Slot::empty(),
            source: Slot::empty(),
            dict: Slot::empty(),
        }
    }

    fn slots(&self) -> [&Slot; 6] {
        [&self.event_loop, &self.waiter, &self.exception, &self.transport, &self.source, &self.dict]
    }
}

/// The object as a reader whose methods are surely ours.
#[inline]
pub(super) fn plain<'a, 'py>(object: &'a Bound<'py, PyAny>) -> Option<This<'a, 'py>> {
    This::cast_exact(object).filter(|this| !this.dict.is_some() && Reader::cell().is_plain(object))
}

/// `StreamReader(limit, loop)`.
pub(super) fn make<'py>(event_loop: &Bound<'py, PyAny>, limit: usize) -> Object<'py> {
    let reader = create(event_loop.py(), Reader::blank(limit))?;
    if let Some(this) = This::cast_exact(&reader) {
        this.begin(event_loop.clone())?;
    }
    Ok(reader)
}

pub(super) fn new(_: Args<'_, '_>) -> PyResult<Reader> {
    Ok(Reader::blank(DEFAULT_LIMIT))
}

pub(super) fn init(this: This<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "StreamReader.__init__",
        positional: &["limit", "loop"],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let py = this.py();
    let [limit, event_loop] = SIGNATURE.bind::<2>(args)?;
    let limit = limit.map_or(Ok(DEFAULT_LIMIT), |limit| limit_of(&limit))?;
    let event_loop = match given(event_loop) {
        Some(event_loop) => event_loop,
        None => futures::current_event_loop(py)?,
    };
    this.buffer.with(py, |inflow| inflow.set_limit(limit));
    this.begin(event_loop)
}

/// A limit: any positive number.
pub(super) fn limit_of(limit: &Bound<'_, PyAny>) -> PyResult<usize> {
    if limit.le(0)? {
        return Err(PyValueError::new_err("Limit cannot be <= 0"));
    }
    match limit.extract::<usize>() {
        Err(error) if error.is_instance_of::<PyOverflowError>(limit.py()) => Ok(usize::MAX),
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and what is too large means no limit"
        )]
        Err(_) if limit.is_instance_of::<PyFloat>() => Ok(limit.extract::<f64>()?.ceil() as usize),
        result => result,
    }
}

/// A future of a loop.
#[inline]
pub(super) fn future<'py>(event_loop: Option<&Bound<'py, PyAny>>) -> Object<'py> {
    match event_loop {
        Some(event_loop) if LoopCore::of(event_loop).is_some() => futures::new(event_loop),
        Some(event_loop) => event_loop.call_method0(intern!(event_loop.py(), "create_future")),
        None => Err(PyRuntimeError::new_err("a stream that has not been initialized")),
    }
}

/// Completes a future that somebody waits for, unless it has been cancelled.
#[inline]
pub(super) fn settle<'py>(future: &Bound<'py, PyAny>, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
    let py = future.py();
    match (Fut::cast_exact(future), error) {
        (Some(known), _) if known.state() == State::Cancelled => Ok(()),
        (Some(known), None) => futures::set_result(known, none(py)),
        (Some(known), Some(error)) => futures::set_exception(known, error),
        (None, _) if future.call_method0(intern!(py, "cancelled"))?.is_truthy()? => Ok(()),
        (None, None) => future.call_method1(intern!(py, "set_result"), (none(py),)).map(drop),
        (None, Some(error)) => future.call_method1(intern!(py, "set_exception"), (error,)).map(drop),
    }
}

fn assertion(text: &'static str) -> PyErr {
    PyAssertionError::new_err(text)
}

impl<'py> This<'_, 'py> {
    fn begin(self, event_loop: Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        if futures::is_debug(&event_loop)? {
            self.source.set(py, names(py).extract_stack.bind(py).call0()?);
        }
        self.event_loop.set(py, event_loop);
        Ok(())
    }

    /// Wakes who waits.
    #[inline]
    pub(super) fn wake(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        match self.waiter.take(self.py()) {
            Some(waiter) => settle(&waiter, error),
            None => Ok(()),
        }
    }

    /// `feed_data(data)` for a bytes object.
    #[inline]
    pub(super) fn feed(self, data: Bound<'py, PyBytes>) -> PyResult<()> {
        self.check_open()?;
        if data.as_bytes().is_empty() {
            return Ok(());
        }
        let flow = self.buffer.feed(data)?;
        self.fed(flow)
    }

    /// `feed_data(data)` for anything with bytes in it.
    pub(super) fn feed_any(self, data: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
        if let Ok(bytes) = data.cast_exact::<PyBytes>() {
            return self.feed(bytes.to_owned());
        }
        self.check_open()?;
        if !data.is_truthy()? {
            return Ok(());
        }
        let copy = buffer::read(&data, <[u8]>::to_vec)?;
        let flow = self.buffer.extend(self.py(), &copy)?;
        self.fed(flow)
    }

    fn check_open(self) -> PyResult<()> {
        if self.buffer.with(self.py(), |inflow| inflow.has_eof()) {
            return Err(assertion("feed_data after feed_eof"));
        }
        Ok(())
    }

    #[inline]
    fn fed(self, flow: Flow) -> PyResult<()> {
        self.wake(None)?;
        match flow {
            Flow::Nothing | Flow::Resume => Ok(()),
            Flow::Pause => self.pause(),
        }
    }

    /// The buffer is too full.
    fn pause(self) -> PyResult<()> {
        let py = self.py();
        let unpaused = || self.buffer.with(py, |inflow| inflow.set_paused(false));
        let Some(transport) = self.transport.get(py) else {
            unpaused();
            return Ok(());
        };
        Sender::of(&transport).pause_reading().or_else(|error| {
            unpaused();
            if !error.is_instance_of::<PyNotImplementedError>(py) {
                return Err(error);
            }
            drop(self.transport.take(py)); // it can't be paused: no use in asking again
            Ok(())
        })
    }

    /// What the buffer asks for after bytes have been taken out, or before waiting.
    #[inline]
    pub(super) fn resume(self, flow: Flow) -> PyResult<()> {
        match flow {
            Flow::Nothing | Flow::Pause => Ok(()),
            Flow::Resume => match self.transport.get(self.py()) {
                Some(transport) => Sender::of(&transport).resume_reading(),
                None => Ok(()),
            },
        }
    }

    /// `feed_eof()`.
    pub(super) fn feed_eof(self) -> PyResult<()> {
        self.buffer.with(self.py(), |inflow| inflow.feed_eof());
        self.wake(None)
    }

    /// `set_exception(error)`.
    pub(super) fn set_exception(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        self.exception.set(self.py(), error.clone());
        self.wake(Some(error))
    }

    /// The exception that every read raises.
    #[inline]
    pub(super) fn check_exception(self) -> PyResult<()> {
        match self.exception.get(self.py()) {
            Some(error) if !error.is_none() => Err(PyErr::from_value(error)),
            _ => Ok(()),
        }
    }

    /// `set_transport(transport)`.
    pub(super) fn set_transport(self, transport: &Bound<'py, PyAny>) -> PyResult<()> {
        if self.transport.is_some() {
            return Err(assertion("Transport already set"));
        }
        self.transport.set(self.py(), transport.clone());
        Ok(())
    }

    /// `_replace_transport(transport)`.
    pub(super) fn replace_transport(self, transport: &Bound<'py, PyAny>) -> PyResult<()> {
        if !self.transport.is_some() {
            return Err(assertion("Transport not set"));
        }
        self.transport.set(self.py(), transport.clone());
        Ok(())
    }

    /// Waits for data or the end: the future. One coroutine at a time.
    #[inline]
    pub(super) fn wait(self, method: impl FnOnce() -> String) -> Object<'py> {
        let py = self.py();
        if self.waiter.is_some() {
            return Err(PyRuntimeError::new_err(format!(
                "{}() called while another coroutine is already waiting for incoming data",
                method()
            )));
        }
        let (ended, flow) = self.buffer.with(py, |inflow| (inflow.has_eof(), inflow.wait()));
        if ended {
            return Err(assertion("_wait_for_data after EOF"));
        }
        self.resume(flow)?;
        let waiter = future(self.event_loop.get(py).as_ref())?;
        self.waiter.set(py, waiter.clone());
        Ok(waiter)
    }
}

/// TypeError for what has no bytes.
pub(super) fn separator<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(bytes.clone());
    }
    buffer::read(object, |bytes| PyBytes::new(object.py(), bytes)).map_err(|_| {
        let class = object.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
        PyTypeError::new_err(format!("a separator must be a bytes-like object, not {class}"))
    })
}
