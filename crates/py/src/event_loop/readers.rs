//! Descriptors that Python code watches: `add_reader`, `add_writer` and their undoing, the waits of `sock_*`, and
//! listening sockets, which programs may treat as watched by `add_reader`.
//!
//! A [`Watch`] is the source of one descriptor: at most one waiter for each direction. When the descriptor is ready
//! turn.rs makes a job of the waiter. Transports own their descriptors and have sources of their own: here their
//! descriptors are refused.

use std::os::fd::RawFd;
use std::sync::Arc;

use aioxide_sys::{Driver, Interest, Key};
use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyTuple, PyWeakrefMethods, PyWeakrefReference};

use super::{EventLoop, closed};
use crate::errors::os_error;
use crate::ffi::context;
use crate::ffi::gc::{Stopped, Visit};
use crate::handles;
use crate::job::Job;
use crate::transports::Source;
use crate::transports::listener::Listener;

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Direction {
    const fn interest(self) -> Interest {
        match self {
            Self::Read => Interest::READ,
            Self::Write => Interest::WRITE,
        }
    }
}

/// Who waits.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// Run it each time the descriptor is ready.
    Handle(Py<PyAny>),
    /// Complete it with None the first time.
    Future(Py<PyAny>),
    /// Have it accept what has come to its socket.
    Listener(Arc<Listener>),
}

impl Waiter {
    fn is(&self, object: &Bound<'_, PyAny>) -> bool {
        match self {
            Self::Handle(own) | Self::Future(own) => own.is(object),
            Self::Listener(_) => false,
        }
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        match self {
            Self::Handle(object) | Self::Future(object) => visit.call(Some(object)),
            Self::Listener(listener) => listener.traverse(visit),
        }
    }

    /// It waits no more: a Handle that was planned already does not run.
    fn end(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Handle(handle) => handle.bind(py).call_method0(intern!(py, "cancel")).map(drop),
            Self::Future(_) | Self::Listener(_) => Ok(()),
        }
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Handle(handle) => Self::Handle(handle.clone_ref(py)),
            Self::Future(future) => Self::Future(future.clone_ref(py)),
            Self::Listener(listener) => Self::Listener(Arc::clone(listener)),
        }
    }
}

/// The waiters of one descriptor.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(super) reader: Option<Waiter>,
    pub(super) writer: Option<Waiter>,
    /// The file object that was given for the descriptor: it stays open while it is watched.
    owner: Option<Py<PyAny>>,
    /// Watched for changes only, and for good: the socket object that this is about. A descriptor that was closed has
    /// no registration in the kernel any more, so another socket under the same number starts anew.
    edge: Option<Py<PyWeakrefReference>>,
}

impl Watch {
    const fn side(&mut self, direction: Direction) -> &mut Option<Waiter> {
        match direction {
            Direction::Read => &mut self.reader,
            Direction::Write => &mut self.writer,
        }
    }

    /// The futures among those who wait.
    pub(super) fn futures(&self) -> impl Iterator<Item = &Py<PyAny>> {
        [&self.reader, &self.writer].into_iter().flatten().filter_map(|waiter| match waiter {
            Waiter::Future(future) => Some(future),
            Waiter::Handle(_) | Waiter::Listener(_) => None,
        })
    }

    /// Who accepts, if it is a listening socket.
    pub(crate) const fn listener(&self) -> Option<&Arc<Listener>> {
        match &self.reader {
            Some(Waiter::Listener(listener)) => Some(listener),
            _ => None,
        }
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            reader: self.reader.as_ref().map(|w| w.clone_ref(py)),
            writer: self.writer.as_ref().map(|w| w.clone_ref(py)),
            owner: self.owner.as_ref().map(|o| o.clone_ref(py)),
            edge: self.edge.as_ref().map(|e| e.clone_ref(py)),
        }
    }

    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        [&self.reader, &self.writer].into_iter().flatten().try_for_each(|waiter| waiter.traverse(visit))?;
        visit.call(self.owner.as_ref())
    }

    /// Whether it is one that stays although nobody waits.
    pub(super) const fn stays(&self) -> bool {
        self.edge.is_some()
    }

    /// Whether nobody waits: the watch is kept only because the next one to wait may well be the same.
    const fn is_idle(&self) -> bool {
        self.reader.is_none() && self.writer.is_none()
    }

    /// What is waited for just now.
    const fn interest(&self) -> Interest {
        let read = if self.reader.is_some() { Interest::READ } else { Interest::NONE };
        if self.writer.is_some() { read.with(Interest::WRITE) } else { read }
    }
}

