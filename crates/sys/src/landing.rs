//! Where received data land in memory: that decides how fast the kernel copies them.
//!
//! Linux copies by an instruction of x86-64 (`rep movsb`). On some of AMD's processors (Zen 3 for one) it takes twenty times as
//! long where the destination begins 1 to 31 bytes after the source, by their places in their pages. Data in a socket
//! mostly begin at a round place, since sizes are round and each new page is begun at its start. So memory that is received
//! into should not begin shortly after a round place, nor, as it may be sent again, shortly before one. Elsewhere it does no
//! harm.

use std::ops::{Deref, DerefMut};

/// What landings are aligned to: a page of x86-64.
pub const PAGE: usize = 4096;

/// Where round places are: every so many bytes.
const ROUND: usize = 1024;
/// Nearer to one than this is too near, but for the very place.
const NEAR: usize = 32;

/// Whether the kernel may be slow in copying to this place or from it.
#[inline]
pub fn copies_slowly(place: *const u8) -> bool {
    let after = place.addr() % ROUND;
    (1..NEAR).contains(&after) || after > ROUND - NEAR
}

/// Where the first page begins in memory that is longer by a [`PAGE`] than what is wanted of it.
pub fn first_page(memory: &[u8]) -> usize {
    memory.as_ptr().align_offset(PAGE).min(PAGE) // which might find none
}

/// Memory to receive into, at the start of a page.
#[derive(Debug)]
pub struct Landing {
    memory: Box<[u8]>,
    start: usize,
    size: usize,
}

impl Landing {
    /// Memory of `size` bytes.
    pub fn new(size: usize) -> Self {
        let memory = vec![0; size + PAGE].into_boxed_slice();
        let start = first_page(&memory);
        Self { memory, start, size }
    }
}

impl Deref for Landing {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..][..self.size]
    }
}

impl DerefMut for Landing {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_landing_begins_with_a_page() {
        for size in [1, 1000, 300_000] {
            let mut landing = Landing::new(size);
            assert_eq!(landing.as_ptr().addr() % PAGE, 0);
            assert_eq!(landing.len(), size);
            landing.fill(1);
            assert!(!copies_slowly(landing.as_ptr()));
        }
    }

    #[test]
    fn only_what_is_near_a_round_place_copies_slowly() {
        let slow = |address: usize| copies_slowly(std::ptr::without_provenance(address));
        let of_all = (0..2 * ROUND).filter(|&address| slow(address)).count();
        assert_eq!(of_all, 2 * 2 * (NEAR - 1));
        assert!(slow(4096 + 16) && slow(8192 - 16) && slow(1024 + 31));
        assert!(!slow(4096) && !slow(4096 + 32) && !slow(8192 - 32));
    }
}
