//! The event loop: a [`LoopCore`] (scheduler, inbox, clock) with the driver of its descriptors and its hooks.
//!
//! Each file owns one part of the state: `turn` runs it, `lifecycle` starts and ends it, `readers`, `signals`,
//! `executor`, `names`, `hooks` and `debug` are what their names say; `connect`, `serve`, `unix`, `datagram`, `pipes` and
//! `sockets` are the coroutine methods of TCP, of Unix sockets, of UDP, of pipes and of plain sockets; `api` is the table of Python methods.
//! A method gets the loop as `&Bound<EventLoop>` and never holds a borrow of its cells while Python code can run.

mod api;
mod as_handles;
pub(crate) mod connect;
mod datagram;
pub(crate) mod debug;
pub(crate) mod executor;
mod eyeballs;
mod fallback;
pub(crate) mod hooks;
mod idle;
pub(crate) mod instruments;
mod lifecycle;
pub(crate) mod names;
pub(crate) mod nested;
mod pipes;
pub(crate) mod readers;
mod resolve;
pub(crate) mod sendfile;
pub(crate) mod serve;
pub(crate) mod signals;
mod sock_op;
pub(crate) mod sockets;
mod start_tls;
pub(crate) mod subprocess;
mod turn;
mod unix;
mod watchers;

use std::collections::HashMap;
use std::os::fd::{AsRawFd, RawFd};

use aioxide_core::metrics::Metrics;
use aioxide_sys::{Driver, Interest, Key, fork};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyType;

pub(crate) use self::instruments::measure;
use crate::calls;
use crate::errors::os_error;
use crate::ffi::cell::{Flag, GilCell};
use crate::ffi::gc::{Stopped, Visit};
use crate::inspect::trace;
use crate::local::LoopCore;
use crate::transports::{Source, held};

/// How many turns in a row look at the descriptors after the last sign of input or output.
const EAGER_POLLS: u32 = 16;

/// The native event loop; `aioxide.EventLoop` is this class under `asyncio.AbstractEventLoop`.
#[pyclass(frozen, subclass, weakref, extends = LoopCore, module = "aioxide._core", name = "EventLoop")]
#[derive(Debug)]
pub(crate) struct EventLoop {
    /// What watches the descriptors; gone once the loop is closed.
    driver: GilCell<Option<Driver<Source>>>,
    eager_polls: Flag<u32>,
    /// The process that the loop is at home in, as `fork` counts them.
    process: Flag<u32>,
    life: lifecycle::Life,
    hooks: hooks::Hooks,
    signals: signals::Signals,
    executor: executor::Default,
    debug: debug::Debug,
    idle_hook: idle::Hook,
    metrics: GilCell<Option<Box<Metrics>>>,
    put_off: nested::PutOff,
    /// What waits in the kernel for the end of a job.
    pub(crate) held: held::Held,
    /// How many transports it has.
    pub(crate) transports: Flag<usize>,
    /// When the loop's thread looked at its processor time, and how much that was; none yet: negative.
    cpu_mark: Flag<(f64, f64)>,
    /// Where the loop is in a trace.
    pub(crate) trace: Flag<trace::steps::Place>,
}

impl EventLoop {
    /// The native part of a loop and its own, for `__new__`.
    fn create(class: &Bound<'_, PyType>) -> PyResult<PyClassInitializer<Self>> {
        lifecycle::prepare_for_the_end(class.py())?;
        let core = LoopCore::new().map_err(|e| os_error(&e))?;
        let mut driver = Driver::new().map_err(|e| os_error(&e))?;
        driver.register(core.waker().as_raw_fd(), Interest::READ, Source::Waker).map_err(|e| os_error(&e))?;
        core.set_debug(debug::is_default(class.py())?);
        note_overrides(&core, class)?;
        let this = Self {
            driver: GilCell::new(Some(driver)),
            eager_polls: Flag::new(EAGER_POLLS),
            process: Flag::new(fork::count()),
            life: lifecycle::Life::default(),
            hooks: hooks::Hooks::default(),
            signals: signals::Signals::default(),
            executor: executor::Default::default(),
            debug: debug::Debug::default(),
            idle_hook: idle::Hook::empty(),
            metrics: GilCell::new(None),
            put_off: nested::PutOff::new(),
            held: held::Held::new(),
            transports: Flag::new(0),
            cpu_mark: Flag::new((0.0, -1.0)),
            trace: Flag::new(trace::steps::Place::default()),
        };
        Ok(PyClassInitializer::from(core).add_subclass(this))
    }

    /// The native event loop behind an object, if there is one.
    #[inline]
    pub(crate) fn of<'a>(event_loop: &'a Bound<'_, PyAny>) -> Option<&'a Self> {
        event_loop.cast::<Self>().ok().map(Bound::get)
    }

    /// The loop's scheduler, inbox, clock and mode.
    #[inline]
    pub(crate) fn core<'a>(this: &'a Bound<'_, Self>) -> &'a LoopCore {
        this.as_super().get()
    }

