"""Out of one core: functions in other processes and interpreters, awaited like `asyncio.to_thread`."""

import asyncio
import atexit
import concurrent.futures
import functools
import os
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class _Pool:
    """An executor that is made when it is first needed, and again in a child of fork and when it has broken."""

    def __init__(self, make: Callable[[], concurrent.futures.Executor]) -> None:
        self._make = make
        self._executor: concurrent.futures.Executor | None = None
        self._owner = 0
        # Not left to the end of the interpreter, where an executor of Python 3.11 or 3.12 finds its modules gone.
        atexit.register(self.shutdown)

    def executor(self) -> concurrent.futures.Executor:
        if self._executor is None or self._owner != os.getpid():
            self._executor, self._owner = self._make(), os.getpid()
        return self._executor

    async def run(self, call: Callable[[], Any]) -> Any:
        executor = self.executor()
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, call)
        except concurrent.futures.BrokenExecutor:
            if self._executor is executor:
                self.shutdown(wait=False)
            raise

    def shutdown(self, *, wait: bool = True) -> None:
        """End the workers there are; the next call starts new ones."""
        executor, self._executor = self._executor, None
        if executor is not None and self._owner == os.getpid():
            executor.shutdown(wait=wait)


def _processes() -> concurrent.futures.Executor:
    import multiprocessing  # which few programs need, and all would wait for

    # Forking a process that runs threads and an event loop is what one must not do.
    return concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("forkserver"))


_process_pool = _Pool(_processes)


async def to_process(func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a function in another process, and wait for its result.

    For work that keeps a core busy: it runs on another one, and the event loop goes on. The processes, one a core
    at most, are started when they are first needed and live until the program ends. What goes there and back is
    pickled: module-level functions and plain data. Context variables stay here.

    Cancelling takes back what has not begun; what has begun runs to its end, and its result is dropped.

    Raises what the function raises; `concurrent.futures.process.BrokenProcessPool` if its process died, after
    which the next call starts new processes; `pickle.PicklingError` and its kin for what can't be sent.

    Like `asyncio.to_thread`, over `concurrent.futures.ProcessPoolExecutor`.
    """
    result: R = await _process_pool.run(functools.partial(func, *args, **kwargs))
    return result


if sys.version_info >= (3, 14):

    def _interpreters() -> concurrent.futures.Executor:
        return concurrent.futures.InterpreterPoolExecutor()  # its module is imported when it is asked for

    _interpreter_pool = _Pool(_interpreters)

    async def to_interpreter(func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function in another interpreter of this process, and wait for its result.

        Interpreters have a GIL each (PEP 734, Python 3.14 and later), so this takes another core as `to_process`
        does, and starts faster. Extension modules that don't support this can't be imported there; aioxide itself
        is one of them. What goes there and back is pickled. Context variables stay here. While there are other
        interpreters, the child of a fork crashes (CPython 3.14 and 3.15): don't use `os.fork`, nor subprocesses
        with `preexec_fn`.

        Raises what the function raises, as `concurrent.futures.interpreter.ExecutionFailed` where that can't be
        pickled.

        Like `asyncio.to_thread`, over `concurrent.futures.InterpreterPoolExecutor`.
        """
        result: R = await _interpreter_pool.run(functools.partial(func, *args, **kwargs))
        return result
