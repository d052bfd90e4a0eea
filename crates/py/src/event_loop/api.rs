//! Every method of the loop, in the order of asyncio's documentation, one line each.
//!
//! The hottest (`call_soon`, `call_later`, `call_at`, `call_soon_threadsafe`, `time`, `create_future`,
//! `create_task`) are raw methods of LoopCore: see handles.rs.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyString, PyTuple, PyType};

use super::readers::Direction;
use super::{
    EventLoop, as_handles, connect, datagram, debug, executor, hooks, idle, lifecycle, names, pipes, readers,
    serve, signals, sockets, start_tls, unix,
};
use crate::ffi::gc::traverse_pyclass;
use crate::ffi::{attr, context};
use crate::transports::{listener, tls};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type Maybe<'py> = Option<Bound<'py, PyAny>>;

fn or_zero<'py>(py: Python<'py>, value: Maybe<'py>) -> Bound<'py, PyAny> {
    value.unwrap_or_else(|| PyInt::new(py, 0).into_any())
}

#[pymethods]
impl EventLoop {
    #[new]
    #[classmethod]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(
        cls: &Bound<'_, PyType>,
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        Self::create(cls)
    }

    // --- running and stopping ---

    fn run_until_complete<'py>(slf: &Bound<'py, Self>, future: &Bound<'py, PyAny>) -> Object<'py> {
        lifecycle::run_until_complete(slf, future)
    }

    fn run_forever(slf: &Bound<'_, Self>) -> PyResult<()> {
        lifecycle::run_forever(slf)
    }

    #[pyo3(signature = (hook))]
    fn _set_idle_hook<'py>(slf: &Bound<'py, Self>, hook: Maybe<'py>) {
        idle::set_hook(slf, hook);
    }

    fn stop(slf: &Bound<'_, Self>) {
        Self::core(slf).set_stopping(true);
    }

    fn is_running(slf: &Bound<'_, Self>) -> bool {
        Self::core(slf).thread() != 0
    }

    fn is_closed(slf: &Bound<'_, Self>) -> bool {
        Self::core(slf).is_closed()
    }

    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        lifecycle::close(slf)
    }

    fn shutdown_asyncgens<'py>(slf: &Bound<'py, Self>) -> Object<'py> {
        hooks::shutdown_asyncgens(slf)
    }

    #[pyo3(signature = (timeout=None))]
    fn shutdown_default_executor<'py>(slf: &Bound<'py, Self>, timeout: Maybe<'py>) -> Object<'py> {
        executor::shutdown_default(slf, timeout)
    }

    // --- tasks ---

    fn set_task_factory<'py>(slf: &Bound<'py, Self>, factory: Bound<'py, PyAny>) -> PyResult<()> {
        if !factory.is_none() && !factory.is_callable() {
            return Err(PyTypeError::new_err("task factory must be a callable or None"));
        }
        drop(Self::core(slf).task_factory().replace(slf.py(), (!factory.is_none()).then_some(factory)));
        Ok(())
    }

    fn get_task_factory<'py>(slf: &Bound<'py, Self>) -> Maybe<'py> {
        Self::core(slf).task_factory().get(slf.py())
    }

    // --- connections and servers ---

    #[pyo3(signature = (protocol_factory, host=None, port=None, *, ssl=None, family=0, proto=0, flags=0, sock=None,
        local_addr=None, server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None,
        happy_eyeballs_delay=None, interleave=None, all_errors=false))]
    #[allow(clippy::too_many_arguments, reason = "asyncio's own parameters")]
    fn create_connection<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        host: Option<Py<PyAny>>,
        port: Option<Py<PyAny>>,
        ssl: Option<Py<PyAny>>,
        family: i32,
        proto: i32,
        flags: i32,
        sock: Option<Py<PyAny>>,
        local_addr: Option<Py<PyAny>>,
        server_hostname: Option<Py<PyAny>>,
        ssl_handshake_timeout: Option<Py<PyAny>>,
        ssl_shutdown_timeout: Option<Py<PyAny>>,
        happy_eyeballs_delay: Option<f64>,
        interleave: Option<usize>,
        all_errors: bool,
    ) -> Object<'py> {
        let request = connect::Request {
            protocol_factory,
            host,
            port,
            ssl,
            family,
            proto,
            flags,
            sock,
            local_addr,
            server_hostname,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
            happy_eyeballs_delay,
            interleave,
            all_errors,
        };
        connect::create_connection(slf.as_any(), request)
    }

    #[pyo3(signature = (protocol_factory, host=None, port=None, *, family=0, flags=1, sock=None, backlog=100, ssl=None,
        reuse_address=None, reuse_port=None, keep_alive=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None,
        start_serving=true))]
    #[allow(clippy::too_many_arguments, reason = "asyncio's own parameters")]
    fn create_server<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        host: Option<Py<PyAny>>,
        port: Option<Py<PyAny>>,
        family: i32,
        flags: i32,
        sock: Option<Py<PyAny>>,
        backlog: i32,
        ssl: Option<Py<PyAny>>,
        reuse_address: Option<bool>,
        reuse_port: Option<bool>,
        keep_alive: Option<bool>,
        ssl_handshake_timeout: Option<Py<PyAny>>,
        ssl_shutdown_timeout: Option<Py<PyAny>>,
        start_serving: bool,
    ) -> Object<'py> {
        let request = serve::Request {
            protocol_factory,
            host,
            port,
            family,
            flags,
            sock,
            backlog,
            ssl,
            reuse_address,
            reuse_port,
            keep_alive,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
            start_serving,
        };
        serve::create_server(slf.as_any(), request)
    }

    #[pyo3(signature = (protocol_factory, sock, *, ssl=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None))]
    fn connect_accepted_socket<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        sock: Py<PyAny>,
        ssl: Option<Py<PyAny>>,
        ssl_handshake_timeout: Option<Py<PyAny>>,
        ssl_shutdown_timeout: Option<Py<PyAny>>,
    ) -> Object<'py> {
        let tls = (ssl_handshake_timeout, ssl_shutdown_timeout);
        connect::connect_accepted_socket(slf.as_any(), protocol_factory, sock, ssl, tls.0, tls.1)
    }

    #[pyo3(signature = (transport, protocol, sslcontext, *, server_side=false, server_hostname=None,
        ssl_handshake_timeout=None, ssl_shutdown_timeout=None))]
    #[allow(clippy::too_many_arguments, reason = "asyncio's own signature")]
    fn start_tls<'py>(
        slf: &Bound<'py, Self>,
        transport: Py<PyAny>,
        protocol: Py<PyAny>,
        sslcontext: Py<PyAny>,
        server_side: bool,
        server_hostname: Option<Py<PyAny>>,
        ssl_handshake_timeout: Option<Py<PyAny>>,
        ssl_shutdown_timeout: Option<Py<PyAny>>,
    ) -> Object<'py> {
        let options = tls::Options {
            context: Some(sslcontext),
            server_side,
            server_hostname,
            handshake_timeout: ssl_handshake_timeout,
            shutdown_timeout: ssl_shutdown_timeout,
        };
        start_tls::start_tls(slf.as_any(), transport, protocol, options)
    }

    #[pyo3(signature = (protocol_factory, path=None, *, ssl=None, sock=None, server_hostname=None,
        ssl_handshake_timeout=None, ssl_shutdown_timeout=None))]
    #[allow(clippy::too_many_arguments, reason = "asyncio's own parameters")]
    fn create_unix_connection<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        path: Option<Py<PyAny>>,
        ssl: Option<Py<PyAny>>,
        sock: Option<Py<PyAny>>,
        server_hostname: Option<Py<PyAny>>,
        ssl_handshake_timeout: Option<Py<PyAny>>,
        ssl_shutdown_timeout: Option<Py<PyAny>>,
    ) -> Object<'py> {
        let request = unix::Dial {
            protocol_factory,
            path,
            ssl,
            sock,
            server_hostname,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
        };
        unix::create_connection(slf.as_any(), request)
    }

    #[pyo3(signature = (protocol_factory, path=None, *, sock=None, backlog=100, ssl=None, ssl_handshake_timeout=None,
        ssl_shutdown_timeout=None, start_serving=true, cleanup_socket=true))]
    #[allow(clippy::too_many_arguments, reason = "asyncio's own parameters")]
    fn create_unix_server<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        path: Option<Py<PyAny>>,
        sock: Option<Py<PyAny>>,
        backlog: i32,
        ssl: Option<Py<PyAny>>,
        ssl_handshake_timeout: Option<Py<PyAny>>,
        ssl_shutdown_timeout: Option<Py<PyAny>>,
        start_serving: bool,
        cleanup_socket: bool,
    ) -> Object<'py> {
        let request = unix::Serve {
            protocol_factory,
            path,
            sock,
            backlog,
            ssl,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
            start_serving,
            cleanup_socket,
        };
        unix::create_server(slf.as_any(), request)
    }

    #[pyo3(signature = (protocol_factory, local_addr=None, remote_addr=None, *, family=None, proto=None, flags=None,
        reuse_port=None, allow_broadcast=None, sock=None),
        text_signature = "($self, protocol_factory, local_addr=None, remote_addr=None, *, family=0, proto=0, flags=0, \
reuse_port=None, allow_broadcast=None, sock=None)")]
    #[allow(clippy::too_many_arguments, reason = "asyncio's own parameters")]
    fn create_datagram_endpoint<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        local_addr: Option<Py<PyAny>>,
        remote_addr: Option<Py<PyAny>>,
        family: Maybe<'py>,
        proto: Maybe<'py>,
        flags: Maybe<'py>,
        reuse_port: Option<Py<PyAny>>,
        allow_broadcast: Option<Py<PyAny>>,
        sock: Option<Py<PyAny>>,
    ) -> Object<'py> {
        let [family, proto, flags] = [family, proto, flags].map(|value| or_zero(slf.py(), value).unbind());
        let request = datagram::Request {
            protocol_factory,
            local_addr,
            remote_addr,
            family,
            proto,
            flags,
            reuse_port,
            allow_broadcast,
            sock,
        };
        datagram::create_endpoint(slf.as_any(), request)
    }

    // --- pipes ---

    fn connect_read_pipe<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        pipe: Py<PyAny>,
    ) -> Object<'py> {
        pipes::connect(slf.as_any(), pipes::End::Read, protocol_factory, pipe)
    }

    fn connect_write_pipe<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        pipe: Py<PyAny>,
    ) -> Object<'py> {
        pipes::connect(slf.as_any(), pipes::End::Write, protocol_factory, pipe)
    }

    // --- watching descriptors ---

    #[pyo3(signature = (fd, callback, *args))]
    fn add_reader<'py>(
        slf: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<()> {
        readers::add(slf, Direction::Read, fd, callback, args)
    }

    fn remove_reader(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        readers::remove(slf, Direction::Read, fd)
    }

    #[pyo3(signature = (fd, callback, *args))]
    fn add_writer<'py>(
        slf: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<()> {
        readers::add(slf, Direction::Write, fd, callback, args)
    }

    fn remove_writer(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        readers::remove(slf, Direction::Write, fd)
    }

    // --- working with sockets ---

    // The others are raw methods of LoopCore: see sockets.rs.

    fn sock_connect<'py>(slf: &Bound<'py, Self>, sock: Py<PyAny>, address: Py<PyAny>) -> Object<'py> {
        sockets::sock_connect(slf.as_any(), sock, address)
    }

    // --- names ---

    #[pyo3(signature = (host, port, *, family=None, r#type=None, proto=None, flags=None),
        text_signature = "($self, host, port, *, family=0, type=0, proto=0, flags=0)")]
    fn getaddrinfo<'py>(
        slf: &Bound<'py, Self>,
        host: Bound<'py, PyAny>,
        port: Bound<'py, PyAny>,
        family: Maybe<'py>,
        r#type: Maybe<'py>,
        proto: Maybe<'py>,
        flags: Maybe<'py>,
    ) -> Object<'py> {
        let [family, kind, proto, flags] =
            [family, r#type, proto, flags].map(|value| or_zero(slf.py(), value));
        names::getaddrinfo(slf, [host, port, family, kind, proto, flags])
    }

    #[pyo3(signature = (sockaddr, flags=None), text_signature = "($self, sockaddr, flags=0)")]
    fn getnameinfo<'py>(
        slf: &Bound<'py, Self>,
        sockaddr: Bound<'py, PyAny>,
        flags: Maybe<'py>,
    ) -> Object<'py> {
        names::getnameinfo(slf, sockaddr, or_zero(slf.py(), flags))
    }

    // --- signals ---

    #[pyo3(signature = (sig, callback, *args))]
    fn add_signal_handler<'py>(
        slf: &Bound<'py, Self>,
        sig: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<()> {
        signals::add(slf, sig, callback, args)
    }

    fn remove_signal_handler(slf: &Bound<'_, Self>, sig: &Bound<'_, PyAny>) -> PyResult<bool> {
        signals::remove(slf, sig)
    }

    // --- executors ---

    #[pyo3(signature = (executor, func, *args))]
    fn run_in_executor<'py>(
        slf: &Bound<'py, Self>,
        executor: &Bound<'py, PyAny>,
        func: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> Object<'py> {
        executor::run(slf, executor, func, args)
    }

    fn set_default_executor<'py>(slf: &Bound<'py, Self>, executor: Bound<'py, PyAny>) -> PyResult<()> {
        executor::set_default(slf, executor)
    }

    // --- errors ---

    fn set_exception_handler<'py>(slf: &Bound<'py, Self>, handler: Bound<'py, PyAny>) -> PyResult<()> {
        hooks::set_exception_handler(slf, handler)
    }

    fn get_exception_handler<'py>(slf: &Bound<'py, Self>) -> Maybe<'py> {
        hooks::exception_handler(slf)
    }

    fn default_exception_handler(slf: &Bound<'_, Self>, context: &Bound<'_, PyAny>) -> PyResult<()> {
        hooks::default_exception_handler(slf, context)
    }

    fn call_exception_handler(slf: &Bound<'_, Self>, context: &Bound<'_, PyAny>) -> PyResult<()> {
        hooks::handle_exception(slf, context)
    }

    // --- debug mode ---

    fn get_debug(slf: &Bound<'_, Self>) -> bool {
        Self::core(slf).is_debug()
    }

    fn set_debug(slf: &Bound<'_, Self>, enabled: &Bound<'_, PyAny>) -> PyResult<()> {
        debug::set(slf, enabled.is_truthy()?)
    }

    #[getter]
    fn slow_callback_duration(&self) -> f64 {
        self.debug.slow_callback_duration()
    }

    #[setter]
    fn set_slow_callback_duration(&self, seconds: f64) {
        self.debug.set_slow_callback_duration(seconds);
    }

    // --- what subclasses, libraries and asyncio's own modules use of BaseEventLoop ---

    fn _check_closed(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::core(slf).check_closed()
    }

    fn _check_running(slf: &Bound<'_, Self>) -> PyResult<()> {
        lifecycle::check_running(slf)
    }

    fn _check_thread(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::core(slf).check_thread()
    }

    fn _run_forever_setup(slf: &Bound<'_, Self>) -> PyResult<()> {
        lifecycle::set_up(slf)
    }

    fn _run_forever_cleanup(slf: &Bound<'_, Self>) -> PyResult<()> {
        lifecycle::clean_up(slf)
    }

    fn _run_once(slf: &Bound<'_, Self>) -> PyResult<()> {
        lifecycle::run_once(slf)
    }

    fn _write_to_self(slf: &Bound<'_, Self>) {
        Self::core(slf).remote().wake();
    }

    fn _asyncgen_firstiter_hook(slf: &Bound<'_, Self>, agen: &Bound<'_, PyAny>) -> PyResult<()> {
        hooks::first_iteration(slf, agen)
    }

    fn _asyncgen_finalizer_hook(slf: &Bound<'_, Self>, agen: &Bound<'_, PyAny>) -> PyResult<()> {
        hooks::finalize(slf, agen)
    }

    fn _set_coroutine_origin_tracking(slf: &Bound<'_, Self>, enabled: bool) -> PyResult<()> {
        debug::track_origins(slf, enabled)
    }

    fn _do_shutdown(slf: &Bound<'_, Self>, future: &Bound<'_, PyAny>) -> PyResult<()> {
        executor::do_shutdown(slf, future)
    }

    #[pyo3(signature = (*query))]
    fn _getaddrinfo_debug<'py>(slf: &Bound<'py, Self>, query: &Bound<'py, PyTuple>) -> Object<'py> {
        names::resolve_and_log(slf, query)
    }

    fn _ensure_fd_no_transport(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<()> {
        readers::ensure_fd_no_transport(slf.as_any(), fd).map(drop)
    }

    #[pyo3(signature = (protocol_factory, sock, sslcontext=None, server=None, backlog=100, ssl_handshake_timeout=None,
        ssl_shutdown_timeout=None, context=None))]
    #[allow(clippy::too_many_arguments, reason = "asyncio's own parameters")]
    fn _start_serving(
        slf: &Bound<'_, Self>,
        protocol_factory: Py<PyAny>,
        sock: &Bound<'_, PyAny>,
        sslcontext: Option<Py<PyAny>>,
        server: Option<Py<PyAny>>,
        backlog: i64,
        ssl_handshake_timeout: Option<Py<PyAny>>,
        ssl_shutdown_timeout: Option<Py<PyAny>>,
        context: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let timeouts = (ssl_handshake_timeout.as_ref(), ssl_shutdown_timeout.as_ref());
        let tls = tls::Options::server(slf.py(), sslcontext.as_ref(), timeouts)?;
        let context = context.map_or_else(|| context::copy_current(slf.py()).map(Bound::unbind), Ok)?;
        listener::start(slf, sock, listener::Service { protocol_factory, tls, server, backlog, context })
    }

    fn _stop_serving(slf: &Bound<'_, Self>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
        listener::end(slf, sock)
    }

    #[pyo3(signature = (*args))]
    fn _resume_serving(slf: &Bound<'_, Self>, args: &Bound<'_, PyTuple>) -> PyResult<()> {
        listener::resume(slf, args)
    }

    #[pyo3(signature = (fd, callback, *args))]
    fn _add_reader<'py>(
        slf: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> Object<'py> {
        readers::add_unchecked(slf, Direction::Read, fd, callback, args)
    }

    fn _remove_reader(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        readers::remove_unchecked(slf, Direction::Read, fd)
    }

    #[pyo3(signature = (fd, callback, *args))]
    fn _add_writer<'py>(
        slf: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> Object<'py> {
        readers::add_unchecked(slf, Direction::Write, fd, callback, args)
    }

    fn _remove_writer(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        readers::remove_unchecked(slf, Direction::Write, fd)
    }

    #[getter]
    fn _debug(slf: &Bound<'_, Self>) -> bool {
        Self::core(slf).is_debug()
    }

    #[setter(_debug)]
    fn set_debug_raw(slf: &Bound<'_, Self>, enabled: bool) {
        Self::core(slf).set_debug(enabled);
    }

    #[getter]
    fn _closed(slf: &Bound<'_, Self>) -> bool {
        Self::core(slf).is_closed()
    }

    #[getter]
    fn _stopping(slf: &Bound<'_, Self>) -> bool {
        Self::core(slf).is_stopping()
    }

    #[setter(_stopping)]
    fn set_stopping_raw(slf: &Bound<'_, Self>, stopping: bool) {
        Self::core(slf).set_stopping(stopping);
    }

    #[getter]
    fn _ready<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        as_handles::ready(slf)
    }

    #[getter]
    fn _scheduled<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        as_handles::scheduled(slf)
    }

    #[getter]
    fn _thread_id(&self) -> Option<u64> {
        self.life.ident()
    }

    #[getter]
    #[allow(clippy::unused_self, reason = "an attribute of the loop")]
    fn _clock_resolution(&self) -> f64 {
        aioxide_sys::clock::resolution()
    }

    #[getter]
    fn _task_factory<'py>(slf: &Bound<'py, Self>) -> Maybe<'py> {
        Self::core(slf).task_factory().get(slf.py())
    }

    #[getter]
    fn _exception_handler<'py>(slf: &Bound<'py, Self>) -> Maybe<'py> {
        hooks::exception_handler(slf)
    }

    #[getter]
    fn _current_handle<'py>(&self, py: Python<'py>) -> Maybe<'py> {
        self.debug.current_handle(py)
    }

    #[getter]
    fn _default_executor<'py>(&self, py: Python<'py>) -> Maybe<'py> {
        self.executor.get(py)
    }

    #[setter(_default_executor)]
    fn set_default_executor_raw<'py>(&self, py: Python<'py>, executor: Maybe<'py>) {
        self.executor.replace(py, executor);
    }

    #[getter]
    fn _asyncgens<'py>(slf: &Bound<'py, Self>) -> Object<'py> {
        hooks::asyncgens(slf)
    }

    #[getter]
    fn _signal_handlers<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        signals::handlers(slf)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (name, core) = (slf.get_type().name()?, Self::core(slf));
        let word = |on: bool| if on { "True" } else { "False" };
        let (running, closed, debug) =
            (word(core.thread() != 0), word(core.is_closed()), word(core.is_debug()));
        Ok(format!("<{name} running={running} closed={closed} debug={debug}>"))
    }

    /// Notes when a method is replaced that native code would otherwise bypass.
    fn __setattr__(
        slf: &Bound<'_, Self>,
        name: &Bound<'_, PyString>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        attr::set_generic(slf.as_any(), name, Some(value))?;
        Self::core(slf).note_override(&name.to_string_lossy());
        Ok(())
    }

    /// As `__setattr__`, for a method that is replaced in the class while the loop is there.
    fn _note_override(slf: &Bound<'_, Self>, name: &str) {
        Self::core(slf).note_override(name);
    }

    fn __delattr__(slf: &Bound<'_, Self>, name: &Bound<'_, PyString>) -> PyResult<()> {
        attr::set_generic(slf.as_any(), name, None)
    }

    fn __del__(slf: &Bound<'_, Self>) -> PyResult<()> {
        lifecycle::finalize(slf)
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        traverse_pyclass(&visit, |v| self.traverse(v))
    }

    fn __clear__(&self) {
        crate::ffi::attach::attached(|py| self.clear(py));
    }
}
