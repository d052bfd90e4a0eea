//! The stream transport of a connected socket: TCP, and any other stream socket.
//!
//! Made by `create_connection`, servers and `connect_accepted_socket`; told by the turn when its descriptor is ready.
//! It owns the socket object, forgets its place in the driver before it closes it, and keeps the life of a connection
//! as core's `Phase` has it. Its other parts: `read`, `write`, and `surface`, which is what Python sees.

use std::os::fd::RawFd;

use aioxide_core::habit::Habit;
use aioxide_core::outbox::Outbox;
use aioxide_core::phase::{Action, Happening, Phase};
use aioxide_sys::{Interest, Key, Readiness, stream};
use pyo3::exceptions::PyConnectionError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyo3::{Borrowed, intern};

use super::census::Place;
use super::flow::Chunk;
use super::owned::{Owned, Socket};
use super::receiver::Receiver;
use super::{Source, held, read, report, server, write};
use crate::async_fn::attached;
use crate::errors::{ends_the_loop, os_error};
use crate::event_loop::{EventLoop, hooks, readers};
use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::{Class, Find, Inst, TypeCell, create};
use crate::ffi::context;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::layout::Fut;
use crate::job::Job;
use crate::local::LoopCore;
use crate::names::asyncio;
use crate::version::SERVERS_KNOW_TRANSPORTS;
use crate::{futures, handles};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
pub(crate) type This<'a, 'py> = Inst<'a, 'py, TcpTransport>;

/// A stream transport. What every received and sent byte looks at comes first, close together.
#[repr(C)]
pub(crate) struct TcpTransport {
    /// The context that everything the transport calls runs in.
    context: Slot,
    pub(super) protocol: Slot,
    /// The future that waits for the outbox to be empty (`sendfile`).
    pub(super) flushed: Slot,
    /// What was received and nobody has been told of: bytes, or the number of an error.
    pub(super) ahead: Slot,
    pub(super) fd: RawFd,
    /// Once the connection is lost: the write that failed, and those since.
    pub(super) lost_writes: Flag<u32>,
    /// How many bytes the next receive is expected to bring, at most.
    pub(super) room: Flag<usize>,
    pub(super) phase: Flag<Phase>,
    pub(super) reading: Flag<Reading>,
    /// What the protocol is.
    pub(super) receiver: Flag<Receiver>,
    /// `write_eof` was called.
    pub(super) eof: Flag<bool>,
    /// Something is in the outbox.
    pub(super) unsent: Flag<bool>,
    /// Being told by the loop that the descriptor is ready.
    pub(super) called: Flag<bool>,
    /// The kernel keeps back what was written last.
    pub(super) held: Flag<bool>,
    /// The socket is not corked, and nobody has it who could do so.
    pub(super) uncorked: Flag<bool>,
    /// Whether the other side is on this machine, once that matters.
    pub(super) near: Flag<Option<bool>>,
    /// How it is written to.
    pub(super) habit: Flag<Habit>,
    /// A short receive means that nothing is left, as it does for TCP: no need to be told again.
    edge: bool,
    /// The protocol has been set since the transport was made (it may be taken away by a subclass).
    connected: Flag<bool>,
    counted: Place,
    watched: Flag<Interest>,
    key: Flag<Option<Key>>,
    pub(super) event_loop: Slot,
    pub(super) sock: Owned,
    pub(super) server: Slot,
    pub(super) outbox: GilCell<Outbox<Chunk>>,
    /// What a program has put on the instance, methods in the place of ours among it.
    attributes: Slot,
}

/// What keeps the transport from reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// `connection_made` has run.
    pub(super) started: bool,
    /// `pause_reading` was called.
    pub(super) paused: bool,
    /// The peer's direction is over.
    pub(super) ended: bool,
}

impl Class for TcpTransport {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.SocketTransport";
    const INHERITED: usize = 1; // asyncio.BaseTransport's `_extra`
    const DICT: Option<usize> = Some(std::mem::offset_of!(Self, attributes));
    const STANDS_FOR: Option<Find> =
        Some(|py| asyncio(py).selector_events.bind(py).getattr(intern!(py, "_SelectorSocketTransport")));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.slots().into_iter().try_for_each(|slot| slot.traverse(visit))?;
        self.sock.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.counted.leave(py, &self.event_loop);
        for slot in self.slots() {
            drop(slot.take(py));
        }
        self.sock.clear(py);
        self.discard(py);
    }

    /// Nobody has closed it and nobody can any more.
    fn finalize(this: This<'_, '_>) {
        let py = this.py();
        futures::without_current_error(py, || {
            if !this.sock.is_open() {
                return Ok(());
            }
            report::unclosed(this.object())?;
            this.unwatch(py);
            this.sock.close(py)?;
            this.server.take(py).map_or(Ok(()), |server| server::detach(&server, &this.object()))
        });
    }

    fn wants_finalize(&self) -> bool {
        self.sock.is_open()
    }
}

