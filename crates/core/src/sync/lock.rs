//! asyncio.Lock: one holder, the others in line.
//!
//! Driven by the `py` floor's Lock and, through it, by Condition and Barrier. See the parent module for the
//! verbs.

use crate::waiters::{WaiterKey, Waiters, Waiting};

/// `release` of a lock that nobody holds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct NotAcquired;

/// A fair lock.
#[derive(Debug)]
pub struct Lock<T> {
    locked: bool,
    pub(super) waiters: Waiters<T>,
}

impl<T> Lock<T> {
    /// Free.
    pub const fn new() -> Self {
        Self { locked: false, waiters: Waiters::new() }
    }

    /// Whether somebody holds it. Between a release and the run of the one it woke, nobody does.
    pub const fn is_locked(&self) -> bool {
        self.locked
    }

    /// Takes it at once if it is free and nobody has a better claim.
    pub fn try_acquire(&mut self, standing: impl Fn(&T) -> Waiting) -> bool {
        if self.locked {
            return false;
        }
        self.waiters.refresh(standing);
        self.locked = !self.waiters.has_claims();
        self.locked
    }

    /// The woken waiter runs: the lock is its own now.
    #[must_use = "dropping a payload may run foreign code: choose where"]
    pub fn admit(&mut self, key: WaiterKey) -> Option<T> {
        let (payload, _) = self.waiters.leave(key)?;
        self.locked = true;
        Some(payload)
    }

    /// The waiter runs, but with an exception: it leaves, and its turn passes to the next.
    #[must_use = "whoever is named has to be woken"]
    pub fn give_up(
        &mut self,
        key: WaiterKey,
        standing: impl Fn(&T) -> Waiting,
    ) -> (Option<T>, Option<WaiterKey>) {
        let payload = self.waiters.leave(key).map(|(payload, _)| payload);
        let next = if self.locked { None } else { self.wake_first(standing) };
        (payload, next)
    }

    /// Lets go; who is to be woken.
    pub fn release(&mut self, standing: impl Fn(&T) -> Waiting) -> Result<Option<WaiterKey>, NotAcquired> {
        if !self.locked {
            return Err(NotAcquired);
        }
        self.locked = false;
        Ok(self.wake_first(standing))
    }

    /// Says that it is held, or free, without asking the line.
    pub const fn set_locked(&mut self, locked: bool) {
        self.locked = locked;
    }

    /// Wakes the head of the line. A head that is woken or cancelled already will pass the turn on when it
    /// runs.
    #[must_use = "whoever is named has to be woken"]
    pub fn wake_first(&mut self, standing: impl Fn(&T) -> Waiting) -> Option<WaiterKey> {
        self.waiters.refresh(standing);
        let head = self.waiters.front()?;
        (self.waiters.standing(head) == Some(Waiting::Yes) && self.waiters.wake(head)).then_some(head)
    }
}

