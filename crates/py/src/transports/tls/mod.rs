//! TLS over a stream transport, on the caller's own `ssl.SSLContext`.
//!
//! [`Tls`] stands between a transport and a protocol: to the transport below it is the protocol (`protocol` has that
//! side), to the program there is a transport above it (`surface`). It owns the session (`engine`), what the program has
//! written and OpenSSL has not taken yet, and the state of the connection, which lives by core's `TlsPhase`. `handshake`,
//! `read`, `write` and `shutdown` do what the table says. The transport below may be any that has asyncio's methods;
//! one of ours hands its bytes over without a Python call.

mod engine;
mod handshake;
mod options;
mod protocol;
mod read;
mod shutdown;
pub(crate) mod surface;
mod write;

use std::io;

use aioxide_core::TlsPhase;
use aioxide_core::tls_phase::{TlsAction, TlsHappening};
use pyo3::exceptions::{PyConnectionResetError, PyException};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use self::engine::Engine;
pub(crate) use self::options::Options;
use self::write::Backlog;
use super::receiver::Receiver;
use super::report;
use super::sender::Sender;
use super::tcp;
use crate::errors::ends_the_loop;
use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::{Class, Find, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::layout::Fut;
use crate::ffi::scratch::Scratch;
use crate::futures::{self, is_debug};
use crate::names::{asyncio, names};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
pub(crate) type This<'a, 'py> = Inst<'a, 'py, Tls>;

/// Something went wrong where bytes go through.
const FAILED: &str = "Fatal error on SSL protocol";

/// A TLS layer. What every received and sent byte looks at comes first.
pub(crate) struct Tls {
    /// The program's protocol.
    protocol: Slot,
    /// The transport below, from `connection_made` to `connection_lost`.
    transport: Slot,
    engine: Engine,
    phase: Flag<TlsPhase>,
    /// What the program's protocol is.
    receiver: Flag<Receiver>,
    app: Flag<App>,
    pauses: Flag<Pauses>,
    /// The transport below has come to the end of the peer's stream.
    peer_ended: Flag<bool>,
    backlog: GilCell<Backlog>,
    /// From where on the program is asked to pause writing, and the transport below to pause reading.
    write_marks: Flag<Marks>,
    read_marks: Flag<Marks>,
    /// How many writes went nowhere.
    lost_writes: Flag<u32>,
    event_loop: Slot,
    /// The transport above, until the connection is lost.
    app_transport: Slot,
    /// The future of whoever waits for the handshake.
    waiter: Slot,
    context: Slot,
    server_hostname: Slot,
    /// The dict behind `get_extra_info`.
    extra: Slot,
    handshake_timeout: Slot,
    shutdown_timeout: Slot,
    /// The handles of the two timeouts, while they run.
    handshake_timer: Slot,
    shutdown_timer: Slot,
    handshake_start: Flag<f64>,
    /// What a transport without a native way receives into.
    landing: Slot,
    server_side: bool,
    /// A server's connection: nobody waits for its handshake.
    accepted: bool,
}

/// What the program's protocol has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum App {
    /// Nothing.
    Unaware,
    /// `connection_made`, by us or before there was TLS.
    Connected,
    /// `eof_received`.
    Ended,
    /// `connection_lost`.
    Lost,
}

/// Who has been asked to wait.
#[allow(clippy::struct_excessive_bools, reason = "two directions on two sides, each on its own")]
#[derive(Clone, Copy, Debug, Default)]
struct Pauses {
    /// The program does not want data.
    reading: bool,
    /// The program was asked not to write.
    writing: bool,
    /// The transport below was asked not to read.
    below_reading: bool,
    /// The transport below asks for no more.
    below_writing: bool,
}

/// Water marks, as asyncio's TLS layer has them.
#[derive(Clone, Copy, Debug)]
struct Marks {
    low: usize,
    high: usize,
}

impl Class for Tls {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.SSLProtocol";
    const PYTHON_BASE: bool = true;
    const STANDS_FOR: Option<Find> =
        Some(|py| asyncio(py).sslproto.bind(py).getattr(intern!(py, "SSLProtocol")));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.slots().into_iter().try_for_each(|slot| slot.traverse(visit))?;
        self.engine.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        for slot in self.slots() {
            drop(slot.take(py));
        }
        self.forget_backlog(py);
        self.engine.clear(py);
    }
}

impl Tls {
    fn slots(&self) -> [&Slot; 13] {
        [
            &self.protocol,
            &self.transport,
            &self.event_loop,
            &self.app_transport,
            &self.waiter,
            &self.context,
            &self.server_hostname,
            &self.extra,
            &self.handshake_timeout,
            &self.shutdown_timeout,
            &self.handshake_timer,
            &self.shutdown_timer,
            &self.landing,
        ]
    }

