//! asyncio.Event: a flag, and everybody who waits for it.
//!
//! Driven by the `py` floor's Event, and by [`Queue`](super::Queue) for its joiners.

use crate::waiters::{WaiterKey, Waiters};

/// A flag with waiters.
#[derive(Debug)]
pub struct Event<T> {
    is_set: bool,
    waiters: Waiters<T>,
}

impl<T> Event<T> {
    /// Set or not set.
    pub const fn new(is_set: bool) -> Self {
        Self { is_set, waiters: Waiters::new() }
    }

    /// Whether the flag is up: then nobody needs to wait.
    pub const fn is_set(&self) -> bool {
        self.is_set
    }

    /// Raises the flag; everybody who is to be woken, in order.
    #[must_use = "whoever is named has to be woken"]
    pub fn set(&mut self) -> Vec<WaiterKey> {
        if self.is_set {
            return Vec::new();
        }
        self.is_set = true;
        self.waiters.wake_many(usize::MAX)
    }

    /// Lowers the flag. Those who were woken stay woken.
    pub const fn clear(&mut self) {
        self.is_set = false;
    }

    /// Waits for the flag.
    pub fn wait(&mut self, payload: T) -> WaiterKey {
        self.waiters.join(payload)
    }

    /// The wait of `key` has been cancelled (it has not run yet).
    pub fn cancel(&mut self, key: WaiterKey) -> bool {
        self.waiters.cancel(key)
    }

    /// The waiter runs, woken or with an exception.
    #[must_use = "dropping a payload may run foreign code: choose where"]
    pub fn leave(&mut self, key: WaiterKey) -> Option<T> {
        self.waiters.leave(key).map(|(payload, _)| payload)
    }

    /// Who waits.
    pub const fn waiters(&self) -> &Waiters<T> {
        &self.waiters
    }

    /// Lets everybody go (the event object dies).
    #[must_use = "dropping payloads may run foreign code: choose where"]
    pub fn take_all(&mut self) -> Vec<T> {
        self.waiters.take_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_wakes_all_who_still_wait_and_once() {
        let mut event = Event::new(false);
        let [first, second, third] = ['a', 'b', 'c'].map(|name| event.wait(name));
        assert!(event.cancel(second));
        assert_eq!(event.set(), [first, third]);
        assert_eq!(event.set(), []);
        event.clear();
        let late = event.wait('d');
        assert_eq!(event.set(), [late], "those woken before are not woken again");
        assert_eq!(event.leave(second), Some('b'));
        assert_eq!(event.take_all(), ['a', 'c', 'd']);
        assert!(event.is_set());
    }
}
