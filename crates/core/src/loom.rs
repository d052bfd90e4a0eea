//! The synchronisation types of this crate: std's, or loom's when a model test explores every interleaving.
//!
//! Used by `inbox` alone. Nothing else in the crate is shared between threads.

#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU8, atomic::Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::AtomicU8, atomic::Ordering};
#[cfg(loom)]
pub(crate) use std::sync::PoisonError;
