//! The one wait list under every lock, event, condition, semaphore, barrier and queue.
//!
//! First come, first served; leaving is O(1) from anywhere. A waiter that has been woken stays in the list
//! until it has run and left, because asyncio's fairness counts it until then. The payload is whatever the
//! `py` floor parks (a future, a task): this module wakes nobody, it says who is next, and hands every
//! payload back.

/// Names one waiter. A used-up key is a miss.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct WaiterKey {
    index: u32,
    generation: u32,
}

/// Where a waiter stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nobody has woken it.
    Yes,
    /// Its turn has come; it has not run since.
    Woken,
    /// Its wait was cancelled; it has not run since.
    Cancelled,
}

#[derive(Debug)]
struct Node<T> {
    generation: u32,
    previous: u32,
    /// The next waiter, or the next free node.
    next: u32,
    waiting: Waiting,
    payload: Option<T>,
}

const NONE: u32 = u32::MAX;
/// Nodes that an empty list keeps.
const KEPT_NODES: usize = 64;

/// A FIFO of waiters.
#[derive(Debug)]
pub struct Waiters<T> {
    nodes: Vec<Node<T>>,
    free: u32,
    head: u32,
    tail: u32,
    /// The first waiter in `Waiting::Yes`: all before it are woken or cancelled.
    first: u32,
    len: usize,
    /// How many are in `Waiting::Yes`, and how many in `Waiting::Cancelled`.
    waiting: usize,
    cancelled: usize,
    next_generation: u32,
}

