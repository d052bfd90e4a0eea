"""The event loop.

Programs rarely call these: `run`, tasks and streams are the way. Times are in seconds of the loop's own clock, which
only goes forward. Except for `call_soon_threadsafe` and `stop` through it, a loop belongs to its thread.
"""

import asyncio
import concurrent.futures
import contextvars
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import IO, Any, TypeVar

from .tasks import Future, Task

T = TypeVar("T")

def new_event_loop() -> EventLoop:
    """Make an event loop. Close it when it has done its work."""

def get_running_loop() -> asyncio.AbstractEventLoop:
    """The loop that runs in this thread. Raises RuntimeError if none does."""

def get_event_loop() -> asyncio.AbstractEventLoop:
    """The running loop, or the one that was set. Raises RuntimeError if there is none (3.14 and later)."""

def set_event_loop(loop: asyncio.AbstractEventLoop | None) -> None:
    """Set what `get_event_loop` gives while none runs."""

class EventLoop:
    """aioxide's event loop, an `asyncio.AbstractEventLoop`."""

    def __init__(self, selector: object = None) -> None:
        """A selector is accepted, as asyncio's takes one, and not used. Raises TypeError for one of a class of the
        program's own, which SelectorEventLoop takes, and OSError without descriptors."""
    def run_forever(self) -> None:
        """Run until `stop`. Raises RuntimeError if a loop runs in this thread."""
    def run_until_complete(self, future: Any) -> Any:
        """Run until a future or coroutine is done; its result. Raises as `run_forever`, and what it raises."""
    def stop(self) -> None:
        """Stop after the callbacks that are ready now."""
    def close(self) -> None:
        """Free what it holds. Raises RuntimeError while it runs."""
    def is_running(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def shutdown_asyncgens(self) -> Coroutine[Any, Any, None]:
        """End asynchronous generators that are not at their end."""
    def shutdown_default_executor(self, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Wait for the threads of the default executor. Warns with RuntimeWarning if that takes longer."""
    def time(self) -> float:
        """The loop's clock."""
    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        """Call it in the next iteration, in order. Raises RuntimeError if closed; TypeError in debug mode."""
    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        """The same from any thread, and from signal handlers: wakes the loop."""
    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> TimerHandle:
        """Call it in so many seconds. Raises TypeError for None."""
    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> TimerHandle:
        """Call it at a time of the loop's clock."""
    def create_future(self) -> Future[Any]: ...
    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        eager_start: bool | None = None,
        **kwargs: Any,
    ) -> Task[T]:
        """Run a coroutine as a task, which the task factory makes if there is one."""
    def set_task_factory(self, factory: Callable[..., Any] | None) -> None:
        """What makes tasks: `factory(loop, coro, **kwargs)`. Raises TypeError for what can't be called."""
    def get_task_factory(self) -> Callable[..., Any] | None: ...
    def run_in_executor(
        self, executor: concurrent.futures.Executor | None, func: Callable[..., T], *args: Any
    ) -> Future[T]:
        """Run a function in an executor; None is the default one, of threads. Raises RuntimeError after its end."""
    def set_default_executor(self, executor: concurrent.futures.ThreadPoolExecutor) -> None:
        """Raises TypeError for another kind."""
    def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Coroutine[Any, Any, list[tuple[Any, ...]]]:
        """As `socket.getaddrinfo`, in a thread of its own. Raises socket.gaierror."""
    def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int = 0) -> Coroutine[Any, Any, tuple[str, str]]:
        """As `socket.getnameinfo`."""
    def create_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | str | None = None,
        *,
        ssl: bool | ssl.SSLContext | None = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: socket.socket | None = None,
        local_addr: tuple[str, int] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None,
        interleave: int | None = None,
        all_errors: bool = False,
    ) -> Coroutine[Any, Any, tuple[asyncio.Transport, asyncio.BaseProtocol]]:
        """Connect over TCP, and TLS; a transport and its protocol.

        `happy_eyeballs_delay`: begin another attempt after so many seconds. Raises OSError, ssl.SSLError, ValueError
        for options that contradict each other; an ExceptionGroup of all attempts with `all_errors`.
        """
    def create_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: Any = None,
        port: int | str | None = None,
        *,
        family: int = 0,
        flags: int = 1,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: ssl.SSLContext | None = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
    ) -> Coroutine[Any, Any, Server]:
        """Listen at a host, several, or all (None). Raises OSError, ValueError, TypeError for what is no SSLContext."""
    def create_unix_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: Any = None,
        *,
        ssl: ssl.SSLContext | None = None,
        sock: socket.socket | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Coroutine[Any, Any, tuple[asyncio.Transport, asyncio.BaseProtocol]]:
        """Connect to a Unix socket. Raises OSError, ValueError."""
    def create_unix_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: Any = None,
        *,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: ssl.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = True,
    ) -> Coroutine[Any, Any, Server]:
        """Listen on a Unix socket; a file that a dead server left is replaced, and goes with this server."""
    def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        local_addr: Any = None,
        remote_addr: Any = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: socket.socket | None = None,
    ) -> Coroutine[Any, Any, tuple[asyncio.DatagramTransport, asyncio.BaseProtocol]]:
        """A UDP or Unix datagram socket. Raises OSError, ValueError."""
    def connect_accepted_socket(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        *,
        ssl: ssl.SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Coroutine[Any, Any, tuple[asyncio.Transport, asyncio.BaseProtocol]]:
        """A transport for a connection that was accepted elsewhere."""
    def start_tls(
        self,
        transport: asyncio.BaseTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Coroutine[Any, Any, asyncio.Transport | None]:
        """Go on over TLS; the transport to use from now on. Raises TypeError, ssl.SSLError, ConnectionError."""
    def sendfile(
        self,
        transport: asyncio.BaseTransport,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> Coroutine[Any, Any, int]:
        """Send a file, by the kernel where that can be; how many bytes went.

        Raises RuntimeError if the transport is closing, SendfileNotAvailableError without `fallback`.
        """
    def connect_read_pipe(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], pipe: IO[Any]
    ) -> Coroutine[Any, Any, tuple[asyncio.ReadTransport, asyncio.BaseProtocol]]:
        """Read from a pipe, socket or terminal. Raises ValueError for a regular file."""
    def connect_write_pipe(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], pipe: IO[Any]
    ) -> Coroutine[Any, Any, tuple[asyncio.WriteTransport, asyncio.BaseProtocol]]:
        """Write to a pipe, socket or terminal. Raises ValueError for a regular file."""
    def subprocess_exec(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        program: Any,
        *args: Any,
        stdin: Any = -1,
        stdout: Any = -1,
        stderr: Any = -1,
        universal_newlines: bool = False,
        shell: bool = False,
        bufsize: int = 0,
        encoding: None = None,
        errors: None = None,
        text: None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, tuple[asyncio.SubprocessTransport, asyncio.BaseProtocol]]:
        """Start a program. Raises OSError, ValueError for text mode."""
    def subprocess_shell(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        cmd: str | bytes,
        *,
        stdin: Any = -1,
        stdout: Any = -1,
        stderr: Any = -1,
        universal_newlines: bool = False,
        shell: bool = True,
        bufsize: int = 0,
        encoding: None = None,
        errors: None = None,
        text: None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, tuple[asyncio.SubprocessTransport, asyncio.BaseProtocol]]:
        """Start a shell with a command."""
    def add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> None:
        """Call it whenever the descriptor can be read. Raises RuntimeError for one that a transport uses, OSError."""
    def remove_reader(self, fd: Any) -> bool:
        """Whether there was one."""
    def add_writer(self, fd: Any, callback: Callable[..., object], *args: Any) -> None:
        """Call it whenever the descriptor can be written."""
    def remove_writer(self, fd: Any) -> bool:
        """Whether there was one."""
    def sock_recv(self, sock: socket.socket, n: int) -> Coroutine[Any, Any, bytes]:
        """Receive n bytes at most. This and the next: sockets that don't block; ValueError for others in debug mode."""
    def sock_recv_into(self, sock: socket.socket, buf: Any) -> Coroutine[Any, Any, int]:
        """Receive into a buffer; how many bytes."""
    def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> Coroutine[Any, Any, tuple[bytes, Any]]:
        """Receive a datagram and its sender's address."""
    def sock_recvfrom_into(
        self, sock: socket.socket, buf: Any, nbytes: int = 0
    ) -> Coroutine[Any, Any, tuple[int, Any]]:
        """Receive a datagram into a buffer."""
    def sock_sendall(self, sock: socket.socket, data: Any) -> Coroutine[Any, Any, None]:
        """Send all. After an error or a cancellation nobody knows how much went."""
    def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> Coroutine[Any, Any, int]:
        """Send a datagram."""
    def sock_connect(self, sock: socket.socket, address: Any) -> Coroutine[Any, Any, None]:
        """Connect. Raises OSError."""
    def sock_accept(self, sock: socket.socket) -> Coroutine[Any, Any, tuple[socket.socket, Any]]:
        """Accept a connection; its socket and the peer's address."""
    def sock_sendfile(
        self, sock: socket.socket, file: IO[bytes], offset: int = 0, count: int | None = None, *, fallback: bool = True
    ) -> Coroutine[Any, Any, int]:
        """Send a file; how many bytes went. Raises as `sendfile`."""
    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        """Call it when a signal comes. Main thread only. Raises ValueError; RuntimeError for one not to be caught."""
    def remove_signal_handler(self, sig: int) -> bool:
        """Whether there was one."""
    def set_exception_handler(self, handler: Callable[..., object] | None) -> None:
        """What is told of errors that nobody catches: `handler(loop, context)`. Raises TypeError."""
    def get_exception_handler(self) -> Callable[..., object] | None: ...
    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log it."""
    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tell the handler: a dict with "message", and perhaps "exception", "future", "transport" and others."""
    def get_debug(self) -> bool: ...
    def set_debug(self, enabled: bool) -> None:
        """Check more, and log callbacks that take longer than `slow_callback_duration`."""
    slow_callback_duration: float
    """In seconds; 0.1 at first."""
    def metrics(self) -> Any:
        """What this loop does and has done, see `aioxide.metrics`; the first call starts the measurements."""

class Handle:
    """A callback that the loop will call."""

    def cancel(self) -> None:
        """It will not be called."""
    def cancelled(self) -> bool: ...
    def get_context(self) -> contextvars.Context:
        """The context that it is called in."""

class TimerHandle(Handle):
    """A callback that is due at a time."""

    def when(self) -> float:
        """The time of the loop's clock."""

class Server:
    """What listens: `async with server:` closes it at the end."""

    def get_loop(self) -> asyncio.AbstractEventLoop: ...
    def is_serving(self) -> bool: ...
    def start_serving(self) -> Coroutine[Any, Any, None]:
        """Begin to accept, where `start_serving=False` has put that off."""
    def serve_forever(self) -> Coroutine[Any, Any, None]:
        """Accept until cancelled, then close. Raises RuntimeError if it is closed or somebody does so already."""
    def close(self) -> None:
        """Accept no more. Connections go on."""
    def close_clients(self) -> None:
        """Close every connection after what is unsent."""
    def abort_clients(self) -> None:
        """Close every connection at once."""
    def wait_closed(self) -> Coroutine[Any, Any, None]:
        """Wait until it is closed and the last connection too."""
    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets; none once it is closed."""

class EventLoopPolicy:
    """asyncio's default policy, making aioxide's event loops. Policies go with Python 3.16."""

class AbstractEventLoop:
    """What every event loop is an instance of, asyncio's own class."""

class BaseEventLoop:
    """What asyncio's loop builds on. Installed, aioxide's loops are instances too, and have what is put there.

    To call it or to subclass it makes what it makes of asyncio's.
    """

class AbstractServer:
    """What every server is an instance of, asyncio's own class."""

class SelectorEventLoop:
    """Makes an EventLoop when called, or with a selector of the program's own a loop of asyncio's.

    A subclass is one of asyncio's loop; subclass EventLoop to build on aioxide's.
    """

def get_event_loop_policy() -> Any:
    """asyncio's. Deprecated since 3.14."""

def set_event_loop_policy(policy: Any) -> None:
    """asyncio's. Deprecated since 3.14."""

class AbstractEventLoopPolicy:
    """asyncio's. Deprecated since 3.14."""

class DefaultEventLoopPolicy:
    """asyncio's name for EventLoopPolicy. Deprecated since 3.14."""

def get_child_watcher() -> Any:
    """asyncio's; gone with 3.14. Child processes are watched by the loop."""

def set_child_watcher(watcher: Any) -> None:
    """asyncio's; gone with 3.14."""

class AbstractChildWatcher:
    """asyncio's; gone with 3.14."""

class SafeChildWatcher:
    """asyncio's; gone with 3.14."""

class FastChildWatcher:
    """asyncio's; gone with 3.14."""

class PidfdChildWatcher:
    """asyncio's; gone with 3.14."""

class MultiLoopChildWatcher:
    """asyncio's; gone with 3.14."""

class ThreadedChildWatcher:
    """asyncio's; gone with 3.14."""
