//! asyncio.Queue: who may put, who may get, who is done.
//!
//! Driven by the `py` floor's queues, which own the items (a subclass may keep them in any order, or in
//! Python) and say how many there are. Woken getters and putters ask again when they run, and may find that
//! another was quicker: then they wait again, at the end of the line, as asyncio's do.

use crate::sync::Event;
use crate::waiters::{WaiterKey, Waiters, Waiting};

/// Whether an operation may go on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Yes.
    Now,
    /// Not while the queue is so full, or so empty: `QueueFull`, `QueueEmpty`, or wait.
    NotNow,
    /// Never again.
    ShutDown,
}

/// `task_done` was called more often than something was put.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TooManyDone;

/// Everybody who is to be woken by a shutdown, in this order.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "whoever is named has to be woken"]
pub struct WokenByShutdown {
    /// In [`Queue::joiners`].
    pub joiners: Vec<WaiterKey>,
    /// In [`Queue::getters`].
    pub getters: Vec<WaiterKey>,
    /// In [`Queue::putters`].
    pub putters: Vec<WaiterKey>,
}

/// A queue's waiters and counts.
#[derive(Debug)]
pub struct Queue<T> {
    maxsize: i64,
    getters: Waiters<T>,
    putters: Waiters<T>,
    unfinished: usize,
    finished: Event<T>,
    shut_down: bool,
}

impl<T> Queue<T> {
    /// For at most `maxsize` items; without a bound if that is not positive.
    pub const fn new(maxsize: i64) -> Self {
        Self {
            maxsize,
            getters: Waiters::new(),
            putters: Waiters::new(),
            unfinished: 0,
            finished: Event::new(true),
            shut_down: false,
        }
    }

    /// The bound as it was given.
    pub const fn maxsize(&self) -> i64 {
        self.maxsize
    }

    /// Whether `items` fill it.
    pub fn is_full(&self, items: usize) -> bool {
        self.maxsize > 0 && i64::try_from(items).unwrap_or(i64::MAX) >= self.maxsize
    }

    /// Whether it has been shut down.
    pub const fn is_shut_down(&self) -> bool {
        self.shut_down
    }

    /// Items put and not yet done.
    pub const fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Whether an item may be put now.
    pub fn may_put(&self, items: usize) -> Turn {
        if self.shut_down {
            Turn::ShutDown
        } else if self.is_full(items) {
            Turn::NotNow
        } else {
            Turn::Now
        }
    }

    /// Whether an item may be got now.
    pub const fn may_get(&self, items: usize) -> Turn {
        if items > 0 {
            Turn::Now
        } else if self.shut_down {
            Turn::ShutDown
        } else {
            Turn::NotNow
        }
    }

    /// An item has been put; the getter to be woken.
    #[must_use = "whoever is named has to be woken"]
    pub fn on_put(&mut self) -> Option<WaiterKey> {
        self.unfinished += 1;
        self.finished.clear();
        self.getters.wake_next()
    }

    /// An item has been got; the putter to be woken.
    #[must_use = "whoever is named has to be woken"]
    pub fn on_get(&mut self) -> Option<WaiterKey> {
        self.putters.wake_next()
    }

    /// Waits for an item.
    pub fn wait_to_get(&mut self, payload: T) -> WaiterKey {
        self.getters.join(payload)
    }

    /// Waits for room.
    pub fn wait_to_put(&mut self, payload: T) -> WaiterKey {
        self.putters.join(payload)
    }

    /// The wait of this getter has been cancelled (it has not run yet).
    pub fn cancel_get(&mut self, key: WaiterKey) -> bool {
        self.getters.cancel(key)
    }

    /// The wait of this putter has been cancelled (it has not run yet).
    pub fn cancel_put(&mut self, key: WaiterKey) -> bool {
        self.putters.cancel(key)
    }

    /// The woken getter runs: it asks [`may_get`](Self::may_get) next.
    #[must_use = "dropping a payload may run foreign code: choose where"]
    pub fn leave_get(&mut self, key: WaiterKey) -> Option<T> {
        self.getters.leave(key).map(|(payload, _)| payload)
    }

    /// The woken putter runs: it asks [`may_put`](Self::may_put) next.
    #[must_use = "dropping a payload may run foreign code: choose where"]
    pub fn leave_put(&mut self, key: WaiterKey) -> Option<T> {
        self.putters.leave(key).map(|(payload, _)| payload)
    }

    /// The getter runs with an exception. If it had been woken for an item, the next in line gets the chance.
    #[must_use = "whoever is named has to be woken"]
    pub fn give_up_get(&mut self, key: WaiterKey, items: usize) -> (Option<T>, Option<WaiterKey>) {
        give_up(&mut self.getters, key, items > 0)
    }

    /// The putter runs with an exception. If it had been woken for room, the next in line gets the chance.
    #[must_use = "whoever is named has to be woken"]
    pub fn give_up_put(&mut self, key: WaiterKey, items: usize) -> (Option<T>, Option<WaiterKey>) {
        let room = !self.is_full(items);
        give_up(&mut self.putters, key, room)
    }

    /// One item is done; the joiners to be woken.
    pub fn task_done(&mut self) -> Result<Vec<WaiterKey>, TooManyDone> {
        self.unfinished = self.unfinished.checked_sub(1).ok_or(TooManyDone)?;
        Ok(if self.unfinished == 0 { self.finished.set() } else { Vec::new() })
    }

