//! What differs between the supported Pythons, as named facts.

/// `Future.__init__` and `Task.__init__` may be called once only (3.15, gh-142556); before, a second call starts anew.
pub(crate) const INIT_ONCE: bool = cfg!(Py_3_15);
