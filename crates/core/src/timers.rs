//! The timers: payloads by deadline, first come first served among equals.
//!
//! A slab holds the payloads, a four-way heap holds the order. Cancelling takes the payload out of the slab
//! in O(1) and leaves the heap entry behind as a tombstone; when tombstones are the majority the heap is
//! rebuilt without them. Owned by [`Scheduler`](crate::Scheduler). Never reads a clock and never drops a
//! payload.

/// Names one timer. Never names another: a used-up key is a miss.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TimerKey {
    index: u32,
    generation: u32,
}

/// One heap entry. It is a tombstone when its slot no longer holds the same `seq`.
#[derive(Copy, Clone, Debug)]
struct Entry {
    deadline: f64,
    seq: u64,
    index: u32,
}

impl Entry {
    #[inline]
    fn before(&self, other: &Self) -> bool {
        self.deadline < other.deadline || (self.deadline <= other.deadline && self.seq < other.seq)
    }
}

#[derive(Debug)]
enum Slot<T> {
    Taken { seq: u64, item: T },
    Free { next: u32 },
}

/// "No free slot": the end of the free list.
const NONE: u32 = u32::MAX;
/// Children of each heap node: flatter than a binary heap, so fewer cache misses on the way down.
const ARITY: usize = 4;
/// Fewer tombstones than this are never worth a rebuild.
const TOLERATED_TOMBSTONES: usize = 64;
/// Slots and entries kept when a burst of timers has passed.
const KEPT_SLOTS: usize = 1024;

/// Payloads waiting for their deadlines.
#[derive(Debug)]
pub struct Timers<T> {
    heap: Vec<Entry>,
    slots: Vec<Slot<T>>,
    free: u32,
    live: usize,
    next_seq: u64,
}

impl<T> Timers<T> {
    /// No timers; allocates on the first insert.
    pub const fn new() -> Self {
        Self { heap: Vec::new(), slots: Vec::new(), free: NONE, live: 0, next_seq: 0 }
    }

    /// Adds a payload that is due at `deadline` seconds, which must not be NaN (infinity is allowed: never
    /// due).
    pub fn insert(&mut self, deadline: f64, item: T) -> TimerKey {
        debug_assert!(!deadline.is_nan(), "a deadline must be a number");
        let seq = self.next_seq;
        self.next_seq += 1;
        let index = self.occupy(Slot::Taken { seq, item });
        self.live += 1;
        self.heap.push(Entry { deadline, seq, index });
        self.sift_up(self.heap.len() - 1);
        TimerKey { index, generation: generation(seq) }
    }

