//! A block of memory that Rust and C code fill and read in turn, C through the buffer protocol.
//!
//! One block a thread is kept and reused; whoever takes it has it alone. The block belongs to a Python object, so a view
//! that somebody keeps stays valid for as long as it lives: such a block is not reused.
#![allow(unsafe_code, reason = "the buffer protocol, from the lender's side")]

use std::cell::{Cell, UnsafeCell};
use std::ffi::CStr;

use aioxide_sys::landing::{self, PAGE};
use pyo3::exceptions::PyBufferError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::buffer;
use super::cell::Flag;
use super::class::{Builder, Class, Inst, TypeCell, create, guard_status};
use super::gc::{Stopped, Visit};

/// How long a block is: as much as one receive takes.
pub(crate) const SIZE: usize = 256 * 1024;

thread_local! {
    static KEPT: Cell<Option<Py<PyAny>>> = const { Cell::new(None) };
}

/// The object behind a block.
struct Block {
    memory: Box<UnsafeCell<[u8; SIZE + PAGE]>>,
    /// Where the first page of it begins.
    start: usize,
    /// What views show: from where and how much.
    window: Flag<(usize, usize)>,
    /// How many views there are.
    views: Flag<usize>,
}

impl Class for Block {
    const NAME: &'static CStr = c"aioxide._core.Block";
    const TRACKED: bool = false;

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, _: &Visit<'_>) -> Result<(), Stopped> {
        Ok(())
    }

    fn clear(&self, _: Python<'_>) {}
}

/// A block, taken: it is put back when this is dropped.
pub(crate) struct Scratch<'py>(Bound<'py, PyAny>);

impl<'py> Scratch<'py> {
    /// The thread's block; a new one where that is in use.
    #[inline]
    pub(crate) fn take(py: Python<'py>) -> PyResult<Self> {
        if let Some(kept) = KEPT.take() {
            return Ok(Self(kept.into_bound(py)));
        }
        let memory = vec![0_u8; SIZE + PAGE].into_boxed_slice();
        let start = landing::first_page(&memory);
        let memory = Box::into_raw(memory).cast::<UnsafeCell<[u8; SIZE + PAGE]>>();
        // SAFETY: a boxed slice has the layout of a boxed array of as many bytes; UnsafeCell is transparent.
        let memory = unsafe { Box::from_raw(memory) };
        create(py, Block { memory, start, window: Flag::new((0, 0)), views: Flag::new(0) }).map(Self)
    }

    #[inline]
    fn block(&self) -> Inst<'_, 'py, Block> {
        // SAFETY: made by `create` of this class.
        unsafe { Inst::from_ptr(self.0.py(), self.0.as_ptr()) }
    }

    fn check_alone(&self) -> PyResult<()> {
        if self.block().views.get() == 0 {
            return Ok(());
        }
        Err(PyBufferError::new_err("a view of the buffer was kept"))
    }

    /// Lets `f` write to the block, which must not run Python code: it gets no interpreter.
    #[inline]
    pub(crate) fn fill<R>(&mut self, f: impl FnOnce(&mut [u8]) -> R) -> PyResult<R> {
        self.check_alone()?;
        // SAFETY: the block is this value's alone, no view is out and none can be made while `f` runs.
        let memory: &mut [u8; SIZE + PAGE] = unsafe { &mut *self.block().get().memory.get() };
        Ok(f(&mut memory[self.block().start..][..SIZE]))
    }

    /// The object as C code gets it: a buffer of `length` bytes from `start` on.
    #[inline]
    pub(crate) fn window(&self, start: usize, length: usize) -> &Bound<'py, PyAny> {
        let start = start.min(SIZE);
        self.block().window.set((start, length.min(SIZE - start)));
        &self.0
    }

    /// The first `length` bytes.
    #[inline]
    pub(crate) fn bytes(&self, length: usize) -> PyResult<Bound<'py, PyBytes>> {
        self.check_alone()?;
        // SAFETY: as for `fill`; making a bytes object, or using one again, runs no Python code.
        let memory: &[u8; SIZE + PAGE] = unsafe { &*self.block().get().memory.get() };
        Ok(buffer::received(self.0.py(), &memory[self.block().start..][..length.min(SIZE)]))
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if self.block().views.get() == 0 {
            drop(KEPT.replace(Some(self.0.clone().unbind())).map(|other| other.into_bound(self.0.py())));
        }
    }
}

/// `bf_getbuffer`.
unsafe extern "C" fn lend(slf: *mut PyObject, view: *mut ffi::Py_buffer, flags: i32) -> i32 {
    // SAFETY: CPython calls the slot with the GIL held, an instance of the class and a view to fill; the window lies
    // within SIZE bytes from the start, where the memory has as many, and it lives as long as the object, to which the
    // view holds a reference.
    unsafe {
        let py = Python::assume_attached();
        guard_status(py, || {
            let block = Inst::<Block>::from_ptr(py, slf);
            let (start, length) = block.window.get();
            let memory = block.memory.get().cast::<u8>().add(block.start + start).cast();
            if ffi::PyBuffer_FillInfo(view, slf, memory, length.cast_signed(), 0, flags) != 0 {
                return Err(PyErr::fetch(py));
            }
            block.views.set(block.views.get() + 1);
            Ok(())
        })
    }
}

/// `bf_releasebuffer`.
unsafe extern "C" fn give_back(slf: *mut PyObject, _: *mut ffi::Py_buffer) {
    // SAFETY: CPython calls the slot with the GIL held, an instance of the class, once for each view.
    unsafe {
        let block = Inst::<Block>::from_ptr(Python::assume_attached(), slf);
        block.views.set(block.views.get().saturating_sub(1));
    }
}

/// Makes the type.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Block>()
        .slot(ffi::Py_bf_getbuffer, lend as *mut std::ffi::c_void)
        .slot(ffi::Py_bf_releasebuffer, give_back as *mut std::ffi::c_void)
        .build(module, None, Block::cell())
        .map(drop)
}
