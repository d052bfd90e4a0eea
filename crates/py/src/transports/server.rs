//! `asyncio.Server` and the accepting of connections.
//!
//! Made by `create_server` (event_loop/serve.rs). Owns the listening sockets; each is a source of the driver, which
//! is forgotten before the socket is closed. It knows its connections by weak references, so that a transport that
//! nobody keeps is still found out.

use std::sync::Arc;

use aioxide_sys::{Interest, Key};
use pyo3::exceptions::{
    PyBlockingIOError, PyConnectionAbortedError, PyInterruptedError, PyOSError, PyRuntimeError,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyInt, PyList, PyString, PyTuple, PyType};
use pyo3::{Borrowed, ffi, intern};

use super::{Source, tcp};
use crate::async_fn::{self, attached};
use crate::errors::ends_the_loop;
use crate::event_loop::EventLoop;
use crate::event_loop::debug::logger;
use crate::ffi::args::Args;
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::context;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{Of, anyargs, getter, noargs, onearg, unary};
use crate::futures::is_debug;
use crate::names::names;

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type This<'a, 'py> = Inst<'a, 'py, Server>;

/// How long to leave a listening socket alone when the system is out of descriptors or memory, in seconds.
const RETRY_DELAY: f64 = 1.0;

/// A server: listening sockets, and the connections that came through them.
pub(crate) struct Server {
    event_loop: Slot,
    /// A list of sockets; nothing once the server is closed.
    sockets: Slot,
    /// A list of futures; nothing once the server is closed and its last connection is gone.
    waiters: Slot,
    /// A weakref.WeakSet of transports.
    clients: Slot,
    protocol_factory: Slot,
    /// Copied for each connection.
    context: Slot,
    /// What `serve_forever` waits for.
    forever: Slot,
    backlog: i32,
    serving: Flag<bool>,
}

impl Class for Server {
    const NAME: &'static std::ffi::CStr = c"aioxide.Server";

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

impl Server {
    fn slots(&self) -> [&Slot; 7] {
        [
            &self.event_loop,
            &self.sockets,
            &self.waiters,
            &self.clients,
            &self.protocol_factory,
            &self.context,
            &self.forever,
        ]
    }
}

/// A server that does not serve yet.
pub(crate) fn make<'py>(
    event_loop: &Bound<'py, PyAny>,
    sockets: Bound<'py, PyList>,
    protocol_factory: Bound<'py, PyAny>,
    backlog: i32,
) -> Object<'py> {
    let py = event_loop.py();
    let server = Server {
        event_loop: Slot::holding(event_loop.clone().unbind()),
        sockets: Slot::holding(sockets.into_any().unbind()),
        waiters: Slot::holding(PyList::empty(py).into_any().unbind()),
        clients: Slot::holding(py.import("weakref")?.getattr("WeakSet")?.call0()?.unbind()),
        protocol_factory: Slot::holding(protocol_factory.unbind()),
        context: Slot::holding(context::copy_current(py)?.unbind()),
        forever: Slot::empty(),
        backlog,
        serving: Flag::new(false),
    };
    create(py, server)
}

// --- listening -----------------------------------------------------------------------------------

/// A listening socket of a server, as the driver knows it.
#[derive(Debug)]
pub(crate) struct Listener {
    server: Py<PyAny>,
    sock: Py<PyAny>,
}

impl Listener {
    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        visit.call(Some(&self.server))?;
        visit.call(Some(&self.sock))
    }
}

/// Listens on every socket, if that has not been done.
pub(crate) fn start(server: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = server.py();
    let Some(this) = This::cast_exact(server) else { return Ok(()) };
    if this.serving.get() {
        return Ok(());
    }
    let Some(sockets) = this.sockets.get(py) else { return Ok(()) };
    this.serving.set(true);
    for sock in sockets.try_iter()? {
        let sock = sock?;
        sock.call_method1(intern!(py, "listen"), (this.backlog,))?;
        listen(this, &sock)?;
    }
    Ok(())
}

