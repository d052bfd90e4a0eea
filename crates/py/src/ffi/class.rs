//! Raw classes: native types whose instances are made, resumed and freed without PyO3's machinery.
//!
//! A type implements [`Class`]; its instances hold a Rust value of that type behind the object header. The slots and
//! methods are safe Rust functions wrapped by method.rs, which turns errors into exceptions and panics into
//! RuntimeError. Freed instances of the hottest classes are kept for the next one ([`Class::SPARE`]).
#![allow(unsafe_code, reason = "type slots")]

use std::ffi::{CStr, c_void};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use pyo3::Borrowed;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::gc::{Stopped, Visit, traverse_raw};
use super::instance_dict;
use super::method::{Attribute, Method, Of, getter};
use super::origins;
use super::spares::{Spares, become_a};
pub(crate) use super::type_cell::TypeCell;

/// A native type with instances of its own.
pub(crate) trait Class: Sized + 'static {
    /// Dotted name, as in `aioxide.Handle`.
    const NAME: &'static CStr;
    /// How many freed instances are kept for reuse.
    const SPARE: usize = 0;
    /// Other types with the same kind of instances (see [`Builder::named`]), which share the freed ones.
    const SIBLINGS: &'static [&'static TypeCell] = &[];
    /// Whether the garbage collector has to know the instances: those that hold no objects it may ignore.
    const TRACKED: bool = true;
    /// Whether it is a coroutine, which debug mode remembers the making of.
    const HAS_ORIGIN: bool = false;
    /// Whether Python code may subclass it.
    const SUBCLASSABLE: bool = false;
    /// How many `__slots__` of a base class come before our part: they belong to the instance and hold objects.
    const INHERITED: usize = 0;
    /// Whether a base class is written in Python.
    const PYTHON_BASE: bool = Self::INHERITED > 0;
    /// Where the value has the slot for the instance's `__dict__`, if instances have one. `traverse` and `clear` see
    /// to it as to any other slot.
    const DICT: Option<usize> = None;
    /// Whether the `__dict__` also has what asyncio keeps there and we natively, each under a private attribute.
    const SHOWS_STATE: bool = false;
    /// asyncio's own class, of which `isinstance()` takes the instances to be: `__class__` says so.
    const STANDS_FOR: Option<Find> = None;

    /// Where the type object is kept.
    fn cell() -> &'static TypeCell;
    /// Where freed instances are kept.
    fn spares() -> Option<&'static Spares> {
        None
    }
    /// Shows the objects it holds to the garbage collector.
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped>;
    /// Drops the objects it holds, to break a cycle.
    fn clear(&self, py: Python<'_>);
    /// Called before an unreachable instance goes (`__del__`); must leave no error behind.
    fn finalize(_this: Inst<'_, '_, Self>) {}
    /// Whether `finalize` has something to do: asked before every deallocation.
    fn wants_finalize(&self) -> bool {
        false
    }
}

/// What an instance holds behind its header and the slots of its base class: first what is used most.
#[repr(C)]
struct Tail<T> {
    value: ManuallyDrop<T>,
    weakrefs: *mut PyObject,
}

/// Where the slots of the base class start.
const INHERITED_AT: usize = size_of::<PyObject>();

/// Where T's part starts.
const fn tail_at<T: Class>() -> usize {
    const { assert!(align_of::<Tail<T>>() <= align_of::<PyObject>()) };
    INHERITED_AT + T::INHERITED * size_of::<*mut PyObject>()
}

/// T's part of an instance of its class.
#[inline]
unsafe fn tail<T: Class>(slf: *mut PyObject) -> *mut Tail<T> {
    // SAFETY: the memory of an instance is that long (`Builder::of`).
    unsafe { slf.cast::<u8>().add(tail_at::<T>()).cast() }
}

/// The slot of the base class with that number.
unsafe fn inherited(slf: *mut PyObject, number: usize) -> *mut *mut PyObject {
    // SAFETY: the callers keep below the class's number of slots.
    unsafe { slf.byte_add(INHERITED_AT).cast::<*mut PyObject>().add(number) }
}

