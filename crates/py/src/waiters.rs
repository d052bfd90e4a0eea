//! What locks and queues share: the future a waiter parks on, how it is woken, the loop it is bound to, and
//! `_waiters`, the list as Python code sees it.
//!
//! The lists themselves are `aioxide_core::Waiters`; whoever owns one lends it out for moments in which no
//! Python code runs. Called by locks/ and queues.rs.

use aioxide_core::sync::Waiting;
use aioxide_core::{WaiterKey, Waiters};
use pyo3::exceptions::{PyIndexError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use pyo3::{Borrowed, intern};

use crate::ffi::cell::Slot;
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::layout::{Fut, State};
use crate::ffi::method::{Of, getter, length, noargs, onearg, subscript, unary};
use crate::ffi::thread;
use crate::futures;
use crate::names::none;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// A list of parked futures.
pub(crate) type Line = Waiters<Py<PyAny>>;

/// Tells how the wait on a parked future stands. Objects that aren't our futures count as waiting until they
/// are asked.
#[inline]
pub(crate) fn standing(py: Python<'_>) -> impl Fn(&Py<PyAny>) -> Waiting + Copy {
    move |parked| match Fut::cast_exact(parked.bind(py)).map(Fut::state) {
        Some(State::Cancelled) => Waiting::Cancelled,
        Some(State::Finished) => Waiting::Woken,
        Some(State::Pending) | None => Waiting::Yes,
    }
}

/// Wakes a parked future with a result; false if its wait is over already.
#[inline]
pub(crate) fn wake<'py>(parked: &Bound<'py, PyAny>, result: Bound<'py, PyAny>) -> PyResult<bool> {
    let py = parked.py();
    if let Some(future) = Fut::cast_exact(parked) {
        if !future.is_pending() {
            return Ok(false);
        }
        futures::set_result(future, result)?;
        return Ok(true);
    }
    if parked.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(false);
    }
    parked.call_method1(intern!(py, "set_result"), (result,))?;
    Ok(true)
}

/// Drops what a list gave back, where Python code may run.
pub(crate) fn drop_all(py: Python<'_>, parked: Vec<Py<PyAny>>) {
    for one in parked {
        drop(one.into_bound(py));
    }
}

/// Shows a list to the garbage collector.
pub(crate) fn traverse(line: &Line, visit: &Visit<'_>) -> Result<(), Stopped> {
    line.iter().try_for_each(|(_, _, parked)| visit.call(Some(parked)))
}

/// `<module.Class object at 0x... [extra, waiters:N]>`, or without the number of those who wait if nobody
/// does.
pub(crate) fn repr_with<'py>(this: &Bound<'py, PyAny>, extra: &str, waiting: usize) -> Object<'py> {
    let class = this.get_type();
    let (module, name, address) = (class.module()?, class.qualname()?, this.as_ptr().addr());
    let waiters = if waiting > 0 { format!(", waiters:{waiting}") } else { String::new() };
    let text = format!("<{module}.{name} object at {address:#x} [{extra}{waiters}]>");
    Ok(pyo3::types::PyString::new(this.py(), &text).into_any())
}

/// The loop that a lock or queue belongs to: that of the first who waited.
pub(crate) struct Home(Slot);

impl Home {
    pub(crate) const fn new() -> Self {
        Self(Slot::empty())
    }

    /// A future of the running loop to park on.
    #[inline]
    pub(crate) fn future<'py>(&self, owner: &Bound<'py, PyAny>) -> Object<'py> {
        futures::new(&self.running(owner)?)
    }

    /// The running loop, which must be the one that the owner belongs to.
    #[inline]
    pub(crate) fn running<'py>(&self, owner: &Bound<'py, PyAny>) -> Object<'py> {
        let py = owner.py();
        let Some(running) = thread::running_loop(py)? else {
            return Err(PyRuntimeError::new_err("no running event loop"));
        };
        if !self.0.holds(&running) {
            if self.0.is_some() {
                let shown = owner.repr()?;
                return Err(PyRuntimeError::new_err(format!("{shown} is bound to a different event loop")));
            }
            self.0.set(py, running.clone());
        }
        Ok(running)
    }

    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.0.get(py).unwrap_or_else(|| none(py))
    }

    pub(crate) fn set(&self, event_loop: &Bound<'_, PyAny>) {
        let given = (!event_loop.is_none()).then(|| event_loop.clone());
        drop(self.0.replace(event_loop.py(), given));
    }

    pub(crate) fn forget(&self, py: Python<'_>) {
        drop(self.0.take(py));
    }

    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.0.traverse(visit)
    }
}

// --- the list as Python code sees it -------------------------------------------------------------

