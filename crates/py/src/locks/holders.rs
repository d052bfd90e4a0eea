//! Who holds a lock or a permit: the tasks that took it, known again without being kept alive.
//!
//! A lock that kept its owner alive would make a cycle of the two that asyncio's has not. So a task of ours is known by
//! its place in memory and the serial number it has there, and any other by a weak reference. The name is kept as well,
//! for the report about a lock whose owner has ended without letting go.

use aioxide_core::sync;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList, PyString, PyWeakrefMethods, PyWeakrefReference};

use super::lock::Lock;
use super::semaphore::Semaphore;
use crate::anyfuture;
use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::Inst;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::layout::Tsk;
use crate::ffi::thread;
use crate::names::{asyncio, none};

/// What tells a task of ours from all others: address and serial number.
pub(crate) type Identity = (usize, u32);

/// One task.
enum Holder {
    Ours { identity: Identity, name: Option<Py<PyAny>> },
    Other(Py<PyAny>),
}

impl Holder {
    #[inline]
    fn of(task: &Bound<'_, PyAny>) -> Option<Self> {
        if let Some(identity) = identity(task) {
            let name = Tsk::cast_any(task).and_then(Tsk::name).map(Bound::unbind);
            return Some(Self::Ours { identity, name });
        }
        PyWeakrefReference::new(task).ok().map(|weak| Self::Other(weak.into_any().unbind()))
    }

    #[inline]
    fn is(&self, py: Python<'_>, task: &Bound<'_, PyAny>) -> bool {
        match self {
            Self::Ours { identity: known, .. } => identity(task).as_ref() == Some(known),
            Self::Other(weak) => weak
                .bind(py)
                .cast::<PyWeakrefReference>()
                .is_ok_and(|weak| weak.upgrade().is_some_and(|known| known.is(task))),
        }
    }

    #[inline]
    fn forget(self, py: Python<'_>) {
        match self {
            Self::Ours { name, .. } => drop(name.map(|name| name.into_bound(py))),
            Self::Other(weak) => drop(weak.into_bound(py)),
        }
    }

    fn identity(&self) -> Option<Identity> {
        match self {
            Self::Ours { identity, .. } => Some(*identity),
            Self::Other(_) => None,
        }
    }

    fn object(&self) -> Option<&Py<PyAny>> {
        match self {
            Self::Ours { name, .. } => name.as_ref(),
            Self::Other(weak) => Some(weak),
        }
    }
}

/// What tells a task of ours from all others, now and later.
#[inline]
pub(crate) fn identity(task: &Bound<'_, PyAny>) -> Option<Identity> {
    let known = Tsk::cast_any(task)?;
    (known.serial() != 0).then(|| (task.as_ptr().addr(), known.serial()))
}

/// Somebody who holds a lock or a permit, as a report needs it.
#[derive(Debug)]
pub(crate) enum Claim<'py> {
    /// A task that isn't done.
    Task(Bound<'py, PyAny>),
    /// A task that has ended, by the name it had.
    Ended(Option<Bound<'py, PyAny>>),
    /// Code outside of any task, or more tasks than are on record.
    Unknown,
}

/// Finds a live task by its identity.
type Find<'f, 'py> = &'f dyn Fn(&Identity) -> Option<Bound<'py, PyAny>>;

/// What is known of a holder, as a claim; `object` is the name or the weak reference.
fn claim<'py>(
    identity: Option<Identity>,
    object: Option<Bound<'py, PyAny>>,
    find: Find<'_, 'py>,
) -> Claim<'py> {
    if let Some(identity) = identity {
        return find(&identity).map_or_else(|| Claim::Ended(object.map(spelt)), Claim::Task);
    }
    match object.and_then(|weak| weak.cast::<PyWeakrefReference>().ok()?.upgrade()) {
        Some(task) if !anyfuture::is_done(&task).unwrap_or(false) => Claim::Task(task),
        _ => Claim::Ended(None),
    }
}

/// The record of a lock: who took it last, which is who holds it while it is held.
pub(super) struct Owner {
    /// None: code outside of any task, or a task that isn't ours, which `object` refers to.
    identity: Flag<Option<Identity>>,
    /// The name, or the weak reference.
    object: Slot,
}

impl Owner {
    pub(super) const fn new() -> Self {
        Self { identity: Flag::new(None), object: Slot::empty() }
    }

    /// The current task has got it.
    #[inline]
    pub(super) fn took(&self, py: Python<'_>) {
        let task = thread::acting(py);
        if let Some(known) = task.as_ref().and_then(Tsk::cast_any).filter(|task| task.serial() != 0) {
            let identity = Some((known.object().as_ptr().addr(), known.serial()));
            if self.identity.replace(identity) != identity {
                drop(self.object.replace(py, known.name()));
            }
            return;
        }
        self.took_by_other(py, task);
    }

