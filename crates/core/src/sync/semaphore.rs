//! asyncio.Semaphore and BoundedSemaphore: so many holders, the others in line.
//!
//! Driven by the `py` floor's semaphores. A permit is given away when its taker is *woken*, so a taker that
//! then leaves with an exception gives it back. See the parent module for the verbs.

use crate::waiters::{WaiterKey, Waiters, Waiting};

/// A fair semaphore.
#[derive(Debug)]
pub struct Semaphore<T> {
    value: i64,
    bound: Option<i64>,
    pub(super) waiters: Waiters<T>,
}

impl<T> Semaphore<T> {
    /// With `value` permits, which is not negative; `bounded`: never more than those.
    pub const fn new(value: i64, bounded: bool) -> Self {
        Self { value, bound: if bounded { Some(value) } else { None }, waiters: Waiters::new() }
    }

    /// How many permits are left.
    pub const fn value(&self) -> i64 {
        self.value
    }

    /// Sets how many permits are left, without asking the line.
    pub const fn set_value(&mut self, value: i64) {
        self.value = value;
    }

    /// Sets how many there may be, of a bounded one.
    pub const fn set_bound(&mut self, bound: i64) {
        if self.bound.is_some() {
            self.bound = Some(bound);
        }
    }

    /// Whether a newcomer would have to wait: no permit, or somebody is before it.
    pub fn is_locked(&mut self, standing: impl Fn(&T) -> Waiting) -> bool {
        if self.value == 0 {
            return true;
        }
        self.waiters.refresh(standing);
        self.waiters.has_claims()
    }

    /// Takes a permit at once if there is one and nobody has a better claim.
    pub fn try_acquire(&mut self, standing: impl Fn(&T) -> Waiting) -> bool {
        let free = !self.is_locked(standing);
        if free {
            self.value -= 1;
        }
        free
    }

    /// The woken waiter runs with its permit. Others may be due as well: see [`hand_out`](Self::hand_out).
    #[must_use = "dropping a payload may run foreign code: choose where"]
    pub fn admit(&mut self, key: WaiterKey) -> Option<T> {
        self.waiters.leave(key).map(|(payload, _)| payload)
    }

    /// The waiter runs, but with an exception: it leaves and gives back the permit that it may have been
    /// given. Others may be due: see [`hand_out`](Self::hand_out).
    #[must_use = "dropping a payload may run foreign code: choose where"]
    pub fn give_up(&mut self, key: WaiterKey) -> Option<T> {
        let left = self.waiters.leave(key);
        if matches!(left, Some((_, Waiting::Woken))) {
            self.value += 1;
        }
        left.map(|(payload, _)| payload)
    }

    /// The next who gets a permit that is left; asked until it names nobody, after every wait.
    #[must_use = "whoever is named has to be woken"]
    pub fn hand_out(&mut self, standing: impl Fn(&T) -> Waiting) -> Option<WaiterKey> {
        if self.value > 0 { self.wake_next(standing) } else { None }
    }

    /// Returns a permit; who is to be woken. `None`: a bounded semaphore would exceed its bound.
    #[must_use = "whoever is named has to be woken"]
    pub fn release(&mut self, standing: impl Fn(&T) -> Waiting) -> Option<Option<WaiterKey>> {
        if self.bound.is_some_and(|bound| self.value >= bound) {
            return None;
        }
        self.value += 1;
        Some(self.wake_next(standing))
    }

