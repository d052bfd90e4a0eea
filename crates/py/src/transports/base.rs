//! What the transports of pipes and datagrams have in common: a loop, a protocol, a file, its place in the driver, and
//! a life that core's `Phase` decides on.
//!
//! A transport implements [`Based`]; the functions here do the rest. The base owns the file object and has the driver
//! forget the descriptor before it closes it. It never reads or writes.

use std::os::fd::RawFd;

use aioxide_core::phase::{Action, Happening, Phase};
use aioxide_sys::{Interest, Key};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyTuple};
use pyo3::{Borrowed, ffi, intern};

use super::census::Place;
use super::receiver::Receiver;
use super::{Source, report};
use crate::errors::ends_the_loop;
use crate::event_loop::EventLoop;
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::{Builder, Class, Inst};
use crate::ffi::context;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::layout::Fut;
use crate::ffi::method::{Of, anyargs, getter, noargs, onearg};
use crate::job::Job;
use crate::local::LoopCore;
use crate::names::{asyncio, boolean, none};
use crate::{futures, handles};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// The common part of a transport.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) event_loop: Slot,
    pub(super) protocol: Slot,
    /// How the protocol is told.
    pub(super) receiver: Flag<Receiver>,
    /// The pipe or socket object, until it is closed.
    pub(super) file: Slot,
    /// The context that everything the transport calls runs in.
    context: Slot,
    /// The instance's `__dict__`.
    pub(super) attributes: Slot,
    pub(super) fd: RawFd,
    pub(super) phase: Flag<Phase>,
    /// `connection_made` has run.
    pub(super) started: Flag<bool>,
    counted: Place,
    watched: Flag<Interest>,
    key: Flag<Option<Key>>,
}

impl Base {
    /// For a file that nobody watches yet.
    pub(super) fn new(
        event_loop: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        file: &Bound<'_, PyAny>,
        fd: RawFd,
    ) -> PyResult<Self> {
        Ok(Self {
            event_loop: Slot::holding(event_loop.clone().unbind()),
            protocol: Slot::holding(protocol.clone().unbind()),
            receiver: Flag::new(Receiver::of(protocol)?),
            file: Slot::holding(file.clone().unbind()),
            context: Slot::holding(context::copy_current(file.py())?.unbind()),
            attributes: Slot::empty(),
            fd,
            phase: Flag::new(Phase::Open),
            started: Flag::new(false),
            counted: Place::none(),
            watched: Flag::new(Interest::NONE),
            key: Flag::new(None),
        })
    }

    fn slots(&self) -> [&Slot; 5] {
        [&self.event_loop, &self.protocol, &self.file, &self.context, &self.attributes]
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.slots().into_iter().try_for_each(|slot| slot.traverse(visit))
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        self.counted.leave(py, &self.event_loop);
        for slot in self.slots() {
            drop(slot.take(py));
        }
    }

    /// The driver forgets the descriptor.
    fn unwatch(&self, py: Python<'_>) {
        self.watched.set(Interest::NONE);
        let (key, event_loop) = (self.key.get(), self.event_loop.get(py));
        self.key.set(None);
        if let (Some(key), Some(event_loop)) = (key, event_loop.as_ref().and_then(EventLoop::of)) {
            drop(event_loop.forget(py, key));
        }
    }
}

/// A transport with a [`Base`].
pub(super) trait Based: Class {
    fn base(&self) -> &Base;
    /// The transport as a source of the driver.
    fn source(transport: Py<PyAny>) -> Source;
    /// What the descriptor is to be watched for in the transport's present state.
    fn wanted(&self) -> Interest;
    /// Whether something written has not gone yet.
    fn has_unsent(&self) -> bool {
        false
    }
    /// Throws away what has not gone.
    fn discard(&self, _py: Python<'_>) {}
    /// Whether an error is the world's daily life, to be mentioned in debug mode only.
    fn is_ordinary(error: &Bound<'_, PyAny>) -> bool {
        error.is_instance_of::<pyo3::exceptions::PyOSError>()
    }
}

/// Tells the protocol in the next turn that it is connected, then starts the transport and completes the waiter.
pub(super) fn begin<'py, T: Based>(
    object: &Bound<'py, PyAny>,
    waiter: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let py = object.py();
    let Some(this) = Inst::<T>::cast_exact(object) else { return Ok(()) };
    let Some(protocol) = this.base().protocol.get(py) else { return Ok(()) };
    if let Some(event_loop) = this.base().event_loop.get(py) {
        this.base().counted.take(&event_loop);
    }
    soon(this, &protocol.getattr(intern!(py, "connection_made"))?, [object])?;
    let none = none(py);
    soon(this, &object.getattr(intern!(py, "_start"))?, [waiter.unwrap_or(&none)])
}