/// What a transport is made of.
pub(crate) struct Parts<'a, 'py> {
    pub(crate) event_loop: &'a Bound<'py, PyAny>,
    pub(crate) socket: Socket<'py>,
    pub(crate) protocol: &'a Bound<'py, PyAny>,
    /// Completed once the protocol knows of the connection.
    pub(crate) waiter: Option<&'a Bound<'py, PyAny>>,
    pub(crate) server: Option<&'a Bound<'py, PyAny>>,
    pub(crate) context: &'a Bound<'py, PyAny>,
}

/// Makes a transport. The protocol is told in the next turn, and then reading starts.
pub(crate) fn make<'py>(parts: Parts<'_, 'py>) -> Object<'py> {
    let Parts { event_loop, socket, protocol, waiter, server, context } = parts;
    let py = event_loop.py();
    let plain = match &socket {
        Socket::Object(sock, _) => {
            readers::ensure_fd_no_transport(event_loop, sock)?;
            is_plain_tcp(sock)?
        }
        Socket::Accepted(..) => true,
    };
    let (sock, fd) = Owned::new(py, socket)?;
    let is_tcp = stream::set_nodelay(fd).map_err(|e| os_error(&e))?;
    let value = TcpTransport {
        context: Slot::holding(context.clone().unbind()),
        protocol: Slot::empty(),
        flushed: Slot::empty(),
        fd,
        room: Flag::new(0),
        phase: Flag::new(Phase::Open),
        reading: Flag::new(Reading { started: false, paused: false, ended: false }),
        receiver: Flag::new(Receiver::Python),
        eof: Flag::new(false),
        unsent: Flag::new(false),
        called: Flag::new(false),
        held: Flag::new(false),
        uncorked: Flag::new(false),
        near: Flag::new(None),
        ahead: Slot::empty(),
        habit: Flag::new(Habit::new()),
        edge: is_tcp && plain,
        connected: Flag::new(false),
        counted: Place::none(),
        watched: Flag::new(Interest::NONE),
        key: Flag::new(None),
        event_loop: Slot::holding(event_loop.clone().unbind()),
        sock,
        server: Slot::new(server.map(|s| s.clone().unbind())),
        outbox: GilCell::new(Outbox::new()),
        lost_writes: Flag::new(1),
        attributes: Slot::empty(),
    };
    let object = create(py, value)?;
    let Some(this) = This::cast_exact(&object) else { return Ok(object) };
    this.counted.take(event_loop);
    this.set_protocol(protocol)?;
    if let Some(server) = server {
        server::attach(server, &object).inspect_err(|_| {
            if !SERVERS_KNOW_TRANSPORTS {
                drop(this.server.take(py)); // it only counts: what was not added must not be subtracted
            }
        })?;
    }
    if let Some(core) = this.plain_loop(event_loop) {
        let waiter = waiter.map(|waiter| waiter.clone().unbind());
        core.soon(py, Job::Connected { transport: object.clone().unbind(), waiter })?;
        return Ok(object);
    }
    this.call_soon(&protocol.getattr(intern!(py, "connection_made"))?, &object)?;
    let none = py.None().into_bound(py);
    this.call_soon(&object.getattr(intern!(py, "_start"))?, waiter.unwrap_or(&none))?;
    Ok(object)
}

/// The job that [`make`] left: the protocol hears of the connection, then reading starts.
pub(crate) fn connected<'py>(
    transport: &Bound<'py, PyAny>,
    waiter: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let Some(this) = This::cast_exact(transport) else { return Ok(()) };
    let py = this.py();
    let told = match (this.event_loop.get(py), this.protocol.get(py), this.context.get(py)) {
        (Some(event_loop), Some(protocol), Some(context)) => {
            let made = || this.receiver.get().connection_made(&protocol, transport);
            let told = context::run_again(&context, made);
            reported(&event_loop, &context, told, (&protocol, intern!(py, "connection_made"), transport))
        }
        _ => Ok(()),
    };
    let waiter = waiter.unwrap_or_else(|| py.None().into_bound(py));
    told.and(this.start(&waiter))
}

