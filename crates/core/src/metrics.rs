//! What a loop measures of itself: turns, callbacks and how late timers are, cheaply enough to leave it on.
//!
//! A look at the clock costs as much as a task switch, so many jobs share one. The time between two readings is a span,
//! of whole turns or of a part of a long one; the longer spans take, the fewer jobs are put into the next. A span that
//! takes long all the same has one long job among short ones: of those, so much is taken off as they usually take.
//! Callbacks are timed one by one in some turns only, and each such sample stands for those that were not.
//!
//! The loop calls this; it has no clock of its own.

use crate::histogram::Histogram;

/// So many jobs share a reading of the clock, at most.
const MOST_JOBS: usize = 256;
/// Spans are to take about this long, in nanoseconds.
const SHORT_SPAN: u64 = 100_000;
const LONG_SPAN: u64 = 400_000;
/// What takes longer than this, in nanoseconds, counts by itself: a millisecond. As it is known to within a
/// `LONG_SPAN`, what takes as much longer is never left out.
const LONG: u64 = 1_000_000;
/// One callback of so many is timed, at most.
const TIMED_EACH: u64 = 128;
/// A loop that sleeps in between has the callbacks of one turn of so many timed.
const TIMED_EACH_TURN: u64 = 16;

/// How a turn is to be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Each job is to be timed.
    pub is_timed: bool,
    /// So many jobs until [`Metrics::go_on`] is called, if there are more.
    pub part: usize,
}

/// The measurements of one loop.
#[derive(Clone, Debug)]
pub struct Metrics {
    turns: u64,
    jobs: u64,
    ready: usize,
    most_ready: usize,
    lag: Histogram,
    turn: Histogram,
    callback: Histogram,
    /// The last reading of the clock, in seconds, and what has begun since.
    mark: f64,
    span_turns: u64,
    span_jobs: usize,
    /// So many jobs may share the next reading.
    stride: usize,
    /// How long the turn under way has taken up to the last reading, if there was one within it.
    begun: Option<u64>,
    /// What a turn and a job take where nothing takes long.
    usual_turn: u64,
    usual_job: u64,
    /// The jobs of the turn under way are timed, and so many jobs each of them stands for.
    is_timed: bool,
    weight: u64,
    /// The end of the last of them: one reading of the clock ends a job and begins the next.
    timed_from: f64,
    /// Jobs that no sample stands for yet; turns since some were timed, and whether the loop has slept meanwhile.
    unsampled: u64,
    untimed_turns: u64,
    has_slept: bool,
}

impl Metrics {
    /// Measures from `now` on.
    pub fn new(now: f64) -> Self {
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
            stride: 1,
            begun: None,
            usual_turn: 0,
            usual_job: 0,
            is_timed: false,
            weight: 1,
            timed_from: now,
            unsampled: 0,
            untimed_turns: 0,
            has_slept: false,
        }
    }

    /// How many turns there were.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// How many jobs they ran.
    pub fn jobs(&self) -> u64 {
        self.jobs
    }

    /// How many jobs the last turn has, and the most that one had.
    pub fn ready(&self) -> (usize, usize) {
        (self.ready, self.most_ready)
    }

    /// How late the first timer of each turn was.
    pub fn lag(&self) -> &Histogram {
        &self.lag
    }

    /// How long turns took, without the waiting.
    pub fn turn(&self) -> &Histogram {
        &self.turn
    }

    /// How long jobs took.
    pub fn callback(&self) -> &Histogram {
        &self.callback
    }

    /// A turn of `jobs` jobs begins.
    #[inline]
    pub fn begin(&mut self, jobs: usize, now: impl FnOnce() -> f64) -> Plan {
        self.turns += 1;
        self.jobs += jobs as u64;
        self.ready = jobs;
        self.most_ready = self.most_ready.max(jobs);
        let is_due = self.unsampled >= TIMED_EACH * jobs as u64
            || (self.has_slept && self.untimed_turns >= TIMED_EACH_TURN)
            || self.turns == 1;
        let is_timed = is_due && jobs > 0;
        if is_timed || self.is_timed || self.begun.is_some() || self.span_jobs + jobs > self.stride {
            self.read(now());
        }
        self.is_timed = is_timed;
        self.span_turns += 1;
        if is_timed {
            self.weight = self.unsampled / jobs as u64 + 1;
            self.timed_from = self.mark;
            (self.unsampled, self.untimed_turns, self.has_slept) = (0, 0, false);
            self.span_jobs = jobs;
            return Plan { is_timed, part: jobs };
        }
        self.unsampled += jobs as u64;
        self.untimed_turns += 1;
        let part = jobs.min(self.stride);
        self.span_jobs += part;
        Plan { is_timed, part }
    }

    /// A part of a turn is over; how many jobs the next has, of those that are left.
    pub fn go_on(&mut self, left: usize, now: f64) -> usize {
        let passed = self.passed(now);
        self.note_jobs(passed);
        self.begun = Some(self.begun.unwrap_or(0) + passed);
        self.span_jobs = left.min(self.stride);
        self.span_jobs
    }

    /// The clock says `now`, and the last turn is over; or somebody asks in the midst of it.
    pub fn read(&mut self, now: f64) {
        let passed = self.passed(now);
        self.note_jobs(passed);
        let turns = std::mem::take(&mut self.span_turns);
        if let Some(before) = self.begun.take() {
            self.turn.record(before + passed, 1);
            return;
        }
        if turns == 0 {
            if passed >= LONG {
                self.turn.record(passed, 1); // the rest of a turn in which somebody has asked
            }
            return;
        }
        let long = passed.saturating_sub(others(self.usual_turn, turns));
        if turns > 1 && long >= LONG {
            self.turn.record(long, 1);
            self.turn.record(self.usual_turn, turns - 1);
        } else {
            self.turn.record(passed / turns, turns);
            approach(&mut self.usual_turn, passed / turns);
        }
    }

    /// The loop has slept until now.
    pub fn woken(&mut self, now: f64) {
        self.mark = now;
        self.has_slept = true;
    }

    /// A job that was to be timed is over.
    pub fn timed(&mut self, now: f64) {
        let took = nanoseconds(now - self.timed_from);
        self.timed_from = now;
        if took < LONG {
            self.callback.record(took, self.weight);
        } else {
            // All of these are known, so it stands for itself alone; the others wait for the next sample.
            self.callback.record(took, 1);
            self.unsampled += self.weight - 1;
        }
    }

    /// A timer was so many seconds late.
    pub fn late(&mut self, seconds: f64) {
        self.lag.record(nanoseconds(seconds), 1);
    }

    /// How long the span has taken that ends now; the next is cut accordingly.
    fn passed(&mut self, now: f64) -> u64 {
        let passed = nanoseconds(now - self.mark);
        self.mark = now;
        if passed >= LONG {
            self.stride = 1;
        } else if passed > LONG_SPAN {
            self.stride = (self.stride / 2).max(1);
        } else if passed < SHORT_SPAN {
            self.stride = (self.stride * 2).min(MOST_JOBS);
        }
        passed
    }

    /// Looks for a long job among those of a span that took so long.
    fn note_jobs(&mut self, passed: u64) {
        let jobs = std::mem::take(&mut self.span_jobs) as u64;
        if self.is_timed || jobs == 0 {
            return;
        }
        let long = passed.saturating_sub(others(self.usual_job, jobs));
        if long >= LONG {
            self.callback.record(long, 1);
            self.unsampled = self.unsampled.saturating_sub(1);
        } else {
            approach(&mut self.usual_job, passed / jobs);
        }
    }
}

