//! asyncio's coroutine methods as Rust `async` blocks: the Python object around one, and how it awaits Python objects.
//!
//! Used by every `async def` of the event loop's API. A block holds plain references (`Py<..>`) across its awaits and
//! takes the interpreter with [`attached`] in between; it is polled only by [`Coroutine`], so only with the GIL held,
//! and only for as long as the task steps it: there is no executor and no waker here. Whatever runs meanwhile, Python code
//! or another thread, finds a coroutine that runs already.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pyo3::exceptions::{
    PyAttributeError, PyGeneratorExit, PyRuntimeError, PyStopIteration, PyTypeError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;

use crate::errors::generator_exit;
use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::iter::{self, Awaitable, Life, Step};
use crate::ffi::layout::Fut;
use crate::frame::closed;
use crate::futures;

type Body = Pin<Box<dyn Future<Output = PyResult<Py<PyAny>>> + Send>>;

pub(crate) use crate::ffi::attach::attached;

/// `None`, as the result of a block.
pub(crate) fn none() -> PyResult<Py<PyAny>> {
    attached(|py| Ok(py.None()))
}

// --- between a coroutine and what it waits for ---------------------------------------------------

/// What passes between a coroutine's step and its innermost `wait`, which takes it before anything else runs.
struct Mail {
    /// Thrown in.
    error: Cell<Option<PyErr>>,
    /// What the block waits for, kept by the coroutine in between, where the garbage collector sees it.
    leaf: Cell<Option<Py<PyAny>>>,
    /// For the task.
    yielded: Cell<Option<Py<PyAny>>>,
    /// The root of the coroutine that runs.
    root: Cell<Option<Py<PyAny>>>,
}

thread_local! {
    static MAIL: Mail = const {
        Mail { error: Cell::new(None), leaf: Cell::new(None), yielded: Cell::new(None), root: Cell::new(None) }
    };
}

/// The object that the running coroutine was made with, see [`rooted`].
pub(crate) fn root(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let root = MAIL.with(|mail| {
        let root = mail.root.take();
        let found = root.as_ref().map(|root| root.bind(py).clone());
        mail.root.set(root);
        found
    });
    root.ok_or_else(|| PyRuntimeError::new_err("a coroutine without a root"))
}

/// Awaits any Python awaitable, as `await object` does.
pub(crate) fn wait(object: Py<PyAny>) -> Wait {
    Wait { object: Some(object), left: None }
}

/// Awaits a future, which comes back with the error: the coroutine alone holds it meanwhile.
pub(crate) async fn wait_for_future(future: Py<PyAny>) -> Result<Py<PyAny>, (PyErr, Option<Py<PyAny>>)> {
    let mut wait = Wait { object: Some(future), left: None };
    let result = Pin::new(&mut wait).await;
    result.map_err(|error| (error, wait.left))
}

/// See [`wait`].
#[derive(Debug)]
pub(crate) struct Wait {
    /// The awaitable, until it is waited for.
    object: Option<Py<PyAny>>,
    /// The future that was waited for in vain.
    left: Option<Py<PyAny>>,
}

impl Future for Wait {
    type Output = PyResult<Py<PyAny>>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        attached(|py| {
            let step = match self.object.take() {
                Some(object) => begin(object.into_bound(py)),
                None => go_on(py, &mut self.left),
            };
            match step {
                Ok(Waiting::Over(value)) => Poll::Ready(Ok(value.unbind())),
                Ok(Waiting::For { leaf, yielded }) => {
                    MAIL.with(|mail| {
                        mail.leaf.set(Some(leaf.unbind()));
                        mail.yielded.set(Some(yielded.unbind()));
                    });
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            }
        })
    }
}

/// Gives everybody else a turn, as `await asyncio.sleep(0)` does.
pub(crate) fn pause() -> Pause {
    Pause { yielded: false }
}

/// See [`pause`].
#[derive(Debug)]
pub(crate) struct Pause {
    yielded: bool,
}

impl Future for Pause {
    type Output = PyResult<()>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if !std::mem::replace(&mut self.yielded, true) {
            return Poll::Pending;
        }
        Poll::Ready(MAIL.with(|mail| mail.error.take()).map_or(Ok(()), Err))
    }
}

enum Waiting<'py> {
    Over(Bound<'py, PyAny>),
    For { leaf: Bound<'py, PyAny>, yielded: Bound<'py, PyAny> },
}