    fn took_by_other(&self, py: Python<'_>, task: Option<Bound<'_, PyAny>>) {
        self.identity.set(None);
        let weak = task.and_then(|task| PyWeakrefReference::new(&task).ok());
        drop(self.object.replace(py, weak.map(Bound::into_any)));
    }

    /// Nobody knows who holds it.
    pub(super) fn forget(&self, py: Python<'_>) {
        self.took_by_other(py, None);
    }

    /// The holder of a lock that is held.
    fn claim<'py>(&self, py: Python<'py>, find: Find<'_, 'py>) -> Claim<'py> {
        match (self.identity.get(), self.object.get(py)) {
            (None, None) => Claim::Unknown,
            (identity, object) => claim(identity, object, find),
        }
    }
}

impl Holds for Owner {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.object.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop(self.object.take(py));
    }
}

/// The record of a semaphore.
pub(super) struct Held(GilCell<sync::Holders<Holder>>);

impl Held {
    pub(super) const fn new() -> Self {
        Self(GilCell::new(sync::Holders::new()))
    }

    /// The current task has got a permit.
    #[inline]
    pub(super) fn took(&self, py: Python<'_>) {
        let holder = thread::acting(py).and_then(|task| Holder::of(&task));
        if let Some(refused) = self.0.with(py, |holders| holders.took(holder)) {
            refused.forget(py);
        }
    }

    /// The current task gives one back, for itself or for another.
    #[inline]
    pub(super) fn gave(&self, py: Python<'_>) {
        let task = thread::acting(py);
        let left = self
            .0
            .with(py, |holders| holders.gave(|holder| task.as_ref().is_some_and(|task| holder.is(py, task))));
        if let Some(left) = left {
            left.forget(py);
        }
    }

    /// All who have permits.
    fn claims<'py>(&self, py: Python<'py>, find: Find<'_, 'py>) -> Vec<Claim<'py>> {
        let (known, unknown) = self.0.with(py, |holders| {
            let known: Vec<_> = holders
                .known()
                .iter()
                .map(|holder| (holder.identity(), holder.object().map(|object| object.clone_ref(py))))
                .collect();
            (known, holders.unknown())
        });
        let mut claims: Vec<_> = known
            .into_iter()
            .map(|(identity, object)| claim(identity, object.map(|object| object.into_bound(py)), find))
            .collect();
        claims.extend((0..unknown).map(|_| Claim::Unknown));
        claims
    }
}

impl Holds for Held {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        let all = |holders: &sync::Holders<Holder>| {
            holders.known().iter().try_for_each(|holder| visit.call(holder.object()))
        };
        self.0.visit(all).unwrap_or(Ok(()))
    }

    fn clear(&self, py: Python<'_>) {
        for holder in self.0.with(py, sync::Holders::take_all) {
            holder.forget(py);
        }
    }
}

/// A task's name as `get_name` gives it: that of most is a number until somebody asks.
fn spelt(name: Bound<'_, PyAny>) -> Bound<'_, PyAny> {
    if name.is_exact_instance_of::<PyInt>() {
        return PyString::new(name.py(), &format!("Task-{name}")).into_any();
    }
    name
}

/// Who holds a Lock, Semaphore or BoundedSemaphore; none for anything else. `find` knows the live tasks by their
/// identity.
pub(crate) fn claims<'py>(
    object: &Bound<'py, PyAny>,
    find: impl Fn(&Identity) -> Option<Bound<'py, PyAny>>,
) -> Option<Vec<Claim<'py>>> {
    let py = object.py();
    if let Some(lock) = Inst::<Lock>::cast(object) {
        return Some(if lock.is_locked(py) { vec![lock.owner().claim(py, &find)] } else { Vec::new() });
    }
    Inst::<Semaphore>::cast(object).map(|semaphore| semaphore.held().claims(py, &find))
}

/// `_holders(lock)`: the tasks that hold it; for one that has ended its name, for whoever isn't known None.
#[pyfunction]
fn _holders<'py>(lock: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = lock.py();
    let event_loop = anyfuture::running_loop(py)?;
    let tasks: Vec<_> = asyncio(py)
        .tasks
        .bind(py)
        .call_method1("all_tasks", (event_loop,))?
        .try_iter()?
        .collect::<PyResult<_>>()?;
    let find = |wanted: &Identity| tasks.iter().find(|task| identity(task).as_ref() == Some(wanted)).cloned();
    let Some(claims) = claims(lock, find) else { return Ok(none(py)) };
    let shown = claims.into_iter().map(|claim| match claim {
        Claim::Task(task) => task,
        Claim::Ended(name) => name.unwrap_or_else(|| none(py)),
        Claim::Unknown => none(py),
    });
    Ok(PyList::new(py, shown)?.into_any())
}

/// Makes the function.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_holders, module)?)
}
