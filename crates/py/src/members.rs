//! The tasks of a TaskGroup: known by their addresses, kept in the order in which they came.
//!
//! A group of ten thousand tasks adds and removes each once, and needs the order only if it is aborted: so here is a
//! hash table of addresses, cheaper than a dict of objects, and the order is a number in each entry.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PySet};

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

enum Kept {
    Table(Table),
    /// A set that Python code has asked for, or has put here: from then on it is what counts.
    Shown(Py<PyAny>),
}

impl Default for Kept {
    fn default() -> Self {
        Self::Table(Table::default())
    }
}

impl Kept {
    fn table(&self) -> Option<&Table> {
        if let Self::Table(table) = self { Some(table) } else { None }
    }
}

/// The tasks that are not done.
pub(crate) struct Members(GilCell<Kept>);

impl Members {
    pub(crate) fn new() -> Self {
        Self(GilCell::new(Kept::default()))
    }

    /// Adds a task, which is not in yet.
    #[inline]
    pub(crate) fn add(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, address) = (task.py(), task.as_ptr().addr());
        if let Some(set) = self.shown(py) {
            return set.call_method1(intern!(py, "add"), (task,)).map(drop);
        }
        let object = task.clone().unbind();
        let before = self.0.with(py, |kept| match kept {
            Kept::Table(table) => {
                table.came += 1;
                table.tasks.insert(address, (table.came, object)).map(|(_, before)| before)
            }
            Kept::Shown(_) => Some(object),
        });
        drop(before.map(|before| before.into_bound(py)));
        Ok(())
    }

    /// Takes a task out, if it is in; whether none is left.
    #[inline]
    pub(crate) fn remove(&self, task: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = task.py();
        let (left, shown) = self.0.with(py, |kept| match kept {
            Kept::Table(table) => (table.tasks.remove(&task.as_ptr().addr()), None),
            Kept::Shown(set) => (None, Some(set.clone_ref(py))),
        });
        // The caller has a reference too: nothing goes away here.
        drop(left.map(|(_, task)| task.into_bound(py)));
        if let Some(set) = shown {
            set.bind(py).call_method1(intern!(py, "discard"), (task,))?;
        }
        Ok(!self.has_any(py)?)
    }

    #[inline]
    pub(crate) fn has_any(&self, py: Python<'_>) -> PyResult<bool> {
        match self.shown(py) {
            None => Ok(self.0.with(py, |kept| kept.table().is_some_and(|table| !table.tasks.is_empty()))),
            Some(set) => set.is_truthy(),
        }
    }

    pub(crate) fn len(&self, py: Python<'_>) -> PyResult<usize> {
        match self.shown(py) {
            None => Ok(self.0.with(py, |kept| kept.table().map_or(0, |table| table.tasks.len()))),
            Some(set) => set.len(),
        }
    }

    /// All of them, in the order in which they came.
    pub(crate) fn list<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        if let Some(set) = self.shown(py) {
            return py.get_type::<PyList>().call1((set,))?.try_iter()?.collect();
        }
        let mut all: Vec<(usize, Py<PyAny>)> = self.0.with(py, |kept| {
            let tasks = kept.table().into_iter().flat_map(|table| table.tasks.values());
            tasks.map(|(came, task)| (*came, task.clone_ref(py))).collect()
        });
        all.sort_unstable_by_key(|(came, _)| *came);
        Ok(all.into_iter().map(|(_, task)| task.into_bound(py)).collect())
    }

    /// A set of them for Python code, whose changes count.
    pub(crate) fn show<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(set) = self.shown(py) {
            return Ok(set);
        }
        let set = PySet::new(py, self.list(py)?)?.into_any();
        self.replace(&set);
        Ok(set)
    }

    /// Takes what Python code has put in the place of the set.
    pub(crate) fn replace(&self, set: &Bound<'_, PyAny>) {
        let shown = Kept::Shown(set.clone().unbind());
        drop_all(set.py(), self.0.with(set.py(), |kept| std::mem::replace(kept, shown)));
    }

    #[inline]
    fn shown<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let set = |kept: &mut Kept| if let Kept::Shown(set) = kept { Some(set.clone_ref(py)) } else { None };
        self.0.with(py, set).map(|set| set.into_bound(py))
    }
}

/// Lets go of the tasks where Python code may run.
fn drop_all(py: Python<'_>, kept: Kept) {
    match kept {
        Kept::Table(table) => table.tasks.into_values().for_each(|(_, task)| drop(task.into_bound(py))),
        Kept::Shown(set) => drop(set.into_bound(py)),
    }
}

impl Holds for Members {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        let all = |kept: &Kept| match kept {
            Kept::Table(table) => table.tasks.values().try_for_each(|(_, task)| visit.call(Some(task))),
            Kept::Shown(set) => visit.call(Some(set)),
        };
        self.0.visit(all).unwrap_or(Ok(()))
    }

    fn clear(&self, py: Python<'_>) {
        drop_all(py, self.0.with(py, std::mem::take));
    }
}