    /// Takes a payload out before it is due. `None`: it fired or was cancelled already.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        match self.slots.get(key.index as usize) {
            Some(Slot::Taken { seq, .. }) if generation(*seq) == key.generation => {}
            _ => return None,
        }
        let item = self.vacate(key.index);
        let tombstones = self.heap.len() - self.live;
        if tombstones > TOLERATED_TOMBSTONES && tombstones > self.live {
            self.rebuild();
        }
        item
    }

    /// The payload under `key`, while it waits.
    pub fn get(&self, key: &TimerKey) -> Option<&T> {
        match self.slots.get(key.index as usize) {
            Some(Slot::Taken { seq, item }) if generation(*seq) == key.generation => Some(item),
            _ => None,
        }
    }

    /// The earliest deadline of a waiting payload.
    pub fn next_deadline(&mut self) -> Option<f64> {
        self.drop_leading_tombstones();
        self.heap.first().map(|entry| entry.deadline)
    }

    /// Takes the earliest payload if its deadline is `now` or earlier.
    pub fn pop_due(&mut self, now: f64) -> Option<T> {
        self.drop_leading_tombstones();
        let entry = *self.heap.first().filter(|entry| entry.deadline <= now)?;
        self.remove_root();
        self.vacate(entry.index)
    }

    /// How many payloads wait (tombstones do not count).
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no payload waits.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The waiting payloads, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Taken { item, .. } => Some(item),
            Slot::Free { .. } => None,
        })
    }

    /// The waiting payloads with their deadlines, in no particular order.
    pub fn entries(&self) -> impl Iterator<Item = (f64, &T)> {
        self.heap.iter().filter_map(|entry| match self.slots.get(entry.index as usize) {
            Some(Slot::Taken { seq, item }) if *seq == entry.seq => Some((entry.deadline, item)),
            _ => None,
        })
    }

    /// Takes every payload, earliest deadline first. All keys become misses.
    #[must_use = "dropping payloads may run foreign code: choose where"]
    pub fn take_all(&mut self) -> Vec<T> {
        let mut heap = std::mem::take(&mut self.heap);
        heap.sort_unstable_by(|a, b| a.deadline.total_cmp(&b.deadline).then(a.seq.cmp(&b.seq)));
        let mut slots: Vec<_> = std::mem::take(&mut self.slots).into_iter().map(Some).collect();
        self.free = NONE;
        self.live = 0;
        let take = |entry: Entry| match slots[entry.index as usize].take_if(|slot| holds(slot, entry.seq)) {
            Some(Slot::Taken { item, .. }) => Some(item),
            _ => None,
        };
        heap.into_iter().filter_map(take).collect()
    }

    fn occupy(&mut self, slot: Slot<T>) -> u32 {
        let index = self.free;
        if let Some(Slot::Free { next }) = self.slots.get(index as usize) {
            self.free = *next;
            self.slots[index as usize] = slot;
            return index;
        }
        let index = u32::try_from(self.slots.len()).unwrap_or(NONE);
        assert!(index != NONE, "more than four billion timers");
        self.slots.push(slot);
        index
    }

    fn vacate(&mut self, index: u32) -> Option<T> {
        let slot = std::mem::replace(&mut self.slots[index as usize], Slot::Free { next: self.free });
        self.free = index;
        self.live -= 1;
        if self.live == 0 {
            self.forget_order();
        }
        match slot {
            Slot::Taken { item, .. } => Some(item),
            Slot::Free { .. } => None,
        }
    }

    /// Nothing waits: tombstones and free slots go, and with them the memory of a burst.
    fn forget_order(&mut self) {
        self.heap.clear();
        self.slots.clear();
        self.free = NONE;
        self.heap.shrink_to(KEPT_SLOTS);
        self.slots.shrink_to(KEPT_SLOTS);
    }

    #[inline]
    fn drop_leading_tombstones(&mut self) {
        while let Some(entry) = self.heap.first() {
            if holds(&self.slots[entry.index as usize], entry.seq) {
                break;
            }
            self.remove_root();
        }
    }

    fn remove_root(&mut self) {
        if let Some(last) = self.heap.pop()
            && let Some(root) = self.heap.first_mut()
        {
            *root = last;
            self.sift_down(0);
        }
    }

    /// Drops all tombstones, restores the heap and gives memory back.
    #[cold]
    fn rebuild(&mut self) {
        let slots = &self.slots;
        self.heap.retain(|entry| slots.get(entry.index as usize).is_some_and(|slot| holds(slot, entry.seq)));
        self.heap.shrink_to((2 * self.heap.len()).max(KEPT_SLOTS));
        for node in (0..self.heap.len().div_ceil(ARITY)).rev() {
            self.sift_down(node);
        }
        self.release_trailing_slots();
    }

    /// Slots are named by index, so only the free ones at the end can go.
    fn release_trailing_slots(&mut self) {
        let used =
            self.slots.iter().rposition(|slot| matches!(slot, Slot::Taken { .. })).map_or(0, |last| last + 1);
        if self.slots.len() - used < KEPT_SLOTS.max(used) {
            return;
        }
        self.slots.truncate(used);
        self.slots.shrink_to(2 * used);
        self.free = NONE;
        for (index, slot) in (0..).zip(&mut self.slots) {
            if let Slot::Free { next } = slot {
                *next = self.free;
                self.free = index;
            }
        }
    }

    fn sift_up(&mut self, mut node: usize) {
        let entry = self.heap[node];
        while node > 0 {
            let parent = (node - 1) / ARITY;
            if !entry.before(&self.heap[parent]) {
                break;
            }
            self.heap[node] = self.heap[parent];
            node = parent;
        }
        self.heap[node] = entry;
    }

    fn sift_down(&mut self, mut node: usize) {
        let heap = self.heap.as_mut_slice();
        let entry = heap[node];
        loop {
            let first = node * ARITY + 1;
            let Some(children) = heap.get(first..heap.len().min(first + ARITY)).filter(|all| !all.is_empty())
            else {
                break;
            };
            let mut least = 0;
            for (child, candidate) in children.iter().enumerate().skip(1) {
                if candidate.before(&children[least]) {
                    least = child;
                }
            }
            if !children[least].before(&entry) {
                break;
            }
            heap[node] = children[least];
            node = first + least;
        }
        heap[node] = entry;
    }
}

/// Whether the slot still holds the payload inserted as number `wanted`.
#[inline]
fn holds<T>(slot: &Slot<T>, wanted: u64) -> bool {
    matches!(slot, Slot::Taken { seq, .. } if *seq == wanted)
}

