//! The border: raw type slots, layouts of CPython's objects and per-version differences. All unsafe code is here.
//!
//! Each file gives a safe, typed API to the rest of the crate; SAFETY.md states the contract file by file.

pub(crate) mod args;
pub(crate) mod attach;
pub(crate) mod attr;
pub(crate) mod buffer;
pub(crate) mod cell;
pub(crate) mod class;
pub(crate) mod context;
pub(crate) mod coroutine_method;
pub(crate) mod detach;
pub(crate) mod frames;
pub(crate) mod function;
pub(crate) mod gathering;
pub(crate) mod gc;
pub(crate) mod handled;
pub(crate) mod holds;
mod instance_dict;
pub(crate) mod iter;
pub(crate) mod layout;
pub(crate) mod method;
pub(crate) mod origins;
pub(crate) mod prefetch;
pub(crate) mod scratch;
pub(crate) mod spares;
#[cfg(Py_3_12)]
pub(crate) mod stop;
pub(crate) mod thread;
pub(crate) mod type_cell;
pub(crate) mod types;
mod watchers;
