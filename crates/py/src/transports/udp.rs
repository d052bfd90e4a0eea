//! The datagram transport: UDP, Unix datagrams and any other kind; what `create_datagram_endpoint` makes.
//!
//! Datagrams of IP sockets are received several at a time and sent without the socket object; everything else goes
//! through its methods, so that addresses of every family mean what they mean to Python. addresses.rs knows how the
//! others look. What the kernel does not take waits in core's `Packets`.

use std::cell::Cell;

use aioxide_core::phase::Happening;
use aioxide_core::{Flow, Packets};
use aioxide_sys::socket::{self, DATAGRAMS_ROOM, Datagrams};
use aioxide_sys::{Address, Interest, Landing, Raw, stream};
use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyInt, PyMemoryView, PyString};

use super::addresses::Addresses;
use super::base::{self, Base, Based};
use super::read::{self, is_later};
use super::{Source, flow, owned, report};
use crate::async_fn::attached;
use crate::errors::{ends_the_loop, os_error};
use crate::event_loop::{EventLoop, hooks, readers, sockets};
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::buffer;
use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::{Class, Find, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{Of, anyargs, getter, noargs, unary};
use crate::names::{asyncio, boolean, none};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
pub(super) type This<'a, 'py> = Inst<'a, 'py, Datagram>;

const SEND_FAILED: &str = "Fatal write error on datagram transport";

/// A datagram that waits, and where it goes: nowhere in particular on a connected socket.
#[derive(Debug)]
pub(super) struct Packet {
    data: Py<PyBytes>,
    to: Option<Py<PyAny>>,
}

/// A datagram transport.
pub(crate) struct Datagram {
    pub(super) base: Base,
    /// The only address to send to, if there is one.
    pub(super) address: Slot,
    /// The kernel knows the peer.
    connected: bool,
    /// The kernel knows the peer, which has no name: the other end of a `socket.socketpair()`.
    paired: bool,
    /// A plain IP socket: no need to go through its methods.
    direct: bool,
    pub(super) packets: GilCell<Packets<Packet>>,
    addresses: Addresses,
    /// Once the socket is lost: the send that failed, and those since.
    pub(super) lost_writes: Flag<u32>,
}

impl Class for Datagram {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.SocketDatagramTransport";
    const INHERITED: usize = 1; // asyncio.BaseTransport's `_extra`
    const DICT: Option<usize> =
        Some(std::mem::offset_of!(Self, base) + std::mem::offset_of!(Base, attributes));
    const STANDS_FOR: Option<Find> =
        Some(|py| asyncio(py).selector_events.bind(py).getattr(intern!(py, "_SelectorDatagramTransport")));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.base.traverse(visit)?;
        self.address.traverse(visit)?;
        self.addresses.traverse(visit)?;
        let packets = |packets: &Packets<Packet>| packets.iter().try_for_each(|p| visit.call(p.to.as_ref()));
        self.packets.visit(packets).unwrap_or(Ok(()))
    }

    fn clear(&self, py: Python<'_>) {
        self.base.clear(py);
        drop(self.address.take(py));
        self.addresses.clear(py);
        self.discard(py);
    }

    fn finalize(this: This<'_, '_>) {
        base::finalize(this);
    }

    fn wants_finalize(&self) -> bool {
        self.base.file.is_some()
    }
}

impl Based for Datagram {
    fn base(&self) -> &Base {
        &self.base
    }

    fn source(transport: Py<PyAny>) -> Source {
        Source::Datagram(transport)
    }

    fn wanted(&self) -> Interest {
        let phase = self.base.phase.get();
        let read = if self.base.started.get() && phase.may_read() { Interest::READ } else { Interest::NONE };
        let unsent = !phase.is_lost() && self.has_unsent();
        if unsent { read | Interest::WRITE } else { read }
    }

    fn has_unsent(&self) -> bool {
        self.packets.visit(|packets| !packets.is_empty()).unwrap_or(false)
    }

    fn discard(&self, py: Python<'_>) {
        let unsent = self.packets.with(py, Packets::take_all);
        attached(|_| drop(unsent)); // at once, in a finalizer too
    }
}

