//! `open_connection`, `start_server`, `open_unix_connection`, `start_unix_server`: streams over what the loop makes.
//!
//! The loop's own methods do the work, so any loop will do; ours know the factory of a server's protocols.

use std::sync::OnceLock;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3::{Borrowed, ffi, intern};

use super::reader::{DEFAULT_LIMIT, limit_of};
use super::{protocol, reader, writer};
use crate::anyfuture;
use crate::async_fn::{self, attached};
use crate::ffi::args::Args;
use crate::ffi::cell::Slot;
use crate::ffi::class::{Builder, Class, Inst, TypeCell, create};
use crate::ffi::function;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::method::{AnyObject, Method, Of, caller, noargs};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// What a server calls for each connection.
pub(crate) struct Factory {
    event_loop: Slot,
    callback: Slot,
    limit: usize,
}

impl Class for Factory {
    const NAME: &'static std::ffi::CStr = c"aioxide._core.StreamFactory";

    fn cell() -> &'static TypeCell {
        static CELL: TypeCell = TypeCell::new();
        &CELL
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.event_loop.traverse(visit)?;
        self.callback.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        drop((self.event_loop.take(py), self.callback.take(py)));
    }
}

fn call<'py>(this: Inst<'_, 'py, Factory>, _: Args<'_, 'py>) -> Object<'py> {
    let py = this.py();
    let Some(event_loop) = this.event_loop.get(py) else {
        return Err(PyTypeError::new_err("the factory of a server that is gone"));
    };
    let reader = reader::make(&event_loop, this.limit)?;
    protocol::make(&event_loop, &reader, this.callback.get(py))
}

/// One of the four functions.
#[derive(Debug)]
struct Opener {
    name: &'static str,
    /// The loop's method that does the work.
    method: &'static str,
    /// The parameters of its own that may be given by position; the first is required of a server.
    own: &'static [&'static str],
    required: usize,
}

static OPEN_CONNECTION: Opener =
    Opener { name: "open_connection", method: "create_connection", own: &["host", "port"], required: 0 };
static START_SERVER: Opener = Opener {
    name: "start_server",
    method: "create_server",
    own: &["client_connected_cb", "host", "port"],
    required: 1,
};
static OPEN_UNIX_CONNECTION: Opener =
    Opener { name: "open_unix_connection", method: "create_unix_connection", own: &["path"], required: 0 };
static START_UNIX_SERVER: Opener = Opener {
    name: "start_unix_server",
    method: "create_unix_server",
    own: &["client_connected_cb", "path"],
    required: 1,
};

impl Opener {
    /// Sorts the arguments: a list of its own parameters' and a dict of the rest, which go to the loop's method.
    fn bind<'py>(&self, args: Args<'_, 'py>) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyDict>)> {
        let (py, name) = (args.py(), self.name);
        let (positional, keywords) = args.to_call()?;
        let keywords = keywords.unwrap_or_else(|| PyDict::new(py));
        if positional.len() > self.own.len() {
            let (most, given) = (self.own.len(), positional.len());
            return Err(PyTypeError::new_err(format!(
                "{name}() takes from {} to {most} positional arguments but {given} were given",
                self.required
            )));
        }
        let values = PyList::new(py, positional.iter())?;
        for (place, parameter) in self.own.iter().enumerate() {
            let named = keywords.get_item(parameter)?;
            if named.is_some() {
                keywords.del_item(parameter)?;
            }
            match (place < positional.len(), named) {
                (true, None) => {}
                (true, Some(_)) => {
                    return Err(PyTypeError::new_err(format!(
                        "{name}() got multiple values for argument '{parameter}'"
                    )));
                }
                (false, Some(value)) => values.append(value)?,
                (false, None) if place < self.required => {
                    return Err(PyTypeError::new_err(format!(
                        "{name}() missing 1 required positional argument: '{parameter}'"
                    )));
                }
                (false, None) => values.append(py.None())?,
            }
        }
        Ok((values, keywords))
    }

    /// The same arguments, and the limit, where they are needed: `root` is what `bind` gave.
    fn recall<'py>(root: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyDict>, usize)> {
        let py = root.py();
        let keywords = root.get_item(1)?.cast_into::<PyDict>()?;
        let limit = match keywords.get_item(intern!(py, "limit"))? {
            Some(limit) => {
                keywords.del_item(intern!(py, "limit"))?;
                limit_of(&limit)?
            }
            None => DEFAULT_LIMIT,
        };
        Ok((root.get_item(0)?, keywords, limit))
    }
}

