//! The arguments of a raw method call, and their names.
//!
//! [`Args`] is what CPython hands to a fastcall method; [`Signature::bind`] sorts it into an array, one place a
//! parameter, with CPython's own error messages.
#![allow(unsafe_code, reason = "reads the argument vector of a call")]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::Borrowed;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

/// The argument vector of one call: borrowed for the call only.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a, 'py> {
    py: Python<'py>,
    values: &'a [*mut ffi::PyObject],
    positional: usize,
    names: *mut ffi::PyObject,
}

/// The parameters of a callable.
#[derive(Debug)]
pub(crate) struct Signature {
    /// As in `name() missing 1 required positional argument`.
    pub(crate) name: &'static str,
    /// Parameters that may be given by position or by name.
    pub(crate) positional: &'static [&'static str],
    /// How many of these must be given.
    pub(crate) required: usize,
    /// How many of these can't be given by name.
    pub(crate) positional_only: usize,
    /// Parameters that may be given by name alone.
    pub(crate) keyword_only: &'static [&'static str],
}

impl<'a, 'py> Args<'a, 'py> {
    /// # Safety
    /// The vectorcall protocol: `values` has `nargs` positional values, then one for each name in `names`.
    #[inline]
    pub(super) unsafe fn new(
        py: Python<'py>,
        values: *const *mut ffi::PyObject,
        nargs: ffi::Py_ssize_t,
        names: *mut ffi::PyObject,
    ) -> Self {
        let positional = nargs.unsigned_abs();
        // SAFETY: `names` is null or a tuple, by the protocol.
        let named = if names.is_null() { 0 } else { unsafe { ffi::PyTuple_GET_SIZE(names) }.unsigned_abs() };
        let values = if positional + named == 0 {
            &[]
        } else {
            // SAFETY: the protocol gives that many live borrowed references.
            unsafe { std::slice::from_raw_parts(values, positional + named) }
        };
        Self { py, values, positional, names }
    }

    #[inline]
    pub(crate) fn py(self) -> Python<'py> {
        self.py
    }

    /// How many arguments were given by position.
    #[inline]
    pub(crate) fn len(self) -> usize {
        self.positional
    }

    #[inline]
    pub(crate) fn has_names(self) -> bool {
        self.values.len() > self.positional
    }

    /// The argument at a position, given by position or (past those) by name.
    #[inline]
    fn value(self, index: usize) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: a live reference that the caller keeps for the time of the call ('a).
        unsafe { Borrowed::from_ptr(self.py, self.values[index]) }
    }

    /// The argument given at a position.
    #[inline]
    pub(crate) fn get(self, index: usize) -> Option<Borrowed<'a, 'py, PyAny>> {
        (index < self.positional).then(|| self.value(index))
    }

    /// The positional arguments from `start` on, as a tuple.
    pub(crate) fn rest(self, start: usize) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(self.py, (start..self.positional.max(start)).map(|i| self.value(i)))
    }

    /// The arguments as a tuple and a dict, to pass them on.
    pub(crate) fn to_call(self) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
        let keywords = self.has_names().then(|| PyDict::new(self.py));
        if let Some(keywords) = &keywords {
            for (name, value) in self.names() {
                keywords.set_item(name, value)?;
            }
        }
        Ok((self.rest(0)?, keywords))
    }

    fn names(self) -> impl Iterator<Item = (Bound<'py, PyString>, Borrowed<'a, 'py, PyAny>)> {
        (self.positional..self.values.len()).map(move |i| {
            let at = (i - self.positional).cast_signed();
            // SAFETY: `names` is a tuple of str with one entry a named value, by the protocol.
            let name = unsafe { Borrowed::from_ptr(self.py, ffi::PyTuple_GET_ITEM(self.names, at)) };
            // SAFETY: the vectorcall protocol makes every name a str.
            (unsafe { name.to_owned().cast_into_unchecked::<PyString>() }, self.value(i))
        })
    }

    /// The one keyword-only argument of a method that takes any number of positional ones (`call_soon`).
    #[inline]
    pub(crate) fn only_keyword(
        self,
        method: &str,
        keyword: &str,
    ) -> PyResult<Option<Borrowed<'a, 'py, PyAny>>> {
        let mut found = None;
        if self.has_names() {
            for (name, value) in self.names() {
                if name.to_str()? != keyword {
                    return Err(unexpected(method, &name));
                }
                found = Some(value);
            }
        }
        Ok(found)
    }
}

