"""The event loop as users see it: the native one, under asyncio's abstract class."""

import asyncio
import sys

import aioxide
from aioxide import _core, _stdlib


@_core._with_own_calls
class EventLoop(_core.EventLoop, asyncio.AbstractEventLoop):
    """An asyncio event loop, native.

    `selector` is accepted because asyncio's loop takes one; this loop has its
    own way to wait.  A selector of a class of the program's own, which may have
    a meaning beyond waiting, raises TypeError: `SelectorEventLoop` takes it.
    """

    def __init__(self, selector: object = None) -> None:
        if is_special(selector):
            super().close()
            raise TypeError(f"aioxide's event loop waits by itself, not with {selector!r}")
        super().__init__()

    @property
    def _nest_patched(self) -> bool:
        """What `nest_asyncio` asks for, in every version of it, before it rewrites a loop to run within a run.

        There is nothing to rewrite here: our loops can do that, and do from now on.  It has made asyncio's tasks
        and futures those in Python just before, which a native loop has no use for.
        """
        if sys._getframe(1).f_code.co_name == "_patch_loop":
            _core._allow_nested_runs(True)
            aioxide._install.renew()
        if not _core._allows_nested_runs():
            raise AttributeError("_nest_patched")
        return True

    def metrics(self) -> "aioxide.metrics.Metrics":
        """What this loop does and has done; the first call starts the measurements."""
        return aioxide.metrics.of(self)


EventLoop.__module__ = "aioxide"


def is_special(selector: object) -> bool:
    """Whether a selector is of a class of the program's own."""
    return selector is not None and type(selector).__module__ != "selectors"


class EventLoopPolicy(_stdlib.DefaultPolicy):  # type: ignore[misc]
    """asyncio's default policy, making aioxide's event loops."""

    _loop_factory = EventLoop


EventLoopPolicy.__module__ = "aioxide"


def new_event_loop() -> EventLoop:
    """Create and return a new event loop."""
    return EventLoop()


new_event_loop.__module__ = "aioxide"
