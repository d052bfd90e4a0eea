//! `asyncio.Server`: what `create_server` makes (event_loop/serve.rs).
//!
//! Owns the listening sockets, on which its loop starts and stops accepting (`_start_serving`, listener.rs). It knows its
//! connections by weak references, so that a transport that nobody keeps is still found out.

use pyo3::exceptions::{PyAssertionError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{
    IntoPyDict, PyBool, PyInt, PyList, PySet, PyString, PyTuple, PyWeakrefMethods, PyWeakrefReference,
};
use pyo3::{ffi, intern};
use rustc_hash::FxHashMap;

use super::{owned, socket_file, tls};
use crate::async_fn::{self, attached};
use crate::ffi::args::{Args, Signature};
use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::{Builder, Class, Find, Inst, TypeCell, create};
use crate::ffi::context;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{Of, anyargs, getter, noargs, unary};
use crate::names::{names, none};
use crate::version::{SERVERS_KEEP_CONTEXT, SERVERS_KNOW_TRANSPORTS};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
pub(super) type This<'a, 'py> = Inst<'a, 'py, Server>;

/// A server: listening sockets, and the connections that came through them.
pub(crate) struct Server {
    event_loop: Slot,
    /// A list of sockets; nothing once the server is closed.
    sockets: Slot,
    /// A list of futures; nothing once the server is closed and its last connection is gone.
    waiters: Slot,
    /// The connections, by the address of their transport; it takes itself out when it goes.
    clients: GilCell<FxHashMap<usize, Py<PyWeakrefReference>>>,
    /// How many connections are those of transports that did not say who they are, as before 3.13.
    unnamed: Flag<usize>,
    protocol_factory: Slot,
    /// That of its making, for its connections, where a server keeps it.
    context: Slot,
    /// What `serve_forever` waits for.
    forever: Slot,
    /// What makes TLS of a connection, if that is wanted; and its timeouts.
    ssl_context: Slot,
    ssl_handshake_timeout: Slot,
    ssl_shutdown_timeout: Slot,
    backlog: i32,
    serving: Flag<bool>,
    /// The inode of its Unix socket's file, which goes when the server closes.
    inode: Flag<Option<u64>>,
    dict: Slot,
}

impl Class for Server {
    const NAME: &'static std::ffi::CStr = c"aioxide.Server";
    const DICT: Option<usize> = Some(std::mem::offset_of!(Self, dict));
    const STANDS_FOR: Option<Find> = Some(|py| Ok(names(py).server.bind(py).clone()));

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
        let clients = self.clients.with(py, std::mem::take);
        attached(|_| drop(clients)); // at once, in a finalizer too
    }
}

impl Server {
    fn slots(&self) -> [&Slot; 10] {
        [
            &self.event_loop,
            &self.sockets,
            &self.waiters,
            &self.protocol_factory,
            &self.context,
            &self.forever,
            &self.ssl_context,
            &self.ssl_handshake_timeout,
            &self.ssl_shutdown_timeout,
            &self.dict,
        ]
    }
}

/// A server that does not serve yet.
pub(crate) fn make<'py>(
    event_loop: &Bound<'py, PyAny>,
    sockets: Bound<'py, PyList>,
    protocol_factory: Bound<'py, PyAny>,
    backlog: i32,
    tls: Option<tls::Options>,
) -> Object<'py> {
    let py = event_loop.py();
    let (ssl_context, handshake_timeout, shutdown_timeout) =
        tls.map_or((None, None, None), |tls| (tls.context, tls.handshake_timeout, tls.shutdown_timeout));
    let context = if SERVERS_KEEP_CONTEXT { Some(context::copy_current(py)?.unbind()) } else { None };
    let server = Server {
        event_loop: Slot::holding(event_loop.clone().unbind()),
        sockets: Slot::holding(sockets.into_any().unbind()),
        waiters: Slot::holding(PyList::empty(py).into_any().unbind()),
        clients: GilCell::new(FxHashMap::default()),
        unnamed: Flag::new(0),
        protocol_factory: Slot::holding(protocol_factory.unbind()),
        context: Slot::new(context),
        forever: Slot::empty(),
        ssl_context: Slot::new(ssl_context),
        ssl_handshake_timeout: Slot::new(handshake_timeout),
        ssl_shutdown_timeout: Slot::new(shutdown_timeout),
        backlog,
        serving: Flag::new(false),
        inode: Flag::new(None),
        dict: Slot::empty(),
    };
    create(py, server)
}

