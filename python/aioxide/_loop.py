"""The event loop as users see it: the native one, under asyncio's abstract class."""

import asyncio
import inspect
from collections.abc import Callable
from typing import NoReturn

from aioxide import _core, _stdlib, metrics


class EventLoop(_core.EventLoop, asyncio.AbstractEventLoop):
    """An asyncio event loop, native.

    `selector` is accepted because `asyncio.SelectorEventLoop` takes one; this
    loop has its own way to wait.
    """

    def __init__(self, selector: object = None) -> None:
        super().__init__()

    def metrics(self) -> metrics.Metrics:
        """What this loop does and has done; the first call starts the measurements."""
        return metrics.of(self)


def _missing(name: str, stock: Callable[..., object]) -> Callable[..., NoReturn]:
    def method(self: object, *args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(f"aioxide's event loop has no {name}() yet")

    method.__name__ = name
    method.__qualname__ = f"EventLoop.{name}"
    method.__doc__ = "Not native yet: raises NotImplementedError."
    method.__signature__ = inspect.signature(stock)  # type: ignore[attr-defined]
    return method


# A method that the native loop lacks says so when it is called.  The abstract
# class raises too, but names nothing, and its coroutine methods raise only when
# they are awaited.
for _name, _abstract in vars(asyncio.AbstractEventLoop).items():
    if callable(_abstract) and not _name.startswith("__") and not hasattr(_core.EventLoop, _name):
        setattr(EventLoop, _name, _missing(_name, getattr(asyncio.SelectorEventLoop, _name, _abstract)))

EventLoop.__module__ = "aioxide"


class EventLoopPolicy(_stdlib.DefaultPolicy):  # type: ignore[misc]
    """asyncio's default policy, making aioxide's event loops."""

    _loop_factory = EventLoop


EventLoopPolicy.__module__ = "aioxide"


def new_event_loop() -> EventLoop:
    """Create and return a new event loop."""
    return EventLoop()


new_event_loop.__module__ = "aioxide"
