//! What native coroutines show of themselves to those who draw stacks and call graphs: a frame and a code object, under
//! the name of the `async def` that they stand for.
//!
//! There is no Python frame in a native coroutine. `Task.get_stack`, `asyncio.capture_call_graph`,
//! `inspect.getcoroutinestate` and reprs look for one all the same: without it a task that waits in `Queue.get` would
//! look like one that waits nowhere. These objects are made when somebody asks, and never before.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyInt, PyString};

use super::cell::Slot;
use super::class::{Builder, Class, Inst, TypeCell, create};
use super::gc::{Stopped, Visit};
use super::method::{Of, getter, unary};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

fn none(py: Python<'_>) -> Bound<'_, PyAny> {
    py.None().into_bound(py)
}

/// Where native coroutines say that they are: there is no file and no line to be shown.
const FILE: &str = "<aioxide>";
const LINE: i32 = 1;

/// The last part of a qualified name.
pub(crate) fn name_of(qualname: &str) -> &str {
    qualname.rsplit_once('.').map_or(qualname, |(_, name)| name)
}

/// The code object of the coroutine with that name, the same one each time.
pub(crate) fn code<'py>(py: Python<'py>, qualname: &str) -> Object<'py> {
    static CODES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let codes = CODES.get_or_init(py, || PyDict::new(py).unbind()).bind(py);
    if let Some(code) = codes.get_item(qualname)? {
        return Ok(code);
    }
    let namespace = PyDict::new(py);
    py.run(c"async def native(): pass", Some(&namespace), None)?;
    let Some(function) = namespace.get_item("native")? else { return Ok(none(py)) };
    let changes = PyDict::new(py);
    changes.set_item("co_name", name_of(qualname))?;
    changes.set_item("co_qualname", qualname)?;
    changes.set_item("co_filename", FILE)?;
    let code = function.getattr("__code__")?.call_method("replace", (), Some(&changes))?;
    codes.set_item(qualname, &code)?;
    Ok(code)
}

// --- frames ----------------------------------------------------------------------------------------

/// The attributes of a frame that say where something waits. It has no variables.
struct Frame {
    qualname: &'static str,
    coroutine: Slot,
}

impl Class for Frame {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.Frame";

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.coroutine.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop(self.coroutine.take(py));
    }
}

type ThisFrame<'a, 'py> = Inst<'a, 'py, Frame>;

/// The frame of a coroutine that isn't over.
pub(crate) fn frame<'py>(coroutine: Bound<'py, PyAny>, qualname: &'static str) -> Object<'py> {
    create(coroutine.py(), Frame { qualname, coroutine: Slot::holding(coroutine.unbind()) })
}

fn f_code<'py>(this: ThisFrame<'_, 'py>) -> Object<'py> {
    code(this.py(), this.qualname)
}

fn f_generator<'py>(this: ThisFrame<'_, 'py>) -> Object<'py> {
    Ok(this.coroutine.get(this.py()).unwrap_or_else(|| none(this.py())))
}

fn f_lineno<'py>(this: ThisFrame<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), LINE).into_any())
}

fn f_lasti<'py>(this: ThisFrame<'_, 'py>) -> Object<'py> {
    Ok(PyInt::new(this.py(), -1).into_any())
}

fn nothing<'py>(this: ThisFrame<'_, 'py>) -> Object<'py> {
    Ok(none(this.py()))
}

fn no_variables<'py>(this: ThisFrame<'_, 'py>) -> Object<'py> {
    Ok(PyDict::new(this.py()).into_any())
}

fn frame_repr<'py>(this: ThisFrame<'_, 'py>) -> Object<'py> {
    let text = format!("<frame of native coroutine {}>", this.qualname);
    Ok(PyString::new(this.py(), &text).into_any())
}

// --- coroutines within coroutines ----------------------------------------------------------------------

/// A coroutine that asyncio's own version would await here: in `wait`, `_wait`.
struct Within {
    /// Its name and those of what it awaits in turn.
    names: &'static [&'static str],
    awaited: Slot,
}

impl Class for Within {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.Within";

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.awaited.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop(self.awaited.take(py));
    }
}

type ThisWithin<'a, 'py> = Inst<'a, 'py, Within>;

/// What a coroutine awaits, through the coroutines called `names`.
pub(crate) fn within<'py>(names: &'static [&'static str], awaited: Bound<'py, PyAny>) -> Object<'py> {
    if names.is_empty() {
        return Ok(awaited);
    }
    create(awaited.py(), Within { names, awaited: Slot::holding(awaited.unbind()) })
}

impl Within {
    fn qualname(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }
}

fn cr_await<'py>(this: ThisWithin<'_, 'py>) -> Object<'py> {
    let rest = this.get().names.get(1..).unwrap_or_default();
    within(rest, this.awaited.get(this.py()).unwrap_or_else(|| none(this.py())))
}

fn cr_frame<'py>(this: ThisWithin<'_, 'py>) -> Object<'py> {
    frame(this.to_owned(), this.qualname())
}

fn cr_code<'py>(this: ThisWithin<'_, 'py>) -> Object<'py> {
    code(this.py(), this.qualname())
}

fn cr_running<'py>(this: ThisWithin<'_, 'py>) -> Object<'py> {
    Ok(PyBool::new(this.py(), false).to_owned().into_any())
}

fn cr_suspended<'py>(this: ThisWithin<'_, 'py>) -> Object<'py> {
    Ok(PyBool::new(this.py(), true).to_owned().into_any())
}

fn name<'py>(this: ThisWithin<'_, 'py>) -> Object<'py> {
    Ok(PyString::new(this.py(), name_of(this.qualname())).into_any())
}

fn qualname<'py>(this: ThisWithin<'_, 'py>) -> Object<'py> {
    Ok(PyString::new(this.py(), this.qualname()).into_any())
}

/// Makes the types.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Frame>()
        .slot(pyo3::ffi::Py_tp_repr, unary::<Of<Frame>, _>(frame_repr))
        .attribute(getter::<Of<Frame>, _>(c"f_code", f_code))
        .attribute(getter::<Of<Frame>, _>(c"f_generator", f_generator))
        .attribute(getter::<Of<Frame>, _>(c"f_lineno", f_lineno))
        .attribute(getter::<Of<Frame>, _>(c"f_lasti", f_lasti))
        .attribute(getter::<Of<Frame>, _>(c"f_back", nothing))
        .attribute(getter::<Of<Frame>, _>(c"f_trace", nothing))
        .attribute(getter::<Of<Frame>, _>(c"f_locals", no_variables))
        .attribute(getter::<Of<Frame>, _>(c"f_globals", no_variables))
        .attribute(getter::<Of<Frame>, _>(c"f_builtins", no_variables))
        .build(module, None, Frame::cell())?;
    Builder::of::<Within>()
        .attribute(getter::<Of<Within>, _>(c"cr_await", cr_await))
        .attribute(getter::<Of<Within>, _>(c"cr_frame", cr_frame))
        .attribute(getter::<Of<Within>, _>(c"cr_code", cr_code))
        .attribute(getter::<Of<Within>, _>(c"cr_running", cr_running))
        .attribute(getter::<Of<Within>, _>(c"cr_suspended", cr_suspended))
        .attribute(getter::<Of<Within>, _>(c"__name__", name))
        .attribute(getter::<Of<Within>, _>(c"__qualname__", qualname))
        .build(module, None, Within::cell())?;
    Ok(())
}
