//! `sendfile` and `sock_sendfile`: a file to a connection, by the kernel where it can, else read and written.
//!
//! The private steps (`_sendfile_native` and the like) are methods too and are called as such, so that a program can
//! overrule one, as it can in asyncio.

use std::io::ErrorKind;
use std::os::fd::RawFd;

use aioxide_sys::{Raw, sendfile};
use pyo3::exceptions::{PyAttributeError, PyConnectionError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyInt};

use super::fallback::Fallback;
use super::readers::{self, Direction};
use super::resolve::constant;
use super::sockets::{self, fileno};
use crate::async_fn::{self, attached, coroutine};
use crate::errors::os_error;
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::buffer;
use crate::ffi::method::{AnyLoop, LoopRef, Method, anyargs};
use crate::futures;
use crate::local::LoopCore;
use crate::names::{asyncio, names};
use crate::transports::tcp;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// How much the fallbacks read at a time: from a socket's file, and from a transport's.
const SOCK_BLOCK: usize = 256 * 1024;
const TRANSPORT_BLOCK: usize = 16 * 1024;

/// How many calls of the system in a row may send something before others have their turn.
const PATIENCE: u32 = 8;

/// The most that one call of the system is asked for.
const MOST: u64 = 1 << 30;

/// What is to be sent where.
struct Job {
    event_loop: Py<PyAny>,
    /// A socket or a transport.
    to: Py<PyAny>,
    file: Py<PyAny>,
    offset: Py<PyAny>,
    count: Py<PyAny>,
}

impl Job {
    /// Calls a step of the loop's, as a method.
    fn step<'py>(&self, py: Python<'py>, name: &str) -> Object<'py> {
        self.event_loop.bind(py).call_method1(name, (&self.to, &self.file, &self.offset, &self.count))
    }

    /// The offset and the count as numbers; a count of zero or None is "all".
    fn numbers(&self, py: Python<'_>) -> PyResult<(u64, Option<u64>)> {
        let count = self.count.bind(py);
        let count = if count.is_truthy()? { Some(count.extract::<u64>()?) } else { None };
        Ok((self.offset.extract(py)?, count))
    }
}

