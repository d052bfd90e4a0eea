//! The received bytes of a StreamReader, in one of three places.
//!
//! A piece that arrives while nothing is unread is kept as the object that it came in, and mostly read as that: no
//! copy. More than one piece, or a part of one, is in core's `Inflow`, which has the rules. And once Python code has
//! asked for `_buffer`, the bytes are in the bytearray that it got, for as long as it keeps it: what it changes counts.

use aioxide_core::Flow;
use aioxide_core::inflow::{Inflow, Line, Search, Verdict};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};

use crate::ffi::cell::{GilCell, Slot};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::{buffer, class};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'a> {
    /// At most so many bytes.
    Read(usize),
    Exactly(usize),
    Line,
    /// Up to the end of one of these, which are ordered by length.
    Until(&'a [Bound<'a, PyBytes>]),
}

/// The answer.
#[derive(Debug)]
pub(super) enum Answer<'py> {
    Bytes(Bound<'py, PyBytes>),
    Wait,
    /// The stream ended before that; all there was.
    Incomplete(Bound<'py, PyBytes>),
    SeparatorTooFar(usize),
    NoSeparator(usize),
    /// The line was longer than the limit, and has been thrown away; whether its end was there.
    LineTooLong {
        ended: bool,
    },
}

/// See the module.
pub(super) struct Buffer {
    inflow: GilCell<Inflow>,
    /// The only piece; then there is nothing in the other two.
    piece: Slot,
    /// `_buffer`, as long as somebody else has it too.
    shared: Slot,
}

impl Buffer {
    pub(super) const fn new(limit: usize) -> Self {
        Self { inflow: GilCell::new(Inflow::new(limit)), piece: Slot::empty(), shared: Slot::empty() }
    }

    /// The rules' part: limit, end, pause. Its bytes may be elsewhere.
    #[inline]
    pub(super) fn with<R>(&self, py: Python<'_>, f: impl FnOnce(&mut Inflow) -> R) -> R {
        self.inflow.with(py, f)
    }

    /// Takes in what was received.
    #[inline]
    pub(super) fn feed(&self, data: Bound<'_, PyBytes>) -> PyResult<Flow> {
        let py = data.py();
        if !self.piece.is_some() && !self.shared.is_some() {
            let length = data.as_bytes().len();
            let apart = |inflow: &mut Inflow| {
                inflow.is_empty() && !inflow.is_paused() && length <= inflow.limit().saturating_mul(2)
            };
            if self.with(py, |inflow| apart(inflow)) {
                self.piece.set(py, data.into_any());
                return Ok(Flow::Nothing);
            }
        }
        self.extend(py, data.as_bytes())
    }

    /// Takes in bytes of any origin.
    pub(super) fn extend(&self, py: Python<'_>, data: &[u8]) -> PyResult<Flow> {
        self.collect(py)?;
        let flow = self.with(py, |inflow| inflow.feed(data));
        self.share(py)?;
        Ok(flow)
    }

    /// Answers a request as far as the bytes go.
    #[inline]
    pub(super) fn ask<'py>(
        &self,
        py: Python<'py>,
        request: Request<'_>,
        search: &mut Search,
    ) -> PyResult<(Answer<'py>, Flow)> {
        if let Some(piece) = self.piece.take(py) {
            let Ok(piece) = piece.cast_into::<PyBytes>() else { return Ok((Answer::Wait, Flow::Nothing)) };
            let whole = piece.as_bytes();
            let fits = match request {
                Request::Read(most) => whole.len() <= most,
                Request::Exactly(count) => whole.len() == count,
                Request::Line => self.with(py, |inflow| inflow.is_line(whole)),
                Request::Until(_) => false,
            };
            if fits {
                return Ok((Answer::Bytes(piece), self.with(py, |inflow| inflow.consume(0))));
            }
            self.with(py, |inflow| inflow.replace(whole));
        }
        self.collect(py)?;
        let answer = self.with(py, |inflow| answer(py, inflow, request, search));
        self.share(py)?;
        Ok(answer)
    }

    /// Brings all bytes into the inflow.
    fn collect(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(piece) = self.piece.take(py) {
            if let Ok(piece) = piece.cast::<PyBytes>() {
                self.with(py, |inflow| inflow.replace(piece.as_bytes()));
            }
        } else if let Some(shared) = self.shared.get(py) {
            buffer::read(&shared, |bytes| self.with(py, |inflow| inflow.replace(bytes)))?;
            if class::references(&shared) == 2 {
                drop(self.shared.take(py)); // nobody else looks at it any more
            }
        }
        Ok(())
    }

    /// Shows in `_buffer` what has changed, if somebody has it.
    fn share(&self, py: Python<'_>) -> PyResult<()> {
        let Some(shared) = self.shared.get(py) else { return Ok(()) };
        let Ok(shared) = shared.cast::<PyByteArray>() else { return Ok(()) };
        shared.resize(self.with(py, |inflow| inflow.len()))?;
        buffer::write(shared, |bytes| self.with(py, |inflow| bytes.copy_from_slice(inflow.unread())))
    }

    /// `_buffer`.
    pub(super) fn object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(shared) = self.shared.get(py) {
            return Ok(shared);
        }
        self.collect(py)?;
        let shared = self.with(py, |inflow| PyByteArray::new(py, inflow.unread())).into_any();
        self.shared.set(py, shared.clone());
        Ok(shared)
    }

    /// `_buffer = object`.
    pub(super) fn set_object(&self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        let object = object.cast::<PyByteArray>()?;
        drop(self.piece.take(py));
        self.shared.set(py, object.clone().into_any());
        buffer::read(object, |bytes| self.with(py, |inflow| inflow.replace(bytes)))
    }

    /// How many bytes are unread.
    pub(super) fn len(&self, py: Python<'_>) -> PyResult<usize> {
        match self.piece.get(py) {
            Some(piece) => piece.len(),
            None => match self.shared.get(py) {
                Some(shared) => shared.len(),
                None => Ok(self.with(py, |inflow| inflow.len())),
            },
        }
    }

    /// Whether a paused transport may go on, now that so many bytes are unread.
    pub(super) fn release(&self, py: Python<'_>) -> PyResult<Flow> {
        if self.piece.is_some() || self.shared.is_some() {
            self.collect(py)?;
        }
        let flow = self.with(py, |inflow| inflow.consume(0));
        Ok(flow)
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.piece.traverse(visit)?;
        self.shared.traverse(visit)
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        drop((self.piece.take(py), self.shared.take(py)));
    }
}