/// The job that ends a connection: the protocol hears of it for the last time.
pub(crate) fn lost<'py>(transport: &Bound<'py, PyAny>, error: &Bound<'py, PyAny>) -> PyResult<()> {
    let Some(this) = This::cast_exact(transport) else { return Ok(()) };
    let py = this.py();
    let (Some(event_loop), Some(context)) = (this.event_loop.get(py), this.context.get(py)) else {
        return Ok(());
    };
    let told = context::run_again(&context, || this.connection_lost(error));
    reported(&event_loop, &context, told, (transport, intern!(py, "_call_connection_lost"), error))
}

/// Tells the loop what a job raised, as if it had called a method of an object with an argument.
fn reported<'py>(
    event_loop: &Bound<'py, PyAny>,
    context: &Bound<'py, PyAny>,
    result: PyResult<()>,
    (owner, method, argument): (&Bound<'py, PyAny>, &Bound<'py, PyString>, &Bound<'py, PyAny>),
) -> PyResult<()> {
    let py = event_loop.py();
    match result {
        Err(error) if !ends_the_loop(py, &error) => {
            let args = PyTuple::new(py, [argument])?;
            hooks::report_callback(event_loop, &owner.getattr(method)?, &args, context, error)
        }
        result => result,
    }
}

/// Whether the protocol is TCP itself, and not one of those built on it that also know its options.
fn is_plain_tcp(sock: &Bound<'_, PyAny>) -> PyResult<bool> {
    const TCP: i32 = 6;
    let protocol: i32 = sock.getattr(intern!(sock.py(), "proto"))?.extract()?;
    Ok(protocol == 0 || protocol == TCP)
}

/// `future` fails if the transport is closed while `sendfile` waits for it.
pub(crate) fn wait_for_flush<'py>(transport: &Bound<'py, PyAny>, future: &Bound<'py, PyAny>) {
    if let Some(this) = This::cast(transport)
        && this.flushed.is_some()
    {
        this.flushed.set(this.py(), future.clone());
    }
}

/// The descriptor is ready.
pub(super) fn on_ready(this: This<'_, '_>, ready: Readiness) -> PyResult<()> {
    let Some(context) = this.context.get(this.py()) else { return Ok(()) };
    let outer = this.called.replace(true);
    let result = context::run_again(&context, || {
        if ready.readable {
            read::on_readable(this, ready.hangup)?;
        }
        if ready.writable {
            write::on_writable(this)?;
        }
        Ok(())
    });
    this.called.set(outer);
    result
}

impl TcpTransport {
    /// Has the processor fetch what [`on_ready`] goes to first.
    #[inline]
    pub(super) fn foresee_parts(&self, py: Python<'_>) {
        self.protocol.fetch::<2>(py);
        self.context.fetch::<1>(py);
    }

    fn slots(&self) -> [&Slot; 7] {
        let Self { event_loop, protocol, server, context, flushed, ahead, attributes, .. } = self;
        [event_loop, protocol, server, context, flushed, ahead, attributes]
    }

    /// Whether its methods are ours: a program can put others on an instance.
    pub(super) fn is_plain(&self) -> bool {
        !self.attributes.is_some()
    }

    /// Whether it is TCP, and not one of those built on it.
    pub(super) fn is_tcp(&self) -> bool {
        self.edge
    }

    /// Whether what comes in goes to the protocol now.
    pub(super) fn is_reading(&self) -> bool {
        let reading = self.reading.get();
        self.phase.get().may_read() && !reading.paused && !reading.ended
    }

    /// Looks whether something is in the outbox, after a change of it.
    pub(super) fn note_unsent(&self, py: Python<'_>) {
        self.unsent.set(self.outbox.with(py, |outbox| !outbox.is_empty()));
    }

    /// Throws away what is in the outbox.
    pub(super) fn discard(&self, py: Python<'_>) {
        let unsent = self.outbox.with(py, Outbox::take_all);
        self.unsent.set(false);
        attached(|_| drop(unsent)); // at once, in a finalizer too
    }

    /// What the driver watches the descriptor for.
    pub(super) fn watched(&self) -> Interest {
        self.watched.get()
    }

    /// The driver forgets the descriptor.
    fn unwatch(&self, py: Python<'_>) {
        self.watched.set(Interest::NONE);
        let (key, event_loop) = (self.key.get(), self.event_loop.get(py));
        self.key.set(None);
        if let (Some(key), Some(event_loop)) = (key, event_loop.as_ref().and_then(EventLoop::of)) {
            drop(event_loop.forget(py, key));
        }
    }
}

