"""Streams: bytes over connections; and child processes.

Sizes and limits are in bytes, times in seconds. Keywords that are not named go to the loop's `create_connection` and
their like: `ssl`, `server_hostname`, `family`, `local_addr`, `ssl_handshake_timeout` and so on.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterable
from typing import IO, Any

def open_connection(
    host: str | None = None, port: int | str | None = None, *, limit: int = 65536, **kwds: Any
) -> Coroutine[Any, Any, tuple[StreamReader, StreamWriter]]:
    """Connect to a host. Raises OSError, ssl.SSLError; an ExceptionGroup of all attempts with `all_errors`."""

def start_server(
    client_connected_cb: Callable[[StreamReader, StreamWriter], object],
    host: str | None = None,
    port: int | str | None = None,
    *,
    limit: int = 65536,
    **kwds: Any,
) -> Coroutine[Any, Any, asyncio.Server]:
    """Listen; each connection calls the function, as a task if it is a coroutine function. Raises OSError."""

def open_unix_connection(
    path: str | None = None, *, limit: int = 65536, **kwds: Any
) -> Coroutine[Any, Any, tuple[StreamReader, StreamWriter]]:
    """Connect to a Unix socket: a path, or a name that begins with a zero byte. Raises OSError."""

def start_unix_server(
    client_connected_cb: Callable[[StreamReader, StreamWriter], object],
    path: str | None = None,
    *,
    limit: int = 65536,
    **kwds: Any,
) -> Coroutine[Any, Any, asyncio.Server]:
    """Listen on a Unix socket, whose file goes when the server does. Raises OSError."""

class StreamReader:
    """Bytes that arrive. It pauses its transport at twice its limit. `async for line in reader:` gives lines."""

    def __init__(self, limit: int = 65536, loop: asyncio.AbstractEventLoop | None = None) -> None: ...
    def read(self, n: int = -1) -> Coroutine[Any, Any, bytes]:
        """What is there, n bytes at most, when there is something; all until the end for -1; b"" at the end."""
    def readline(self) -> Coroutine[Any, Any, bytes]:
        """A line with its newline, or what is left at the end. Raises ValueError for one over the limit."""
    def readexactly(self, n: int) -> Coroutine[Any, Any, bytes]:
        """Just n bytes. Raises IncompleteReadError, which holds what came, and ValueError for less than none."""
    def readuntil(self, separator: bytes | tuple[bytes, ...] = b"\n") -> Coroutine[Any, Any, bytes]:
        """All up to the separator, or the first of several, and that too.

        Raises IncompleteReadError at the end, LimitOverrunError for more than the limit, ValueError for no separator.
        """
    def at_eof(self) -> bool:
        """Whether the end has come and all has been read."""
    def feed_data(self, data: bytes) -> None:
        """For protocols: bytes have come."""
    def feed_eof(self) -> None:
        """For protocols: no more will come."""
    def exception(self) -> Exception | None:
        """The error that the connection ended with."""
    def set_exception(self, exc: Exception) -> None:
        """For protocols: reading raises this from now on."""
    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        """For protocols: the transport to pause."""

class StreamWriter:
    """A transport to write to."""

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        protocol: asyncio.BaseProtocol,
        reader: StreamReader | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None: ...
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send at once what the socket takes, and the rest when it can. Call `drain` after it. Raises TypeError."""
    def writelines(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        """As `write`, for several."""
    def drain(self) -> Coroutine[Any, Any, None]:
        """Wait until not too much is unsent. Raises ConnectionResetError if the connection is lost."""
    def can_write_eof(self) -> bool: ...
    def write_eof(self) -> None:
        """Send the end of the stream after what is unsent. Raises NotImplementedError on TLS."""
    def close(self) -> None:
        """Close the connection after what is unsent."""
    def is_closing(self) -> bool: ...
    def wait_closed(self) -> Coroutine[Any, Any, None]:
        """Wait until it is closed. Raises what the connection was lost by."""
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """ "peername", "sockname", "socket", "ssl_object", "peercert", "cipher", "compression", "sslcontext"."""
    def start_tls(
        self,
        sslcontext: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Coroutine[Any, Any, None]:
        """Go on over TLS. Raises ssl.SSLError, ConnectionError, TimeoutError."""
    @property
    def transport(self) -> asyncio.WriteTransport: ...

class StreamReaderProtocol:
    """The protocol between a transport and a StreamReader, for own ways of connecting."""

    def __init__(
        self,
        stream_reader: StreamReader,
        client_connected_cb: Callable[[StreamReader, StreamWriter], object] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None: ...
    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...

def create_subprocess_exec(
    program: str,
    *args: str,
    stdin: int | IO[Any] | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    limit: int = 65536,
    **kwds: Any,
) -> Coroutine[Any, Any, asyncio.subprocess.Process]:
    """Start a program; `asyncio.subprocess.PIPE` makes streams. Keywords as `subprocess.Popen`'s.

    Raises OSError (FileNotFoundError, PermissionError), ValueError for text mode, which streams don't have.
    """

def create_subprocess_shell(
    cmd: str | bytes,
    stdin: int | IO[Any] | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    limit: int = 65536,
    **kwds: Any,
) -> Coroutine[Any, Any, asyncio.subprocess.Process]:
    """Start a shell with a command: quote what comes from outside with `shlex.quote`."""
