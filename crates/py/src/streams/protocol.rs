//! `asyncio.StreamReaderProtocol` and its base `FlowControlMixin`: between a transport and a StreamReader.
//!
//! Both types have the same kind of instances. It knows its reader by a weak reference: a stream that the program has
//! let go of must not live as long as its connection. drain.rs waits for its flow control.

use pyo3::exceptions::{PyAssertionError, PyConnectionResetError, PyException};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple, PyType, PyWeakrefMethods, PyWeakrefReference};

use super::reader::{self, future, settle};
use super::{served, surface_protocol, writer};
use crate::event_loop::debug::logger;
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Class, Inst, TypeCell, create_in};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::layout::Fut;
use crate::futures;
use crate::tasks;
use crate::transports::sender::Sender;

type Object<'py> = PyResult<Bound<'py, PyAny>>;
pub(crate) type This<'a, 'py> = Inst<'a, 'py, Protocol>;

/// What a stream's transport talks to.
pub(crate) struct Protocol {
    pub(super) event_loop: Slot,
    /// A weak reference to the reader.
    pub(super) reader: Slot,
    /// The reader of a server's connection, until that is made.
    pub(super) strong: Slot,
    pub(super) transport: Slot,
    /// `client_connected_cb`.
    pub(super) callback: Slot,
    /// What the callback's coroutine runs in.
    pub(super) task: Slot,
    /// `_closed`, once somebody has asked for it.
    pub(super) closed: Slot,
    /// What the connection was lost by.
    error: Slot,
    /// The futures of those who drain, once somebody has waited.
    pub(super) waiters: Slot,
    pub(super) source: Slot,
    dict: Slot,
    pub(super) paused: Flag<bool>,
    pub(super) lost: Flag<bool>,
    pub(super) rejecting: Flag<bool>,
    pub(super) over_ssl: Flag<bool>,
}

impl Class for Protocol {
    const NAME: &'static std::ffi::CStr = c"aioxide.FlowControlMixin";
    const SUBCLASSABLE: bool = true;
    const PYTHON_BASE: bool = true;
    const DICT: Option<usize> = Some(std::mem::offset_of!(Self, dict));
    const SHOWS_STATE: bool = true;

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.slots().into_iter().try_for_each(|slot| slot.traverse(visit))
    }

    fn clear(&self, py: Python<'_>) {
        for slot in self.slots() {
            drop(slot.take(py));
        }
    }
}

impl Protocol {
    pub(super) const fn blank() -> Self {
        Self {
            event_loop: Slot::empty(),
            reader: Slot::empty(),
            strong: Slot::empty(),
            transport: Slot::empty(),
            callback: Slot::empty(),
            task: Slot::empty(),
            closed: Slot::empty(),
            error: Slot::empty(),
            waiters: Slot::empty(),
            source: Slot::empty(),
            dict: Slot::empty(),
            paused: Flag::new(false),
            lost: Flag::new(false),
            rejecting: Flag::new(false),
            over_ssl: Flag::new(false),
        }
    }

    fn slots(&self) -> [&Slot; 11] {
        [
            &self.event_loop,
            &self.reader,
            &self.strong,
            &self.transport,
            &self.callback,
            &self.task,
            &self.closed,
            &self.error,
            &self.waiters,
            &self.source,
            &self.dict,
        ]
    }
}

/// Whether the object is exactly a StreamReaderProtocol.
#[inline]
pub(crate) fn is_exact(object: &Bound<'_, PyAny>) -> bool {
    STREAM.is_exact(object)
}

/// The object as a StreamReaderProtocol whose methods are surely ours.
#[inline]
pub(crate) fn plain<'a, 'py>(object: &'a Bound<'py, PyAny>) -> Option<This<'a, 'py>> {
    if !STREAM.is_plain(object) {
        return None;
    }
    This::cast(object).filter(|this| !this.dict.is_some())
}

pub(super) fn new(_: Args<'_, '_>) -> PyResult<Protocol> {
    Ok(Protocol::blank())
}

/// `FlowControlMixin(loop=None)`.
pub(super) fn init_mixin(this: This<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "FlowControlMixin.__init__",
        positional: &["loop"],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let [event_loop] = SIGNATURE.bind::<1>(args)?;
    this.begin(given(event_loop))
}