/// The part of the insertion number that a key carries. It repeats after four billion inserts, and even then
/// a stale key would have to meet the same slot.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
const fn generation(seq: u64) -> u32 {
    seq as u32
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn due_in_order_and_first_come_first_served() {
        let mut timers = Timers::new();
        timers.insert(2.0, "c");
        timers.insert(1.0, "a");
        timers.insert(1.0, "b");
        timers.insert(f64::INFINITY, "never");
        assert_eq!(timers.next_deadline(), Some(1.0));
        assert_eq!(timers.pop_due(0.5), None);
        assert_eq!(timers.pop_due(1.0), Some("a"));
        assert_eq!(timers.pop_due(1.0), Some("b"));
        assert_eq!(timers.pop_due(1.0), None);
        assert_eq!(timers.pop_due(9.0), Some("c"));
        assert_eq!(timers.pop_due(1e300), None);
        assert_eq!(timers.len(), 1);
    }

    #[test]
    fn a_used_key_is_a_miss_even_when_its_slot_lives_again() {
        let mut timers = Timers::new();
        let stale = timers.insert(1.0, 'a');
        assert_eq!(timers.cancel(stale), Some('a'));
        assert_eq!(timers.cancel(stale), None);
        let fresh = timers.insert(1.0, 'b');
        assert_eq!(timers.get(&stale), None);
        assert_eq!(timers.cancel(stale), None);
        assert_eq!(timers.get(&fresh), Some(&'b'));
        assert_eq!(timers.pop_due(1.0), Some('b'));
        assert_eq!(timers.cancel(fresh), None);
    }

    #[test]
    fn cancelling_the_many_gives_memory_back_and_keeps_the_few() {
        let mut timers = Timers::new();
        let keys: Vec<_> =
            (0..100_000_u32).map(|n| (n, timers.insert(f64::from(n * 7919 % 100_003), n))).collect();
        for (n, key) in &keys {
            if n % 10 != 0 {
                assert_eq!(timers.cancel(*key), Some(*n));
            }
        }
        assert_eq!(timers.len(), 10_000);
        assert!(timers.heap.capacity() <= 40_000, "{} entries kept", timers.heap.capacity());
        let mut previous = -1.0;
        let mut fired = 0;
        while let Some(deadline) = timers.next_deadline() {
            assert!(deadline >= previous);
            previous = deadline;
            assert!(timers.pop_due(deadline).is_some());
            fired += 1;
        }
        assert_eq!(fired, 10_000);
        assert!(timers.slots.capacity() <= KEPT_SLOTS);
    }

    #[test]
    fn take_all_returns_the_living_in_order() {
        let mut timers = Timers::new();
        let keys: Vec<_> = [3.0, 1.0, 2.0].into_iter().map(|at| timers.insert(at, at)).collect();
        assert_eq!(timers.cancel(keys[1]), Some(1.0));
        assert_eq!(timers.take_all(), [2.0, 3.0]);
        assert!(timers.is_empty());
        assert_eq!(timers.cancel(keys[0]), None);
        assert_eq!(timers.next_deadline(), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8),
        Cancel(prop::sample::Index),
        Pop(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<u8>().prop_map(Step::Insert),
            3 => any::<prop::sample::Index>().prop_map(Step::Cancel),
            1 => any::<u8>().prop_map(Step::Pop),
        ]
    }

    proptest! {
        /// Against a vector sorted by (deadline, arrival), long enough for rebuilds to happen.
        #[test]
        fn agrees_with_a_sorted_vector(steps in prop::collection::vec(step(), 0..1200)) {
            let mut timers = Timers::new();
            let mut model: Vec<(f64, u32, TimerKey)> = Vec::new();
            let mut keys = Vec::new();
            for (number, step) in (0_u32..).zip(steps) {
                match step {
                    Step::Insert(at) => {
                        let at = f64::from(at);
                        let key = timers.insert(at, number);
                        let place = model.partition_point(|entry| entry.0 <= at);
                        model.insert(place, (at, number, key));
                        keys.push(key);
                    }
                    Step::Cancel(which) if !keys.is_empty() => {
                        let key = *which.get(&keys);
                        let place = model.iter().position(|entry| entry.2 == key);
                        prop_assert_eq!(timers.cancel(key), place.map(|place| model.remove(place).1));
                    }
                    Step::Cancel(_) => {}
                    Step::Pop(now) => {
                        let due = model.first().is_some_and(|entry| entry.0 <= f64::from(now));
                        prop_assert_eq!(timers.pop_due(f64::from(now)), due.then(|| model.remove(0).1));
                    }
                }
                prop_assert_eq!(timers.next_deadline(), model.first().map(|entry| entry.0));
                prop_assert_eq!(timers.len(), model.len());
                prop_assert!(timers.heap.len() <= 2 * timers.len() + TOLERATED_TOMBSTONES + 1);
            }
            let rest: Vec<_> = model.iter().map(|entry| entry.1).collect();
            prop_assert_eq!(timers.iter().count(), rest.len());
            prop_assert_eq!(timers.take_all(), rest);
        }
    }
}
