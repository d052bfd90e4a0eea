"""The `__dict__` of our objects: what asyncio keeps there, and a class of ours natively, is found in it."""

import types
import weakref
from collections.abc import Iterator, MutableMapping
from typing import Any

_found: weakref.WeakKeyDictionary[type, dict[str, None]] = weakref.WeakKeyDictionary()

# Of these, asyncio's classes have a property, and what they set later, if at all.
_PROPERTIES = frozenset({"_stream_reader"})
_LATER = frozenset({"_cancelling", "_loop", "_source_traceback", "_strong_reader"})


def _native(cls: type) -> dict[str, None]:
    """The private attributes of asyncio's that a class of ours keeps for its objects, in a fixed order."""
    if cls not in _found:
        bases = reversed(cls.__mro__)
        _found[cls] = {name: None for base in bases for name, value in vars(base).items() if _is_kept(name, value)}
    return _found[cls]


def _is_kept(name: str, value: object) -> bool:
    if not isinstance(value, types.GetSetDescriptorType) or name in _PROPERTIES:
        return False
    return name.startswith("_") and not name.startswith("__")


_dict: Any = dict  # which type checkers do not take for a mapping of another kind


class InstanceDict(MutableMapping[str, Any], _dict):  # type: ignore[misc]
    """An object's `__dict__`: a dict of its further attributes, through which Python also reaches the native ones."""

    __slots__ = ("_owner",)

    def __init__(self, owner: object) -> None:
        self._owner = weakref.ref(owner)

    def _has_native(self, name: object) -> bool:
        owner: Any = self._owner()
        if owner is None or name not in _native(type(owner)):
            return False
        return name not in _LATER or getattr(owner, str(name)) is not None

    def __getitem__(self, name: str) -> Any:
        return getattr(self._owner(), name) if self._has_native(name) else dict.__getitem__(self, name)

    def __setitem__(self, name: str, value: Any) -> None:
        if not self._has_native(name):
            dict.__setitem__(self, name, value)
        elif self[name] is not value:
            setattr(self._owner(), name, value)

    def __delitem__(self, name: str) -> None:
        if self._has_native(name):
            delattr(self._owner(), name)
        else:
            dict.__delitem__(self, name)

    def __iter__(self) -> Iterator[str]:
        owner: Any = self._owner()
        yield from (name for name in _native(type(owner)) if self._has_native(name))
        yield from dict.__iter__(self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return self._has_native(name) or dict.__contains__(self, name)

    def __repr__(self) -> str:
        return repr(self.copy())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def copy(self) -> dict[str, Any]:
        """A plain dict of all of it."""
        return dict(self.items())
