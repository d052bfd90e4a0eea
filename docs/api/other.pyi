"""Errors, and the names that are left. The errors are asyncio's own classes: `except` finds them either way."""

class CancelledError(BaseException):
    """Somebody has cancelled this task or future. Let it pass after cleaning up."""

class TimeoutError(OSError):
    """The time is up: Python's own TimeoutError."""

class InvalidStateError(Exception):
    """Not in this state: a result that is not there yet, or there already."""

class IncompleteReadError(EOFError):
    """The stream has ended before all was there."""

    partial: bytes
    """What came."""
    expected: int | None
    """How many bytes were asked for; None for `readuntil`."""

class LimitOverrunError(Exception):
    """More than the reader's limit without a separator."""

    consumed: int
    """How many bytes could be read and thrown away."""

class SendfileNotAvailableError(RuntimeError):
    """The kernel can't send this file to this socket."""

class BrokenBarrierError(RuntimeError):
    """The barrier has been reset or aborted."""

class QueueEmpty(Exception):
    """There is no item."""

class QueueFull(Exception):
    """There is no room."""

class QueueShutDown(Exception):
    """The queue has been shut down."""
