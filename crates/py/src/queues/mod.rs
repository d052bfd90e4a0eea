//! `asyncio.queues`: Queue, LifoQueue, PriorityQueue.
//!
//! Who may go on and who is woken is decided in `aioxide_core::sync`; here is what `put_nowait` and
//! `get_nowait` do with that. A plain Queue keeps its items in Rust until somebody asks for `_queue`: from
//! then on they are in that deque, as they are in the list of the other two and in whatever a subclass has
//! (items.rs). A queue whose methods may have been overridden is used through its methods, as asyncio's is.
//! methods.rs is the Python side, transfer.rs the coroutine behind `put`, `get` and `join`.

mod items;
mod methods;
mod transfer;

use std::collections::VecDeque;

use aioxide_core::sync::{self, Turn};
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyType};

use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::{Class, Inst, TypeCell};
use crate::ffi::gc::{Stopped, Visit};
use crate::locks::Event;
use crate::names::asyncio;
use crate::waiters::{self, Home};
use items::{fetch, is_empty, is_full, size, store};

pub(crate) use methods::register;

type Object<'py> = PyResult<Bound<'py, PyAny>>;
type This<'a, 'py> = Inst<'a, 'py, Queue>;

/// In which order items come out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    First,
    Last,
    Least,
}

/// What is borrowed together.
struct Inner {
    rules: sync::Queue<Py<PyAny>>,
    /// The items of a plain Queue, unless they are in `Queue::object`.
    items: VecDeque<Py<PyAny>>,
}

/// A queue of any of the three kinds.
struct Queue {
    inner: GilCell<Inner>,
    order: Flag<Order>,
    /// `_queue`, if the items are in a Python object.
    object: Slot,
    /// The bound as it was given; none: the default, 0.
    maxsize: Slot,
    /// `_finished`, once somebody joins.
    finished: Slot,
    home: Home,
    dict: Slot,
}

static LIFO: TypeCell = TypeCell::new();
static PRIORITY: TypeCell = TypeCell::new();

impl Class for Queue {
    const NAME: &'static std::ffi::CStr = c"aioxide.Queue";
    const SUBCLASSABLE: bool = true;
    const DICT: Option<usize> = Some(std::mem::offset_of!(Self, dict));

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        let lists = |inner: &Inner| {
            inner.items.iter().try_for_each(|item| visit.call(Some(item)))?;
            waiters::traverse(inner.rules.getters(), visit)?;
            waiters::traverse(inner.rules.putters(), visit)
        };
        self.inner.visit(lists).unwrap_or(Ok(()))?;
        for slot in [&self.object, &self.maxsize, &self.finished, &self.dict] {
            slot.traverse(visit)?;
        }
        self.home.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.drop_items(py);
        waiters::drop_all(py, self.inner.with(py, |inner| inner.rules.take_all()));
        for slot in [&self.object, &self.maxsize, &self.finished, &self.dict] {
            drop(slot.take(py));
        }
        self.home.forget(py);
    }
}

impl Queue {
    fn with_order(order: Order, object: Option<Bound<'_, PyList>>) -> Self {
        Self {
            inner: GilCell::new(Inner { rules: sync::Queue::new(0), items: VecDeque::new() }),
            order: Flag::new(order),
            object: Slot::new(object.map(|list| list.into_any().unbind())),
            maxsize: Slot::empty(),
            finished: Slot::empty(),
            home: Home::new(),
            dict: Slot::empty(),
        }
    }

    #[inline]
    fn with<R>(&self, py: Python<'_>, f: impl FnOnce(&mut Inner) -> R) -> R {
        self.inner.with(py, f)
    }

    /// Throws away what is kept in Rust.
    fn drop_items(&self, py: Python<'_>) {
        let items = self.with(py, |inner| std::mem::take(&mut inner.items));
        for item in items {
            drop(item.into_bound(py));
        }
    }

    fn is_shut_down(&self, py: Python<'_>) -> bool {
        self.with(py, |inner| inner.rules.is_shut_down())
    }
}

/// Whether every method is surely ours.
#[inline]
fn is_plain(this: This<'_, '_>) -> bool {
    let object = this.object();
    !this.dict.is_some()
        && (Queue::cell().is_plain(&object) || LIFO.is_plain(&object) || PRIORITY.is_plain(&object))
}

/// Whether the items of a plain Queue are here, in Rust: then putting and getting is one borrow.
#[inline]
fn is_native(this: This<'_, '_>) -> bool {
    !this.object.is_some() && is_plain(this)
}

