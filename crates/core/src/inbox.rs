//! The door for other threads: many push, one loop takes, and nobody's push is slept through.
//!
//! The loop announces its sleep before it blocks in the poller; the first push after that announcement is
//! told to wake it, later ones are not, so a flood of pushes costs one wake-up. Used through an `Arc` by
//! `call_soon_threadsafe`, executors, the resolver and signals. Never blocks for longer than a queue
//! operation, and never drops a payload.
//!
//! State, one byte, so that the loop's "anything there?" is a single load:
//!
//! | bit | set by | cleared by |
//! |---|---|---|
//! | `ITEMS` | `push`, under the lock | the taker, under the lock |
//! | `WOKEN` | `wake` | `awake`, and a refused `sleep` |
//! | `ASLEEP` | `sleep`, only from zero | `awake`, and whoever wakes the loop |

use std::collections::VecDeque;

use crate::loom::{AtomicU8, Mutex, MutexGuard, Ordering, PoisonError};
use crate::ready::Ready;

const ITEMS: u8 = 1;
const WOKEN: u8 = 2;
const ASLEEP: u8 = 4;

/// A queue from many threads to one loop that knows when the loop must be woken.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: Mutex<VecDeque<T>>,
    state: AtomicU8,
}

impl<T> Inbox<T> {
    /// An empty inbox of a loop that is awake.
    pub fn new() -> Self {
        Self { queue: Mutex::new(VecDeque::new()), state: AtomicU8::new(0) }
    }

    /// Adds a payload. True exactly when the loop sleeps and nobody has woken it since: then wake it.
    #[must_use = "true means that the caller must wake the loop"]
    pub fn push(&self, item: T) -> bool {
        let mut queue = self.lock();
        queue.push_back(item);
        self.raise(ITEMS)
    }

    /// Wakes without a payload. True exactly when the caller must wake the loop, as for [`push`](Self::push).
    #[must_use = "true means that the caller must wake the loop"]
    pub fn wake(&self) -> bool {
        self.raise(WOKEN)
    }

    /// Whether no payload waits: one load.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.state.load(Ordering::Acquire) & ITEMS == 0
    }

    /// Moves every payload behind what waits in `ready`.
    pub fn take_into(&self, ready: &mut Ready<T>) {
        if !self.is_empty() {
            let mut queue = self.lock();
            ready.append(&mut queue);
            self.state.fetch_and(!ITEMS, Ordering::AcqRel);
        }
    }

    /// Takes every payload.
    #[must_use = "dropping payloads may run foreign code: choose where"]
    pub fn take(&self) -> VecDeque<T> {
        let mut taken = Ready::new();
        self.take_into(&mut taken);
        taken.take_all()
    }

    /// Announces that the loop is about to block. False: something came meanwhile, so do not block.
    #[must_use = "false means that the loop must not block"]
    pub fn sleep(&self) -> bool {
        let asleep = self.state.compare_exchange(0, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !asleep {
            self.awake();
        }
        asleep
    }

    /// Says that the loop is awake again: from here on pushes need not wake it.
    pub fn awake(&self) {
        self.state.fetch_and(ITEMS, Ordering::AcqRel);
    }

    /// Sets a reason not to sleep and ends the sleep; whether there was one to end.
    fn raise(&self, reason: u8) -> bool {
        let mut seen = self.state.load(Ordering::Relaxed);
        loop {
            let raised = (seen & !ASLEEP) | reason;
            match self.state.compare_exchange_weak(seen, raised, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(before) => return before & ASLEEP != 0,
                Err(now) => seen = now,
            }
        }
    }

    /// Nothing can panic while the lock is held, so a poisoned lock still guards a whole queue.
    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_push_into_a_sleeping_loop_wakes() {
        let inbox = Inbox::new();
        assert!(!inbox.push(1));
        assert!(!inbox.sleep(), "an item is there: no sleep");
        assert_eq!(inbox.take(), [1]);
        assert!(inbox.is_empty());
        assert!(inbox.sleep());
        assert!(inbox.push(2));
        assert!(!inbox.push(3));
        assert!(!inbox.wake());
        inbox.awake();
        assert!(!inbox.push(4));
        let mut ready = Ready::new();
        ready.push(0);
        inbox.take_into(&mut ready);
        assert_eq!(ready.take_all(), [0, 2, 3, 4]);
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_wake_without_an_item_is_not_lost() {
        let inbox = Inbox::<()>::new();
        assert!(!inbox.wake());
        assert!(!inbox.sleep(), "the wake came first");
        assert!(inbox.sleep(), "and counts once");
        assert!(inbox.wake());
        assert!(!inbox.wake());
        inbox.awake();
        assert!(inbox.is_empty());
        assert!(inbox.sleep());
    }
}

/// Run with `RUSTFLAGS="--cfg loom" cargo test -p aioxide-core --release inbox`.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::Notify;
    use loom::thread;

    /// Every interleaving with at most so many forced switches between threads.
    fn check(preemptions: usize, scene: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(scene);
    }

    /// Threads push one item each; the loop sleeps whenever it may. If a wake-up could be lost, loom would
    /// find the interleaving in which the loop waits for ever.
    fn push_into_a_loop_that_sleeps(pushers: usize) {
        let inbox = Arc::new(Inbox::new());
        let bell = Arc::new(Notify::new());
        let threads: Vec<_> = (0..pushers)
            .map(|number| {
                let (inbox, bell) = (Arc::clone(&inbox), Arc::clone(&bell));
                thread::spawn(move || {
                    if inbox.push(number) {
                        bell.notify();
                    }
                })
            })
            .collect();
        let mut seen = 0;
        while seen < pushers {
            if inbox.sleep() {
                bell.wait();
                inbox.awake();
            }
            seen += inbox.take().len();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(inbox.is_empty());
    }

    #[test]
    fn no_push_is_slept_through() {
        check(6, || push_into_a_loop_that_sleeps(1));
    }

    #[test]
    fn no_push_of_two_threads_is_slept_through() {
        check(3, || push_into_a_loop_that_sleeps(2));
    }

    #[test]
    fn no_wake_is_slept_through() {
        check(6, || {
            let inbox = Arc::new(Inbox::<()>::new());
            let bell = Arc::new(Notify::new());
            let waker = {
                let (inbox, bell) = (Arc::clone(&inbox), Arc::clone(&bell));
                thread::spawn(move || {
                    if inbox.wake() {
                        bell.notify();
                    }
                })
            };
            if inbox.sleep() {
                bell.wait();
                inbox.awake();
            }
            waker.join().unwrap();
        });
    }

    /// However a wake and a push meet: taking the item leaves the wake in force.
    #[test]
    fn a_push_does_not_swallow_a_wake() {
        check(4, || {
            let inbox = Arc::new(Inbox::new());
            let waker = {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || assert!(!inbox.wake(), "the loop is awake"))
            };
            let pusher = {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || assert!(!inbox.push(()), "the loop is awake"))
            };
            let mut seen = inbox.take().len();
            waker.join().unwrap();
            pusher.join().unwrap();
            seen += inbox.take().len();
            assert_eq!(seen, 1);
            assert!(!inbox.sleep(), "the wake was forgotten");
            assert!(inbox.sleep(), "the wake counted twice");
        });
    }
}
