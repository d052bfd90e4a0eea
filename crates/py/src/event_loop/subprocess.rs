//! `subprocess_exec` and `subprocess_shell`: from a command to the transport of its process and its protocol.
//!
//! The process is started by Python's own `subprocess.Popen`, which knows every option and starts it by vfork where
//! they allow; above that come the pipes and the watch for the end. What has been started is never lost: a failure or
//! cancellation at any await kills it and waits until it is reaped.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use super::debug::logger;
use super::watchers;
use crate::async_fn::{self, attached};
use crate::blocking::Place;
use crate::errors::ends_the_loop;
use crate::ffi::args::Args;
use crate::ffi::context;
use crate::ffi::method::{AnyLoop, LoopRef, anyargs};
use crate::futures::is_debug;
use crate::local::LoopCore;
use crate::transports::{process, process_pipe};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// `subprocess_exec(protocol_factory, program, *args, …)`.
fn subprocess_exec<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    let py = this.object.py();
    let (positional, keywords) = args.to_call()?;
    let keywords = keywords.unwrap_or_else(|| PyDict::new(py));
    let mut positional = positional.iter();
    let factory = Parameter { method: "subprocess_exec", name: "protocol_factory", position: 1 }
        .take(positional.next(), &keywords)?;
    let program = Parameter { method: "subprocess_exec", name: "program", position: 2 }
        .take(positional.next(), &keywords)?;
    let command: Vec<_> = std::iter::once(program).chain(positional).collect();
    start(this, Kind::Exec, factory, PyTuple::new(py, command)?.into_any(), keywords)
}

/// `subprocess_shell(protocol_factory, cmd, …)`.
fn subprocess_shell<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    let (positional, keywords) = args.to_call()?;
    let keywords = keywords.unwrap_or_else(|| PyDict::new(args.py()));
    if positional.len() > 2 {
        let text =
            format!("subprocess_shell() takes 2 positional arguments but {} were given", positional.len());
        return Err(PyTypeError::new_err(text));
    }
    let mut positional = positional.iter();
    let factory = Parameter { method: "subprocess_shell", name: "protocol_factory", position: 1 }
        .take(positional.next(), &keywords)?;
    let command = Parameter { method: "subprocess_shell", name: "cmd", position: 2 }
        .take(positional.next(), &keywords)?;
    start(this, Kind::Shell, factory, command, keywords)
}

/// A parameter that must be given, by position or by name.
struct Parameter {
    method: &'static str,
    name: &'static str,
    position: u8,
}

impl Parameter {
    fn take<'py>(self, given: Option<Bound<'py, PyAny>>, keywords: &Bound<'py, PyDict>) -> Object<'py> {
        let Self { method, name, position } = self;
        match (given, taken(keywords, name)?) {
            (Some(value), None) | (None, Some(value)) => Ok(value),
            (Some(_), Some(_)) => Err(PyTypeError::new_err(format!(
                "argument for {method}() given by name ('{name}') and position ({position})"
            ))),
            (None, None) => Err(PyTypeError::new_err(format!(
                "{method}() missing required argument '{name}' (pos {position})"
            ))),
        }
    }
}

/// What a dict has under a name, taken out.
fn taken<'py>(keywords: &Bound<'py, PyDict>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let value = keywords.get_item(name)?;
    if value.is_some() {
        keywords.del_item(name)?;
    }
    Ok(value)
}

/// Which of the two methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Exec,
    Shell,
}

/// What the coroutine's root has, where the garbage collector sees it.
#[derive(Clone, Copy, Debug)]
enum Part {
    EventLoop,
    Factory,
    Command,
    Options,
    Transport,
    Protocol,
}

/// The root's part of the running coroutine.
fn part(py: Python<'_>, part: Part) -> Object<'_> {
    async_fn::root(py)?.get_item(part as usize)
}

fn start<'py>(
    this: LoopRef<'_, 'py>,
    kind: Kind,
    factory: Bound<'py, PyAny>,
    command: Bound<'py, PyAny>,
    options: Bound<'py, PyDict>,
) -> Object<'py> {
    let name = match kind {
        Kind::Exec => "BaseEventLoop.subprocess_exec",
        Kind::Shell => "BaseEventLoop.subprocess_shell",
    };
    let root = PyList::new(command.py(), [this.object.to_owned(), factory, command, options.into_any()])?;
    async_fn::rooted(root.into_any(), name, async move {
        let shown = attached(|py| spawn(py, kind))?;
        if let Err(error) = connect().await {
            return Err(give_up(error).await);
        }
        attached(|py| {
            let transport = part(py, Part::Transport)?;
            if let Some(shown) = shown {
                logger(py)?.call_method1(intern!(py, "info"), ("%s: %r", shown, &transport))?;
            }
            // Kept here, as the transport may be through with it already.
            let protocol = part(py, Part::Protocol)?;
            Ok((transport, protocol).into_pyobject(py)?.into_any().unbind())
        })
    })
}

