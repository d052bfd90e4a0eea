//! The coroutines behind `sock_recv`, `sock_sendall` and their kin: one native awaitable for all of them.
//!
//! Each tries at once and otherwise waits until the descriptor is ready and tries again. The operation is only done
//! when the waiting task runs, so a cancelled one never takes bytes that nobody gets. Made by sockets.rs.

use std::io::ErrorKind;
use std::os::fd::RawFd;

use aioxide_sys::stream;
use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyInt;

use super::readers::{self, Direction};
use super::sockets::{check_ssl_socket, is_plain};
use crate::errors::os_error;
use crate::ffi::buffer;
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::iter::{Awaitable, Coroutine, Life, Step, reused, warn_never_awaited};
use crate::ffi::spares::Spares;
use crate::futures::{self, is_debug};
use crate::names::none;
use crate::parked::Parked;
use crate::transports::read;

type This<'a, 'py> = Inst<'a, 'py, SockOp>;
type Object<'py> = PyResult<Bound<'py, PyAny>>;
/// What an attempt gave: a result, or nothing yet.
type Attempt<'py> = PyResult<Option<Bound<'py, PyAny>>>;

/// Which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Recv,
    RecvInto,
    RecvFrom,
    RecvFromInto,
    SendAll,
    SendTo,
    Accept,
}

impl Kind {
    const fn direction(self) -> Direction {
        match self {
            Self::SendAll | Self::SendTo => Direction::Write,
            Self::Recv | Self::RecvInto | Self::RecvFrom | Self::RecvFromInto | Self::Accept => {
                Direction::Read
            }
        }
    }
}

/// One call of `sock_recv` or the like.
pub(super) struct SockOp {
    kind: Kind,
    life: Flag<Life>,
    /// Exactly a `socket.socket`: the system is called directly.
    is_plain: Flag<bool>,
    /// Where it waits.
    fd: Flag<RawFd>,
    /// How much of the data has gone.
    sent: Flag<usize>,
    event_loop: Slot,
    sock: Slot,
    /// The first argument: data, a buffer, a number of bytes.
    first: Slot,
    /// The second: an address, a number of bytes.
    second: Slot,
    parked: Parked,
}

impl Class for SockOp {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.SocketOperation";
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
        self.event_loop.traverse(visit)?;
        self.sock.traverse(visit)?;
        self.first.traverse(visit)?;
        self.second.traverse(visit)?;
        self.parked.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.leave(py);
        self.end(py);
    }

    fn wants_finalize(&self) -> bool {
        self.life.get() == Life::Created
    }

    fn finalize(this: This<'_, '_>) {
        if this.wants_finalize() {
            warn_never_awaited(&this.object());
        }
    }
}

/// Makes the coroutine of one call.
#[inline]
pub(super) fn make<'py>(
    event_loop: &Bound<'py, PyAny>,
    kind: Kind,
    sock: Bound<'py, PyAny>,
    first: Option<Bound<'py, PyAny>>,
    second: Option<Bound<'py, PyAny>>,
) -> Object<'py> {
    let op = SockOp {
        kind,
        life: Flag::new(Life::Created),
        is_plain: Flag::new(false),
        fd: Flag::new(-1),
        sent: Flag::new(0),
        event_loop: Slot::holding(event_loop.clone().unbind()),
        sock: Slot::holding(sock.unbind()),
        first: Slot::new(first.map(Bound::unbind)),
        second: Slot::new(second.map(Bound::unbind)),
        parked: Parked::new(),
    };
    create(event_loop.py(), op)
}

impl SockOp {
    /// Over, whatever way.
    fn end(&self, py: Python<'_>) {
        self.life.set(Life::Closed);
        drop((self.event_loop.take(py), self.sock.take(py), self.first.take(py), self.second.take(py)));
    }

    /// Waits no more, and nobody tells it of the descriptor any more.
    fn leave(&self, py: Python<'_>) {
        let (Some(future), Some(event_loop)) = (self.parked.leave(py), self.event_loop.get(py)) else {
            return;
        };
        readers::drop_future(&event_loop, self.fd.get(), self.kind.direction(), &future);
    }

