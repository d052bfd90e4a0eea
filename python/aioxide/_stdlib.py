"""The one place that reads names of asyncio that are not public.

Everything here holds for CPython 3.11 to 3.15.  The rest of the package asks
this module, so that a new Python is one file to look through.
"""

import asyncio
import importlib
import operator
import os
import signal
import sys
from asyncio import constants, events, futures, runners, selector_events, tasks, unix_events
from collections.abc import Iterator
from types import ModuleType
from typing import Any

# Public names that asyncio gained after 3.11, or has there without saying so in
# __all__.  aioxide offers them on every Python for which the native module has them.
LATER_NAMES = frozenset(
    {
        "EventLoop",
        "FlowControlMixin",
        "FrameCallGraphEntry",
        "FutureCallGraph",
        "QueueShutDown",
        "TaskGroup",
        "capture_call_graph",
        "create_eager_task_factory",
        "eager_task_factory",
        "format_call_graph",
        "future_add_to_awaited_by",
        "future_discard_from_awaited_by",
        "print_call_graph",
    }
)

# Names that `install` leaves alone although aioxide has its own.  They choose a
# loop, and they choose ours once the default policy makes ours; replacing them
# would overrule a policy that the program has set.
CHOOSERS = frozenset({"DefaultEventLoopPolicy", "new_event_loop"})

# Names that are replaced in these modules and no others: the loops of CPython,
# which may be running already, build on the rest from inside asyncio's modules.
PUBLIC_ONLY = {
    "BaseEventLoop": ("asyncio", "asyncio.base_events"),
    "BaseSelectorEventLoop": ("asyncio.selector_events",),
    "EventLoop": ("asyncio", "asyncio.unix_events"),
    "SelectorEventLoop": ("asyncio", "asyncio.unix_events"),
    "Server": ("asyncio", "asyncio.base_events"),
    "FlowControlMixin": ("asyncio.streams",),
}

# The default policy asks this class attribute for each new loop.
DefaultPolicy: Any = unix_events._UnixDefaultEventLoopPolicy
FACTORY_ATTRIBUTE = "_loop_factory"

# CPython's event loop and its bases, whatever is installed.
SelectorEventLoop: Any = unix_events._UnixSelectorEventLoop
BaseSelectorEventLoop: Any = selector_events.BaseSelectorEventLoop
BaseEventLoop: Any = asyncio.BaseEventLoop
Server = asyncio.Server

# What asyncio has in Python.  Of what is native, programs put it in the place (`nest_asyncio`).
PLAIN: tuple[Any, ...] = (tasks._PyTask, futures._PyFuture)  # type: ignore[attr-defined]

# How a runner stands: subclasses compare with it.
RunnerState: Any = runners._State  # type: ignore[attr-defined]

# How long a runner waits for the threads of the default executor.
THREAD_JOIN_TIMEOUT: float = getattr(constants, "THREAD_JOIN_TIMEOUT", 300)

get_running_loop_or_none = events._get_running_loop


def modules() -> Iterator[ModuleType]:
    """The asyncio package and those of its modules that are loaded."""
    for name, module in list(sys.modules.items()):
        if name == "asyncio" or name.startswith("asyncio."):
            yield module


def submodules() -> dict[str, ModuleType]:
    """The modules that can be reached as attributes of asyncio, by name."""
    return {
        name: value
        for name, value in vars(asyncio).items()
        if isinstance(value, ModuleType) and value.__name__ == f"asyncio.{name}"
    }


def hooks() -> dict[str, Any]:
    """What asyncio keeps in a native version, such as `_enter_task`.

    asyncio binds each of them to `NAME` and to `_c_NAME`, less an underscore in
    front where the name has one.
    """
    found = {}
    for module in modules():
        namespace = vars(module)
        for alias, value in namespace.items():
            if alias.startswith("_c_"):
                name = alias.removeprefix("_c_")
                found[name if name in namespace else f"_{name}"] = value
    return found


def names() -> frozenset[str]:
    """Every name of asyncio that a native module may take over."""
    return frozenset(asyncio.__all__) | LATER_NAMES | hooks().keys()


def policy_names() -> frozenset[str]:
    """Names that asyncio makes up on access, with a warning (3.14 and later)."""
    if sys.version_info < (3, 14):
        return frozenset()
    return frozenset({"AbstractEventLoopPolicy", "DefaultEventLoopPolicy"})


def package_class() -> type[ModuleType] | None:
    """A class for the asyncio package that makes up the names its `__getattr__` does.

    The interpreter does not remember where it found an attribute of a module that
    has a `__getattr__`: each `asyncio.sleep` is looked up anew.  None where asyncio
    has no such function, or one with names that are not known here.
    """
    make_up = vars(asyncio).get("__getattr__")
    if make_up is None or not policy_names() or sys.version_info >= (3, 16):
        return None

    def assign(name: str, module: ModuleType, value: Any) -> None:
        delattr(type(module), name)
        setattr(module, name, value)

    def attribute(name: str) -> property:
        # Without a frame of our own in between: the warning names its caller's caller.
        look_up = operator.methodcaller("_aioxide_make_up", name)
        return property(look_up, lambda module, value: assign(name, module, value))

    namespace: dict[str, Any] = {name: attribute(name) for name in policy_names()}
    namespace["_aioxide_make_up"] = staticmethod(make_up)
    # Picklers that know what to do with modules (cloudpickle) know them by their exact class.
    namespace["__reduce__"] = lambda module: (importlib.import_module, (module.__name__,))
    return type("module", (ModuleType,), namespace)


if sys.version_info < (3, 12):

    def _leave_parents_loop() -> None:
        """What asyncio does in the child of a fork from 3.12 on (gh-99539, gh-66285)."""
        policy = events._event_loop_policy  # type: ignore[attr-defined]
        if policy is not None:
            policy._local = type(policy._local)()
        events._set_running_loop(None)
        signal.set_wakeup_fd(-1)

    os.register_at_fork(after_in_child=_leave_parents_loop)