/// `_start(waiter)`.
fn start<'py, T: Based>(this: Inst<'_, 'py, T>, waiter: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    this.base().started.set(true);
    let watched = watch(this); // /dev/null can't be watched; the caller must not wait for ever for that
    if !waiter.is_none() {
        complete(&waiter)?;
    }
    watched.map(|()| none(this.py()))
}

fn complete(waiter: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = waiter.py();
    match Fut::cast(waiter) {
        Some(future) if future.is_pending() => futures::set_result(future, none(py)),
        Some(_) => Ok(()),
        None if waiter.call_method0(intern!(py, "done"))?.is_truthy()? => Ok(()),
        None => waiter.call_method1(intern!(py, "set_result"), (py.None(),)).map(drop),
    }
}

/// Makes the driver watch for what the transport wants now.
pub(super) fn watch<T: Based>(this: Inst<'_, '_, T>) -> PyResult<()> {
    let (py, base, wanted) = (this.py(), this.base(), this.wanted());
    if wanted == base.watched.get() {
        return Ok(());
    }
    if wanted.is_empty() {
        base.unwatch(py);
        return Ok(());
    }
    let event_loop = base.event_loop.get(py);
    let Some(event_loop) = event_loop.as_ref().and_then(EventLoop::of) else { return Ok(()) };
    match base.key.get() {
        Some(key) => event_loop.rearm(py, key, wanted)?,
        None => {
            if let Some(stale) = event_loop.key_of_fd(py, base.fd) {
                // Watched by number once and closed since: the descriptor is the transport's now.
                drop(event_loop.forget(py, stale));
            }
            let source = T::source(this.to_owned().unbind());
            base.key.set(Some(event_loop.register(py, base.fd, wanted, source)?));
        }
    }
    base.watched.set(wanted);
    Ok(())
}

/// Runs `f`, which hears of the descriptor, in the transport's context.
pub(super) fn in_context<T: Based>(this: Inst<'_, '_, T>, f: impl FnOnce() -> PyResult<()>) -> PyResult<()> {
    match this.base().context.get(this.py()) {
        Some(context) => context::run_again(&context, f),
        None => Ok(()),
    }
}

/// `loop.call_soon(callback, *args, context=…)`; where that can't be told apart, without calling it.
pub(super) fn soon<'py, T: Based, const N: usize>(
    this: Inst<'_, 'py, T>,
    callback: &Bound<'py, PyAny>,
    args: [&Bound<'py, PyAny>; N],
) -> PyResult<()> {
    let (py, base) = (this.py(), this.base());
    let (Some(event_loop), Some(context)) = (base.event_loop.get(py), base.context.get(py)) else {
        return Ok(());
    };
    if let Some(core) = LoopCore::of(&event_loop).filter(|c| !c.is_debug() && !c.overrides_call_soon()) {
        let handle = handles::for_job(&event_loop, callback.clone(), PyTuple::new(py, args)?, context)?;
        return core.soon(py, Job::Handle(handle.unbind()));
    }
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "context"), context)?;
    let all: Vec<_> = std::iter::once(callback).chain(args).collect();
    event_loop.call_method(intern!(py, "call_soon"), PyTuple::new(py, all)?, Some(&keywords)).map(drop)
}

// --- the end -------------------------------------------------------------------------------------

/// Something happened in the transport's life; `error` is what `connection_lost` will be told.
pub(super) fn happened<'py, T: Based>(
    this: Inst<'_, 'py, T>,
    happening: Happening,
    error: Option<&Bound<'py, PyAny>>,
) -> PyResult<()> {
    let py = this.py();
    let (phase, action) = this.base().phase.get().on(happening, this.has_unsent());
    this.base().phase.set(phase);
    match action {
        Action::Nothing | Action::ShutWrite => Ok(()),
        Action::StopReading => watch(this),
        Action::End | Action::Discard => {
            this.discard(py);
            watch(this)?;
            let callback = this.object().getattr(intern!(py, "_call_connection_lost"))?;
            soon(this, &callback, [error.unwrap_or(&none(py))])
        }
        Action::EndNow => {
            watch(this)?;
            connection_lost(this, &none(py))
        }
        Action::Release => release(this),
    }
}

/// The last that the protocol hears.
fn connection_lost<'py, T: Based>(this: Inst<'_, 'py, T>, error: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    let result = match this.base().protocol.get(py) {
        Some(protocol) => this.base().receiver.get().connection_lost(&protocol, error),
        None => Ok(()),
    };
    let released = happened(this, Happening::Lost, None);
    result.and(released)
}

