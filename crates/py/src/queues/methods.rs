//! The Python side of the queues: their three types, methods and attributes.

use aioxide_core::sync;
use pyo3::Borrowed;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt, PyList, PyString, PyTuple};

use super::items::{fetch, list_items, qsize, show_items, size, store};
use super::transfer::{self, Op};
use super::{LIFO, Order, PRIORITY, Queue, This, close, finish, finished, get_now, is_plain, known, put_now};
use crate::ffi::args::{Args, Signature};
use crate::ffi::class::{Builder, Class, Inst};
use crate::ffi::method::{Of, anyargs, constructor, getter, initializer, noargs, onearg, unary};
use crate::names::{asyncio, boolean, none};
use crate::waiters;

type Object<'py> = PyResult<Bound<'py, PyAny>>;

fn number(py: Python<'_>, value: usize) -> Object<'_> {
    Ok(PyInt::new(py, value).into_any())
}

// --- making --------------------------------------------------------------------------------------

fn new(_: Args<'_, '_>) -> PyResult<Queue> {
    Ok(Queue::with_order(Order::First, None))
}

fn new_lifo(args: Args<'_, '_>) -> PyResult<Queue> {
    Ok(Queue::with_order(Order::Last, Some(PyList::empty(args.py()))))
}

fn new_priority(args: Args<'_, '_>) -> PyResult<Queue> {
    Ok(Queue::with_order(Order::Least, Some(PyList::empty(args.py()))))
}

fn init(this: This<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    const SIGNATURE: Signature = Signature {
        name: "Queue.__init__",
        positional: &["maxsize"],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let [maxsize] = SIGNATURE.bind::<1>(args)?;
    let py = this.py();
    let bound = maxsize.map_or(Ok(0), |maxsize| bound_of(&maxsize))?;
    let given = maxsize.map(Borrowed::to_owned);
    drop(this.maxsize.replace(py, given.clone()));
    let before =
        this.with(py, |inner| std::mem::replace(&mut inner.rules, sync::Queue::new(bound)).take_all());
    waiters::drop_all(py, before);
    drop(this.finished.take(py));
    if is_plain(this) {
        return start(this);
    }
    let given = given.unwrap_or_else(|| PyInt::new(py, 0).into_any());
    this.object().call_method1(intern!(py, "_init"), (given,)).map(drop)
}

/// The bound as a number of items, 0 for none.
fn bound_of(maxsize: &Bound<'_, PyAny>) -> PyResult<i64> {
    if let Ok(float) = maxsize.cast::<PyFloat>() {
        let float: f64 = float.extract()?;
        #[allow(clippy::cast_possible_truncation, reason = "`as` saturates, and so many items never are")]
        return Ok(if float.is_finite() { float.ceil() as i64 } else { 0 });
    }
    match maxsize.extract() {
        Ok(bound) => Ok(bound),
        // More items than can be: no bound, whichever the sign.
        Err(_) if maxsize.is_instance_of::<PyInt>() => Ok(0),
        Err(error) => Err(error),
    }
}

/// `_init` of each kind: an empty store.
fn start(this: This<'_, '_>) -> PyResult<()> {
    let py = this.py();
    let list = (this.order.get() != Order::First).then(|| PyList::empty(py).into_any());
    drop(this.object.replace(py, list));
    this.drop_items(py);
    Ok(())
}

fn method_init<'py>(this: This<'_, 'py>, _: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    start(this)?;
    Ok(none(this.py()))
}

// --- what subclasses override --------------------------------------------------------------------

fn put_last<'py>(this: This<'_, 'py>, item: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    store(this, Order::Last, item.to_owned())?;
    Ok(none(this.py()))
}

fn put_heap<'py>(this: This<'_, 'py>, item: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    store(this, Order::Least, item.to_owned())?;
    Ok(none(this.py()))
}

fn get_first<'py>(this: This<'_, 'py>) -> Object<'py> {
    fetch(this, Order::First)
}

fn get_last<'py>(this: This<'_, 'py>) -> Object<'py> {
    fetch(this, Order::Last)
}

fn get_least<'py>(this: This<'_, 'py>) -> Object<'py> {
    fetch(this, Order::Least)
}

// --- for everybody -------------------------------------------------------------------------------

