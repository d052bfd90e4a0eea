//! The tasks of a TaskGroup: known by their addresses, kept in the order in which they came.
//!
//! A group of ten thousand tasks adds and removes each once, and needs the order only if it is aborted: so here is a
//! hash table of addresses, cheaper than a dict of objects, and the order is a number in each entry.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use pyo3::prelude::*;

use crate::ffi::cell::GilCell;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;

/// Hashes addresses so that neighbours in memory are neighbours in the table: tasks made one after the other mostly end
/// so too, and the table is too large for the caches to be looked up at random.
#[derive(Default)]
struct Near(u64);

impl Hasher for Near {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    #[inline]
    fn write_usize(&mut self, address: usize) {
        // A table takes the place from the low bits (no task is smaller than 128 bytes) and from the highest seven a
        // mark to compare first.
        const MARK: u64 = 0x7f << 57;
        let address = address as u64;
        self.0 = (address >> 7) & !MARK | address.wrapping_mul(0x9e37_79b9_7f4a_7c15) & MARK;
    }
}

#[derive(Default)]
struct Table {
    tasks: HashMap<usize, (usize, Py<PyAny>), BuildHasherDefault<Near>>,
    /// How many there have been.
    came: usize,
}

/// The tasks that are not done.
pub(crate) struct Members(GilCell<Option<Table>>);

impl Members {
    pub(crate) const fn new() -> Self {
        Self(GilCell::new(None))
    }

    /// Adds a task, which is not in yet.
    #[inline]
    pub(crate) fn add(&self, task: &Bound<'_, PyAny>) {
        let (address, object) = (task.as_ptr().addr(), task.clone().unbind());
        let before = self.0.with(task.py(), |table| {
            let table = table.get_or_insert_default();
            table.came += 1;
            table.tasks.insert(address, (table.came, object))
        });
        drop(before.map(|(_, task)| task));
    }

    /// Takes a task out; whether it was in, and was the last.
    #[inline]
    pub(crate) fn remove(&self, task: &Bound<'_, PyAny>) -> bool {
        let py = task.py();
        let (left, last) = self.0.with(py, |table| {
            let Some(table) = table else { return (None, false) };
            let left = table.tasks.remove(&task.as_ptr().addr());
            (left, table.tasks.is_empty())
        });
        // The caller has a reference too: nothing goes away here.
        drop(left.map(|(_, task)| task.into_bound(py)));
        last
    }

    pub(crate) fn len(&self, py: Python<'_>) -> usize {
        self.0.with(py, |table| table.as_ref().map_or(0, |table| table.tasks.len()))
    }

    /// All of them, in order.
    pub(crate) fn list<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        let mut all: Vec<(usize, Py<PyAny>)> = self.0.with(py, |table| {
            let tasks = table.iter().flat_map(|table| table.tasks.values());
            tasks.map(|(came, task)| (*came, task.clone_ref(py))).collect()
        });
        all.sort_unstable_by_key(|(came, _)| *came);
        all.into_iter().map(|(_, task)| task.into_bound(py)).collect()
    }
}

impl Holds for Members {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        let all = |table: &Option<Table>| {
            let mut tasks = table.iter().flat_map(|table| table.tasks.values());
            tasks.try_for_each(|(_, task)| visit.call(Some(task)))
        };
        self.0.visit(all).unwrap_or(Ok(()))
    }

    fn clear(&self, py: Python<'_>) {
        let table = self.0.with(py, Option::take);
        for (_, task) in table.into_iter().flat_map(|table| table.tasks.into_values()) {
            drop(task.into_bound(py));
        }
    }
}
