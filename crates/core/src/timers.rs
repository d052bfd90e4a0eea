//! The timers: payloads by deadline, first come first served among equals.
//!
//! A slab holds the payloads, a four-way heap holds the order. Entries that have come since anybody asked what is first
//! stand behind the heap in no order: most timers are cancelled, many of them before that. An entry has its slot to itself
//! until it leaves the heap. Cancelling is O(1): it clears the slot's bit and leaves the entry behind as a tombstone; when
//! tombstones are the majority they are dropped. Of a hundred thousand timers the slots are in no cache,
//! but the bits are. So there are two ways to cancel: `cancel` takes the payload out of its slot, `abandon` touches the
//! bit alone and leaves the payload there until the tombstone goes; `take_dead` then gives it back. Owned by
//! [`Scheduler`](crate::Scheduler). Never reads a clock and never drops a payload.

use std::num::NonZeroU32;

use crate::timer_states::States;

/// Names one timer. Never names another: a used-up key is a miss.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TimerKey {
    /// One more than the index, so that a key that may be missing is no larger than one that is there.
    place: NonZeroU32,
    generation: u32,
}

impl TimerKey {
    /// The shorter name.
    #[inline]
    pub const fn place(self) -> TimerPlace {
        TimerPlace(self.place)
    }

    #[inline]
    const fn index(self) -> usize {
        self.place.get() as usize - 1
    }
}

/// Names a timer while it waits, and another one later: for those who notice when it waits no more.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TimerPlace(NonZeroU32);

/// One heap entry: from the highest bits down the deadline, the number of the insert and the index of the slot, so
/// that the order of entries is that of one number. It is a tombstone when what is in its slot does not wait.
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
    const fn index(self) -> usize {
        self.0 as u32 as usize
    }
}

/// The sign bit of a float.
const SIGN: u64 = 1 << 63;
/// Children of each heap node: flatter than a binary heap, so fewer cache misses on the way down.
const ARITY: usize = 4;
/// So many tombstones are never worth a sweep, so many newcomers never a new order of all.
const FEW: usize = 64;
/// Slots and entries kept when a burst of timers has passed.
const KEPT_SLOTS: usize = 1024;

/// Payloads waiting for their deadlines.
#[derive(Debug)]
pub struct Timers<T> {
    heap: Vec<Entry>,
    /// How many entries, from the first on, are in the order of a heap.
    ordered: usize,
    /// The slab: what is in each slot, the number of its last insert, and whether that waits. The number
    /// is what a key names as its generation. It repeats after four billion inserts: then a stale key would have to meet
    /// the same slot, and timers with the very same deadline may change places.
    slots: Vec<Option<T>>,
    seqs: Vec<u32>,
    states: States,
    /// The slots that no entry has.
    free: Vec<u32>,
    /// Payloads that were abandoned and whose tombstones are gone.
    dead: Vec<T>,
    live: usize,
    next_seq: u32,
}

impl<T> Timers<T> {
    /// No timers; allocates on the first insert.
    pub const fn new() -> Self {
        Self {
            heap: Vec::new(),
            ordered: 0,
            slots: Vec::new(),
            seqs: Vec::new(),
            states: States::new(),
            free: Vec::new(),
            dead: Vec::new(),
            live: 0,
            next_seq: 0,
        }
    }

    /// Adds a payload that is due at `deadline` seconds, which must not be NaN (infinity is allowed: never
    /// due).
    pub fn insert(&mut self, deadline: f64, item: T) -> TimerKey {
        debug_assert!(!deadline.is_nan(), "a deadline must be a number");
        let seq = self.next_seq;
        self.next_seq = seq.wrapping_add(1);
        let place = self.occupy(seq, item);
        let index = place.get() - 1;
        self.states.wait(index as usize);
        self.live += 1;
        self.heap.push(Entry::new(deadline, seq, index));
        TimerKey { place, generation: seq }
    }

