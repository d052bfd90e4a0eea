//! Memory that will be needed soon: hints to the processor, without effect on what a program does.
#![allow(unsafe_code, reason = "an instruction that takes an address")]

use pyo3::prelude::*;

/// Whether there is such a hint for this kind of processor.
pub(crate) const WORKS: bool = cfg!(target_arch = "x86_64");

/// Has the processor fetch the first `LINES` cache lines (64 bytes) of an object. Runs nothing: allowed under any borrow.
#[inline]
pub(crate) fn fetch<const LINES: usize>(object: &Py<PyAny>) {
    for line in 0..LINES {
        let place = object.as_ptr().cast::<i8>().wrapping_add(64 * line);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint: nothing is read, and no address is wrong.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(place);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = place;
    }
}
