//! `subprocess_exec` and `subprocess_shell`: from a command to the transport of its process and its protocol.
//!
//! The process is started by Python's own `subprocess.Popen`, which knows every option and starts it by vfork where
//! they allow; above that come the pipes and the watch for the end. What has been started is never lost: a failure or
//! cancellation at any await kills it and waits until it is reaped.

use pyo3::Borrowed;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use super::debug::logger;
use super::watchers;
use crate::async_fn::{self, attached};
use crate::errors::ends_the_loop;
use crate::ffi::context;
use crate::futures::is_debug;
use crate::transports::{process, process_pipe};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// An argument whose default is no object that Python could name.
#[derive(Debug)]
pub(super) struct Given(Option<Py<PyAny>>);

impl Given {
    pub(super) const DEFAULT: Self = Self(None);
}

impl<'py> FromPyObject<'_, 'py> for Given {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(Some(object.to_owned().unbind())))
    }
}

/// The arguments of either method.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) protocol_factory: Py<PyAny>,
    /// A tuple for `subprocess_exec`, one string for `subprocess_shell`.
    pub(super) command: Py<PyAny>,
    pub(super) is_shell: bool,
    /// The child's first three descriptors; a pipe by default.
    pub(super) streams: [Given; 3],
    pub(super) shell: Given,
    pub(super) bufsize: Given,
    /// universal_newlines, text, encoding and errors: all must be off.
    pub(super) text: [Option<Py<PyAny>>; 4],
    pub(super) options: Option<Py<PyDict>>,
}

/// `subprocess_exec(…)` and `subprocess_shell(…)`.
pub(super) fn start<'py>(event_loop: &Bound<'py, PyAny>, request: Request) -> Object<'py> {
    let name = if request.is_shell { "EventLoop.subprocess_shell" } else { "EventLoop.subprocess_exec" };
    // The root: the loop, then the transport and the protocol. They lead to the task that waits.
    let root = PyList::new(event_loop.py(), [event_loop])?;
    async_fn::rooted(root.into_any(), name, async move {
        let shown = attached(|py| request.spawn(py))?;
        if let Err(error) = connect().await {
            return Err(give_up(error).await);
        }
        attached(|py| {
            let transport = transport(py)?;
            if let Some(shown) = shown {
                logger(py)?.call_method1(intern!(py, "info"), ("%s: %r", shown, &transport))?;
            }
            // The transport may be through with it already.
            let protocol = async_fn::root(py)?.get_item(2)?;
            Ok((transport, protocol).into_pyobject(py)?.into_any().unbind())
        })
    })
}

