//! How many bytes this process has received and sent through this crate, for its metrics.
//!
//! The calls of stream.rs, socket.rs, pipe.rs and sendfile.rs count what went through; nobody else writes here.

use std::sync::atomic::{AtomicU64, Ordering};

static RECEIVED: AtomicU64 = AtomicU64::new(0);
static SENT: AtomicU64 = AtomicU64::new(0);

/// Bytes received and bytes sent so far.
pub fn so_far() -> (u64, u64) {
    (RECEIVED.load(Ordering::Relaxed), SENT.load(Ordering::Relaxed))
}

/// So many bytes have come; the same number.
#[inline]
pub(crate) fn received(bytes: usize) -> usize {
    RECEIVED.fetch_add(bytes as u64, Ordering::Relaxed);
    bytes
}

/// So many bytes have gone; the same number.
#[inline]
pub(crate) fn sent(bytes: usize) -> usize {
    SENT.fetch_add(bytes as u64, Ordering::Relaxed);
    bytes
}
