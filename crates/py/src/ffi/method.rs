//! Methods, attributes and slots of raw classes, made from safe Rust functions.
//!
//! Each maker takes a function item (a type without data), so the C function that CPython calls is a generic function
//! that knows it at compile time: no table, no indirection.
#![allow(unsafe_code, reason = "the C functions that CPython calls")]

use std::ffi::{CStr, c_void};
use std::marker::PhantomData;
use std::ptr;

use pyo3::exceptions::PyAttributeError;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use pyo3::{Borrowed, PyErr};

use super::args::{self, Args};
use super::class::{Class, Inst, create_subclass, guard, guard_status};
use super::layout::{Fut, Tsk};
use crate::local::LoopCore;

/// What a method gets as `self`: [`AnyFuture`], [`AnyTask`] or [`Of`] a class of ours.
pub(crate) trait Receiver: 'static {
    type Of<'a, 'py>: Copy;

    /// # Safety
    /// `slf` is a live object of the class that the method belongs to (CPython checks it before the call).
    unsafe fn receive<'a, 'py>(py: Python<'py>, slf: *mut PyObject) -> Self::Of<'a, 'py>;
}

/// Methods of aioxide.Future and its subclasses, Task among them.
#[derive(Debug)]
pub(crate) struct AnyFuture;

/// Methods of aioxide.Task and its subclasses.
#[derive(Debug)]
pub(crate) struct AnyTask;

/// Methods of the raw class `T`.
#[derive(Debug)]
pub(crate) struct Of<T>(PhantomData<T>);

impl Receiver for AnyFuture {
    type Of<'a, 'py> = Fut<'a, 'py>;
    #[inline]
    unsafe fn receive<'a, 'py>(py: Python<'py>, slf: *mut PyObject) -> Fut<'a, 'py> {
        // SAFETY: the receiver of a method of Future is a Future.
        unsafe { Fut::new(Borrowed::from_ptr(py, slf)) }
    }
}

impl Receiver for AnyTask {
    type Of<'a, 'py> = Tsk<'a, 'py>;
    #[inline]
    unsafe fn receive<'a, 'py>(py: Python<'py>, slf: *mut PyObject) -> Tsk<'a, 'py> {
        // SAFETY: the receiver of a method of Task is a Task.
        unsafe { Tsk::new(Borrowed::from_ptr(py, slf)) }
    }
}

impl<T: Class> Receiver for Of<T> {
    type Of<'a, 'py> = Inst<'a, 'py, T>;
    #[inline]
    unsafe fn receive<'a, 'py>(py: Python<'py>, slf: *mut PyObject) -> Inst<'a, 'py, T> {
        // SAFETY: the receiver of a method of T's class is an instance of it.
        unsafe { Inst::from_ptr(py, slf) }
    }
}

/// Functions that are bound to an object of any class ([`Method::bound`]), never part of one.
#[derive(Debug)]
pub(crate) struct AnyObject;

impl Receiver for AnyObject {
    type Of<'a, 'py> = Borrowed<'a, 'py, PyAny>;
    #[inline]
    unsafe fn receive<'a, 'py>(py: Python<'py>, slf: *mut PyObject) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: the object that the function is bound to, alive for the call.
        unsafe { Borrowed::from_ptr(py, slf) }
    }
}

/// Methods of event loops: what the receiver is made of.
#[derive(Clone, Copy)]
pub(crate) struct LoopRef<'a, 'py> {
    pub(crate) object: Borrowed<'a, 'py, PyAny>,
    pub(crate) core: &'a LoopCore,
}

/// Methods of aioxide event loops that are too hot for PyO3's argument parsing.
#[derive(Debug)]
pub(crate) struct AnyLoop;

impl Receiver for AnyLoop {
    type Of<'a, 'py> = LoopRef<'a, 'py>;
    #[inline]
    unsafe fn receive<'a, 'py>(py: Python<'py>, slf: *mut PyObject) -> LoopRef<'a, 'py> {
        // SAFETY: the receiver of a method of LoopCore is one, alive for the call; the class is frozen, so a shared
        // reference is all anybody has.
        unsafe {
            let object = Borrowed::from_ptr(py, slf);
            let core: *const LoopCore = object.cast_unchecked::<LoopCore>().get();
            LoopRef { object, core: &*core }
        }
    }
}

/// One method of a raw class.
pub(crate) struct Method(pub(super) ffi::PyMethodDef);