fn method_qsize<'py>(this: This<'_, 'py>) -> Object<'py> {
    number(this.py(), size(this)?)
}

fn method_empty<'py>(this: This<'_, 'py>) -> Object<'py> {
    let empty = match this.object.get(this.py()) {
        Some(object) => !object.is_truthy()?,
        None => size(this)? == 0,
    };
    Ok(boolean(this.py(), empty))
}

fn method_full<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let bounded = this.with(py, |inner| inner.rules.is_full(usize::MAX));
    if !bounded {
        return Ok(boolean(py, false));
    }
    let items = qsize(this)?;
    Ok(boolean(py, this.with(py, |inner| inner.rules.is_full(items))))
}

fn the_item<'py>(name: &'static str, args: Args<'_, 'py>) -> Object<'py> {
    let signature =
        Signature { name, positional: &["item"], required: 1, positional_only: 0, keyword_only: &[] };
    let [item] = signature.bind::<1>(args)?;
    item.map_or_else(|| Ok(none(args.py())), |item| Ok(item.to_owned()))
}

fn put<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    transfer::make(this, Op::Put, Some(the_item("put", args)?))
}

fn put_nowait<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    put_now(this, the_item("put_nowait", args)?)?;
    Ok(none(this.py()))
}

fn get<'py>(this: This<'_, 'py>) -> Object<'py> {
    transfer::make(this, Op::Get, None)
}

fn get_nowait<'py>(this: This<'_, 'py>) -> Object<'py> {
    get_now(this)
}

fn join<'py>(this: This<'_, 'py>) -> Object<'py> {
    transfer::make(this, Op::Join, None)
}

fn task_done<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    match this.with(py, |inner| inner.rules.task_done()) {
        Ok(true) => finish(this)?,
        Ok(false) => {}
        Err(sync::TooManyDone) => return Err(PyValueError::new_err("task_done() called too many times")),
    }
    Ok(none(py))
}

fn shutdown<'py>(this: This<'_, 'py>, args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "shutdown",
        positional: &["immediate"],
        required: 0,
        positional_only: 0,
        keyword_only: &[],
    };
    let [immediate] = SIGNATURE.bind::<1>(args)?;
    close(this, immediate.map_or(Ok(false), |immediate| immediate.is_truthy())?)?;
    Ok(none(this.py()))
}

// --- looks ---------------------------------------------------------------------------------------

/// What `repr` and `str` show of the state.
fn format(this: This<'_, '_>) -> PyResult<String> {
    let py = this.py();
    let mut text = vec![format!("maxsize={}", get_maxsize(this)?.repr()?)];
    let items = list_items(this)?;
    if !items.is_empty() {
        text.push(format!("_queue={}", items.repr()?));
    }
    let (getters, putters, unfinished, closed) = this.with(py, |inner| {
        let rules = &inner.rules;
        (rules.getters().len(), rules.putters().len(), rules.unfinished(), rules.is_shut_down())
    });
    for (name, waiting) in [("_getters", getters), ("_putters", putters)] {
        if waiting > 0 {
            text.push(format!("{name}[{waiting}]"));
        }
    }
    if unfinished > 0 {
        text.push(format!("tasks={unfinished}"));
    }
    if closed {
        text.push("shutdown".to_owned());
    }
    Ok(text.join(" "))
}

fn method_format<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(PyString::new(this.py(), &format(this)?).into_any())
}

/// `_format()`, of the subclass if there is one.
fn formatted<'py>(this: This<'_, 'py>) -> Object<'py> {
    if is_plain(this) {
        method_format(this)
    } else {
        this.object().call_method0(intern!(this.py(), "_format"))
    }
}

fn repr<'py>(this: This<'_, 'py>) -> Object<'py> {
    let object = this.object();
    let text =
        format!("<{} at {:#x} {}>", object.get_type().name()?, object.as_ptr().addr(), formatted(this)?);
    Ok(PyString::new(this.py(), &text).into_any())
}

fn text<'py>(this: This<'_, 'py>) -> Object<'py> {
    let text = format!("<{} {}>", this.object().get_type().name()?, formatted(this)?);
    Ok(PyString::new(this.py(), &text).into_any())
}

// --- attributes ----------------------------------------------------------------------------------