fn fileno(sock: &Bound<'_, PyAny>) -> PyResult<i32> {
    sock.call_method0(intern!(sock.py(), "fileno"))?.extract()
}

/// Starts accepting; also the end of a pause (`_resume`), when the server may have been closed meanwhile.
fn listen<'py>(this: This<'_, 'py>, sock: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    let (Some(event_loop), Some(sockets)) = (this.event_loop.get(py), this.sockets.get(py)) else {
        return Ok(());
    };
    let Some(event_loop) = EventLoop::of(&event_loop) else { return Ok(()) };
    if !sockets.contains(sock)? {
        return Ok(());
    }
    let fd = fileno(sock)?;
    if let Some(stale) = event_loop.key_of_fd(py, fd) {
        drop(event_loop.forget(py, stale));
    }
    let listener = Listener { server: this.to_owned().unbind(), sock: sock.clone().unbind() };
    event_loop.register(py, fd, Interest::READ, Source::Listener(Arc::new(listener))).map(drop)
}

/// Stops accepting.
fn unlisten(event_loop: &Bound<'_, PyAny>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = sock.py();
    let Some(event_loop) = EventLoop::of(event_loop) else { return Ok(()) };
    let is_ours =
        |key: &Key| matches!(event_loop.source(py, *key), Some(Source::Listener(l)) if l.sock.is(sock));
    if let Some(key) = event_loop.key_of_fd(py, fileno(sock)?).filter(is_ours) {
        drop(event_loop.forget(py, key));
    }
    Ok(())
}

// --- accepting -----------------------------------------------------------------------------------

/// The listening socket is ready: accepts what waits, at most the backlog.
pub(super) fn on_ready(event_loop: &Bound<'_, EventLoop>, listener: &Listener) -> PyResult<()> {
    let py = event_loop.py();
    let (server, sock) = (listener.server.bind(py), listener.sock.bind(py));
    let Some(this) = This::cast_exact(server) else { return Ok(()) };
    for _ in 0..=this.backlog.max(0) {
        if !this.serving.get() {
            return Ok(()); // closed by a protocol factory
        }
        let accepted = sock.call_method0(intern!(py, "accept"));
        let (conn, peername) = match accepted {
            Ok(pair) => pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?,
            Err(error) if error.is_instance_of::<PyConnectionAbortedError>(py) => continue,
            Err(error)
                if error.is_instance_of::<PyBlockingIOError>(py)
                    || error.is_instance_of::<PyInterruptedError>(py) =>
            {
                return Ok(());
            }
            Err(error) if is_out_of_resources(py, &error) => {
                return back_off(this, event_loop.as_any(), sock, error);
            }
            Err(error) => return Err(error),
        };
        if is_debug(event_loop.as_any())? {
            let text = "%r got a new connection from %r: %r";
            logger(py)?.call_method1(intern!(py, "debug"), (text, server, &peername, &conn))?;
        }
        conn.call_method1(intern!(py, "setblocking"), (false,))?;
        connected(this, event_loop.as_any(), &conn, peername)?;
    }
    Ok(())
}