/// The coroutine of `open_connection` or its Unix twin.
fn open<'py>(opener: &'static Opener, args: Args<'_, 'py>) -> Object<'py> {
    let root = opener.bind(args)?.into_pyobject(args.py())?.into_any();
    async_fn::rooted(root, opener.name, async move {
        let (event_loop, reader, protocol, connecting) = attached(|py| {
            let event_loop = anyfuture::running_loop(py)?;
            let (args, keywords, limit) = Opener::recall(&async_fn::root(py)?)?;
            let reader = reader::make(&event_loop, limit)?;
            let protocol = protocol::make(&event_loop, &reader, None)?;
            args.call_method1(intern!(py, "insert"), (0, constant(&protocol)?))?;
            let args = args.cast::<PyList>()?.to_tuple();
            let connecting = event_loop.call_method(opener.method, args, Some(&keywords))?;
            Ok::<_, PyErr>((event_loop.unbind(), reader.unbind(), protocol.unbind(), connecting.unbind()))
        })?;
        let pair = async_fn::wait(connecting).await?;
        attached(|py| {
            let (transport, reader) = (pair.bind(py).get_item(0)?, reader.into_bound(py));
            let writer =
                writer::make(&transport, protocol.bind(py), Some(reader.clone()), event_loop.bind(py))?;
            Ok((reader, writer).into_pyobject(py)?.into_any().unbind())
        })
    })
}

/// A callable that gives `object`.
fn constant<'py>(object: &Bound<'py, PyAny>) -> Object<'py> {
    fn give<'py>(object: Borrowed<'_, 'py, PyAny>) -> Object<'py> {
        Ok(object.to_owned())
    }
    static GIVE: OnceLock<Method> = OnceLock::new();
    GIVE.get_or_init(|| noargs::<AnyObject, _>(c"factory", give)).bound(object)
}

/// The coroutine of `start_server` or its Unix twin.
fn serve<'py>(opener: &'static Opener, args: Args<'_, 'py>) -> Object<'py> {
    let root = opener.bind(args)?.into_pyobject(args.py())?.into_any();
    async_fn::rooted(root, opener.name, async move {
        let starting = attached(|py| {
            let event_loop = anyfuture::running_loop(py)?;
            let (args, keywords, limit) = Opener::recall(&async_fn::root(py)?)?;
            let factory = Factory {
                callback: Slot::new(
                    Some(args.get_item(0)?.unbind()).filter(|callback| !callback.is_none(py)),
                ),
                event_loop: Slot::holding(event_loop.clone().unbind()),
                limit,
            };
            args.set_item(0, create(py, factory)?)?;
            let args = args.cast::<PyList>()?.to_tuple();
            event_loop.call_method(opener.method, args, Some(&keywords)).map(Bound::unbind)
        })?;
        async_fn::wait(starting).await
    })
}

fn open_connection<'py>(args: Args<'_, 'py>) -> Object<'py> {
    open(&OPEN_CONNECTION, args)
}

fn open_unix_connection<'py>(args: Args<'_, 'py>) -> Object<'py> {
    open(&OPEN_UNIX_CONNECTION, args)
}

fn start_server<'py>(args: Args<'_, 'py>) -> Object<'py> {
    serve(&START_SERVER, args)
}

fn start_unix_server<'py>(args: Args<'_, 'py>) -> Object<'py> {
    serve(&START_UNIX_SERVER, args)
}

/// Makes the type and the functions.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    Builder::of::<Factory>().slot(ffi::Py_tp_call, caller::<Of<Factory>, _>(call)).build(
        module,
        None,
        Factory::cell(),
    )?;
    let coroutine = |name, function: PyResult<Bound<'_, PyAny>>| module.add(name, function?);
    let (py, streams) = (module.py(), "asyncio.streams");
    let name = OPEN_CONNECTION.name;
    coroutine(name, function::coroutine_function(py, streams, name, open_connection))?;
    let name = START_SERVER.name;
    coroutine(name, function::coroutine_function(py, streams, name, start_server))?;
    let name = OPEN_UNIX_CONNECTION.name;
    coroutine(name, function::coroutine_function(py, streams, name, open_unix_connection))?;
    let name = START_UNIX_SERVER.name;
    coroutine(name, function::coroutine_function(py, streams, name, start_unix_server))
}
