//! The types aioxide.Future and aioxide.Task: made from `_asyncio`'s, with our slots and methods.
//!
//! `Future` adds no memory to its base, so `Task` can have both our `Future` and CPython's `Task` as bases:
//! `issubclass(aioxide.Task, aioxide.Future)` and `issubclass(aioxide.Task, _asyncio.Task)` are both plain truth.
#![allow(unsafe_code, reason = "type slots of Future and Task")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::Borrowed;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::class::{Builder, TypeCell, free, is_hidden};
use super::gathering::GATHERING;
use super::iter::future_next;
use super::layout::{self, FUTURE_SIZE, Fut, TASK_SIZE, Tsk};
use super::method::{AnyFuture, AnyTask, initializer, noargs, unary};
use super::spares::Spares;
use super::thread;
use crate::local::LoopCore;

static FUTURE: TypeCell = TypeCell::new();
static TASK: TypeCell = TypeCell::new();
pub(super) static STOCK_FUTURE: TypeCell = TypeCell::new();
static STOCK_TASK: TypeCell = TypeCell::new();

/// aioxide.Future, the type.
pub(crate) fn future_type(py: Python<'_>) -> Bound<'_, PyAny> {
    FUTURE.get(py)
}

/// aioxide.Task, the type.
pub(crate) fn task_type(py: Python<'_>) -> Bound<'_, PyAny> {
    TASK.get(py)
}

impl<'a, 'py> Fut<'a, 'py> {
    /// The object as an aioxide Future or Task (or an instance of a subclass), if it is one.
    #[inline]
    pub(crate) fn cast(object: &'a Bound<'py, PyAny>) -> Option<Self> {
        // SAFETY: checked.
        FUTURE.is_instance(object).then(|| unsafe { Self::new(object.as_borrowed()) })
    }

    /// The object if its methods are surely ours: exactly Future or Task, or the future of a `gather`.
    #[inline]
    pub(crate) fn cast_exact(object: &'a Bound<'py, PyAny>) -> Option<Self> {
        // SAFETY: checked.
        (FUTURE.is_exact(object) || TASK.is_exact(object) || GATHERING.is_exact(object))
            .then(|| unsafe { Self::new(object.as_borrowed()) })
    }

    /// The object as any asyncio future with CPython's layout: ours or stock, Future or Task or a subclass.
    #[inline]
    pub(crate) fn cast_any(object: &'a Bound<'py, PyAny>) -> Option<Self> {
        let known = FUTURE.is_exact(object) || TASK.is_exact(object) || STOCK_FUTURE.is_instance(object);
        // SAFETY: checked; every other type derives from `_asyncio.Future`.
        known.then(|| unsafe { Self::new(object.as_borrowed()) })
    }
}

impl<'a, 'py> Tsk<'a, 'py> {
    /// The object as an aioxide Task (or an instance of a subclass), if it is one.
    #[inline]
    pub(crate) fn cast(object: &'a Bound<'py, PyAny>) -> Option<Self> {
        // SAFETY: checked.
        TASK.is_instance(object).then(|| unsafe { Self::new(object.as_borrowed()) })
    }

    /// The object as any task with CPython's layout: ours or stock, or of a subclass.
    #[inline]
    pub(crate) fn cast_any(object: &'a Bound<'py, PyAny>) -> Option<Self> {
        let known = TASK.is_exact(object) || STOCK_TASK.is_instance(object);
        // SAFETY: checked; every other type derives from `_asyncio.Task`.
        known.then(|| unsafe { Self::new(object.as_borrowed()) })
    }

    /// The object if it is exactly an aioxide Task.
    #[inline]
    pub(crate) fn cast_exact(object: &'a Bound<'py, PyAny>) -> Option<Self> {
        // SAFETY: checked.
        TASK.is_exact(object).then(|| unsafe { Self::new(object.as_borrowed()) })
    }
}

/// A blank instance of exactly Future: every field null, state pending.
#[inline]
pub(crate) fn alloc_future(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    alloc::<FUTURE_SIZE>(py, &FUTURE, &SPARE_FUTURES)
}

/// A blank instance of exactly Task, which the collector does not know of: see [`Tsk::show`].
#[inline]
pub(crate) fn alloc_task(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let task = alloc::<TASK_SIZE>(py, &TASK, &SPARE_TASKS)?;
    // SAFETY: a live object with a collector's header.
    unsafe { ffi::PyObject_GC_UnTrack(task.as_ptr().cast()) };
    Ok(task)
}

impl Tsk<'_, '_> {
    /// Lets the garbage collector see the task and its context.
    ///
    /// Until its first step is over a task of a running loop is in the ready queue, so it is in use and there is
    /// nothing to find out. In a flood of short tasks that spares the collector most of its work.
    #[inline]
    pub(crate) fn show(self) {
        // SAFETY: live objects with a collector's header.
        unsafe {
            let object = self.object().as_ptr();
            if is_hidden(object) {
                ffi::PyObject_GC_Track(object.cast());
                if let Some(context) = self.context()
                    && is_hidden(context.as_ptr())
                {
                    ffi::PyObject_GC_Track(context.as_ptr().cast());
                }
            }
        }
    }

    /// Hides a new context that nobody but the task knows of, for as long as the task is hidden. The context must be
    /// shown before it goes, which `show` in the task's dealloc sees to.
    #[inline]
    pub(crate) fn hide_context(self) {
        // SAFETY: live objects with a collector's header.
        unsafe {
            if is_hidden(self.object().as_ptr())
                && let Some(context) = self.context()
            {
                ffi::PyObject_GC_UnTrack(context.as_ptr().cast());
            }
        }
    }
}

/// Memory of freed Futures and Tasks, and how much of it is kept. Tasks come in floods, and giving their pages back to
/// the system to ask for them anew is what a flood would then spend its time on; these are four megabytes at most.
static SPARE_FUTURES: (Spares, usize) = (Spares::new(), 2048);
static SPARE_TASKS: (Spares, usize) = (Spares::new(), 16_384);

#[inline]
fn alloc<'py, const SIZE: usize>(
    py: Python<'py>,
    class: &TypeCell,
    (spares, _): &(Spares, usize),
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a ready heap type; new memory comes zeroed, which is a valid blank future. Spare memory is that of a
    // dead instance of exactly this type, untracked, whose dict and weak references are gone: its fields are zeroed,
    // and only then the collector gets to see it.
    unsafe {
        let object = match spares.take(py) {
            None => ffi::PyType_GenericAlloc(class.ptr(), 0),
            Some(object) => {
                let (object, head) = (object.as_ptr(), size_of::<PyObject>());
                ffi::Py_INCREF(class.ptr().cast()); // `release` gave it up
                std::ptr::write_bytes(object.cast::<u8>().add(head), 0, SIZE - head);
                ffi::PyObject_GC_Track(object.cast());
                object
            }
        };
        Bound::from_owned_ptr_or_err(py, object)
    }
}

unsafe extern "C" fn future_dealloc(slf: *mut PyObject) {
    // SAFETY: CPython calls this once with the last reference gone and the GIL held. The base's tp_clear drops every
    // field; what runs in between may look at the object, which is whole until then.
    unsafe {
        let py = Python::assume_attached();
        if Fut::new(Borrowed::from_ptr(py, slf)).log_tb() && ffi::PyObject_CallFinalizerFromDealloc(slf) < 0 {
            return; // alive again
        }
        release(py, slf, &STOCK_FUTURE, &FUTURE, &SPARE_FUTURES);
    }
}

unsafe extern "C" fn task_dealloc(slf: *mut PyObject) {
    // SAFETY: as above; the task leaves its thread's list before its memory goes.
    unsafe {
        let py = Python::assume_attached();
        let task = Tsk::new(Borrowed::from_ptr(py, slf));
        let wants = task.fut().log_tb() || (task.fut().is_pending() && task.log_destroy_pending());
        task.show();
        if wants && ffi::PyObject_CallFinalizerFromDealloc(slf) < 0 {
            return;
        }
        thread::unregister(task);
        release(py, slf, &STOCK_TASK, &TASK, &SPARE_TASKS);
    }
}

/// The end of a dealloc: fields, weak references, memory.
unsafe fn release(
    py: Python<'_>,
    slf: *mut PyObject,
    base: &TypeCell,
    own: &TypeCell,
    (spares, most): &(Spares, usize),
) {
    // SAFETY: the callers' promise: the last reference is gone and `slf` is an instance of `own` or of a subclass,
    // whose base is `base`. Memory is kept only for instances of exactly `own`.
    unsafe {
        let class = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_UnTrack(slf.cast());
        ffi::PyObject_ClearWeakRefs(slf);
        if let Some(clear) = (*base.ptr()).tp_clear {
            clear(slf);
        }
        if std::ptr::eq(class, own.ptr()) && spares.keep(py, slf, *most) {
            // Futures that Python code makes come from elsewhere and end here: their number is no number of references.
            ffi::Py_DECREF(class.cast());
        } else {
            free(slf, class);
        }
    }
}

unsafe extern "C" fn future_finalize(slf: *mut PyObject) {
    // SAFETY: called with a live object of our class and the GIL held.
    unsafe {
        let future = Fut::new(Borrowed::from_ptr(Python::assume_attached(), slf));
        let _ = catch_unwind(AssertUnwindSafe(|| crate::futures::finalize(future)));
    }
}

unsafe extern "C" fn task_finalize(slf: *mut PyObject) {
    // SAFETY: called with a live object of our class and the GIL held.
    unsafe {
        let task = Tsk::new(Borrowed::from_ptr(Python::assume_attached(), slf));
        let _ = catch_unwind(AssertUnwindSafe(|| crate::tasks::finalize(task)));
    }
}

/// The class of the first loop that was asked for: nearly always that of every loop.
static LOOP: TypeCell = TypeCell::new();

/// The native part of an event loop, if it is one of ours.
#[inline]
pub(crate) fn loop_core<'a>(object: &'a Bound<'_, PyAny>) -> Option<&'a LoopCore> {
    if LOOP.is_exact(object) {
        // SAFETY: the cell holds (and keeps alive) a class that passed the check below.
        return Some(unsafe { object.cast_unchecked::<LoopCore>() }.get());
    }
    other_loop_core(object)
}

#[cold]
fn other_loop_core<'a>(object: &'a Bound<'_, PyAny>) -> Option<&'a LoopCore> {
    let core = object.cast::<LoopCore>().ok()?;
    if LOOP.ptr().is_null() {
        LOOP.set(&object.get_type());
    }
    Some(core.get())
}

impl<'a> Fut<'a, '_> {
    /// The native part of the future's loop, if it is one of ours, without a new reference.
    #[inline]
    pub(crate) fn loop_core(self) -> Option<&'a LoopCore> {
        let event_loop = self.loop_ptr();
        if event_loop.is_null() {
            return None;
        }
        // SAFETY: the future owns a reference to its loop, and gives it up only in a second `__init__` or when the
        // collector finds it unreachable: not while the caller, who runs no Python code in between, looks.
        let event_loop = unsafe { Borrowed::from_ptr(self.py(), event_loop) };
        let core: *const LoopCore = loop_core(&event_loop)?;
        // SAFETY: as above; the class is frozen, so a shared reference is all anybody has.
        Some(unsafe { &*core })
    }
}