fn is_out_of_resources(py: Python<'_>, error: &PyErr) -> bool {
    const KINDS: [&str; 4] = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"];
    let matches = || -> PyResult<bool> {
        let number = error.value(py).getattr(intern!(py, "errno"))?;
        let errno = py.import("errno")?;
        for kind in KINDS {
            if number.eq(errno.getattr(kind)?)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    error.is_instance_of::<PyOSError>(py) && matches().unwrap_or(false)
}

/// The kernel would report the socket as ready again and again: tells the program and waits a while.
fn back_off<'py>(
    this: This<'_, 'py>,
    event_loop: &Bound<'py, PyAny>,
    sock: &Bound<'py, PyAny>,
    error: PyErr,
) -> PyResult<()> {
    let py = this.py();
    let details = PyDict::new(py);
    details.set_item("message", "socket.accept() out of system resource")?;
    details.set_item("exception", error.into_value(py))?;
    details.set_item("socket", tcp::transport_socket(sock)?)?;
    unlisten(event_loop, sock)?;
    let resume = this.object().getattr(intern!(py, "_resume"))?;
    event_loop.call_method1(intern!(py, "call_later"), (RETRY_DELAY, resume, sock))?;
    event_loop.call_method1(intern!(py, "call_exception_handler"), (details,)).map(drop)
}

/// A new connection: its protocol and its transport, in a context of its own.
fn connected<'py>(
    this: This<'_, 'py>,
    event_loop: &Bound<'py, PyAny>,
    conn: &Bound<'py, PyAny>,
    peername: Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = this.py();
    let (Some(factory), Some(context)) = (this.protocol_factory.get(py), this.context.get(py)) else {
        return Ok(());
    };
    let context = context.call_method0(intern!(py, "copy"))?;
    let server = this.to_owned();
    let mut protocol = None;
    let made = context::run(&context, || {
        let made = factory.call0()?;
        let parts = tcp::Parts {
            event_loop,
            sock: conn,
            protocol: protocol.insert(made),
            waiter: None,
            peername: Some(peername),
            server: Some(&server),
            context: &context,
        };
        tcp::make(parts)
    });
    let Err(error) = made else { return Ok(()) };
    conn.call_method0(intern!(py, "close"))?;
    if ends_the_loop(py, &error) || !is_debug(event_loop)? {
        return if ends_the_loop(py, &error) { Err(error) } else { Ok(()) };
    }
    let details = PyDict::new(py);
    details.set_item("message", "Error on transport creation for incoming connection")?;
    details.set_item("exception", error.into_value(py))?;
    if let Some(protocol) = protocol {
        details.set_item("protocol", protocol)?;
    }
    event_loop.call_method1(intern!(py, "call_exception_handler"), (details,)).map(drop)
}

// --- methods -------------------------------------------------------------------------------------

fn none(py: Python<'_>) -> Bound<'_, PyAny> {
    py.None().into_bound(py)
}

fn held<'py>(this: This<'_, 'py>, slot: &Slot) -> Object<'py> {
    Ok(slot.get(this.py()).unwrap_or_else(|| none(this.py())))
}

fn get_loop<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.event_loop)
}

fn get_sockets_list<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.sockets)
}

fn get_waiters<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.waiters)
}

fn get_clients<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.clients)
}

fn get_protocol_factory<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.protocol_factory)
}

fn get_forever<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.forever)
}

fn get_backlog<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), this.backlog).into_any())
}

/// `sockets`: a tuple of TransportSocket.
fn get_sockets<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let Some(sockets) = this.sockets.get(py) else { return Ok(PyTuple::empty(py).into_any()) };
    let wrapped =
        sockets.try_iter()?.map(|sock| tcp::transport_socket(&sock?)).collect::<PyResult<Vec<_>>>()?;
    Ok(PyTuple::new(py, wrapped)?.into_any())
}

fn is_serving<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyBool::new(this.py(), this.serving.get()).to_owned().into_any())
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let text = format!("<{} sockets={}>", this.object().get_type().name()?, get_sockets(this)?.repr()?);
    Ok(PyString::new(py, &text).into_any())
}

fn attach<'py>(this: This<'_, 'py>, transport: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    held(this, &this.clients)?.call_method1(intern!(this.py(), "add"), (transport,))
}

fn detach<'py>(this: This<'_, 'py>, transport: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let py = this.py();
    if let Some(clients) = this.clients.get(py) {
        clients.call_method1(intern!(py, "discard"), (transport,))?;
        wake_if_over(this, &clients)?;
    }
    Ok(none(py))
}

/// Closed and without connections: whoever waits for that is told.
fn wake_if_over(this: This<'_, '_>, clients: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = this.py();
    if this.sockets.is_some() || clients.len()? != 0 {
        return Ok(());
    }
    let Some(waiters) = this.waiters.take(py) else { return Ok(()) };
    for waiter in waiters.try_iter()? {
        let waiter = waiter?;
        if !waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
            waiter.call_method1(intern!(py, "set_result"), (py.None(),))?;
        }
    }
    Ok(())
}

