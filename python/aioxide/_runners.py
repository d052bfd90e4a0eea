"""`run` and `Runner`: a loop from its making to its close around a program."""

import asyncio
import contextvars
import functools
import inspect
import signal
import sys
import threading
from asyncio import events
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

from aioxide import _loop, _stdlib
from aioxide._deadlock import Guard, OnDeadlock

T = TypeVar("T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Runner(asyncio.Runner):  # type: ignore[misc]  # final for users; isinstance has to hold
    """Keeps an event loop for several runs, and closes it at the end of a `with`.

    The loop is one of aioxide's unless `loop_factory` makes another.  When
    aioxide is installed, an event loop policy that the program has set chooses.

    Its attributes, and the methods that subclasses replace, have asyncio's names.
    """

    def __init__(
        self,
        *,
        debug: bool | None = None,
        loop_factory: LoopFactory | None = None,
        on_deadlock: OnDeadlock = "warn",
    ) -> None:
        self._guard = None if on_deadlock == "ignore" else Guard(on_deadlock)
        self._state = _stdlib.RunnerState.CREATED
        self._debug = debug
        self._loop_factory = loop_factory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context: contextvars.Context | None = None
        self._interrupt_count = 0
        self._set_event_loop = False

    def __enter__(self) -> "Runner":
        self._lazy_init()
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is left, shut down generators and threads, and close the loop."""
        loop = self._loop
        if loop is None:
            return
        try:
            _cancel_all(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(_end_executor(loop))
        finally:
            if self._set_event_loop:
                events.set_event_loop(None)
            loop.close()
            self._loop = None
            self._state = _stdlib.RunnerState.CLOSED

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of this runner, made now if there is none yet."""
        self._lazy_init()
        assert self._loop is not None
        return self._loop

    def run(self, coro: Awaitable[T], *, context: contextvars.Context | None = None) -> T:
        """Run an awaitable to its end in the loop, and return its result."""
        if _stdlib.get_running_loop_or_none() is not None:
            raise RuntimeError("Runner.run() cannot be called from a running event loop")
        self._lazy_init()
        loop = self._loop
        assert loop is not None
        task = loop.create_task(_as_coroutine(coro), context=self._context if context is None else context)
        handler = self._catch_interrupts(task)
        self._interrupt_count = 0
        if self._guard is not None:
            self._guard.main = task
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError:
            # The cancellation is ours if nobody else has asked for one too.
            uncancel = getattr(task, "uncancel", None)
            if self._interrupt_count > 0 and uncancel is not None and uncancel() == 0:
                raise KeyboardInterrupt  # noqa: B904  (shown as asyncio shows it)
            raise
        finally:
            if self._guard is not None:
                self._guard.main = None
            if handler is not None and signal.getsignal(signal.SIGINT) is handler:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _lazy_init(self) -> None:
        if self._state is _stdlib.RunnerState.CLOSED:
            raise RuntimeError("Runner is closed")
        if self._loop is not None:
            return
        if self._loop_factory is not None:
            loop = self._loop_factory()
        else:
            loop = _default_loop()
            events.set_event_loop(loop)
            self._set_event_loop = True
        if self._debug is not None:
            loop.set_debug(self._debug)
        if self._guard is not None and isinstance(loop, _loop.EventLoop):
            loop._set_idle_hook(self._guard)
        self._loop = loop
        self._context = contextvars.copy_context()
        self._state = _stdlib.RunnerState.INITIALIZED

    def _catch_interrupts(self, task: "asyncio.Task[Any]") -> Callable[[int, FrameType | None], None] | None:
        """Let Ctrl-C cancel the task first, where Python's own handler is in place."""
        if threading.current_thread() is not threading.main_thread():
            return None
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return None
        handler = functools.partial(self._on_sigint, main_task=task)
        try:
            signal.signal(signal.SIGINT, handler)
        except ValueError:  # an embedding program has not given us the signals
            return None
        return handler

    def _on_sigint(self, signum: int, frame: FrameType | None, main_task: "asyncio.Task[Any]") -> None:
        self._interrupt_count += 1
        if self._interrupt_count > 1 or main_task.done():
            raise KeyboardInterrupt
        main_task.cancel()
        main_task.get_loop().call_soon_threadsafe(lambda: None)  # so that a waiting loop wakes up


def run(
    main: Awaitable[T],
    *,
    debug: bool | None = None,
    loop_factory: LoopFactory | None = None,
    on_deadlock: OnDeadlock = "warn",
) -> T:
    """Run an awaitable in a new event loop, close the loop, and return the result.

    `on_deadlock` says what to do when nothing can wake the program any more:
    "warn" logs what each task waits for, "raise" also raises DeadlockError in
    `main`, "ignore" waits for ever, as asyncio does.
    """
    if _stdlib.get_running_loop_or_none() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with Runner(debug=debug, loop_factory=loop_factory, on_deadlock=on_deadlock) as runner:
        return runner.run(main)


def _default_loop() -> asyncio.AbstractEventLoop:
    standing_in = asyncio.Runner is Runner
    return asyncio.new_event_loop() if standing_in else _loop.new_event_loop()


def _end_executor(loop: asyncio.AbstractEventLoop) -> Coroutine[Any, Any, None]:
    if sys.version_info >= (3, 12) or isinstance(loop, _loop.EventLoop):
        return loop.shutdown_default_executor(_stdlib.THREAD_JOIN_TIMEOUT)  # type: ignore[call-arg]
    return loop.shutdown_default_executor()


def _as_coroutine(awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    if asyncio.iscoroutine(awaitable):
        return awaitable
    if not inspect.isawaitable(awaitable):
        raise TypeError("An asyncio.Future, a coroutine or an awaitable is required")

    async def wait_for_it() -> T:
        return await awaitable

    return wait_for_it()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel every task of the loop and report what they raise meanwhile."""
    tasks = asyncio.all_tasks(loop)
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            message = "unhandled exception during asyncio.run() shutdown"
            loop.call_exception_handler({"message": message, "exception": error, "task": task})


for _public in (Runner, run):
    _public.__module__ = "aioxide"
