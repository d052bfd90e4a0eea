"""The event loop as users see it: the native one, under asyncio's abstract class."""

import asyncio
import functools
import inspect
import sys
import types
from abc import ABCMeta
from typing import Any

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
        if _is_special(selector):
            super().close()
            raise TypeError(f"aioxide's event loop waits by itself, not with {selector!r}")
        super().__init__()

    @property
    def _nest_patched(self) -> bool:
        """What `nest_asyncio` asks for, in every version of it, before it rewrites a loop to run within a run.

        There is nothing to rewrite here: our loops can do that, and do from now on.  It has made asyncio's tasks
        and futures those in Python just before, which a native loop has no use for.
        """
        if sys._getframe(1).f_code.co_name != "_patch_loop":
            raise AttributeError("_nest_patched")
        _core._allow_nested_runs(True)
        aioxide._install.renew()
        return True

    def metrics(self) -> "aioxide.metrics.Metrics":
        """What this loop does and has done; the first call starts the measurements."""
        return aioxide.metrics.of(self)


EventLoop.__module__ = "aioxide"
_init = EventLoop.__init__


def _is_special(selector: object) -> bool:
    return selector is not None and type(selector).__module__ != "selectors"


class _EitherMethod:
    """A method of `SelectorEventLoop`, which subclasses call as their base's, and patches as what was there.

    It goes by the loop that it is called with, and says of itself what aioxide's says.
    """

    ours: Any = None

    def __init__(self, ours: Any, theirs: Any) -> None:
        functools.update_wrapper(self, ours)
        self.ours, self.theirs = ours, theirs

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        method = self.theirs if args and isinstance(args[0], _stdlib.SelectorEventLoop) else self.ours
        return method(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ours, name)


_either_method = functools.cache(_EitherMethod)


class _OneNameForTwo(ABCMeta):
    """The class of `SelectorEventLoop`; of ABCMeta, so that an abstract class may be a base beside it."""

    def __new__(meta, name: str, bases: tuple[type, ...], body: dict[str, Any], **kwargs: Any) -> Any:
        if bases == (EventLoop,):
            return type.__new__(meta, name, bases, body)
        bases = tuple(_stdlib.SelectorEventLoop if base is SelectorEventLoop else base for base in bases)
        body.setdefault("__module__", sys._getframe(1).f_globals.get("__name__"))
        return type(name, bases, body, **kwargs)

    def __call__(cls, selector: object = None) -> Any:
        return _stdlib.SelectorEventLoop(selector) if _is_special(selector) else EventLoop(selector)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, (EventLoop, _stdlib.SelectorEventLoop))

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, (EventLoop, _stdlib.SelectorEventLoop))

    def __getattribute__(cls, name: str) -> Any:
        if name.startswith("__") and name not in {"__init__", "__repr__", "__del__"}:
            return super().__getattribute__(name)
        theirs = getattr(_stdlib.SelectorEventLoop, name, None)
        ours = getattr(EventLoop, name, theirs)
        if theirs is None or not (inspect.ismethoddescriptor(ours) or ours in (_init, theirs)):
            return super().__getattribute__(name)  # the program's own, too
        return ours if ours is theirs else _either_method(ours, theirs)

    # What is put here, as a test's mock does, is meant for aioxide's loops.

    @property  # type: ignore[misc]
    def __dict__(cls) -> Any:  # type: ignore[override]
        return vars(EventLoop)

    def __setattr__(cls, name: str, value: object) -> None:
        setattr(EventLoop, name, value.ours if isinstance(value, _EitherMethod) else value)

    def __delattr__(cls, name: str) -> None:
        delattr(EventLoop, name)


class SelectorEventLoop(EventLoop, metaclass=_OneNameForTwo):
    """What `asyncio.SelectorEventLoop` and `asyncio.EventLoop` are when aioxide is installed.

    A call makes an `aioxide.EventLoop`, or a loop of asyncio's where the program
    gives a selector of its own.  A subclass is one of asyncio's loop, on whose
    inside it may build (`_selector`, `_run_once`, ...).  Both are instances.
    """

    __module__ = "aioxide"


class EventLoopPolicy(_stdlib.DefaultPolicy):  # type: ignore[misc]
    """asyncio's default policy, making aioxide's event loops."""

    _loop_factory = EventLoop


EventLoopPolicy.__module__ = "aioxide"


def new_event_loop() -> EventLoop:
    """Create and return a new event loop."""
    return EventLoop()


new_event_loop.__module__ = "aioxide"