impl<T> Default for Lock<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sync::Rules;
    use crate::waiters::as_noted;

    #[test]
    fn the_line_is_kept() {
        let mut lock = Lock::new();
        assert!(lock.try_acquire(as_noted) && !lock.try_acquire(as_noted));
        let [first, second] = ['a', 'b'].map(|name| lock.wait(name));
        assert_eq!(lock.release(as_noted), Ok(Some(first)));
        assert!(!lock.is_locked());
        assert!(!lock.try_acquire(as_noted), "no jumping the queue between release and wake-up");
        assert_eq!(lock.release(as_noted), Err(NotAcquired));
        assert_eq!(lock.admit(first), Some('a'));
        assert!(lock.is_locked());
        assert_eq!(lock.release(as_noted), Ok(Some(second)));
        assert_eq!(lock.admit(second), Some('b'));
        assert_eq!(lock.release(as_noted), Ok(None));
        assert!(lock.try_acquire(as_noted));
    }

    #[test]
    fn a_woken_waiter_that_is_cancelled_passes_its_turn_on() {
        let mut lock = Lock::new();
        assert!(lock.try_acquire(as_noted));
        let [first, second] = ['a', 'b'].map(|name| lock.wait(name));
        assert_eq!(lock.release(as_noted), Ok(Some(first)));
        assert!(!lock.waiters.cancel(first), "woken already: cancelling cannot take the wake-up back");
        assert_eq!(lock.give_up(first, as_noted), (Some('a'), Some(second)));
        assert_eq!(lock.admit(second), Some('b'));
    }

    #[test]
    fn a_cancelled_waiter_leaves_the_holder_alone() {
        let mut lock = Lock::new();
        assert!(lock.try_acquire(as_noted));
        let [first, second] = ['a', 'b'].map(|name| lock.wait(name));
        assert!(lock.waiters.cancel(first));
        assert_eq!(lock.release(as_noted), Ok(None), "the cancelled head will pass the turn on when it runs");
        assert_eq!(lock.give_up(first, as_noted), (Some('a'), Some(second)));
        assert_eq!(lock.waiters().standing(second), Some(Waiting::Woken));
    }

    #[test]
    fn a_lock_with_only_cancelled_waiters_is_free() {
        let mut lock = Lock::new();
        assert!(lock.try_acquire(as_noted));
        let waiter = lock.wait('a');
        assert!(lock.waiters.cancel(waiter));
        assert_eq!(lock.release(as_noted), Ok(None));
        assert!(lock.try_acquire(as_noted));
        assert_eq!(lock.give_up(waiter, as_noted), (Some('a'), None));
        assert!(lock.is_locked());
    }

    /// Tasks in the line as a program sees them: a doomed one has been cancelled, before or after its
    /// wake-up.
    struct Line {
        lock: Lock<()>,
        tasks: Vec<(WaiterKey, bool)>,
        holders: u32,
    }

    impl Line {
        /// Runs the task at `place`, if it can run.
        fn run(&mut self, place: usize) -> bool {
            let (key, doomed) = self.tasks[place];
            if self.lock.waiters().standing(key) == Some(Waiting::Yes) {
                return false;
            }
            self.tasks.remove(place);
            if doomed {
                let _ = self.lock.give_up(key, as_noted);
            } else {
                assert!(self.lock.admit(key).is_some());
                self.holders += 1;
            }
            true
        }
    }

    proptest! {
        /// Tasks come, are cancelled and run in any order: never two holders, and nobody waits for a free
        /// lock once all who can run have run.
        #[test]
        fn one_holder_and_no_lost_turn(
            steps in prop::collection::vec((0_u8..5, any::<prop::sample::Index>()), 0..120),
        ) {
            let mut line = Line { lock: Lock::new(), tasks: Vec::new(), holders: 0 };
            for (kind, which) in steps {
                match kind {
                    0 | 1 => {
                        if line.lock.try_acquire(as_noted) {
                            line.holders += 1;
                        } else {
                            let key = line.lock.wait(());
                            line.tasks.push((key, false));
                        }
                    }
                    2 if line.holders == 1 => {
                        line.holders = 0;
                        prop_assert!(line.lock.release(as_noted).is_ok());
                    }
                    3 if !line.tasks.is_empty() => {
                        let place = which.index(line.tasks.len());
                        line.lock.waiters.cancel(line.tasks[place].0);
                        line.tasks[place].1 = true;
                    }
                    4 if !line.tasks.is_empty() => {
                        line.run(which.index(line.tasks.len()));
                    }
                    _ => {}
                }
                prop_assert!(line.holders <= 1);
                prop_assert_eq!(line.lock.is_locked(), line.holders == 1);
            }
            while (0..line.tasks.len()).any(|place| line.run(place)) {}
            prop_assert!(line.lock.is_locked() || line.tasks.is_empty());
            prop_assert!(line.holders <= 1);
        }
    }
}
