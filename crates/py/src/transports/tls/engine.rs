//! The caller's own OpenSSL session, driven through memory: an `ssl.SSLObject` between two `MemoryBIO`s.
//!
//! Encrypted bytes go in by `feed` and come out by `drain`; the program's by `write` and `read`. An object that is
//! exactly `ssl.SSLObject`, with the methods that the standard library gave it, only passes calls on to the C object
//! behind it; that one is then called directly, and reads into memory of ours. Any other object is called as it is.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMemoryView};

use super::options::{Checked, Names, missing, names};
use crate::ffi::buffer;
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::scratch::{self, Scratch};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// A session.
#[derive(Debug)]
pub(super) struct Engine {
    /// The SSLObject, as `get_extra_info("ssl_object")` gives it.
    pub(super) object: Slot,
    /// What `read` and `write` are called on.
    target: Slot,
    /// The target is the C object.
    direct: Flag<bool>,
    pub(super) incoming: Slot,
    pub(super) outgoing: Slot,
}

/// What a call of OpenSSL came to.
pub(super) enum Got<T> {
    /// It did what was asked.
    Done(T),
    /// It needs more from the peer.
    Later,
}

/// Why a run of reads stopped.
pub(super) enum End {
    /// Nothing is left to read now.
    Drained,
    /// No room is left.
    Full,
    /// The peer has sent close_notify.
    Closed,
    /// OpenSSL reports an error.
    Failed(PyErr),
}