/// The first look at an awaitable.
fn begin(object: Bound<'_, PyAny>) -> PyResult<Waiting<'_>> {
    let py = object.py();
    if let Some(future) = Fut::cast_exact(&object) {
        if !future.is_pending() {
            return futures::result(future).map(Waiting::Over);
        }
        future.set_blocking(true);
        return Ok(Waiting::For { leaf: object.clone(), yielded: object });
    }
    let iterator = match Inst::<Coroutine>::cast_exact(&object) {
        Some(_) => object,
        None => match object.call_method0(intern!(py, "__await__")) {
            Ok(iterator) => iterator,
            Err(error) if error.is_instance_of::<PyAttributeError>(py) => {
                let class = object.get_type().name()?;
                return Err(PyTypeError::new_err(format!(
                    "object {class} can't be used in 'await' expression"
                )));
            }
            Err(error) => return Err(error),
        },
    };
    let step = iter::send_none(&iterator)?;
    Ok(sorted(iterator, step))
}

fn sorted<'py>(leaf: Bound<'py, PyAny>, step: Step<'py>) -> Waiting<'py> {
    match step {
        Step::Yield(yielded) => Waiting::For { leaf, yielded },
        Step::Return(value) => Waiting::Over(value),
    }
}

/// The task has come back, perhaps with an exception.
fn go_on<'py>(py: Python<'py>, left: &mut Option<Py<PyAny>>) -> PyResult<Waiting<'py>> {
    let (error, leaf) = MAIL.with(|mail| (mail.error.take(), mail.leaf.take()));
    let Some(leaf) = leaf.map(|leaf| leaf.into_bound(py)) else {
        return Err(error.unwrap_or_else(|| PyRuntimeError::new_err("awaited after it was over")));
    };
    if let Some(future) = Fut::cast_exact(&leaf) {
        return match error {
            Some(error) => {
                *left = Some(leaf.unbind());
                Err(error)
            }
            None if future.is_pending() => Err(PyRuntimeError::new_err("await wasn't used with future")),
            None => futures::result(future).map(Waiting::Over),
        };
    }
    let step = match error {
        None => iter::send_none(&leaf)?,
        Some(error) => {
            let method = if error.is_instance_of::<PyGeneratorExit>(py) {
                if let Ok(close) = leaf.getattr(intern!(py, "close")) {
                    close.call0()?;
                }
                None
            } else {
                leaf.getattr_opt(intern!(py, "throw"))?
            };
            if method.is_none() {
                return Err(error);
            }
            iter::throw(&leaf, error.value(py))?
        }
    };
    Ok(sorted(leaf, step))
}

// --- the object ----------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Fresh,
    Running,
    Suspended,
    Over,
}

/// A coroutine whose body is a Rust future.
pub(crate) struct Coroutine {
    qualname: &'static str,
    body: GilCell<Option<Body>>,
    stage: Flag<Stage>,
    leaf: Slot,
    root: Slot,
}

type This<'a, 'py> = Inst<'a, 'py, Coroutine>;

/// A coroutine object with that body; `qualname` is what reprs and warnings call it.
pub(crate) fn coroutine<'py, F>(
    py: Python<'py>,
    qualname: &'static str,
    body: F,
) -> PyResult<Bound<'py, PyAny>>
where
    F: Future<Output = PyResult<Py<PyAny>>> + Send + 'static,
{
    make(py, qualname, Slot::empty(), body)
}

/// As [`coroutine`], with an object that leads back to the waiting task. What a block holds by itself the garbage
/// collector can't see; this one it can, and the block asks for it with [`root`].
pub(crate) fn rooted<'py, F>(
    root: Bound<'py, PyAny>,
    qualname: &'static str,
    body: F,
) -> PyResult<Bound<'py, PyAny>>
where
    F: Future<Output = PyResult<Py<PyAny>>> + Send + 'static,
{
    make(root.py(), qualname, Slot::holding(root.unbind()), body)
}

fn make<'py, F>(py: Python<'py>, qualname: &'static str, root: Slot, body: F) -> PyResult<Bound<'py, PyAny>>
where
    F: Future<Output = PyResult<Py<PyAny>>> + Send + 'static,
{
    let body: Body = Box::pin(body);
    let (body, stage, leaf) = (GilCell::new(Some(body)), Flag::new(Stage::Fresh), Slot::empty());
    create(py, Coroutine { qualname, body, stage, leaf, root })
}

impl Class for Coroutine {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.coroutine";
    const HAS_ORIGIN: bool = true;

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.leaf.traverse(visit)?;
        self.root.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.end(py);
    }

    /// As for any coroutine: a warning if it never ran, else its `finally` parts run.
    fn finalize(this: This<'_, '_>) {
        let py = this.py();
        futures::without_current_error(py, || {
            if this.stage.get() == Stage::Fresh {
                this.end(py);
                iter::warn_never_awaited(&this.to_owned());
                return Ok(());
            }
            Coroutine::close(this)
        });
    }

    fn wants_finalize(&self) -> bool {
        matches!(self.stage.get(), Stage::Fresh | Stage::Suspended)
    }
}