/// One attribute of a raw class.
pub(crate) struct Attribute(pub(super) ffi::PyGetSetDef);

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// The function item of type `F`: it has no data, so any well-aligned address is one.
#[inline]
pub(super) fn item<F: Copy + 'static>() -> F {
    const { assert!(size_of::<F>() == 0, "a function item, not a pointer or closure with state") };
    // SAFETY: F has no bytes to read.
    unsafe { ptr::NonNull::<F>::dangling().read() }
}

/// A function of the receiver alone. (A trait of its own, as a bound on `Fn` can't name the result's lifetime through
/// the associated type of [`Receiver`].)
pub(crate) trait Unary<R: Receiver>: Copy + 'static {
    fn call<'py>(self, this: R::Of<'_, 'py>) -> Object<'py>;
}

macro_rules! unary_functions {
    ($([$($generics:tt)*] $receiver:ty, $this:ty;)*) => {$(
        impl<F, $($generics)*> Unary<$receiver> for F
        where
            F: for<'a, 'py> Fn($this) -> Object<'py> + Copy + 'static,
        {
            #[inline]
            fn call<'py>(self, this: <$receiver as Receiver>::Of<'_, 'py>) -> Object<'py> {
                self(this)
            }
        }
    )*};
}

unary_functions! {
    [] AnyFuture, Fut<'a, 'py>;
    [] AnyTask, Tsk<'a, 'py>;
    [] AnyLoop, LoopRef<'a, 'py>;
    [] AnyObject, Borrowed<'a, 'py, PyAny>;
    [T: Class] Of<T>, Inst<'a, 'py, T>;
}

