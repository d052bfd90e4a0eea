//! What runs next: the ready queue and the timers behind a few verbs.
//!
//! The event loop owns one; lower rows get a reference and add jobs with `soon` and `at`. Only the loop's
//! turn pops. The inbox of other threads stays apart, since it is shared. Never reads a clock: `now` is
//! passed in.

use std::collections::VecDeque;

use crate::ready::Ready;
use crate::timers::{TimerKey, Timers};

/// Jobs that are ready and jobs that wait for their time.
#[derive(Debug)]
pub struct Scheduler<T> {
    ready: Ready<T>,
    timers: Timers<T>,
}

impl<T> Scheduler<T> {
    /// Nothing to do.
    pub const fn new() -> Self {
        Self { ready: Ready::new(), timers: Timers::new() }
    }

    /// Runs `job` in the next turn, after everything that is ready now.
    #[inline]
    pub fn soon(&mut self, job: T) {
        self.ready.push(job);
    }

    /// Runs `job` once the clock has reached `deadline` (not NaN).
    #[inline]
    pub fn at(&mut self, deadline: f64, job: T) -> TimerKey {
        self.timers.insert(deadline, job)
    }

    /// Takes a job out before its time. `None`: it is in the ready queue, ran, or was cancelled already.
    #[inline]
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        self.timers.cancel(key)
    }

    /// How many seconds the loop may wait: none if a job is ready, for ever (`None`) if nothing is planned.
    pub fn timeout(&mut self, now: f64) -> Option<f64> {
        if self.ready.is_empty() {
            self.timers.next_deadline().map(|at| (at - now).max(0.0))
        } else {
            Some(0.0)
        }
    }

    /// By how many seconds the first deadline is overdue, if one is.
    pub fn overdue(&mut self, now: f64) -> Option<f64> {
        self.timers.next_deadline().map(|at| now - at).filter(|late| *late >= 0.0)
    }

    /// Moves every job whose time has come to the ready queue, in order; how many those were.
    pub fn admit_due(&mut self, now: f64) -> usize {
        let before = self.ready.len();
        while let Some(job) = self.timers.pop_due(now) {
            self.ready.push(job);
        }
        self.ready.len() - before
    }

    /// How many jobs this turn may run: those ready now. Jobs added meanwhile wait for the next turn.
    #[inline]
    pub fn turn_len(&self) -> usize {
        self.ready.len()
    }

    /// Takes the next ready job.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.ready.pop()
    }

    /// The ready queue, for the inbox and for jobs that go first.
    #[inline]
    pub fn ready_mut(&mut self) -> &mut Ready<T> {
        &mut self.ready
    }

    /// The timers, for looking up a waiting job.
    pub fn timers(&self) -> &Timers<T> {
        &self.timers
    }

    /// Every job, ready or waiting, each once.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.ready.iter().chain(self.timers.iter())
    }

    /// Whether nothing is ready and nothing is planned.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.timers.is_empty()
    }

    /// How many jobs are ready.
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// How many jobs wait for their time.
    pub fn timers_len(&self) -> usize {
        self.timers.len()
    }

    /// Takes every job: the ready ones in order, then the waiting ones by deadline.
    #[must_use = "dropping jobs may run foreign code: choose where"]
    pub fn take_all(&mut self) -> VecDeque<T> {
        let mut all = self.ready.take_all();
        all.extend(self.timers.take_all());
        all
    }
}

impl<T> Default for Scheduler<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_as_long_as_the_work_allows() {
        let mut scheduler = Scheduler::new();
        assert_eq!(scheduler.timeout(5.0), None);
        let key = scheduler.at(7.5, 'a');
        assert_eq!(scheduler.timeout(5.0), Some(2.5));
        assert_eq!(scheduler.timeout(8.0), Some(0.0));
        scheduler.soon('b');
        assert_eq!(scheduler.timeout(5.0), Some(0.0));
        assert_eq!(scheduler.pop(), Some('b'));
        assert_eq!(scheduler.cancel(key), Some('a'));
        assert!(scheduler.is_idle());
    }

    #[test]
    fn due_jobs_run_after_those_already_ready() {
        let mut scheduler = Scheduler::new();
        scheduler.at(2.0, 't');
        scheduler.at(1.0, 's');
        scheduler.at(3.0, 'u');
        scheduler.soon('r');
        assert_eq!(scheduler.admit_due(2.0), 2);
        assert_eq!(scheduler.turn_len(), 3);
        assert_eq!(scheduler.iter().count(), 4);
        assert_eq!((scheduler.pop(), scheduler.pop()), (Some('r'), Some('s')));
        assert_eq!(scheduler.take_all(), ['t', 'u']);
        assert_eq!((scheduler.ready_len(), scheduler.timers_len()), (0, 0));
    }
}