/// Drops what a block holds, at once: without the interpreter its references would wait for whoever takes it next.
fn release(body: Option<Body>) {
    attached(|_| drop(body));
}

impl Coroutine {
    /// Lets go of everything.
    fn end(&self, py: Python<'_>) {
        self.stage.set(Stage::Over);
        let body = self.body.with(py, Option::take);
        drop(self.leaf.take(py));
        release(body);
        drop(self.root.take(py));
    }

    /// One step: up to where the block waits next, or to its end.
    fn step<'py>(&self, py: Python<'py>, error: Option<PyErr>) -> PyResult<Step<'py>> {
        /// Says "over" unless the step got to its end: also when it panics.
        struct Ending<'a>(&'a Flag<Stage>, Stage);
        impl Drop for Ending<'_> {
            fn drop(&mut self) {
                self.0.set(self.1);
            }
        }

        match self.stage.get() {
            Stage::Running => return Err(PyValueError::new_err("coroutine already executing")),
            Stage::Over => return Err(iter::reused()),
            Stage::Fresh if error.is_some() => self.end(py),
            Stage::Fresh | Stage::Suspended => {}
        }
        let Some(mut body) = self.body.with(py, Option::take) else {
            return Err(error.unwrap_or_else(iter::reused));
        };
        self.stage.set(Stage::Running);
        let mut ending = Ending(&self.stage, Stage::Over);
        let outer = MAIL.with(|mail| {
            mail.error.set(error);
            mail.leaf.set(self.leaf.take(py).map(Bound::unbind));
            mail.root.replace(self.root.get(py).map(Bound::unbind))
        });
        // What the block drops on its way is released at once, see `release`.
        let poll = attached(|_| body.as_mut().poll(&mut Context::from_waker(Waker::noop())));
        drop(MAIL.with(|mail| mail.root.replace(outer)).map(|root| root.into_bound(py)));
        let result = match poll {
            Poll::Ready(result) => {
                release(Some(body));
                result
            }
            Poll::Pending => {
                let (leaf, yielded) = MAIL.with(|mail| (mail.leaf.take(), mail.yielded.take()));
                drop(self.leaf.replace(py, leaf.map(|leaf| leaf.into_bound(py))));
                drop(self.body.with(py, |place| place.replace(body)));
                ending.1 = Stage::Suspended;
                return Ok(Step::Yield(
                    yielded.map_or_else(|| py.None().into_bound(py), |y| y.into_bound(py)),
                ));
            }
        };
        match result {
            Ok(value) => Ok(Step::Return(value.into_bound(py))),
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                let wrapped = PyRuntimeError::new_err("coroutine raised StopIteration");
                wrapped.set_cause(py, Some(error));
                Err(wrapped)
            }
            Err(error) => Err(error),
        }
    }
}

impl Awaitable for Coroutine {
    fn resume<'py>(this: This<'_, 'py>) -> PyResult<Step<'py>> {
        this.step(this.py(), None)
    }

    fn throw<'py>(this: This<'_, 'py>, error: PyErr) -> PyResult<Step<'py>> {
        this.step(this.py(), Some(error))
    }

    fn close(this: This<'_, '_>) -> PyResult<()> {
        let py = this.py();
        match this.stage.get() {
            Stage::Over => Ok(()),
            Stage::Running => Err(PyValueError::new_err("coroutine already executing")),
            Stage::Fresh => {
                this.end(py);
                Ok(())
            }
            Stage::Suspended => closed(py, this.step(py, Some(generator_exit(py)))),
        }
    }
}

impl iter::Coroutine for Coroutine {
    fn qualname(this: This<'_, '_>) -> &'static str {
        this.qualname
    }

    fn life(this: This<'_, '_>) -> Life {
        match this.stage.get() {
            Stage::Fresh => Life::Created,
            Stage::Running => Life::Running,
            Stage::Suspended => Life::Suspended,
            Stage::Over => Life::Closed,
        }
    }

    fn awaited<'py>(this: This<'_, 'py>) -> Option<Bound<'py, PyAny>> {
        this.leaf.get(this.py())
    }
}

/// Makes the type.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let class = Builder::of::<Coroutine>().coroutine::<Coroutine>().build(module, None, Coroutine::cell())?;
    module.py().import("collections.abc")?.getattr("Coroutine")?.call_method1("register", (class,))?;
    Ok(())
}