/// A reference to a live instance of a raw class (or of a subclass).
pub(crate) struct Inst<'a, 'py, T> {
    obj: Borrowed<'a, 'py, PyAny>,
    of: PhantomData<&'a T>,
}

impl<T> Clone for Inst<'_, '_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Inst<'_, '_, T> {}

impl<'a, 'py, T: Class> Inst<'a, 'py, T> {
    /// The object as an instance of the class, if it is one.
    #[inline]
    pub(crate) fn cast(obj: &'a Bound<'py, PyAny>) -> Option<Self> {
        let known = T::SIBLINGS.iter().any(|sibling| sibling.is_exact(obj)) || T::cell().is_instance(obj);
        known.then(|| Self { obj: obj.as_borrowed(), of: PhantomData })
    }

    /// The object as an instance of exactly the class, if it is one.
    #[inline]
    pub(crate) fn cast_exact(obj: &'a Bound<'py, PyAny>) -> Option<Self> {
        T::cell().is_exact(obj).then(|| Self { obj: obj.as_borrowed(), of: PhantomData })
    }

    #[inline]
    pub(crate) fn py(self) -> Python<'py> {
        self.obj.py()
    }

    #[inline]
    pub(crate) fn object(self) -> Borrowed<'a, 'py, PyAny> {
        self.obj
    }

    /// How many references there are to the instance.
    #[inline]
    pub(crate) fn references(self) -> isize {
        references(&self.obj)
    }

    /// Lets the garbage collector see the instance (see [`create_hidden`]).
    #[inline]
    pub(crate) fn show(self) {
        let object = self.obj.as_ptr();
        // SAFETY: a live, whole object with a collector's header.
        unsafe {
            if is_hidden(object) {
                ffi::PyObject_GC_Track(object.cast());
            }
        }
    }

    /// The value, for as long as the object is borrowed.
    #[inline]
    pub(crate) fn get(self) -> &'a T {
        // SAFETY: as for `deref`; the reference that `self` was made from keeps the object alive for 'a.
        unsafe { &(*tail::<T>(self.obj.as_ptr())).value }
    }

    #[inline]
    pub(crate) fn to_owned(self) -> Bound<'py, PyAny> {
        self.obj.to_owned()
    }
}

/// How many references there are to an object.
#[inline]
pub(crate) fn references(object: &Bound<'_, PyAny>) -> isize {
    // SAFETY: reads the count of a live object under the GIL.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

impl<T: Class> Deref for Inst<'_, '_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `obj` is a live instance of T's class (checked by every constructor), whose value was written by
        // `create` before anybody saw the object.
        unsafe { &(*tail::<T>(self.obj.as_ptr())).value }
    }
}

impl<'a, 'py, T: Class> Inst<'a, 'py, T> {
    /// # Safety
    /// `slf` is a live instance of T's class.
    #[inline]
    pub(super) unsafe fn from_ptr(py: Python<'py>, slf: *mut PyObject) -> Self {
        // SAFETY: promised by the caller; what is live is not null.
        let obj = unsafe {
            std::hint::assert_unchecked(!slf.is_null());
            Borrowed::from_ptr(py, slf)
        };
        Self { obj, of: PhantomData }
    }
}

/// Makes an instance of a second type with the same kind of instances (see [`Builder::named`]).
#[inline]
pub(crate) fn create_in<'py, T: Class>(
    py: Python<'py>,
    class: &TypeCell,
    value: T,
) -> PyResult<Bound<'py, PyAny>> {
    let object = create_hidden(py, class, value)?;
    if T::TRACKED {
        // SAFETY: a whole object with a collector's header, which the collector does not know yet.
        unsafe { ffi::PyObject_GC_Track(object.as_ptr().cast::<c_void>()) };
    }
    Ok(object)
}

