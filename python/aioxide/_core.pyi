"""The native module, in the types of what it stands in for.

Each class behaves as asyncio's of the same name, so it has that class's type:
a program that is typed against asyncio stays typed.  The event loop has the
type of asyncio's own concrete loop for the same reason, though it is no subclass.

Which of asyncio's names are native grows from version to version; this lists all
that are, or may be before long.
"""

import asyncio
from asyncio import (
    Barrier as Barrier,
    BoundedSemaphore as BoundedSemaphore,
    Condition as Condition,
    Event as Event,
    Future as Future,
    Handle as Handle,
    LifoQueue as LifoQueue,
    Lock as Lock,
    PriorityQueue as PriorityQueue,
    Queue as Queue,
    Semaphore as Semaphore,
    Server as Server,
    StreamReader as StreamReader,
    StreamReaderProtocol as StreamReaderProtocol,
    StreamWriter as StreamWriter,
    Task as Task,
    TaskGroup as TaskGroup,
    Timeout as Timeout,
    TimerHandle as TimerHandle,
    all_tasks as all_tasks,
    as_completed as as_completed,
    create_task as create_task,
    current_task as current_task,
    ensure_future as ensure_future,
    gather as gather,
    get_event_loop as get_event_loop,
    get_running_loop as get_running_loop,
    isfuture as isfuture,
    open_connection as open_connection,
    open_unix_connection as open_unix_connection,
    run_coroutine_threadsafe as run_coroutine_threadsafe,
    shield as shield,
    sleep as sleep,
    start_server as start_server,
    start_unix_server as start_unix_server,
    timeout as timeout,
    timeout_at as timeout_at,
    to_thread as to_thread,
    wait as wait,
    wait_for as wait_for,
    wrap_future as wrap_future,
)
from collections.abc import Callable
from typing import Any, Final, TypeVar, final

__version__: Final[str]

def _allow_nested_runs(allowed: bool) -> None: ...
def _allows_nested_runs() -> bool: ...
def _holders(lock: asyncio.Lock | asyncio.Semaphore) -> list[asyncio.Task[Any] | str | None]: ...
def _kernel_calls() -> list[tuple[str, int]]: ...
def _profile() -> str: ...
def _with_own_calls(loops: type[_Loops]) -> type[_Loops]: ...
def _keep_accounts(on: bool) -> None: ...
def _metrics(event_loop: EventLoop) -> str: ...
def _serve_forked() -> None: ...
def _serve_start(path: str) -> None: ...
def _serve_stop() -> None: ...
def _stalls() -> str: ...
def _trace_forked() -> None: ...
def _trace_start(limit: int, stall: float) -> None: ...
def _trace_stop(path: str | None, facts: str) -> tuple[int, int] | None: ...
def _watchdog_forked() -> None: ...
def _watchdog_start(threshold: float, report: Callable[[str], object]) -> None: ...
def _watchdog_stop(wait: bool) -> None: ...
def _web_forked() -> None: ...
def _web_start(port: int, token: str, page: str, policy: str) -> int: ...
def _web_stop() -> None: ...
def _throw(task: asyncio.Task[Any], error: BaseException) -> None: ...
def _tasks(event_loop: asyncio.AbstractEventLoop | None = None) -> str: ...

_Loops = TypeVar("_Loops", bound="LoopCore")

class LoopCore:
    """The part of a loop that tasks, futures and handles need."""

class EventLoop(LoopCore, asyncio.SelectorEventLoop):
    """The native base of `aioxide.EventLoop`."""

    slow_callback_duration: float
    def __init__(self) -> None: ...
    def _note_override(self, name: str) -> None: ...
    def _set_idle_hook(self, hook: Callable[[asyncio.AbstractEventLoop, str], bool | None] | None) -> None: ...
    def _use_virtual_clock(self, start: float = 0.0) -> None: ...

@final
class SocketDatagramTransport(asyncio.Transport, asyncio.DatagramTransport):
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def get_write_buffer_limits(self) -> tuple[int, int]: ...
    def get_write_buffer_size(self) -> int: ...
    def __getattr__(self, name: str) -> Any: ...  # private names of asyncio's own transports

@final
class UnixReadPipeTransport(asyncio.ReadTransport):
    def __getattr__(self, name: str) -> Any: ...  # private names of asyncio's own transports

@final
class UnixWritePipeTransport(asyncio.WriteTransport):
    def __getattr__(self, name: str) -> Any: ...  # private names of asyncio's own transports

@final
class ProcessTransport(asyncio.SubprocessTransport):
    """What `subprocess_exec` and `subprocess_shell` give for a child process."""

    def __getattr__(self, name: str) -> Any: ...  # private names of asyncio's own transports

@final
class SSLProtocol(asyncio.BufferedProtocol): ...

@final
class _SSLProtocolTransport(asyncio.Transport): ...

@final
class SocketTransport(asyncio.Transport):
    """What connections of `create_connection` and of servers go through."""

    def __getattr__(self, name: str) -> Any: ...  # private names of asyncio's own transports
