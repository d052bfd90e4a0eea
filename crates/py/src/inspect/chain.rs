//! Where a coroutine is: itself and what it awaits, each with its line; and the Python stack of a thread.
//!
//! Names, files and lines, never the values of variables. Objects of other people's classes are asked by attributes;
//! whatever they raise ends the walk and reaches nobody.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::json::Json;
use crate::ffi::layout::Fut;

/// More than this many coroutines within each other are not followed.
const DEEPEST: usize = 500;

/// One line of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) function: String,
    pub(crate) file: String,
    pub(crate) line: u32,
}

impl Link {
    /// The place where a frame is.
    pub(crate) fn of(frame: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = frame.py();
        let code = frame.getattr(intern!(py, "f_code"))?;
        let line: Option<u32> = frame.getattr(intern!(py, "f_lineno"))?.extract()?;
        let line = match line {
            Some(line) => line,
            None => code.getattr(intern!(py, "co_firstlineno"))?.extract()?,
        };
        Ok(Self {
            function: code.getattr(intern!(py, "co_qualname"))?.extract()?,
            file: code.getattr(intern!(py, "co_filename"))?.extract()?,
            line,
        })
    }

    /// Whether it is in a native coroutine, where there is no line.
    pub(super) fn is_native(&self) -> bool {
        self.file == "<aioxide>"
    }

    /// Whether it is in code of ours that shows what others do.
    fn is_ours(&self) -> bool {
        self.file.rsplit_once("/aioxide/").is_some_and(|(_, name)| matches!(name, "inspect.py" | "_names.py"))
    }

    pub(crate) fn write(&self, json: &mut Json) {
        json.object(|json| {
            json.key("function").string(&self.function);
            json.key("file").string(&self.file);
            json.key("line").number(self.line);
        });
    }
}

/// A coroutine and what it awaits.
#[derive(Debug, Default)]
pub(super) struct Chain<'py> {
    /// The outermost first.
    pub(super) links: Vec<Link>,
    /// The innermost frame of Python code.
    pub(super) frame: Option<Bound<'py, PyAny>>,
    /// What the innermost native coroutines wait for: a kind and an object.
    pub(super) waits_for: Option<(String, Option<Bound<'py, PyAny>>)>,
    /// The innermost coroutine runs.
    pub(super) is_running: bool,
}

/// Follows a coroutine inwards.
pub(super) fn of<'py>(coroutine: Bound<'py, PyAny>) -> Chain<'py> {
    let mut chain = Chain::default();
    let mut next = Some(coroutine);
    while let Some(object) = next
        && chain.links.len() < DEEPEST
    {
        next = visit(&mut chain, &object).unwrap_or_default();
    }
    chain
}

/// Takes in one coroutine; returns what it awaits.
fn visit<'py>(chain: &mut Chain<'py>, object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    if Fut::cast_any(object).is_some() {
        return Ok(None);
    }
    let kinds = [
        (intern!(py, "cr_frame"), intern!(py, "cr_await"), intern!(py, "cr_running")),
        (intern!(py, "gi_frame"), intern!(py, "gi_yieldfrom"), intern!(py, "gi_running")),
        (intern!(py, "ag_frame"), intern!(py, "ag_await"), intern!(py, "ag_running")),
    ];
    for (frame, awaited, running) in kinds {
        let Some(frame) = object.getattr_opt(frame)? else { continue };
        if frame.is_none() {
            return Ok(None);
        }
        chain.links.push(Link::of(&frame)?);
        let native = object.getattr_opt(intern!(py, "_waits_for"))?.filter(|native| !native.is_none());
        if let Some(native) = native {
            let (kind, subject): (String, Option<Bound<'py, PyAny>>) = native.extract()?;
            // A barrier that waits under its condition is a barrier.
            chain.waits_for.get_or_insert((kind, subject));
        } else if !chain.links.last().is_some_and(Link::is_native) {
            chain.waits_for = None;
            chain.frame = Some(frame);
            chain.is_running = object.getattr_opt(running)?.is_some_and(|r| r.is_truthy().unwrap_or(false));
        }
        return Ok(object.getattr_opt(awaited)?.filter(|awaited| !awaited.is_none()));
    }
    behind(object)
}

/// What a wrapper of CPython's leads to: `coro.__await__()`, and the steps of asynchronous generators.
fn behind<'py>(wrapper: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    const WRAPPERS: [&str; 4] =
        ["coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable"];
    let py = wrapper.py();
    let class = wrapper.get_type().name()?;
    if !WRAPPERS.contains(&class.to_cow()?.as_ref()) {
        return Ok(None);
    }
    for held in
        py.import(intern!(py, "gc"))?.call_method1(intern!(py, "get_referents"), (wrapper,))?.try_iter()?
    {
        let held = held?;
        for name in ["cr_frame", "ag_frame", "gi_frame"] {
            if held.hasattr(name)? {
                return Ok(Some(held));
            }
        }
        if WRAPPERS.contains(&held.get_type().name()?.to_cow()?.as_ref()) {
            return behind(&held);
        }
    }
    Ok(None)
}

/// The Python frame in which a thread is now; the thread is known by its `threading.get_ident()`.
pub(super) fn innermost<'py>(py: Python<'py>, ident: u64) -> PyResult<Option<Bound<'py, PyAny>>> {
    let frames = py.import(intern!(py, "sys"))?.call_method0(intern!(py, "_current_frames"))?;
    frames.cast_into::<PyDict>()?.get_item(ident)
}

/// The stack from `outermost` (or from the very beginning) to `frame`, the outermost first.
pub(super) fn stack(frame: Bound<'_, PyAny>, outermost: Option<&Bound<'_, PyAny>>) -> Vec<Link> {
    let mut links = Vec::new();
    let mut next = Some(frame);
    while let Some(frame) = next {
        match Link::of(&frame) {
            Ok(link) if link.is_ours() => {}
            Ok(link) => links.push(link),
            Err(_) => break,
        }
        if outermost.is_some_and(|outermost| outermost.is(&frame)) {
            break;
        }
        let back = frame.getattr(intern!(frame.py(), "f_back"));
        next = back.ok().filter(|back| !back.is_none());
    }
    links.reverse();
    links
}

/// Takes off what has started the loop: everything up to our runner, if it is there.
pub(super) fn cut_runner(stack: &mut Vec<Link>) {
    if let Some(last) = stack.iter().rposition(|link| link.file.ends_with("/aioxide/_runners.py")) {
        stack.drain(..=last);
    }
}

/// A text for an object that never fails and never raises: its `repr` is somebody else's code.
pub(super) fn text_of(value: PyResult<Bound<'_, PyAny>>, otherwise: &str) -> String {
    value.and_then(|value| Ok(value.str()?.to_cow()?.into_owned())).unwrap_or_else(|_| otherwise.to_owned())
}