/// What the rules say, with the bytes taken out. Making a bytes object runs no Python code.
fn answer<'py>(
    py: Python<'py>,
    inflow: &mut Inflow,
    request: Request<'_>,
    search: &mut Search,
) -> (Answer<'py>, Flow) {
    let take = |inflow: &mut Inflow, count| {
        let bytes = PyBytes::new(py, inflow.front(count));
        let flow = inflow.consume(count);
        (bytes, flow)
    };
    let verdict = match request {
        Request::Read(most) => inflow.read(most),
        Request::Exactly(count) => inflow.readexactly(count),
        Request::Until([only]) => inflow.readuntil(&[only.as_bytes()], search),
        Request::Until(several) => {
            let several: Vec<_> = several.iter().map(|separator| separator.as_bytes()).collect();
            inflow.readuntil(&several, search)
        }
        Request::Line => match inflow.readline(search) {
            Line::Take(count) => Verdict::Take(count),
            Line::Wait => Verdict::Wait,
            Line::TooLong(count) => return (Answer::LineTooLong { ended: true }, inflow.consume(count)),
            Line::Endless(count) => return (Answer::LineTooLong { ended: false }, inflow.consume(count)),
        },
    };
    match verdict {
        Verdict::Take(count) => {
            let (bytes, flow) = take(inflow, count);
            (Answer::Bytes(bytes), flow)
        }
        Verdict::Wait => (Answer::Wait, Flow::Nothing),
        Verdict::Incomplete(count) => {
            let (bytes, flow) = take(inflow, count);
            (Answer::Incomplete(bytes), flow)
        }
        Verdict::SeparatorTooFar(begin) => (Answer::SeparatorTooFar(begin), Flow::Nothing),
        Verdict::NoSeparator(offset) => (Answer::NoSeparator(offset), Flow::Nothing),
    }
}
