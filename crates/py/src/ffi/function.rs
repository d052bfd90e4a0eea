//! Module-level functions made from Rust: plain builtins, and coroutine functions that `inspect` and asyncio take for
//! `async def` ones.
#![allow(unsafe_code, reason = "the vectorcall protocol")]

use std::ffi::{CStr, c_void};

use pyo3::Borrowed;
use pyo3::exceptions::PyAttributeError;
use pyo3::ffi::{self, PyObject};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::args::Args;
use super::cell::Slot;
use super::class::{Builder, Class, Inst, TypeCell, create, guard};
use super::coroutine_method;
use super::frames;
use super::gc::{Stopped, Visit};
use super::method::{Of, getter, item};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// What a function does: a function item, known to the C function that CPython calls.
pub(crate) trait Body: for<'a, 'py> Fn(Args<'a, 'py>) -> Object<'py> + Copy + 'static {}

impl<F> Body for F where F: for<'a, 'py> Fn(Args<'a, 'py>) -> Object<'py> + Copy + 'static {}

/// Whether a call with this one argument is the most frequent kind, which [`Make`] answers. Looks at the argument only.
pub(crate) trait Suits: for<'a, 'py> Fn(Borrowed<'a, 'py, PyAny>) -> bool + Copy + 'static {}

impl<F> Suits for F where F: for<'a, 'py> Fn(Borrowed<'a, 'py, PyAny>) -> bool + Copy + 'static {}

/// What that call returns.
pub(crate) trait Make: for<'py> Fn(Python<'py>) -> Object<'py> + Copy + 'static {}

impl<F> Make for F where F: for<'py> Fn(Python<'py>) -> Object<'py> + Copy + 'static {}

/// A callable with the looks of asyncio's own function of that name: docstring, signature, module.
#[repr(C)]
pub(crate) struct Function {
    vectorcall: ffi::vectorcallfunc,
    is_coroutine: bool,
    stock: Slot,
}

impl Class for Function {
    const NAME: &'static CStr = c"aioxide._core.function";

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.stock.traverse(visit)
    }

    fn clear(&self, _: Python<'_>) {}
}

#[inline(never)]
unsafe extern "C" fn vectorcall<F: Body>(
    _: *mut PyObject,
    values: *const *mut PyObject,
    nargsf: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: CPython calls this with the GIL held and a vector that matches the protocol.
    unsafe {
        let py = Python::assume_attached();
        guard(py, || item::<F>()(Args::new(py, values, ffi::PyVectorcall_NARGS(nargsf), names)))
    }
}

/// As [`vectorcall`], but a call with one plain argument goes to `M` if it suits.
unsafe extern "C" fn quick_vectorcall<S: Suits, M: Make, F: Body>(
    slf: *mut PyObject,
    values: *const *mut PyObject,
    nargsf: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as for `vectorcall`; with one argument the vector has one value.
    unsafe {
        let py = Python::assume_attached();
        if names.is_null() && ffi::PyVectorcall_NARGS(nargsf) == 1 {
            let argument = *values;
            std::hint::assert_unchecked(!argument.is_null());
            if item::<S>()(Borrowed::from_ptr(py, argument)) {
                return guard(py, || item::<M>()(py));
            }
        }
        vectorcall::<F>(slf, values, nargsf, names)
    }
}

fn stock<'py>(this: Inst<'_, 'py, Function>) -> Object<'py> {
    Ok(this.stock.get(this.py()).unwrap_or_else(|| this.py().None().into_bound(this.py())))
}

fn get_name<'py>(this: Inst<'_, 'py, Function>) -> Object<'py> {
    stock(this)?.getattr(intern!(this.py(), "__name__"))
}

fn get_doc<'py>(this: Inst<'_, 'py, Function>) -> Object<'py> {
    stock(this)?.getattr(intern!(this.py(), "__doc__"))
}

fn get_module<'py>(this: Inst<'_, 'py, Function>) -> Object<'py> {
    Ok(intern!(this.py(), "aioxide").clone().into_any())
}

fn get_signature<'py>(this: Inst<'_, 'py, Function>) -> Object<'py> {
    this.py().import("inspect")?.getattr("signature")?.call1((stock(this)?,))
}