/// Closes the file and lets go of everything.
fn release<T: Based>(this: Inst<'_, '_, T>) -> PyResult<()> {
    let (py, base) = (this.py(), this.base());
    base.unwatch(py);
    let closed = match base.file.take(py) {
        Some(file) => file.call_method0(intern!(py, "close")).map(drop),
        None => Ok(()),
    };
    base.counted.leave(py, &base.event_loop);
    drop((base.protocol.take(py), base.event_loop.take(py)));
    closed
}

/// For `Class::finalize`: nobody has closed it and nobody can any more.
pub(super) fn finalize<T: Based>(this: Inst<'_, '_, T>) {
    let (py, base) = (this.py(), this.base());
    futures::without_current_error(py, || {
        if !base.file.is_some() {
            return Ok(());
        }
        let warned = report::unclosed(this.object());
        base.unwatch(py);
        let closed = match base.file.take(py) {
            Some(file) => file.call_method0(intern!(py, "close")).map(drop),
            None => Ok(()),
        };
        warned.and(closed)
    });
}

/// `_fatal_error(error, message)`: reports it and gives the transport up.
pub(super) fn fatal<'py, T: Based>(
    this: Inst<'_, 'py, T>,
    error: &Bound<'py, PyAny>,
    message: &str,
) -> PyResult<()> {
    let (py, base) = (this.py(), this.base());
    if let Some(event_loop) = base.event_loop.get(py) {
        let (protocol, transport) = (base.protocol.get(py), this.to_owned());
        if T::is_ordinary(error) {
            report::fatal(error, message, &event_loop, &transport, protocol.as_ref())?;
        } else {
            let error = PyErr::from_value(error.clone());
            report::failure(error, message, &event_loop, &transport, protocol.as_ref())?;
        }
    }
    happened(this, Happening::Fail, Some(error))
}

/// As [`fatal`] for what was just raised; SystemExit and KeyboardInterrupt go on instead.
#[cold]
pub(super) fn failed<T: Based>(this: Inst<'_, '_, T>, error: PyErr, message: &str) -> PyResult<()> {
    let py = this.py();
    if ends_the_loop(py, &error) {
        return Err(error);
    }
    fatal(this, error.into_value(py).bind(py).as_any(), message)
}

/// `logger.<level>(text, self)` in debug mode.
pub(super) fn log<T: Based>(this: Inst<'_, '_, T>, level: &str, text: &str) -> PyResult<()> {
    match this.base().event_loop.get(this.py()) {
        Some(event_loop) => report::log(&event_loop, level, text, &[&this.to_owned()]),
        None => Ok(()),
    }
}

// --- what Python sees ----------------------------------------------------------------------------

fn held<'py, T: Based>(this: Inst<'_, 'py, T>, slot: impl FnOnce(&Base) -> &Slot) -> Object<'py> {
    Ok(slot(this.base()).get(this.py()).unwrap_or_else(|| none(this.py())))
}

fn is_closing<'py, T: Based>(this: Inst<'_, 'py, T>) -> Object<'py> {
    Ok(boolean(this.py(), this.base().phase.get().is_closing()))
}

fn close<'py, T: Based>(this: Inst<'_, 'py, T>) -> Object<'py> {
    happened(this, Happening::Close, None).map(|()| none(this.py()))
}

pub(super) fn abort<'py, T: Based>(this: Inst<'_, 'py, T>) -> Object<'py> {
    happened(this, Happening::Fail, None).map(|()| none(this.py()))
}

pub(super) fn force_close<'py, T: Based>(
    this: Inst<'_, 'py, T>,
    error: Borrowed<'_, 'py, PyAny>,
) -> Object<'py> {
    happened(this, Happening::Fail, Some(&error)).map(|()| none(this.py()))
}

fn set_protocol<'py, T: Based>(this: Inst<'_, 'py, T>, protocol: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    this.base().receiver.set(Receiver::of(&protocol)?);
    this.base().protocol.set(this.py(), protocol.to_owned());
    Ok(none(this.py()))
}

fn get_protocol<'py, T: Based>(this: Inst<'_, 'py, T>) -> Object<'py> {
    held(this, |base| &base.protocol)
}

fn get_loop<'py, T: Based>(this: Inst<'_, 'py, T>) -> Object<'py> {
    held(this, |base| &base.event_loop)
}

fn get_file<'py, T: Based>(this: Inst<'_, 'py, T>) -> Object<'py> {
    held(this, |base| &base.file)
}

