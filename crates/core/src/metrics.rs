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
const MOST_JOBS: u64 = 256;
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
///
/// Turns and jobs are counted once, as they begin; what has passed since some moment is the difference to the count of
/// then. So a turn that nothing is due in costs two additions and a few comparisons.
#[derive(Clone, Debug)]
pub struct Metrics {
    turns: u64,
    jobs: u64,
    /// Of those, so many are left for later parts of the turn under way.
    later: u64,
    ready: usize,
    most_ready: usize,
    lag: Histogram,
    turn: Histogram,
    callback: Histogram,
    /// The last reading of the clock, in seconds, and how many turns and jobs had begun by then.
    mark: f64,
    turns_then: u64,
    jobs_then: u64,
    /// So many jobs may share the next reading; where they end, or 0 if the next turn begins with a reading.
    stride: u64,
    span_end: u64,
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
    /// So many jobs are sampled or stood for; the turn after the last that was timed, and the one that is to be timed
    /// next, whatever the jobs.
    sampled: u64,
    after_timed: u64,
    due: u64,
}

impl Metrics {
    /// Measures from `now` on.
    pub fn new(now: f64) -> Self {
        Self {
            turns: 0,
            jobs: 0,
            later: 0,
            ready: 0,
            most_ready: 0,
            lag: Histogram::new(),
            turn: Histogram::new(),
            callback: Histogram::new(),
            mark: now,
            turns_then: 0,
            jobs_then: 0,
            stride: 1,
            span_end: 0,
            begun: None,
            usual_turn: 0,
            usual_job: 0,
            is_timed: false,
            weight: 1,
            timed_from: now,
            sampled: 0,
            after_timed: 0,
            due: 0,
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

    /// A turn of `count` jobs begins.
    #[inline]
    pub fn begin(&mut self, count: usize, now: impl FnOnce() -> f64) -> Plan {
        let after = self.jobs + count as u64;
        if after > self.span_end || self.is_due(count) {
            return self.begin_anew(count, now());
        }
        self.turns += 1;
        self.jobs = after;
        self.ready = count;
        self.most_ready = self.most_ready.max(count);
        Plan { is_timed: false, part: count }
    }

    /// Whether the jobs of a turn of so many are to be timed.
    #[inline]
    fn is_due(&self, count: usize) -> bool {
        self.turns >= self.due || self.jobs - self.sampled >= TIMED_EACH * count as u64
    }

    /// As [`begin`](Self::begin), with a reading of the clock.
    #[cold]
    fn begin_anew(&mut self, count: usize, now: f64) -> Plan {
        self.read(now);
        (self.later, self.jobs_then) = (0, self.jobs); // parts that an error has kept from being run are none of this turn
        self.is_timed = count > 0 && self.is_due(count);
        let unsampled = self.jobs - self.sampled;
        self.turns += 1;
        self.jobs += count as u64;
        self.ready = count;
        self.most_ready = self.most_ready.max(count);
        if self.is_timed {
            self.weight = unsampled / count as u64 + 1;
            (self.sampled, self.after_timed, self.due) = (self.jobs, self.turns, u64::MAX);
            self.timed_from = self.mark;
            self.span_end = 0;
            return Plan { is_timed: true, part: count };
        }
        self.span_end = self.jobs_then + self.stride;
        Plan { is_timed: false, part: self.part_of(count) }
    }

    /// How many of so many jobs are to be run before the next look at the clock.
    fn part_of(&mut self, left: usize) -> usize {
        let part = usize::try_from(self.stride).map_or(left, |stride| left.min(stride));
        self.later = (left - part) as u64;
        part
    }

    /// A part of a turn is over; how many jobs the next has, of those that are left.
    pub fn go_on(&mut self, left: usize, now: f64) -> usize {
        let passed = self.passed(now);
        self.begun = Some(self.begun.unwrap_or(0) + passed);
        self.span_end = 0;
        self.part_of(left)
    }

    /// The clock says `now`, and the last turn is over; or somebody asks in the midst of it.
    pub fn read(&mut self, now: f64) {
        let passed = self.passed(now);
        let turns = self.turns - self.turns_then;
        self.turns_then = self.turns;
        if self.span_end > 0 {
            self.span_end = self.jobs_then + self.stride;
        }
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

    /// The loop has slept until now: one that does so in between has jobs timed every few turns.
    pub fn woken(&mut self, now: f64) {
        self.mark = now;
        self.due = self.due.min(self.after_timed + TIMED_EACH_TURN);
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
            self.sampled = self.sampled.saturating_sub(self.weight - 1);
        }
    }

    /// A timer was so many seconds late.
    pub fn late(&mut self, seconds: f64) {
        self.lag.record(nanoseconds(seconds), 1);
    }

    /// How long the span has taken that ends now; the next is cut accordingly. A long job in it is noted.
    fn passed(&mut self, now: f64) -> u64 {
        let passed = nanoseconds(now - self.mark);
        self.mark = now;
        let jobs = self.jobs - self.later - self.jobs_then;
        self.jobs_then += jobs;
        if passed >= LONG {
            self.stride = 1;
        } else if passed > LONG_SPAN {
            self.stride = (self.stride / 2).max(1);
        } else if passed < SHORT_SPAN {
            self.stride = (self.stride * 2).min(MOST_JOBS);
        }
        if self.is_timed || jobs == 0 {
            return passed;
        }
        let long = passed.saturating_sub(others(self.usual_job, jobs));
        if long >= LONG {
            self.callback.record(long, 1);
            self.sampled = (self.sampled + 1).min(self.jobs);
        } else {
            approach(&mut self.usual_job, passed / jobs);
        }
        passed
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

/// The nearest whole number: a difference of two readings is off by less than that.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "durations, not negative")]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9 + 0.5) as u64
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
    fn a_turn_that_an_error_ends_leaves_nothing_behind() {
        let mut simulation = Simulation::new();
        for number in 0..2000 {
            if number % 100 == 50 {
                let (now, jobs) = (simulation.now, 1000);
                let Plan { part, .. } = simulation.metrics.begin(jobs, || now);
                if number % 200 == 50 && part < jobs {
                    simulation.metrics.go_on(jobs - part, simulation.now);
                }
            }
            simulation.turn(&[10]);
        }
        let metrics = simulation.over();
        assert_eq!((metrics.turns(), metrics.jobs()), (2020, 22_000));
        assert!(metrics.callback().max() < 11_000 && metrics.turn().max() < 11_000);
        assert!(metrics.turn().count() <= 2020);
    }

    #[test]
    fn timers() {
        let mut metrics = Metrics::new(0.0);
        metrics.late(0.25);
        metrics.late(-1.0);
        assert_eq!((metrics.lag().count(), metrics.lag().max()), (2, 250_000_000));
    }

    #[test]
    fn no_nanosecond_is_lost_between_two_readings() {
        for micros in 1..100_000_u32 {
            for begin in [0.0, 0.1, 12.3] {
                let end = begin + f64::from(micros) * 1e-6;
                assert_eq!(nanoseconds(end - begin), u64::from(micros) * 1000);
            }
        }
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
                prop_assert!(found <= (u64::from(long) + others.min(MOST_JOBS * 40)) * 1000 + 1000);
            }
            prop_assert_eq!(metrics.turn().count(), turns.len() as u64);
            prop_assert!(metrics.callback().count() <= metrics.jobs());
        }
    }
}