impl Signature {
    /// A method with one parameter, which may be given by name.
    pub(crate) const fn of_one(name: &'static str, positional: &'static [&'static str; 1]) -> Self {
        Self { name, positional, required: 1, positional_only: 0, keyword_only: &[] }
    }

    /// The argument of a method with one parameter.
    #[inline]
    pub(crate) fn one<'a, 'py>(&self, args: Args<'a, 'py>) -> PyResult<Borrowed<'a, 'py, PyAny>> {
        if let (Some(value), 1, false) = (args.get(0), args.len(), args.has_names()) {
            return Ok(value);
        }
        match self.bind::<1>(args)? {
            [Some(value)] => Ok(value),
            [None] => Err(PyTypeError::new_err(format!("{}() needs an argument", self.name))),
        }
    }

    /// Sorts the arguments by parameter: positional parameters first, then the keyword-only ones.
    #[inline]
    pub(crate) fn bind<'a, 'py, const N: usize>(
        &self,
        args: Args<'a, 'py>,
    ) -> PyResult<[Option<Borrowed<'a, 'py, PyAny>>; N]> {
        debug_assert_eq!(N, self.positional.len() + self.keyword_only.len());
        let mut bound = [None; N];
        let given = args.len();
        if given > self.positional.len() {
            return Err(self.too_many(given));
        }
        for (i, place) in bound.iter_mut().enumerate().take(given) {
            *place = Some(args.value(i));
        }
        if args.has_names() {
            self.bind_names(args, &mut bound)?;
        }
        for (i, place) in bound.iter().enumerate().take(self.required) {
            if place.is_none() {
                return Err(PyTypeError::new_err(format!(
                    "{}() missing required argument '{}' (pos {})",
                    self.name,
                    self.positional[i],
                    i + 1
                )));
            }
        }
        Ok(bound)
    }

    fn bind_names<'a, 'py>(
        &self,
        args: Args<'a, 'py>,
        bound: &mut [Option<Borrowed<'a, 'py, PyAny>>],
    ) -> PyResult<()> {
        for (name, value) in args.names() {
            let text = name.to_str()?;
            let all = self.positional.iter().chain(self.keyword_only);
            let Some(index) =
                all.enumerate().skip(self.positional_only).find(|(_, n)| **n == text).map(|(i, _)| i)
            else {
                return Err(unexpected(self.name, &name));
            };
            if bound[index].is_some() {
                return Err(PyTypeError::new_err(format!(
                    "argument for {}() given by name ('{text}') and position ({})",
                    self.name,
                    index + 1
                )));
            }
            bound[index] = Some(value);
        }
        Ok(())
    }

    #[cold]
    fn too_many(&self, given: usize) -> PyErr {
        let most = self.positional.len();
        PyTypeError::new_err(if most == 0 {
            format!("{}() takes no positional arguments", self.name)
        } else {
            let (bound, s) =
                (if self.required == most { "exactly" } else { "at most" }, if most == 1 { "" } else { "s" });
            format!("{}() takes {bound} {most} positional argument{s} ({given} given)", self.name)
        })
    }
}

/// An optional argument, with None for "not given".
#[inline]
pub(crate) fn given<'py>(value: Option<Borrowed<'_, 'py, PyAny>>) -> Option<Bound<'py, PyAny>> {
    value.filter(|v| !v.is_none()).map(|v| v.to_owned())
}

/// Whether the object is exactly the int 0 (of which there is one).
#[inline]
pub(crate) fn is_zero(object: Borrowed<'_, '_, PyAny>) -> bool {
    object.as_ptr() == ZERO.load(Ordering::Relaxed)
}

static ZERO: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// Called by the module's init.
pub(crate) fn init(py: Python<'_>) {
    ZERO.store(pyo3::types::PyInt::new(py, 0).into_ptr().cast(), Ordering::Relaxed);
}

#[cold]
fn unexpected(method: &str, name: &Bound<'_, PyString>) -> PyErr {
    PyTypeError::new_err(format!("{method}() got an unexpected keyword argument '{name}'"))
}

/// Calls `f` with the arguments of a `tp_init` or `tp_new` call as a vector.
///
/// # Safety
/// `args` is a tuple and `kwargs` null or a dict with str keys, as these slots get them.
pub(super) unsafe fn from_tuple<'py, R>(
    py: Python<'py>,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
    f: impl FnOnce(Args<'_, 'py>) -> PyResult<R>,
) -> PyResult<R> {
    // SAFETY: a live tuple for the time of the call.
    let args = unsafe { Borrowed::from_ptr(py, args).cast_unchecked::<PyTuple>() };
    let mut values: Vec<Bound<'py, PyAny>> = args.iter().collect();
    let positional = values.len();
    let mut names = Vec::new();
    if !kwargs.is_null() {
        // SAFETY: a live dict for the time of the call.
        let kwargs = unsafe { Borrowed::from_ptr(py, kwargs).cast_unchecked::<PyDict>() };
        for (name, value) in kwargs.iter() {
            names.push(name.cast_into::<PyString>()?);
            values.push(value);
        }
    }
    let names = PyTuple::new(py, names)?;
    let pointers: Vec<_> = values.iter().map(Bound::as_ptr).collect();
    // SAFETY: `values` and `names` outlive the call of `f` and match the protocol.
    f(unsafe { Args::new(py, pointers.as_ptr(), positional.cast_signed(), names.as_ptr()) })
}