    /// Gives the first who waits a permit, without asking how many are left.
    #[must_use = "whoever is named has to be woken"]
    pub fn wake_next(&mut self, standing: impl Fn(&T) -> Waiting) -> Option<WaiterKey> {
        self.waiters.refresh(standing);
        let key = self.waiters.wake_next()?;
        self.value -= 1;
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sync::Rules;
    use crate::waiters::as_noted;

    #[test]
    fn a_permit_goes_to_the_line_before_newcomers() {
        let mut semaphore = Semaphore::new(1, false);
        assert!(semaphore.try_acquire(as_noted));
        let [first, second] = ['a', 'b'].map(|name| semaphore.wait(name));
        assert_eq!(semaphore.release(as_noted), Some(Some(first)));
        assert_eq!(semaphore.release(as_noted), Some(Some(second)));
        assert_eq!(semaphore.release(as_noted), Some(None));
        assert_eq!(semaphore.value(), 1);
        assert!(!semaphore.try_acquire(as_noted), "two have not run yet");
        assert_eq!(semaphore.admit(first), Some('a'));
        assert_eq!(semaphore.admit(second), Some('b'));
        assert!(semaphore.try_acquire(as_noted));
    }

    #[test]
    fn a_cancelled_taker_returns_its_permit_to_the_next() {
        let mut semaphore = Semaphore::new(0, false);
        let [first, second] = ['a', 'b'].map(|name| semaphore.wait(name));
        assert_eq!(semaphore.release(as_noted), Some(Some(first)));
        assert!(!semaphore.waiters.cancel(first));
        assert_eq!(semaphore.give_up(first), Some('a'));
        assert_eq!((semaphore.hand_out(as_noted), semaphore.hand_out(as_noted)), (Some(second), None));
        assert!(!semaphore.waiters.cancel(second));
        assert_eq!(semaphore.give_up(second), Some('b'));
        assert_eq!(semaphore.hand_out(as_noted), None);
        assert_eq!(semaphore.value(), 1);
    }

    #[test]
    fn those_who_came_while_permits_were_idle_are_let_in_by_the_one_before() {
        let mut semaphore = Semaphore::new(0, false);
        let first = semaphore.wait('a');
        assert_eq!(semaphore.release(as_noted), Some(Some(first)));
        assert_eq!(semaphore.release(as_noted), Some(None));
        let second = semaphore.wait('b');
        assert_eq!(semaphore.admit(first), Some('a'));
        assert_eq!(semaphore.hand_out(as_noted), Some(second));
    }

    #[test]
    fn a_bound_is_kept() {
        let mut semaphore = Semaphore::<()>::new(1, true);
        assert_eq!(semaphore.release(as_noted), None);
        assert!(semaphore.try_acquire(as_noted));
        assert_eq!(semaphore.release(as_noted), Some(None));
    }

    proptest! {
        /// Takers come, are cancelled and run in any order: permits are neither lost nor doubled, and nobody
        /// waits while a permit is free once all who were woken have run.
        #[test]
        fn permits_are_conserved(
            permits in 0_i64..4,
            steps in prop::collection::vec((0_u8..5, any::<prop::sample::Index>()), 0..120),
        ) {
            let mut semaphore = Semaphore::new(permits, false);
            let (mut line, mut held, mut total) = (Vec::new(), 0_i64, permits);
            for (kind, which) in steps {
                match kind {
                    0 | 1 => {
                        let got = semaphore.try_acquire(as_noted);
                        if got { held += 1 } else { line.push((semaphore.wait(()), false)) }
                    }
                    2 => {
                        if held > 0 { held -= 1 } else { total += 1 }
                        prop_assert!(semaphore.release(as_noted).is_some());
                    }
                    3 if !line.is_empty() => {
                        let place = which.index(line.len());
                        semaphore.waiters.cancel(line[place].0);
                        line[place].1 = true;
                    }
                    4 if !line.is_empty() => {
                        let place = which.index(line.len());
                        run(&mut semaphore, &mut line, &mut held, place);
                    }
                    _ => {}
                }
                let all = semaphore.waiters().iter();
                let woken = all.filter(|(_, waiting, ())| *waiting == Waiting::Woken).count();
                prop_assert_eq!(semaphore.value() + held + i64::try_from(woken).unwrap(), total);
            }
            let settled =
                |semaphore: &Semaphore<()>, key| semaphore.waiters().standing(key) != Some(Waiting::Yes);
            while let Some(place) = line.iter().position(|(key, _)| settled(&semaphore, *key)) {
                run(&mut semaphore, &mut line, &mut held, place);
            }
            prop_assert!(semaphore.value() == 0 || line.is_empty());
        }
    }

    /// Runs the task at `place` if it can run. A doomed one has been cancelled, before or after its wake-up.
    fn run(semaphore: &mut Semaphore<()>, line: &mut Vec<(WaiterKey, bool)>, held: &mut i64, place: usize) {
        let (key, doomed) = line[place];
        if semaphore.waiters().standing(key) == Some(Waiting::Yes) {
            return;
        }
        line.remove(place);
        if doomed {
            let _ = semaphore.give_up(key);
        } else {
            let _ = semaphore.admit(key);
            *held += 1;
        }
        while semaphore.hand_out(as_noted).is_some() {}
    }
}