    /// What asyncio checks first.
    #[inline]
    fn check(&self, event_loop: &Bound<'_, PyAny>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
        self.is_plain.set(is_plain(sock));
        if !self.is_plain.get() {
            check_ssl_socket(sock)?;
        }
        if is_debug(event_loop)? && !sock.call_method0(intern!(sock.py(), "gettimeout"))?.eq(0)? {
            return Err(PyValueError::new_err("the socket must be non-blocking"));
        }
        Ok(())
    }

    /// Tries, and waits if it is too early.
    #[inline]
    fn go_on<'py>(&self, event_loop: &Bound<'py, PyAny>, sock: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        if let Some(result) = self.attempt(sock)? {
            return Ok(Step::Return(result));
        }
        let fd = readers::ensure_fd_no_transport(event_loop, sock)?;
        self.fd.set(fd);
        let future = futures::new(event_loop)?;
        let direction = self.kind.direction();
        if self.is_plain.get() {
            readers::add_edge_future(event_loop, sock, fd, direction, &future)?;
        } else {
            readers::add_future(event_loop, fd, direction, &future)?;
        }
        self.life.set(Life::Suspended);
        self.parked.wait(future)
    }

    fn argument<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.first.get(py).unwrap_or_else(|| none(py))
    }

    fn attempt<'py>(&self, sock: &Bound<'py, PyAny>) -> Attempt<'py> {
        let py = sock.py();
        let plain = self.is_plain.get();
        match self.kind {
            Kind::Recv => {
                let number = self.argument(py);
                match number.extract::<usize>() {
                    Ok(most) if plain && most <= read::MOST => {
                        let fd = fileno(sock)?;
                        Ok(called(|| Ok(read::receive(py, fd, most)))?.map(Bound::into_any))
                    }
                    _ => tried(sock.call_method1(intern!(py, "recv"), (number,))),
                }
            }
            Kind::RecvInto if plain => {
                let fd = fileno(sock)?;
                let memory = self.argument(py);
                let got = called(|| buffer::write(&memory, |bytes| stream::recv(fd, bytes)))?;
                Ok(got.map(|length| PyInt::new(py, length).into_any()))
            }
            Kind::RecvInto => tried(sock.call_method1(intern!(py, "recv_into"), (self.argument(py),))),
            Kind::RecvFrom => tried(sock.call_method1(intern!(py, "recvfrom"), (self.argument(py),))),
            Kind::RecvFromInto => {
                let memory = self.argument(py);
                let given = self.second.get(py).map_or(Ok(false), |number| number.is_truthy())?;
                let length = match self.second.get(py) {
                    Some(number) if given => number,
                    _ => PyInt::new(py, memory.len()?).into_any(),
                };
                tried(sock.call_method1(intern!(py, "recvfrom_into"), (memory, length)))
            }
            Kind::SendAll => self.send_more(sock, plain),
            Kind::SendTo => {
                let (data, to) = (self.argument(py), self.second.get(py));
                tried(sock.call_method1(intern!(py, "sendto"), (data, to)))
            }
            Kind::Accept => {
                let Some(pair) = tried(sock.call_method0(intern!(py, "accept")))? else { return Ok(None) };
                pair.get_item(0)?.call_method1(intern!(py, "setblocking"), (false,))?;
                Ok(Some(pair))
            }
        }
    }

    /// Sends what the socket takes of the rest.
    #[inline]
    fn send_more<'py>(&self, sock: &Bound<'py, PyAny>, plain: bool) -> Attempt<'py> {
        let (py, data) = (sock.py(), self.argument(sock.py()));
        let start = self.sent.get();
        let (sent, length) = if plain {
            let fd = fileno(sock)?;
            let send = |bytes: &[u8]| stream::send(fd, bytes.get(start..).unwrap_or_default());
            let length = buffer::read(&data, <[u8]>::len)?;
            (called(|| buffer::read(&data, send))?, length)
        } else {
            let length = data.len()?;
            let rest = if start == 0 { data } else { buffer::part(&data, start, length)? };
            let sent = tried(sock.call_method1(intern!(py, "send"), (rest,)))?;
            (sent.map(|sent| sent.extract()).transpose()?, length)
        };
        let sent = start + sent.unwrap_or(0);
        self.sent.set(sent);
        Ok((sent >= length).then(|| none(py)))
    }

    #[inline]
    fn settle<'py>(&self, py: Python<'py>, step: PyResult<Step<'py>>) -> PyResult<Step<'py>> {
        if !matches!(step, Ok(Step::Yield(_))) {
            self.end(py);
        }
        step
    }
}