/// `add_reader(fd, callback, *args)` and `add_writer`.
pub(super) fn add(
    this: &Bound<'_, EventLoop>,
    direction: Direction,
    fd: &Bound<'_, PyAny>,
    callback: Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
) -> PyResult<()> {
    ensure_fd_no_transport(this.as_any(), fd)?;
    add_unchecked(this, direction, fd, callback, args).map(drop)
}

/// `_add_reader` and `_add_writer`: as [`add`] for descriptors that belong to the caller anyway; returns the Handle.
pub(super) fn add_unchecked<'py>(
    this: &Bound<'py, EventLoop>,
    direction: Direction,
    fd: &Bound<'py, PyAny>,
    callback: Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    EventLoop::core(this).check_closed()?;
    let context = context::copy_current(this.py())?;
    let handle = handles::for_job(this.as_any(), callback, args.clone(), context)?;
    let number = number(fd)?;
    let owner = (!fd.is_instance_of::<PyInt>()).then(|| fd.clone().unbind());
    install(this, number, direction, Waiter::Handle(handle.clone().unbind()), owner)?;
    Ok(handle)
}

/// `remove_reader(fd)` and `remove_writer`: whether there was one.
pub(super) fn remove(
    this: &Bound<'_, EventLoop>,
    direction: Direction,
    fd: &Bound<'_, PyAny>,
) -> PyResult<bool> {
    ensure_fd_no_transport(this.as_any(), fd)?;
    remove_unchecked(this, direction, fd)
}

/// `_remove_reader` and `_remove_writer`.
pub(crate) fn remove_unchecked(
    this: &Bound<'_, EventLoop>,
    direction: Direction,
    fd: &Bound<'_, PyAny>,
) -> PyResult<bool> {
    if EventLoop::core(this).is_closed() {
        return Ok(false);
    }
    let number = match number(fd) {
        Ok(number) => number,
        // A file closed while it was watched has no number any more.
        Err(error) => match number_of_owner(this, fd) {
            Some(number) => number,
            None => return Err(error),
        },
    };
    match take(this, number, direction, |_| true) {
        Some(waiter) => waiter.end(this.py()).map(|()| true),
        None => Ok(false),
    }
}

/// Has `listener` hear of connections to `sock` as its reader, as asyncio's servers do: so a program may stop it by
/// `remove_reader`, and put a reader of its own in its place.
pub(crate) fn listen(
    this: &Bound<'_, EventLoop>,
    sock: &Bound<'_, PyAny>,
    listener: &Arc<Listener>,
) -> PyResult<()> {
    let (py, event_loop, fd) = (this.py(), this.get(), number(sock)?);
    if let Some(old) = take(this, fd, Direction::Read, |_| true) {
        old.end(py)?;
    }
    if let Some(key) = event_loop.key_of_fd(py, fd)
        && !matches!(event_loop.source(py, key), Some(Source::Watch(_)))
    {
        drop(event_loop.forget(py, key)); // a transport whose socket was closed behind its back
    }
    let start = || {
        install(
            this,
            fd,
            Direction::Read,
            Waiter::Listener(Arc::clone(listener)),
            Some(sock.clone().unbind()),
        )
    };
    // The number may be that of a file which was closed while it was watched. The first attempt finds that out.
    start().or_else(|_| start())
}

/// The listener of a socket accepts no more, if it still does.
pub(crate) fn unlisten(this: &Bound<'_, EventLoop>, listener: &Arc<Listener>) {
    drop(take(this, listener.fd(), Direction::Read, |waiter| match waiter {
        Waiter::Listener(known) => Arc::ptr_eq(known, listener),
        Waiter::Handle(_) | Waiter::Future(_) => false,
    }));
}

/// Completes `future` once the descriptor is ready. Ends by itself, or by [`drop_future`].
pub(super) fn add_future(
    event_loop: &Bound<'_, PyAny>,
    fd: RawFd,
    direction: Direction,
    future: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let this = event_loop.cast::<EventLoop>()?;
    install(this, fd, direction, Waiter::Future(future.clone().unbind()), None)
}

/// Ends the wait of a future for a descriptor, if it is still this future that waits.
pub(super) fn drop_future(
    event_loop: &Bound<'_, PyAny>,
    fd: RawFd,
    direction: Direction,
    future: &Bound<'_, PyAny>,
) {
    if let Ok(this) = event_loop.cast::<EventLoop>() {
        drop(take(this, fd, direction, |waiter| waiter.is(future)));
    }
}

