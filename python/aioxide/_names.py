"""Which names of asyncio aioxide has its own version of.

They come from the native module wherever it offers them.  Everything else that
aioxide exports is asyncio's own object.
"""

import asyncio
from types import ModuleType
from typing import Any

import aioxide
from aioxide import _core, _loop, _runners, _shared_names, _stdlib


def twins() -> dict[str, Any]:
    """aioxide's own versions, by their name in asyncio."""
    found = {name: getattr(_core, name) for name in _stdlib.names() if hasattr(_core, name)}
    found["EventLoop"] = _loop.EventLoop
    found["BaseEventLoop"] = _shared_names.BaseEventLoop
    found["SelectorEventLoop"] = _shared_names.SelectorEventLoop
    found["Server"] = _shared_names.Server
    found["new_event_loop"] = _loop.new_event_loop
    found["Runner"] = _runners.Runner
    found["run"] = _runners.run
    if "DefaultEventLoopPolicy" in asyncio.__all__:
        found["DefaultEventLoopPolicy"] = _loop.EventLoopPolicy
    return found


class TasksModule(ModuleType):
    """`aioxide.tasks`: the function, and asyncio's module of that name for those who `import aioxide as asyncio`."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__, module.__doc__)
        self.__dict__["_module"] = module

    def __call__(self, loop: asyncio.AbstractEventLoop | None = None) -> "list[aioxide.inspect.TaskInfo]":
        return aioxide.inspect.tasks(loop)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._module, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._module, name)

    def __dir__(self) -> list[str]:
        return dir(self._module)
