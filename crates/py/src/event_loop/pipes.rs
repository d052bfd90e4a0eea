//! `connect_read_pipe` and `connect_write_pipe`: from a pipe to a transport and its protocol. Called by api.rs.

use pyo3::intern;
use pyo3::prelude::*;

use super::debug::logger;
use crate::async_fn::{self, attached, coroutine};
use crate::futures::{self, is_debug};
use crate::transports::{pipe_read, pipe_write};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// Which end of the pipe.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Read,
    Write,
}

/// `connect_read_pipe(protocol_factory, pipe)` and `connect_write_pipe(protocol_factory, pipe)`.
pub(super) fn connect<'py>(
    event_loop: &Bound<'py, PyAny>,
    end: End,
    protocol_factory: Py<PyAny>,
    pipe: Py<PyAny>,
) -> Object<'py> {
    let (name, text) = match end {
        End::Read => ("BaseEventLoop.connect_read_pipe", "Read pipe %r connected: (%r, %r)"),
        End::Write => ("BaseEventLoop.connect_write_pipe", "Write pipe %r connected: (%r, %r)"),
    };
    let (py, event_loop) = (event_loop.py(), event_loop.clone().unbind());
    coroutine(py, name, async move {
        let (transport, protocol, waiter) = attached(|py| -> PyResult<_> {
            let (event_loop, pipe) = (event_loop.bind(py), pipe.bind(py));
            let protocol = protocol_factory.bind(py).call0()?;
            let waiter = futures::new(event_loop)?;
            let transport = match end {
                End::Read => pipe_read::make(event_loop, pipe, &protocol, Some(&waiter))?,
                End::Write => pipe_write::make(event_loop, pipe, &protocol, Some(&waiter))?,
            };
            Ok((transport.unbind(), protocol.unbind(), waiter.unbind()))
        })?;
        if let Err(error) = async_fn::wait(waiter).await {
            attached(|py| transport.call_method0(py, intern!(py, "close")))?;
            return Err(error);
        }
        attached(|py| {
            if is_debug(event_loop.bind(py))? {
                let fd = pipe.call_method0(py, intern!(py, "fileno"))?;
                logger(py)?.call_method1("debug", (text, fd, &transport, &protocol))?;
            }
            Ok((transport, protocol).into_pyobject(py)?.into_any().unbind())
        })
    })
}
