"""The event loop as users see it: the native one, under asyncio's abstract class."""

import asyncio
import inspect
from typing import Any

import aioxide
from aioxide import _core, _stdlib


@_core._with_own_calls
class EventLoop(_core.EventLoop, asyncio.AbstractEventLoop):
    """An asyncio event loop, native.

    `selector` is accepted because `asyncio.SelectorEventLoop` takes one; this
    loop has its own way to wait.  With a selector of a class of the program's
    own, which may have a meaning beyond waiting, a loop of asyncio's is made; a
    subclass that wants such a selector gets TypeError.
    """

    def __new__(cls, selector: object = None, *args: Any, **kwargs: Any) -> Any:
        if cls is EventLoop and _is_special(selector):
            return _stdlib.SelectorEventLoop(selector)
        return super().__new__(cls)

    def __init__(self, selector: object = None) -> None:
        if _is_special(selector):
            super().close()
            raise TypeError(f"aioxide's event loop waits by itself, not with {selector!r}")
        super().__init__()

    def metrics(self) -> "aioxide.metrics.Metrics":
        """What this loop does and has done; the first call starts the measurements."""
        return aioxide.metrics.of(self)


EventLoop.__module__ = "aioxide"
# Further arguments are those that a subclass takes.
_itself, _selector = inspect.signature(EventLoop.__init__).parameters.values()
EventLoop.__new__.__signature__ = inspect.Signature([_itself.replace(name="cls"), _selector])  # type: ignore[attr-defined]


def _is_special(selector: object) -> bool:
    return selector is not None and type(selector).__module__ != "selectors"


class EventLoopPolicy(_stdlib.DefaultPolicy):  # type: ignore[misc]
    """asyncio's default policy, making aioxide's event loops."""

    _loop_factory = EventLoop


EventLoopPolicy.__module__ = "aioxide"


def new_event_loop() -> EventLoop:
    """Create and return a new event loop."""
    return EventLoop()


new_event_loop.__module__ = "aioxide"
