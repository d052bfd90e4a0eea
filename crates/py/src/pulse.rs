//! What a thread without the GIL can see of a loop: whether it runs, sleeps or is busy, and how many turns it has made.
//!
//! The loop, and who starts to watch it, write with the GIL; anybody reads. turn.rs beats it once a turn while an
//! instrument is on, and never else.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aioxide_sys::clock;

/// The instruments of a loop, as bits: what turn.rs asks before each job and each turn.
pub(crate) mod instrument {
    /// asyncio's debug mode.
    pub(crate) const DEBUG: u8 = 1;
    /// The watchdog is told of turns that last too long.
    pub(crate) const PULSE: u8 = 2;
    /// Steps and time of each task are recorded.
    pub(crate) const ACCOUNTS: u8 = 4;
    /// Turns and callbacks are measured.
    pub(crate) const METRICS: u8 = 8;
    /// The callbacks of this turn are measured one by one.
    pub(crate) const TIMED: u8 = 16;
    /// What happens is recorded for a timeline.
    pub(crate) const TRACE: u8 = 32;
    /// No instrument, but asked for at the same moment: transports have bytes held back (see `transports::held`).
    pub(crate) const HELD: u8 = 64;
    /// Nor is this: the loop runs within a run (see `event_loop::nested`).
    pub(crate) const INNER: u8 = 128;

    /// Those that have something to do for each job.
    pub(crate) const EACH_JOB: u8 = DEBUG | ACCOUNTS | TIMED | TRACE;
    /// Those that have something to do in each turn.
    pub(crate) const EACH_TURN: u8 = PULSE | METRICS | TIMED | TRACE;
}

/// One loop, seen from outside.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// How many turns there have been.
    turns: AtomicU64,
    /// `threading.get_ident()` of the thread that runs the loop; 0 when none does.
    ident: AtomicU64,
    /// When the last turn began, or the last wait ended, or somebody began to watch, by the coarse clock: the bits of a
    /// number of seconds.
    began: AtomicU64,
    /// The loop waits for something to happen.
    asleep: AtomicBool,
}

impl Pulse {
    pub(crate) fn start(&self, ident: u64) {
        self.note_start(clock::coarse());
        self.asleep.store(false, Ordering::Relaxed);
        self.ident.store(ident, Ordering::Release);
    }

    /// A turn begins, or somebody watches from now on, for whom the one under way begins now (by the coarse clock).
    #[inline]
    pub(crate) fn note_start(&self, now: f64) {
        self.began.store(now.to_bits(), Ordering::Release);
    }

    pub(crate) fn stop(&self) {
        self.ident.store(0, Ordering::Release);
    }

    /// A turn begins.
    #[inline]
    pub(crate) fn beat(&self, now: f64) {
        self.note_start(now);
        // One thread writes: no need for an atomic addition.
        self.turns.store(self.turns().wrapping_add(1), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn set_asleep(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::Release);
    }

    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    pub(crate) fn ident(&self) -> u64 {
        self.ident.load(Ordering::Acquire)
    }

    /// When the turn under way, or the last one, began, by the coarse clock.
    #[inline]
    pub(crate) fn began(&self) -> f64 {
        f64::from_bits(self.began.load(Ordering::Acquire))
    }

    /// The loop is in a turn.
    pub(crate) fn is_busy(&self) -> bool {
        self.ident() != 0 && !self.asleep.load(Ordering::Acquire)
    }
}
