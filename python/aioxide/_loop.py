"""The event loop as users see it: the native one, under asyncio's abstract class."""

import asyncio

import aioxide
from aioxide import _core, _stdlib


@_core._with_own_calls
class EventLoop(_core.EventLoop, asyncio.AbstractEventLoop):
    """An asyncio event loop, native.

    `selector` is accepted because `asyncio.SelectorEventLoop` takes one; this
    loop has its own way to wait.
    """

    def __init__(self, selector: object = None) -> None:
        super().__init__()

    def metrics(self) -> "aioxide.metrics.Metrics":
        """What this loop does and has done; the first call starts the measurements."""
        return aioxide.metrics.of(self)


EventLoop.__module__ = "aioxide"


class EventLoopPolicy(_stdlib.DefaultPolicy):  # type: ignore[misc]
    """asyncio's default policy, making aioxide's event loops."""

    _loop_factory = EventLoop


EventLoopPolicy.__module__ = "aioxide"


def new_event_loop() -> EventLoop:
    """Create and return a new event loop."""
    return EventLoop()


new_event_loop.__module__ = "aioxide"