fn close<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let Some(sockets) = this.sockets.take(py) else { return Ok(none(py)) };
    this.serving.set(false);
    let event_loop = this.event_loop.get(py);
    for sock in sockets.try_iter()? {
        let sock = sock?;
        if let Some(event_loop) = &event_loop {
            stop_serving(event_loop, &sock)?;
        }
    }
    if let Some(forever) = this.forever.get(py)
        && !forever.call_method0(intern!(py, "done"))?.is_truthy()?
    {
        forever.call_method0(intern!(py, "cancel"))?;
        drop(this.forever.take(py));
    }
    if let Some(clients) = this.clients.get(py) {
        wake_if_over(this, &clients)?;
    }
    Ok(none(py))
}

/// Accepts no more and closes the socket.
fn stop_serving(event_loop: &Bound<'_, PyAny>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
    unlisten(event_loop, sock)?;
    sock.call_method0(intern!(sock.py(), "close")).map(drop)
}

fn for_each_client<'py>(this: This<'_, 'py>, method: &Bound<'py, PyString>) -> Object<'py> {
    let py = this.py();
    if let Some(clients) = this.clients.get(py) {
        for transport in clients.call_method0(intern!(py, "copy"))?.try_iter()? {
            transport?.call_method0(method)?;
        }
    }
    Ok(none(py))
}

fn close_clients<'py>(this: This<'_, 'py>) -> Object<'py> {
    for_each_client(this, intern!(this.py(), "close"))
}

fn abort_clients<'py>(this: This<'_, 'py>) -> Object<'py> {
    for_each_client(this, intern!(this.py(), "abort"))
}

fn start_method<'py>(this: This<'_, 'py>) -> Object<'py> {
    start(&this.to_owned())?;
    Ok(none(this.py()))
}

fn resume<'py>(this: This<'_, 'py>, sock: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    if this.serving.get() {
        listen(this, &sock)?;
    }
    Ok(none(this.py()))
}

fn start_serving<'py>(this: This<'_, 'py>) -> Object<'py> {
    let server = this.to_owned().unbind();
    async_fn::coroutine(this.py(), "Server.start_serving", async move {
        attached(|py| start(server.bind(py)))?;
        async_fn::pause().await?;
        async_fn::none()
    })
}

fn serve_forever<'py>(this: This<'_, 'py>) -> Object<'py> {
    let server = this.to_owned().unbind();
    async_fn::coroutine(this.py(), "Server.serve_forever", async move {
        let waiter = attached(|py| prepare_to_serve(server.bind(py)))?;
        let result = async_fn::wait(waiter).await;
        let cancelled = attached(|py| {
            let cancelled =
                matches!(&result, Err(e) if e.is_instance(py, names(py).cancelled_error.bind(py)));
            let server = server.bind(py);
            if let Some(this) = This::cast_exact(server) {
                drop(this.forever.take(py));
            }
            if !cancelled {
                return Ok(None);
            }
            server.call_method0("close")?;
            server.call_method0("close_clients")?;
            server.call_method0("wait_closed").map(|closed| Some(closed.unbind()))
        });
        // Whatever goes wrong here, the cancellation is what the caller gets.
        if let Ok(Some(closed)) = cancelled {
            let _ = async_fn::wait(closed).await;
        }
        result
    })
}

fn prepare_to_serve(server: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let py = server.py();
    let Some(this) = This::cast_exact(server) else { return Err(PyRuntimeError::new_err("not a server")) };
    if this.forever.is_some() {
        let text = format!("server {} is already being awaited on serve_forever()", server.repr()?);
        return Err(PyRuntimeError::new_err(text));
    }
    if !this.sockets.is_some() {
        return Err(PyRuntimeError::new_err(format!("server {} is closed", server.repr()?)));
    }
    start(server)?;
    let waiter = get_loop(this)?.call_method0(intern!(py, "create_future"))?;
    this.forever.set(py, waiter.clone());
    Ok(waiter.unbind())
}