/// Makes an instance of exactly the class.
#[inline]
pub(crate) fn create<T: Class>(py: Python<'_>, value: T) -> PyResult<Bound<'_, PyAny>> {
    create_in(py, T::cell(), value)
}

/// As [`create_in`], unknown to the garbage collector until [`Inst::show`]. Right for an object that something in use
/// holds until then: in a flood of them it spares the collector most of its work.
#[inline(always)]
#[allow(clippy::inline_always, reason = "the value goes where it belongs at once")]
pub(crate) fn create_hidden<'py, T: Class>(
    py: Python<'py>,
    class: &TypeCell,
    value: T,
) -> PyResult<Bound<'py, PyAny>> {
    let class = class.ptr();
    // SAFETY: the class is a ready heap type with garbage collection, built for T; spare memory is that of a freed
    // instance of it or of a sibling, which is as long, and untracked. The value is written before anybody sees the
    // object.
    unsafe {
        let object = match T::spares().and_then(|spares| spares.take(py)) {
            Some(object) => {
                if !T::SIBLINGS.is_empty() {
                    become_a(object.as_ptr(), class);
                }
                object.as_ptr()
            }
            None => fresh(py, class)?,
        };
        for number in 0..T::INHERITED {
            *inherited(object, number) = ptr::null_mut();
        }
        let instance = tail::<T>(object);
        (*instance).weakrefs = ptr::null_mut();
        ptr::write(&raw mut (*instance).value, ManuallyDrop::new(value));
        let object = Bound::from_owned_ptr(py, object);
        if T::HAS_ORIGIN {
            origins::made(&object);
        }
        Ok(object)
    }
}

#[inline(never)]
fn fresh(py: Python<'_>, class: *mut PyTypeObject) -> PyResult<*mut PyObject> {
    // SAFETY: the class is a ready heap type with garbage collection.
    let object = unsafe { _PyObject_GC_New(class) };
    if object.is_null() { Err(PyErr::fetch(py)) } else { Ok(object) }
}

/// Makes an instance of the class or of a subclass of it, for `tp_new`.
pub(super) fn create_subclass<T: Class>(
    py: Python<'_>,
    class: *mut PyTypeObject,
    value: T,
) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: PyType_GenericAlloc zeroes the memory and tracks the object; the value is written at once and no
    // Python code runs in between.
    unsafe {
        let object = ffi::PyType_GenericAlloc(class, 0);
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        ptr::write(&raw mut (*tail::<T>(object)).value, ManuallyDrop::new(value));
        Ok(Bound::from_owned_ptr(py, object))
    }
}

unsafe extern "C" {
    fn _PyObject_GC_New(class: *mut PyTypeObject) -> *mut PyObject;
}

/// Whether the collector does not know the object.
///
/// # Safety
/// The object has a collector's header: two words before it in every supported version, of which the first is null
/// for an object that the collector does not know.
#[inline]
pub(super) unsafe fn is_hidden(object: *mut PyObject) -> bool {
    // SAFETY: promised by the caller.
    unsafe { *object.cast::<usize>().sub(2) == 0 }
}

unsafe extern "C" fn dealloc<T: Class>(slf: *mut PyObject) {
    // SAFETY: CPython calls this once, with the last reference gone; `slf` is an instance of T's class.
    unsafe {
        let class = ffi::Py_TYPE(slf);
        let instance = tail::<T>(slf);
        if (*instance).value.wants_finalize() {
            // The finalizer may hand it to somebody, and the collector has to know what lives on.
            if is_hidden(slf) {
                ffi::PyObject_GC_Track(slf.cast());
            }
            if ffi::PyObject_CallFinalizerFromDealloc(slf) < 0 {
                return; // alive again
            }
        }
        if !is_hidden(slf) {
            ffi::PyObject_GC_UnTrack(slf.cast());
        }
        if !(*instance).weakrefs.is_null() {
            ffi::PyObject_ClearWeakRefs(slf);
        }
        let py = Python::assume_attached();
        if T::HAS_ORIGIN {
            origins::gone(py, slf);
        }
        // Objects first, one by one and in Python's own way; what is left needs no interpreter.
        clear_inherited::<T>(slf);
        (*instance).value.clear(py);
        ManuallyDrop::drop(&mut (*instance).value);
        let kept = (class == T::cell().ptr() || T::SIBLINGS.iter().any(|sibling| class == sibling.ptr()))
            && T::spares().is_some_and(|spares| spares.keep(py, slf, T::SPARE));
        if !kept {
            free(slf, class);
        }
    }
}

