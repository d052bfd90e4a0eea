//! Unix signals as callbacks of the loop: `add_signal_handler`, `remove_signal_handler`.
//!
//! Python's own C handler writes each signal's number into a socket pair (`signal.set_wakeup_fd`), which the loop
//! watches; so a signal arrives like any input, between two callbacks. The pair is made with the first handler.

use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use aioxide_sys::Interest;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyTuple};

use super::{EventLoop, debug, lifecycle};
use crate::errors::os_error;
use crate::ffi::cell::{GilCell, Slot};
use crate::ffi::context;
use crate::ffi::gc::{Stopped, Visit};
use crate::handles;
use crate::job::Job;
use crate::names::asyncio;
use crate::transports::Source;

/// `errno.EINVAL` on Linux: the kernel refuses a handler for this signal.
const EINVAL: i32 = 22;

/// The handlers and how signals come in.
#[derive(Debug)]
pub(super) struct Signals {
    /// A dict of Handles by signal number; made with the first handler.
    handlers: Slot,
    pipe: GilCell<Option<Pipe>>,
}

#[derive(Debug)]
struct Pipe {
    reader: UnixStream,
    writer: UnixStream,
}

impl Default for Signals {
    fn default() -> Self {
        Self { handlers: Slot::empty(), pipe: GilCell::new(None) }
    }
}

impl Signals {
    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.handlers.traverse(visit)
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        drop(self.handlers.take(py));
    }
}

/// `_signal_handlers`: Handles by signal number.
pub(super) fn handlers<'py>(this: &Bound<'py, EventLoop>) -> PyResult<Bound<'py, PyDict>> {
    let (py, slot) = (this.py(), &this.get().signals.handlers);
    if let Some(handlers) = slot.get(py) {
        return Ok(handlers.cast_into()?);
    }
    let handlers = PyDict::new(py);
    slot.set(py, handlers.clone().into_any());
    Ok(handlers)
}

/// `add_signal_handler(sig, callback, *args)`.
pub(super) fn add(
    this: &Bound<'_, EventLoop>,
    sig: &Bound<'_, PyAny>,
    callback: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
) -> PyResult<()> {
    let py = this.py();
    let is_function = || py.import("inspect")?.call_method1("iscoroutinefunction", (callback,))?.is_truthy();
    let is_coroutine =
        || asyncio(py).coroutines.bind(py).call_method1("iscoroutine", (callback,))?.is_truthy();
    if is_coroutine()? || is_function()? {
        return Err(PyTypeError::new_err("coroutines cannot be used with add_signal_handler()"));
    }
    check(sig)?;
    EventLoop::core(this).check_closed()?;
    let signal = py.import("signal")?;
    // In a thread that isn't the main one this fails, before anything is changed.
    let writer = open(this)?;
    signal.call_method1("set_wakeup_fd", (writer,)).map_err(|error| {
        let expected = error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyOSError>(py);
        if expected { PyRuntimeError::new_err(error.value(py).to_string()) } else { error }
    })?;
    let handle = handles::for_job(this.as_any(), callback.clone(), args.clone(), context::copy_current(py)?)?;
    let handlers = handlers(this)?;
    handlers.set_item(sig, handle)?;
    let install = || {
        signal.call_method1("signal", (sig, wrap_pyfunction!(_sighandler_noop, py)?))?;
        signal.call_method1("siginterrupt", (sig, false))
    };
    let Err(error) = install() else { return Ok(()) };
    if !error.is_instance_of::<PyOSError>(py) {
        return Err(error);
    }
    handlers.del_item(sig)?;
    if handlers.is_empty() {
        forget_wakeup(py)?;
    }
    Err(uncatchable(sig, error))
}

/// `remove_signal_handler(sig)`: whether there was one.
pub(super) fn remove(this: &Bound<'_, EventLoop>, sig: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = this.py();
    check(sig)?;
    let handlers = handlers(this)?;
    if !handlers.contains(sig)? {
        return Ok(false);
    }
    handlers.del_item(sig)?;
    let signal = py.import("signal")?;
    let default = if sig.eq(signal.getattr("SIGINT")?)? { "default_int_handler" } else { "SIG_DFL" };
    if let Err(error) = signal.call_method1("signal", (sig, signal.getattr(default)?)) {
        return Err(if error.is_instance_of::<PyOSError>(py) { uncatchable(sig, error) } else { error });
    }
    if handlers.is_empty() {
        forget_wakeup(py)?;
        close_pipe(this.get(), py); // or a loop that nothing can wake would look as if a signal might
    }
    Ok(true)
}

/// In the child of a fork: the pair is the parent's, which would get what this process is sent. asyncio has told Python
/// not to write there any more; the next handler makes another pair.
pub(super) fn after_fork(event_loop: &EventLoop, py: Python<'_>) {
    close_pipe(event_loop, py);
}