/// As [`add_future`] for a plain socket whose owner has just been told "not now" by the system: then it is enough to
/// hear when something changes, and the poller may go on watching the socket for the next wait.
pub(super) fn add_edge_future(
    event_loop: &Bound<'_, PyAny>,
    sock: &Bound<'_, PyAny>,
    fd: RawFd,
    direction: Direction,
    future: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let this = event_loop.cast::<EventLoop>()?;
    let (py, event_loop) = (this.py(), this.get());
    let found = event_loop.driver.with(py, |driver| {
        let driver = driver.as_ref()?;
        let key = driver.key_of_fd(fd)?;
        match driver.get(key) {
            Some(Source::Watch(Watch { edge: Some(edge), .. })) => Some((key, Some(edge.clone_ref(py)))),
            _ => Some((key, None)),
        }
    });
    let stale = match found {
        None => None,
        // Somebody watches the descriptor in the ordinary way, or it has an owner.
        Some((_, None)) => return add_future(this.as_any(), fd, direction, future),
        Some((key, Some(edge))) => match edge.bind(py).upgrade() {
            Some(known) if known.is(sock) => return wait_on(this, fd, key, direction, future),
            // Two socket objects that share one descriptor.
            Some(other) if fileno(&other)? == fd => {
                return add_future(this.as_any(), fd, direction, future);
            }
            _ => Some(key),
        },
    };
    if let Some(Source::Watch(watch)) = stale.and_then(|key| event_loop.forget(py, key)) {
        // Its socket was closed, and the number is in use again. Whoever waits finds out by trying.
        for waiter in [watch.reader, watch.writer].into_iter().flatten() {
            if let Waiter::Future(waiter) = waiter {
                EventLoop::core(this).soon(py, Job::Complete(waiter))?;
            }
        }
    }
    let mut watch = Watch { edge: Some(PyWeakrefReference::new(sock)?.unbind()), ..Watch::default() };
    *watch.side(direction) = Some(Waiter::Future(future.clone().unbind()));
    let interest = direction.interest() | Interest::EDGE;
    event_loop.register(py, fd, interest, Source::Watch(watch)).map(drop)
}

/// A watch that is only kept for the next wait is given up: the descriptor may be another file by now.
pub(super) fn give_way(event_loop: &EventLoop, py: Python<'_>, fd: RawFd) {
    let dropped = event_loop.driver.with(py, |driver| {
        let driver = driver.as_mut()?;
        let key = driver.key_of_fd(fd)?;
        match driver.get(key) {
            Some(Source::Watch(watch)) if watch.is_idle() => driver.forget(key),
            _ => None,
        }
    });
    drop(dropped);
}

/// Waits on a socket that the poller watches already, at least for one direction.
fn wait_on(
    this: &Bound<'_, EventLoop>,
    fd: RawFd,
    key: Key,
    direction: Direction,
    future: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let waiter = Waiter::Future(future.clone().unbind());
    this.get().note_io();
    let outcome = this.get().driver.with(this.py(), |driver| {
        let Some(driver) = driver else { return Installed::Closed };
        let interest = driver.interest(key).unwrap_or(Interest::NONE).with(direction.interest());
        if let Err(error) = driver.rearm(key, interest) {
            return Installed::Failed(error, driver.forget(key));
        }
        match driver.get_mut(key) {
            Some(Source::Watch(watch)) => Installed::Done(watch.side(direction).replace(waiter), None),
            _ => Installed::InUse,
        }
    });
    installed(outcome, fd).map(drop)
}

/// Refuses the descriptor of a transport that is in use. Returns the number of any other.
pub(crate) fn ensure_fd_no_transport(
    event_loop: &Bound<'_, PyAny>,
    fd: &Bound<'_, PyAny>,
) -> PyResult<RawFd> {
    let (py, this) = (event_loop.py(), event_loop.cast::<EventLoop>()?);
    let number: RawFd = match fd.cast::<PyInt>() {
        Ok(number) => number.extract()?,
        Err(_) => fileno(fd)?,
    };
    let source = this.get().key_of_fd(py, number).and_then(|key| this.get().source(py, key));
    if let Some(transport) = source.and_then(|s| s.transport(py))
        && !transport.call_method0(intern!(py, "is_closing"))?.is_truthy()?
    {
        let (fd, transport) = (fd.repr()?, transport.repr()?);
        return Err(PyRuntimeError::new_err(format!(
            "File descriptor {fd} is used by transport {transport}"
        )));
    }
    Ok(number)
}

/// `int(file.fileno())`; ValueError for what has none.
fn fileno(file: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let py = file.py();
    let number = || file.call_method0(intern!(py, "fileno"))?.extract::<RawFd>();
    number().map_err(|error| {
        let invalid = error.is_instance_of::<PyAttributeError>(py)
            || error.is_instance_of::<PyTypeError>(py)
            || error.is_instance_of::<PyValueError>(py);
        match file.repr() {
            Ok(shown) if invalid => PyValueError::new_err(format!("Invalid file object: {shown}")),
            _ => error,
        }
    })
}