/// Frees the memory of a dead instance, and gives up its reference to its type.
///
/// # Safety
/// The caller has the last pointer to it.
#[inline(never)]
pub(super) unsafe fn free(slf: *mut PyObject, class: *mut PyTypeObject) {
    // SAFETY: promised by the caller; `class` is the type of the instance.
    unsafe {
        ((*class).tp_free.unwrap_or(ffi::PyObject_GC_Del))(slf.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn traverse<T: Class>(slf: *mut PyObject, visit: ffi::visitproc, arg: *mut c_void) -> i32 {
    // SAFETY: the collector calls this with a live instance and its own visit function.
    unsafe {
        let class = ffi::Py_TYPE(slf).cast::<PyObject>();
        let status = visit(class, arg);
        if status != 0 {
            return status;
        }
        for number in 0..T::INHERITED {
            let object = *inherited(slf, number);
            let status = if object.is_null() { 0 } else { visit(object, arg) };
            if status != 0 {
                return status;
            }
        }
        traverse_raw(visit, arg, |v| (*tail::<T>(slf)).value.traverse(v))
    }
}

unsafe extern "C" fn clear<T: Class>(slf: *mut PyObject) -> i32 {
    // SAFETY: the collector calls this with a live instance and the GIL held.
    unsafe {
        clear_inherited::<T>(slf);
        (*tail::<T>(slf)).value.clear(Python::assume_attached());
    }
    0
}

/// Empties the slots of the base class.
#[inline]
unsafe fn clear_inherited<T: Class>(slf: *mut PyObject) {
    // SAFETY: called with a live instance and the GIL held; each slot is null or owns a reference.
    unsafe {
        for number in 0..T::INHERITED {
            let object = ptr::replace(inherited(slf, number), ptr::null_mut());
            ffi::Py_XDECREF(object);
        }
    }
}

unsafe extern "C" fn finalize<T: Class>(slf: *mut PyObject) {
    // SAFETY: called with a live instance and the GIL held.
    let _ = catch_unwind(AssertUnwindSafe(|| unsafe {
        let py = Python::assume_attached();
        T::finalize(Inst::from_ptr(py, slf));
    }));
}

/// Runs `f` at the border: errors are set, panics become RuntimeError.
#[inline]
pub(crate) fn guard<'py>(py: Python<'py>, f: impl FnOnce() -> PyResult<Bound<'py, PyAny>>) -> *mut PyObject {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => value.into_ptr(),
        Ok(Err(error)) => raise(py, error),
        Err(panic) => raise(py, bug(panic.as_ref())),
    }
}

/// Out of the way of those that succeed.
#[cold]
#[inline(never)]
fn raise(py: Python<'_>, error: PyErr) -> *mut PyObject {
    error.restore(py);
    ptr::null_mut()
}

/// As [`guard`], for slots that answer 0 or -1.
pub(crate) fn guard_status(py: Python<'_>, f: impl FnOnce() -> PyResult<()>) -> i32 {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            error.restore(py);
            -1
        }
        Err(panic) => {
            bug(panic.as_ref()).restore(py);
            -1
        }
    }
}

/// The exception for a panic: a bug of ours.
#[cold]
pub(crate) fn bug(panic: &(dyn std::any::Any + Send)) -> PyErr {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic");
    PyRuntimeError::new_err(format!("bug in aioxide, please report it: {text}"))
}

/// How one of asyncio's own classes is found.
pub(crate) type Find = for<'py> fn(Python<'py>) -> PyResult<Bound<'py, PyAny>>;