fn wait_closed<'py>(this: This<'_, 'py>) -> Object<'py> {
    let server = this.to_owned().unbind();
    async_fn::coroutine(this.py(), "Server.wait_closed", async move {
        let waiter = attached(|py| -> PyResult<_> {
            let Some(this) = This::cast_exact(server.bind(py)) else { return Ok(None) };
            let Some(waiters) = this.waiters.get(py) else { return Ok(None) };
            let waiter = get_loop(this)?.call_method0(intern!(py, "create_future"))?;
            waiters.call_method1(intern!(py, "append"), (&waiter,))?;
            Ok(Some(waiter.unbind()))
        })?;
        if let Some(waiter) = waiter {
            async_fn::wait(waiter).await?;
        }
        async_fn::none()
    })
}

fn enter<'py>(this: This<'_, 'py>) -> Object<'py> {
    let server = this.to_owned().unbind();
    async_fn::coroutine(this.py(), "Server.__aenter__", async move { Ok(server) })
}

fn exit<'py>(this: This<'_, 'py>, _: Args<'_, 'py>) -> Object<'py> {
    let server = this.to_owned().unbind();
    async_fn::coroutine(this.py(), "Server.__aexit__", async move {
        let closed = attached(|py| {
            let server = server.bind(py);
            server.call_method0("close")?;
            server.call_method0("wait_closed").map(Bound::unbind)
        })?;
        async_fn::wait(closed).await?;
        async_fn::none()
    })
}

/// asyncio's own class, looked up before `install` can put ours in its place.
static STOCK: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// `isinstance(server, asyncio.Server)` holds also for asyncio's own class: `__class__` says so.
fn get_class<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(STOCK.import(this.py(), "asyncio.base_events", "Server")?.clone().into_any())
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    STOCK.import(module.py(), "asyncio.base_events", "Server")?;
    let class = Builder::of::<Server>()
        .slot(ffi::Py_tp_repr, unary::<Of<Server>, _>(repr))
        .method(noargs::<Of<Server>, _>(c"get_loop", get_loop))
        .method(noargs::<Of<Server>, _>(c"is_serving", is_serving))
        .method(noargs::<Of<Server>, _>(c"close", close))
        .method(noargs::<Of<Server>, _>(c"close_clients", close_clients))
        .method(noargs::<Of<Server>, _>(c"abort_clients", abort_clients))
        .method(noargs::<Of<Server>, _>(c"start_serving", start_serving))
        .method(noargs::<Of<Server>, _>(c"serve_forever", serve_forever))
        .method(noargs::<Of<Server>, _>(c"wait_closed", wait_closed))
        .method(noargs::<Of<Server>, _>(c"__aenter__", enter))
        .method(anyargs::<Of<Server>, _>(c"__aexit__", exit))
        .method(onearg::<Of<Server>, _>(c"_attach", attach))
        .method(onearg::<Of<Server>, _>(c"_detach", detach))
        .method(noargs::<Of<Server>, _>(c"_start_serving", start_method))
        .method(onearg::<Of<Server>, _>(c"_resume", resume))
        .attribute(getter::<Of<Server>, _>(c"__class__", get_class))
        .attribute(getter::<Of<Server>, _>(c"sockets", get_sockets))
        .attribute(getter::<Of<Server>, _>(c"_loop", get_loop))
        .attribute(getter::<Of<Server>, _>(c"_sockets", get_sockets_list))
        .attribute(getter::<Of<Server>, _>(c"_waiters", get_waiters))
        .attribute(getter::<Of<Server>, _>(c"_clients", get_clients))
        .attribute(getter::<Of<Server>, _>(c"_protocol_factory", get_protocol_factory))
        .attribute(getter::<Of<Server>, _>(c"_serving_forever_fut", get_forever))
        .attribute(getter::<Of<Server>, _>(c"_serving", is_serving))
        .attribute(getter::<Of<Server>, _>(c"_backlog", get_backlog))
        .build(module, None, Server::cell())?;
    module.add("Server", class)
}