fn get_maxsize<'py>(this: This<'_, 'py>) -> Object<'py> {
    let py = this.py();
    Ok(this.maxsize.get(py).unwrap_or_else(|| PyInt::new(py, 0).into_any()))
}

fn set_maxsize<'py>(this: This<'_, 'py>, maxsize: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let (py, bound) = (this.py(), bound_of(&maxsize)?);
    this.with(py, |inner| inner.rules.set_maxsize(bound));
    this.maxsize.set(py, maxsize.to_owned());
    Ok(())
}

fn get_queue<'py>(this: This<'_, 'py>) -> Object<'py> {
    show_items(this)
}

fn set_queue<'py>(this: This<'_, 'py>, items: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.object.set(this.py(), items.to_owned());
    this.drop_items(this.py());
    Ok(())
}

fn get_unfinished<'py>(this: This<'_, 'py>) -> Object<'py> {
    number(this.py(), this.with(this.py(), |inner| inner.rules.unfinished()))
}

fn set_unfinished<'py>(this: This<'_, 'py>, count: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let count: i64 = count.extract()?;
    let count = usize::try_from(count).unwrap_or(0);
    this.with(this.py(), |inner| inner.rules.set_unfinished(count));
    Ok(())
}

fn get_finished<'py>(this: This<'_, 'py>) -> Object<'py> {
    finished(this)
}

fn get_shut_down<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(boolean(this.py(), this.is_shut_down(this.py())))
}

fn get_getters<'py>(this: This<'_, 'py>) -> Object<'py> {
    waiters::view(&this.object(), |owner, f| {
        if let Some(this) = Inst::<Queue>::cast(owner) {
            this.with(owner.py(), |inner| f(inner.rules.getters_mut()));
        }
    })
}

fn get_putters<'py>(this: This<'_, 'py>) -> Object<'py> {
    waiters::view(&this.object(), |owner, f| {
        if let Some(this) = Inst::<Queue>::cast(owner) {
            this.with(owner.py(), |inner| f(inner.rules.putters_mut()));
        }
    })
}

/// `_wakeup_next(waiters)`, which subclasses with a `put` of their own call.
fn wakeup_next<'py>(this: This<'_, 'py>, line: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
    let py = this.py();
    while line.len()? > 0 {
        let parked = line.call_method0(intern!(py, "popleft"))?;
        if waiters::wake(&parked, py.None().into_bound(py))? {
            break;
        }
    }
    Ok(none(py))
}

fn get_loop<'py>(this: This<'_, 'py>) -> Object<'py> {
    Ok(this.home.get(this.py()))
}

fn set_loop<'py>(this: This<'_, 'py>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.home.set(&value);
    Ok(())
}

fn running<'py>(this: This<'_, 'py>) -> Object<'py> {
    this.home.running(&this.object())
}

// --- the types -----------------------------------------------------------------------------------

type Me = Of<Queue>;