fn stands_for<'py, T: Class>(this: Inst<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    T::STANDS_FOR.map_or_else(|| Ok(this.object().get_type().into_any()), |find| find(this.py()))
}

/// The makings of a type: name, slots, methods and attributes.
pub(crate) struct Builder {
    name: &'static CStr,
    basicsize: usize,
    flags: u64,
    short: bool,
    slots: Vec<ffi::PyType_Slot>,
    methods: Vec<ffi::PyMethodDef>,
    getset: Vec<ffi::PyGetSetDef>,
    members: Vec<ffi::PyMemberDef>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Builder {
    /// A type whose instances hold a `T`.
    pub(crate) fn of<T: Class>() -> Self {
        let mut builder = Self::extending(T::NAME, tail_at::<T>() + size_of::<Tail<T>>());
        builder.flags |= u64::from(ffi::Py_TPFLAGS_HAVE_GC);
        if T::PYTHON_BASE || T::SUBCLASSABLE || T::DICT.is_some() {
            // Classes of asyncio's that are written in Python can be changed, and tests and instruments do.
            builder.flags &= !u64::from(ffi::Py_TPFLAGS_IMMUTABLETYPE);
        }
        if T::SUBCLASSABLE {
            builder.flags |= u64::from(ffi::Py_TPFLAGS_BASETYPE);
        }
        builder.members.push(ffi::PyMemberDef {
            name: c"__weaklistoffset__".as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset: (tail_at::<T>() + std::mem::offset_of!(Tail<T>, weakrefs)).cast_signed(),
            flags: ffi::Py_READONLY,
            doc: ptr::null(),
        });
        if let Some(at) = T::DICT {
            builder.members.push(ffi::PyMemberDef {
                name: c"__dictoffset__".as_ptr(),
                type_code: ffi::Py_T_PYSSIZET,
                offset: (tail_at::<T>() + std::mem::offset_of!(Tail<T>, value) + at).cast_signed(),
                flags: ffi::Py_READONLY,
                doc: ptr::null(),
            });
            builder.getset.push(instance_dict::attribute(T::SHOWS_STATE));
        }
        if T::STANDS_FOR.is_some() {
            builder = builder.attribute(getter::<Of<T>, _>(c"__class__", stands_for::<T>));
        }
        builder
            .slot(ffi::Py_tp_dealloc, dealloc::<T> as *mut c_void)
            .slot(ffi::Py_tp_traverse, traverse::<T> as *mut c_void)
            .slot(ffi::Py_tp_clear, clear::<T> as *mut c_void)
            .slot(ffi::Py_tp_finalize, finalize::<T> as *mut c_void)
    }

    /// A type that extends a base (whose traverse, clear and flags it inherits).
    pub(super) fn extending(name: &'static CStr, basicsize: usize) -> Self {
        let flags = u64::from(ffi::Py_TPFLAGS_DEFAULT) | u64::from(ffi::Py_TPFLAGS_IMMUTABLETYPE);
        Self {
            name,
            basicsize,
            flags,
            short: false,
            slots: Vec::new(),
            methods: Vec::new(),
            getset: Vec::new(),
            members: Vec::new(),
        }
    }

    pub(super) fn flags(mut self, flags: u64) -> Self {
        self.flags |= flags;
        self
    }

    /// Another name, for a second type with the same kind of instances.
    pub(crate) fn named(mut self, name: &'static CStr) -> Self {
        self.name = name;
        self
    }

    /// Instances start with a vectorcall function: calls build no tuple.
    pub(super) fn vectorcall(mut self) -> Self {
        self.flags |= 1 << 11; // Py_TPFLAGS_HAVE_VECTORCALL
        self.members.push(ffi::PyMemberDef {
            name: c"__vectorcalloffset__".as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset: (INHERITED_AT + std::mem::offset_of!(Tail<()>, value)).cast_signed(),
            flags: ffi::Py_READONLY,
            doc: ptr::null(),
        });
        self
    }

    pub(crate) fn slot(mut self, slot: i32, function: *mut c_void) -> Self {
        self.slots.push(ffi::PyType_Slot { slot, pfunc: function });
        self
    }

    /// Instances are "'Lock' object" in the interpreter's messages, as those of a Python class are: no module in front.
    pub(crate) fn short_name(mut self) -> Self {
        self.short = true;
        self
    }

    pub(crate) fn doc(self, doc: &'static CStr) -> Self {
        self.slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast())
    }

