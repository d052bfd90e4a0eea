"""Locks and queues between tasks of one loop. None of them is for threads.

Each belongs to the loop in which it first had to wait: waiting in another raises RuntimeError. Who waits first is
served first. Cancelling a wait loses no permit, no item and no wake-up.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")

class Lock:
    """One task at a time: `async with lock:`."""

    def __init__(self) -> None: ...
    def locked(self) -> bool:
        """Whether somebody has it."""
    def acquire(self) -> Coroutine[Any, Any, Literal[True]]:
        """Wait until it is free, and take it."""
    def release(self) -> None:
        """Give it back; any task may. Raises RuntimeError if it is free."""

class Semaphore:
    """So many tasks at a time: `async with semaphore:`."""

    def __init__(self, value: int = 1) -> None:
        """Raises ValueError for less than none."""
    def locked(self) -> bool:
        """Whether `acquire` would have to wait."""
    def acquire(self) -> Coroutine[Any, Any, Literal[True]]:
        """Wait for a permit, and take it."""
    def release(self) -> None:
        """Give one permit back, or add one."""

class BoundedSemaphore(Semaphore):
    """A semaphore that never has more permits than at first."""

    def release(self) -> None:
        """Give one permit back. Raises ValueError if that were one too many."""

class Event:
    """A flag that tasks wait for."""

    def __init__(self) -> None: ...
    def is_set(self) -> bool: ...
    def set(self) -> None:
        """Set it, and wake all who wait."""
    def clear(self) -> None:
        """Take it back: who comes now waits."""
    def wait(self) -> Coroutine[Any, Any, Literal[True]]:
        """Wait until it is set."""

class Condition:
    """A lock, and a way to wait until what it protects has changed: `async with condition:`."""

    def __init__(self, lock: Lock | None = None) -> None: ...
    def locked(self) -> bool: ...
    def acquire(self) -> Coroutine[Any, Any, Literal[True]]:
        """Take the lock."""
    def release(self) -> None:
        """Give the lock back. Raises RuntimeError if it is free."""
    def wait(self) -> Coroutine[Any, Any, Literal[True]]:
        """Let go of the lock, wait to be notified, and take it again. Raises RuntimeError without the lock."""
    def wait_for(self, predicate: Callable[[], T]) -> Coroutine[Any, Any, T]:
        """Wait until the predicate is true, asked after each notification; returns what it was."""
    def notify(self, n: int = 1) -> None:
        """Wake so many of those who wait. Raises RuntimeError without the lock."""
    def notify_all(self) -> None:
        """Wake all who wait. Raises RuntimeError without the lock."""

class Barrier:
    """So many tasks wait for each other, and go on together: `async with barrier as position:`."""

    def __init__(self, parties: int) -> None:
        """Raises ValueError for less than one."""
    def wait(self) -> Coroutine[Any, Any, int]:
        """Wait for the others; a number from zero, another one for each. Raises BrokenBarrierError."""
    def reset(self) -> Coroutine[Any, Any, None]:
        """Begin anew; who waits gets BrokenBarrierError."""
    def abort(self) -> Coroutine[Any, Any, None]:
        """Break it: who waits, and who comes, gets BrokenBarrierError."""
    @property
    def parties(self) -> int:
        """How many it takes."""
    @property
    def n_waiting(self) -> int:
        """How many wait now."""
    @property
    def broken(self) -> bool: ...

class Queue(Generic[T]):
    """First in, first out, with room for `maxsize` items; zero or less is room for any number."""

    def __init__(self, maxsize: int = 0) -> None: ...
    def put(self, item: T) -> Coroutine[Any, Any, None]:
        """Wait for room, and add an item. Raises QueueShutDown."""
    def put_nowait(self, item: T) -> None:
        """Add an item. Raises QueueFull, QueueShutDown."""
    def get(self) -> Coroutine[Any, Any, T]:
        """Wait for an item, and take it. Raises QueueShutDown once it is shut down and empty."""
    def get_nowait(self) -> T:
        """Take an item. Raises QueueEmpty, QueueShutDown."""
    def task_done(self) -> None:
        """Say that an item that was taken has been dealt with. Raises ValueError if there is none."""
    def join(self) -> Coroutine[Any, Any, None]:
        """Wait until every item has been dealt with."""
    def shutdown(self, immediate: bool = False) -> None:
        """No more items come in; `immediate`: none go out either, and `join` does not wait for them."""
    def qsize(self) -> int: ...
    def empty(self) -> bool: ...
    def full(self) -> bool: ...
    @property
    def maxsize(self) -> int: ...

class LifoQueue(Queue[T]):
    """A queue that gives out the item that was put last."""

class PriorityQueue(Queue[T]):
    """A queue that gives out the least item: `(priority, data)`, say. Comparing may raise what it likes."""
