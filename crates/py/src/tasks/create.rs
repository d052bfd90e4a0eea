//! Making tasks: `create_task`, `ensure_future`, and the eager task factories.

use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use crate::anyfuture;
use crate::ffi::args::{Args, Signature, given};
use crate::ffi::cell::Slot;
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{LoopRef, Of, caller, getter};
use crate::ffi::{function, types};
use crate::local::LoopCore;
use crate::names::asyncio;
use crate::{calls, futures, tasks};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// `event_loop.create_task(coro)`.
#[inline]
pub(crate) fn task<'py>(event_loop: &Bound<'py, PyAny>, coro: &Bound<'py, PyAny>) -> Object<'py> {
    if let Some(core) = LoopCore::of(event_loop).filter(|core| !core.overrides_tasks()) {
        let eager = match core.task_factory().get(event_loop.py()) {
            None => Some(false),
            Some(factory) => is_native(&factory).then_some(true),
        };
        if let Some(eager) = eager {
            core.check_closed()?;
            return tasks::new(event_loop, coro.clone(), None, None, eager);
        }
    }
    event_loop.call_method1(intern!(event_loop.py(), "create_task"), (coro,))
}

/// `event_loop.create_task(*args)`, keywords and all.
#[inline]
pub(crate) fn task_with<'py>(event_loop: &Bound<'py, PyAny>, args: Args<'_, 'py>) -> Object<'py> {
    if let (Some(coro), 1, false) = (args.get(0), args.len(), args.has_names()) {
        return task(event_loop, &coro);
    }
    match LoopCore::of(event_loop) {
        Some(core) if !core.overrides_tasks() => {
            calls::create_task(LoopRef { object: event_loop.as_borrowed(), core }, args)
        }
        _ => {
            let (positional, keywords) = args.to_call()?;
            event_loop.call_method(intern!(event_loop.py(), "create_task"), positional, keywords.as_ref())
        }
    }
}

/// `create_task(coro, **kwargs)` on the running loop.
fn create_task<'py>(args: Args<'_, 'py>) -> Object<'py> {
    if args.len() != 1 {
        return Err(PyTypeError::new_err(format!(
            "create_task() takes 1 positional argument but {} were given",
            args.len()
        )));
    }
    task_with(&anyfuture::running_loop(args.py())?, args)
}

/// A coroutine that awaits any awaitable: a plain one of Python, as `Task.get_coro()` promises.
#[cold]
fn wrap_awaitable<'py>(awaitable: &Bound<'py, PyAny>) -> Object<'py> {
    static WRAP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = awaitable.py();
    let define = || {
        let namespace = PyDict::new(py);
        py.run(
            c"async def _wrap_awaitable(awaitable):\n    return await awaitable\n",
            Some(&namespace),
            None,
        )?;
        namespace.as_any().get_item("_wrap_awaitable").map(Bound::unbind)
    };
    WRAP.get_or_try_init(py, define)?.bind(py).call1((awaitable,))
}

/// `ensure_future(coro_or_future, loop=event_loop)`.
#[inline]
pub(crate) fn ensure_future<'py>(
    object: &Bound<'py, PyAny>,
    event_loop: Option<&Bound<'py, PyAny>>,
) -> Object<'py> {
    let py = object.py();
    let is_plain = types::is_native_coroutine(object);
    if !is_plain && anyfuture::is_future(object)? {
        if let Some(event_loop) = event_loop
            && !anyfuture::loop_of(object)?.is(event_loop)
        {
            let text = "The future belongs to a different loop than the one specified as the loop argument";
            return Err(PyValueError::new_err(text));
        }
        return Ok(object.clone());
    }
    let is_coroutine = is_plain || tasks::is_coroutine(object)?;
    let coro = if is_coroutine {
        object.clone()
    } else if py.import("inspect")?.call_method1("isawaitable", (object,))?.is_truthy()? {
        wrap_awaitable(object)?
    } else {
        return Err(PyTypeError::new_err("An asyncio.Future, a coroutine or an awaitable is required"));
    };
    let current;
    let event_loop = match event_loop {
        Some(event_loop) => event_loop,
        None => {
            current = futures::current_event_loop(py)?;
            &current
        }
    };
    task(event_loop, &coro).inspect_err(|error| {
        // No loop will take it: without this, "never awaited" would hide the reason.
        if is_coroutine && error.is_instance_of::<PyRuntimeError>(py) {
            let _ = object.call_method0(intern!(py, "close"));
        }
    })
}

fn ensure_future_function<'py>(args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "ensure_future",
        positional: &["coro_or_future"],
        required: 1,
        positional_only: 0,
        keyword_only: &["loop"],
    };
    let [object, event_loop] = SIGNATURE.bind::<2>(args)?;
    let Some(object) = object else { return Err(PyTypeError::new_err("ensure_future() needs an argument")) };
    ensure_future(&object.to_owned(), given(event_loop).as_ref())
}

