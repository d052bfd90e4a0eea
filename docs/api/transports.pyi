"""Transports and protocols: the level below streams.

These are asyncio's own abstract classes, of which aioxide's transports are instances. Sizes are in bytes. A protocol is
called by the loop; what it raises goes to the loop's exception handler, and ends the connection.
"""

from collections.abc import Iterable
from typing import Any

class BaseTransport:
    """What all transports have in common."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """ "peername", "sockname", "socket", "pipe", "subprocess", "ssl_object", "peercert", "cipher" and others."""
    def is_closing(self) -> bool: ...
    def close(self) -> None:
        """Close after what is unsent; the protocol's `connection_lost` is called then."""
    def set_protocol(self, protocol: BaseProtocol) -> None: ...
    def get_protocol(self) -> BaseProtocol: ...

class ReadTransport(BaseTransport):
    """A transport to read from."""

    def is_reading(self) -> bool: ...
    def pause_reading(self) -> None:
        """Bring no more data. Does nothing if that is so already."""
    def resume_reading(self) -> None:
        """Bring data again."""

class WriteTransport(BaseTransport):
    """A transport to write to."""

    def write(self, data: Any) -> None:
        """Send at once what goes, and the rest when it can. Raises TypeError, RuntimeError after `write_eof`."""
    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """As `write`, for several."""
    def can_write_eof(self) -> bool: ...
    def write_eof(self) -> None:
        """Send the end of the stream; reading goes on."""
    def abort(self) -> None:
        """Close at once; what is unsent is lost."""
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When to pause and resume the protocol's writing. Raises ValueError unless high >= low >= 0."""
    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Low and high."""
    def get_write_buffer_size(self) -> int:
        """How much is unsent."""

class Transport(ReadTransport, WriteTransport):
    """A transport both ways."""

class DatagramTransport(BaseTransport):
    """A transport of datagrams."""

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a datagram. Raises TypeError, ValueError for another address than the connected one."""
    def abort(self) -> None:
        """Close at once; what is unsent is lost."""

class SubprocessTransport(BaseTransport):
    """A child process."""

    def get_pid(self) -> int: ...
    def get_returncode(self) -> int | None:
        """None while it runs; minus the number of the signal that ended it."""
    def get_pipe_transport(self, fd: int) -> BaseTransport | None:
        """For 0, 1 and 2."""
    def send_signal(self, signal: int) -> None:
        """Raises ProcessLookupError if it has ended."""
    def terminate(self) -> None: ...
    def kill(self) -> None: ...

class BaseProtocol:
    """What all protocols have in common; the methods do nothing until they are overridden."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Called first."""
    def connection_lost(self, exc: Exception | None) -> None:
        """Called last; None after a `close` or the peer's end."""
    def pause_writing(self) -> None:
        """More is unsent than the high limit."""
    def resume_writing(self) -> None:
        """No more is unsent than the low limit."""

class Protocol(BaseProtocol):
    """The protocol of a stream."""

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
    def eof_received(self) -> bool | None:
        """The peer sends no more. True keeps the transport open, for writing."""

class BufferedProtocol(BaseProtocol):
    """The protocol of a stream that lends its own buffers."""

    def get_buffer(self, sizehint: int) -> Any:
        """A buffer to receive into; not an empty one, which raises RuntimeError."""
    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come."""
    def eof_received(self) -> bool | None:
        """The peer sends no more."""

class DatagramProtocol(BaseProtocol):
    """The protocol of datagrams."""

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """A datagram has come."""
    def error_received(self, exc: OSError) -> None:
        """Sending or receiving has failed: nobody listens there, say."""

class SubprocessProtocol(BaseProtocol):
    """The protocol of a child process."""

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """The child has written to 1 or 2."""
    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """A pipe is closed."""
    def process_exited(self) -> None:
        """The child has ended."""