/// `StreamReaderProtocol(stream_reader, client_connected_cb=None, loop=None)`.
pub(super) fn init(this: This<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "StreamReaderProtocol.__init__",
        positional: &["stream_reader", "client_connected_cb", "loop"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [reader, callback, event_loop] = SIGNATURE.bind::<3>(args)?;
    this.begin(given(event_loop))?;
    this.connect(given(reader).as_ref(), given(callback))
}

/// A protocol of a reader; with a callback, one of a server.
pub(super) fn make<'py>(
    event_loop: &Bound<'py, PyAny>,
    reader: &Bound<'py, PyAny>,
    callback: Option<Bound<'py, PyAny>>,
) -> Object<'py> {
    let protocol = create_in(event_loop.py(), &STREAM, Protocol::blank())?;
    if let Some(this) = This::cast(&protocol) {
        this.event_loop.set(event_loop.py(), event_loop.clone());
        this.connect(Some(reader), callback)?;
    }
    Ok(protocol)
}

impl<'py> This<'_, 'py> {
    fn begin(self, event_loop: Option<Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.py();
        let event_loop = event_loop.map_or_else(|| futures::current_event_loop(py), Ok)?;
        self.event_loop.set(py, event_loop);
        self.paused.set(false);
        self.lost.set(false);
        Ok(())
    }

    fn connect(
        self,
        reader: Option<&Bound<'py, PyAny>>,
        callback: Option<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let py = self.py();
        if let Some(reader) = reader {
            self.reader.set(py, PyWeakrefReference::new(reader)?.into_any());
            let source = match reader::plain(reader) {
                Some(reader) => reader.source.get(py),
                None => Some(reader.getattr(intern!(py, "_source_traceback"))?),
            };
            drop(self.source.replace(py, source));
            if callback.is_some() {
                self.strong.set(py, reader.clone());
            }
        }
        drop(self.callback.replace(py, callback));
        Ok(())
    }

    /// The reader, if it is still there.
    #[inline]
    pub(super) fn reader(self) -> Option<Bound<'py, PyAny>> {
        let reference = self.reader.get(self.py())?;
        reference.cast::<PyWeakrefReference>().ok()?.upgrade()
    }

    /// `connection_made(transport)`.
    pub(crate) fn connection_made(self, transport: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        if self.rejecting.get() {
            return self.reject(transport);
        }
        self.transport.set(py, transport.clone());
        let reader = self.reader();
        if let Some(object) = &reader {
            match reader::plain(object) {
                Some(reader) => reader.set_transport(transport)?,
                None => drop(object.call_method1(intern!(py, "set_transport"), (transport,))?),
            }
        }
        self.over_ssl.set(Sender::of(transport).is_tls()?);
        if self.callback.is_some() {
            self.serve(transport, reader)?;
        }
        Ok(())
    }

    /// Nobody has the stream any more.
    fn reject(self, transport: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let details = PyDict::new(py);
        details.set_item(
            intern!(py, "message"),
            "An open stream was garbage collected prior to establishing network connection; \
             call \"stream.close()\" explicitly.",
        )?;
        if let Some(source) = self.source.get(py) {
            details.set_item(intern!(py, "source_traceback"), source)?;
        }
        if let Some(event_loop) = self.event_loop.get(py) {
            event_loop.call_method1(intern!(py, "call_exception_handler"), (details,))?;
        }
        transport.call_method0(intern!(py, "abort")).map(drop)
    }

    /// A server's connection: the callback gets its two streams.
    fn serve(self, transport: &Bound<'py, PyAny>, reader: Option<Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.py();
        let (Some(callback), Some(event_loop)) = (self.callback.get(py), self.event_loop.get(py)) else {
            return Ok(());
        };
        let writer = writer::make(transport, &self.to_owned(), reader.clone(), &event_loop)?;
        let served = match callback.call1((reader, writer)) {
            Ok(served) => served,
            Err(error) if error.is_instance_of::<PyException>(py) => {
                served::report(&event_loop, transport, error.into_value(py).bind(py).as_any())?;
                Sender::of(transport).close()?;
                drop(self.strong.take(py));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if tasks::is_coroutine(&served)? {
            let task = tasks::create::task(&event_loop, &served)?;
            self.task.set(py, task.clone());
            served::watch(&task, transport, &event_loop)?;
        }
        drop(self.strong.take(py));
        Ok(())
    }

    /// `data_received(data)`.
    #[inline]
    pub(crate) fn data_received(self, data: Bound<'py, PyBytes>) -> PyResult<()> {
        let Some(object) = self.reader() else { return Ok(()) };
        match reader::plain(&object) {
            Some(reader) => reader.feed(data),
            None => object.call_method1(intern!(self.py(), "feed_data"), (data,)).map(drop),
        }
    }

    /// `eof_received()`: the transport stays open, except over TLS, where it can't.
    pub(crate) fn eof_received(self) -> PyResult<bool> {
        if let Some(object) = self.reader() {
            match reader::plain(&object) {
                Some(reader) => reader.feed_eof()?,
                None => drop(object.call_method0(intern!(self.py(), "feed_eof"))?),
            }
        }
        Ok(!self.over_ssl.get())
    }

    /// `connection_lost(error)` of a stream.
    pub(crate) fn connection_lost(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let error = Some(error).filter(|error| !error.is_none());
        if let Some(object) = self.reader() {
            match (reader::plain(&object), error) {
                (Some(reader), None) => reader.feed_eof()?,
                (Some(reader), Some(error)) => reader.set_exception(error)?,
                (None, None) => drop(object.call_method0(intern!(py, "feed_eof"))?),
                (None, Some(error)) => drop(object.call_method1(intern!(py, "set_exception"), (error,))?),
            }
        }
        drop(self.error.replace(py, error.cloned()));
        if let Some(closed) = self.closed.get(py) {
            self.end(&closed)?;
        }
        self.connection_is_lost(error)?;
        drop((self.reader.take(py), self.task.take(py), self.transport.take(py)));
        Ok(())
    }

    /// Tells who waits for the end what it was.
    fn end(self, closed: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        if closed.call_method0(intern!(py, "done"))?.is_truthy()? {
            return Ok(());
        }
        let error = self.error.get(py);
        settle(closed, error.as_ref())?;
        if error.is_some() {
            // Nobody has to look: reads and drains raise it too.
            match Fut::cast(closed) {
                Some(closed) => closed.set_log_tb(false),
                None => drop(closed.call_method0(intern!(py, "exception"))?),
            }
        }
        Ok(())
    }

    /// `connection_lost(error)` of the mixin: wakes those who drain.
    pub(super) fn connection_is_lost(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        self.lost.set(true);
        if self.paused.get() { self.wake_all(error) } else { Ok(()) }
    }

    fn wake_all(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.py();
        let Some(waiters) = self.waiters.get(py) else { return Ok(()) };
        for waiter in waiters.cast::<PyList>()?.iter() {
            if !waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
                settle(&waiter, error)?;
            }
        }
        Ok(())
    }

    /// `_get_close_waiter(stream)`, `_closed`.
    pub(super) fn closed(self) -> Object<'py> {
        let py = self.py();
        if let Some(closed) = self.closed.get(py) {
            return Ok(closed);
        }
        let closed = future(self.event_loop.get(py).as_ref())?;
        self.closed.set(py, closed.clone());
        if self.lost.get() {
            self.end(&closed)?;
        }
        Ok(closed)
    }

    /// `pause_writing()` and `resume_writing()`.
    pub(crate) fn set_paused(self, paused: bool) -> PyResult<()> {
        let py = self.py();
        if self.paused.get() == paused {
            return Err(PyAssertionError::new_err(()));
        }
        self.paused.set(paused);
        if let Some(event_loop) = self.event_loop.get(py)
            && futures::is_debug(&event_loop)?
        {
            let text = if paused { "%r pauses writing" } else { "%r resumes writing" };
            logger(py)?.call_method1(intern!(py, "debug"), (text, self.object()))?;
        }
        if paused { Ok(()) } else { self.wake_all(None) }
    }

    /// Whether writing may go on: none if so, else the future to wait for. ConnectionResetError on a lost connection.
    #[inline]
    pub(super) fn drain(self) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.lost.get() {
            return Err(PyConnectionResetError::new_err("Connection lost"));
        }
        if !self.paused.get() {
            return Ok(None);
        }
        let py = self.py();
        let waiter = future(self.event_loop.get(py).as_ref())?;
        self.waiters()?.append(&waiter)?;
        Ok(Some(waiter))
    }

    /// The futures of those who drain.
    pub(super) fn waiters(self) -> PyResult<Bound<'py, PyList>> {
        let py = self.py();
        match self.waiters.get(py) {
            Some(waiters) => Ok(waiters.cast_into()?),
            None => {
                let waiters = PyList::empty(py);
                self.waiters.set(py, waiters.clone().into_any());
                Ok(waiters)
            }
        }
    }

    /// `_replace_transport(transport)`: TLS has come in between.
    pub(super) fn replace_transport(self, transport: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        self.transport.set(py, transport.clone());
        self.over_ssl.set(Sender::of(transport).is_tls()?);
        match self.reader() {
            Some(reader) => reader.call_method1(intern!(py, "_replace_transport"), (transport,)).map(drop),
            None => Ok(()),
        }
    }
}

/// StreamReaderProtocol; the class's own cell has its base, the mixin.
pub(super) static STREAM: TypeCell = TypeCell::new();

/// Makes the types.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    static BASE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let base = BASE.import(module.py(), "asyncio.protocols", "Protocol")?;
    surface_protocol::register(module, &PyTuple::new(module.py(), [base])?)
}