// --- eager factories ---------------------------------------------------------------------------

/// What `create_eager_task_factory` makes.
pub(crate) struct EagerFactory {
    constructor: Slot,
}

impl Class for EagerFactory {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.EagerTaskFactory";

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.constructor.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop(self.constructor.take(py));
    }
}

/// Whether this factory makes our own tasks, eagerly: then there is no need to call it.
#[inline]
pub(crate) fn is_native(factory: &Bound<'_, PyAny>) -> bool {
    Inst::<EagerFactory>::cast_exact(factory)
        .is_some_and(|factory| factory.constructor.holds(&types::task_type(factory.py())))
}

/// `factory(loop, coro, *, eager_start=True, **kwargs)`.
fn call_factory<'py>(this: Inst<'_, 'py, EagerFactory>, args: Args<'_, 'py>) -> Object<'py> {
    let py = args.py();
    let (Some(event_loop), Some(coro), 2) = (args.get(0), args.get(1), args.len()) else {
        let text =
            format!("factory() takes 2 positional arguments (loop and coro) but {} were given", args.len());
        return Err(PyTypeError::new_err(text));
    };
    let (_, keywords) = args.to_call()?;
    let keywords = keywords.unwrap_or_else(|| PyDict::new(py));
    keywords.set_item(intern!(py, "loop"), event_loop)?;
    if !keywords.contains(intern!(py, "eager_start"))? {
        keywords.set_item(intern!(py, "eager_start"), true)?;
    }
    let Some(constructor) = this.constructor.get(py) else { return Err(PyRuntimeError::new_err("cleared")) };
    constructor.call((coro,), Some(&keywords))
}

/// The code of CPython's own eager factories, by which anyio knows one.
static STOCK_CODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn factory_code<'py>(this: Inst<'_, 'py, EagerFactory>) -> Object<'py> {
    match STOCK_CODE.get(this.py()) {
        Some(code) => Ok(code.bind(this.py()).clone()),
        None => Err(PyAttributeError::new_err("__code__")), // before 3.12 there were no eager factories
    }
}

/// `__closure__[0].cell_contents` is the constructor, as it is for the function that CPython's is.
fn factory_closure<'py>(this: Inst<'_, 'py, EagerFactory>) -> Object<'py> {
    let py = this.py();
    let cell = py.import("types")?.getattr("CellType")?.call1((this.constructor.get(py),))?;
    Ok(PyTuple::new(py, [cell])?.into_any())
}

fn factory_signature<'py>(this: Inst<'_, 'py, EagerFactory>) -> Object<'py> {
    let py = this.py();
    let shown = py.eval(
        c"lambda loop, coro, *, name=None, context=None, eager_start=True, **kwargs: ...",
        None,
        None,
    )?;
    py.import("inspect")?.call_method1("signature", (shown,))
}

fn factory_of<'py>(constructor: Bound<'py, PyAny>) -> Object<'py> {
    create(constructor.py(), EagerFactory { constructor: Slot::holding(constructor.clone().unbind()) })
}

fn create_eager_task_factory<'py>(args: Args<'_, 'py>) -> Object<'py> {
    const SIGNATURE: Signature = Signature {
        name: "create_eager_task_factory",
        positional: &["custom_task_constructor"],
        required: 1,
        positional_only: 0,
        keyword_only: &[],
    };
    let [constructor] = SIGNATURE.bind::<1>(args)?;
    factory_of(constructor.map_or_else(|| args.py().None().into_bound(args.py()), |c| c.to_owned()))
}

/// Makes the functions and the factory's type.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    if let Some(factory) = asyncio(py).tasks.bind(py).getattr_opt("eager_task_factory")?
        && let Some(code) = factory.getattr_opt("__code__")?
    {
        let _ = STOCK_CODE.set(py, code.unbind());
    }
    Builder::of::<EagerFactory>()
        .slot(pyo3::ffi::Py_tp_call, caller::<Of<EagerFactory>, _>(call_factory))
        .attribute(getter::<Of<EagerFactory>, _>(c"__code__", factory_code))
        .attribute(getter::<Of<EagerFactory>, _>(c"__signature__", factory_signature))
        .attribute(getter::<Of<EagerFactory>, _>(c"__closure__", factory_closure))
        .build(module, None, EagerFactory::cell())?;
    module.add("create_task", function::function(py, "asyncio.tasks", "create_task", create_task)?)?;
    module.add(
        "ensure_future",
        function::function(py, "asyncio.tasks", "ensure_future", ensure_future_function)?,
    )?;
    module.add(
        "create_eager_task_factory",
        function::later_function(
            py,
            "asyncio.tasks",
            "create_eager_task_factory",
            c"lambda custom_task_constructor: ...",
            create_eager_task_factory,
        )?,
    )?;
    module.add("eager_task_factory", factory_of(types::task_type(py))?)
}
