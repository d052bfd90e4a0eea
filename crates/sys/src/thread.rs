//! Threads that no signal goes to: those that aioxide starts by itself, for a signal is the program's own affair.
//!
//! The kernel gives a signal for the process to any thread that does not block it. One that all of the program's
//! threads block, to have it wait for `sigwait`, would go to ours and be dealt with there. What the kernel sends
//! because of what a thread has just done (a bad address) is not blocked: nobody else can take it.

use std::cell::Cell;
use std::io;
use std::thread::{Builder, JoinHandle};

use crate::fd::{self, SignalMask};

thread_local! {
    /// What whoever started this thread blocks, in a thread of [`spawn`].
    static MASK: Cell<Option<SignalMask>> = const { Cell::new(None) };
}

/// Starts a thread that blocks signals from its first instruction on.
pub fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    // A thread begins with the mask of the one that starts it.
    let before = fd::set_signal_mask(&SignalMask::most());
    let spawned = Builder::new().name(name.to_owned()).spawn(move || {
        MASK.set(Some(before));
        run()
    });
    fd::set_signal_mask(&before);
    spawned
}

/// Runs what is the program's own (it may start processes and threads, which begin with the mask of this one) with the
/// signals blocked that were when this thread was started. In a thread of somebody else's it changes nothing.
pub fn with_signals<R>(run: impl FnOnce() -> R) -> R {
    let Some(mask) = MASK.get() else { return run() };
    let _back = Back(fd::set_signal_mask(&mask));
    run()
}

/// Puts the mask back, also when what ran has panicked.
struct Back(SignalMask);

impl Drop for Back {
    fn drop(&mut self) {
        fd::set_signal_mask(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(signal: i32) -> bool {
        let mask = fd::set_signal_mask(&SignalMask::most());
        fd::set_signal_mask(&mask);
        mask.has(signal)
    }

    #[test]
    fn a_thread_blocks_signals_and_its_maker_does_not() {
        let seen = || [libc::SIGINT, libc::SIGUSR1, libc::SIGCHLD, libc::SIGPROF, libc::SIGSEGV].map(blocks);
        assert_eq!(seen(), [false; 5]);
        let thread = spawn("quiet", move || (seen(), with_signals(seen), seen())).unwrap();
        assert_eq!(thread.thread().name(), Some("quiet"));
        let blocked = [true, true, true, true, false];
        assert_eq!(thread.join().unwrap(), (blocked, [false; 5], blocked));
        assert_eq!((seen(), with_signals(seen)), ([false; 5], [false; 5]));
    }
}
