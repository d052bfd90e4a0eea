"""asyncio, all of it, in Rust.

Every public name of asyncio is here too, so `import aioxide as asyncio` works.
`aioxide.run(main())` runs a program on aioxide's event loop;
`aioxide.install()` makes aioxide the asyncio of the whole process.
"""

import asyncio
import importlib
import sys
from typing import TYPE_CHECKING

from aioxide import _names, _stdlib
from aioxide._core import __version__
from aioxide._deadlock import DeadlockError
from aioxide._install import Installation, install, installed, uninstall
from aioxide._loop import EventLoop, EventLoopPolicy, new_event_loop
from aioxide._runners import Runner, run

# Type checkers give a name the type that it is imported with first.  At run time the last one
# counts, so aioxide's own are put back below.
# isort: split
from asyncio import *  # type: ignore[assignment]  # noqa: F403  (whichever names this Python has)
from asyncio import TaskGroup as TaskGroup  # which 3.11 has left out of __all__

if TYPE_CHECKING:
    from asyncio import (
        base_events as base_events,
        base_futures as base_futures,
        base_subprocess as base_subprocess,
        base_tasks as base_tasks,
        constants as constants,
        coroutines as coroutines,
        events as events,
        exceptions as exceptions,
        format_helpers as format_helpers,
        futures as futures,
        locks as locks,
        log as log,
        mixins as mixins,
        proactor_events as proactor_events,
        protocols as protocols,
        queues as queues,
        runners as runners,
        selector_events as selector_events,
        sslproto as sslproto,
        staggered as staggered,
        streams as streams,
        subprocess as subprocess,
        taskgroups as taskgroups,
        threads as threads,
        timeouts as timeouts,
        transports as transports,
        trsock as trsock,
        unix_events as unix_events,
    )

    from aioxide import inspect as inspect, metrics as metrics
    from aioxide._pools import to_process as to_process
    from aioxide._trace import Trace, trace
    from aioxide._watchdog import Stall, Watchdog, watchdog
    from aioxide.inspect import format_tasks, tasks as tasks  # and asyncio's module of that name

    if sys.version_info >= (3, 14):
        from asyncio import graph as graph

        from aioxide._pools import to_interpreter as to_interpreter
else:
    _LATE = {  # loaded when it is asked for, so that programs start sooner
        "Stall": "_watchdog",
        "Trace": "_trace",
        "Watchdog": "_watchdog",
        "format_tasks": "inspect",
        "to_interpreter": "_pools",
        "to_process": "_pools",
        "trace": "_trace",
        "watchdog": "_watchdog",
    }

    def __getattr__(name):
        """What is loaded late, the names that asyncio makes up on access, and modules that it loads late."""
        if name in ("inspect", "metrics"):
            return importlib.import_module(f"aioxide.{name}")
        if name in _LATE:
            return getattr(importlib.import_module(f"aioxide.{_LATE[name]}"), name)
        if name in _stdlib.policy_names() or name in _stdlib.submodules():
            return getattr(asyncio, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__, "inspect", "metrics"})

    globals().update(_stdlib.submodules())
    globals().update(_names.twins())
    tasks = _names.TasksModule(asyncio.tasks)

__all__ = list(asyncio.__all__)  # type checkers take these from the star import
__all__ += [
    "DeadlockError",
    "EventLoop",
    "EventLoopPolicy",
    "Installation",
    "Runner",
    "Stall",
    "TaskGroup",
    "Trace",
    "Watchdog",
    "__version__",
    "format_tasks",
    "install",
    "installed",
    "new_event_loop",
    "run",
    "tasks",
    "to_process",
    "trace",
    "uninstall",
    "watchdog",
]
if sys.version_info >= (3, 14):
    __all__ += ["to_interpreter"]
