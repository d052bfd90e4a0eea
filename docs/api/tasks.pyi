"""Running programs; tasks, futures, and waiting for several.

Times are in seconds, as int or float, throughout. Everything here belongs to one event loop and its thread, unless it
says otherwise.
"""

import asyncio
import concurrent.futures
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from types import FrameType
from typing import Any, Generic, Literal, ParamSpec, TextIO, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

def run(
    main: Awaitable[T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    on_deadlock: Literal["warn", "raise", "ignore"] = "warn",
) -> T:
    """Make an event loop, run an awaitable in it, clean up, and return the result.

    Cleaning up cancels what is left, ends asynchronous generators and waits for the default executor's threads.

    Raises what `main` raises; RuntimeError if an event loop runs in this thread; TypeError if `main` can't be
    awaited; KeyboardInterrupt after Ctrl-C, when `main` has been cancelled; DeadlockError in `main`, with "raise".
    """

class Runner:
    """Keeps one event loop for several runs, and cleans up at the end of a `with`."""

    def __init__(
        self,
        *,
        debug: bool | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        on_deadlock: Literal["warn", "raise", "ignore"] = "warn",
    ) -> None: ...
    def run(self, coro: Awaitable[T], *, context: contextvars.Context | None = None) -> T:
        """Run an awaitable to its end. Raises as `run`; RuntimeError after `close`."""
    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop, made now if there is none yet. Raises RuntimeError after `close`."""
    def close(self) -> None:
        """Clean up and close the loop. A second call does nothing."""

class Future(Generic[T]):
    """A result that is not there yet; `await` gives it. Every Future is an `asyncio.Future`."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Prefer `loop.create_future()`. Raises RuntimeError without a loop where none runs."""
    def result(self) -> T:
        """The result. Raises the exception that was set, CancelledError, or InvalidStateError if it is not done."""
    def exception(self) -> BaseException | None:
        """The exception that was set, or None. Raises CancelledError, or InvalidStateError if it is not done."""
    def done(self) -> bool:
        """Whether there is a result or an exception, or it was cancelled."""
    def cancelled(self) -> bool:
        """Whether it was cancelled."""
    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it; False if it is done already. Who waits gets CancelledError, with the message."""
    def set_result(self, result: T, /) -> None:
        """Raises InvalidStateError if it is done already."""
    def set_exception(self, exception: type[BaseException] | BaseException, /) -> None:
        """Raises InvalidStateError if it is done already, TypeError for StopIteration or what is no exception."""
    def add_done_callback(
        self, fn: Callable[[Future[T]], object], /, *, context: contextvars.Context | None = None
    ) -> None:
        """Call `fn(future)` in the loop's next iteration once it is done."""
    def remove_done_callback(self, fn: Callable[[Future[T]], object], /) -> int:
        """Take out every such callback; returns how many there were."""
    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it belongs to."""

class Task(Future[T]):
    """A coroutine that the loop runs, step by step. Every Task is an `asyncio.Task`."""

    def __init__(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        name: str | None = None,
        context: contextvars.Context | None = None,
        eager_start: bool = False,
    ) -> None:
        """Prefer `create_task`. Raises TypeError for what is no coroutine."""
    def cancel(self, msg: Any | None = None) -> bool:
        """Ask for CancelledError to be raised in the coroutine at its next step; False if it is done already."""
    def cancelling(self) -> int:
        """How many requests to cancel have not been taken back."""
    def uncancel(self) -> int:
        """Take back one request to cancel; returns how many are left."""
    def get_coro(self) -> Coroutine[Any, Any, T] | None:
        """The coroutine; None if the task was done before its first step had to be scheduled."""
    def get_context(self) -> contextvars.Context:
        """The context that the coroutine runs in."""
    def get_name(self) -> str:
        """Its name, "Task-" and a number unless it was given one."""
    def set_name(self, value: object, /) -> None:
        """Give it another name, as text."""
    def get_stack(self, *, limit: int | None = None) -> list[FrameType]:
        """The frames of the coroutine, oldest first; one at most while it is suspended."""
    def print_stack(self, *, limit: int | None = None, file: TextIO | None = None) -> None:
        """Print the frames, or the traceback of what it has raised, to standard error or a file."""
    def set_result(self, result: Any, /) -> None:
        """Not for tasks: raises RuntimeError."""
    def set_exception(self, exception: Any, /) -> None:
        """Not for tasks: raises RuntimeError."""

def create_task(
    coro: Coroutine[Any, Any, T],
    *,
    name: str | None = None,
    context: contextvars.Context | None = None,
    eager_start: bool | None = None,
) -> Task[T]:
    """Run a coroutine as a task of the running loop. Keep the task: the loop does not.

    Raises RuntimeError where no loop runs, TypeError for what is no coroutine.
    """

def ensure_future(coro_or_future: Awaitable[T], *, loop: asyncio.AbstractEventLoop | None = None) -> Future[T]:
    """A future as it is, anything else that can be awaited as a task.

    Raises TypeError for what can't be awaited, ValueError for a future of another loop.
    """

def wrap_future(future: concurrent.futures.Future[T], *, loop: asyncio.AbstractEventLoop | None = None) -> Future[T]:
    """An asyncio future that follows one of `concurrent.futures`, both ways. Raises AssertionError for others."""

def gather(*coros_or_futures: Awaitable[Any], return_exceptions: bool = False) -> Future[list[Any]]:
    """Run all at the same time; their results as a list, in the order given.

    The first exception is raised at once and the others run on, unless `return_exceptions` puts it into the list.
    Cancelling the result cancels all. Raises ValueError for futures of different loops.
    """

def wait(
    fs: Iterable[Future[T]], *, timeout: float | None = None, return_when: str = "ALL_COMPLETED"
) -> Coroutine[Any, Any, tuple[set[Future[T]], set[Future[T]]]]:
    """Wait for all, FIRST_COMPLETED or FIRST_EXCEPTION; two sets, done and pending. Nothing is cancelled.

    Raises TypeError for coroutines, ValueError for no futures or another `return_when`. A timeout is no error.
    """

def wait_for(fut: Awaitable[T], timeout: float | None) -> Coroutine[Any, Any, T]:
    """Wait for one, so many seconds at most; None is for ever. Raises TimeoutError after cancelling it."""

def as_completed(
    fs: Iterable[Awaitable[T]], *, timeout: float | None = None
) -> AsyncIterator[Future[T]] | Iterator[Coroutine[Any, Any, T]]:
    """Futures in the order in which they are done, by `async for`; or awaitables for the next one, by `for`.

    Raises TypeError for one future alone; TimeoutError where the next one is awaited.
    """

def shield(arg: Awaitable[T]) -> Future[T]:
    """A future that follows another one, and whose cancellation does not reach it. Keep a reference to that."""

def sleep(delay: float, result: T | None = None) -> Coroutine[Any, Any, T]:
    """Wait so many seconds, then return `result`. Zero lets others run first. Raises ValueError for NaN."""

def timeout(delay: float | None) -> Timeout:
    """`async with timeout(1):` cancels its block after so many seconds, and raises TimeoutError at its end."""

def timeout_at(when: float | None) -> Timeout:
    """As `timeout`, for a time of the loop's clock, `loop.time()`."""

class Timeout:
    """What `timeout` and `timeout_at` make."""

    def __init__(self, when: float | None) -> None: ...
    def when(self) -> float | None:
        """The time of the loop's clock at which it ends the block, or None."""
    def reschedule(self, when: float | None) -> None:
        """Another time, or None for no more. Raises RuntimeError outside of the block or after its end."""
    def expired(self) -> bool:
        """Whether the time was up."""

class TaskGroup:
    """`async with TaskGroup() as group:` waits for its tasks at the end; if one fails it cancels the others.

    Leaving the block raises an ExceptionGroup of what the tasks and the block have raised, CancelledError aside.
    """

    def __init__(self) -> None: ...
    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        eager_start: bool | None = None,
    ) -> Task[T]:
        """A task of the group. Raises RuntimeError, and closes the coroutine, before the block and after its end."""
    def cancel(self) -> None:
        """Cancel the tasks and the block, without an error (as in CPython 3.15)."""

