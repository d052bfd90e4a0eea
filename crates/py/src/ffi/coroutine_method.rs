//! Methods that are an `async def` in asyncio: `inspect.iscoroutinefunction` says so of the native ones, too.
//!
//! Mocks with a specification, and frameworks that take functions of both kinds, ask it. Such a method is CPython's
//! method descriptor in all but three things: it has the mark that `inspect.markcoroutinefunction` sets and a code object, and what it
//! binds is a plain bound method, through which `inspect` finds the mark. Made once, when everything else of the module
//! is; a call through the class knows no difference.
#![allow(unsafe_code, reason = "a type that extends CPython's method_descriptor")]

use std::ffi::c_void;
use std::ptr;

use pyo3::exceptions::PyAttributeError;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};
use pyo3::{Borrowed, intern};

use super::class::guard;
use super::frames;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// The classes of the module with such methods; each has asyncio's name.
const CLASSES: [&str; 16] = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "EventLoop",
    "LifoQueue",
    "Lock",
    "PriorityQueue",
    "Queue",
    "Semaphore",
    "Server",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "TaskGroup",
    "Timeout",
];

const CO_COROUTINE: u32 = 0x80;
const METHOD_DESCRIPTOR: u64 = 1 << 17; // Py_TPFLAGS_METHOD_DESCRIPTOR

/// What `inspect.markcoroutinefunction` leaves on a function (3.12 and later; its name has changed since).
pub(super) fn mark(py: Python<'_>) -> Object<'_> {
    let inspect = py.import("inspect")?;
    for name in ["_is_coroutine_mark", "_is_coroutine_marker"] {
        if let Some(mark) = inspect.getattr_opt(name)? {
            return Ok(mark);
        }
    }
    Err(PyAttributeError::new_err("_is_coroutine_marker"))
}

/// What `asyncio.coroutine` left on a function, and `asyncio.iscoroutinefunction` looks for.
pub(super) fn old_mark(py: Python<'_>) -> Object<'_> {
    py.import("asyncio.coroutines")?.getattr("_is_coroutine")
}

unsafe extern "C" fn get_mark(_: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: CPython calls this with the GIL held.
    let py = unsafe { Python::assume_attached() };
    guard(py, || mark(py))
}

unsafe extern "C" fn get_old_mark(_: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: CPython calls this with the GIL held.
    let py = unsafe { Python::assume_attached() };
    guard(py, || old_mark(py))
}

unsafe extern "C" {
    fn PyMethod_New(function: *mut PyObject, object: *mut PyObject) -> *mut PyObject;
}

/// `__code__`: that of an `async def`. `unittest.mock` asks for it before it looks for the mark.
unsafe extern "C" fn get_code(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: CPython calls this with a live object and the GIL held.
    let (py, method) = unsafe {
        let py = Python::assume_attached();
        (py, Borrowed::from_ptr(py, slf))
    };
    guard(py, || {
        let name = method.getattr(intern!(py, "__qualname__"))?;
        frames::code(py, &name.cast::<PyString>()?.to_string_lossy())
    })
}

/// `__get__`: the method bound to the object. Of what class that is, the call finds out.
unsafe extern "C" fn bind(slf: *mut PyObject, object: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: CPython calls this with the GIL held; `slf` is live, and so is the object if there is one.
    unsafe { if object.is_null() { ffi::Py_NewRef(slf) } else { PyMethod_New(slf, object) } }
}

/// Makes the type. It lives for good.
fn make_type(py: Python<'_>) -> PyResult<*mut PyTypeObject> {
    let getter = |name: &'static std::ffi::CStr, get: ffi::getter| ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        ..ffi::PyGetSetDef::default()
    };
    let attributes = vec![
        getter(c"_is_coroutine_marker", get_mark),
        getter(c"_is_coroutine", get_old_mark),
        getter(c"__code__", get_code),
        ffi::PyGetSetDef::default(),
    ];
    // SAFETY: null is right for every slot that is not set here: PyType_Ready takes it from the base, the layout of the
    // instances and the traverse and clear functions among them. The memory is never freed.
    unsafe {
        let class = Box::leak(Box::new(std::mem::zeroed::<PyTypeObject>()));
        class.ob_base.ob_base = ffi::PyObject_HEAD_INIT;
        class.tp_name = c"aioxide._core.coroutine_method".as_ptr();
        class.tp_flags = (u64::from(ffi::Py_TPFLAGS_DEFAULT) | METHOD_DESCRIPTOR) as _;
        class.tp_base = &raw mut ffi::PyMethodDescr_Type;
        class.tp_descr_get = Some(bind);
        class.tp_getset = attributes.leak().as_mut_ptr();
        let class = ptr::from_mut(class);
        if ffi::PyType_Ready(class) < 0 { Err(PyErr::fetch(py)) } else { Ok(class) }
    }
}

/// Whether instances of the type are laid out, called and collected as those of CPython's are.
fn is_alike(class: *mut PyTypeObject) -> bool {
    // SAFETY: two ready types.
    unsafe {
        let base: *const PyTypeObject = &raw const ffi::PyMethodDescr_Type;
        let (ours, base) = (&*class, &*base);
        ours.tp_basicsize == base.tp_basicsize
            && ours.tp_itemsize == base.tp_itemsize
            && ours.tp_vectorcall_offset == base.tp_vectorcall_offset
            && ours.tp_dealloc.map(|f| f as usize) == base.tp_dealloc.map(|f| f as usize)
            && ours.tp_traverse.map(|f| f as usize) == base.tp_traverse.map(|f| f as usize)
            && ours.tp_call.map(|f| f as usize) == base.tp_call.map(|f| f as usize)
            && ours.tp_flags & base.tp_flags & (1 << 11 | 1 << 14) as std::ffi::c_ulong // vectorcall, collected
                == (1 << 11 | 1 << 14)
    }
}

/// The names of the `async def` methods of a class and its bases.
fn coroutines<'py>(class: &Bound<'py, PyType>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let mut names = Vec::new();
    for base in class.mro() {
        for pair in base.getattr("__dict__")?.call_method0("items")?.try_iter()? {
            let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
            if let Some(code) = value.getattr_opt("__code__")?
                && code.getattr("co_flags")?.extract::<u32>()? & CO_COROUTINE != 0
            {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// Makes coroutine methods of those methods of the module's classes that are `async def` in asyncio.
pub(crate) fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let class = make_type(py)?;
    if !is_alike(class) {
        return Ok(());
    }
    let asyncio = py.import("asyncio")?;
    for name in CLASSES {
        let theirs = if name == "EventLoop" { "SelectorEventLoop" } else { name };
        let names = coroutines(asyncio.getattr(theirs)?.cast::<PyType>()?)?;
        for base in module.getattr(name)?.cast::<PyType>()?.mro() {
            let methods = PyDict::new(py);
            methods.call_method1("update", (base.getattr("__dict__")?,))?;
            for name in &names {
                if let Some(method) = methods.get_item(name)? {
                    convert(&method, class);
                }
            }
        }
    }
    Ok(())
}

fn convert(method: &Bound<'_, PyAny>, class: *mut PyTypeObject) {
    let method = method.as_ptr();
    // SAFETY: a live object of exactly the type that `class` extends by nothing but functions (`is_alike`); neither
    // counts its instances. Nobody has called the method yet.
    unsafe {
        if ptr::eq(ffi::Py_TYPE(method), &raw const ffi::PyMethodDescr_Type) {
            (*method).ob_type = class;
        }
    }
}