/// SendfileNotAvailableError.
fn not_available(py: Python<'_>, text: &str) -> PyErr {
    match names(py).sendfile_not_available.bind(py).call1((text,)) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

fn is_not_available(error: &PyErr) -> bool {
    attached(|py| error.matches(py, &names(py).sendfile_not_available).unwrap_or(false))
}

// --- the checks ----------------------------------------------------------------------------------

/// `_check_sendfile_params(sock, file, offset, count)`.
fn check_parameters(py: Python<'_>, job: &Job) -> PyResult<()> {
    let (sock, file) = (job.to.bind(py), job.file.bind(py));
    if let Some(mode) = file.getattr_opt(intern!(py, "mode"))?
        && !mode.contains("b")?
    {
        return Err(PyValueError::new_err("file should be opened in binary mode"));
    }
    if sock.getattr(intern!(py, "type"))?.ne(constant(py, "SOCK_STREAM")?)? {
        return Err(PyValueError::new_err("only SOCK_STREAM type sockets are supported"));
    }
    let (offset, count) = (job.offset.bind(py), job.count.bind(py));
    if !count.is_none() {
        let text = || Ok::<_, PyErr>(format!("count must be a positive integer (got {})", count.repr()?));
        if !count.is_instance_of::<PyInt>() {
            return Err(PyTypeError::new_err(text()?));
        }
        if count.le(0)? {
            return Err(PyValueError::new_err(text()?));
        }
    }
    let text = || Ok::<_, PyErr>(format!("offset must be a non-negative integer (got {})", offset.repr()?));
    if !offset.is_instance_of::<PyInt>() {
        return Err(PyTypeError::new_err(text()?));
    }
    if offset.lt(0)? { Err(PyValueError::new_err(text()?)) } else { Ok(()) }
}

// --- the two methods -----------------------------------------------------------------------------

/// `sock_sendfile(sock, file, offset=0, count=None, *, fallback=True)`.
fn sock_sendfile(py: Python<'_>, job: Job, fallback: bool) -> Object<'_> {
    coroutine(py, "BaseEventLoop.sock_sendfile", async move {
        let native = attached(|py| {
            sockets::check(job.event_loop.bind(py), job.to.bind(py))?;
            check_parameters(py, &job)?;
            job.step(py, "_sock_sendfile_native").map(Bound::unbind)
        })?;
        match async_fn::wait(native).await {
            Err(error) if fallback && is_not_available(&error) => {}
            result => return result,
        }
        let by_hand = attached(|py| job.step(py, "_sock_sendfile_fallback").map(Bound::unbind))?;
        async_fn::wait(by_hand).await
    })
}

/// How far a transport goes with sendfile.
enum Mode {
    Unsupported,
    TryNative,
    Fallback,
}

fn mode(transport: &Bound<'_, PyAny>) -> PyResult<Mode> {
    let py = transport.py();
    let Some(mode) = transport.getattr_opt(intern!(py, "_sendfile_compatible"))? else {
        return Ok(Mode::Unsupported);
    };
    let modes = asyncio(py).constants.bind(py).getattr(intern!(py, "_SendfileMode"))?;
    Ok(if mode.is(&modes.getattr(intern!(py, "TRY_NATIVE"))?) {
        Mode::TryNative
    } else if mode.is(&modes.getattr(intern!(py, "UNSUPPORTED"))?) {
        Mode::Unsupported
    } else {
        Mode::Fallback
    })
}

/// `sendfile(transport, file, offset=0, count=None, *, fallback=True)`.
fn transport_sendfile(py: Python<'_>, job: Job, fallback: bool) -> Object<'_> {
    coroutine(py, "BaseEventLoop.sendfile", async move {
        let native = attached(|py| {
            let transport = job.to.bind(py);
            if transport.call_method0(intern!(py, "is_closing"))?.is_truthy()? {
                return Err(PyRuntimeError::new_err("Transport is closing"));
            }
            match mode(transport)? {
                Mode::Unsupported => {
                    let text = format!("sendfile is not supported for transport {}", transport.repr()?);
                    Err(PyRuntimeError::new_err(text))
                }
                Mode::TryNative => job.step(py, "_sendfile_native").map(|native| Some(native.unbind())),
                Mode::Fallback => Ok(None),
            }
        })?;
        if let Some(native) = native {
            match async_fn::wait(native).await {
                Err(error) if fallback && is_not_available(&error) => {}
                result => return result,
            }
        }
        let by_hand = attached(|py| {
            if !fallback {
                let shown = job.to.bind(py).repr()?;
                return Err(PyRuntimeError::new_err(format!(
                    "fallback is disabled and native sendfile is not supported for transport {shown}"
                )));
            }
            job.step(py, "_sendfile_fallback").map(Bound::unbind)
        })?;
        async_fn::wait(by_hand).await
    })
}

// --- by the kernel -------------------------------------------------------------------------------

/// The descriptor and the size of a regular file.
fn regular(py: Python<'_>, file: &Py<PyAny>) -> PyResult<(RawFd, u64)> {
    let number = file.call_method0(py, intern!(py, "fileno")).and_then(|number| number.extract(py));
    let fd: RawFd = match number {
        Ok(fd) => fd,
        Err(error) => {
            let unsupported = py.import("io")?.getattr(intern!(py, "UnsupportedOperation"))?;
            let plain = error.is_instance_of::<PyAttributeError>(py) || error.matches(py, unsupported)?;
            return Err(if plain { not_available(py, "not a regular file") } else { error });
        }
    };
    match sendfile::size(Raw(fd)) {
        Ok(size) => Ok((fd, size)),
        Err(_) => Err(not_available(py, "not a regular file")),
    }
}

/// `_sock_sendfile_native(sock, file, offset, count)`.
fn sock_native(py: Python<'_>, job: Job) -> Object<'_> {
    coroutine(py, "_UnixSelectorEventLoop._sock_sendfile_native", async move {
        let sent = send_natively(&job, &job.to, None).await?;
        attached(|py| Ok(sent.into_pyobject(py)?.into_any().unbind()))
    })
}

/// Sends by the kernel alone; how much went. The file's position follows, whatever the end. `transport`: the one that
/// owns the socket, which then has the wait end if it is closed.
async fn send_natively(job: &Job, sock: &Py<PyAny>, transport: Option<&Py<PyAny>>) -> PyResult<u64> {
    let (file, size, offset, count) = attached(|py| {
        let (file, size) = regular(py, &job.file)?;
        let (offset, count) = job.numbers(py)?;
        Ok::<_, PyErr>((file, size, offset, count))
    })?;
    let block = count.unwrap_or(size);
    if block == 0 {
        return Ok(0);
    }
    let mut sent = 0;
    let result = send_blocks(job, sock, transport, file, (offset, count, block), &mut sent).await;
    // An error here would hide how much went.
    let _ = sendfile::seek(Raw(file), offset + sent);
    result.map(|()| sent)
}

async fn send_blocks(
    job: &Job,
    sock: &Py<PyAny>,
    transport: Option<&Py<PyAny>>,
    file: RawFd,
    (offset, count, block): (u64, Option<u64>, u64),
    sent: &mut u64,
) -> PyResult<()> {
    let mut in_a_row = 0;
    let fd = attached(|py| fileno(sock.bind(py)))?;
    let mut copies = sendfile::is_better_copied(fd, Raw(file), block);
    loop {
        let left = count.map_or(block, |count| count - *sent);
        if left == 0 {
            return Ok(());
        }
        let most = usize::try_from(left.min(MOST)).unwrap_or(usize::MAX);
        let fd = attached(|py| fileno(sock.bind(py)))?;
        let way = if copies { sendfile::copy } else { sendfile::sendfile };
        // Without the GIL: reading the file may wait for the disk.
        match attached(|py| py.detach(|| way(Raw(fd), Raw(file), offset + *sent, most))) {
            Err(error) if copies && error.kind() == ErrorKind::Unsupported => copies = false,
            Ok(0) => return Ok(()), // the end of the file
            Ok(length) => {
                *sent += length as u64;
                in_a_row += 1;
                if in_a_row >= PATIENCE {
                    in_a_row = 0;
                    async_fn::pause().await?;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => attached(|py| py.check_signals())?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                in_a_row = 0;
                writable(job, sock, transport, fd).await?;
            }
            Err(_) if *sent == 0 => {
                return Err(attached(|py| not_available(py, "os.sendfile call failed")));
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                let errno = error.raw_os_error();
                return Err(attached(|py| {
                    let unified = PyConnectionError::new_err(("socket is not connected", errno));
                    unified.set_cause(py, Some(os_error(&error)));
                    unified
                }));
            }
            Err(error) => return Err(os_error(&error)),
        }
    }
}

/// Waits until the socket takes more.
async fn writable(job: &Job, sock: &Py<PyAny>, transport: Option<&Py<PyAny>>, fd: RawFd) -> PyResult<()> {
    let future = attached(|py| -> PyResult<_> {
        let (event_loop, sock) = (job.event_loop.bind(py), sock.bind(py));
        let future = futures::new(event_loop)?;
        if sockets::is_plain(sock) {
            readers::add_edge_future(event_loop, sock, fd, Direction::Write, &future)?;
        } else {
            readers::add_future(event_loop, fd, Direction::Write, &future)?;
        }
        if let Some(transport) = transport {
            tcp::wait_for_flush(transport.bind(py), &future);
        }
        Ok(future.unbind())
    })?;
    let Err((error, left)) = async_fn::wait_for_future(future).await else { return Ok(()) };
    attached(|py| {
        if let Some(left) = left {
            readers::drop_future(job.event_loop.bind(py), fd, Direction::Write, left.bind(py));
        }
    });
    Err(error)
}

/// `_sendfile_native(transport, file, offset, count)`: the transport neither reads nor writes meanwhile.
fn transport_native(py: Python<'_>, job: Job) -> Object<'_> {
    coroutine(py, "BaseSelectorEventLoop._sendfile_native", async move {
        let (resume, waiter) = attached(|py| -> PyResult<_> {
            let transport = job.to.bind(py);
            let resume = transport.call_method0(intern!(py, "is_reading"))?.is_truthy()?;
            transport.call_method0(intern!(py, "pause_reading"))?;
            let waiter = transport.call_method0(intern!(py, "_make_empty_waiter"))?;
            Ok((resume, waiter.unbind()))
        })?;
        let sent = send_through(&job, waiter).await;
        attached(|py| {
            let transport = job.to.bind(py);
            transport.call_method0(intern!(py, "_reset_empty_waiter"))?;
            if resume {
                transport.call_method0(intern!(py, "resume_reading"))?;
            }
            Ok(sent?.into_pyobject(py)?.into_any().unbind())
        })
    })
}

async fn send_through(job: &Job, flushed: Py<PyAny>) -> PyResult<u64> {
    async_fn::wait(flushed).await?;
    let sock = attached(|py| {
        let sock = job.to.bind(py).getattr(intern!(py, "_sock"))?;
        if sock.is_none() {
            return Err(PyConnectionError::new_err("Connection closed"));
        }
        let checked = Job {
            event_loop: job.event_loop.clone_ref(py),
            to: sock.clone().unbind(),
            file: job.file.clone_ref(py),
            offset: job.offset.clone_ref(py),
            count: job.count.clone_ref(py),
        };
        check_parameters(py, &checked)?;
        Ok(sock.unbind())
    })?;
    send_natively(job, &sock, Some(&job.to)).await
}

// --- by hand -------------------------------------------------------------------------------------

/// Reads the file piece by piece in the executor.
struct Pieces<'a> {
    job: &'a Job,
    buffer: Py<PyAny>,
    count: Option<u64>,
    offset: u64,
    sent: u64,
    block: u64,
}

impl<'a> Pieces<'a> {
    fn new(py: Python<'_>, job: &'a Job, most: usize) -> PyResult<Self> {
        let (offset, count) = job.numbers(py)?;
        let file = job.file.bind(py);
        if file.hasattr(intern!(py, "seek"))? {
            file.call_method1(intern!(py, "seek"), (offset,))?;
        }
        let block = count.map_or(most as u64, |count| count.min(most as u64));
        let zeros = vec![0; usize::try_from(block).unwrap_or(most)];
        let buffer = PyByteArray::new(py, &zeros).into_any().unbind();
        Ok(Self { job, buffer, count, offset, sent: 0, block })
    }

    /// The next piece; nothing at the end.
    async fn next(&self) -> PyResult<Option<Py<PyAny>>> {
        let left = self.count.map_or(self.block, |count| (count - self.sent).min(self.block));
        if left == 0 {
            return Ok(None);
        }
        let (view, reading) = attached(|py| -> PyResult<_> {
            let room = usize::try_from(left).unwrap_or(usize::MAX);
            let view = buffer::part(self.buffer.bind(py), 0, room)?;
            let read = self.job.file.bind(py).getattr(intern!(py, "readinto"))?;
            let args = (py.None(), read, &view);
            let reading = self.job.event_loop.bind(py).call_method1(intern!(py, "run_in_executor"), args)?;
            Ok((view.unbind(), reading.unbind()))
        })?;
        let read = async_fn::wait(reading).await?;
        attached(|py| {
            let read = read.bind(py);
            if !read.is_truthy()? {
                return Ok(None);
            }
            buffer::part(view.bind(py), 0, read.extract()?).map(|piece| Some(piece.unbind()))
        })
    }

    /// A piece went.
    fn went(&mut self, py: Python<'_>, piece: &Py<PyAny>) -> PyResult<()> {
        self.sent += piece.bind(py).len()? as u64;
        Ok(())
    }

    /// The file's position follows what went.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let file = self.job.file.bind(py);
        if self.sent > 0 && file.hasattr(intern!(py, "seek"))? {
            file.call_method1(intern!(py, "seek"), (self.offset + self.sent,))?;
        }
        Ok(())
    }
}

/// `_sock_sendfile_fallback(sock, file, offset, count)`.
fn sock_fallback(py: Python<'_>, job: Job) -> Object<'_> {
    coroutine(py, "BaseEventLoop._sock_sendfile_fallback", async move {
        let mut pieces = attached(|py| Pieces::new(py, &job, SOCK_BLOCK))?;
        let result = loop {
            let piece = match pieces.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let sending = attached(|py| {
                let event_loop = job.event_loop.bind(py);
                let sending = event_loop.call_method1(intern!(py, "sock_sendall"), (&job.to, &piece));
                sending.map(Bound::unbind)
            });
            let sent = match sending {
                Ok(sending) => async_fn::wait(sending).await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = sent.and_then(|()| attached(|py| pieces.went(py, &piece))) {
                break Err(error);
            }
        };
        attached(|py| {
            pieces.finish(py)?;
            result?;
            Ok(pieces.sent.into_pyobject(py)?.into_any().unbind())
        })
    })
}

/// `_sendfile_fallback(transport, file, offset, count)`.
fn transport_fallback(py: Python<'_>, job: Job) -> Object<'_> {
    coroutine(py, "BaseEventLoop._sendfile_fallback", async move {
        let mut pieces = attached(|py| Pieces::new(py, &job, TRANSPORT_BLOCK))?;
        let protocol = attached(|py| Fallback::take_over(job.to.bind(py)).map(Bound::unbind))?;
        let result = loop {
            let piece = match pieces.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let written = attached(|py| -> PyResult<_> {
                job.to.bind(py).call_method1(intern!(py, "write"), (&piece,))?;
                Fallback::pending(protocol.bind(py)).map(|future| future.map(Bound::unbind))
            });
            let drained = match written {
                Ok(Some(future)) => async_fn::wait(future).await.map(drop),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = drained.and_then(|()| attached(|py| pieces.went(py, &piece))) {
                break Err(error);
            }
        };
        attached(|py| {
            let finished = pieces.finish(py);
            Fallback::give_back(protocol.bind(py))?;
            finished?;
            result?;
            Ok(pieces.sent.into_pyobject(py)?.into_any().unbind())
        })
    })
}

// --- the methods ---------------------------------------------------------------------------------

/// The arguments of `sendfile` and `sock_sendfile`.
fn arguments(this: LoopRef<'_, '_>, args: Args<'_, '_>, signature: &Signature) -> PyResult<(Job, bool)> {
    let py = args.py();
    let [to, file, offset, count, fallback] = signature.bind::<5>(args)?;
    let or_none = |value| given(value).map_or_else(|| py.None(), Bound::unbind);
    let offset = offset.map_or_else(|| PyInt::new(py, 0).into_any().unbind(), |o| o.to_owned().unbind());
    let fallback = fallback.map_or(Ok(true), |value| value.is_truthy())?;
    let event_loop = this.object.to_owned().unbind();
    Ok((Job { event_loop, to: or_none(to), file: or_none(file), offset, count: or_none(count) }, fallback))
}

fn method_sendfile<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "sendfile",
        positional: &["transport", "file", "offset", "count"],
        required: 2,
        positional_only: 0,
        keyword_only: &["fallback"],
    };
    let (job, fallback) = arguments(this, args, &SIGNATURE)?;
    transport_sendfile(args.py(), job, fallback)
}

fn method_sock_sendfile<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "sock_sendfile",
        positional: &["sock", "file", "offset", "count"],
        required: 2,
        positional_only: 0,
        keyword_only: &["fallback"],
    };
    let (job, fallback) = arguments(this, args, &SIGNATURE)?;
    sock_sendfile(args.py(), job, fallback)
}

/// A private step: four arguments.
macro_rules! step {
    ($method:ident, $step:ident) => {
        fn $method<'py>(this: LoopRef<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
            const SIGNATURE: Signature = Signature {
                name: stringify!($method),
                positional: &["to", "file", "offset", "count"],
                required: 4,
                positional_only: 0,
                keyword_only: &["fallback"],
            };
            let (job, _) = arguments(this, args, &SIGNATURE)?;
            $step(args.py(), job)
        }
    };
}

step!(method_sock_native, sock_native);
step!(method_sock_fallback, sock_fallback);
step!(method_native, transport_native);
step!(method_fallback, transport_fallback);

/// Puts the methods on LoopCore.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let core = module.py().get_type::<LoopCore>();
    let methods: [(&str, Method); 6] = [
        (
            "sendfile",
            anyargs::<AnyLoop, _>(c"sendfile", method_sendfile).doc(
                c"sendfile($self, /, transport, file, offset=0, count=None, *, fallback=True)\n--\n\nSend a file through a transport; return how much went.",
            ),
        ),
        (
            "sock_sendfile",
            anyargs::<AnyLoop, _>(c"sock_sendfile", method_sock_sendfile).doc(
                c"sock_sendfile($self, /, sock, file, offset=0, count=None, *, fallback=True)\n--\n\nSend a file through a socket; return how much went.",
            ),
        ),
        ("_sock_sendfile_native", anyargs::<AnyLoop, _>(c"_sock_sendfile_native", method_sock_native)),
        ("_sock_sendfile_fallback", anyargs::<AnyLoop, _>(c"_sock_sendfile_fallback", method_sock_fallback)),
        ("_sendfile_native", anyargs::<AnyLoop, _>(c"_sendfile_native", method_native)),
        ("_sendfile_fallback", anyargs::<AnyLoop, _>(c"_sendfile_fallback", method_fallback)),
    ];
    for (name, method) in methods {
        core.setattr(name, method.descriptor(&core)?)?;
    }
    Ok(())
}