/// The server's one socket is a Unix socket with that file, which is to go with it.
pub(crate) fn owns_file(server: &Bound<'_, PyAny>, inode: Option<u64>) {
    if let Some(this) = This::cast_exact(server) {
        this.inode.set(inode);
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
    let event_loop = get_loop(this)?;
    for sock in sockets.try_iter()? {
        let sock = sock?;
        sock.call_method1(intern!(py, "listen"), (this.backlog,))?;
        let (factory, ssl_context) = (get_protocol_factory(this)?, get_ssl_context(this)?);
        let timeouts = (get_ssl_handshake_timeout(this)?, get_ssl_shutdown_timeout(this)?);
        let service = (factory, sock, ssl_context, server, this.backlog, timeouts.0, timeouts.1);
        let kept = this.context.get(py).map(|context| [("context", context)].into_py_dict(py)).transpose()?;
        event_loop.call_method(intern!(py, "_start_serving"), service, kept.as_ref())?;
    }
    Ok(())
}

// --- methods -------------------------------------------------------------------------------------

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

/// `_clients`: a set of the transports.
fn get_clients<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PySet::new(this.py(), clients(this))?.into_any())
}

fn clients<'py>(this: This<'_, 'py>) -> Vec<Bound<'py, PyAny>> {
    let py = this.py();
    let known: Vec<_> = this.clients.with(py, |c| c.values().map(|client| client.clone_ref(py)).collect());
    known.iter().filter_map(|client| client.bind(py).upgrade()).collect()
}

fn get_protocol_factory<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.protocol_factory)
}

fn get_ssl_context<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.ssl_context)
}

fn get_ssl_handshake_timeout<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.ssl_handshake_timeout)
}

fn get_ssl_shutdown_timeout<'py>(this: This<'_, 'py>) -> Object<'py> {
    held(this, &this.ssl_shutdown_timeout)
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
        sockets.try_iter()?.map(|sock| owned::transport_socket(&sock?)).collect::<PyResult<Vec<_>>>()?;
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

/// A connection has come through the server, ours or asyncio's.
pub(super) fn attach(server: &Bound<'_, PyAny>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let Some(this) = This::cast_exact(server) else {
        return tell(server, intern!(server.py(), "_attach"), transport);
    };
    let reference = PyWeakrefReference::new(transport)?.unbind();
    drop(this.clients.with(this.py(), |clients| clients.insert(transport.as_ptr().addr(), reference)));
    Ok(())
}

/// It is gone.
pub(super) fn detach(server: &Bound<'_, PyAny>, transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let Some(this) = This::cast_exact(server) else {
        return tell(server, intern!(server.py(), "_detach"), transport);
    };
    drop(this.clients.with(this.py(), |clients| clients.remove(&transport.as_ptr().addr())));
    wake_if_over(this)
}

/// Calls a method of a server, which learns since 3.13 what transport it is about.
fn tell<'py>(
    server: &Bound<'py, PyAny>,
    method: &Bound<'py, PyString>,
    transport: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let result = if SERVERS_KNOW_TRANSPORTS {
        server.call_method1(method, (transport,))
    } else {
        server.call_method0(method)
    };
    result.map(drop)
}

const fn of_transport(name: &'static str) -> Signature {
    let required = SERVERS_KNOW_TRANSPORTS as usize;
    Signature { name, positional: &["transport"], required, positional_only: 0, keyword_only: &[] }
}

fn attach_method<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = of_transport("Server._attach");
    match SIGNATURE.bind::<1>(args)? {
        _ if !this.sockets.is_some() => return Err(PyAssertionError::new_err("the server is closed")),
        [Some(transport)] => attach(&this.object(), &transport)?,
        [None] => this.unnamed.set(this.unnamed.get() + 1),
    }
    Ok(none(this.py()))
}

fn detach_method<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = of_transport("Server._detach");
    match SIGNATURE.bind::<1>(args)? {
        [Some(transport)] => detach(&this.object(), &transport)?,
        [None] if count_clients(this) == 0 => {
            return Err(PyAssertionError::new_err("the server has no connections"));
        }
        [None] => {
            this.unnamed.set(this.unnamed.get().saturating_sub(1));
            wake_if_over(this)?;
        }
    }
    Ok(none(this.py()))
}

fn count_clients(this: This<'_, '_>) -> usize {
    this.clients.with(this.py(), |clients| clients.len()) + this.unnamed.get()
}

/// `_active_count`, which asyncio had before 3.13.
fn get_active_count<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), count_clients(this)).into_any())
}