/// A method without arguments.
pub(crate) fn noargs<R: Receiver, F>(name: &'static CStr, _: F) -> Method
where
    F: Unary<R>,
{
    unsafe extern "C" fn call<R: Receiver, F>(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject
    where
        F: Unary<R>,
    {
        // SAFETY: CPython calls a method with the GIL held and a receiver of the method's class.
        unsafe {
            let py = Python::assume_attached();
            guard(py, || item::<F>().call(R::receive(py, slf)))
        }
    }
    method(name, ffi::PyMethodDefPointer { PyCFunction: call::<R, F> }, ffi::METH_NOARGS)
}

/// A method with one positional argument.
pub(crate) fn onearg<R: Receiver, F>(name: &'static CStr, _: F) -> Method
where
    F: for<'a, 'py> Fn(R::Of<'a, 'py>, Borrowed<'a, 'py, PyAny>) -> Object<'py> + Copy + 'static,
{
    unsafe extern "C" fn call<R: Receiver, F>(slf: *mut PyObject, arg: *mut PyObject) -> *mut PyObject
    where
        F: for<'a, 'py> Fn(R::Of<'a, 'py>, Borrowed<'a, 'py, PyAny>) -> Object<'py> + Copy + 'static,
    {
        // SAFETY: CPython calls a method with the GIL held, a receiver of the method's class and a live argument.
        unsafe {
            let py = Python::assume_attached();
            guard(py, || item::<F>()(R::receive(py, slf), Borrowed::from_ptr(py, arg)))
        }
    }
    method(name, ffi::PyMethodDefPointer { PyCFunction: call::<R, F> }, ffi::METH_O)
}

/// A method with any arguments.
pub(crate) fn anyargs<R: Receiver, F>(name: &'static CStr, _: F) -> Method
where
    F: for<'a, 'py> Fn(R::Of<'a, 'py>, Args<'a, 'py>) -> Object<'py> + Copy + 'static,
{
    unsafe extern "C" fn call<R: Receiver, F>(
        slf: *mut PyObject,
        values: *const *mut PyObject,
        nargs: ffi::Py_ssize_t,
        names: *mut PyObject,
    ) -> *mut PyObject
    where
        F: for<'a, 'py> Fn(R::Of<'a, 'py>, Args<'a, 'py>) -> Object<'py> + Copy + 'static,
    {
        // SAFETY: CPython calls a fastcall method with the GIL held, a receiver of the method's class and a vector
        // that matches the protocol.
        unsafe {
            let py = Python::assume_attached();
            guard(py, || item::<F>()(R::receive(py, slf), Args::new(py, values, nargs, names)))
        }
    }
    let function = ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: call::<R, F> };
    method(name, function, ffi::METH_FASTCALL | ffi::METH_KEYWORDS)
}

fn method(name: &'static CStr, function: ffi::PyMethodDefPointer, flags: i32) -> Method {
    let ml_doc = if flags == ffi::METH_NOARGS { plain_signature(name) } else { ptr::null() };
    Method(ffi::PyMethodDef { ml_name: name.as_ptr(), ml_meth: function, ml_flags: flags, ml_doc })
}

/// What `inspect.signature` needs to know of a method without arguments, before CPython 3.13 knew it by itself.
fn plain_signature(name: &CStr) -> *const std::ffi::c_char {
    let text = [name.to_bytes(), b"($self, /)\n--\n\n"].concat();
    // The names of methods have no zero byte inside; the text lives as long as the type: for good.
    std::ffi::CString::new(text).map_or(ptr::null(), |text| text.into_raw().cast_const())
}

impl Method {
    /// The docstring; a first line `name($self, x, /)` and `--` gives `inspect.signature` what it needs.
    pub(crate) fn doc(mut self, doc: &'static CStr) -> Self {
        self.0.ml_doc = doc.as_ptr();
        self
    }

    /// The method under this name even where the class has a slot of that meaning, which the interpreter then uses for
    /// itself alone.
    pub(super) fn beside_slot(mut self) -> Self {
        self.0.ml_flags |= ffi::METH_COEXIST;
        self
    }

    /// The method as an unbound descriptor, to be put on a type made elsewhere.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn descriptor<'py>(
        self,
        class: &Bound<'py, pyo3::types::PyType>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let definition = Box::leak(Box::new(self.0));
        // SAFETY: the definition lives for good; the class is a live type whose instances the receiver accepts,
        // which CPython checks at each call.
        unsafe {
            Bound::from_owned_ptr_or_err(
                class.py(),
                ffi::PyDescr_NewMethod(class.as_ptr().cast(), definition),
            )
        }
    }

    /// The method bound to `receiver`: a builtin that holds a reference to it.
    pub(crate) fn bound<'py>(&'static self, receiver: &Bound<'py, PyAny>) -> Object<'py> {
        // SAFETY: the definition is static; the receiver is of the class the method was made for (the caller's types).
        unsafe {
            let definition = (&raw const self.0).cast_mut();
            let function = ffi::PyCFunction_NewEx(definition, receiver.as_ptr(), ptr::null_mut());
            Bound::from_owned_ptr_or_err(receiver.py(), function)
        }
    }
}

// SAFETY: constant data: names, flags and function pointers.
unsafe impl Sync for Method {}
// SAFETY: as above.
unsafe impl Send for Method {}

/// A read-only attribute.
pub(crate) fn getter<R: Receiver, F>(name: &'static CStr, _: F) -> Attribute
where
    F: Unary<R>,
{
    unsafe extern "C" fn get<R: Receiver, F>(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject
    where
        F: Unary<R>,
    {
        // SAFETY: CPython calls a getter with the GIL held and a receiver of the attribute's class.
        unsafe {
            let py = Python::assume_attached();
            guard(py, || item::<F>().call(R::receive(py, slf)))
        }
    }
    Attribute(ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get::<R, F>),
        set: None,
        doc: ptr::null(),
        closure: ptr::null_mut(),
    })
}

impl Attribute {
    /// Makes the attribute writable; deleting it stays an AttributeError.
    pub(crate) fn setter<R: Receiver, F>(mut self, _: F) -> Self
    where
        F: for<'a, 'py> Fn(R::Of<'a, 'py>, Borrowed<'a, 'py, PyAny>) -> PyResult<()> + Copy + 'static,
    {
        unsafe extern "C" fn set<R: Receiver, F>(
            slf: *mut PyObject,
            value: *mut PyObject,
            _: *mut c_void,
        ) -> i32
        where
            F: for<'a, 'py> Fn(R::Of<'a, 'py>, Borrowed<'a, 'py, PyAny>) -> PyResult<()> + Copy + 'static,
        {
            // SAFETY: CPython calls a setter with the GIL held, a receiver of the attribute's class and a live value
            // (null to delete it).
            unsafe {
                let py = Python::assume_attached();
                guard_status(py, || {
                    if value.is_null() {
                        return Err(PyAttributeError::new_err("cannot delete attribute"));
                    }
                    item::<F>()(R::receive(py, slf), Borrowed::from_ptr(py, value))
                })
            }
        }
        self.0.set = Some(set::<R, F>);
        self
    }

    /// Makes the attribute one that can be written and deleted: then the function gets no value.
    pub(crate) fn changer<R: Receiver, F>(mut self, _: F) -> Self
    where
        F: for<'a, 'py> Fn(R::Of<'a, 'py>, Option<Borrowed<'a, 'py, PyAny>>) -> PyResult<()> + Copy + 'static,
    {
        unsafe extern "C" fn change<R: Receiver, F>(
            slf: *mut PyObject,
            value: *mut PyObject,
            _: *mut c_void,
        ) -> i32
        where
            F: for<'a, 'py> Fn(R::Of<'a, 'py>, Option<Borrowed<'a, 'py, PyAny>>) -> PyResult<()>
                + Copy
                + 'static,
        {
            // SAFETY: as for a setter.
            unsafe {
                let py = Python::assume_attached();
                guard_status(py, || {
                    let value = (!value.is_null()).then(|| Borrowed::from_ptr(py, value));
                    item::<F>()(R::receive(py, slf), value)
                })
            }
        }
        self.0.set = Some(change::<R, F>);
        self
    }
}

/// A slot of the form `self -> object` (`tp_repr`, `tp_iter`, `am_await`).
pub(crate) fn unary<R: Receiver, F>(_: F) -> *mut c_void
where
    F: Unary<R>,
{
    unsafe extern "C" fn call<R: Receiver, F>(slf: *mut PyObject) -> *mut PyObject
    where
        F: Unary<R>,
    {
        // SAFETY: CPython calls a slot with the GIL held and a receiver of the slot's class.
        unsafe {
            let py = Python::assume_attached();
            guard(py, || item::<F>().call(R::receive(py, slf)))
        }
    }
    call::<R, F> as *mut c_void
}

/// `tp_richcompare`: `fn(self, other, op) -> object`.
pub(crate) fn richcompare<R: Receiver, F>(_: F) -> *mut c_void
where
    F: for<'a, 'py> Fn(R::Of<'a, 'py>, Borrowed<'a, 'py, PyAny>, pyo3::basic::CompareOp) -> Object<'py>
        + Copy
        + 'static,
{
    unsafe extern "C" fn call<R: Receiver, F>(
        slf: *mut PyObject,
        other: *mut PyObject,
        op: i32,
    ) -> *mut PyObject
    where
        F: for<'a, 'py> Fn(R::Of<'a, 'py>, Borrowed<'a, 'py, PyAny>, pyo3::basic::CompareOp) -> Object<'py>
            + Copy
            + 'static,
    {
        // SAFETY: CPython calls the slot with the GIL held, a receiver of the slot's class and a live operand.
        unsafe {
            let py = Python::assume_attached();
            guard(py, || {
                let op = pyo3::basic::CompareOp::from_raw(op)
                    .ok_or_else(|| pyo3::exceptions::PySystemError::new_err("bad comparison"))?;
                item::<F>()(R::receive(py, slf), Borrowed::from_ptr(py, other), op)
            })
        }
    }
    call::<R, F> as *mut c_void
}

/// `tp_hash`: identity of the address or what `F` says.
pub(crate) fn hash<R: Receiver, F>(_: F) -> *mut c_void
where
    F: for<'a, 'py> Fn(R::Of<'a, 'py>) -> PyResult<isize> + Copy + 'static,
{
    unsafe extern "C" fn call<R: Receiver, F>(slf: *mut PyObject) -> ffi::Py_hash_t
    where
        F: for<'a, 'py> Fn(R::Of<'a, 'py>) -> PyResult<isize> + Copy + 'static,
    {
        // SAFETY: CPython calls the slot with the GIL held and a receiver of the slot's class.
        unsafe {
            let py = Python::assume_attached();
            let mut value = -1;
            guard_status(py, || {
                value = item::<F>()(R::receive(py, slf))?;
                if value == -1 {
                    value = -2; // -1 says "error" to CPython
                }
                Ok(())
            });
            value
        }
    }
    call::<R, F> as *mut c_void
}

/// `sq_length`: `fn(self) -> usize`.
pub(crate) fn length<R: Receiver, F>(_: F) -> *mut c_void
where
    F: for<'a, 'py> Fn(R::Of<'a, 'py>) -> PyResult<usize> + Copy + 'static,
{
    unsafe extern "C" fn call<R: Receiver, F>(slf: *mut PyObject) -> ffi::Py_ssize_t
    where
        F: for<'a, 'py> Fn(R::Of<'a, 'py>) -> PyResult<usize> + Copy + 'static,
    {
        // SAFETY: CPython calls the slot with the GIL held and a receiver of the slot's class.
        unsafe {
            let py = Python::assume_attached();
            let mut value = 0;
            let status = guard_status(py, || {
                value = item::<F>()(R::receive(py, slf))?.cast_signed();
                Ok(())
            });
            if status == 0 { value } else { -1 }
        }
    }
    call::<R, F> as *mut c_void
}

/// `mp_subscript`: `fn(self, key) -> object`.
pub(crate) fn subscript<R: Receiver, F>(_: F) -> *mut c_void
where
    F: for<'a, 'py> Fn(R::Of<'a, 'py>, Borrowed<'a, 'py, PyAny>) -> Object<'py> + Copy + 'static,
{
    unsafe extern "C" fn call<R: Receiver, F>(slf: *mut PyObject, key: *mut PyObject) -> *mut PyObject
    where
        F: for<'a, 'py> Fn(R::Of<'a, 'py>, Borrowed<'a, 'py, PyAny>) -> Object<'py> + Copy + 'static,
    {
        // SAFETY: CPython calls the slot with the GIL held, a receiver of the slot's class and a live key.
        unsafe {
            let py = Python::assume_attached();
            guard(py, || item::<F>()(R::receive(py, slf), Borrowed::from_ptr(py, key)))
        }
    }
    call::<R, F> as *mut c_void
}

/// `tp_init`: `fn(self, Args)`.
pub(crate) fn initializer<R: Receiver, F>(_: F) -> *mut c_void
where
    F: for<'a, 'py> Fn(R::Of<'a, 'py>, Args<'a, 'py>) -> PyResult<()> + Copy + 'static,
{
    unsafe extern "C" fn init<R: Receiver, F>(
        slf: *mut PyObject,
        args: *mut PyObject,
        kwargs: *mut PyObject,
    ) -> i32
    where
        F: for<'a, 'py> Fn(R::Of<'a, 'py>, Args<'a, 'py>) -> PyResult<()> + Copy + 'static,
    {
        // SAFETY: CPython calls tp_init with the GIL held, a receiver of the class, a tuple and null or a dict.
        unsafe {
            let py = Python::assume_attached();
            guard_status(py, || {
                args::from_tuple(py, args, kwargs, |args| item::<F>()(R::receive(py, slf), args))
            })
        }
    }
    init::<R, F> as *mut c_void
}

/// `tp_new` of a class whose value is made from the arguments: `fn(Args) -> PyResult<T>`.
pub(crate) fn constructor<T: Class, F>(_: F) -> *mut c_void
where
    F: for<'a, 'py> Fn(Args<'a, 'py>) -> PyResult<T> + Copy + 'static,
{
    unsafe extern "C" fn new<T: Class, F>(
        class: *mut PyTypeObject,
        args: *mut PyObject,
        kwargs: *mut PyObject,
    ) -> *mut PyObject
    where
        F: for<'a, 'py> Fn(Args<'a, 'py>) -> PyResult<T> + Copy + 'static,
    {
        // SAFETY: CPython calls tp_new with the GIL held, a subtype of the class, a tuple and null or a dict.
        unsafe {
            let py = Python::assume_attached();
            guard(py, || {
                let value = args::from_tuple(py, args, kwargs, |args| item::<F>()(args))?;
                create_subclass(py, class, value)
            })
        }
    }
    new::<T, F> as *mut c_void
}

/// `tp_call`: `fn(self, Args) -> object`.
pub(crate) fn caller<R: Receiver, F>(_: F) -> *mut c_void
where
    F: for<'a, 'py> Fn(R::Of<'a, 'py>, Args<'a, 'py>) -> Object<'py> + Copy + 'static,
{
    unsafe extern "C" fn call<R: Receiver, F>(
        slf: *mut PyObject,
        args: *mut PyObject,
        kwargs: *mut PyObject,
    ) -> *mut PyObject
    where
        F: for<'a, 'py> Fn(R::Of<'a, 'py>, Args<'a, 'py>) -> Object<'py> + Copy + 'static,
    {
        // SAFETY: CPython calls tp_call with the GIL held, a receiver of the class, a tuple and null or a dict.
        unsafe {
            let py = Python::assume_attached();
            guard(py, || args::from_tuple(py, args, kwargs, |args| item::<F>()(R::receive(py, slf), args)))
        }
    }
    call::<R, F> as *mut c_void
}

/// The error CPython raises for a number of positional arguments a function item can't take.
#[cold]
pub(crate) fn wrong_count(name: &str, least: usize, most: usize, given: usize) -> PyErr {
    pyo3::exceptions::PyTypeError::new_err(if given < least {
        format!("{name} expected at least {least} argument{}, got {given}", if least == 1 { "" } else { "s" })
    } else {
        format!("{name} expected at most {most} argument{}, got {given}", if most == 1 { "" } else { "s" })
    })
}
