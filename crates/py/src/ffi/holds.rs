//! Parts of native objects that hold Python objects: shown to the garbage collector and emptied field by field.
//!
//! frame.rs has a macro that writes both for a list of fields.

use pyo3::prelude::*;

use super::cell::Slot;
use super::gc::{Stopped, Visit};

/// A field that holds Python objects.
pub(crate) trait Holds {
    /// Shows them to the garbage collector.
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped>;
    /// Lets go of them. Python code may run.
    fn clear(&self, py: Python<'_>);
}

impl Holds for Slot {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.traverse(visit)
    }

    #[inline]
    fn clear(&self, py: Python<'_>) {
        drop(self.take(py));
    }
}
