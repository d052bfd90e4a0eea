//! `asyncio.to_thread`.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::anyfuture::running_loop;
use crate::await_on;
use crate::ffi::args::Args;
use crate::ffi::{context, function};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// `to_thread(func, /, *args, **kwargs)`.
fn to_thread<'py>(args: Args<'_, 'py>) -> Object<'py> {
    let py = args.py();
    if args.len() == 0 {
        return Err(PyTypeError::new_err("to_thread() missing 1 required positional argument: 'func'"));
    }
    let (positional, keywords) = args.to_call()?;
    let call = PyTuple::new(py, [Some(positional.into_any()), keywords.map(Bound::into_any)])?;
    await_on::coroutine("to_thread", call.into_any(), submit)
}

/// Hands the call over to a thread: `loop.run_in_executor(None, partial(context.run, func, *args, **kwargs))`.
fn submit(call: Bound<'_, PyAny>) -> Object<'_> {
    let py = call.py();
    let event_loop = running_loop(py)?;
    let positional = call.get_item(0)?.cast_into::<PyTuple>()?;
    let keywords = call.get_item(1)?.cast_into().ok();
    let mut arguments = vec![context::copy_current(py)?.getattr(intern!(py, "run"))?];
    arguments.extend(positional.iter());
    let partial = py.import(intern!(py, "functools"))?.getattr(intern!(py, "partial"))?;
    let call = partial.call(PyTuple::new(py, arguments)?, keywords.as_ref())?;
    event_loop.call_method1(intern!(py, "run_in_executor"), (py.None(), call))
}

/// Makes the function.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add(
        "to_thread",
        function::coroutine_function(module.py(), "asyncio.threads", "to_thread", to_thread)?,
    )
}