    /// Takes a payload out before it is due. `None`: it fired or was cancelled already.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        if self.seqs.get(key.index()) != Some(&key.generation) || !self.states.waits(key.index()) {
            return None;
        }
        let item = self.slots[key.index()].take();
        self.states.leave(key.index());
        self.left();
        self.sweep();
        item
    }

    /// As [`cancel`](Self::cancel), where the payload has no hurry: the caller knows that the timer waits, and gets the
    /// payload from [`take_dead`](Self::take_dead), some time.
    pub fn abandon(&mut self, place: TimerPlace) {
        let index = place.0.get() as usize - 1;
        if self.states.abandon(index) {
            self.left();
            self.sweep();
        }
    }

    /// Whether there is something for [`take_dead`](Self::take_dead).
    #[inline]
    pub fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// Payloads that were abandoned and that nothing here needs any more.
    #[must_use = "dropping payloads may run foreign code: choose where"]
    pub fn take_dead(&mut self) -> Vec<T> {
        std::mem::take(&mut self.dead)
    }

    /// The payload under `key`, while it waits.
    pub fn get(&self, key: &TimerKey) -> Option<&T> {
        let waits = self.seqs.get(key.index()) == Some(&key.generation) && self.states.waits(key.index());
        if waits { self.slots[key.index()].as_ref() } else { None }
    }

    /// The earliest deadline of a waiting payload.
    pub fn next_deadline(&mut self) -> Option<f64> {
        self.order();
        self.drop_leading_tombstones();
        self.heap.first().map(|entry| entry.deadline())
    }

    /// Takes the earliest payload if its deadline is `now` or earlier.
    pub fn pop_due(&mut self, now: f64) -> Option<T> {
        self.order();
        self.drop_leading_tombstones();
        let entry = *self.heap.first().filter(|entry| entry.deadline() <= now)?;
        let item = self.slots[entry.index()].take();
        self.remove_root();
        self.states.leave(entry.index());
        self.left();
        item
    }

    /// How many payloads wait (tombstones do not count).
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no payload waits.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// All payloads, in no particular order: those that wait, and those that were abandoned and are still here.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten().chain(&self.dead)
    }

    /// The waiting payloads with their deadlines, in no particular order.
    pub fn entries(&self) -> impl Iterator<Item = (f64, &T)> {
        let waits = |entry: &&Entry| self.states.waits(entry.index());
        let payload = |entry: &Entry| Some((entry.deadline(), self.slots[entry.index()].as_ref()?));
        self.heap.iter().filter(waits).filter_map(payload)
    }

    /// Takes every payload that waits, earliest deadline first. All keys become misses; what was abandoned is dead.
    #[must_use = "dropping payloads may run foreign code: choose where"]
    pub fn take_all(&mut self) -> Vec<T> {
        let mut heap = std::mem::take(&mut self.heap);
        heap.sort_unstable();
        heap.retain(|entry| self.states.waits(entry.index()));
        let waiting = heap.into_iter().filter_map(|entry| self.slots[entry.index()].take()).collect();
        self.live = 0;
        self.states.none_waits();
        self.forget_order();
        waiting
    }

    fn occupy(&mut self, seq: u32, item: T) -> NonZeroU32 {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = Some(item);
            self.seqs[index as usize] = seq;
            return NonZeroU32::MIN.saturating_add(index);
        }
        self.slots.push(Some(item));
        self.seqs.push(seq);
        let place = u32::try_from(self.slots.len()).ok().and_then(NonZeroU32::new);
        assert!(place.is_some(), "more than four billion timers");
        place.unwrap_or(NonZeroU32::MAX)
    }

    /// One that waited waits no more.
    #[inline]
    fn left(&mut self) {
        self.live -= 1;
        if self.live == 0 {
            self.forget_order();
        }
    }

    /// Nothing waits: tombstones and free slots go, and with them the memory of a burst.
    fn forget_order(&mut self) {
        self.heap.clear();
        self.ordered = 0;
        self.bring_out_the_dead();
        self.slots.clear();
        self.seqs.clear();
        self.free.clear();
        self.states.truncate(KEPT_SLOTS);
        self.heap.shrink_to(KEPT_SLOTS);
        self.slots.shrink_to(KEPT_SLOTS);
        self.seqs.shrink_to(KEPT_SLOTS);
        self.free.shrink_to(KEPT_SLOTS);
    }

    /// Makes a heap of all entries.
    #[inline]
    fn order(&mut self) {
        if self.ordered < self.heap.len() {
            self.order_newcomers();
        }
    }

    fn order_newcomers(&mut self) {
        if self.heap.len() - self.ordered > self.ordered.max(FEW) {
            if self.heap.len() > self.live {
                self.drop_tombstones();
            }
            for node in (0..self.heap.len().div_ceil(ARITY)).rev() {
                self.sift_down(node);
            }
            self.ordered = self.heap.len();
        }
        while let Some(entry) = self.heap.get(self.ordered) {
            let index = entry.index();
            if self.states.waits(index) {
                self.sift_up(self.ordered);
                self.ordered += 1;
            } else {
                self.heap.swap_remove(self.ordered);
                self.vacate(index);
            }
        }
        if self.slots.len() > 4 * self.heap.len().max(KEPT_SLOTS) && self.heap.len() == self.live {
            self.give_back();
        }
    }

    /// Frees the slot of a tombstone.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "an entry has its index from a u32")]
    fn vacate(&mut self, index: usize) {
        self.free.push(index as u32);
        if self.states.bring_out(index) {
            self.dead.extend(self.slots[index].take());
        }
    }

    /// So that the first entry is one that waits. All entries are in order.
    #[inline]
    fn drop_leading_tombstones(&mut self) {
        while let Some(entry) = self.heap.first() {
            if self.states.waits(entry.index()) {
                break;
            }
            self.remove_root();
        }
    }

    /// Takes the first entry off, which leaves its slot free: the hole goes all the way down, and the last entry, which
    /// most likely belongs there, goes up from it. All entries are in order.
    fn remove_root(&mut self) {
        let Some(last) = self.heap.pop() else { return };
        self.ordered = self.heap.len();
        self.vacate(self.heap.first().unwrap_or(&last).index());
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

    /// Tombstones are few, or they go.
    #[inline]
    fn sweep(&mut self) {
        let tombstones = self.heap.len() - self.live;
        if tombstones > FEW && tombstones > self.live {
            self.drop_tombstones();
            self.give_back();
        }
    }

    /// Drops all tombstones. Nothing is in order then.
    #[allow(clippy::cast_possible_truncation, reason = "as above")]
    fn drop_tombstones(&mut self) {
        self.bring_out_the_dead();
        let Self { heap, states, free, live, .. } = self;
        // Which entries stay cannot be foretold: each is written to both sides, and only one of them grows.
        let (mut kept, mut freed) = (0, free.len());
        free.resize(freed + heap.len() - *live + 1, 0);
        for at in 0..heap.len() {
            let entry = heap[at];
            let stays = states.waits(entry.index());
            heap[kept] = entry;
            free[freed] = entry.index() as u32;
            kept += usize::from(stays);
            freed += usize::from(!stays);
        }
        heap.truncate(kept);
        free.truncate(freed);
        self.ordered = 0;
    }

    /// Takes abandoned payloads out of their slots, in the order of these, which is that of their making and mostly that of
    /// their memory.
    fn bring_out_the_dead(&mut self) {
        let Self { states, dead, slots, .. } = self;
        for index in states.bring_out_all() {
            dead.extend(slots[index].take());
        }
    }

    /// Gives back memory that few timers do not need. Slots are named by index, so only the free ones at the end can go.
    /// There are no tombstones.
    #[cold]
    fn give_back(&mut self) {
        self.heap.shrink_to((2 * self.heap.len()).max(KEPT_SLOTS));
        let used = self.states.end();
        if self.slots.len() - used < KEPT_SLOTS.max(used) {
            return;
        }
        self.slots.truncate(used);
        self.slots.shrink_to(2 * used);
        self.seqs.truncate(used);
        self.seqs.shrink_to(2 * used);
        self.states.truncate(used);
        self.free.retain(|index| (*index as usize) < used);
        self.free.shrink_to(2 * used);
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
            assert_eq!((entry.deadline().to_bits(), entry.index()), (time.to_bits(), 4));
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
    fn the_slots_of_a_burst_go_when_few_timers_come_and_go() {
        let mut timers = Timers::new();
        timers.insert(f64::INFINITY, 0);
        for n in 0..20_000_u32 {
            timers.insert(1.0, n);
        }
        while timers.pop_due(1.0).is_some() {}
        for _ in 0..3 {
            let key = timers.insert(2.0, 0);
            timers.abandon(key.place());
            assert_eq!(timers.next_deadline(), Some(f64::INFINITY));
        }
        assert!(timers.slots.capacity() <= KEPT_SLOTS, "{} slots kept", timers.slots.capacity());
    }

    #[test]
    fn no_slot_goes_before_its_tombstone() {
        let mut timers = Timers::new();
        timers.insert(f64::INFINITY, 0);
        // Those that stay are last, and the slot that becomes free last is one of the first.
        let at = |n| f64::from(if n > 19_990 { 30_000 } else { 20_000 - n });
        let keys: Vec<_> = (1..=20_000_u32).map(|n| timers.insert(at(n), n)).collect();
        for n in (1..=19_990).rev() {
            assert_eq!(timers.pop_due(20_000.0), Some(n));
        }
        for key in &keys[19_990..] {
            timers.abandon(key.place());
        }
        timers.insert(40_000.0, 0);
        assert_eq!(timers.next_deadline(), Some(40_000.0));
        assert_eq!(timers.take_dead(), (19_991..=20_000).collect::<Vec<_>>());
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

    #[test]
    fn what_is_abandoned_comes_back_when_nothing_needs_it() {
        let mut timers = Timers::new();
        let keys: Vec<_> = (0..100_u32).map(|n| timers.insert(f64::from(n), n)).collect();
        timers.abandon(keys[0].place());
        assert_eq!((timers.len(), timers.iter().count()), (99, 100));
        assert_eq!(timers.get(&keys[0]), None);
        assert_eq!(timers.cancel(keys[0]), None);
        assert!(!timers.has_dead());
        assert_eq!(timers.next_deadline(), Some(1.0));
        assert_eq!(timers.take_dead(), [0]);
        for key in &keys[30..] {
            timers.abandon(key.place());
        }
        assert_eq!(timers.entries().count(), 29);
        assert_eq!(timers.take_dead(), (30..95).collect::<Vec<_>>(), "in the order of their making");
        assert_eq!(timers.take_all(), (1..30).collect::<Vec<_>>());
        assert_eq!(timers.take_dead(), (95..100).collect::<Vec<_>>());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8),
        Cancel(prop::sample::Index),
        Abandon(prop::sample::Index),
        Look,
        Pop(u8),
    }

    /// Steps of which few or many ask what is first.
    fn steps() -> impl Strategy<Value = Vec<Step>> {
        (1..40_u32).prop_flat_map(|looks| prop::collection::vec(step(looks), 0..1200))
    }

    fn step(looks: u32) -> impl Strategy<Value = Step> {
        prop_oneof![
            40 => any::<u8>().prop_map(Step::Insert),
            15 => any::<prop::sample::Index>().prop_map(Step::Cancel),
            15 => any::<prop::sample::Index>().prop_map(Step::Abandon),
            looks => Just(Step::Look),
            1 => any::<u8>().prop_map(Step::Pop),
        ]
    }

    proptest! {
        /// Against a vector sorted by (deadline, arrival), long enough for sweeps and new orders of all to happen.
        #[test]
        fn agrees_with_a_sorted_vector(steps in steps()) {
            let mut timers = Timers::new();
            let mut model: Vec<(f64, u32, TimerKey)> = Vec::new();
            let mut keys = Vec::new();
            let (mut abandoned, mut dead) = (Vec::new(), Vec::new());
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
                    Step::Abandon(which) if !model.is_empty() => {
                        let (_, number, key) = model.remove(which.index(model.len()));
                        timers.abandon(key.place());
                        abandoned.push(number);
                    }
                    Step::Cancel(_) | Step::Abandon(_) => {}
                    Step::Look => {
                        prop_assert_eq!(timers.next_deadline(), model.first().map(|entry| entry.0));
                    }
                    Step::Pop(now) => {
                        let due = model.first().is_some_and(|entry| entry.0 <= f64::from(now));
                        prop_assert_eq!(timers.pop_due(f64::from(now)), due.then(|| model.remove(0).1));
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                prop_assert!(timers.heap.len() <= 2 * timers.len() + FEW + 1);
                prop_assert!((1..timers.ordered).all(|at| timers.heap[(at - 1) / ARITY] <= timers.heap[at]));
                prop_assert_eq!(timers.heap.len() + timers.free.len(), timers.slots.len());
                prop_assert_eq!(timers.entries().count(), model.len());
                prop_assert_eq!(timers.iter().count() + dead.len(), model.len() + abandoned.len());
                dead.extend(timers.take_dead());
            }
            let rest: Vec<_> = model.iter().map(|entry| entry.1).collect();
            prop_assert_eq!(timers.take_all(), rest);
            dead.extend(timers.take_dead());
            dead.sort_unstable();
            abandoned.sort_unstable();
            prop_assert_eq!(dead, abandoned);
        }
    }
}