/// Puts an item if the rules of a native queue allow it; else the item comes back, and why.
#[inline]
fn put_native<'py>(
    this: This<'_, 'py>,
    item: Bound<'py, PyAny>,
) -> PyResult<Result<(), (Turn, Bound<'py, PyAny>)>> {
    let (py, item) = (this.py(), item.unbind());
    let done = this.with(py, |inner| match inner.rules.may_put(inner.items.len()) {
        Turn::Now => {
            inner.items.push_back(item);
            inner.rules.on_put();
            Ok(inner.rules.next_getter())
        }
        turn => Err((turn, item)),
    });
    match done {
        Ok(getter) => {
            unfinish(this);
            wake_getters(this, getter).map(Ok)
        }
        Err((turn, item)) => Ok(Err((turn, item.into_bound(py)))),
    }
}

/// Takes an item out of a native queue; else says why not.
#[inline]
fn get_native<'py>(this: This<'_, 'py>) -> PyResult<Result<Bound<'py, PyAny>, Turn>> {
    let py = this.py();
    let got = this.with(py, |inner| match inner.items.pop_front() {
        Some(item) => Ok((item, inner.rules.next_putter())),
        None => Err(inner.rules.may_get(0)),
    });
    match got {
        Ok((item, putter)) => {
            wake_putters(this, putter)?;
            Ok(Ok(item.into_bound(py)))
        }
        Err(turn) => Ok(Err(turn)),
    }
}

/// One attempt of `put(item)`, with its result; the item comes back if there is no room.
#[inline]
fn try_put<'py>(
    this: This<'_, 'py>,
    item: Bound<'py, PyAny>,
) -> PyResult<Result<Bound<'py, PyAny>, Bound<'py, PyAny>>> {
    let py = this.py();
    if is_native(this) {
        return match put_native(this, item)? {
            Ok(()) => Ok(Ok(py.None().into_bound(py))),
            Err((Turn::ShutDown, _)) => Err(shut_down(py)),
            Err((_, item)) => Ok(Err(item)),
        };
    }
    if is_full(this)? {
        return if this.is_shut_down(py) { Err(shut_down(py)) } else { Ok(Err(item)) };
    }
    if is_plain(this) {
        put_now(this, item)?;
        return Ok(Ok(py.None().into_bound(py)));
    }
    this.object().call_method1(intern!(py, "put_nowait"), (item,)).map(Ok)
}

/// One attempt of `get()`; nothing if there is no item.
#[inline]
fn try_get<'py>(this: This<'_, 'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = this.py();
    if is_native(this) {
        return match get_native(this)? {
            Ok(item) => Ok(Some(item)),
            Err(Turn::ShutDown) => Err(shut_down(py)),
            Err(_) => Ok(None),
        };
    }
    if is_empty(this)? {
        // A subclass's `empty` may have changed its mind.
        return if this.is_shut_down(py) && is_empty(this)? { Err(shut_down(py)) } else { Ok(None) };
    }
    let item = if is_plain(this) {
        get_now(this)?
    } else {
        this.object().call_method0(intern!(py, "get_nowait"))?
    };
    Ok(Some(item))
}

/// `put_nowait(item)`.
fn put_now<'py>(this: This<'_, 'py>, item: Bound<'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    if is_native(this) {
        return match put_native(this, item)? {
            Ok(()) => Ok(()),
            Err((turn, _)) => refuse(py, turn, &known(py)?.full),
        };
    }
    if is_plain(this) {
        let items = size(this)?;
        refuse(py, this.with(py, |inner| inner.rules.may_put(items)), &known(py)?.full)?;
        store(this, this.order.get(), item)?;
    } else {
        if this.is_shut_down(py) {
            return Err(shut_down(py));
        }
        if is_full(this)? {
            return Err(raise(py, &known(py)?.full));
        }
        this.object().call_method1(intern!(py, "_put"), (item,))?;
    }
    let getter = this.with(py, |inner| {
        inner.rules.on_put();
        inner.rules.next_getter()
    });
    unfinish(this);
    wake_getters(this, getter)
}

/// `get_nowait()`.
fn get_now<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    if is_native(this) {
        return match get_native(this)? {
            Ok(item) => Ok(item),
            Err(turn) => refuse(py, turn, &known(py)?.empty).map(|()| py.None().into_bound(py)),
        };
    }
    if is_empty(this)? {
        let known = known(py)?;
        return Err(raise(py, if this.is_shut_down(py) { &known.shut_down } else { &known.empty }));
    }
    let item = if is_plain(this) {
        fetch(this, this.order.get())?
    } else {
        this.object().call_method0(intern!(py, "_get"))?
    };
    let putter = this.with(py, |inner| inner.rules.next_putter());
    wake_putters(this, putter)?;
    Ok(item)
}

/// Wakes the first getter whose wait isn't over, beginning with one that is out of the line already.
#[inline]
fn wake_getters(this: This<'_, '_>, first: Option<Py<PyAny>>) -> PyResult<()> {
    wake_one(this, first, sync::Queue::next_getter)
}

