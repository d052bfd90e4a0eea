//! The transport of a child process: its life from the spawn to `connection_lost`.
//!
//! Made by event_loop/subprocess.rs around a `subprocess.Popen`; told by the turn when the child's pidfd says that it
//! has ended, and by its pipes (process_pipe.rs) what they get. It alone reaps the child, and publishes the status in
//! the same breath, so that no signal goes to a number that belongs to somebody else by now. It never spawns.

use std::mem::offset_of;
use std::os::fd::AsRawFd;

use aioxide_sys::{Child, Exit, Interest, Key};
use pyo3::exceptions::{PyPermissionError, PyProcessLookupError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::census::Place;
use super::process_pipe::Pipe;
use super::{Source, report};
use crate::async_fn;
use crate::errors::os_error;
use crate::event_loop::EventLoop;
use crate::event_loop::debug::logger;
use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::{Class, Find, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::layout::Fut;
use crate::local::LoopCore;
use crate::names::{asyncio, none};
use crate::{futures, handles};

type Object<'py> = PyResult<Bound<'py, PyAny>>;
pub(crate) type This<'a, 'py> = Inst<'a, 'py, ProcessTransport>;

/// A call of a method of the protocol that came before `connection_made`.
type Call = (Py<PyAny>, Py<PyTuple>);

/// The transport of a child process.
pub(crate) struct ProcessTransport {
    pub(super) event_loop: Slot,
    pub(super) protocol: Slot,
    /// The `subprocess.Popen`.
    pub(super) process: Slot,
    /// The context that everything the transport calls runs in.
    context: Slot,
    /// The instance's `__dict__`.
    attributes: Slot,
    /// What the pipes are told to, by the child's descriptor.
    pub(super) pipes: [Slot; 3],
    /// Which of them there are, connected or not.
    piped: Flag<[bool; 3]>,
    pub(super) pid: i32,
    /// The hold on the process, until it has ended; none where somebody else watches it.
    child: GilCell<Option<Child>>,
    key: Flag<Option<Key>>,
    counted: Place,
    pub(super) returncode: Flag<Option<i32>>,
    pub(super) closed: Flag<bool>,
    /// Nothing more will happen: `connection_lost` is on its way.
    pub(super) finished: Flag<bool>,
    /// What happened before `connection_made`; none after it.
    early: GilCell<Option<Vec<Call>>>,
    /// Futures of those who wait for the end.
    waiters: GilCell<Vec<Py<PyAny>>>,
}

impl Class for ProcessTransport {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.ProcessTransport";
    const INHERITED: usize = 1; // asyncio.BaseTransport's `_extra`
    const DICT: Option<usize> = Some(offset_of!(Self, attributes));
    const STANDS_FOR: Option<Find> =
        Some(|py| asyncio(py).unix_events.bind(py).getattr(intern!(py, "_UnixSubprocessTransport")));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.slots().into_iter().try_for_each(|slot| slot.traverse(visit))?;
        let calls = self.early.visit(|early| {
            early.iter().flatten().try_for_each(|(callback, args)| {
                visit.call(Some(callback))?;
                visit.call(Some(args.as_any()))
            })
        });
        calls.unwrap_or(Ok(()))?;
        let waiters = self.waiters.visit(|waiters| waiters.iter().try_for_each(|w| visit.call(Some(w))));
        waiters.unwrap_or(Ok(()))
    }

    fn clear(&self, py: Python<'_>) {
        self.counted.leave(py, &self.event_loop);
        for slot in self.slots() {
            drop(slot.take(py));
        }
        let (early, waiters) = (self.early.with(py, Option::take), self.waiters.with(py, std::mem::take));
        async_fn::attached(|_| drop((early, waiters))); // at once, in a finalizer too
        drop(self.child.with(py, Option::take));
    }

    /// Nobody has closed it and nobody can any more.
    fn finalize(this: This<'_, '_>) {
        futures::without_current_error(this.py(), || {
            if this.closed.get() {
                return Ok(());
            }
            let warned = report::unclosed(this.object());
            let closed = this.close();
            warned.and(closed)
        });
    }

    fn wants_finalize(&self) -> bool {
        !self.closed.get()
    }
}

impl ProcessTransport {
    fn slots(&self) -> [&Slot; 8] {
        let Self { event_loop, protocol, process, context, attributes, .. } = self;
        let [stdin, stdout, stderr] = &self.pipes;
        [event_loop, protocol, process, context, attributes, stdin, stdout, stderr]
    }

    /// The driver forgets the child.
    fn unwatch(&self, py: Python<'_>) {
        let (key, event_loop) = (self.key.replace(None), self.event_loop.get(py));
        if let (Some(key), Some(event_loop)) = (key, event_loop.as_ref().and_then(EventLoop::of)) {
            drop(event_loop.forget(py, key));
        }
    }
}

/// The descriptors of a child that may be pipes, by their names in Popen.
pub(crate) const STREAMS: [&str; 3] = ["stdin", "stdout", "stderr"];

/// Makes the transport of a process that has just been started. Nobody watches it yet.
pub(crate) fn make<'py>(
    event_loop: &Bound<'py, PyAny>,
    process: &Bound<'py, PyAny>,
    protocol: &Bound<'py, PyAny>,
    context: &Bound<'py, PyAny>,
    extra: Option<&Bound<'py, PyAny>>,
) -> Object<'py> {
    let py = event_loop.py();
    let mut piped = [false; 3];
    for (is_pipe, name) in piped.iter_mut().zip(STREAMS) {
        *is_pipe = !process.getattr(name)?.is_none();
    }
    let info = PyDict::new(py);
    if let Some(extra) = extra {
        info.update(extra.cast()?)?;
    }
    info.set_item(intern!(py, "subprocess"), process)?;
    let value = ProcessTransport {
        event_loop: Slot::holding(event_loop.clone().unbind()),
        protocol: Slot::holding(protocol.clone().unbind()),
        process: Slot::holding(process.clone().unbind()),
        context: Slot::holding(context.clone().unbind()),
        attributes: Slot::empty(),
        pipes: [Slot::empty(), Slot::empty(), Slot::empty()],
        piped: Flag::new(piped),
        pid: process.getattr(intern!(py, "pid"))?.extract()?,
        child: GilCell::new(None),
        key: Flag::new(None),
        counted: Place::none(),
        returncode: Flag::new(None),
        closed: Flag::new(false),
        finished: Flag::new(false),
        early: GilCell::new(Some(Vec::new())),
        waiters: GilCell::new(Vec::new()),
    };
    let object = create(py, value)?;
    object.setattr(intern!(py, "_extra"), info)?;
    if let Some(this) = This::cast_exact(&object) {
        this.counted.take(event_loop);
    }
    Ok(object)
}

