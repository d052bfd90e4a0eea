"""One name for two classes: asyncio's own and ours.

Where aioxide is installed, some names of asyncio stand for both: subclasses are of asyncio's class, on whose inside
they may build, instances are those of either, and what a program puts there, as a test's mock does, both have.
"""

import functools
import inspect
import sys
import types
from abc import ABCMeta
from collections.abc import Callable
from typing import Any, NamedTuple

_ABSENT: Any = object()


def _make_either(ours: Any, theirs: Any, root: type) -> Any:
    """A method of asyncio's class and of ours, which subclasses call as their base's, and patches as what was there.

    It goes by the object that it is called with, and says of itself what aioxide's says.
    """

    def chosen(args: tuple[Any, ...]) -> Any:
        return theirs if args and issubclass(type(args[0]), root) else ours

    def call(*args: Any, **kwargs: Any) -> Any:
        return chosen(args)(*args, **kwargs)

    async def call_and_wait(*args: Any, **kwargs: Any) -> Any:
        return await chosen(args)(*args, **kwargs)

    method: Any = call_and_wait if inspect.iscoroutinefunction(theirs) else call
    functools.update_wrapper(method, ours)
    _theirs_of[method] = theirs
    return method


_either = functools.cache(_make_either)
_theirs_of: dict[Any, Any] = {}


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


class Pair(NamedTuple):
    """A class of ours and those of asyncio's that it stands for."""

    ours: Any
    theirs: Any  # whose place ours takes
    root: Any  # the first of its bases that is one
    on_put: Callable[[str], None]  # called when ours has got a name

    def reaches(self, base: type, name: str) -> bool:
        """Whether asyncio's objects have what this base of theirs has, and nothing in its place."""
        return getattr(self.theirs, name, None) is getattr(base, name, None)

    def let_ours_have(self, name: str) -> None:
        """Give ours what a program has put there, if it is what asyncio's find under the name."""
        found_in = next((base for base in self.theirs.__mro__ if name in vars(base)), None)
        if found_in is None or name not in _puts(found_in):
            _puts(self.ours).take_back(name)
            return
        _puts(self.ours).put(name, vars(found_in)[name])
        self.on_put(name)


class OneNameForTwo(ABCMeta):
    """The class of these names; of ABCMeta, so that an abstract class may be a base beside one.

    `pair` says what the name is for, `theirs` is asyncio's class of that name, `make` what a call calls.
    """

    _pair: Pair
    _theirs: Any
    _make: Any

    def __new__(meta, name: str, bases: tuple[type, ...], body: dict[str, Any], **kwargs: Any) -> Any:
        if "pair" in kwargs:
            pair, theirs, make = kwargs["pair"], kwargs["theirs"], kwargs["make"]
            body.update(_pair=pair, _theirs=theirs, _make=staticmethod(make), __signature__=inspect.signature(make))
            return type.__new__(meta, name, bases, body)
        bases = tuple(base._theirs if isinstance(base, meta) else base for base in bases)
        body.setdefault("__module__", sys._getframe(1).f_globals.get("__name__"))
        is_abstract = any(getattr(value, "__isabstractmethod__", False) for value in body.values())
        return (ABCMeta if is_abstract else type)(name, bases, body, **kwargs)

    def __init__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any], **_: Any) -> None:
        super().__init__(name, bases, body)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._make(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, (cls._pair.ours, cls._theirs))

    def __subclasscheck__(cls, subclass: type) -> bool:
        if isinstance(subclass, OneNameForTwo):
            return issubclass(subclass._theirs, cls._theirs)
        return issubclass(subclass, (cls._pair.ours, cls._theirs))

    def __getattribute__(cls, name: str) -> Any:
        if name.startswith("__") and name not in {"__init__", "__repr__", "__del__"}:
            return super().__getattribute__(name)
        pair, base = super().__getattribute__("_pair"), super().__getattribute__("_theirs")
        theirs = getattr(base, name, None)
        if name in _puts(base) or (theirs is not None and not pair.reaches(base, name)):
            return theirs
        ours = getattr(pair.ours, name, theirs)
        if theirs is None and ours is not None:
            return ours
        if theirs is None or not (inspect.ismethoddescriptor(ours) or ours in (pair.ours.__init__, theirs)):
            return super().__getattribute__(name)
        return ours if ours is theirs else _either(ours, theirs, pair.root)

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
        cls._pair.let_ours_have(name)

    def __delattr__(cls, name: str) -> None:
        if name not in _puts(cls._theirs):
            raise AttributeError(f"type object '{cls.__name__}' has no attribute '{name}'")
        _puts(cls._theirs).take_back(name)
        cls._pair.let_ours_have(name)