/// Whether the object is exactly a coroutine of an `async def`.
#[inline]
pub(crate) fn is_native_coroutine(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: reads the type of a live object.
    unsafe { ffi::PyCoro_CheckExact(object.as_ptr()) != 0 }
}

/// Whether the object is a generator.
pub(crate) fn is_generator(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: reads the type of a live object.
    unsafe { ffi::PyGen_Check(object.as_ptr()) != 0 }
}

/// Clears the mark "finalized" of an instance whose memory will be used again (see class.rs).
///
/// # Safety
/// `slf` is a dead, untracked instance of a type with garbage collection.
pub(super) unsafe fn forget_finalized(slf: *mut PyObject) {
    // SAFETY: the two words before the object are its collector header in every supported version; bit 0 of the
    // second says "finalized".
    unsafe {
        let previous = slf.cast::<usize>().sub(1);
        *previous &= !1;
    }
}

/// Makes both types.
pub(crate) fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    #[cfg(Py_3_12)]
    super::stop::init(module)?;
    let (stock_future, stock_task) = layout::stock_types(py)?;
    STOCK_FUTURE.set(&stock_future);
    STOCK_TASK.set(&stock_task);
    let builder = Builder::extending(c"aioxide.Future", FUTURE_SIZE)
        .flags(inherited_flags(&STOCK_FUTURE))
        .slot(ffi::Py_tp_dealloc, future_dealloc as *mut _)
        .slot(ffi::Py_tp_finalize, future_finalize as *mut _)
        .slot(ffi::Py_tp_init, initializer::<AnyFuture, _>(crate::futures::init))
        .slot(ffi::Py_tp_repr, unary::<AnyFuture, _>(crate::futures::repr))
        .slot(ffi::Py_tp_iter, unary::<AnyFuture, _>(crate::future_iter::iterate))
        .slot(ffi::Py_am_await, unary::<AnyFuture, _>(crate::future_iter::awaited))
        .slot(
            ffi::Py_tp_iternext,
            future_next(crate::future_iter::resume_at_once, crate::future_iter::resume),
        )
        .method(noargs::<AnyFuture, _>(c"__await__", crate::future_iter::iterate).beside_slot())
        .generic();
    let future =
        crate::futures::methods(builder).build(module, Some(&PyTuple::new(py, [stock_future])?), &FUTURE)?;
    forget_next(&FUTURE);
    let builder = Builder::extending(c"aioxide.Task", TASK_SIZE)
        .flags(inherited_flags(&STOCK_TASK))
        .slot(ffi::Py_tp_dealloc, task_dealloc as *mut _)
        .slot(ffi::Py_tp_finalize, task_finalize as *mut _)
        .slot(ffi::Py_tp_init, initializer::<AnyTask, _>(crate::tasks::init))
        .slot(ffi::Py_tp_repr, unary::<AnyTask, _>(crate::tasks::repr))
        .slot(ffi::Py_tp_iter, unary::<AnyFuture, _>(crate::future_iter::iterate))
        .slot(ffi::Py_am_await, unary::<AnyFuture, _>(crate::future_iter::awaited))
        .slot(
            ffi::Py_tp_iternext,
            future_next(crate::future_iter::resume_at_once, crate::future_iter::resume),
        )
        .method(noargs::<AnyFuture, _>(c"__await__", crate::future_iter::iterate).beside_slot())
        .generic();
    let task = crate::tasks::methods(crate::futures::shared_methods(builder)).build(
        module,
        Some(&layout::task_bases(&future, &stock_task)?),
        &TASK,
    )?;
    forget_next(&TASK);
    module.add("Future", future)?;
    module.add("Task", task)
}