    /// Whether `join` need not wait.
    pub const fn is_finished(&self) -> bool {
        self.unfinished == 0
    }

    /// Waits until everything is done.
    pub fn wait_to_join(&mut self, payload: T) -> WaiterKey {
        self.finished.wait(payload)
    }

    /// The wait of this joiner has been cancelled (it has not run yet).
    pub fn cancel_join(&mut self, key: WaiterKey) -> bool {
        self.finished.cancel(key)
    }

    /// The joiner runs, woken or with an exception.
    #[must_use = "dropping a payload may run foreign code: choose where"]
    pub fn leave_join(&mut self, key: WaiterKey) -> Option<T> {
        self.finished.leave(key)
    }

    /// Shuts down. `drained`: how many items an immediate shutdown has thrown away (`None`: it is not
    /// immediate).
    pub fn shut_down(&mut self, drained: Option<usize>) -> WokenByShutdown {
        self.shut_down = true;
        let mut joiners = Vec::new();
        if let Some(drained) = drained {
            self.unfinished = self.unfinished.saturating_sub(drained);
            if self.unfinished == 0 {
                joiners = self.finished.set();
            }
        }
        WokenByShutdown {
            joiners,
            getters: self.getters.wake_many(usize::MAX),
            putters: self.putters.wake_many(usize::MAX),
        }
    }

    /// Who waits for an item. Those in line for `repr` are [`Waiters::unwoken`].
    pub const fn getters(&self) -> &Waiters<T> {
        &self.getters
    }

    /// Who waits for room.
    pub const fn putters(&self) -> &Waiters<T> {
        &self.putters
    }

    /// Who waits for everything to be done.
    pub const fn joiners(&self) -> &Waiters<T> {
        self.finished.waiters()
    }

    /// Lets everybody go (the queue object dies).
    #[must_use = "dropping payloads may run foreign code: choose where"]
    pub fn take_all(&mut self) -> Vec<T> {
        let mut all = self.getters.take_all();
        all.append(&mut self.putters.take_all());
        all.append(&mut self.finished.take_all());
        all
    }
}

fn give_up<T>(line: &mut Waiters<T>, key: WaiterKey, chance: bool) -> (Option<T>, Option<WaiterKey>) {
    match line.leave(key) {
        Some((payload, Waiting::Woken)) if chance => (Some(payload), line.wake_next()),
        left => (left.map(|(payload, _)| payload), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_wakes_one_getter_and_a_gap_one_putter() {
        let mut queue = Queue::new(1);
        let getter = queue.wait_to_get('g');
        assert_eq!((queue.may_put(0), queue.may_get(0)), (Turn::Now, Turn::NotNow));
        assert_eq!(queue.on_put(), Some(getter));
        assert_eq!((queue.may_put(1), queue.may_get(1)), (Turn::NotNow, Turn::Now));
        let putter = queue.wait_to_put('p');
        assert_eq!(queue.leave_get(getter), Some('g'));
        assert_eq!(queue.on_get(), Some(putter));
        assert_eq!(queue.leave_put(putter), Some('p'));
        assert_eq!(queue.on_put(), None);
    }

    #[test]
    fn a_getter_cancelled_after_its_wake_up_passes_the_item_on() {
        let mut queue = Queue::new(0);
        let [first, second, third] = ['a', 'b', 'c'].map(|name| queue.wait_to_get(name));
        assert_eq!(queue.on_put(), Some(first));
        assert!(!queue.cancel_get(first));
        assert_eq!(queue.give_up_get(first, 1), (Some('a'), Some(second)));
        assert_eq!(queue.give_up_get(second, 0), (Some('b'), None), "somebody else took the item");
        assert!(queue.cancel_get(third));
        assert_eq!(queue.give_up_get(third, 1), (Some('c'), None), "it had not been woken");
    }

    #[test]
    fn joiners_wait_for_the_last_task() {
        let mut queue = Queue::<char>::new(0);
        assert!(queue.is_finished());
        assert_eq!(queue.task_done(), Err(TooManyDone));
        assert_eq!((queue.on_put(), queue.on_put()), (None, None));
        let joiner = queue.wait_to_join('j');
        assert_eq!(queue.task_done(), Ok(vec![]));
        assert_eq!(queue.task_done(), Ok(vec![joiner]));
        assert_eq!(queue.leave_join(joiner), Some('j'));
    }

    #[test]
    fn a_shutdown_wakes_everybody_in_order() {
        let mut queue = Queue::new(1);
        assert_eq!(queue.on_put(), None);
        let (getter, putter, joiner) =
            (queue.wait_to_get('g'), queue.wait_to_put('p'), queue.wait_to_join('j'));
        let gentle = WokenByShutdown { joiners: vec![], getters: vec![getter], putters: vec![putter] };
        assert_eq!(queue.shut_down(None), gentle);
        assert_eq!(
            (queue.may_put(0), queue.may_get(1), queue.may_get(0)),
            (Turn::ShutDown, Turn::Now, Turn::ShutDown)
        );
        let immediate = WokenByShutdown { joiners: vec![joiner], getters: vec![], putters: vec![] };
        assert_eq!(queue.shut_down(Some(1)), immediate);
        assert_eq!(queue.take_all(), ['g', 'p', 'j']);
    }
}
