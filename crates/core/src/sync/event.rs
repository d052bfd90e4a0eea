//! asyncio.Event: a flag, and everybody who waits for it.
//!
//! Driven by the `py` floor's Event, which a Queue has for its joiners.

use crate::waiters::{WaiterKey, Waiters, Waiting};

/// A flag with waiters.
#[derive(Debug)]
pub struct Event<T> {
    is_set: bool,
    pub(super) waiters: Waiters<T>,
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

    /// Raises the flag. True: it was not up, and all are due whom [`next`](Self::next) names until it names
    /// nobody.
    #[must_use = "true means: wake everybody"]
    pub const fn set(&mut self) -> bool {
        !std::mem::replace(&mut self.is_set, true)
    }

    /// The next to be woken after the flag was raised.
    #[must_use = "whoever is named has to be woken"]
    pub fn next(&mut self, standing: impl Fn(&T) -> Waiting) -> Option<WaiterKey> {
        self.waiters.refresh(standing);
        self.waiters.wake_next()
    }

    /// Lowers the flag. Those who were woken stay woken.
    pub const fn clear(&mut self) {
        self.is_set = false;
    }

    /// The waiter runs, woken or with an exception.
    #[must_use = "dropping a payload may run foreign code: choose where"]
    pub fn leave(&mut self, key: WaiterKey) -> Option<T> {
        self.waiters.leave(key).map(|(payload, _)| payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Rules;
    use crate::waiters::as_noted;

    #[test]
    fn setting_wakes_all_who_still_wait_and_once() {
        let mut event = Event::new(false);
        let [first, second, third] = ['a', 'b', 'c'].map(|name| event.wait(name));
        assert!(event.waiters.cancel(second));
        assert!(event.set() && !event.set());
        assert_eq!([(); 3].map(|()| event.next(as_noted)), [Some(first), Some(third), None]);
        event.clear();
        let late = event.wait('d');
        assert!(event.set());
        assert_eq!(event.next(as_noted), Some(late), "those woken before are not woken again");
        assert_eq!(event.next(as_noted), None);
        assert_eq!(event.leave(second), Some('b'));
        assert_eq!(event.waiters.take_all(), ['a', 'c', 'd']);
        assert!(event.is_set());
    }
}
