"""Calls that block for a moment, made where asyncio makes them too.

Tools that find calls that block an event loop (blockbuster, for one) let asyncio
start processes and look after the files of Unix sockets.  They know asyncio by
the files and functions on the stack, and native code has none.  So it makes such
calls through these functions, which say that they are asyncio's.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from aioxide import _stdlib


def _call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _at(place: Any, file_of: Any = None) -> FunctionType:
    there = place.__code__
    code = _call.__code__.replace(
        co_filename=(file_of or place).__code__.co_filename,
        co_firstlineno=there.co_firstlineno,
        co_name=there.co_name,
        co_qualname=there.co_qualname,
    )
    return FunctionType(code, {})


subprocess_exec = _at(_stdlib.BaseEventLoop.subprocess_exec)
subprocess_shell = _at(_stdlib.BaseEventLoop.subprocess_shell)
create_unix_server = _at(_stdlib.SelectorEventLoop.create_unix_server)
# Before Python 3.13 asyncio left the socket's file behind, and had no such function in the file where it now has.
stop_serving = _at(_stdlib.SelectorEventLoop._stop_serving, _stdlib.SelectorEventLoop.create_unix_server)