impl<T> Waiters<T> {
    /// Nobody waits; allocates for the first who does.
    pub const fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free: NONE,
            head: NONE,
            tail: NONE,
            first: NONE,
            len: 0,
            waiting: 0,
            cancelled: 0,
            next_generation: 0,
        }
    }

    /// Joins at the end.
    ///
    /// # Panics
    /// When four billion waiters are in the list.
    pub fn join(&mut self, payload: T) -> WaiterKey {
        let key = self.store(payload, self.tail, NONE);
        match self.nodes.get_mut(self.tail as usize) {
            Some(tail) => tail.next = key.index,
            None => self.head = key.index,
        }
        self.tail = key.index;
        if self.first == NONE {
            self.first = key.index;
        }
        key
    }

    /// Joins before all others.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    pub fn join_first(&mut self, payload: T) -> WaiterKey {
        let key = self.store(payload, NONE, self.head);
        match self.nodes.get_mut(self.head as usize) {
            Some(head) => head.previous = key.index,
            None => self.tail = key.index,
        }
        self.head = key.index;
        self.first = key.index;
        key
    }

    /// A node of a new waiter, between those two; the list's ends and the neighbours don't know of it yet.
    #[inline]
    fn store(&mut self, payload: T, previous: u32, next: u32) -> WaiterKey {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let node = Node { generation, previous, next, waiting: Waiting::Yes, payload: Some(payload) };
        let index = self.free;
        let index = if let Some(place) = self.nodes.get_mut(index as usize) {
            self.free = place.next;
            *place = node;
            index
        } else {
            let index = u32::try_from(self.nodes.len()).unwrap_or(NONE);
            assert!(index != NONE, "more than four billion waiters");
            self.nodes.push(node);
            index
        };
        self.len += 1;
        self.waiting += 1;
        WaiterKey { index, generation }
    }

    /// Leaves the list: the waiter runs again, or gave up. Says how it stood.
    #[must_use = "dropping a payload may run foreign code: choose where"]
    pub fn leave(&mut self, key: WaiterKey) -> Option<(T, Waiting)> {
        self.node(key)?;
        if self.first == key.index {
            self.first = self.next_waiting(key.index);
        }
        let free = self.free;
        let node = self.nodes.get_mut(key.index as usize)?;
        let payload = node.payload.take()?;
        let (previous, next, waiting) = (node.previous, node.next, node.waiting);
        node.next = free;
        self.free = key.index;
        match self.nodes.get_mut(previous as usize) {
            Some(node) => node.next = next,
            None => self.head = next,
        }
        match self.nodes.get_mut(next as usize) {
            Some(node) => node.previous = previous,
            None => self.tail = previous,
        }
        self.len -= 1;
        match waiting {
            Waiting::Yes => self.waiting -= 1,
            Waiting::Cancelled => self.cancelled -= 1,
            Waiting::Woken => {}
        }
        if self.len == 0 && self.nodes.len() > KEPT_NODES {
            self.nodes = Vec::new();
            self.free = NONE;
        }
        Some((payload, waiting))
    }

    /// Notes that a waiter has been woken. False if it was not waiting any more.
    pub fn wake(&mut self, key: WaiterKey) -> bool {
        self.settle(key, Waiting::Woken)
    }

    /// Notes that a waiter's wait has been cancelled. False if it was not waiting any more.
    pub fn cancel(&mut self, key: WaiterKey) -> bool {
        let cancelled = self.settle(key, Waiting::Cancelled);
        self.cancelled += usize::from(cancelled);
        cancelled
    }

    /// Notes how the waits at the front have ended meanwhile, as `standing` tells from the payload.
    ///
    /// A wait may end without a word to the list: a cancelled task cancels what is parked here, and that is
    /// all. So every decision asks first; each waiter is asked once after its end, which keeps the price O(1)
    /// a waiter.
    #[inline]
    pub fn refresh(&mut self, standing: impl Fn(&T) -> Waiting) {
        while let Some(payload) = self.nodes.get(self.first as usize).and_then(|node| node.payload.as_ref()) {
            let outcome = standing(payload);
            if outcome == Waiting::Yes {
                return;
            }
            self.settle_first(outcome);
        }
    }

    /// Notes the first who still waits as woken.
    #[must_use = "whoever is named has to be woken"]
    #[inline]
    pub fn wake_next(&mut self) -> Option<WaiterKey> {
        let key = self.first_waiting()?;
        self.settle_first(Waiting::Woken);
        Some(key)
    }

    /// The first in the list, however it stands.
    pub fn front(&self) -> Option<WaiterKey> {
        self.key_at(self.head)
    }

    /// The last in the list, however it stands.
    pub fn back(&self) -> Option<WaiterKey> {
        self.key_at(self.tail)
    }

    /// The first who still waits.
    pub fn first_waiting(&self) -> Option<WaiterKey> {
        self.key_at(self.first)
    }

    /// How a waiter stands.
    pub fn standing(&self, key: WaiterKey) -> Option<Waiting> {
        self.node(key).map(|node| node.waiting)
    }

    /// What is parked under `key`.
    pub fn get(&self, key: WaiterKey) -> Option<&T> {
        self.node(key)?.payload.as_ref()
    }

    /// How many are in the list, however they stand.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the list is empty.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many still wait.
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many are in the list without having been woken.
    pub const fn unwoken(&self) -> usize {
        self.waiting + self.cancelled
    }

    /// Whether somebody in the list is not cancelled: newcomers must queue behind.
    pub const fn has_claims(&self) -> bool {
        self.len > self.cancelled
    }

    /// All in the list, in order.
    pub fn iter(&self) -> impl Iterator<Item = (WaiterKey, Waiting, &T)> {
        let mut index = self.head;
        std::iter::from_fn(move || {
            let node = self.nodes.get(index as usize)?;
            let key = WaiterKey { index, generation: node.generation };
            index = node.next;
            Some((key, node.waiting, node.payload.as_ref()?))
        })
    }

    /// Empties the list; all keys become misses.
    #[must_use = "dropping payloads may run foreign code: choose where"]
    pub fn take_all(&mut self) -> Vec<T> {
        let mut all = Vec::with_capacity(self.len);
        while let Some(key) = self.front() {
            all.extend(self.leave(key).map(|(payload, _)| payload));
        }
        all
    }

    fn settle(&mut self, key: WaiterKey, outcome: Waiting) -> bool {
        if self.standing(key) != Some(Waiting::Yes) {
            return false;
        }
        if let Some(node) = self.nodes.get_mut(key.index as usize) {
            node.waiting = outcome;
        }
        self.waiting -= 1;
        if self.first == key.index {
            self.first = self.next_waiting(key.index);
        }
        true
    }

    /// As [`settle`](Self::settle) for the first who still waits.
    #[inline]
    fn settle_first(&mut self, outcome: Waiting) {
        let first = self.first;
        if let Some(node) = self.nodes.get_mut(first as usize) {
            node.waiting = outcome;
            self.waiting -= 1;
            self.cancelled += usize::from(outcome == Waiting::Cancelled);
            self.first = self.next_waiting(first);
        }
    }

    /// The first waiting node after `index`. Each settled node is passed once, so this is O(1) a waiter.
    fn next_waiting(&self, index: u32) -> u32 {
        let mut index = self.nodes.get(index as usize).map_or(NONE, |node| node.next);
        while let Some(node) = self.nodes.get(index as usize).filter(|node| node.waiting != Waiting::Yes) {
            index = node.next;
        }
        index
    }

    fn key_at(&self, index: u32) -> Option<WaiterKey> {
        self.nodes.get(index as usize).map(|node| WaiterKey { index, generation: node.generation })
    }

    fn node(&self, key: WaiterKey) -> Option<&Node<T>> {
        let node = self.nodes.get(key.index as usize)?;
        (node.generation == key.generation && node.payload.is_some()).then_some(node)
    }
}