    pub(crate) fn method(mut self, method: Method) -> Self {
        self.methods.push(method.0);
        self
    }

    pub(crate) fn attribute(mut self, attribute: Attribute) -> Self {
        self.getset.push(attribute.0);
        self
    }

    /// `Class[item]`, as PEP 585 has it.
    pub(crate) fn generic(mut self) -> Self {
        self.methods.push(ffi::PyMethodDef {
            ml_name: c"__class_getitem__".as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunction: ffi::Py_GenericAlias },
            ml_flags: ffi::METH_O | ffi::METH_CLASS,
            ml_doc: c"See PEP 585".as_ptr(),
        });
        self
    }

    /// Makes the type and keeps it in `cell` for good.
    pub(crate) fn build<'py>(
        self,
        module: &Bound<'py, PyModule>,
        bases: Option<&Bound<'py, PyTuple>>,
        cell: &TypeCell,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = module.py();
        let Self { name, basicsize, flags, short, mut slots, mut methods, mut getset, mut members } = self;
        let end = ffi::PyType_Slot { slot: 0, pfunc: ptr::null_mut() };
        // The definitions live as long as the type: for good.
        if !methods.is_empty() {
            methods.push(ffi::PyMethodDef::zeroed());
            slots.push(ffi::PyType_Slot {
                slot: ffi::Py_tp_methods,
                pfunc: methods.leak().as_mut_ptr().cast(),
            });
        }
        if !getset.is_empty() {
            getset.push(ffi::PyGetSetDef::default());
            slots
                .push(ffi::PyType_Slot { slot: ffi::Py_tp_getset, pfunc: getset.leak().as_mut_ptr().cast() });
        }
        if !members.is_empty() {
            members.push(ffi::PyMemberDef::default());
            slots.push(ffi::PyType_Slot {
                slot: ffi::Py_tp_members,
                pfunc: members.leak().as_mut_ptr().cast(),
            });
        }
        let own = flags & u64::from(ffi::Py_TPFLAGS_HAVE_GC) != 0;
        let flags = if own && !slots.iter().any(|slot| slot.slot == ffi::Py_tp_new) {
            // object's `__new__` would make an instance without a value.
            flags | u64::from(ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION)
        } else {
            flags
        };
        slots.push(end);
        let mut spec = ffi::PyType_Spec {
            name: name.as_ptr(),
            basicsize: i32::try_from(basicsize)?,
            itemsize: 0,
            flags: u32::try_from(flags)?,
            slots: slots.as_mut_ptr(),
        };
        let bases = bases.map_or(ptr::null_mut(), |b| b.as_ptr());
        // SAFETY: the spec and its slots are well formed and live for the call; what the type keeps was leaked.
        let class = unsafe {
            Bound::from_owned_ptr_or_err(
                py,
                ffi::PyType_FromModuleAndSpec(module.as_ptr(), &raw mut spec, bases),
            )?
        };
        if short {
            let dot = name.to_bytes().iter().rposition(|byte| *byte == b'.').map_or(0, |dot| dot + 1);
            // SAFETY: a part of the static name up to its NUL, in a type that nobody has seen yet; `__name__` and
            // `__module__` are kept apart from it.
            unsafe { (*class.as_ptr().cast::<PyTypeObject>()).tp_name = name.as_ptr().add(dot) };
        }
        cell.set(&class);
        if flags & u64::from(ffi::Py_TPFLAGS_IMMUTABLETYPE) == 0 {
            cell.note_contents(py)?;
        }
        Ok(class)
    }
}