fn methods(builder: Builder) -> Builder {
    builder
        .method(noargs::<Me, _>(c"qsize", method_qsize).doc(
            c"qsize($self, /)\n--\n\nHow many items are \
          in the queue.",
        ))
        .method(noargs::<Me, _>(c"empty", method_empty).doc(
            c"empty($self, /)\n--\n\nReturn True if there \
          are no items.",
        ))
        .method(noargs::<Me, _>(c"full", method_full).doc(
            c"full($self, /)\n--\n\nReturn True if there are maxsize items; never, if maxsize is \
                  0.",
        ))
        .method(anyargs::<Me, _>(c"put", put).doc(
            c"put($self, item)\n--\n\nPut an item into the queue, waiting for room if need be.\n\n\
              QueueShutDown if the queue is shut down.",
        ))
        .method(anyargs::<Me, _>(c"put_nowait", put_nowait).doc(
            c"put_nowait($self, item)\n--\n\nPut an item into the queue.\n\n\
              QueueFull if there is no room, QueueShutDown if the queue is shut down.",
        ))
        .method(noargs::<Me, _>(c"get", get).doc(
            c"get($self, /)\n--\n\nTake an item out of the queue, waiting for one if need be.\n\n\
              QueueShutDown if the queue is shut down and has no items.",
        ))
        .method(noargs::<Me, _>(c"get_nowait", get_nowait).doc(
            c"get_nowait($self, /)\n--\n\nTake an item out of the queue.\n\n\
              QueueEmpty if there is none, QueueShutDown if there will be none.",
        ))
        .method(noargs::<Me, _>(c"join", join).doc(
            c"join($self, /)\n--\n\nWait until task_done() has been called for every item that was put.",
        ))
        .method(noargs::<Me, _>(c"task_done", task_done).doc(
            c"task_done($self, /)\n--\n\nSay that the work on an item is done.\n\n\
              ValueError if that is said more often than items were put.",
        ))
        .method(anyargs::<Me, _>(c"shutdown", shutdown).doc(
            c"shutdown($self, immediate=False)\n--\n\nRefuse items from now on; get() raises \
              QueueShutDown once there \
              are none.\n\nWith immediate, the items are thrown away.",
        ))
        .method(noargs::<Me, _>(c"_format", method_format))
        .method(onearg::<Me, _>(c"_wakeup_next", wakeup_next))
        .method(noargs::<Me, _>(c"_get_loop", running))
        .attribute(getter::<Me, _>(c"maxsize", get_maxsize))
        .attribute(getter::<Me, _>(c"_maxsize", get_maxsize).setter::<Me, _>(set_maxsize))
        .attribute(getter::<Me, _>(c"_queue", get_queue).setter::<Me, _>(set_queue))
        .attribute(getter::<Me, _>(c"_unfinished_tasks", get_unfinished).setter::<Me, _>(set_unfinished))
        .attribute(getter::<Me, _>(c"_finished", get_finished))
        .attribute(getter::<Me, _>(c"_is_shutdown", get_shut_down))
        .attribute(getter::<Me, _>(c"_getters", get_getters))
        .attribute(getter::<Me, _>(c"_putters", get_putters))
        .attribute(getter::<Me, _>(c"_loop", get_loop).setter::<Me, _>(set_loop))
        .generic()
}

/// Makes the types.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    transfer::register(module)?;
    let py = module.py();
    let queue = methods(Builder::of::<Queue>())
        .short_name()
        .doc(
            c"Queue(maxsize=0)\n--\n\nA queue between tasks: first in, first out; put() waits while \
          there are maxsize items.",
        )
        .slot(pyo3::ffi::Py_tp_new, constructor::<Queue, _>(new))
        .slot(pyo3::ffi::Py_tp_init, initializer::<Me, _>(init))
        .slot(pyo3::ffi::Py_tp_repr, unary::<Me, _>(repr))
        .slot(pyo3::ffi::Py_tp_str, unary::<Me, _>(text))
        .method(onearg::<Me, _>(c"_init", method_init))
        .method(onearg::<Me, _>(c"_put", put_last))
        .method(noargs::<Me, _>(c"_get", get_first))
        .build(module, None, Queue::cell())?;
    let bases = PyTuple::new(py, [&queue])?;
    let lifo = Builder::of::<Queue>()
        .named(c"aioxide.LifoQueue")
        .short_name()
        .doc(c"LifoQueue(maxsize=0)\n--\n\nA queue that gives out the item that was put last.")
        .slot(pyo3::ffi::Py_tp_new, constructor::<Queue, _>(new_lifo))
        .method(noargs::<Me, _>(c"_get", get_last))
        .build(module, Some(&bases), &LIFO)?;
    let priority = Builder::of::<Queue>()
        .named(c"aioxide.PriorityQueue")
        .short_name()
        .doc(
            c"PriorityQueue(maxsize=0)\n--\n\nA queue that gives out the least item: (priority number, \
          data), say.",
        )
        .slot(pyo3::ffi::Py_tp_new, constructor::<Queue, _>(new_priority))
        .method(onearg::<Me, _>(c"_put", put_heap))
        .method(noargs::<Me, _>(c"_get", get_least))
        .build(module, Some(&bases), &PRIORITY)?;
    module.add("Queue", queue)?;
    module.add("LifoQueue", lifo)?;
    module.add("PriorityQueue", priority)?;
    if !asyncio(py).queues.bind(py).hasattr("QueueShutDown")? {
        module.add("QueueShutDown", known(py)?.shut_down.bind(py))?;
    }
    Ok(())
}