impl Engine {
    pub(super) fn new(options: &Checked<'_>, server_side: bool) -> PyResult<Self> {
        let py = options.context.py();
        let names = names(py).map_err(|_| missing("stdlib ssl module not available"))?;
        let bio = names.memory_bio.bind(py);
        let (incoming, outgoing) = (bio.call0()?, bio.call0()?);
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "server_side"), server_side)?;
        keywords.set_item(intern!(py, "server_hostname"), options.server_hostname.as_ref())?;
        let object =
            options.context.call_method(intern!(py, "wrap_bio"), (&incoming, &outgoing), Some(&keywords))?;
        let behind = behind(names, &object)?;
        let direct = behind.is_some();
        Ok(Self {
            target: Slot::holding(behind.unwrap_or_else(|| object.clone()).unbind()),
            object: Slot::holding(object.unbind()),
            direct: Flag::new(direct),
            incoming: Slot::holding(incoming.unbind()),
            outgoing: Slot::holding(outgoing.unbind()),
        })
    }

    fn slots(&self) -> [&Slot; 4] {
        [&self.object, &self.target, &self.incoming, &self.outgoing]
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.slots().into_iter().try_for_each(|slot| slot.traverse(visit))
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        for slot in self.slots() {
            drop(slot.take(py));
        }
    }

    /// One of the parts; they are there until the garbage collector takes them.
    fn part<'py>(py: Python<'py>, slot: &Slot) -> Object<'py> {
        slot.get(py).ok_or_else(|| missing("the TLS session is gone"))
    }

    // --- the encrypted side ----------------------------------------------------------------------

    /// Takes encrypted bytes from the peer.
    #[inline]
    pub(super) fn feed<'py>(&self, bytes: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = bytes.py();
        Self::part(py, &self.incoming)?.call_method1(intern!(py, "write"), (bytes,)).map(drop)
    }

    /// How many encrypted bytes from the peer have not been looked at.
    #[inline]
    pub(super) fn fed(&self, py: Python<'_>) -> PyResult<usize> {
        Self::part(py, &self.incoming)?.getattr(intern!(py, "pending"))?.extract()
    }

    /// How many encrypted bytes wait to be sent.
    pub(super) fn owed(&self, py: Python<'_>) -> PyResult<usize> {
        Self::part(py, &self.outgoing)?.getattr(intern!(py, "pending"))?.extract()
    }

    /// Gives the encrypted bytes that are to be sent, if there are any.
    #[inline]
    pub(super) fn drain<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let bytes = Self::part(py, &self.outgoing)?.call_method0(intern!(py, "read"))?;
        let empty = bytes.cast::<PyBytes>().is_ok_and(|bytes| bytes.as_bytes().is_empty());
        Ok((!empty).then_some(bytes))
    }

    // --- the program's side ----------------------------------------------------------------------

    /// `SSLObject.do_handshake()`.
    pub(super) fn shake(&self, py: Python<'_>) -> PyResult<Got<()>> {
        again(py, Self::part(py, &self.object)?.call_method0(intern!(py, "do_handshake")).map(drop))
    }

    /// `SSLObject.unwrap()`.
    pub(super) fn unwrap(&self, py: Python<'_>) -> PyResult<Got<()>> {
        again(py, Self::part(py, &self.object)?.call_method0(intern!(py, "unwrap")).map(drop))
    }

    /// Encrypts: how many bytes were taken.
    #[inline]
    pub(super) fn write<'py>(&self, data: &Bound<'py, PyAny>) -> PyResult<Got<usize>> {
        let py = data.py();
        let count = Self::part(py, &self.target)?.call_method1(intern!(py, "write"), (data,));
        again(py, count.and_then(|count| count.extract()))
    }

    /// Decrypts into the block what there is of whole records, as much as it holds: how many bytes, and why no more.
    #[inline]
    pub(super) fn read(&self, scratch: &mut Scratch<'_>, py: Python<'_>) -> (usize, End) {
        let mut length = 0;
        loop {
            let room = scratch::SIZE - length;
            let got = if self.direct.get() {
                self.read_into(scratch.window(length, room), room)
            } else {
                self.read_bytes(py, scratch, length)
            };
            let end = self.ended(py, got, room, &mut length);
            if let Some(end) = end {
                return (length, end);
            }
        }
    }

    /// As [`read`](Self::read), into memory that a protocol lends, `room` bytes long.
    pub(super) fn read_lent<'py>(&self, memory: &Bound<'py, PyAny>, room: usize) -> PyResult<(usize, End)> {
        let py = memory.py();
        let mut length = 0;
        let got = self.read_into(memory, room);
        if let Some(end) = self.ended(py, got, room, &mut length) {
            return Ok((length, end));
        }
        // More records: each goes behind the one before.
        let view = PyMemoryView::from(memory)?.call_method1(intern!(py, "cast"), ("B",))?;
        loop {
            let left = room - length;
            let got = self.read_into(&buffer::part(&view, length, room)?, left);
            if let Some(end) = self.ended(py, got, left, &mut length) {
                return Ok((length, end));
            }
        }
    }

    /// One record, or the rest of one; 0 is the end.
    #[inline]
    fn read_into(&self, memory: &Bound<'_, PyAny>, room: usize) -> PyResult<usize> {
        let py = memory.py();
        Self::part(py, &self.target)?.call_method1(intern!(py, "read"), (room, memory))?.extract()
    }

    /// As [`read_into`](Self::read_into), for an object that may have a `read` of its own.
    fn read_bytes(&self, py: Python<'_>, scratch: &mut Scratch<'_>, at: usize) -> PyResult<usize> {
        let room = scratch::SIZE - at;
        let data = Self::part(py, &self.target)?.call_method1(intern!(py, "read"), (room,))?;
        buffer::read(&data, |data| {
            scratch.fill(|memory| {
                let length = data.len().min(room);
                memory[at..at + length].copy_from_slice(&data[..length]);
                length
            })
        })?
    }

    /// Whether a run of reads is over after this one.
    #[inline]
    fn ended(&self, py: Python<'_>, got: PyResult<usize>, room: usize, length: &mut usize) -> Option<End> {
        match again(py, got) {
            Ok(Got::Done(0)) => Some(End::Closed),
            Ok(Got::Done(count)) => {
                *length += count;
                if count >= room {
                    return Some(End::Full);
                }
                // A read that leaves room has used up its record. Without another one to look at, the next would only
                // raise "want read".
                match self.fed(py) {
                    Ok(0) => Some(End::Drained),
                    Ok(_) => None,
                    Err(error) => Some(End::Failed(error)),
                }
            }
            Ok(Got::Later) => Some(End::Drained),
            Err(error) => Some(End::Failed(error)),
        }
    }
}

/// The C object behind an SSLObject, if all the methods between are the standard library's own.
fn behind<'py>(names: &Names, object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    let class = names.ssl_object.bind(py);
    if !object.get_type().is(class) {
        return Ok(None);
    }
    let globals = names.module.bind(py).dict();
    for name in [intern!(py, "read"), intern!(py, "write")] {
        let function = class.getattr(name)?;
        match function.getattr_opt(intern!(py, "__globals__"))? {
            Some(home) if home.is(&globals) => {}
            _ => return Ok(None),
        }
    }
    let behind = object.getattr_opt(intern!(py, "_sslobj"))?;
    Ok(behind.filter(|behind| behind.get_type().is(names.c_object.bind(py))))
}

/// Tells "the peer must send first" from success and from real errors.
#[inline]
fn again<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<Got<T>> {
    match result {
        Ok(value) => Ok(Got::Done(value)),
        Err(error) => {
            let later =
                names(py)?.again.iter().any(|class| error.matches(py, class.bind(py)).unwrap_or(false));
            if later { Ok(Got::Later) } else { Err(error) }
        }
    }
}
