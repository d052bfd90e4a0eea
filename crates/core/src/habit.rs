//! Who writes several times in one job: whether more can be expected right after this write.
//!
//! A stream transport keeps one and asks it at each write that does not wait anyway; what follows from the answer is the transport's affair. A
//! server that writes head and body of its answers apart does so every time. Only what has happened a few times in a
//! row is expected, and only writes that come quickly: who computes before the second one is not made to wait. One
//! disappointment, and it has to be learnt anew.

/// So many jobs in a row must have had several writes before the next one is expected to.
const JOBS: u8 = 4;

/// Writes that come later than this after the first one of their job, in seconds, do not count.
const SOON: f64 = 200e-6;

/// How somebody writes: how often in a job, and for how many jobs in a row.
#[derive(Copy, Clone, Debug)]
pub struct Habit {
    /// When the first write of the job was, if that matters.
    began: f64,
    job: u32,
    /// Writes in this job that came soon.
    writes: u8,
    /// So many jobs in a row, before this one, had several.
    row: u8,
    /// The fewest writes of one of these jobs.
    usual: u8,
}

impl Default for Habit {
    fn default() -> Self {
        Self::new()
    }
}

impl Habit {
    /// Nothing known.
    #[must_use]
    pub const fn new() -> Self {
        Self { began: 0.0, job: 0, writes: 0, row: 0, usual: u8::MAX }
    }

    /// Something is written in a job of that number. Whether another write is expected in the same job, soon. The
    /// clock is looked at only where the job before had several writes.
    #[inline]
    pub fn write(&mut self, job: u32, now: impl FnOnce() -> f64) -> bool {
        if job != self.job {
            self.job = job;
            if self.writes < 2 {
                (self.writes, self.row) = (1, 0);
                return false;
            }
            return self.begin(now());
        }
        if self.row > 0 && now() - self.began > SOON {
            return false;
        }
        self.writes = self.writes.saturating_add(1);
        self.row >= JOBS && self.writes < self.usual
    }

    /// The first write of a job, after one that had several.
    fn begin(&mut self, now: f64) -> bool {
        let before = if self.row == 0 { u8::MAX } else { self.usual };
        self.usual = before.min(self.writes);
        self.row = self.row.saturating_add(1);
        (self.writes, self.began) = (1, now);
        self.row >= JOBS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said at each write of a job with writes at these times.
    fn job(habit: &mut Habit, number: u32, times: &[f64]) -> Vec<bool> {
        times.iter().map(|&time| habit.write(number, || f64::from(number) + time)).collect()
    }

    fn learnt(times: &[f64]) -> Habit {
        let mut habit = Habit::new();
        for number in 0..u32::from(JOBS) {
            assert!(!job(&mut habit, 2 * number + 1, times).contains(&true), "too early: {number}");
        }
        habit
    }

    #[test]
    fn what_has_happened_often_enough_is_expected() {
        let mut habit = learnt(&[0.0, 20e-6]);
        for number in 100..200 {
            assert_eq!(job(&mut habit, number, &[0.0, 20e-6]), [true, false]);
        }
    }

    #[test]
    fn one_write_alone_unlearns() {
        let mut habit = learnt(&[0.0, 20e-6]);
        assert_eq!(job(&mut habit, 100, &[0.0]), [true]);
        for number in 101..101 + u32::from(JOBS) {
            assert_eq!(job(&mut habit, number, &[0.0, 20e-6]), [false, false]);
        }
        assert_eq!(job(&mut habit, 200, &[0.0, 20e-6]), [true, false]);
    }

    #[test]
    fn a_late_write_counts_for_none() {
        let mut habit = learnt(&[0.0, 20e-6]);
        assert_eq!(job(&mut habit, 100, &[0.0, 300e-6]), [true, false]);
        assert_eq!(job(&mut habit, 101, &[0.0, 20e-6]), [false, false]);
    }

    #[test]
    fn who_is_always_late_is_never_waited_for() {
        let mut habit = Habit::new();
        for number in 1..100 {
            assert_eq!(job(&mut habit, number, &[0.0, 300e-6]), [false, false]);
        }
    }

    #[test]
    fn all_but_the_last_of_several_wait() {
        let mut habit = learnt(&[0.0, 10e-6, 20e-6]);
        assert_eq!(job(&mut habit, 100, &[0.0, 10e-6, 20e-6]), [true, true, false]);
        // Fewer, and then so many is what is expected; more go as they come.
        assert_eq!(job(&mut habit, 101, &[0.0, 10e-6]), [true, true]);
        assert_eq!(job(&mut habit, 102, &[0.0, 10e-6]), [true, false]);
        assert_eq!(job(&mut habit, 103, &[0.0, 10e-6, 20e-6]), [true, false, false]);
    }

    #[test]
    fn who_writes_once_a_job_costs_no_look_at_the_clock() {
        let mut habit = Habit::new();
        for number in 1..100 {
            assert!(!habit.write(number, || panic!("no reason to ask")));
        }
    }

    #[test]
    fn many_writes_of_one_job_are_no_habit() {
        let mut habit = Habit::new();
        for _ in 0..1000 {
            assert!(!habit.write(7, || 0.0));
        }
        assert!(!habit.write(8, || 0.0));
    }
}