/// Lends one of the lists of an owner, for a moment without Python code.
pub(crate) type Lend = fn(&Bound<'_, PyAny>, &mut dyn FnMut(&mut Line));

/// `_waiters`, `_getters`, `_putters`: what a deque would offer, on the list itself.
pub(crate) struct LineView {
    owner: Slot,
    lend: Lend,
}

type This<'a, 'py> = Inst<'a, 'py, LineView>;

impl Class for LineView {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.waiters";

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.owner.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop(self.owner.take(py));
    }
}

/// A view of the list that `lend` lends from `owner`.
pub(crate) fn view<'py>(owner: &Bound<'py, PyAny>, lend: Lend) -> Object<'py> {
    create(owner.py(), LineView { owner: Slot::holding(owner.clone().unbind()), lend })
}

impl LineView {
    fn with<R: Default>(&self, py: Python<'_>, f: impl FnOnce(&mut Line) -> R) -> R {
        let (mut f, mut result) = (Some(f), R::default());
        if let Some(owner) = self.owner.get(py) {
            (self.lend)(&owner, &mut |line| {
                if let Some(f) = f.take() {
                    result = f(line);
                }
            });
        }
        result
    }

    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let parked =
            self.with(py, |line| line.iter().map(|(_, _, one)| one.clone_ref(py)).collect::<Vec<_>>());
        PyList::new(py, parked.into_iter().map(|one| one.into_bound(py)))
    }
}

fn view_len(this: This<'_, '_>) -> PyResult<usize> {
    Ok(this.with(this.py(), |line| line.len()))
}

fn view_item<'py>(this: This<'_, 'py>, key: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    this.items(this.py())?.as_any().get_item(key)
}

fn view_iter<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.items(this.py())?.try_iter()?.into_any())
}

fn view_repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let text = format!("waiters({})", this.items(this.py())?.repr()?);
    Ok(pyo3::types::PyString::new(this.py(), &text).into_any())
}

fn view_reversed<'py>(this: This<'_, 'py>) -> Object<'py> {
    let items = this.items(this.py())?;
    items.reverse()?;
    Ok(items.try_iter()?.into_any())
}

fn view_append<'py>(this: This<'_, 'py>, parked: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let (py, parked) = (this.py(), parked.to_owned().unbind());
    this.with(py, |line| {
        line.join(parked);
    });
    Ok(none(py))
}

fn view_appendleft<'py>(this: This<'_, 'py>, parked: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let (py, parked) = (this.py(), parked.to_owned().unbind());
    this.with(py, |line| {
        line.join_first(parked);
    });
    Ok(none(py))
}

/// Takes one out by its end.
fn view_take<'py>(this: This<'_, 'py>, end: fn(&Line) -> Option<WaiterKey>) -> Object<'py> {
    let py = this.py();
    match this.with(py, |line| end(line).and_then(|key| line.leave(key))) {
        Some((parked, _)) => Ok(parked.into_bound(py)),
        None => Err(PyIndexError::new_err("pop from an empty deque")),
    }
}

fn view_pop<'py>(this: This<'_, 'py>) -> Object<'py> {
    view_take(this, Line::back)
}

fn view_popleft<'py>(this: This<'_, 'py>) -> Object<'py> {
    view_take(this, Line::front)
}

fn view_remove<'py>(this: This<'_, 'py>, parked: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let py = this.py();
    let found = this.with(py, |line| {
        let key = line.iter().find(|(_, _, one)| one.is(&*parked)).map(|(key, ..)| key);
        key.and_then(|key| line.leave(key))
    });
    match found {
        Some((parked, _)) => drop(parked.into_bound(py)),
        None => return Err(PyValueError::new_err("deque.remove(x): x not in deque")),
    }
    Ok(none(py))
}

fn view_clear<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    drop_all(py, this.with(py, Line::take_all));
    Ok(none(py))
}

fn view_owner<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.owner.get(this.py()).unwrap_or_else(|| none(this.py())))
}

/// Makes the view's type.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<LineView>()
        .slot(pyo3::ffi::Py_sq_length, length::<Of<LineView>, _>(view_len))
        .slot(pyo3::ffi::Py_mp_subscript, subscript::<Of<LineView>, _>(view_item))
        .slot(pyo3::ffi::Py_tp_iter, unary::<Of<LineView>, _>(view_iter))
        .slot(pyo3::ffi::Py_tp_repr, unary::<Of<LineView>, _>(view_repr))
        .method(onearg::<Of<LineView>, _>(c"append", view_append))
        .method(onearg::<Of<LineView>, _>(c"appendleft", view_appendleft))
        .method(noargs::<Of<LineView>, _>(c"pop", view_pop))
        .method(noargs::<Of<LineView>, _>(c"popleft", view_popleft))
        .method(onearg::<Of<LineView>, _>(c"remove", view_remove))
        .method(noargs::<Of<LineView>, _>(c"clear", view_clear))
        .method(noargs::<Of<LineView>, _>(c"__reversed__", view_reversed))
        .attribute(getter::<Of<LineView>, _>(c"__self__", view_owner))
        .build(module, None, LineView::cell())?;
    Ok(())
}