impl<'py> This<'_, 'py> {
    /// Makes the driver watch for what the transport wants now.
    pub(super) fn watch(self) -> PyResult<()> {
        let py = self.py();
        let read =
            if self.is_reading() && self.reading.get().started { Interest::READ } else { Interest::NONE };
        let sending = !self.phase.get().is_lost() && self.unsent.get();
        let wanted = match (sending, read.is_empty() || !self.edge) {
            (true, _) => read | Interest::WRITE,
            (false, true) => read,
            (false, false) => read | Interest::EDGE,
        };
        if wanted == self.watched.get() {
            return Ok(());
        }
        if wanted.is_empty() {
            self.unwatch(py);
            return Ok(());
        }
        let event_loop = self.event_loop.get(py);
        let Some(event_loop) = event_loop.as_ref().and_then(EventLoop::of) else { return Ok(()) };
        match self.key.get() {
            Some(key) => event_loop.rearm(py, key, wanted)?,
            None => {
                if let Some(stale) = event_loop.key_of_fd(py, self.fd) {
                    // Watched by number once and closed since: the descriptor is the transport's now.
                    drop(event_loop.forget(py, stale));
                }
                let source = Source::Tcp(self.to_owned().unbind());
                self.key.set(Some(event_loop.register(py, self.fd, wanted, source)?));
            }
        }
        self.watched.set(wanted);
        Ok(())
    }

    /// More may be there to read, and nobody will tell: looks again in the next turn. `last`: the end is there too,
    /// and the kernel has said so for the last time.
    pub(super) fn read_again(self, last: bool) -> PyResult<()> {
        if !self.watched.get().is_edge() && !self.has_ahead() {
            return Ok(());
        }
        let (py, event_loop) = (self.py(), self.event_loop.get(self.py()));
        match (self.key.get(), event_loop.as_ref().and_then(LoopCore::of)) {
            (Some(key), Some(core)) => {
                let ready = Readiness { readable: true, writable: false, hangup: last };
                core.soon(py, Job::Io(key, ready))
            }
            _ => Ok(()),
        }
    }

    /// Whether it has bytes that the kernel has no more.
    pub(super) fn has_ahead(self) -> bool {
        self.ahead.is_some()
    }

    /// The loop, if nobody can tell whether its `call_soon` was called.
    fn plain_loop<'a>(self, event_loop: &'a Bound<'py, PyAny>) -> Option<&'a LoopCore> {
        LoopCore::of(event_loop)
            .filter(|core| self.is_plain() && !core.is_debug() && !core.overrides_call_soon())
    }

    /// `loop.call_soon(callback, argument, context=…)`; where that can't be told apart, without calling it.
    pub(super) fn call_soon(
        self,
        callback: &Bound<'py, PyAny>,
        argument: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = self.py();
        let (Some(event_loop), Some(context)) = (self.event_loop.get(py), self.context.get(py)) else {
            return Ok(());
        };
        if let Some(core) = self.plain_loop(&event_loop) {
            let args = PyTuple::new(py, [argument])?;
            let handle = handles::for_job(&event_loop, callback.clone(), args, context)?;
            return core.soon(py, Job::Handle(handle.unbind()));
        }
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "context"), context)?;
        let args = PyTuple::new(py, [callback, argument])?;
        event_loop.call_method(intern!(py, "call_soon"), args, Some(&keywords)).map(drop)
    }

    /// `set_protocol(protocol)`.
    pub(super) fn set_protocol(self, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        self.receiver.set(Receiver::of(protocol)?);
        self.protocol.set(self.py(), protocol.clone());
        self.connected.set(true);
        Ok(())
    }

    /// `_start(waiter)`: the protocol knows of the connection; reading starts and the waiter is told.
    pub(super) fn start(self, waiter: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let reading = Reading { started: true, ..self.reading.get() };
        self.reading.set(reading);
        self.watch()?;
        let none = py.None().into_bound(py);
        match Fut::cast(waiter) {
            _ if waiter.is_none() => Ok(()),
            Some(future) if future.is_pending() => futures::set_result(future, none),
            Some(_) => Ok(()),
            None if waiter.call_method0(intern!(py, "cancelled"))?.is_truthy()? => Ok(()),
            None => waiter.call_method1(intern!(py, "set_result"), (none,)).map(drop),
        }
    }

    /// Something happened in the transport's life; `error` is what `connection_lost` will be told.
    pub(super) fn happened(self, happening: Happening, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.py();
        let (phase, action) = self.phase.get().on(happening, self.unsent.get());
        self.phase.set(phase);
        match action {
            Action::Nothing => Ok(()),
            Action::ShutWrite => stream::shutdown_write(self.fd).map_err(|e| os_error(&e)),
            Action::StopReading => self.watch(),
            Action::End | Action::Discard => {
                self.discard(py); // empty already when it ends in peace
                self.watch()?;
                let none = py.None().into_bound(py);
                let error = error.unwrap_or(&none);
                let event_loop = self.event_loop.get(py);
                if let Some(core) = event_loop.as_ref().and_then(|event_loop| self.plain_loop(event_loop)) {
                    let transport = self.to_owned().unbind();
                    return core.soon(py, Job::Lost { transport, error: error.clone().unbind() });
                }
                self.call_soon(&self.object().getattr(intern!(py, "_call_connection_lost"))?, error)
            }
            Action::EndNow => {
                self.watch()?;
                self.connection_lost(&py.None().into_bound(py))
            }
            Action::Release => self.release(),
        }
    }

    /// `_call_connection_lost(error)`: the last that the protocol hears.
    pub(super) fn connection_lost(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let result = match self.protocol.get(py).filter(|_| self.connected.get()) {
            Some(protocol) => self.receiver.get().connection_lost(&protocol, error),
            None => Ok(()),
        };
        let released = self.happened(Happening::Lost, None);
        result.and(released)
    }

    /// Closes the socket and lets go of everything.
    fn release(self) -> PyResult<()> {
        let py = self.py();
        self.unwatch(py);
        held::let_go(self);
        let closed = self.sock.close(py);
        self.counted.leave(py, &self.event_loop);
        drop((self.protocol.take(py), self.event_loop.take(py)));
        let detached = match self.server.take(py) {
            Some(server) => server::detach(&server, &self.object()),
            None => Ok(()),
        };
        let told = match self.flushed.get(py) {
            Some(waiter) if !waiter.call_method0(intern!(py, "done"))?.is_truthy()? => {
                let error = PyConnectionError::new_err("Connection is closed by peer").into_value(py);
                waiter.call_method1(intern!(py, "set_exception"), (error,)).map(drop)
            }
            _ => Ok(()),
        };
        closed.and(detached).and(told)
    }

    /// `_fatal_error(error, message)`: reports it and gives the connection up.
    pub(super) fn fatal(self, error: &Bound<'py, PyAny>, message: &str) -> PyResult<()> {
        let py = self.py();
        if let Some(event_loop) = self.event_loop.get(py) {
            let protocol = self.protocol.get(py);
            report::fatal(error, message, &event_loop, &self.to_owned(), protocol.as_ref())?;
        }
        self.happened(Happening::Fail, Some(error))
    }

    /// As [`fatal`](Self::fatal) for what was just raised; SystemExit and KeyboardInterrupt go on instead.
    #[cold]
    pub(super) fn failed(self, error: PyErr, message: &str) -> PyResult<()> {
        let py = self.py();
        if ends_the_loop(py, &error) {
            return Err(error);
        }
        self.fatal(error.into_value(py).bind(py).as_any(), message)
    }

    /// `logger.debug(text, self)` in debug mode.
    pub(super) fn log(self, text: &str) -> PyResult<()> {
        match self.event_loop.get(self.py()) {
            Some(event_loop) => report::debug(&event_loop, text, &[&self.to_owned()]),
            None => Ok(()),
        }
    }

    /// `pause_reading()`.
    pub(super) fn pause_reading(self) -> PyResult<()> {
        let reading = self.reading.get();
        if !self.phase.get().may_read() || reading.paused {
            return Ok(());
        }
        self.reading.set(Reading { paused: true, ..reading });
        self.watch()?;
        self.log("%r pauses reading")
    }

    /// `resume_reading()`.
    pub(super) fn resume_reading(self) -> PyResult<()> {
        let reading = self.reading.get();
        if !self.phase.get().may_read() || !reading.paused {
            return Ok(());
        }
        self.reading.set(Reading { paused: false, ..reading });
        self.watch()?;
        if self.has_ahead() {
            self.read_again(false)?;
        }
        self.log("%r resumes reading")
    }
}

/// An argument that may be missing.
pub(super) fn given<'py>(value: Option<Borrowed<'_, 'py, PyAny>>) -> Option<Bound<'py, PyAny>> {
    value.filter(|v| !v.is_none()).map(Borrowed::to_owned)
}
