"""The native module, in the types of what it stands in for.

Each class behaves as asyncio's of the same name, so it has that class's type:
a program that is typed against asyncio stays typed.  The event loop has the
type of asyncio's own concrete loop for the same reason, though it is no subclass.
"""

import asyncio
from asyncio import (
    BoundedSemaphore as BoundedSemaphore,
    Event as Event,
    Future as Future,
    Handle as Handle,
    Lock as Lock,
    Semaphore as Semaphore,
    Server as Server,
    Task as Task,
    TimerHandle as TimerHandle,
    sleep as sleep,
)
from typing import Any, Final

__version__: Final[str]

class LoopCore:
    """The part of a loop that tasks, futures and handles need."""

class EventLoop(LoopCore, asyncio.SelectorEventLoop):
    """The native base of `aioxide.EventLoop`."""

    slow_callback_duration: float
    def __init__(self) -> None: ...
    def _use_virtual_clock(self, start: float) -> None: ...

class SocketTransport(asyncio.Transport):
    """What connections of `create_connection` and of servers go through."""

    def __getattr__(self, name: str) -> Any: ...  # private names of asyncio's own transports
