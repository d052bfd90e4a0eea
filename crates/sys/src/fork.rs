//! Which side of a fork this is: descriptors outlive one, but a poller and a waker may have one owner only.
//!
//! Counted by the C library's own hook, so that a fork by whatever code is seen; nothing else happens in it. Whoever
//! owns something that a child must not share compares counts at its next use.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::fd;

static FORKS: AtomicU32 = AtomicU32::new(0);

extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// How many forks lie between this process and the one that first asked.
#[inline]
pub fn count() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Starts counting, once a process.
pub(crate) fn watch() -> u32 {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| fd::at_fork(in_child));
    count()
}

/// Puts a new file under an old number, which whoever knows it goes on using.
pub(crate) fn replace(old: BorrowedFd<'_>, new: impl AsFd) -> io::Result<()> {
    fd::duplicate_to(new.as_fd(), old)
}
