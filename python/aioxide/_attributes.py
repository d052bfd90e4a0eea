"""A `__dict__` in which also is what asyncio keeps there, and a class of ours natively."""

import types
import weakref
from collections.abc import Iterator, MutableMapping
from typing import Any

_attributes_of: weakref.WeakKeyDictionary[type, dict[str, Any]] = weakref.WeakKeyDictionary()

# A property in asyncio, not an attribute of the instance.
_PROPERTIES = frozenset({"_stream_reader"})
# Set by asyncio only when there is something to set.
_ABSENT_WHILE_NONE = frozenset({"_source_traceback", "_strong_reader"})


def _native(cls: type) -> dict[str, Any]:
    """The descriptors of asyncio's private attributes that a class of ours keeps for its objects."""
    if cls not in _attributes_of:
        _attributes_of[cls] = {
            name: value
            for base in reversed(cls.__mro__)
            for name, value in vars(base).items()
            if isinstance(value, types.GetSetDescriptorType)
            and name[:1] == "_" != name[1:2]
            and name not in _PROPERTIES
        }
    return _attributes_of[cls]


_dict: Any = dict  # which type checkers do not take for a mapping of another kind


class InstanceDict(MutableMapping[str, Any], _dict):  # type: ignore[misc]
    """An object's `__dict__`: a dict of its further attributes, through which Python also reaches the native ones.

    It goes by the native ones' descriptors: a subclass may have ways of its own to get and set attributes.
    """

    __slots__ = ("_owner",)

    def __init__(self, owner: object) -> None:
        self._owner = weakref.ref(owner)

    def _find(self, name: object) -> tuple[Any, Any]:
        """The owner and the descriptor of a native attribute, if it is one and there."""
        owner: Any = self._owner()
        attribute = _native(type(owner)).get(name)  # type: ignore[call-overload]
        if attribute is not None and name in _ABSENT_WHILE_NONE and attribute.__get__(owner) is None:
            attribute = None
        return owner, attribute

    def __getitem__(self, name: str) -> Any:
        owner, attribute = self._find(name)
        return dict.__getitem__(self, name) if attribute is None else attribute.__get__(owner)

    def __setitem__(self, name: str, value: Any) -> None:
        owner, attribute = self._find(name)
        if attribute is None:
            dict.__setitem__(self, name, value)
        elif attribute.__get__(owner) is not value:
            attribute.__set__(owner, value)

    def __delitem__(self, name: str) -> None:
        owner, attribute = self._find(name)
        if attribute is None:
            dict.__delitem__(self, name)
        else:
            attribute.__delete__(owner)

    def _names(self) -> list[str]:
        native = [name for name in _native(type(self._owner())) if self._find(name)[1] is not None]
        return native + [name for name in _dict.__iter__(self) if name not in native]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __contains__(self, name: object) -> bool:
        return self._find(name)[1] is not None or dict.__contains__(self, name)

    def __repr__(self) -> str:
        return repr(self.copy())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def copy(self) -> dict[str, Any]:
        """A plain dict of all of it."""
        return dict(self.items())

    __copy__ = copy

    def __reduce__(self) -> Any:
        return dict, (self.copy(),)