    fn pause(&self, change: impl FnOnce(&mut Pauses)) {
        let mut pauses = self.pauses.get();
        change(&mut pauses);
        self.pauses.set(pauses);
    }
}

/// What a layer is made of.
pub(crate) struct Parts<'a, 'py> {
    pub(crate) event_loop: &'a Bound<'py, PyAny>,
    pub(crate) protocol: &'a Bound<'py, PyAny>,
    /// Completed once the handshake is done.
    pub(crate) waiter: Option<&'a Bound<'py, PyAny>>,
    pub(crate) options: &'a Options,
    /// The protocol knows of the connection: it was there before TLS.
    pub(crate) upgrade: bool,
    /// A server's connection.
    pub(crate) accepted: bool,
}

/// Makes a layer: the protocol for the transport below, and the transport for the program. It starts when it is told
/// `connection_made`.
pub(crate) fn make<'py>(parts: Parts<'_, 'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let Parts { event_loop, protocol, waiter, options, upgrade, accepted } = parts;
    let py = event_loop.py();
    let checked = options.check(py)?;
    let engine = Engine::new(&checked, options.server_side)?;
    let extra = PyDict::new(py);
    extra.set_item(intern!(py, "sslcontext"), &checked.context)?;
    let constants = asyncio(py).constants.bind(py);
    let marks = |name: &str| -> PyResult<Marks> {
        let high = constants.getattr(name)?.extract::<usize>()? * 1024;
        Ok(Marks { low: high / 4, high })
    };
    let value = Tls {
        protocol: Slot::holding(protocol.clone().unbind()),
        transport: Slot::empty(),
        engine,
        phase: Flag::new(TlsPhase::Fresh),
        receiver: Flag::new(Receiver::of(protocol)?),
        app: Flag::new(if upgrade { App::Connected } else { App::Unaware }),
        pauses: Flag::new(Pauses::default()),
        peer_ended: Flag::new(false),
        backlog: GilCell::new(Backlog::default()),
        write_marks: Flag::new(marks("FLOW_CONTROL_HIGH_WATER_SSL_WRITE")?),
        read_marks: Flag::new(marks("FLOW_CONTROL_HIGH_WATER_SSL_READ")?),
        lost_writes: Flag::new(0),
        event_loop: Slot::holding(event_loop.clone().unbind()),
        app_transport: Slot::empty(),
        waiter: Slot::new(waiter.map(|waiter| waiter.clone().unbind())),
        context: Slot::holding(checked.context.unbind()),
        server_hostname: Slot::new(checked.server_hostname.map(Bound::unbind)),
        extra: Slot::holding(extra.into_any().unbind()),
        handshake_timeout: Slot::holding(checked.handshake_timeout.unbind()),
        shutdown_timeout: Slot::holding(checked.shutdown_timeout.unbind()),
        handshake_timer: Slot::empty(),
        shutdown_timer: Slot::empty(),
        handshake_start: Flag::new(f64::NAN),
        landing: Slot::empty(),
        server_side: options.server_side,
        accepted,
    };
    let object = create(py, value)?;
    let transport = surface::make(&object, event_loop)?;
    if let Some(this) = This::cast_exact(&object) {
        this.app_transport.set(py, transport.clone());
    }
    Ok((object, transport))
}

/// A transport with TLS for a socket; `parts` are those of the transport below, with the program's protocol and waiter.
pub(crate) fn over_socket<'py>(parts: tcp::Parts<'_, 'py>, options: &Options) -> Object<'py> {
    let (layer, transport) = make(Parts {
        event_loop: parts.event_loop,
        protocol: parts.protocol,
        waiter: parts.waiter,
        options,
        upgrade: false,
        accepted: parts.waiter.is_none(),
    })?;
    match tcp::make(tcp::Parts { protocol: &layer, waiter: None, ..parts }) {
        Ok(_) => Ok(transport),
        Err(error) => {
            discard(&layer)?;
            Err(error)
        }
    }
}

/// Lets go of a layer that came to nothing: its two halves hold each other.
fn discard(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let Some(this) = This::cast_exact(object) else { return Ok(()) };
    drop(this.waiter.take(object.py()));
    this.connection_lost(&crate::names::none(object.py()))
}

/// Takes encrypted bytes that were received before there was a layer.
pub(crate) fn feed<'py>(object: &Bound<'py, PyAny>, bytes: &Bound<'py, PyAny>) -> PyResult<()> {
    This::cast_exact(object).map_or(Ok(()), |this| this.engine.feed(bytes))
}