    /// Starts watching `fd`.
    pub(crate) fn register(
        &self,
        py: Python<'_>,
        fd: RawFd,
        interest: Interest,
        source: Source,
    ) -> PyResult<Key> {
        self.note_io();
        readers::give_way(self, py, fd);
        let result =
            self.driver.with(py, |driver| driver.as_mut().map(|d| d.try_register(fd, interest, source)));
        match result {
            Some(Ok(key)) => Ok(key),
            // The source is dropped here, outside the borrow.
            Some(Err((error, _source))) => Err(os_error(&error)),
            None => Err(closed()),
        }
    }

    /// Changes what is watched for. A stale key is a miss, not an error.
    pub(crate) fn rearm(&self, py: Python<'_>, key: Key, interest: Interest) -> PyResult<()> {
        self.note_io();
        let result = self.driver.with(py, |driver| match driver {
            Some(driver) if driver.get(key).is_some() => driver.rearm(key, interest),
            _ => Ok(()),
        });
        result.map_err(|e| os_error(&e))
    }

    /// Stops watching, while the descriptor is still open. The caller drops the source.
    #[must_use]
    pub(crate) fn forget(&self, py: Python<'_>, key: Key) -> Option<Source> {
        self.driver.with(py, |driver| driver.as_mut().and_then(|d| d.forget(key)))
    }

    /// The source under `key`.
    #[inline]
    pub(crate) fn source(&self, py: Python<'_>, key: Key) -> Option<Source> {
        self.driver.with(py, |driver| driver.as_ref().and_then(|d| d.get(key)).map(|s| s.clone_ref(py)))
    }

    /// The key under which `fd` is watched.
    pub(crate) fn key_of_fd(&self, py: Python<'_>, fd: RawFd) -> Option<Key> {
        self.driver.with(py, |driver| driver.as_ref().and_then(|d| d.key_of_fd(fd)))
    }

    /// How many descriptors are watched, the loop's own aside.
    pub(crate) fn count_sources(&self, py: Python<'_>) -> usize {
        self.driver.with(py, |driver| {
            let sources = driver.iter().flat_map(Driver::iter);
            sources.filter(|(_, _, source)| !matches!(source, Source::Waker | Source::Signals)).count()
        })
    }

    /// The futures that wait for descriptors, by address.
    pub(crate) fn waiting_futures(&self, py: Python<'_>) -> HashMap<usize, RawFd> {
        let mut found = HashMap::new();
        self.driver.with(py, |driver| {
            for (_, fd, source) in driver.iter().flat_map(Driver::iter) {
                if let Source::Watch(watch) = source {
                    found.extend(watch.futures().map(|future| (future.as_ptr().addr(), fd)));
                }
            }
        });
        found
    }

    /// Something was read, written or registered: the next turns look at the descriptors even when busy.
    #[inline]
    pub(crate) fn note_io(&self) {
        self.eager_polls.set(EAGER_POLLS);
    }

    /// Before the descriptors are looked at: in the child of a fork, what only one process may have becomes the child's
    /// own first.
    #[inline]
    fn settle(this: &Bound<'_, Self>) -> PyResult<()> {
        if this.get().process.get() == fork::count() { Ok(()) } else { Self::settle_child(this) }
    }

    #[cold]
    fn settle_child(this: &Bound<'_, Self>) -> PyResult<()> {
        let (py, own) = (this.py(), this.get());
        own.process.set(fork::count());
        Self::core(this).waker().renew().map_err(|e| os_error(&e))?;
        signals::after_fork(own, py);
        let settled = own.driver.with(py, |driver| driver.as_mut().map_or(Ok(()), Driver::settle));
        settled.map_err(|e| os_error(&e))
    }

    /// Everything that the loop watches, for `close()`; the caller drops it.
    fn take_sources(&self, py: Python<'_>) -> Option<Driver<Source>> {
        self.driver.with(py, Option::take)
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.driver
            .visit(|driver| match driver {
                Some(driver) => driver.iter().try_for_each(|(_, _, source)| source.traverse(visit)),
                None => Ok(()),
            })
            .unwrap_or(Ok(()))?;
        self.life.traverse(visit)?;
        self.hooks.traverse(visit)?;
        self.signals.traverse(visit)?;
        self.executor.traverse(visit)?;
        self.debug.traverse(visit)?;
        self.put_off.traverse(visit)?;
        self.held.traverse(visit)?;
        self.idle_hook.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop(self.take_sources(py));
        self.life.clear(py);
        self.hooks.clear(py);
        self.signals.clear(py);
        self.executor.clear(py);
        self.debug.clear(py);
        self.put_off.clear(py);
        self.held.clear(py);
        drop(self.idle_hook.take(py));
    }
}

/// Notes which methods of the class are not ours that native code would otherwise go past.
fn note_overrides(core: &LoopCore, class: &Bound<'_, PyType>) -> PyResult<()> {
    for name in ["call_soon", "call_later", "call_at", "time", "create_task"] {
        if !calls::is_native(class, name)? {
            core.note_override(name);
        }
    }
    Ok(())
}

#[cold]
fn closed() -> PyErr {
    PyRuntimeError::new_err("Event loop is closed")
}