#[inline]
pub(super) fn fileno(sock: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    sock.call_method0(intern!(sock.py(), "fileno"))?.extract()
}

/// The result of a socket method; nothing when it would have blocked.
pub(super) fn tried(result: Object<'_>) -> Attempt<'_> {
    result.map(Some).or_else(|error| {
        crate::async_fn::attached(|py| {
            let later = error.is_instance_of::<PyBlockingIOError>(py)
                || error.is_instance_of::<PyInterruptedError>(py);
            if later { Ok(None) } else { Err(error) }
        })
    })
}

/// As [`tried`], for a call of the system. An interrupted one is made again: the descriptor may not become "ready" once
/// more.
#[inline]
fn called<T>(mut call: impl FnMut() -> PyResult<std::io::Result<T>>) -> PyResult<Option<T>> {
    loop {
        match call()? {
            Ok(value) => return Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(os_error(&error)),
        }
    }
}

impl Awaitable for SockOp {
    #[inline]
    fn resume<'py>(this: This<'_, 'py>) -> PyResult<Step<'py>> {
        let py = this.py();
        let life = this.life.get();
        let (Some(event_loop), Some(sock)) = (this.event_loop.get(py), this.sock.get(py)) else {
            return Err(reused());
        };
        let ready = match life {
            Life::Created => this.check(&event_loop, &sock),
            Life::Suspended => {
                let outcome = this.parked.outcome(py).map(drop);
                match outcome {
                    Ok(()) => drop(this.parked.leave(py)), // who told it has forgotten it
                    Err(_) => this.leave(py),
                }
                outcome
            }
            Life::Running | Life::Closed => return Err(reused()),
        };
        let step = ready.and_then(|()| this.go_on(&event_loop, &sock));
        this.settle(py, step)
    }

    fn throw<'py>(this: This<'_, 'py>, error: PyErr) -> PyResult<Step<'py>> {
        if this.life.get() == Life::Closed {
            return Err(reused());
        }
        this.leave(this.py());
        this.end(this.py());
        Err(error)
    }

    fn close(this: This<'_, '_>) -> PyResult<()> {
        this.leave(this.py());
        this.end(this.py());
        Ok(())
    }
}

impl Coroutine for SockOp {
    fn qualname(this: This<'_, '_>) -> &'static str {
        match this.kind {
            Kind::Recv => "BaseSelectorEventLoop.sock_recv",
            Kind::RecvInto => "BaseSelectorEventLoop.sock_recv_into",
            Kind::RecvFrom => "BaseSelectorEventLoop.sock_recvfrom",
            Kind::RecvFromInto => "BaseSelectorEventLoop.sock_recvfrom_into",
            Kind::SendAll => "BaseSelectorEventLoop.sock_sendall",
            Kind::SendTo => "BaseSelectorEventLoop.sock_sendto",
            Kind::Accept => "BaseSelectorEventLoop.sock_accept",
        }
    }

    fn life(this: This<'_, '_>) -> Life {
        this.life.get()
    }

    fn awaited<'py>(this: This<'_, 'py>) -> Option<Bound<'py, PyAny>> {
        this.parked.future(this.py())
    }
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<SockOp>().coroutine::<SockOp>().build(module, None, SockOp::cell())?;
    Ok(())
}