fn get_mark<'py>(this: Inst<'_, 'py, Function>) -> Object<'py> {
    if this.is_coroutine { coroutine_method::mark(this.py()) } else { Err(unmarked("_is_coroutine_marker")) }
}

fn get_old_mark<'py>(this: Inst<'_, 'py, Function>) -> Object<'py> {
    if this.is_coroutine { coroutine_method::old_mark(this.py()) } else { Err(unmarked("_is_coroutine")) }
}

/// As a function written in Python has it; mocks look for it.
fn get_code<'py>(this: Inst<'_, 'py, Function>) -> Object<'py> {
    if !this.is_coroutine {
        return Err(unmarked("__code__"));
    }
    let name = get_name(this)?;
    frames::code(this.py(), &name.cast::<PyString>()?.to_string_lossy())
}

fn unmarked(name: &'static str) -> PyErr {
    PyAttributeError::new_err(name)
}

fn repr<'py>(this: Inst<'_, 'py, Function>) -> Object<'py> {
    let text = format!("<function {} at {:#x}>", get_name(this)?, this.object().as_ptr().addr());
    Ok(PyString::new(this.py(), &text).into_any())
}

/// A function that asyncio's own function `module.name` describes.
pub(crate) fn function<'py, F: Body>(py: Python<'py>, module: &str, name: &str, _: F) -> Object<'py> {
    make(py, module, name, vectorcall::<F>, false)
}

/// As [`function`], for what is an `async def` in asyncio: calling it gives an awaitable.
pub(crate) fn coroutine_function<'py, F: Body>(
    py: Python<'py>,
    module: &str,
    name: &str,
    _: F,
) -> Object<'py> {
    make(py, module, name, vectorcall::<F>, true)
}

/// As [`coroutine_function`], with a shorter way for the one argument that suits.
pub(crate) fn quick_coroutine_function<'py, S: Suits, M: Make, F: Body>(
    py: Python<'py>,
    module: &str,
    name: &str,
    _: (S, M),
    _: F,
) -> Object<'py> {
    make(py, module, name, quick_vectorcall::<S, M, F>, true)
}

/// As [`function`], for a name that asyncio does not have in every supported Python; where it lacks it, a lambda
/// shows the parameters.
pub(crate) fn later_function<'py, F: Body>(
    py: Python<'py>,
    module: &str,
    name: &str,
    lambda: &CStr,
    _: F,
) -> Object<'py> {
    if py.import(module)?.hasattr(name)? {
        return make(py, module, name, vectorcall::<F>, false);
    }
    // Not in the globals of __main__, which would live as long as the function does.
    let shown = py.eval(lambda, Some(&PyDict::new(py)), None)?;
    shown.setattr("__name__", name)?;
    create(
        py,
        Function { vectorcall: vectorcall::<F>, is_coroutine: false, stock: Slot::holding(shown.unbind()) },
    )
}

fn make<'py>(
    py: Python<'py>,
    module: &str,
    name: &str,
    vectorcall: ffi::vectorcallfunc,
    is_coroutine: bool,
) -> Object<'py> {
    let stock = Slot::holding(py.import(module)?.getattr(name)?.unbind());
    create(py, Function { vectorcall, is_coroutine, stock })
}

/// Makes the type.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Function>()
        .vectorcall()
        .slot(ffi::Py_tp_repr, super::method::unary::<Of<Function>, _>(repr))
        .slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void)
        .attribute(getter::<Of<Function>, _>(c"__name__", get_name))
        .attribute(getter::<Of<Function>, _>(c"__qualname__", get_name))
        .attribute(getter::<Of<Function>, _>(c"__doc__", get_doc))
        .attribute(getter::<Of<Function>, _>(c"__module__", get_module))
        .attribute(getter::<Of<Function>, _>(c"__signature__", get_signature))
        .attribute(getter::<Of<Function>, _>(c"_is_coroutine_marker", get_mark))
        .attribute(getter::<Of<Function>, _>(c"_is_coroutine", get_old_mark))
        .attribute(getter::<Of<Function>, _>(c"__code__", get_code))
        .build(module, None, Function::cell())?;
    Ok(())
}