/// What all but one of a span take as a rule.
fn others(usual: u64, count: u64) -> u64 {
    usual.saturating_mul(count - 1).min(LONG_SPAN)
}

/// Moves an average by an eighth of the way.
fn approach(average: &mut u64, value: u64) {
    *average = if *average == 0 { value } else { *average - *average / 8 + value / 8 };
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "durations, not negative")]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A loop in virtual time, which runs what it is given as turn.rs does.
    struct Simulation {
        metrics: Metrics,
        now: f64,
        readings: usize,
    }

    impl Simulation {
        fn new() -> Self {
            Self { metrics: Metrics::new(0.0), now: 0.0, readings: 0 }
        }

        /// A turn of jobs that take so many microseconds each.
        fn turn(&mut self, jobs: &[u32]) {
            let (now, readings) = (self.now, &mut self.readings);
            let Plan { is_timed, mut part } = self.metrics.begin(jobs.len(), || {
                *readings += 1;
                now
            });
            for (number, &job) in jobs.iter().enumerate() {
                if part == 0 {
                    self.readings += 1;
                    part = self.metrics.go_on(jobs.len() - number, self.now);
                }
                part -= 1;
                self.now += f64::from(job) * 1e-6;
                if is_timed {
                    self.readings += 1;
                    self.metrics.timed(self.now);
                }
            }
        }

        fn turns(&mut self, count: usize, jobs: &[u32]) -> &mut Self {
            (0..count).for_each(|_| self.turn(jobs));
            self
        }

        fn sleep(&mut self, seconds: f64) -> &mut Self {
            self.metrics.read(self.now);
            self.now += seconds;
            self.metrics.woken(self.now);
            self
        }

        fn over(&mut self) -> &Metrics {
            self.metrics.read(self.now);
            &self.metrics
        }
    }

    fn is_about(value: u64, micros: u64) -> bool {
        (micros * 950..=micros * 1050).contains(&value)
    }

    #[test]
    fn short_jobs_share_readings() {
        let mut simulation = Simulation::new();
        let metrics = simulation.turns(10_000, &[1]).over();
        assert_eq!((metrics.turns(), metrics.jobs(), metrics.ready()), (10_000, 10_000, (1, 1)));
        assert!(is_about(metrics.turn().max(), 1));
        assert_eq!(metrics.turn().count(), 10_000);
        assert!(is_about(metrics.callback().max(), 1));
        assert!((9_800..=10_000).contains(&metrics.callback().count()));
        assert!(simulation.readings < 300, "{}", simulation.readings);
    }

    #[test]
    fn steady_jobs_are_never_taken_for_long_ones() {
        for micros in [5, 20, 50, 100, 200, 300, 500, 900] {
            for jobs in [1, 3, 100] {
                let mut simulation = Simulation::new();
                let metrics = simulation.turns(1000, &vec![micros; jobs]).over();
                assert!(is_about(metrics.callback().max(), micros.into()), "{micros} {jobs}");
                assert!(is_about(metrics.turn().max(), u64::from(micros) * jobs as u64), "{micros} {jobs}");
                assert!(is_about(metrics.turn().quantile(10_000), u64::from(micros) * jobs as u64));
            }
        }
    }

    #[test]
    fn of_two_kinds_of_jobs_neither_is_taken_for_long() {
        let mut simulation = Simulation::new();
        for number in 0..20_000_u32 {
            simulation.turn(&[if number.wrapping_mul(2_654_435_761) >> 31 == 0 { 2 } else { 60 }]);
        }
        let metrics = simulation.over();
        assert!(metrics.callback().max() < 70_000);
        assert!(metrics.callback().quantile(250_000) < 3_000);
        assert!(is_about(metrics.callback().quantile(990_000), 60));
        assert!(metrics.turn().max() < 70_000);
    }

    #[test]
    fn quantiles_are_those_of_all_jobs() {
        let mut simulation = Simulation::new();
        for number in 0..100_000 {
            simulation.turn(&[if number % 1000 == 500 { 2000 } else { 3 }]);
        }
        let callback = simulation.over().callback();
        assert!(is_about(callback.quantile(500_000), 3));
        assert!(is_about(callback.quantile(990_000), 3), "one in a thousand is no hundredth");
        assert!(is_about(callback.quantile(999_900), 2000));
        assert!(is_about(callback.max(), 2000));
        assert_eq!(callback.count() - callback.up_to(1_000_000), 100);
        assert!(is_about(callback.sum() / 1000, 100 * 2 + 99_900 * 3 / 1000));
    }

    #[test]
    fn a_sudden_change_of_pace_is_one_mistake_at_most() {
        let mut simulation = Simulation::new();
        let metrics = simulation.turns(5000, &[1]).turns(5000, &[100]).over();
        assert!(metrics.callback().count() - metrics.callback().up_to(1_000_000) <= 1);
        assert!(metrics.turn().count() - metrics.turn().up_to(1_000_000) <= 1);
    }

    #[test]
    fn a_long_job_in_a_long_turn_is_found() {
        let mut jobs = vec![5; 10_000];
        jobs[7777] = 8000;
        let mut simulation = Simulation::new();
        let metrics = simulation.turns(5, &[5]).turns(1, &jobs).turns(5, &[5]).over();
        assert!(is_about(metrics.callback().max(), 8000));
        assert!(is_about(metrics.turn().max(), 10_000 * 5 + 8000));
        assert_eq!(metrics.turn().count(), 11);
    }

    #[test]
    fn sleeping_is_nobodys_time() {
        let mut simulation = Simulation::new();
        for _ in 0..100 {
            simulation.sleep(0.5).turn(&[10, 20]);
        }
        let metrics = simulation.over();
        assert!(is_about(metrics.turn().max(), 30));
        assert!(is_about(metrics.callback().max(), 20));
        assert_eq!(metrics.turn().count(), 100);
        assert!((90..=200).contains(&metrics.callback().count()));
    }

    #[test]
    fn who_asks_changes_nothing_that_matters() {
        let mut simulation = Simulation::new();
        for number in 0..1000 {
            simulation.turn(&[10]);
            if number % 7 == 0 {
                let _ = simulation.over();
            }
        }
        let metrics = simulation.over();
        assert!(is_about(metrics.turn().max(), 10));
        assert!(metrics.turn().count() <= 1000);
    }

    #[test]
    fn timers() {
        let mut metrics = Metrics::new(0.0);
        metrics.late(0.25);
        metrics.late(-1.0);
        assert_eq!((metrics.lag().count(), metrics.lag().max()), (2, 250_000_000));
    }

    proptest! {
        #[test]
        fn nothing_long_is_lost_and_nothing_is_made_up(
            turns in prop::collection::vec(prop::collection::vec(1_u32..40, 0..30), 1..300),
            place in any::<prop::sample::Index>(),
            long in 2000_u32..1_000_000,
        ) {
            let mut turns = turns;
            let place = place.index(turns.len());
            turns[place].push(long);
            let mut simulation = Simulation::new();
            for turn in &turns {
                simulation.turn(turn);
            }
            let total: u64 = turns.iter().flatten().copied().map(u64::from).sum();
            let metrics = simulation.over();
            let others = total - u64::from(long);
            for found in [metrics.turn().max(), metrics.callback().max()] {
                prop_assert!(found + LONG_SPAN >= u64::from(long) * 1000);
                prop_assert!(found <= (u64::from(long) + others.min(MOST_JOBS as u64 * 40)) * 1000 + 1000);
            }
            prop_assert_eq!(metrics.turn().count(), turns.len() as u64);
            prop_assert!(metrics.callback().count() <= metrics.jobs());
        }
    }
}
