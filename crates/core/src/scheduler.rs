//! What runs next: the ready queue and the timers behind a few verbs.
//!
//! The event loop owns one; lower rows get a reference and add jobs with `soon` and `at`. Only the loop's
//! turn pops. The inbox of other threads stays apart, since it is shared. Never reads a clock: `now` is
//! passed in.

use std::collections::VecDeque;

use crate::ready::Ready;
use crate::timers::{TimerKey, TimerPlace, Timers};

/// Jobs that are ready, and what waits for its time and becomes a job then. (What waits is small: there may be much.)
#[derive(Debug)]
pub struct Scheduler<T, W = T> {
    ready: Ready<T>,
    timers: Timers<W>,
}

impl<T, W> Scheduler<T, W> {
    /// Nothing to do.
    pub const fn new() -> Self {
        Self { ready: Ready::new(), timers: Timers::new() }
    }

    /// Runs `job` in the next turn, after everything that is ready now.
    #[inline]
    pub fn soon(&mut self, job: T) {
        self.ready.push(job);
    }

    /// Makes `item` a job once the clock has reached `deadline` (not NaN).
    #[inline]
    pub fn at(&mut self, deadline: f64, item: W) -> TimerKey {
        self.timers.insert(deadline, item)
    }

    /// Takes out before its time what waits. `None`: it is in the ready queue, ran, or was cancelled already.
    #[inline]
    pub fn cancel(&mut self, key: TimerKey) -> Option<W> {
        self.timers.cancel(key)
    }

    /// As [`cancel`](Self::cancel), by a place that is known to be waiting: the payload comes later, by `take_dead`.
    #[inline]
    pub fn abandon(&mut self, place: TimerPlace) {
        self.timers.abandon(place);
    }

    /// What was abandoned and is not needed here any more.
    #[inline]
    pub fn take_dead(&mut self) -> Option<Vec<W>> {
        self.timers.has_dead().then(|| self.timers.take_dead())
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

    /// Makes a job of everything whose time has come and moves it to the ready queue, in order; how many those were.
    pub fn admit_due(&mut self, now: f64, job: impl Fn(W) -> T) -> usize {
        let before = self.ready.len();
        while let Some(item) = self.timers.pop_due(now) {
            self.ready.push(job(item));
        }
        self.ready.len() - before
    }

    /// A turn begins: how many jobs are ready, and how many wait for their time.
    #[inline]
    pub fn begin_turn(&mut self) -> (usize, usize) {
        self.ready.begin_turn();
        (self.ready.len(), self.timers.len())
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

    /// The ready queue, for looking at its jobs.
    pub fn ready(&self) -> &Ready<T> {
        &self.ready
    }

    /// The timers, for looking at the waiting jobs.
    pub fn timers(&self) -> &Timers<W> {
        &self.timers
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

    /// Takes every job: the ready ones in order, then those that `job` makes of what waits, by deadline. What was abandoned
    /// is left to `take_dead`.
    #[must_use = "dropping jobs may run foreign code: choose where"]
    pub fn take_all(&mut self, job: impl Fn(W) -> T) -> VecDeque<T> {
        let mut all = self.ready.take_all();
        all.extend(self.timers.take_all().into_iter().map(job));
        all
    }
}

impl<T, W> Default for Scheduler<T, W> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_as_long_as_the_work_allows() {
        let mut scheduler: Scheduler<char> = Scheduler::new();
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
        let mut scheduler: Scheduler<char> = Scheduler::new();
        scheduler.at(2.0, 't');
        scheduler.at(1.0, 's');
        scheduler.at(3.0, 'u');
        scheduler.soon('r');
        assert_eq!(scheduler.admit_due(2.0, |job| job), 2);
        assert_eq!(scheduler.turn_len(), 3);
        assert_eq!((scheduler.ready().iter().count(), scheduler.timers().iter().count()), (3, 1));
        assert_eq!((scheduler.pop(), scheduler.pop()), (Some('r'), Some('s')));
        assert_eq!(scheduler.take_all(|job| job), ['t', 'u']);
        assert_eq!((scheduler.ready_len(), scheduler.timers_len()), (0, 0));
    }
}