/// The loop of the running coroutine.
fn event_loop(py: Python<'_>) -> Object<'_> {
    async_fn::root(py)?.get_item(0)
}

/// The transport of the running coroutine.
fn transport(py: Python<'_>) -> Object<'_> {
    async_fn::root(py)?.get_item(1)
}

/// `subprocess.name`.
fn module<'py>(py: Python<'py>, name: &Bound<'py, PyString>) -> Object<'py> {
    py.import(intern!(py, "subprocess"))?.getattr(name)
}

impl Request {
    /// ValueError for what asyncio refuses.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let refuse = |text: &str| Err(PyValueError::new_err(text.to_owned()));
        let command = self.command.bind(py);
        if self.is_shell && !command.is_instance_of::<PyString>() && !command.is_instance_of::<PyBytes>() {
            return refuse("cmd must be a string");
        }
        let is_true =
            |value: &Option<Py<PyAny>>| value.as_ref().map_or(Ok(false), |v| v.bind(py).is_truthy());
        let [universal_newlines, text, encoding, errors] = &self.text;
        if is_true(universal_newlines)? {
            return refuse("universal_newlines must be False");
        }
        let shell = self.shell.0.as_ref().map_or(Ok(self.is_shell), |v| v.bind(py).is_truthy())?;
        match (self.is_shell, shell) {
            (true, false) => return refuse("shell must be True"),
            (false, true) => return refuse("shell must be False"),
            (true, true) | (false, false) => {}
        }
        if let Some(bufsize) = &self.bufsize.0
            && !bufsize.bind(py).eq(0)?
        {
            return refuse("bufsize must be 0");
        }
        if is_true(text)? {
            return refuse("text must be False");
        }
        if encoding.is_some() {
            return refuse("encoding must be None");
        }
        if errors.is_some() { refuse("errors must be None") } else { Ok(()) }
    }

    /// Starts the process and watches it; its transport becomes part of the coroutine's root. In debug mode, what the
    /// log calls the command.
    fn spawn(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.check(py)?;
        let root = async_fn::root(py)?.cast_into::<PyList>()?;
        let event_loop = root.get_item(0)?;
        let protocol = self.protocol_factory.bind(py).call0()?;
        let is_debug = is_debug(&event_loop)?;
        let streams = self.streams(py)?;
        let shown = if is_debug { Some(self.log(py, &streams)?) } else { None };
        let (options, extra) = self.options(py, streams)?;
        watchers::around(py, |watcher| {
            let popen = module(py, intern!(py, "Popen"))?;
            let process = popen.call((self.command.bind(py),), Some(&options))?;
            let context = context::copy_current(py)?;
            let transport = process::make(&event_loop, &process, &protocol, &context, extra.as_ref())?;
            root.append(&transport)?;
            root.append(&protocol)?;
            watcher.watch(&transport, &process)
        })?;
        if is_debug {
            let command = self.command.bind(py);
            let program = if self.is_shell { command.clone() } else { command.get_item(0)? };
            let pid = transport(py)?.call_method0(intern!(py, "get_pid"))?;
            logger(py)?.call_method1(intern!(py, "debug"), ("process %r created: pid %s", program, pid))?;
        }
        Ok(shown)
    }

    /// What Popen is called with, and what is for the transport.
    fn options<'py>(
        &self,
        py: Python<'py>,
        streams: [Bound<'py, PyAny>; 3],
    ) -> PyResult<(Bound<'py, PyDict>, Option<Bound<'py, PyAny>>)> {
        let options = PyDict::new(py);
        if let Some(more) = &self.options {
            options.update(more.bind(py).as_mapping())?;
        }
        let extra = match options.get_item(intern!(py, "extra"))? {
            Some(extra) => {
                options.del_item(intern!(py, "extra"))?;
                (!extra.is_none()).then_some(extra)
            }
            None => None,
        };
        options.set_item(intern!(py, "shell"), self.is_shell)?;
        options.set_item(intern!(py, "bufsize"), 0)?;
        for (name, stream) in process::STREAMS.into_iter().zip(streams) {
            options.set_item(name, stream)?;
        }
        Ok((options, extra))
    }

    /// stdin, stdout and stderr as Popen takes them.
    fn streams<'py>(&self, py: Python<'py>) -> PyResult<[Bound<'py, PyAny>; 3]> {
        let pipe = module(py, intern!(py, "PIPE"))?;
        Ok(self.streams.each_ref().map(|stream| match &stream.0 {
            Some(given) => given.bind(py).clone(),
            None => pipe.clone(),
        }))
    }

    /// Logs what is about to be started, without the arguments, which may be secrets; what it was called.
    fn log(&self, py: Python<'_>, streams: &[Bound<'_, PyAny>; 3]) -> PyResult<String> {
        let command = self.command.bind(py);
        let shown = if self.is_shell {
            format!("run shell command {}", command.repr()?)
        } else {
            format!("execute program {}", command.get_item(0)?.repr()?)
        };
        let (pipe, stdout) = (module(py, intern!(py, "PIPE"))?, module(py, intern!(py, "STDOUT"))?);
        let name = |stream: &Bound<'_, PyAny>| -> PyResult<String> {
            if stream.eq(&pipe)? {
                return Ok("<pipe>".to_owned());
            }
            if stream.eq(&stdout)? { Ok("<stdout>".to_owned()) } else { Ok(stream.repr()?.to_string()) }
        };
        let [stdin, out, err] = streams;
        let mut text = shown.clone();
        if !stdin.is_none() {
            text.push_str(&format!(" stdin={}", name(stdin)?));
        }
        if !out.is_none() && err.eq(&stdout)? {
            text.push_str(&format!(" stdout=stderr={}", name(out)?));
        } else {
            for (label, stream) in [("stdout", out), ("stderr", err)] {
                if !stream.is_none() {
                    text.push_str(&format!(" {label}={}", name(stream)?));
                }
            }
        }
        logger(py)?.call_method1(intern!(py, "debug"), (text,))?;
        Ok(shown)
    }
}

/// Connects the pipes, one after the other, and tells the protocol.
async fn connect() -> PyResult<()> {
    let unconnected = attached(|py| {
        let transport = transport(py)?;
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
    process::This::cast(&transport(py)?).map_or(Ok(()), f)
}

/// `loop.connect_…_pipe(…)` for one descriptor of the child.
fn connect_pipe(py: Python<'_>, fd: usize) -> PyResult<Py<PyAny>> {
    let transport = transport(py)?;
    let protocol = process_pipe::make(&transport, fd)?;
    let Some(this) = process::This::cast(&transport) else { return Ok(py.None()) };
    this.note_pipe(fd, &protocol);
    let file = this.file(fd)?;
    // A factory that can be collected: the first item of a list.
    let factory = PyList::new(py, [protocol])?.try_iter()?.getattr(intern!(py, "__next__"))?;
    let method = if fd == 0 { intern!(py, "connect_write_pipe") } else { intern!(py, "connect_read_pipe") };
    event_loop(py)?.call_method1(method, (factory, file)).map(Bound::unbind)
}

/// Kills what was started and waits for its end. The error that is to be raised.
async fn give_up(error: PyErr) -> PyErr {
    let ending = attached(|py| {
        if ends_the_loop(py, &error) {
            return Ok(None);
        }
        let root = async_fn::root(py)?;
        if root.len()? < 2 {
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