/// As asyncio's own attribute, it may be taken away.
fn set_file<'py, T: Based>(this: Inst<'_, 'py, T>, file: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    drop(this.base().file.replace(this.py(), given(Some(file))));
    Ok(())
}

fn get_fd<'py, T: Based>(this: Inst<'_, 'py, T>) -> Object<'py> {
    Ok(PyInt::new(this.py(), this.base().fd).into_any())
}

fn call_connection_lost<'py, T: Based>(
    this: Inst<'_, 'py, T>,
    error: Borrowed<'_, 'py, PyAny>,
) -> Object<'py> {
    connection_lost(this, &error).map(|()| none(this.py()))
}

fn fatal_error<'py, T: Based>(this: Inst<'_, 'py, T>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "_fatal_error",
        positional: &["exc", "message"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [error, message] = SIGNATURE.bind::<2>(args)?;
    let message = given(message).map(|m| m.extract::<String>()).transpose()?;
    if let Some(error) = error {
        fatal(this, &error, message.as_deref().unwrap_or("Fatal error on transport"))?;
    }
    Ok(none(this.py()))
}

/// The methods and attributes that every such transport has; `names` are those of the file and its descriptor.
pub(super) fn surface<T: Based>(names: [&'static std::ffi::CStr; 2]) -> Builder {
    let [file, fd] = names;
    Builder::of::<T>()
        .method(noargs::<Of<T>, _>(c"is_closing", is_closing::<T>))
        .method(noargs::<Of<T>, _>(c"close", close::<T>))
        .method(onearg::<Of<T>, _>(c"set_protocol", set_protocol::<T>))
        .method(noargs::<Of<T>, _>(c"get_protocol", get_protocol::<T>))
        .method(onearg::<Of<T>, _>(c"_start", start::<T>))
        .method(onearg::<Of<T>, _>(c"_call_connection_lost", call_connection_lost::<T>))
        .method(onearg::<Of<T>, _>(c"_force_close", force_close::<T>))
        .method(anyargs::<Of<T>, _>(c"_fatal_error", fatal_error::<T>))
        .attribute(getter::<Of<T>, _>(c"_loop", get_loop::<T>))
        .attribute(getter::<Of<T>, _>(c"_protocol", get_protocol::<T>))
        .attribute(getter::<Of<T>, _>(c"_closing", is_closing::<T>))
        .attribute(getter::<Of<T>, _>(file, get_file::<T>).setter::<Of<T>, _>(set_file::<T>))
        .attribute(getter::<Of<T>, _>(fd, get_fd::<T>))
}

/// Makes the type, a true subclass of some of asyncio's.
pub(super) fn build<'py, T: Based>(
    builder: Builder,
    module: &Bound<'py, PyModule>,
    names: &[&str],
) -> Object<'py> {
    let py = module.py();
    let transports = asyncio(py).transports.bind(py);
    let bases = names.iter().map(|name| transports.getattr(*name)).collect::<PyResult<Vec<_>>>()?;
    for base in &bases {
        let size: usize = base.getattr("__basicsize__")?.extract()?;
        let is_plain = base.getattr("__dictoffset__")?.extract::<isize>()? == 0
            && base.getattr("__weakrefoffset__")?.extract::<isize>()? == 0;
        if !is_plain || size != size_of::<ffi::PyObject>() + T::INHERITED * size_of::<usize>() {
            return Err(pyo3::exceptions::PyImportError::new_err(format!(
                "aioxide does not know the layout of this Python's {}",
                base.repr()?
            )));
        }
    }
    builder.build(module, Some(&PyTuple::new(py, bases)?), T::cell())
}

/// Whether its loop can still watch it, as reprs show it: "closed", "open" when the loop is closed, else whether it is
/// watched for `interest`.
pub(super) fn polling<T: Based>(this: Inst<'_, '_, T>, interest: Interest) -> &'static str {
    let (py, base) = (this.py(), this.base());
    let event_loop = base.event_loop.get(py);
    match event_loop.as_ref().and_then(LoopCore::of) {
        _ if !base.file.is_some() => "closed",
        Some(core) if core.is_closed() => "open",
        _ if base.watched.get().contains(interest) => "polling",
        _ => "idle",
    }
}

/// The first words of a transport's repr: its class, its state, its descriptor.
pub(super) fn shown<T: Based>(this: Inst<'_, '_, T>) -> PyResult<String> {
    let base = this.base();
    let state = match (base.file.is_some(), base.phase.get().is_closing()) {
        (false, _) => " closed",
        (true, true) => " closing",
        (true, false) => "",
    };
    Ok(format!("<{}{state} fd={}", this.object().get_type().name()?, base.fd))
}
