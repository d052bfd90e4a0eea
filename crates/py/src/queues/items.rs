//! The items of a queue: in Rust, in a deque or list, or in whatever a subclass keeps; and how many they are.

use pyo3::exceptions::PyIndexError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::{Order, This, is_plain, known};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// How many items there are, whatever a subclass says.
pub(super) fn size(this: This<'_, '_>) -> PyResult<usize> {
    match this.object.get(this.py()) {
        Some(object) => object.len(),
        None => Ok(this.with(this.py(), |inner| inner.items.len())),
    }
}

/// `qsize()`.
pub(super) fn qsize(this: This<'_, '_>) -> PyResult<usize> {
    if is_plain(this) {
        return size(this);
    }
    this.object().call_method0(intern!(this.py(), "qsize"))?.extract()
}

/// `empty()`.
#[inline]
pub(super) fn is_empty(this: This<'_, '_>) -> PyResult<bool> {
    if is_plain(this) {
        return Ok(size(this)? == 0);
    }
    this.object().call_method0(intern!(this.py(), "empty"))?.is_truthy()
}

/// `full()`.
#[inline]
pub(super) fn is_full(this: This<'_, '_>) -> PyResult<bool> {
    if !is_plain(this) {
        return this.object().call_method0(intern!(this.py(), "full"))?.is_truthy();
    }
    let items = size(this)?;
    Ok(this.with(this.py(), |inner| inner.rules.is_full(items)))
}

/// What `_put` of the three kinds does.
pub(super) fn store<'py>(this: This<'_, 'py>, order: Order, item: Bound<'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    let Some(object) = this.object.get(py) else {
        this.with(py, |inner| inner.items.push_back(item.unbind()));
        return Ok(());
    };
    if order == Order::Least {
        known(py)?.heappush.bind(py).call1((object, item))?;
        return Ok(());
    }
    match object.cast_exact::<PyList>() {
        Ok(list) => list.append(item),
        Err(_) => object.call_method1(intern!(py, "append"), (item,)).map(drop),
    }
}

/// What `_get` of the three kinds does.
pub(super) fn fetch<'py>(this: This<'_, 'py>, order: Order) -> Object<'py> {
    let py = this.py();
    let Some(object) = this.object.get(py) else {
        let item = this.with(py, |inner| match order {
            Order::First | Order::Least => inner.items.pop_front(),
            Order::Last => inner.items.pop_back(),
        });
        let item = item.ok_or_else(|| PyIndexError::new_err("pop from an empty deque"))?;
        return Ok(item.into_bound(py));
    };
    match (order, object.cast_exact::<PyList>()) {
        (Order::Least, _) => known(py)?.heappop.bind(py).call1((object,)),
        (Order::First, _) => object.call_method0(intern!(py, "popleft")),
        (Order::Last, Ok(list)) if !list.is_empty() => {
            let end = list.len() - 1;
            let item = list.get_item(end)?;
            list.del_item(end)?;
            Ok(item)
        }
        (Order::Last, _) => object.call_method0(intern!(py, "pop")),
    }
}

/// `_queue`: moves the items of a plain Queue into a deque, where they are from now on.
pub(super) fn show_items<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    if let Some(object) = this.object.get(py) {
        return Ok(object);
    }
    let deque = py.import("collections")?.getattr("deque")?.call1((list_items(this)?,))?;
    this.object.set(py, deque.clone());
    this.drop_items(py);
    Ok(deque)
}

/// The items as a list.
pub(super) fn list_items<'py>(this: This<'_, 'py>) -> PyResult<Bound<'py, PyList>> {
    let py = this.py();
    if let Some(object) = this.object.get(py) {
        return PyList::new(py, object.try_iter()?.collect::<PyResult<Vec<_>>>()?);
    }
    let items: Vec<_> = this.with(py, |inner| inner.items.iter().map(|item| item.clone_ref(py)).collect());
    PyList::new(py, items.into_iter().map(|item| item.into_bound(py)))
}