/// The descriptor that a number or a file object means.
pub(crate) fn number(fd: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let number = if fd.is_instance_of::<PyInt>() { fd.extract()? } else { fileno(fd)? };
    if number < 0 {
        return Err(PyValueError::new_err(format!("Invalid file descriptor: {number}")));
    }
    Ok(number)
}

/// The number under which a file object was watched that is closed now.
fn number_of_owner(this: &Bound<'_, EventLoop>, file: &Bound<'_, PyAny>) -> Option<RawFd> {
    this.get().driver.with(this.py(), |driver| {
        driver.as_ref()?.iter().find_map(|(_, fd, source)| match source {
            Source::Watch(watch) if watch.owner.as_ref().is_some_and(|o| o.is(file)) => Some(fd),
            _ => None,
        })
    })
}

/// How an attempt to install a waiter ended. What Python has to drop is in it.
enum Installed {
    Done(Option<Waiter>, Option<Py<PyWeakrefReference>>),
    Failed(std::io::Error, Option<Source>),
    InUse,
    Closed,
}

/// Makes `waiter` the descriptor's one for its direction; the one before waits no more.
fn install(
    this: &Bound<'_, EventLoop>,
    fd: RawFd,
    direction: Direction,
    waiter: Waiter,
    owner: Option<Py<PyAny>>,
) -> PyResult<()> {
    let event_loop = this.get();
    event_loop.note_io();
    give_way(event_loop, this.py(), fd);
    let outcome = event_loop.driver.with(this.py(), |driver| match driver {
        Some(driver) => install_in(driver, fd, direction, waiter, owner),
        None => Installed::Closed,
    });
    installed(outcome, fd)?.map_or(Ok(()), |old| old.end(this.py()))
}

fn installed(outcome: Installed, fd: RawFd) -> PyResult<Option<Waiter>> {
    match outcome {
        Installed::Done(old, _dropped) => Ok(old),
        Installed::Failed(error, _dropped) => Err(os_error(&error)),
        Installed::InUse => {
            Err(PyRuntimeError::new_err(format!("File descriptor {fd} is used by a transport")))
        }
        Installed::Closed => Err(closed()),
    }
}

fn install_in(
    driver: &mut Driver<Source>,
    fd: RawFd,
    direction: Direction,
    waiter: Waiter,
    owner: Option<Py<PyAny>>,
) -> Installed {
    let Some(key) = driver.key_of_fd(fd) else {
        let mut watch = Watch { owner, ..Watch::default() };
        *watch.side(direction) = Some(waiter);
        return match driver.try_register(fd, direction.interest(), Source::Watch(watch)) {
            Ok(_) => Installed::Done(None, None),
            Err((error, source)) => Installed::Failed(error, Some(source)),
        };
    };
    let Some(Source::Watch(watch)) = driver.get(key) else { return Installed::InUse };
    let interest = watch.interest().with(direction.interest());
    if let Err(error) = driver.rearm(key, interest) {
        // The descriptor was closed while it was watched: its waiters are of no use any more.
        return Installed::Failed(error, driver.forget(key));
    }
    match driver.get_mut(key) {
        Some(Source::Watch(watch)) => {
            let edge = watch.edge.take();
            Installed::Done(watch.side(direction).replace(waiter), edge)
        }
        _ => Installed::InUse,
    }
}

/// Takes the waiter of one direction out, if there is one that `wanted` accepts.
fn take(
    this: &Bound<'_, EventLoop>,
    fd: RawFd,
    direction: Direction,
    wanted: impl FnOnce(&Waiter) -> bool,
) -> Option<Waiter> {
    let (waiter, _dropped) = this.get().driver.with(this.py(), |driver| {
        let Some(driver) = driver else { return (None, None) };
        let Some(key) = driver.key_of_fd(fd) else { return (None, None) };
        let Some(Source::Watch(watch)) = driver.get_mut(key) else { return (None, None) };
        let side = watch.side(direction);
        if !side.as_ref().is_some_and(wanted) {
            return (None, None);
        }
        let waiter = side.take();
        if watch.edge.is_some() {
            return (waiter, None);
        }
        let left = driver.interest(key).unwrap_or(Interest::NONE).without(direction.interest());
        // An error means that the descriptor is closed: then there is nothing left to watch.
        let gone = left.is_empty() || driver.rearm(key, left).is_err();
        (waiter, if gone { driver.forget(key) } else { None })
    });
    waiter
}
