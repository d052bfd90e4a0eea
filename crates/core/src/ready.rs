//! The ready queue: first in, first out.
//!
//! Owned by [`Scheduler`](crate::Scheduler), which counts a turn's jobs when the turn begins. Never runs or
//! drops a payload by itself: what goes in comes out of `pop` or `take_all`.

use std::collections::{VecDeque, vec_deque};

/// Below this many slots the queue never gives memory back: a loop at work needs them again at once.
const KEPT_SLOTS: usize = 1024;

/// So many turns in a row must leave most slots unused before memory goes back: bursts come one after the other.
const QUIET_TURNS: u32 = 64;

/// A FIFO that returns its memory once a burst has passed.
#[derive(Debug)]
pub struct Ready<T> {
    queue: VecDeque<T>,
    /// How many turns in a row began with most slots unused.
    quiet: u32,
}

impl<T> Ready<T> {
    /// An empty queue; allocates on the first push.
    pub const fn new() -> Self {
        Self { queue: VecDeque::new(), quiet: 0 }
    }

    /// Appends a payload.
    #[inline]
    pub fn push(&mut self, item: T) {
        self.queue.push_back(item);
    }

    /// Puts payloads before all others, in their order.
    pub fn push_first(&mut self, items: Vec<T>) {
        for item in items.into_iter().rev() {
            self.queue.push_front(item);
        }
    }

    /// Takes the oldest payload.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.queue.pop_front()
    }

    /// A turn begins; memory goes back if a burst has passed for good. (`pop` has no time for that.)
    #[inline]
    pub fn begin_turn(&mut self) {
        if self.queue.capacity() > KEPT_SLOTS {
            self.note_use();
        }
    }

    /// The payload that `place` others go before.
    #[inline]
    pub fn get(&self, place: usize) -> Option<&T> {
        self.queue.get(place)
    }

    /// How many payloads wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The waiting payloads, oldest first.
    pub fn iter(&self) -> vec_deque::Iter<'_, T> {
        self.queue.iter()
    }

    /// Empties the queue; the caller drops the payloads where that is safe.
    #[must_use = "dropping payloads may run foreign code: choose where"]
    pub fn take_all(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.queue)
    }

    /// Moves everything from `other` behind what waits here. Swaps buffers when it can.
    pub fn append(&mut self, other: &mut VecDeque<T>) {
        if self.queue.is_empty() {
            std::mem::swap(&mut self.queue, other);
        } else {
            self.queue.append(other);
        }
    }

    fn note_use(&mut self) {
        if self.queue.len() >= self.queue.capacity() / 8 {
            self.quiet = 0;
            return;
        }
        self.quiet += 1;
        if self.quiet >= QUIET_TURNS {
            self.quiet = 0;
            // A quarter, and not an eighth, so that the cost of growing again is amortised.
            self.queue.shrink_to((self.queue.capacity() / 4).max(KEPT_SLOTS));
        }
    }
}

impl<T> Default for Ready<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, T> IntoIterator for &'a Ready<T> {
    type Item = &'a T;
    type IntoIter = vec_deque::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_in_first_out() {
        let mut ready = Ready::new();
        for number in 0..3 {
            ready.push(number);
        }
        assert_eq!(ready.iter().copied().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!((ready.get(0), ready.get(2), ready.get(3)), (Some(&0), Some(&2), None));
        assert_eq!((ready.pop(), ready.pop(), ready.pop(), ready.pop()), (Some(0), Some(1), Some(2), None));
    }

    #[test]
    fn a_burst_returns_its_memory() {
        let mut ready = Ready::new();
        for number in 0..100_000 {
            ready.push(number);
        }
        assert!(ready.queue.capacity() >= 100_000);
        for number in 0..100_000 {
            assert_eq!(ready.pop(), Some(number));
        }
        ready.begin_turn();
        assert!(ready.queue.capacity() >= 100_000, "the next burst finds its memory");
        for _ in 0..5 * QUIET_TURNS {
            ready.begin_turn();
        }
        assert!(ready.queue.capacity() <= 2 * KEPT_SLOTS, "{} slots kept", ready.queue.capacity());
    }

    #[test]
    fn append_keeps_the_order_whether_or_not_it_swaps() {
        let mut ready = Ready::new();
        let mut other = VecDeque::from([1, 2]);
        ready.append(&mut other);
        other.push_back(3);
        ready.append(&mut other);
        assert!(other.is_empty());
        assert_eq!(ready.take_all(), [1, 2, 3]);
        assert!(ready.is_empty());
    }

    proptest! {
        /// Bursts in and out, large enough for the memory to come and go.
        #[test]
        fn agrees_with_a_plain_deque(bursts in prop::collection::vec((0_usize..5000, 0_usize..6000), 1..12)) {
            let (mut ready, mut model, mut number) = (Ready::new(), VecDeque::new(), 0_u32);
            for (more, less) in bursts {
                for _ in 0..more {
                    ready.push(number);
                    model.push_back(number);
                    number += 1;
                }
                for _ in 0..less {
                    prop_assert_eq!(ready.pop(), model.pop_front());
                }
                for _ in 0..QUIET_TURNS {
                    ready.begin_turn();
                }
                prop_assert_eq!(ready.len(), model.len());
            }
            prop_assert_eq!(ready.take_all(), model);
        }
    }
}
