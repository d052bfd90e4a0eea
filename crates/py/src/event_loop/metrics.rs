//! What a loop measures of itself: turns, callbacks and how late timers are, cheaply enough to leave it on.
//!
//! A clock costs as much as a task switch, so it is read once for many callbacks. The time between two readings is a
//! span of turns: a short one is shared out among its turns, a long one counts as one long turn among short ones, so
//! that nothing long is lost. Callbacks are timed one by one in some turns only; of a long span in between, what the
//! callbacks of the timed turns don't explain counts as one callback.

use aioxide_core::histogram::Histogram;

/// So many callbacks are run between two readings of the clock.
const JOBS_A_READING: usize = 64;
/// One callback of so many is timed, at most.
const TIMED_EACH: u64 = 128;
/// A loop that sleeps in between has the callbacks of one turn of so many timed.
const TIMED_EACH_TURN: u64 = 16;
/// A span from here on is long: a millisecond, in nanoseconds.
const LONG: u64 = 1_000_000;

/// The measurements of one loop.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) turns: u64,
    pub(crate) jobs: u64,
    /// Jobs in the turn under way, and the most there were in one.
    pub(crate) ready: usize,
    pub(crate) most_ready: usize,
    /// How late timers ran.
    pub(crate) lag: Histogram,
    pub(crate) turn: Histogram,
    pub(crate) callback: Histogram,
    /// The last reading of the clock, in seconds, and what has run since.
    mark: f64,
    span_turns: u64,
    span_jobs: usize,
    is_timed: bool,
    /// Jobs and turns since some were timed, and whether the loop has slept meanwhile.
    untimed_jobs: u64,
    untimed_turns: u64,
    has_slept: bool,
}

impl Metrics {
    pub(crate) fn new(now: f64) -> Self {
        Self {
            turns: 0,
            jobs: 0,
            ready: 0,
            most_ready: 0,
            lag: Histogram::new(),
            turn: Histogram::new(),
            callback: Histogram::new(),
            mark: now,
            span_turns: 0,
            span_jobs: 0,
            is_timed: false,
            untimed_jobs: 0,
            untimed_turns: 0,
            has_slept: false,
        }
    }

    /// A turn of `jobs` jobs begins; whether they are to be timed one by one.
    #[inline]
    pub(crate) fn begin(&mut self, jobs: usize, now: impl Fn() -> f64) -> bool {
        self.turns += 1;
        self.jobs += jobs as u64;
        self.ready = jobs;
        self.most_ready = self.most_ready.max(jobs);
        let is_timed = jobs > 0
            && (self.turns == 1
                || self.untimed_jobs >= TIMED_EACH * jobs as u64
                || (self.has_slept && self.untimed_turns >= TIMED_EACH_TURN));
        if is_timed {
            (self.untimed_jobs, self.untimed_turns, self.has_slept) = (0, 0, false);
        } else {
            self.untimed_jobs += jobs as u64;
            self.untimed_turns += 1;
        }
        if is_timed || self.is_timed || self.span_jobs >= JOBS_A_READING {
            self.read(now());
        }
        self.is_timed = is_timed;
        self.span_turns += 1;
        self.span_jobs += jobs;
        is_timed
    }

    /// The clock says `now`: the span since the last reading is over.
    pub(crate) fn read(&mut self, now: f64) {
        let passed = nanoseconds(now - self.mark);
        self.mark = now;
        let (turns, jobs) = (std::mem::take(&mut self.span_turns), std::mem::take(&mut self.span_jobs));
        if turns == 0 && passed < LONG {
            return; // the rest of a turn in which somebody asked
        }
        let turns = turns.max(1);
        if passed < LONG || turns == 1 {
            self.turn.record(passed / turns, turns);
        } else {
            self.turn.record(passed, 1);
            self.turn.record(self.turn.quantile(500_000), turns - 1);
        }
        if passed >= LONG && !self.is_timed {
            let usual = self.callback.quantile(500_000).saturating_mul((jobs as u64).saturating_sub(1));
            if passed.saturating_sub(usual) >= LONG {
                self.callback.record(passed - usual, 1);
            }
        }
    }

    /// The loop has slept until now.
    pub(crate) fn woken(&mut self, now: f64) {
        self.mark = now;
        self.has_slept = true;
    }

    pub(crate) fn timed(&mut self, seconds: f64) {
        self.callback.record(nanoseconds(seconds), 1);
    }

    /// A timer was so many seconds late.
    pub(crate) fn late(&mut self, seconds: f64) {
        self.lag.record(nanoseconds(seconds), 1);
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "durations, not negative")]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9) as u64
}