/// Takes `__next__` out of the class, where the slot has put it: to Python code a future is no iterator.
fn forget_next(class: &TypeCell) {
    // SAFETY: a type that nobody has seen yet, with a dict of its own; nothing has looked `__next__` up so far.
    unsafe {
        let class = class.ptr();
        if ffi::PyDict_DelItemString((*class).tp_dict, c"__next__".as_ptr()) < 0 {
            ffi::PyErr_Clear();
        }
        ffi::PyType_Modified(class);
    }
}

/// Whether the interpreter may iterate the future: not those of a Python subclass, which inherit no such slot.
#[inline]
pub(crate) fn iterates_itself(future: Fut<'_, '_>) -> bool {
    // SAFETY: reads the slots of the types of live objects.
    unsafe {
        let class = ffi::Py_TYPE(future.object().as_ptr());
        std::ptr::eq(class, TASK.ptr())
            || (*class).tp_iternext.map(|next| next as usize)
                == (*FUTURE.ptr()).tp_iternext.map(|next| next as usize)
    }
}

/// Flags that a subtype made from C has to repeat.
fn inherited_flags(base: &TypeCell) -> u64 {
    let flags = u64::from(ffi::Py_TPFLAGS_BASETYPE);
    #[cfg(Py_3_12)]
    let flags = {
        const MANAGED_WEAKREF_AND_DICT: u64 = (1 << 3) | (1 << 4);
        // SAFETY: reads the flags of a live type.
        flags | (unsafe { (*base.ptr()).tp_flags } as u64 & MANAGED_WEAKREF_AND_DICT)
    };
    let _ = base;
    flags
}
