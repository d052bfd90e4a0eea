//! asyncio.Condition: who is notified next.
//!
//! Driven by the `py` floor's Condition, which also releases and re-acquires the lock around the wait: after
//! every wait, however it ended, the lock is taken again before the waiter goes on.

use crate::waiters::{WaiterKey, Waiters, Waiting};

/// The waiters of a condition.
#[derive(Debug)]
pub struct Condition<T> {
    pub(super) waiters: Waiters<T>,
}

impl<T> Condition<T> {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { waiters: Waiters::new() }
    }

    /// Notifies the first who can still hear it.
    ///
    /// A waiter whose `wait` ends with any exception, even one that came while it took the lock again, calls
    /// this: it may have swallowed a notification that was meant to be heard.
    #[must_use = "whoever is named has to be woken"]
    pub fn notify(&mut self, standing: impl Fn(&T) -> Waiting) -> Option<WaiterKey> {
        self.waiters.refresh(standing);
        self.waiters.wake_next()
    }

    /// The waiter runs, woken or with an exception; the lock is taken next.
    #[must_use = "dropping a payload may run foreign code: choose where"]
    pub fn leave(&mut self, key: WaiterKey) -> Option<T> {
        self.waiters.leave(key).map(|(payload, _)| payload)
    }
}

impl<T> Default for Condition<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Rules;
    use crate::waiters::as_noted;

    #[test]
    fn notifications_go_to_those_who_can_still_hear_them() {
        let mut condition = Condition::new();
        let [first, second, third, fourth] = ['a', 'b', 'c', 'd'].map(|name| condition.wait(name));
        assert_eq!(condition.notify(as_noted), Some(first));
        assert!(condition.waiters.cancel(second));
        assert_eq!(
            condition.notify(as_noted),
            Some(third),
            "neither the woken nor the cancelled one swallows it"
        );
        assert_eq!(condition.leave(second), Some('b'));
        assert_eq!((condition.notify(as_noted), condition.notify(as_noted)), (Some(fourth), None));
        assert_eq!(condition.waiters.take_all(), ['a', 'c', 'd']);
    }
}