/// Makes a transport. The protocol is told in the next turn, and then receiving starts and the waiter is completed.
pub(crate) fn make<'py>(
    event_loop: &Bound<'py, PyAny>,
    sock: &Bound<'py, PyAny>,
    protocol: &Bound<'py, PyAny>,
    address: Option<Bound<'py, PyAny>>,
    waiter: Option<&Bound<'py, PyAny>>,
) -> Object<'py> {
    let py = sock.py();
    readers::ensure_fd_no_transport(event_loop, sock)?;
    let fd = sock.call_method0(intern!(py, "fileno"))?.extract()?;
    let extra = owned::describe(sock, None)?;
    let peername = extra.get_item(intern!(py, "peername"))?;
    let connected = peername.as_ref().map_or(Ok(false), |name| name.is_truthy())?;
    let family = sockets::plain_ip(sock)?;
    let value = Datagram {
        base: Base::new(event_loop, protocol, sock, fd)?,
        address: Slot::new(address.map(Bound::unbind)),
        connected,
        paired: !connected && peername.is_some_and(|name| !name.is_none()),
        direct: family.is_some(),
        packets: GilCell::new(Packets::new()),
        addresses: Addresses::new(family == Some(sockets::Ip::V6)),
        lost_writes: Flag::new(1),
    };
    let object = create(py, value)?;
    object.setattr(intern!(py, "_extra"), extra)?;
    base::begin::<Datagram>(&object, waiter)?;
    Ok(object)
}

// --- receiving -----------------------------------------------------------------------------------

/// The descriptor is ready.
pub(super) fn on_ready(
    event_loop: &Bound<'_, EventLoop>,
    this: This<'_, '_>,
    ready: aioxide_sys::Readiness,
) -> PyResult<()> {
    base::in_context(this, || {
        if ready.readable && this.base.phase.get().may_read() {
            if this.direct { receive_many(event_loop, this)? } else { receive_one(this)? }
        }
        if ready.writable { flush(this) } else { Ok(()) }
    })
}

/// Where datagrams land.
struct Scratch {
    memory: Landing,
    got: Datagrams,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { memory: Landing::new(DATAGRAMS_ROOM), got: Datagrams::new() }
    }
}

/// As many datagrams as one call of the system gives.
fn receive_many(event_loop: &Bound<'_, EventLoop>, this: This<'_, '_>) -> PyResult<()> {
    thread_local! {
        /// Those of all transports of a thread in one place; whoever delivers has it for so long.
        static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
    }
    let mut scratch = SCRATCH.take().unwrap_or_default();
    let Scratch { memory, got } = &mut *scratch;
    let told = match socket::recv_datagrams(Raw(this.base.fd), memory, got) {
        Ok(()) => got.iter(memory).try_for_each(|(data, sender)| deliver(event_loop, this, data, sender)),
        Err(error) if is_later(error.kind()) => Ok(()),
        Err(error) => error_received(this, &os_error(&error)),
    };
    SCRATCH.set(Some(scratch));
    told
}

fn deliver(
    event_loop: &Bound<'_, EventLoop>,
    this: This<'_, '_>,
    data: &[u8],
    sender: Option<&Address>,
) -> PyResult<()> {
    let py = this.py();
    let Some(protocol) = this.base.protocol.get(py).filter(|_| this.base.phase.get().may_read()) else {
        return Ok(()); // closed meanwhile: what has not been delivered is lost, as in the kernel
    };
    let (data, sender) = (buffer::received(py, data), this.addresses.show(py, sender)?);
    match protocol.call_method1(intern!(py, "datagram_received"), (data, sender)) {
        Err(error) if ends_the_loop(py, &error) => Err(error),
        Err(error) => hooks::report_stray(event_loop, error), // the others are not to suffer
        Ok(_) => Ok(()),
    }
}

/// One datagram, by the socket's own method.
fn receive_one(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    let (Some(sock), Some(protocol)) = (this.base.file.get(py), this.base.protocol.get(py)) else {
        return Ok(());
    };
    match sock.call_method1(intern!(py, "recvfrom"), (read::MOST,)) {
        Ok(pair) => {
            let (data, sender) = (pair.get_item(0)?, pair.get_item(1)?);
            protocol.call_method1(intern!(py, "datagram_received"), (data, sender)).map(drop)
        }
        Err(error) if is_later_error(py, &error) => Ok(()),
        Err(error) if error.is_instance_of::<PyOSError>(py) => error_received(this, &error),
        Err(error) => base::failed(this, error, "Fatal read error on datagram transport"),
    }
}

fn is_later_error(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyBlockingIOError>(py) || error.is_instance_of::<PyInterruptedError>(py)
}

