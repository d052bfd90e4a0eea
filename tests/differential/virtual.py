"""Event loops with a virtual clock: stock asyncio's, and ours."""

import asyncio
import contextlib
import selectors
from collections.abc import Iterable, Iterator, MutableSet
from typing import Any
from unittest import mock


class Selector(selectors.SelectSelector):
    """Never waits: moves the clock instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("deadlock: nothing is ready and no timer is set")
        if timeout > 0:
            self.now += timeout
        return []


class StockLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop on that selector."""

    def __init__(self) -> None:
        self.clock = Selector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


class OrderedSet(MutableSet[Any]):
    """A set in order of insertion: asyncio's own sets of tasks are in order of memory addresses."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self.items = dict.fromkeys(items)

    def __contains__(self, item: object) -> bool:
        return item in self.items

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self.items))

    def __len__(self) -> int:
        return len(self.items)

    def add(self, item: Any) -> None:
        self.items[item] = None

    def discard(self, item: Any) -> None:
        self.items.pop(item, None)


@contextlib.contextmanager
def ordered_sets() -> Iterator[None]:
    """Lets asyncio's `wait`, `as_completed` and TaskGroup go through their tasks in order of insertion."""
    with (
        mock.patch.object(asyncio.tasks, "set", OrderedSet, create=True),
        mock.patch.object(asyncio.taskgroups, "set", OrderedSet, create=True),
    ):
        yield