/// For tests whose payloads don't know how their wait stands.
#[cfg(test)]
pub(crate) fn as_noted<T>(_: &T) -> Waiting {
    Waiting::Yes
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn woken_and_cancelled_waiters_keep_their_place_until_they_leave() {
        let mut waiters = Waiters::new();
        let [a, b, c] = ['a', 'b', 'c'].map(|name| waiters.join(name));
        assert!(waiters.cancel(a));
        assert_eq!((waiters.front(), waiters.first_waiting()), (Some(a), Some(b)));
        assert_eq!(waiters.wake_next(), Some(b));
        assert!(!waiters.wake(b) && !waiters.cancel(b));
        assert_eq!((waiters.len(), waiters.waiting(), waiters.unwoken()), (3, 1, 2));
        assert_eq!(waiters.leave(a), Some(('a', Waiting::Cancelled)));
        assert_eq!(waiters.leave(a), None);
        assert_eq!(waiters.leave(b), Some(('b', Waiting::Woken)));
        assert!(waiters.has_claims());
        assert!(waiters.cancel(c));
        assert!(!waiters.has_claims());
        assert_eq!(waiters.wake_next(), None);
        assert_eq!(waiters.take_all(), ['c']);
    }

    #[test]
    fn a_wait_that_ended_by_itself_is_noticed_once_it_is_first() {
        let mut waiters = Waiters::new();
        let keys = [Waiting::Cancelled, Waiting::Woken, Waiting::Yes, Waiting::Cancelled]
            .map(|how| waiters.join(how));
        waiters.refresh(|how| *how);
        assert_eq!(
            keys.map(|key| waiters.standing(key)),
            [Some(Waiting::Cancelled), Some(Waiting::Woken), Some(Waiting::Yes), Some(Waiting::Yes)]
        );
        assert_eq!(waiters.wake_next(), Some(keys[2]));
        waiters.refresh(|how| *how);
        assert_eq!((waiters.waiting(), waiters.unwoken()), (0, 2));
    }

    #[test]
    fn a_key_stays_stale_after_the_memory_went() {
        let mut waiters = Waiters::new();
        let keys: Vec<_> = (0..1000).map(|number| waiters.join(number)).collect();
        assert_eq!([waiters.wake_next(), waiters.wake_next()], [Some(keys[0]), Some(keys[1])]);
        assert_eq!(waiters.take_all().len(), 1000);
        assert_eq!(waiters.nodes.capacity(), 0);
        let fresh = waiters.join(7);
        assert!(keys.iter().all(|key| waiters.get(*key).is_none()));
        assert_eq!(waiters.get(fresh), Some(&7));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join,
        JoinFirst,
        Leave(prop::sample::Index),
        Wake(prop::sample::Index),
        Cancel(prop::sample::Index),
        WakeNext,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Join),
            1 => Just(Step::JoinFirst),
            2 => any::<prop::sample::Index>().prop_map(Step::Leave),
            1 => any::<prop::sample::Index>().prop_map(Step::Wake),
            1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
            2 => Just(Step::WakeNext),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_vector(steps in prop::collection::vec(step(), 0..200)) {
            let mut waiters = Waiters::new();
            let mut model: Vec<(WaiterKey, u32, Waiting)> = Vec::new();
            let mut keys = Vec::new();
            for (number, step) in (0_u32..).zip(steps) {
                let settle = |model: &mut Vec<(WaiterKey, u32, Waiting)>, key, outcome| {
                    let found = model.iter_mut().find(|entry| entry.0 == key && entry.2 == Waiting::Yes);
                    found.map(|entry| entry.2 = outcome).is_some()
                };
                match step {
                    Step::Join => {
                        let key = waiters.join(number);
                        model.push((key, number, Waiting::Yes));
                        keys.push(key);
                    }
                    Step::JoinFirst => {
                        let key = waiters.join_first(number);
                        model.insert(0, (key, number, Waiting::Yes));
                        keys.push(key);
                    }
                    Step::WakeNext => {
                        let expected = model.iter_mut().find(|entry| entry.2 == Waiting::Yes);
                        let expected = expected.map(|entry| { entry.2 = Waiting::Woken; entry.0 });
                        prop_assert_eq!(waiters.wake_next(), expected);
                    }
                    Step::Leave(which) if !keys.is_empty() => {
                        let key = *which.get(&keys);
                        let place = model.iter().position(|entry| entry.0 == key);
                        let expected = place.map(|place| model.remove(place)).map(|entry| (entry.1, entry.2));
                        prop_assert_eq!(waiters.leave(key), expected);
                    }
                    Step::Wake(which) if !keys.is_empty() => {
                        let key = *which.get(&keys);
                        prop_assert_eq!(waiters.wake(key), settle(&mut model, key, Waiting::Woken));
                    }
                    Step::Cancel(which) if !keys.is_empty() => {
                        let key = *which.get(&keys);
                        prop_assert_eq!(waiters.cancel(key), settle(&mut model, key, Waiting::Cancelled));
                    }
                    Step::Leave(_) | Step::Wake(_) | Step::Cancel(_) => {}
                }
                let now: Vec<_> = waiters.iter().map(|(key, waiting, each)| (key, *each, waiting)).collect();
                prop_assert_eq!(&now, &model);
                prop_assert_eq!(waiters.len(), model.len());
                let count = |standing| model.iter().filter(|entry| entry.2 == standing).count();
                prop_assert_eq!(waiters.waiting(), count(Waiting::Yes));
                prop_assert_eq!(waiters.has_claims(), model.len() > count(Waiting::Cancelled));
                prop_assert_eq!(waiters.front(), model.first().map(|entry| entry.0));
                prop_assert_eq!(waiters.back(), model.last().map(|entry| entry.0));
            }
        }
    }
}