/// Receives encrypted bytes from whatever `receive` gets them from, which runs no Python code. Tell [`received`] of them.
#[inline]
pub(crate) fn receive(
    this: This<'_, '_>,
    receive: impl FnOnce(&mut [u8]) -> io::Result<usize>,
) -> PyResult<io::Result<usize>> {
    let mut scratch = Scratch::take(this.py())?;
    let got = scratch.fill(receive)?;
    if let Ok(length @ 1..) = got {
        this.engine.feed(scratch.window(0, length))?;
    }
    Ok(got)
}

impl<'py> This<'_, 'py> {
    /// Something happened to the layer.
    fn happened(self, happening: TlsHappening) -> PyResult<()> {
        let (phase, action) = self.phase.get().on(happening, self.pauses.get().reading);
        self.phase.set(phase);
        match action {
            TlsAction::Nothing => Ok(()),
            TlsAction::Begin => handshake::begin(self),
            TlsAction::Shake => handshake::go_on(self),
            TlsAction::Reset => handshake::complete(self, Err(PyConnectionResetError::new_err(()))),
            TlsAction::Read => read::read(self),
            TlsAction::Flush { timed } => shutdown::flush(self, timed),
            TlsAction::Drain => shutdown::drain(self),
            TlsAction::Shut => shutdown::shut(self),
            TlsAction::Abort => self.force_close(None),
        }
    }

    /// Encrypted bytes have been fed to the session.
    #[inline]
    pub(crate) fn received(self) -> PyResult<()> {
        self.happened(TlsHappening::Received)
    }

    /// Encrypted bytes have come in.
    pub(super) fn data_received(self, data: &Bound<'py, PyAny>) -> PyResult<()> {
        self.engine.feed(data)?;
        self.received()
    }

    /// The transport below asks for no more for now.
    pub(super) fn pause_writing(self) -> PyResult<()> {
        self.pause(|pauses| pauses.below_writing = true);
        Ok(())
    }

    /// The transport below takes more.
    pub(super) fn resume_writing(self) -> PyResult<()> {
        self.pause(|pauses| pauses.below_writing = false);
        write::send_owed(self)
    }

    /// The transport below is connected.
    pub(super) fn connection_made(self, transport: &Bound<'py, PyAny>) -> PyResult<()> {
        self.transport.set(self.py(), transport.clone());
        self.happened(TlsHappening::Start)
    }

    /// The transport below has come to the end of the peer's stream: whether it stays open, for a program that has yet
    /// to read what came before.
    pub(super) fn eof_received(self) -> PyResult<bool> {
        let (py, before) = (self.py(), self.phase.get());
        self.peer_ended.set(true);
        let waits = before == TlsPhase::Wrapped && self.pauses.get().reading;
        let result = self.log("%r received EOF").and_then(|()| self.happened(TlsHappening::PeerEnded));
        if result.is_err()
            && let Some(transport) = self.transport.get(py)
        {
            Sender::of(&transport).close()?;
        }
        result.map(|()| waits)
    }

    /// The transport below is gone.
    pub(super) fn connection_lost(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        self.forget_backlog(py);
        let owed = self.engine.drain(py).map(drop);
        self.lost_writes.set(self.lost_writes.get() + 1);
        let app_transport = self.app_transport.take(py);
        if let Some(transport) = &app_transport {
            surface::mark_closed(transport);
        }
        let shaking = matches!(self.phase.get(), TlsPhase::Fresh | TlsPhase::Handshaking);
        let protocol = self.protocol.take(py);
        let told = match (self.app.get(), &protocol, self.event_loop.get(py)) {
            // In the handshake too, if it had a connection before that: asyncio leaves it waiting then.
            (App::Connected | App::Ended, Some(protocol), Some(event_loop)) => {
                self.app.set(App::Lost);
                let callback = protocol.getattr(intern!(py, "connection_lost"));
                callback.and_then(|callback| soon(&event_loop, &callback, Some(error)))
            }
            _ => Ok(()),
        };
        self.phase.set(TlsPhase::Ended);
        drop((self.transport.take(py), self.landing.take(py)));
        let woken = self.wake((!error.is_none()).then_some(error));
        let stopped = self.stop_timer(&self.shutdown_timer).and(self.stop_timer(&self.handshake_timer));
        owed.and(told).and(woken).and(stopped)?;
        if shaking && !error.is_none() {
            return handshake::report_accepted(self, error, protocol.as_ref(), app_transport.as_ref());
        }
        Ok(())
    }

    /// Completes the future of whoever waits for the handshake.
    fn wake(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.py();
        let Some(waiter) = self.waiter.take(py) else { return Ok(()) };
        match (Fut::cast(&waiter), error) {
            (Some(future), _) if !future.is_pending() => Ok(()),
            (Some(future), Some(error)) => futures::set_exception(future, error),
            (Some(future), None) => futures::set_result(future, crate::names::none(py)),
            (None, _) if waiter.call_method0(intern!(py, "done"))?.is_truthy()? => Ok(()),
            (None, Some(error)) => waiter.call_method1(intern!(py, "set_exception"), (error,)).map(drop),
            (None, None) => waiter.call_method1(intern!(py, "set_result"), (py.None(),)).map(drop),
        }
    }

    /// `loop.call_later(timeout, self.<method>)`, kept in `timer`.
    fn start_timer(self, timer: &Slot, timeout: &Slot, method: &str) -> PyResult<()> {
        let py = self.py();
        let (Some(event_loop), Some(timeout)) = (self.event_loop.get(py), timeout.get(py)) else {
            return Ok(());
        };
        let callback = self.object().getattr(method)?;
        let handle = event_loop.call_method1(intern!(py, "call_later"), (timeout, callback))?;
        timer.set(py, handle);
        Ok(())
    }

    fn stop_timer(self, timer: &Slot) -> PyResult<()> {
        let py = self.py();
        timer.take(py).map_or(Ok(()), |handle| handle.call_method0(intern!(py, "cancel")).map(drop))
    }

    /// Gives up the transport below, at once.
    fn force_close(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        match self.transport.get(self.py()) {
            Some(transport) => Sender::of(&transport).force_close(error),
            None => Ok(()),
        }
    }

    /// `abort()`, with what `connection_lost` is to be told.
    pub(super) fn abort(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        self.happened(TlsHappening::End)?;
        self.force_close(error)
    }

    /// Gives up the connection and reports why, if that is worth it.
    pub(super) fn fatal(self, error: &Bound<'py, PyAny>, message: &str) -> PyResult<()> {
        let py = self.py();
        let transport = self.transport.get(py);
        self.force_close(Some(error))?;
        let cancelled = error.is_instance(names(py).cancelled_error.bind(py))?;
        match self.event_loop.get(py) {
            Some(event_loop) if !cancelled => {
                let none = crate::names::none(py);
                let transport = transport.as_ref().unwrap_or(&none);
                report::fatal(error, message, &event_loop, transport, Some(&self.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// As [`fatal`](Self::fatal), for what was just raised; what is no `Exception` goes on instead.
    #[cold]
    fn failed(self, error: PyErr, message: &str) -> PyResult<()> {
        let py = self.py();
        if ends_the_loop(py, &error) || !error.is_instance_of::<PyException>(py) {
            return Err(error);
        }
        self.fatal(error.into_value(py).bind(py).as_any(), message)
    }

    /// `logger.debug(text, self)` in debug mode.
    fn log(self, text: &str) -> PyResult<()> {
        match self.event_loop.get(self.py()) {
            Some(event_loop) if is_debug(&event_loop)? => {
                report::debug(&event_loop, text, &[&self.to_owned()])
            }
            _ => Ok(()),
        }
    }

    /// `set_protocol(protocol)` of the transport above.
    fn set_protocol(self, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        self.receiver.set(Receiver::of(protocol)?);
        self.protocol.set(self.py(), protocol.clone());
        Ok(())
    }

    /// `get_extra_info(name, default)`: what TLS knows, else what the transport below does.
    fn extra_info(self, name: &Bound<'py, PyAny>, default: Bound<'py, PyAny>) -> Object<'py> {
        let py = self.py();
        if let Some(extra) = self.extra.get(py)
            && extra.contains(name)?
        {
            return extra.get_item(name);
        }
        match self.transport.get(py) {
            Some(transport) => transport.call_method1(intern!(py, "get_extra_info"), (name, default)),
            None => Ok(default),
        }
    }
}

/// `loop.call_soon(callback)`, or with one argument.
fn soon<'py>(
    event_loop: &Bound<'py, PyAny>,
    callback: &Bound<'py, PyAny>,
    argument: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let args: Vec<_> = std::iter::once(callback).chain(argument).collect();
    let args = PyTuple::new(event_loop.py(), args)?;
    event_loop.call_method1(intern!(event_loop.py(), "call_soon"), args).map(drop)
}

/// Makes the types.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    protocol::register(module)?;
    surface::register(module)
}