/// The child's descriptor is ready: it has ended.
pub(super) fn on_ready(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    let exit = this.child.with(py, |child| child.as_ref().map(Child::reap));
    match exit {
        None | Some(Ok(None)) => Ok(()), // a miss, or too early
        Some(Ok(Some(exit))) => this.ended(exit),
        Some(Err(error)) => Err(os_error(&error)),
    }
}

impl<'py> This<'_, 'py> {
    /// Watches the process by a descriptor. False: there is none to be had.
    pub(crate) fn watch(self) -> PyResult<bool> {
        let py = self.py();
        let event_loop = self.event_loop.get(py);
        let Some(event_loop) = event_loop.as_ref().and_then(EventLoop::of) else { return Ok(false) };
        // Not reaped by anybody yet, so the number is still the child's.
        let Ok(child) = Child::open(self.pid) else { return Ok(false) };
        let source = Source::Child(self.to_owned().unbind());
        self.key.set(Some(event_loop.register(py, child.as_raw_fd(), Interest::READ, source)?));
        self.child.with(py, |place| *place = Some(child));
        Ok(true)
    }

    /// The child has ended, and has been reaped by us or by somebody else.
    fn ended(self, exit: Exit) -> PyResult<()> {
        let py = self.py();
        self.unwatch(py);
        drop(self.child.with(py, Option::take));
        let known = match (exit, self.process.get(py)) {
            (Exit::Unknown, Some(process)) => {
                process.getattr(intern!(py, "returncode"))?.extract::<Option<i32>>()?
            }
            _ => None,
        };
        if exit == Exit::Unknown && known.is_none() {
            let text = "child process pid %d exit status already read:  will report returncode 255";
            logger(py)?.call_method1(intern!(py, "warning"), (text, self.pid))?;
        }
        self.exited(known.unwrap_or_else(|| exit.returncode()))
    }

    /// The status is known.
    pub(crate) fn exited(self, returncode: i32) -> PyResult<()> {
        let py = self.py();
        if self.returncode.get().is_some() {
            return Ok(()); // told twice by a watcher
        }
        self.returncode.set(Some(returncode));
        if let Some(process) = self.process.get(py)
            && process.getattr(intern!(py, "returncode"))?.is_none()
        {
            process.setattr(intern!(py, "returncode"), returncode)?;
        }
        if self.is_debug() {
            let args = ("%r exited with return code %r", self.object(), returncode);
            logger(py)?.call_method1(intern!(py, "info"), args)?;
        }
        let told = self.tell("process_exited", PyTuple::empty(py));
        let finished = self.try_finish();
        let number = returncode.into_pyobject(py)?.into_any();
        for waiter in self.waiters.with(py, std::mem::take) {
            match Fut::cast(waiter.bind(py)) {
                Some(waiter) if waiter.is_pending() => futures::set_result(waiter, number.clone())?,
                _ => {}
            }
        }
        told.and(finished)
    }

    fn is_debug(self) -> bool {
        self.event_loop.get(self.py()).is_some_and(|l| futures::is_debug(&l).unwrap_or(false))
    }

    /// `protocol.method(*args)` in the next turn; after `connection_made`, in any case.
    pub(super) fn tell(self, method: &str, args: Bound<'py, PyTuple>) -> PyResult<()> {
        let py = self.py();
        let Some(protocol) = self.protocol.get(py) else { return Ok(()) };
        self.call(protocol.getattr(method)?, args)
    }

    fn call(self, callback: Bound<'py, PyAny>, args: Bound<'py, PyTuple>) -> PyResult<()> {
        let py = self.py();
        let call = (callback.unbind(), args.unbind());
        let late = self.early.with(py, |early| match early {
            Some(calls) => {
                calls.push(call);
                None
            }
            None => Some(call),
        });
        match late {
            Some((callback, args)) => self.soon(callback.into_bound(py), args.into_bound(py)),
            None => Ok(()),
        }
    }

    /// `loop.call_soon(callback, *args, context=…)`.
    fn soon(self, callback: Bound<'py, PyAny>, args: Bound<'py, PyTuple>) -> PyResult<()> {
        let py = self.py();
        let (Some(event_loop), Some(context)) = (self.event_loop.get(py), self.context.get(py)) else {
            return Ok(());
        };
        if let Some(core) = LoopCore::of(&event_loop).filter(|c| !c.is_debug() && !c.overrides_call_soon()) {
            let handle = handles::for_job(&event_loop, callback, args, context)?;
            return core.soon(py, crate::job::Job::Handle(handle.unbind()));
        }
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "context"), context)?;
        let all = PyTuple::new(py, [callback])?.as_sequence().concat(args.as_sequence())?.to_tuple()?;
        event_loop.call_method(intern!(py, "call_soon"), all, Some(&keywords)).map(drop)
    }

    /// All pipes are connected: the protocol hears of the process, and then of what has happened so far.
    pub(crate) fn connected(self) -> PyResult<()> {
        let py = self.py();
        if let Some(protocol) = self.protocol.get(py) {
            let made = protocol.getattr(intern!(py, "connection_made"))?;
            self.soon(made, PyTuple::new(py, [self.object()])?)?;
        }
        for (callback, args) in self.early.with(py, Option::take).into_iter().flatten() {
            self.soon(callback.into_bound(py), args.into_bound(py))?;
        }
        Ok(())
    }

    /// Which descriptors are pipes that nobody has connected yet.
    pub(crate) fn unconnected(self) -> impl Iterator<Item = usize> {
        let piped = self.piped.get();
        let connected = self.pipes.each_ref().map(Slot::is_some);
        (0..3).filter(move |&fd| piped[fd] && !connected[fd])
    }

    /// The parent's end of the pipe to that descriptor, as Popen made it.
    pub(crate) fn file(self, fd: usize) -> Object<'py> {
        match self.process.get(self.py()) {
            Some(process) => process.getattr(STREAMS[fd]),
            None => Ok(none(self.py())),
        }
    }

    /// That descriptor's pipe is about to be connected, with this protocol.
    pub(crate) fn note_pipe(self, fd: usize, pipe: &Bound<'py, PyAny>) {
        self.pipes[fd].set(self.py(), pipe.clone());
    }

    /// The pipe of that descriptor is gone.
    pub(super) fn pipe_lost(self, fd: usize, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let args = (fd, error).into_pyobject(self.py())?;
        let told = self.tell("pipe_connection_lost", args);
        told.and(self.try_finish())
    }

    /// Once the process and all its pipes are gone, so is the connection.
    fn try_finish(self) -> PyResult<()> {
        let py = self.py();
        if self.returncode.get().is_none() || self.finished.get() {
            return Ok(());
        }
        let lost = |fd: usize| {
            let pipe = self.pipes[fd].get(py);
            pipe.as_ref().and_then(Inst::<Pipe>::cast_exact).is_some_and(|pipe| pipe.is_lost())
        };
        if (0..3).any(|fd| self.piped.get()[fd] && !lost(fd)) {
            return Ok(());
        }
        self.finished.set(true);
        if !self.protocol.is_some() {
            return self.connection_lost(&none(py)); // given up: nobody to tell
        }
        let last = self.object().getattr(intern!(py, "_call_connection_lost"))?;
        self.call(last, PyTuple::new(py, [none(py)])?)
    }

    /// `_call_connection_lost(error)`: the last that the protocol hears.
    pub(super) fn connection_lost(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let protocol = self.protocol.take(py);
        let result = match protocol {
            Some(protocol) => protocol.call_method1(intern!(py, "connection_lost"), (error,)).map(drop),
            None => Ok(()),
        };
        self.counted.leave(py, &self.event_loop);
        drop((self.event_loop.take(py), self.process.take(py), self.context.take(py)));
        result
    }

    /// `close()`: closes the pipes and kills the process if it runs.
    pub(crate) fn close(self) -> PyResult<()> {
        let py = self.py();
        if self.closed.replace(true) {
            return Ok(());
        }
        let event_loop = self.event_loop.get(py);
        let is_open = match &event_loop {
            Some(event_loop) => !event_loop.call_method0(intern!(py, "is_closed"))?.is_truthy()?,
            None => false,
        };
        let mut result = Ok(());
        for pipe in self.pipes.iter().filter_map(|pipe| pipe.get(py)).filter(|_| is_open) {
            if let Some(transport) = Inst::<Pipe>::cast_exact(&pipe).and_then(|pipe| pipe.transport(py)) {
                result = result.and(transport.call_method0(intern!(py, "close")).map(drop));
            }
        }
        result.and(self.kill_if_running())
    }

    fn kill_if_running(self) -> PyResult<()> {
        let py = self.py();
        let Some(process) = self.process.get(py).filter(|_| self.returncode.get().is_none()) else {
            return Ok(());
        };
        // By Popen's own methods: it looks first whether the process has ended without anybody knowing.
        if !process.call_method0(intern!(py, "poll"))?.is_none() {
            return Ok(());
        }
        if self.is_debug() {
            let args = ("Close running child process: kill %r", self.object());
            logger(py)?.call_method1(intern!(py, "warning"), args)?;
        }
        match process.call_method0(intern!(py, "kill")) {
            Err(error)
                if error.is_instance_of::<PyProcessLookupError>(py)
                    || error.is_instance_of::<PyPermissionError>(py) =>
            {
                Ok(()) // gone by now, or not ours to kill (setuid)
            }
            result => result.map(drop),
        }
    }

    /// The attempt to connect has failed: closes the pipes that are connected and those that aren't. The protocol
    /// never hears of the process.
    pub(crate) fn give_up_pipes(self) -> PyResult<()> {
        let py = self.py();
        drop(self.protocol.take(py));
        drop(self.early.with(py, |early| early.as_mut().map(std::mem::take)));
        let Some(process) = self.process.get(py) else { return Ok(()) };
        let mut result = Ok(());
        for (fd, name) in STREAMS.into_iter().enumerate() {
            let pipe = self.pipes[fd].get(py);
            let transport = pipe.as_ref().and_then(Inst::<Pipe>::cast_exact).and_then(|p| p.transport(py));
            let open = match transport {
                Some(transport) => transport,
                None if self.piped.get()[fd] => process.getattr(name)?,
                None => continue,
            };
            result = result.and(open.call_method0(intern!(py, "close")).map(drop));
        }
        // Of those that never were connected nobody will tell that they are lost.
        let connected = |fd: usize| {
            let pipe = self.pipes[fd].get(py);
            pipe.as_ref().and_then(Inst::<Pipe>::cast_exact).is_some_and(|p| p.transport(py).is_some())
        };
        self.piped.set(std::array::from_fn(connected));
        result
    }

    /// `send_signal(signal)`: nothing happens to a process that has ended.
    pub(super) fn send_signal(self, signal: i32) -> PyResult<()> {
        let py = self.py();
        if !self.process.is_some() {
            return Err(PyProcessLookupError::new_err(()));
        }
        if self.returncode.get().is_some() {
            return Ok(());
        }
        let sent = self.child.with(py, |child| match child {
            Some(child) => child.send_signal(signal),
            None => aioxide_sys::child::send_signal(self.pid, signal),
        });
        match sent {
            Err(error) if aioxide_sys::child::is_gone(&error) => Ok(()),
            result => result.map_err(|error| os_error(&error)),
        }
    }

    /// `_wait()`: a coroutine for the status.
    pub(crate) fn wait(self) -> Object<'py> {
        // The root: the transport, which leads by its waiters to the task that waits.
        async_fn::rooted(self.to_owned(), "SubprocessTransport._wait", wait())
    }

    /// A future for the status, if it is not known yet.
    fn add_waiter(self) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = self.py();
        let Some(event_loop) = self.event_loop.get(py).filter(|_| self.returncode.get().is_none()) else {
            return Ok(None);
        };
        let waiter = futures::new(&event_loop)?;
        let kept = waiter.clone().unbind();
        self.waiters.with(py, |waiters| waiters.push(kept));
        Ok(Some(waiter))
    }

    fn remove_waiter(self, waiter: &Bound<'py, PyAny>) {
        let found = self.waiters.with(self.py(), |waiters| {
            let at = waiters.iter().position(|w| w.is(waiter))?;
            Some(waiters.swap_remove(at))
        });
        drop(found);
    }
}

/// The body of [`This::wait`].
async fn wait() -> PyResult<Py<PyAny>> {
    let waiter = async_fn::attached(|py| {
        let root = async_fn::root(py)?;
        let Some(this) = This::cast(&root) else { return Ok(None) };
        Ok::<_, PyErr>(this.add_waiter()?.map(Bound::unbind))
    })?;
    let Some(waiter) = waiter else {
        return async_fn::attached(|py| {
            let root = async_fn::root(py)?;
            let returncode = This::cast(&root).and_then(|this| this.returncode.get());
            Ok(returncode.into_pyobject(py)?.into_any().unbind())
        });
    };
    match async_fn::wait_for_future(waiter).await {
        Ok(returncode) => Ok(returncode),
        Err((error, waiter)) => async_fn::attached(|py| {
            let root = async_fn::root(py)?;
            if let (Some(this), Some(waiter)) = (This::cast(&root), waiter) {
                this.remove_waiter(waiter.bind(py));
            }
            Err(error)
        }),
    }
}
