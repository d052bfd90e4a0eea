//! Who is woken next: the decisions of asyncio's locks and queues as plain state machines.
//!
//! The `py` floor owns futures, tasks and exceptions and drives these: it asks (`try_…`), parks a payload
//! (`wait`), and when the parked one runs again it says whether it was let in (`admit`) or is leaving for
//! another reason (`give_up`). Whoever is named in an answer ([`WaiterKey`]) has been noted as woken and must
//! be woken by the caller, in the order given. Each module makes CPython 3.14's decisions, in its order.
//!
//! A cancelled task cancels what is parked and says nothing here. So every decision takes a function
//! `standing` that tells from a payload how its wait stands: a cancelled waiter's place in the line is void
//! from then on, and it calls `give_up(key)` once it runs.

mod barrier;
mod condition;
mod event;
mod holders;
mod lock;
mod queue;
mod semaphore;

pub use barrier::{Barrier, BarrierState, Entry, Outcome};
pub use condition::Condition;
pub use event::Event;
pub use holders::Holders;
pub use lock::{Lock, NotAcquired};
pub use queue::{Queue, TooManyDone, Turn};
pub use semaphore::Semaphore;

pub use crate::waiters::{WaiterKey, Waiters, Waiting};

/// What all rules with one line of waiters have in common.
pub trait Rules<T> {
    /// Who waits.
    fn waiters(&self) -> &Waiters<T>;

    /// As [`waiters`](Self::waiters), for those who add or remove some by hand.
    fn waiters_mut(&mut self) -> &mut Waiters<T>;

    /// Gets in line.
    fn wait(&mut self, payload: T) -> WaiterKey {
        self.waiters_mut().join(payload)
    }
}

macro_rules! rules {
    ($($name:ident),*) => {$(
        impl<T> Rules<T> for $name<T> {
            fn waiters(&self) -> &Waiters<T> {
                &self.waiters
            }

            fn waiters_mut(&mut self) -> &mut Waiters<T> {
                &mut self.waiters
            }
        }
    )*};
}

rules!(Condition, Event, Lock, Semaphore);
