//! What differs between the supported Pythons, as named facts.

/// `Future.__init__` and `Task.__init__` may be called once only (3.15, gh-142556); before, a second call starts anew.
pub(crate) const INIT_ONCE: bool = cfg!(Py_3_15);

/// Futures know the tasks that await them, for `capture_call_graph` and `python -m asyncio ps` (3.14).
pub(crate) const AWAITED_BY: bool = cfg!(Py_3_14);

/// How `await` names what can't be awaited: "'X' object can't be awaited" (3.14), not "object X can't be used in ...".
pub(crate) const SHORT_AWAIT_ERROR: bool = cfg!(Py_3_14);

/// Programs may say who watches their child processes (gone in 3.14).
pub(crate) const CHILD_WATCHERS: bool = cfg!(not(Py_3_14));

/// Whether task factories are told the name of a task, as of 3.14.
pub(crate) const FACTORIES_TAKE_NAMES: bool = cfg!(Py_3_14);

/// A server keeps the context of its making for its connections (3.15); before, they have that in which serving starts.
pub(crate) const SERVERS_KEEP_CONTEXT: bool = cfg!(Py_3_15);

/// A server is told which transport it gets or loses (3.13: gh-113538); before it has `_active_count`.
pub(crate) const SERVERS_KNOW_TRANSPORTS: bool = cfg!(Py_3_13);
