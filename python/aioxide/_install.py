"""Put aioxide's names in the place of asyncio's, and take them out again."""

import asyncio
import sys
import threading
from collections.abc import Mapping
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

from aioxide import _loop, _names, _shared_names, _stdlib

_ABSENT: Any = object()
_lock = threading.Lock()
_changes: list["_Change | _ChangeOfClass"] = []


class _Change(NamedTuple):
    """One binding that has been replaced."""

    owner: Any  # a module or a class
    name: str
    before: Any
    after: Any

    def make(self) -> None:
        if self.after is _ABSENT:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.after)

    def undo(self) -> None:
        """Restore the binding, unless somebody else has changed it meanwhile."""
        if vars(self.owner).get(self.name, _ABSENT) is not self.after:
            return
        if self.before is _ABSENT:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.before)


class _ChangeOfClass(NamedTuple):
    """A module that has been made an instance of another class."""

    owner: ModuleType
    before: type[ModuleType]
    after: type[ModuleType]

    def make(self) -> None:
        self.owner.__class__ = self.after

    def undo(self) -> None:
        """Restore the class, unless somebody else has changed it meanwhile."""
        if type(self.owner) is self.after:
            self.owner.__class__ = self.before


class Installation:
    """What `install` returns: as a context manager it undoes that call at the end."""

    def __init__(self, *, changed: bool) -> None:
        self._changed = changed

    def __enter__(self) -> "Installation":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._changed:
            uninstall()


def install() -> Installation:
    """Make aioxide the asyncio of this process, from now on.

    Each public name of asyncio that aioxide has an own version of is replaced,
    wherever it is bound in the asyncio package, and new event loops are
    aioxide's.  What other modules have imported from asyncio before stays what
    it was and goes on working.  A second call changes nothing.

    The result can be used in a `with` statement, which undoes what the call did.
    """
    with _lock:
        if _changes:
            return Installation(changed=False)
        _changes.extend(_plan(_names.twins()))
        for change in _changes:
            change.make()
    return Installation(changed=True)


def uninstall() -> None:
    """Give asyncio its own names back.  Does nothing if they are in place."""
    with _lock:
        while _changes:
            _changes.pop().undo()


def renew() -> None:
    """Put our Task and Future back where a program has put asyncio's in Python since."""
    with _lock:
        for change in _changes:
            if isinstance(change, _Change) and vars(change.owner).get(change.name) in _stdlib.PLAIN:
                change.make()


def installed() -> bool:
    """Whether aioxide stands in the place of asyncio."""
    return bool(_changes)


def _plan(twins: Mapping[str, Any]) -> list[_Change | _ChangeOfClass]:
    """What to replace, so that every name of `twins` leads to its twin, and quickly."""
    changes: list[_Change | _ChangeOfClass] = []
    twins = {
        **twins,
        "EventLoop": _shared_names.SelectorEventLoop,  # in asyncio, two names for one class
        "BaseSelectorEventLoop": _shared_names.BaseSelectorEventLoop,
    }
    everywhere = {}
    originals = {**vars(asyncio), **_stdlib.hooks()}
    for name, twin in twins.items():
        if name in _stdlib.CHOOSERS:
            continue
        if name in _stdlib.PUBLIC_ONLY or name not in originals:
            for module in _stdlib.PUBLIC_ONLY.get(name, ("asyncio",)):
                owner = sys.modules[module]
                changes.append(_Change(owner, name, vars(owner).get(name, _ABSENT), twin))
        else:
            everywhere[id(originals[name])] = twin
    for owner in _stdlib.modules():
        for name, value in vars(owner).items():
            if id(value) in everywhere:
                changes.append(_Change(owner, name, value, everywhere[id(value)]))
    policy = _stdlib.DefaultPolicy
    factory = _stdlib.FACTORY_ATTRIBUTE
    changes.append(_Change(policy, factory, vars(policy)[factory], _loop.EventLoop))
    package = _stdlib.package_class()
    if package is not None:
        changes.append(_ChangeOfClass(asyncio, type(asyncio), package))
        changes.append(_Change(asyncio, "__getattr__", vars(asyncio)["__getattr__"], _ABSENT))
    return changes
