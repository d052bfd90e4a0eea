"""Deadlocks: a loop that nothing can wake any more, and tasks that wait for each other in a circle.

The native loop asks a `Guard` before it goes to sleep with no timer and no
descriptor to wait for.  What is left are signals and other threads, any of
which may know the loop; so there must be none, but idle workers of the loop's
own executor, idle resolvers, and those of aioxide that only look on.
"""

import asyncio
import concurrent.futures
import functools
import logging
import os
import signal
import threading
from typing import Any, Literal, get_args

import aioxide
from aioxide import _core, _resolver

OnDeadlock = Literal["warn", "raise", "ignore"]

_logger = logging.getLogger("aioxide")


class DeadlockError(RuntimeError):
    """Nothing can wake the program any more."""


DeadlockError.__module__ = "aioxide"


class Guard:
    """Judges whether a loop that rests is deadlocked, and says so."""

    def __init__(self, on_deadlock: OnDeadlock) -> None:
        if on_deadlock not in get_args(OnDeadlock):
            raise ValueError(f"on_deadlock must be 'warn', 'raise' or 'ignore', not {on_deadlock!r}")
        self.on_deadlock = on_deadlock
        self.main: asyncio.Task[Any] | None = None

    def __call__(self, loop: asyncio.AbstractEventLoop, question: str) -> bool | None:
        """Whether there is nothing more to ask; None if this looks like a deadlock.

        While this looks around, other threads run, and the last job of the executor may end. So the loop looks into
        its inbox before it calls it one, and asks for the report then.
        """
        if question == "rest":
            rings = aioxide.inspect.circles(aioxide.inspect.tasks(loop))
            if rings:
                self.report(loop, "tasks wait for each other in a circle", rings, is_circle=True)
            return True
        if question == "deadlock":
            rings = aioxide.inspect.circles(aioxide.inspect.tasks(loop))
            self.report(loop, "nothing can wake this program any more", rings, is_circle=False)
            return True
        if signals_may_come():
            return True
        if threading.current_thread() is not threading.main_thread():
            return True  # the main thread is there for good
        return False if threads_may_come(loop) else None

    def report(
        self,
        loop: asyncio.AbstractEventLoop,
        what: str,
        rings: "list[list[aioxide.inspect.TaskInfo]]",
        *,
        is_circle: bool,
    ) -> None:
        """Log the deadlock, and raise it in the main task if that waits for it."""
        lines = [f"deadlock: {what}"]
        lines += [f"  {aioxide.inspect.format_circle(ring)}" for ring in rings]
        lines += [f"  {line}" for line in aioxide.inspect.format_tasks(loop).splitlines()]
        text = "\n".join(lines)
        _logger.warning("%s", text)
        main = self.main
        if (
            self.on_deadlock == "raise"
            and main is not None
            and not main.done()
            and (not is_circle or _leads_to(loop, id(main), {task.id for ring in rings for task in ring}))
        ):
            _throw(main, DeadlockError(text))


def _leads_to(loop: asyncio.AbstractEventLoop, start: int, goals: set[int]) -> bool:
    """Whether a task waits, by whatever way, for one of those tasks."""
    by_id = {task.id: task for task in aioxide.inspect.tasks(loop)}
    ahead, seen = [start], set()
    while ahead:
        at = ahead.pop()
        if at in goals:
            return True
        if at in seen or at not in by_id:
            continue
        seen.add(at)
        waits = by_id[at].waits_for
        ahead += [] if waits is None else [*waits.tasks, *waits.owners]
    return False


def _throw(main: "asyncio.Task[Any]", error: DeadlockError) -> None:
    try:
        _core._throw(main, error)
    except TypeError:  # a task of somebody else's, or one that waits for such a future
        main.cancel(str(error))


def signals_may_come() -> bool:
    """Whether the program handles a signal in Python: the handler may do anything."""
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if not callable(handler) or handler is signal.default_int_handler:
            continue
        if isinstance(handler, functools.partial) and getattr(handler.func, "__qualname__", "") == "Runner._on_sigint":
            continue  # the runner's own, for Ctrl-C
        return True
    return False


def threads_may_come(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether there is a thread that may know the loop."""
    return _threads() > 1 + _idle_workers(getattr(loop, "_default_executor", None)) + _resolver.idle()


def _threads() -> int:
    """How many threads the process has, without those that only look on."""
    count = 0
    for name in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{name}/comm") as file:
                comm = file.read()
        except OSError:
            continue  # ended meanwhile
        count += not comm.startswith("aioxide-") or comm.startswith("aioxide-resolve")  # as the kernel cuts it
    return count


def _idle_workers(executor: concurrent.futures.ThreadPoolExecutor | None) -> int:
    """How many threads of an executor wait for work; none unless all do."""
    if type(executor) is not concurrent.futures.ThreadPoolExecutor:
        return 0
    try:
        threads, queue, idle = executor._threads, executor._work_queue, executor._idle_semaphore
        alive = sum(thread.is_alive() for thread in threads)
        return alive if queue.empty() and idle._value >= alive else 0
    except AttributeError:  # another Python's executor
        return 0
