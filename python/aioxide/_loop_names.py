"""asyncio's names of event loop classes, where aioxide is installed: each is one name for asyncio's class and ours."""

import functools
import inspect
import sys
import types
from abc import ABCMeta
from typing import Any

from aioxide import _stdlib
from aioxide._loop import EventLoop, is_special

_ABSENT: Any = object()


def _make_either(ours: Any, theirs: Any) -> Any:
    """A method of asyncio's loop and of ours, which subclasses call as their base's, and patches as what was there.

    It goes by the loop that it is called with, and says of itself what aioxide's says.
    """

    def chosen(args: tuple[Any, ...]) -> Any:
        return theirs if args and isinstance(args[0], _stdlib.BaseEventLoop) else ours

    def call(*args: Any, **kwargs: Any) -> Any:
        return chosen(args)(*args, **kwargs)

    async def call_and_wait(*args: Any, **kwargs: Any) -> Any:
        return await chosen(args)(*args, **kwargs)

    method: Any = call_and_wait if inspect.iscoroutinefunction(ours) else call
    functools.update_wrapper(method, ours)
    _theirs_of[method] = theirs
    return method


_either = functools.cache(_make_either)
_theirs_of: dict[Any, Any] = {}
_init = EventLoop.__init__


class _Puts:
    """What programs have put into a class, and what was there before."""

    def __init__(self, owner: type) -> None:
        self._owner = owner
        self._before: dict[str, Any] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._before

    def all(self) -> dict[str, Any]:
        return {name: vars(self._owner)[name] for name in self._before}

    def put(self, name: str, value: object) -> None:
        before = vars(self._owner).get(name, _ABSENT)
        setattr(self._owner, name, value)
        self._before.setdefault(name, before)

    def take_back(self, name: str) -> None:
        if name not in self._before:
            return
        before = self._before.pop(name)
        if before is _ABSENT:
            delattr(self._owner, name)
        else:
            setattr(self._owner, name, before)


_puts = functools.cache(_Puts)


def _let_ours_have(name: str) -> None:
    """Give our loops what a program has put there, if it is what asyncio's loops find under the name."""
    found_in = next((base for base in _stdlib.SelectorEventLoop.__mro__ if name in vars(base)), None)
    if found_in is None or name not in _puts(found_in):
        _puts(EventLoop).take_back(name)
        return
    _puts(EventLoop).put(name, vars(found_in)[name])
    running = _stdlib.get_running_loop_or_none()
    if isinstance(running, EventLoop):
        running._note_override(name)  # the others see it when they run


def _reaches_loops(base: type, name: str) -> bool:
    """Whether asyncio's loops have what this base of theirs has, and nothing in its place."""
    return getattr(_stdlib.SelectorEventLoop, name, None) is getattr(base, name, None)


class _OneNameForTwo(ABCMeta):
    """The class of these names; of ABCMeta, so that an abstract class may be a base beside one.

    `theirs` is asyncio's class, `make` what a call calls.
    """

    _theirs: Any
    _make: Any

    def __new__(meta, name: str, bases: tuple[type, ...], body: dict[str, Any], **kwargs: Any) -> Any:
        if bases == (EventLoop,):
            theirs, make = kwargs["theirs"], kwargs["make"]
            body.update(_theirs=theirs, _make=staticmethod(make), __signature__=inspect.signature(make))
            return type.__new__(meta, name, bases, body)
        bases = tuple(base._theirs if isinstance(base, meta) else base for base in bases)
        body.setdefault("__module__", sys._getframe(1).f_globals.get("__name__"))
        return type(name, bases, body, **kwargs)

    def __init__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any], **_: Any) -> None:
        super().__init__(name, bases, body)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._make(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, (EventLoop, cls._theirs))

    def __subclasscheck__(cls, subclass: type) -> bool:
        if isinstance(subclass, _OneNameForTwo):
            return issubclass(subclass._theirs, cls._theirs)
        return issubclass(subclass, (EventLoop, cls._theirs))

    def __getattribute__(cls, name: str) -> Any:
        if name.startswith("__") and name not in {"__init__", "__repr__", "__del__"}:
            return super().__getattribute__(name)
        loops = super().__getattribute__("_theirs")
        theirs = getattr(loops, name, None)
        if name in _puts(loops) or (theirs is not None and not _reaches_loops(loops, name)):
            return theirs
        ours = getattr(EventLoop, name, theirs)
        if theirs is None or not (inspect.ismethoddescriptor(ours) or ours in (_init, theirs)):
            return super().__getattribute__(name)
        return ours if ours is theirs else _either(ours, theirs)

    # What is put here, as a test's mock does, is meant for the loops of both kinds.

    @property  # type: ignore[misc]
    def __dict__(cls) -> Any:  # type: ignore[override]
        return types.MappingProxyType(_puts(cls._theirs).all())

    def __setattr__(cls, name: str, value: Any) -> None:
        theirs = cls._theirs
        there_already = False
        if inspect.isfunction(value) and value in _theirs_of:
            _puts(theirs).take_back(name)
            there_already = getattr(theirs, name, None) is _theirs_of[value]
        if not there_already:
            _puts(theirs).put(name, value)
        _let_ours_have(name)

    def __delattr__(cls, name: str) -> None:
        if name not in _puts(cls._theirs):
            raise AttributeError(f"type object '{cls.__name__}' has no attribute '{name}'")
        _puts(cls._theirs).take_back(name)
        _let_ours_have(name)


def _loop_with(selector: object = None) -> Any:
    return _stdlib.SelectorEventLoop(selector) if is_special(selector) else EventLoop(selector)


class SelectorEventLoop(EventLoop, metaclass=_OneNameForTwo, theirs=_stdlib.SelectorEventLoop, make=_loop_with):
    """What `asyncio.SelectorEventLoop` and `asyncio.EventLoop` are when aioxide is installed.

    A call makes an `aioxide.EventLoop`, or a loop of asyncio's where the program
    gives a selector of its own.  A subclass is one of asyncio's loop, on whose
    inside it may build (`_selector`, `_run_once`, ...).  Both are instances.
    """

    __module__ = "aioxide"


class BaseEventLoop(EventLoop, metaclass=_OneNameForTwo, theirs=_stdlib.BaseEventLoop, make=_stdlib.BaseEventLoop):
    """What `asyncio.BaseEventLoop` is when aioxide is installed.

    To call it and to subclass it makes what it makes of asyncio's.  Our loops
    are instances, too, and what a program puts here they have as well.
    """

    __module__ = "aioxide"


class BaseSelectorEventLoop(
    EventLoop, metaclass=_OneNameForTwo, theirs=_stdlib.BaseSelectorEventLoop, make=_stdlib.BaseSelectorEventLoop
):
    """As `BaseEventLoop`, in `asyncio.selector_events`."""

    __module__ = "asyncio.selector_events"