fn error_received(this: This<'_, '_>, error: &PyErr) -> PyResult<()> {
    let py = this.py();
    match this.base.protocol.get(py) {
        Some(protocol) => protocol.call_method1(intern!(py, "error_received"), (error.value(py),)).map(drop),
        None => Ok(()),
    }
}

// --- sending -------------------------------------------------------------------------------------

/// How an attempt to send went.
enum Sent {
    Yes,
    Later,
    /// The protocol is told.
    Refused(PyErr),
    /// The transport ends.
    Failed(PyErr),
}

/// Sends one datagram, without looking at what waits.
fn send(this: This<'_, '_>, data: &Bound<'_, PyAny>, to: Option<&Bound<'_, PyAny>>) -> PyResult<Sent> {
    let py = this.py();
    if this.direct && !this.connected {
        let known = match to {
            Some(to) => this.addresses.parse(to)?,
            None => None,
        };
        if let Some(address) = known {
            let sent = buffer::read(data, |bytes| socket::sendto(Raw(this.base.fd), bytes, &address))?;
            return Ok(sorted(sent));
        }
    } else if this.direct {
        let sent = buffer::read(data, |bytes| stream::send(this.base.fd, bytes))?;
        return Ok(sorted(sent));
    }
    let Some(sock) = this.base.file.get(py) else { return Ok(Sent::Yes) };
    let sent = if this.connected || (this.paired && to.is_none()) {
        sock.call_method1(intern!(py, "send"), (data,))
    } else {
        sock.call_method1(intern!(py, "sendto"), (data, to))
    };
    match sent {
        Ok(_) => Ok(Sent::Yes),
        Err(error) if is_later_error(py, &error) => Ok(Sent::Later),
        Err(error) if error.is_instance_of::<PyOSError>(py) => Ok(Sent::Refused(error)),
        Err(error) if ends_the_loop(py, &error) => Err(error),
        Err(error) => Ok(Sent::Failed(error)),
    }
}

fn sorted(sent: std::io::Result<usize>) -> Sent {
    match sent {
        Ok(_) => Sent::Yes,
        Err(error) if is_later(error.kind()) => Sent::Later,
        Err(error) => Sent::Refused(os_error(&error)),
    }
}

/// `sendto(data, addr=None)`.
pub(super) fn sendto<'py>(
    this: This<'_, 'py>,
    data: &Bound<'py, PyAny>,
    addr: Option<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let py = this.py();
    let is_bytes = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if !is_bytes {
        let class = data.get_type().name()?.repr()?;
        return Err(PyTypeError::new_err(format!("data argument must be a bytes-like object, not {class}")));
    }
    let address = this.address.get(py);
    let to = match (&address, addr) {
        (Some(only), Some(addr)) if !addr.is(only) && addr.ne(only)? => {
            let text = format!("Invalid address: must be None or {}", only.str()?);
            return Err(PyValueError::new_err(text));
        }
        (Some(only), _) => Some(only.clone()),
        (None, addr) => addr,
    };
    let is_gone = !this.base.file.is_some() || address.is_some();
    if this.base.phase.get().is_lost() && is_gone {
        let lost = report::lost_write(py, this.lost_writes.get(), "socket.send() raised exception.")?;
        this.lost_writes.set(lost);
        return Ok(());
    }
    if !this.has_unsent() {
        match send(this, data, to.as_ref())? {
            Sent::Yes => return Ok(()),
            Sent::Later => {}
            Sent::Refused(error) => return error_received(this, &error),
            Sent::Failed(error) => return base::failed(this, error, SEND_FAILED),
        }
    }
    let data = buffer::fixed(data)?;
    let length = data.as_bytes().len();
    let packet = Packet { data: data.unbind(), to: to.map(Bound::unbind) };
    let asked = this.packets.with(py, |packets| packets.push(length, packet));
    base::watch(this)?;
    tell(this, asked)
}