/// Closed and without connections: whoever waits for that is told.
fn wake_if_over(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    if this.sockets.is_some() || count_clients(this) > 0 {
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
            stop_serving(event_loop, &sock, this.inode.get())?;
        }
    }
    if let Some(forever) = this.forever.get(py)
        && !forever.call_method0(intern!(py, "done"))?.is_truthy()?
    {
        forever.call_method0(intern!(py, "cancel"))?;
        drop(this.forever.take(py));
    }
    wake_if_over(this)?;
    Ok(none(py))
}

/// Accepts no more, closes the socket and removes its file.
fn stop_serving(event_loop: &Bound<'_, PyAny>, sock: &Bound<'_, PyAny>, inode: Option<u64>) -> PyResult<()> {
    let py = sock.py();
    let stop = || event_loop.call_method1(intern!(py, "_stop_serving"), (sock,)).map(drop);
    let Some(inode) = inode else { return stop() };
    let address = sock.call_method0(intern!(py, "getsockname"))?;
    stop()?;
    socket_file::remove(&address, inode)
}

fn for_each_client<'py>(this: This<'_, 'py>, method: &Bound<'py, PyString>) -> Object<'py> {
    let py = this.py();
    for transport in clients(this) {
        transport.call_method0(method)?;
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

fn start_serving<'py>(this: This<'_, 'py>) -> Object<'py> {
    async_fn::rooted(this.to_owned(), "Server.start_serving", async move {
        attached(|py| start(&async_fn::root(py)?))?;
        async_fn::pause().await?;
        async_fn::none()
    })
}

fn serve_forever<'py>(this: This<'_, 'py>) -> Object<'py> {
    async_fn::rooted(this.to_owned(), "Server.serve_forever", async move {
        let waiter = attached(|py| prepare_to_serve(&async_fn::root(py)?))?;
        let result = async_fn::wait(waiter).await;
        let cancelled = attached(|py| {
            let cancelled =
                matches!(&result, Err(e) if e.is_instance(py, names(py).cancelled_error.bind(py)));
            let server = async_fn::root(py)?;
            if let Some(this) = This::cast_exact(&server) {
                drop(this.forever.take(py));
            }
            if !cancelled {
                return Ok(None);
            }
            server.call_method0(intern!(py, "close"))?;
            server.call_method0(intern!(py, "close_clients"))?;
            server.call_method0(intern!(py, "wait_closed")).map(|closed| Some(closed.unbind()))
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
    async_fn::rooted(this.to_owned(), "Server.wait_closed", async move {
        let waiter = attached(|py| -> PyResult<_> {
            let server = async_fn::root(py)?;
            let Some(this) = This::cast_exact(&server) else { return Ok(None) };
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
    async_fn::rooted(this.to_owned(), "Server.__aexit__", async move {
        let closed = attached(|py| {
            let server = async_fn::root(py)?;
            server.call_method0(intern!(py, "close"))?;
            server.call_method0(intern!(py, "wait_closed")).map(Bound::unbind)
        })?;
        async_fn::wait(closed).await?;
        async_fn::none()
    })
}

/// Makes the type.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let mut class = Builder::of::<Server>()
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
        .method(anyargs::<Of<Server>, _>(c"_attach", attach_method))
        .method(anyargs::<Of<Server>, _>(c"_detach", detach_method))
        .method(noargs::<Of<Server>, _>(c"_start_serving", start_method))
        .attribute(getter::<Of<Server>, _>(c"sockets", get_sockets))
        .attribute(getter::<Of<Server>, _>(c"_loop", get_loop))
        .attribute(getter::<Of<Server>, _>(c"_sockets", get_sockets_list))
        .attribute(getter::<Of<Server>, _>(c"_waiters", get_waiters))
        .attribute(getter::<Of<Server>, _>(c"_clients", get_clients))
        .attribute(getter::<Of<Server>, _>(c"_protocol_factory", get_protocol_factory))
        .attribute(getter::<Of<Server>, _>(c"_serving_forever_fut", get_forever))
        .attribute(getter::<Of<Server>, _>(c"_ssl_context", get_ssl_context))
        .attribute(getter::<Of<Server>, _>(c"_ssl_handshake_timeout", get_ssl_handshake_timeout))
        .attribute(getter::<Of<Server>, _>(c"_ssl_shutdown_timeout", get_ssl_shutdown_timeout))
        .attribute(getter::<Of<Server>, _>(c"_serving", is_serving))
        .attribute(getter::<Of<Server>, _>(c"_backlog", get_backlog));
    if !SERVERS_KNOW_TRANSPORTS {
        class = class.attribute(getter::<Of<Server>, _>(c"_active_count", get_active_count));
    }
    module.add("Server", class.build(module, None, Server::cell())?)
}
