//! Whether somebody wants to be told of each change of context (`PyContext_AddWatcher`, CPython 3.14 and later).
//!
//! context.rs enters contexts without a call where nobody does. `calibrate` finds by experiment at import where the
//! interpreter marks its watchers.
#![allow(unsafe_code, reason = "reads the state of the interpreter")]

pub(super) use found::{are_there, calibrate};

#[cfg(Py_3_14)]
mod found {
    use std::os::raw::c_int;
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, Ordering};

    use pyo3::ffi::{self, PyObject};
    use pyo3::prelude::*;

    type Watcher = extern "C" fn(c_int, *mut PyObject) -> c_int;

    unsafe extern "C" {
        /// Begins with a table for debuggers: eight letters, then numbers.
        static _PyRuntime: [u64; 7];
        fn PyContext_AddWatcher(watcher: Watcher) -> c_int;
        fn PyContext_ClearWatcher(number: c_int) -> c_int;
    }

    /// How many watchers there can be: one bit each in a byte soon after the table of them.
    const MOST: usize = 8;
    /// No interpreter's state is larger than this, in bytes.
    const LARGEST: usize = 1 << 24;

    /// The byte in which the interpreter marks its watchers.
    static MARKS: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

    /// Only where `calibrate` said that it knows.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a part of each step: see step.rs")]
    pub(in super::super) fn are_there() -> bool {
        // SAFETY: asked only once `calibrate` has found the byte, which is there as long as the interpreter.
        unsafe { *MARKS.load(Ordering::Relaxed) != 0 }
    }

    extern "C" fn nothing(_: c_int, _: *mut PyObject) -> c_int {
        0
    }

    /// The size of an interpreter's state in bytes, as CPython tells debuggers.
    fn size() -> Option<usize> {
        // SAFETY: static data of the interpreter, which is longer than what is read of it.
        let table = unsafe { &_PyRuntime };
        let size = usize::try_from(table[6]).ok()?;
        (table[0].to_ne_bytes() == *b"xdebugpy" && size < LARGEST).then_some(size)
    }

    /// Adds a watcher and looks where it went; false if that can't be told for sure.
    pub(in super::super) fn calibrate(_: Python<'_>) -> bool {
        let Some(size) = size() else { return false };
        // SAFETY: the GIL is held. Only words of the interpreter's own state are read; the table of watchers lies well
        // inside of it. The watcher, which does nothing, is taken out again.
        unsafe {
            let interpreter = ffi::PyInterpreterState_Get().cast::<usize>();
            let number = PyContext_AddWatcher(nothing);
            let Ok(index) = usize::try_from(number) else {
                ffi::PyErr_Clear();
                return false;
            };
            let address = nothing as *const () as usize;
            let mut places = (0..size / size_of::<usize>()).filter(|word| *interpreter.add(*word) == address);
            let place = places.next().xor(places.next());
            let marks = place.map(|word| interpreter.add(word - index + MOST).cast::<[u8; 8]>());
            let with = marks.map(|marks| marks.read());
            PyContext_ClearWatcher(number);
            let (Some(place), Some(marks), Some(with)) = (place, marks, with) else { return false };
            let without = marks.read();
            let mut changed = (0..with.len()).filter(|byte| with[*byte] != without[*byte]);
            let Some(byte) = changed.next().xor(changed.next()) else { return false };
            let known = *interpreter.add(place) == 0 && with[byte] ^ without[byte] == 1 << index;
            if known {
                MARKS.store(marks.cast::<u8>().add(byte), Ordering::Relaxed);
            }
            known
        }
    }
}

/// Before 3.14 there are no watchers.
#[cfg(not(Py_3_14))]
mod found {
    use pyo3::prelude::*;

    pub(in super::super) fn are_there() -> bool {
        false
    }

    pub(in super::super) fn calibrate(_: Python<'_>) -> bool {
        true
    }
}
