//! A record of what happened, bounded in what it costs: the newest stays, the oldest makes way.
//!
//! The timeline of a trace is one. Knows nothing of what is recorded: each item comes with its price, and whoever adds
//! one gets back what had to go.

use std::collections::VecDeque;

/// Items, oldest first, whose prices together stay within a limit.
#[derive(Debug)]
pub struct Record<T> {
    items: VecDeque<(T, u32)>,
    cost: u64,
    limit: u64,
    dropped: u64,
}

impl<T> Record<T> {
    /// An empty record that may come to cost `limit`.
    pub const fn new(limit: u64) -> Self {
        Self { items: VecDeque::new(), cost: 0, limit, dropped: 0 }
    }

    /// Adds an item. What has become too much is taken out by [`Record::surplus`].
    #[inline]
    pub fn push(&mut self, item: T, cost: u32) {
        self.cost += u64::from(cost);
        self.items.push_back((item, cost));
    }

    /// Takes the oldest item out while all together cost too much.
    #[inline]
    #[must_use = "items that go have owners to be told"]
    pub fn surplus(&mut self) -> Option<T> {
        if self.cost <= self.limit {
            return None;
        }
        let (item, cost) = self.items.pop_front()?;
        self.cost -= u64::from(cost);
        self.dropped += 1;
        Some(item)
    }

    /// Something that lasts, beside the items, costs so much.
    pub fn charge(&mut self, cost: u32) {
        self.cost += u64::from(cost);
    }

    /// … and costs it no more.
    pub fn refund(&mut self, cost: u32) {
        self.cost = self.cost.saturating_sub(u64::from(cost));
    }

    /// How many items had to go.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|(item, _)| item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oldest_makes_way() {
        let mut record = Record::new(10);
        record.charge(2);
        for number in 0..4 {
            record.push(number, 3);
        }
        assert_eq!((record.surplus(), record.surplus(), record.surplus()), (Some(0), Some(1), None));
        assert_eq!(record.iter().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!((record.len(), record.dropped()), (2, 2));
        record.refund(2);
        record.push(4, 3);
        assert_eq!(record.surplus(), None);
        assert!(!record.is_empty());
    }

    #[test]
    fn what_lasts_may_leave_room_for_nothing() {
        let mut record = Record::new(10);
        record.charge(11);
        record.push('a', 1);
        assert_eq!((record.surplus(), record.surplus()), (Some('a'), None));
    }

    proptest! {
        #[test]
        fn the_limit_holds_and_the_newest_stay(costs in prop::collection::vec(1_u32..50, 0..200), limit in 0_u64..500) {
            let mut record = Record::new(limit);
            let mut gone = Vec::new();
            for (number, &cost) in costs.iter().enumerate() {
                record.push(number, cost);
                while let Some(item) = record.surplus() {
                    gone.push(item);
                }
                let kept: Vec<_> = record.iter().copied().collect();
                prop_assert!(kept.iter().map(|&item| u64::from(costs[item])).sum::<u64>() <= limit);
                gone.extend(&kept);
                prop_assert_eq!(&gone, &(0..=number).collect::<Vec<_>>());
                gone.truncate(gone.len() - kept.len());
            }
        }
    }
}
