//! The rules of aioxide: who runs next, when, and what is still owed.
//!
//! `sys` waits, **`core` orders**, `py` runs. This crate knows no Python, no descriptor and no clock: time
//! comes in as a number of seconds, payloads are a type parameter, and every removal hands the payload back,
//! because dropping one may run somebody's code. So all of it can be tested by property, by model and in
//! virtual time.

#![forbid(unsafe_code)]

pub mod flow;
pub mod habit;
pub mod histogram;
pub mod inbox;
pub mod inflow;
mod loom;
pub mod metrics;
pub mod outbox;
pub mod packets;
pub mod phase;
pub mod race;
pub mod ready;
pub mod record;
pub mod rush;
pub mod scheduler;
pub mod sync;
mod timer_states;
pub mod timers;
pub mod tls_phase;
pub mod waiters;

pub use flow::Flow;
pub use habit::Habit;
pub use inbox::Inbox;
pub use inflow::Inflow;
pub use outbox::Outbox;
pub use packets::Packets;
pub use phase::Phase;
pub use race::Race;
pub use ready::Ready;
pub use record::Record;
pub use rush::Rush;
pub use scheduler::Scheduler;
pub use timers::{TimerKey, TimerPlace, Timers};
pub use tls_phase::TlsPhase;
pub use waiters::{WaiterKey, Waiters};
