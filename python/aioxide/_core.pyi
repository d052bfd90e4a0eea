"""The native module, in the types of what it stands in for.

Each class behaves as asyncio's of the same name, so it has that class's type:
a program that is typed against asyncio stays typed.  The event loop has the
type of asyncio's own concrete loop for the same reason, though it is no subclass.
"""

import asyncio
from asyncio import (
    Future as Future,
    Handle as Handle,
    Server as Server,
    Task as Task,
    TimerHandle as TimerHandle,
)
from typing import Final

__version__: Final[str]

class EventLoop(asyncio.SelectorEventLoop):
    """The native base of `aioxide.EventLoop`."""

    def __init__(self) -> None: ...
