//! Objects of asyncio and the standard library that are looked up once: exceptions, helpers, constant strings.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyModule, PyType};

macro_rules! modules {
    ($($name:ident)*) => {
        /// Modules of asyncio, in whose names we find what a program has put there, as asyncio's own modules do. They are at
        /// hand where a program hides asyncio from those who import it.
        pub(crate) struct Asyncio {
            $(pub(crate) $name: Py<PyModule>,)*
        }

        impl Asyncio {
            fn load(py: Python<'_>) -> PyResult<Self> {
                Ok(Self { $($name: py.import(concat!("asyncio.", stringify!($name)))?.unbind(),)* })
            }
        }
    };
}

modules! {
    constants coroutines exceptions futures locks log protocols queues selector_events sslproto
    streams tasks timeouts transports trsock unix_events
}

/// Looked up when the extension is imported.
pub(crate) struct Names {
    asyncio: Asyncio,
    pub(crate) cancelled_error: Py<PyType>,
    pub(crate) invalid_state_error: Py<PyType>,
    pub(crate) sendfile_not_available: Py<PyType>,
    pub(crate) iscoroutine: Py<PyAny>,
    pub(crate) get_event_loop_policy: Py<PyAny>,
    pub(crate) future_repr: Py<PyAny>,
    pub(crate) task_repr: Py<PyAny>,
    pub(crate) task_get_stack: Py<PyAny>,
    pub(crate) task_print_stack: Py<PyAny>,
    format_callback_source: Py<PyAny>,
    /// Whether the above takes `debug=`, without which it hides arguments (3.13 and later).
    format_takes_debug: bool,
    pub(crate) extract_stack: Py<PyAny>,
    /// asyncio's own Handle, TimerHandle and (3.14) _ThreadSafeHandle.
    pub(crate) handle: Py<PyAny>,
    pub(crate) threadsafe_handle: Py<PyAny>,
    pub(crate) timer_handle: Py<PyAny>,
    /// Its locks and readers, whose methods serve where a program has replaced what they build on; its servers.
    pub(crate) lock: Py<PyAny>,
    pub(crate) event: Py<PyAny>,
    pub(crate) condition: Py<PyAny>,
    pub(crate) semaphore: Py<PyAny>,
    pub(crate) stream_reader: Py<PyAny>,
    pub(crate) server: Py<PyAny>,
    pub(crate) deque: Py<PyAny>,
}

static NAMES: PyOnceLock<Names> = PyOnceLock::new();

/// Looks everything up; called once by the module's init.
pub(crate) fn init(py: Python<'_>) -> PyResult<()> {
    let get =
        |module: &str, name: &str| -> PyResult<Py<PyAny>> { Ok(py.import(module)?.getattr(name)?.unbind()) };
    let class = |module: &str, name: &str| -> PyResult<Py<PyType>> {
        Ok(py.import(module)?.getattr(name)?.cast_into::<PyType>()?.unbind())
    };
    let format_callback_source = get("asyncio.format_helpers", "_format_callback_source")?;
    let names = Names {
        asyncio: Asyncio::load(py)?,
        cancelled_error: class("asyncio.exceptions", "CancelledError")?,
        invalid_state_error: class("asyncio.exceptions", "InvalidStateError")?,
        sendfile_not_available: class("asyncio.exceptions", "SendfileNotAvailableError")?,
        iscoroutine: get("asyncio.coroutines", "iscoroutine")?,
        get_event_loop_policy: match get("asyncio.events", "_get_event_loop_policy") {
            Ok(found) => found,
            Err(_) => get("asyncio.events", "get_event_loop_policy")?,
        },
        future_repr: get("asyncio.base_futures", "_future_repr")?,
        task_repr: get("asyncio.base_tasks", "_task_repr")?,
        task_get_stack: get("asyncio.base_tasks", "_task_get_stack")?,
        task_print_stack: get("asyncio.base_tasks", "_task_print_stack")?,
        format_takes_debug: !format_callback_source.bind(py).getattr("__kwdefaults__")?.is_none(),
        format_callback_source,
        extract_stack: get("asyncio.format_helpers", "extract_stack")?,
        handle: get("asyncio.events", "Handle")?,
        threadsafe_handle: get("asyncio.events", "_ThreadSafeHandle")
            .or_else(|_| get("asyncio.events", "Handle"))?,
        timer_handle: get("asyncio.events", "TimerHandle")?,
        lock: get("asyncio.locks", "Lock")?,
        event: get("asyncio.locks", "Event")?,
        condition: get("asyncio.locks", "Condition")?,
        semaphore: get("asyncio.locks", "Semaphore")?,
        stream_reader: get("asyncio.streams", "StreamReader")?,
        server: get("asyncio.base_events", "Server")?,
        deque: get("collections", "deque")?,
    };
    let _ = NAMES.set(py, names);
    Ok(())
}

/// The table. Only code that runs after the module's init asks for it.
#[inline]
pub(crate) fn names(py: Python<'_>) -> &Names {
    match NAMES.get(py) {
        Some(names) => names,
        None => unreachable!("aioxide._core is being imported"),
    }
}

/// The modules of asyncio.
#[inline]
pub(crate) fn asyncio(py: Python<'_>) -> &Asyncio {
    &names(py).asyncio
}

impl Names {
    /// A callback and its arguments as reports and reprs show them; the arguments themselves in debug mode only.
    pub(crate) fn format_callback<'py>(
        &self,
        callback: &Bound<'py, PyAny>,
        args: &Bound<'py, PyAny>,
        debug: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let format = self.format_callback_source.bind(callback.py());
        if !self.format_takes_debug {
            return format.call1((callback, args));
        }
        let keywords = PyDict::new(callback.py());
        keywords.set_item("debug", debug)?;
        format.call((callback, args), Some(&keywords))
    }
}

/// None, as an object to return.
#[inline]
pub(crate) fn none(py: Python<'_>) -> Bound<'_, PyAny> {
    py.None().into_bound(py)
}

/// True or False, as an object to return.
#[inline]
pub(crate) fn boolean(py: Python<'_>, value: bool) -> Bound<'_, PyAny> {
    PyBool::new(py, value).to_owned().into_any()
}

/// `InvalidStateError(text)`.
pub(crate) fn invalid_state(py: Python<'_>, text: &str) -> PyErr {
    match names(py).invalid_state_error.bind(py).call1((text,)) {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}