/// `subprocess.name`.
fn module<'py>(py: Python<'py>, name: &Bound<'py, PyString>) -> Object<'py> {
    py.import(intern!(py, "subprocess"))?.getattr(name)
}

/// ValueError for what asyncio refuses. What it accepts without passing it on is taken out of the options.
fn check(kind: Kind, command: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<()> {
    let refuse = |text: &str| Err(PyValueError::new_err(text.to_owned()));
    if kind == Kind::Shell && !command.is_instance_of::<PyString>() && !command.is_instance_of::<PyBytes>() {
        return refuse("cmd must be a string");
    }
    let is_true = |name| taken(options, name)?.map_or(Ok(false), |value| value.is_truthy());
    if is_true("universal_newlines")? {
        return refuse("universal_newlines must be False");
    }
    let shell = options.get_item("shell")?.map_or(Ok(kind == Kind::Shell), |value| value.is_truthy())?;
    match (kind, shell) {
        (Kind::Shell, false) => return refuse("shell must be True"),
        (Kind::Exec, true) => return refuse("shell must be False"),
        (Kind::Shell, true) | (Kind::Exec, false) => {}
    }
    if let Some(bufsize) = options.get_item("bufsize")?
        && !bufsize.eq(0)?
    {
        return refuse("bufsize must be 0");
    }
    if is_true("text")? {
        return refuse("text must be False");
    }
    let is_given = |name| Ok::<_, PyErr>(taken(options, name)?.is_some_and(|value| !value.is_none()));
    if is_given("encoding")? {
        return refuse("encoding must be None");
    }
    if is_given("errors")? { refuse("errors must be None") } else { Ok(()) }
}

/// Starts the process and watches it; its transport becomes part of the coroutine's root. In debug mode, what the log
/// calls the command.
fn spawn(py: Python<'_>, kind: Kind) -> PyResult<Option<String>> {
    let root = async_fn::root(py)?.cast_into::<PyList>()?;
    let (event_loop, command) = (part(py, Part::EventLoop)?, part(py, Part::Command)?);
    let options = part(py, Part::Options)?.cast_into::<PyDict>()?;
    check(kind, &command, &options)?;
    let protocol = part(py, Part::Factory)?.call0()?;
    let extra = taken(&options, "extra")?.filter(|extra| !extra.is_none());
    options.set_item(intern!(py, "shell"), kind == Kind::Shell)?;
    options.set_item(intern!(py, "bufsize"), 0)?;
    for name in process::STREAMS {
        if !options.contains(name)? {
            options.set_item(name, module(py, intern!(py, "PIPE"))?)?;
        }
    }
    let is_debug = is_debug(&event_loop)?;
    let shown = if is_debug { Some(log(kind, &command, &options)?) } else { None };
    watchers::around(py, |watcher| {
        let place = match kind {
            Kind::Exec => Place::SubprocessExec,
            Kind::Shell => Place::SubprocessShell,
        };
        let popen = module(py, intern!(py, "Popen"))?;
        let process = place.of(py)?.call((popen, &command), Some(&options))?;
        let context = context::copy_current(py)?;
        let transport = process::make(&event_loop, &process, &protocol, &context, extra.as_ref())?;
        root.append(&transport)?;
        root.append(&protocol)?;
        watcher.watch(&transport, &process)
    })?;
    if is_debug {
        let program = if kind == Kind::Shell { command } else { command.get_item(0)? };
        let pid = part(py, Part::Transport)?.call_method0(intern!(py, "get_pid"))?;
        logger(py)?.call_method1(intern!(py, "debug"), ("process %r created: pid %s", program, pid))?;
    }
    Ok(shown)
}

/// Logs what is about to be started, without the arguments, which may be secrets; what it was called.
fn log(kind: Kind, command: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<String> {
    let py = command.py();
    let shown = match kind {
        Kind::Shell => format!("run shell command {}", command.repr()?),
        Kind::Exec => format!("execute program {}", command.get_item(0)?.repr()?),
    };
    let (pipe, into_stdout) = (module(py, intern!(py, "PIPE"))?, module(py, intern!(py, "STDOUT"))?);
    let name = |stream: &Bound<'_, PyAny>| -> PyResult<String> {
        if stream.eq(&pipe)? {
            return Ok("<pipe>".to_owned());
        }
        if stream.eq(&into_stdout)? { Ok("<stdout>".to_owned()) } else { Ok(stream.repr()?.to_string()) }
    };
    let stream = |name: &str| Ok::<_, PyErr>(options.get_item(name)?.filter(|stream| !stream.is_none()));
    let mut text = shown.clone();
    if let Some(stdin) = stream("stdin")? {
        text.push_str(&format!(" stdin={}", name(&stdin)?));
    }
    match (stream("stdout")?, stream("stderr")?) {
        (Some(stdout), Some(stderr)) if stderr.eq(&into_stdout)? => {
            text.push_str(&format!(" stdout=stderr={}", name(&stdout)?));
        }
        (stdout, stderr) => {
            for (label, stream) in [("stdout", stdout), ("stderr", stderr)] {
                if let Some(stream) = stream {
                    text.push_str(&format!(" {label}={}", name(&stream)?));
                }
            }
        }
    }
    logger(py)?.call_method1(intern!(py, "debug"), (text,))?;
    Ok(shown)
}

/// Connects the pipes, one after the other, and tells the protocol.
async fn connect() -> PyResult<()> {
    let unconnected = attached(|py| {
        let transport = part(py, Part::Transport)?;
        let this = process::This::cast(&transport);
        Ok::<_, PyErr>(this.map_or_else(Vec::new, |this| this.unconnected().collect()))
    })?;
    for fd in unconnected {
        let connecting = attached(|py| connect_pipe(py, fd))?;
        async_fn::wait(connecting).await?;
    }
    attached(|py| with_transport(py, |this| this.connected()))?;
    // The protocol is told in the next turn, and so before whoever waits here.
    async_fn::pause().await
}

fn with_transport(py: Python<'_>, f: impl FnOnce(process::This<'_, '_>) -> PyResult<()>) -> PyResult<()> {
    process::This::cast(&part(py, Part::Transport)?).map_or(Ok(()), f)
}

/// `loop.connect_…_pipe(…)` for one descriptor of the child.
fn connect_pipe(py: Python<'_>, fd: usize) -> PyResult<Py<PyAny>> {
    let transport = part(py, Part::Transport)?;
    let protocol = process_pipe::make(&transport, fd)?;
    let Some(this) = process::This::cast(&transport) else { return Ok(py.None()) };
    this.note_pipe(fd, &protocol);
    let file = this.file(fd)?;
    // A factory that can be collected: the first item of a list.
    let factory = PyList::new(py, [protocol])?.try_iter()?.getattr(intern!(py, "__next__"))?;
    let method = if fd == 0 { intern!(py, "connect_write_pipe") } else { intern!(py, "connect_read_pipe") };
    part(py, Part::EventLoop)?.call_method1(method, (factory, file)).map(Bound::unbind)
}

/// Kills what was started and waits for its end. The error that is to be raised.
async fn give_up(error: PyErr) -> PyErr {
    let ending = attached(|py| {
        if ends_the_loop(py, &error) {
            return Ok(None);
        }
        let mut ending = None;
        with_transport(py, |this| {
            let closed = this.give_up_pipes().and(this.close());
            ending = Some(this.wait()?.unbind());
            closed
        })?;
        Ok::<_, PyErr>(ending)
    });
    match ending {
        Ok(None) => error,
        Ok(Some(ending)) => async_fn::wait(ending).await.err().unwrap_or(error),
        Err(worse) => worse,
    }
}

/// Puts the methods on the type of loops. (PyO3 knows no parameters whose default Python can't name.)
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let core = module.py().get_type::<LoopCore>();
    let exec = anyargs::<AnyLoop, _>(c"subprocess_exec", subprocess_exec).doc(
        c"subprocess_exec($self, protocol_factory, program, *args, stdin=-1, stdout=-1, stderr=-1, \
        universal_newlines=False, shell=False, bufsize=0, encoding=None, errors=None, text=None, **kwargs)\n--\n\n\
        Start a program.",
    );
    let shell = anyargs::<AnyLoop, _>(c"subprocess_shell", subprocess_shell).doc(
        c"subprocess_shell($self, protocol_factory, cmd, *, stdin=-1, stdout=-1, stderr=-1, \
        universal_newlines=False, shell=True, bufsize=0, encoding=None, errors=None, text=None, **kwargs)\n--\n\n\
        Start a shell with a command.",
    );
    core.setattr("subprocess_exec", exec.descriptor(&core)?)?;
    core.setattr("subprocess_shell", shell.descriptor(&core)?)
}
