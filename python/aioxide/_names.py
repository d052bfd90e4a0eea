"""Which names of asyncio aioxide has its own version of.

They come from the native module wherever it offers them.  Everything else that
aioxide exports is asyncio's own object.
"""

import asyncio
from typing import Any

from aioxide import _core, _loop, _runners, _stdlib


def twins() -> dict[str, Any]:
    """aioxide's own versions, by their name in asyncio."""
    found = {name: getattr(_core, name) for name in _stdlib.names() if hasattr(_core, name)}
    found["EventLoop"] = found["SelectorEventLoop"] = _loop.EventLoop
    found["new_event_loop"] = _loop.new_event_loop
    found["Runner"] = _runners.Runner
    found["run"] = _runners.run
    if "DefaultEventLoopPolicy" in asyncio.__all__:
        found["DefaultEventLoopPolicy"] = _loop.EventLoopPolicy
    return found