def current_task(loop: asyncio.AbstractEventLoop | None = None) -> Task[Any] | None:
    """The task that runs now, or None in a callback. Raises RuntimeError without a loop where none runs."""

def all_tasks(loop: asyncio.AbstractEventLoop | None = None) -> set[Task[Any]]:
    """The tasks of the loop that are not done. Raises RuntimeError without a loop where none runs."""

def to_thread(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
    """Run a function in a thread of the loop's default executor, with the context variables of here.

    Raises what it raises. Cancelling takes back what has not begun; what has begun runs to its end.
    """

def run_coroutine_threadsafe(
    coro: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop
) -> concurrent.futures.Future[T]:
    """From another thread: run a coroutine in a loop. `result(timeout)` of what comes back waits. Raises TypeError."""

def eager_task_factory(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, T],
    *,
    name: str | None = None,
    context: contextvars.Context | None = None,
    eager_start: bool = True,
) -> Task[T]:
    """For `loop.set_task_factory`: a task begins at once, and is done at once if it need not wait."""

def create_eager_task_factory(custom_task_constructor: Callable[..., Task[T]]) -> Callable[..., Task[T]]:
    """An eager factory of tasks of another class."""

def isfuture(obj: object) -> bool:
    """Whether it is a future, this or another one that says so by `_asyncio_future_blocking`."""

def iscoroutine(obj: object) -> bool:
    """Whether it is a coroutine object, native ones included."""

def iscoroutinefunction(func: object) -> bool:
    """Whether it is an `async def` function or marked as one. Deprecated: use the one of `inspect`."""

class FutureCallGraph:
    """A future, the stack of its coroutine, and who waits for it."""

class FrameCallGraphEntry:
    """One frame of a call graph."""

def capture_call_graph(future: Any = None, /, *, depth: int = 1, limit: int | None = None) -> FutureCallGraph | None:
    """Who waits for whom (3.14 and later): of this future, or of the current task."""

def format_call_graph(future: Any = None, /, *, depth: int = 1, limit: int | None = None) -> str:
    """The call graph as text (3.14 and later)."""

def print_call_graph(
    future: Any = None, /, *, file: TextIO | None = None, depth: int = 1, limit: int | None = None
) -> None:
    """Print the call graph (3.14 and later)."""

def future_add_to_awaited_by(fut: Any, waiter: Any, /) -> None:
    """For authors of futures: note that one waits for another (3.14 and later)."""

def future_discard_from_awaited_by(fut: Any, waiter: Any, /) -> None:
    """The undoing of that (3.14 and later)."""

ALL_COMPLETED: Literal["ALL_COMPLETED"]
"""For `wait`: until all are done."""
FIRST_COMPLETED: Literal["FIRST_COMPLETED"]
"""For `wait`: until one is done."""
FIRST_EXCEPTION: Literal["FIRST_EXCEPTION"]
"""For `wait`: until one has raised, or all are done."""