/// Sends what waits.
fn flush(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    if this.base.phase.get().is_lost() {
        return Ok(());
    }
    loop {
        let first = this.packets.visit(|packets| {
            packets.first().map(|p| (p.data.clone_ref(py), p.to.as_ref().map(|to| to.clone_ref(py))))
        });
        let Some((data, to)) = first.flatten() else { break };
        let sent = send(this, data.bind(py).as_any(), to.as_ref().map(|to| to.bind(py)))?;
        if matches!(sent, Sent::Later) {
            break;
        }
        let gone = this.packets.with(py, Packets::pop);
        drop(gone);
        match sent {
            Sent::Yes | Sent::Later => {}
            Sent::Refused(error) => error_received(this, &error)?,
            Sent::Failed(error) => return base::failed(this, error, SEND_FAILED),
        }
    }
    let asked = this.packets.with(py, Packets::resume);
    tell(this, asked)?; // which may send more
    if this.has_unsent() {
        return Ok(());
    }
    base::watch(this)?;
    base::happened(this, Happening::Flushed, None)
}

/// Tells the protocol to pause or to resume.
pub(super) fn tell(this: This<'_, '_>, asked: Flow) -> PyResult<()> {
    let py = this.py();
    match (asked, this.base.event_loop.get(py), this.base.protocol.get(py)) {
        (Flow::Pause | Flow::Resume, Some(event_loop), Some(protocol)) => {
            let receiver = this.base.receiver.get();
            flow::tell(asked, receiver, &event_loop, &this.to_owned(), &protocol)
        }
        _ => Ok(()),
    }
}

// --- what Python sees ----------------------------------------------------------------------------

fn method_sendto<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "sendto",
        positional: &["data", "addr"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [data, addr] = SIGNATURE.bind::<2>(args)?;
    if let Some(data) = data {
        sendto(this, &data, given(addr))?;
    }
    Ok(none(this.py()))
}

fn set_write_buffer_limits<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "set_write_buffer_limits",
        positional: &["high", "low"],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let [high, low] = SIGNATURE.bind::<2>(args)?;
    let number = |value| given(value).map(|v| v.extract::<i64>()).transpose();
    let (high, low) = (number(high)?, number(low)?);
    let asked = this.packets.with(this.py(), |packets| packets.set_limits(high, low));
    tell(this, asked.map_err(flow::limits_error)?).map(|()| none(this.py()))
}

fn get_write_buffer_limits<'py>(this: This<'_, 'py>) -> Object<'py> {
    let limits = this.packets.with(this.py(), |packets| packets.marks().limits());
    Ok(limits.into_pyobject(this.py())?.into_any())
}

fn size(this: This<'_, '_>) -> usize {
    this.packets.with(this.py(), |packets| packets.size())
}

fn get_write_buffer_size<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), size(this)).into_any())
}

fn get_address<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.address.get(this.py()).unwrap_or_else(|| none(this.py())))
}

fn get_conn_lost<'py>(this: This<'_, 'py>) -> Object<'py> {
    let count = if this.base.phase.get().is_lost() { this.lost_writes.get() } else { 0 };
    Ok(PyInt::new(this.py(), count).into_any())
}

fn get_protocol_paused<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.packets.with(this.py(), |packets| packets.marks().is_paused())))
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let mut text = base::shown(this)?;
    if this.base.file.is_some() {
        let (read, write) = (base::polling(this, Interest::READ), base::polling(this, Interest::WRITE));
        if read != "open" {
            text.push_str(&format!(" read={read} write=<{write}, bufsize={}>", size(this)));
        }
    }
    text.push('>');
    Ok(PyString::new(this.py(), &text).into_any())
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    type Udp = Of<Datagram>;
    let builder = base::surface::<Datagram>([c"_sock", c"_sock_fd"])
        .slot(pyo3::ffi::Py_tp_repr, unary::<Udp, _>(repr))
        .method(anyargs::<Udp, _>(c"sendto", method_sendto))
        .method(noargs::<Udp, _>(c"abort", base::abort::<Datagram>))
        .method(anyargs::<Udp, _>(c"set_write_buffer_limits", set_write_buffer_limits))
        .method(noargs::<Udp, _>(c"get_write_buffer_limits", get_write_buffer_limits))
        .method(noargs::<Udp, _>(c"get_write_buffer_size", get_write_buffer_size))
        .attribute(getter::<Udp, _>(c"_address", get_address))
        .attribute(getter::<Udp, _>(c"_buffer_size", get_write_buffer_size))
        .attribute(getter::<Udp, _>(c"_conn_lost", get_conn_lost))
        .attribute(getter::<Udp, _>(c"_protocol_paused", get_protocol_paused));
    let class = base::build::<Datagram>(builder, module, &["Transport", "DatagramTransport"])?;
    module.add("SocketDatagramTransport", class)
}
