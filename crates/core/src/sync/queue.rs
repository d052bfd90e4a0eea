//! asyncio.Queue: who may put, who may get, who is done.
//!
//! Driven by the `py` floor's queues, which own the items (a subclass may keep them in any order, or in
//! Python) and say how many there are. Whoever is woken is out of the line, asks again when it runs, and may
//! find that another was quicker: then it waits again, at the end of the line, as asyncio's do.

use crate::waiters::{WaiterKey, Waiters};

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

/// A queue's waiters and counts.
#[derive(Debug)]
pub struct Queue<T> {
    maxsize: i64,
    getters: Waiters<T>,
    putters: Waiters<T>,
    unfinished: usize,
    shut_down: bool,
}

impl<T> Queue<T> {
    /// For at most `maxsize` items; without a bound if that is not positive.
    pub const fn new(maxsize: i64) -> Self {
        Self { maxsize, getters: Waiters::new(), putters: Waiters::new(), unfinished: 0, shut_down: false }
    }

    /// Whether `items` fill it.
    pub fn is_full(&self, items: usize) -> bool {
        self.maxsize > 0 && i64::try_from(items).unwrap_or(i64::MAX) >= self.maxsize
    }

    /// Changes the bound; nobody is woken for it.
    pub const fn set_maxsize(&mut self, maxsize: i64) {
        self.maxsize = maxsize;
    }

    /// Whether it has been shut down.
    pub const fn is_shut_down(&self) -> bool {
        self.shut_down
    }

    /// Items put and not yet done.
    pub const fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Sets [`unfinished`](Self::unfinished), for those who put items by hand.
    pub const fn set_unfinished(&mut self, unfinished: usize) {
        self.unfinished = unfinished;
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

    /// An item has been put: the next getter is due.
    pub const fn on_put(&mut self) {
        self.unfinished += 1;
    }

    /// Takes the first getter out of the line. One whose wait has ended is no use: ask again.
    #[must_use = "whoever is named has to be woken"]
    pub fn next_getter(&mut self) -> Option<T> {
        next(&mut self.getters)
    }

    /// Takes the first putter out of the line, as [`next_getter`](Self::next_getter) does.
    #[must_use = "whoever is named has to be woken"]
    pub fn next_putter(&mut self) -> Option<T> {
        next(&mut self.putters)
    }

    /// Waits for an item.
    pub fn wait_to_get(&mut self, payload: T) -> WaiterKey {
        self.getters.join(payload)
    }

    /// Waits for room.
    pub fn wait_to_put(&mut self, payload: T) -> WaiterKey {
        self.putters.join(payload)
    }

    /// The getter runs without having been woken: it leaves the line.
    #[must_use = "dropping a payload may run foreign code: choose where"]
    pub fn leave_get(&mut self, key: WaiterKey) -> Option<T> {
        self.getters.leave(key).map(|(payload, _)| payload)
    }

    /// The putter runs without having been woken: it leaves the line.
    #[must_use = "dropping a payload may run foreign code: choose where"]
    pub fn leave_put(&mut self, key: WaiterKey) -> Option<T> {
        self.putters.leave(key).map(|(payload, _)| payload)
    }

    /// One item is done. True: that was the last; wake the joiners.
    pub const fn task_done(&mut self) -> Result<bool, TooManyDone> {
        match self.unfinished.checked_sub(1) {
            None => Err(TooManyDone),
            Some(left) => {
                self.unfinished = left;
                Ok(left == 0)
            }
        }
    }

    /// Whether `join` need not wait.
    pub const fn is_finished(&self) -> bool {
        self.unfinished == 0
    }

    /// No item will be put any more. Wake all getters and putters.
    pub const fn shut_down(&mut self) {
        self.shut_down = true;
    }

    /// Who waits for an item.
    pub const fn getters(&self) -> &Waiters<T> {
        &self.getters
    }

    /// Who waits for room.
    pub const fn putters(&self) -> &Waiters<T> {
        &self.putters
    }

    /// As [`getters`](Self::getters), for those who add or remove some by hand.
    pub const fn getters_mut(&mut self) -> &mut Waiters<T> {
        &mut self.getters
    }

    /// As [`putters`](Self::putters), for those who add or remove some by hand.
    pub const fn putters_mut(&mut self) -> &mut Waiters<T> {
        &mut self.putters
    }

    /// Lets everybody go (the queue object dies).
    #[must_use = "dropping payloads may run foreign code: choose where"]
    pub fn take_all(&mut self) -> Vec<T> {
        let mut all = self.getters.take_all();
        all.append(&mut self.putters.take_all());
        all
    }
}

fn next<T>(line: &mut Waiters<T>) -> Option<T> {
    let first = line.front()?;
    line.leave(first).map(|(payload, _)| payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_for_one_getter_and_a_gap_for_one_putter() {
        let mut queue = Queue::new(1);
        let getter = queue.wait_to_get('g');
        assert_eq!((queue.may_put(0), queue.may_get(0)), (Turn::Now, Turn::NotNow));
        queue.on_put();
        assert_eq!((queue.next_getter(), queue.next_getter()), (Some('g'), None));
        assert_eq!(queue.leave_get(getter), None, "woken: out of the line already");
        assert_eq!((queue.may_put(1), queue.may_get(1)), (Turn::NotNow, Turn::Now));
        let [first, second] = ['p', 'q'].map(|name| queue.wait_to_put(name));
        assert_eq!(queue.leave_put(first), Some('p'));
        assert_eq!(queue.next_putter(), Some('q'));
        assert_eq!(queue.leave_put(second), None);
    }

    #[test]
    fn joiners_wait_for_the_last_task() {
        let mut queue = Queue::<char>::new(0);
        assert!(queue.is_finished());
        assert_eq!(queue.task_done(), Err(TooManyDone));
        queue.on_put();
        queue.on_put();
        assert!(!queue.is_finished());
        assert_eq!((queue.task_done(), queue.task_done()), (Ok(false), Ok(true)));
    }

    #[test]
    fn a_shutdown_refuses_items_and_gives_out_what_is_left() {
        let mut queue = Queue::new(1);
        queue.on_put();
        let _ = queue.wait_to_put('p');
        let _ = queue.wait_to_get('g');
        queue.shut_down();
        let turns = (queue.may_put(0), queue.may_get(1), queue.may_get(0));
        assert_eq!(turns, (Turn::ShutDown, Turn::Now, Turn::ShutDown));
        assert_eq!(queue.take_all(), ['g', 'p']);
    }
}
