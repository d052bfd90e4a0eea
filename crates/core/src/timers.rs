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

/// One heap entry: from the highest bits down the deadline, the number of the insert and the index of the slot, so
/// that the order of entries is that of one number. It is a tombstone when its slot no longer holds the same insert.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u128);

impl Entry {
    #[inline]
    fn new(deadline: f64, seq: u32, index: u32) -> Self {
        // Positive floats are ordered as their bits are, negative ones the other way round; 0.0 and -0.0 are equal.
        let bits = (deadline + 0.0).to_bits();
        let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
        Self(u128::from(ordered) << 64 | u128::from(seq) << 32 | u128::from(index))
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "a part of the bits is what is wanted")]
    const fn deadline(self) -> f64 {
        let ordered = (self.0 >> 64) as u64;
        f64::from_bits(if ordered & SIGN == 0 { !ordered } else { ordered & !SIGN })
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "as above")]
    const fn seq(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "as above")]
    const fn index(self) -> usize {
        self.0 as u32 as usize
    }
}

/// A slot of the slab. The number of the insert is what a key names as its generation. It repeats after four billion
/// inserts: then a stale key would have to meet the same slot, and timers with the very same deadline may change places.
#[derive(Debug)]
enum Slot<T> {
    Taken { seq: u32, item: T },
    Free { next: u32 },
}

/// The sign bit of a float.
const SIGN: u64 = 1 << 63;
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
    next_seq: u32,
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
        self.next_seq = seq.wrapping_add(1);
        let index = self.occupy(Slot::Taken { seq, item });
        self.live += 1;
        self.heap.push(Entry::new(deadline, seq, index));
        self.sift_up(self.heap.len() - 1);
        TimerKey { index, generation: seq }
    }

    /// Takes a payload out before it is due. `None`: it fired or was cancelled already.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        match self.slots.get(key.index as usize) {
            Some(Slot::Taken { seq, .. }) if *seq == key.generation => {}
            _ => return None,
        }
        let item = self.vacate(key.index as usize);
        let tombstones = self.heap.len() - self.live;
        if tombstones > TOLERATED_TOMBSTONES && tombstones > self.live {
            self.rebuild();
        }
        item
    }

    /// The payload under `key`, while it waits.
    pub fn get(&self, key: &TimerKey) -> Option<&T> {
        match self.slots.get(key.index as usize) {
            Some(Slot::Taken { seq, item }) if *seq == key.generation => Some(item),
            _ => None,
        }
    }

    /// The earliest deadline of a waiting payload.
    pub fn next_deadline(&mut self) -> Option<f64> {
        self.drop_leading_tombstones();
        self.heap.first().map(|entry| entry.deadline())
    }

    /// Takes the earliest payload if its deadline is `now` or earlier.
    pub fn pop_due(&mut self, now: f64) -> Option<T> {
        self.drop_leading_tombstones();
        let entry = *self.heap.first().filter(|entry| entry.deadline() <= now)?;
        self.remove_root();
        self.vacate(entry.index())
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
        self.heap.iter().filter_map(|entry| match self.slots.get(entry.index()) {
            Some(Slot::Taken { seq, item }) if *seq == entry.seq() => Some((entry.deadline(), item)),
            _ => None,
        })
    }

    /// Takes every payload, earliest deadline first. All keys become misses.
    #[must_use = "dropping payloads may run foreign code: choose where"]
    pub fn take_all(&mut self) -> Vec<T> {
        let mut heap = std::mem::take(&mut self.heap);
        heap.sort_unstable();
        let mut slots: Vec<_> = std::mem::take(&mut self.slots).into_iter().map(Some).collect();
        self.free = NONE;
        self.live = 0;
        let take = |entry: Entry| match slots[entry.index()].take_if(|slot| holds(slot, entry.seq())) {
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

    #[allow(clippy::cast_possible_truncation, reason = "indexes come from the u32 of an entry or key")]
    fn vacate(&mut self, index: usize) -> Option<T> {
        let slot = std::mem::replace(&mut self.slots[index], Slot::Free { next: self.free });
        self.free = index as u32;
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
            if holds(&self.slots[entry.index()], entry.seq()) {
                break;
            }
            self.remove_root();
        }
    }

    /// Takes the first entry off: the hole goes all the way down, and the last entry, which most likely belongs there,
    /// goes up from it.
    fn remove_root(&mut self) {
        let Some(last) = self.heap.pop() else { return };
        let heap = self.heap.as_mut_slice();
        if heap.is_empty() {
            return;
        }
        let mut hole = 0;
        while let Some(least) = least_child(heap, hole) {
            heap[hole] = heap[least];
            hole = least;
        }
        heap[hole] = last;
        self.sift_up(hole);
    }

    /// Drops all tombstones, restores the heap and gives memory back.
    #[cold]
    fn rebuild(&mut self) {
        let slots = &self.slots;
        self.heap.retain(|entry| slots.get(entry.index()).is_some_and(|slot| holds(slot, entry.seq())));
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

    #[inline]
    fn sift_up(&mut self, mut node: usize) {
        let heap = self.heap.as_mut_slice();
        let entry = heap[node];
        while node > 0 {
            let parent = (node - 1) / ARITY;
            if heap[parent] <= entry {
                break;
            }
            heap[node] = heap[parent];
            node = parent;
        }
        heap[node] = entry;
    }

    fn sift_down(&mut self, mut node: usize) {
        let heap = self.heap.as_mut_slice();
        let entry = heap[node];
        while let Some(least) = least_child(heap, node) {
            if entry <= heap[least] {
                break;
            }
            heap[node] = heap[least];
            node = least;
        }
        heap[node] = entry;
    }
}

/// Where the least child of a node is, if it has any.
#[inline]
fn least_child(heap: &[Entry], node: usize) -> Option<usize> {
    let first = node * ARITY + 1;
    if let Some(&[a, b, c, d]) = heap.get(first..first + ARITY) {
        // All four are looked at, whatever comes out: a branch that goes either way costs more than a comparison.
        let (left, at_left) = if b < a { (b, 1) } else { (a, 0) };
        let (right, at_right) = if d < c { (d, 3) } else { (c, 2) };
        return Some(first + if right < left { at_right } else { at_left });
    }
    (first..heap.len()).min_by_key(|child| heap[*child])
}

/// Whether the slot still holds the payload inserted as number `wanted`.
#[inline]
fn holds<T>(slot: &Slot<T>, wanted: u32) -> bool {
    matches!(slot, Slot::Taken { seq, .. } if *seq == wanted)
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
    fn entries_are_ordered_as_their_deadlines_then_as_they_came() {
        let times =
            [f64::NEG_INFINITY, -1e300, -1.5, -f64::MIN_POSITIVE, 0.0, 1e-300, 1.5, 1e300, f64::INFINITY];
        for pair in times.windows(2) {
            assert!(Entry::new(pair[0], u32::MAX, u32::MAX) < Entry::new(pair[1], 0, 0));
        }
        assert!(Entry::new(0.0, 1, 9) < Entry::new(-0.0, 2, 0));
        for time in times {
            let entry = Entry::new(time, 3, 4);
            assert_eq!((entry.deadline().to_bits(), entry.seq(), entry.index()), (time.to_bits(), 3, 4));
        }
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