/// As [`wake_getters`], for putters.
#[inline]
fn wake_putters(this: This<'_, '_>, first: Option<Py<PyAny>>) -> PyResult<()> {
    wake_one(this, first, sync::Queue::next_putter)
}

#[inline]
fn wake_one(
    this: This<'_, '_>,
    first: Option<Py<PyAny>>,
    next: fn(&mut sync::Queue<Py<PyAny>>) -> Option<Py<PyAny>>,
) -> PyResult<()> {
    let py = this.py();
    let mut parked = first;
    while let Some(one) = parked {
        if waiters::wake(&one.into_bound(py), py.None().into_bound(py))? {
            return Ok(());
        }
        parked = this.with(py, |inner| next(&mut inner.rules));
    }
    Ok(())
}

/// `task_done()` and `shutdown()` bring the count to zero: all who join go on.
fn finish(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    let finished = this.finished.get(py);
    match finished.as_ref().map(Inst::<Event>::cast) {
        Some(Some(event)) => event.set(py),
        _ => Ok(()),
    }
}

/// An item was put: joiners wait.
#[inline]
fn unfinish(this: This<'_, '_>) {
    if this.finished.is_some() {
        let finished = this.finished.get(this.py());
        if let Some(Some(event)) = finished.as_ref().map(Inst::<Event>::cast) {
            event.unset(this.py());
        }
    }
}

/// `_finished`: made when it is asked for.
fn finished<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    if let Some(event) = this.finished.get(py) {
        return Ok(event);
    }
    let event = Event::make(py, this.with(py, |inner| inner.rules.is_finished()))?;
    this.finished.set(py, event.clone());
    Ok(event)
}

/// `shutdown(immediate)`.
fn close(this: This<'_, '_>, immediate: bool) -> PyResult<()> {
    let py = this.py();
    this.with(py, |inner| inner.rules.shut_down());
    if immediate {
        while !is_empty(this)? {
            if is_plain(this) {
                drop(fetch(this, this.order.get())?);
            } else {
                this.object().call_method0(intern!(py, "_get"))?;
            }
            // More were got than put, if a subclass put some by hand.
            let _ = this.with(py, |inner| inner.rules.task_done());
        }
        if this.with(py, |inner| inner.rules.is_finished()) {
            finish(this)?;
        }
    }
    while let Some(getter) = this.with(py, |inner| inner.rules.next_getter()) {
        waiters::wake(&getter.into_bound(py), py.None().into_bound(py))?;
    }
    while let Some(putter) = this.with(py, |inner| inner.rules.next_putter()) {
        waiters::wake(&putter.into_bound(py), py.None().into_bound(py))?;
    }
    Ok(())
}

// --- what the standard library has ---------------------------------------------------------------

/// asyncio's exceptions, and the heap.
struct Known {
    empty: Py<PyType>,
    full: Py<PyType>,
    shut_down: Py<PyType>,
    heappush: Py<PyAny>,
    heappop: Py<PyAny>,
}

fn known(py: Python<'_>) -> PyResult<&Known> {
    static KNOWN: PyOnceLock<Known> = PyOnceLock::new();
    KNOWN.get_or_try_init(py, || {
        let queues = asyncio(py).queues.bind(py);
        let class = |name: &str| -> PyResult<Py<PyType>> {
            Ok(queues.getattr(name)?.cast_into::<PyType>()?.unbind())
        };
        let heapq = py.import("heapq")?;
        Ok(Known {
            empty: class("QueueEmpty")?,
            full: class("QueueFull")?,
            shut_down: match class("QueueShutDown") {
                Ok(found) => found,
                // asyncio has it since 3.13.
                Err(_) => PyErr::new_type(
                    py,
                    c"aioxide.QueueShutDown",
                    Some(c"Raised when putting on to or getting from a queue that has been shut down."),
                    Some(&py.get_type::<PyException>()),
                    None,
                )?,
            },
            heappush: heapq.getattr("heappush")?.unbind(),
            heappop: heapq.getattr("heappop")?.unbind(),
        })
    })
}

fn raise(py: Python<'_>, class: &Py<PyType>) -> PyErr {
    PyErr::from_type(class.bind(py).clone(), ())
}

fn shut_down(py: Python<'_>) -> PyErr {
    known(py).map_or_else(|error| error, |known| raise(py, &known.shut_down))
}

/// The exception for an operation that may not go on.
fn refuse(py: Python<'_>, turn: Turn, otherwise: &Py<PyType>) -> PyResult<()> {
    match turn {
        Turn::Now => Ok(()),
        Turn::NotNow => Err(raise(py, otherwise)),
        Turn::ShutDown => Err(shut_down(py)),
    }
}