fn close_pipe(event_loop: &EventLoop, py: Python<'_>) {
    let pipe = event_loop.signals.pipe.with(py, Option::take);
    if let Some(key) = pipe.as_ref().and_then(|pipe| event_loop.key_of_fd(py, pipe.reader.as_raw_fd())) {
        drop(event_loop.forget(py, key));
    }
}

/// The pair is readable: queues the handler of each signal that has come.
pub(crate) fn on_ready(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let mut numbers = Vec::new();
    let result = this.get().signals.pipe.with(this.py(), |pipe| match pipe {
        Some(pipe) => read(&pipe.reader, &mut numbers),
        None => Ok(()),
    });
    for number in numbers.into_iter().filter(|&n| n != 0) {
        deliver(this, number)?;
    }
    result.map_err(|e| os_error(&e))
}

fn read(mut reader: &UnixStream, numbers: &mut Vec<u8>) -> std::io::Result<()> {
    let mut buffer = [0; 512];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => numbers.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// `_handle_signal(sig)`.
fn deliver(this: &Bound<'_, EventLoop>, number: u8) -> PyResult<()> {
    let py = this.py();
    let Some(handle) = handlers(this)?.get_item(number)? else { return Ok(()) }; // removed meanwhile
    if handle.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
        return this.call_method1(intern!(py, "remove_signal_handler"), (number,)).map(drop);
    }
    EventLoop::core(this).soon(py, Job::Handle(handle.unbind()))
}

/// Gives every signal back, when the loop is closed.
pub(super) fn close(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let py = this.py();
    let result = give_back(this);
    // The wakeup descriptor is no longer Python's by now, so the pair can go.
    drop(this.get().signals.pipe.with(py, Option::take));
    result
}

fn give_back(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let py = this.py();
    let Some(handlers) = this.get().signals.handlers.get(py) else { return Ok(()) };
    let handlers = handlers.cast_into::<PyDict>()?;
    if handlers.is_empty() {
        return Ok(());
    }
    if lifecycle::is_finalizing(py)? {
        let text = format!(
            "Closing the loop {} on interpreter shutdown stage, skipping signal handlers removal",
            this.repr()?
        );
        handlers.clear();
        return lifecycle::warn_of_resource(this, &text);
    }
    for sig in handlers.keys().iter() {
        this.call_method1(intern!(py, "remove_signal_handler"), (sig,))?;
    }
    Ok(())
}

/// The descriptor that Python's C handler writes to; makes the pair if there is none yet.
fn open(this: &Bound<'_, EventLoop>) -> PyResult<i32> {
    let (py, signals) = (this.py(), &this.get().signals);
    if let Some(writer) = signals.pipe.with(py, |pipe| pipe.as_ref().map(|p| p.writer.as_raw_fd())) {
        return Ok(writer);
    }
    let pipe = Pipe::open().map_err(|e| os_error(&e))?;
    let (reader, writer) = (pipe.reader.as_raw_fd(), pipe.writer.as_raw_fd());
    this.get().register(py, reader, Interest::READ, Source::Signals)?;
    signals.pipe.with(py, |place| *place = Some(pipe));
    Ok(writer)
}

impl Pipe {
    fn open() -> std::io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Self { reader, writer })
    }
}

fn forget_wakeup(py: Python<'_>) -> PyResult<()> {
    match py.import("signal")?.call_method1("set_wakeup_fd", (-1,)) {
        Ok(_) => Ok(()),
        Err(error) if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyOSError>(py) => {
            debug::logger(py)?
                .call_method1("info", ("set_wakeup_fd(-1) failed: %s", error.into_value(py)))
                .map(drop)
        }
        Err(error) => Err(error),
    }
}

/// TypeError or ValueError unless `sig` is the number of a signal.
fn check(sig: &Bound<'_, PyAny>) -> PyResult<()> {
    if !sig.is_instance_of::<PyInt>() {
        return Err(PyTypeError::new_err(format!("sig must be an int, not {}", sig.repr()?)));
    }
    if !sig.py().import("signal")?.call_method0("valid_signals")?.contains(sig)? {
        return Err(PyValueError::new_err(format!("invalid signal number {}", sig.str()?)));
    }
    Ok(())
}

fn uncatchable(sig: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    let errno = error.value(sig.py()).getattr("errno").and_then(|e| e.extract::<i32>());
    match sig.str() {
        Ok(sig) if errno.is_ok_and(|e| e == EINVAL) => {
            PyRuntimeError::new_err(format!("sig {sig} cannot be caught"))
        }
        _ => error,
    }
}

/// Python wants a handler to write to the wakeup descriptor at all; this one has nothing else to do.
#[pyfunction]
#[pyo3(signature = (_signum, _frame))]
fn _sighandler_noop(_signum: &Bound<'_, PyAny>, _frame: &Bound<'_, PyAny>) {}
