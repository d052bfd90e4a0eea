"""The watchdog: reports when an event loop does not come back for too long, with what it was doing meanwhile."""

import atexit
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aioxide import _core
from aioxide.inspect import Frame

_logger = logging.getLogger("aioxide")


@dataclass(frozen=True, slots=True)
class Look:
    """What a stalled loop did at one moment."""

    after: float
    """Seconds after the stall began, with the loop's turn: some milliseconds late, as a cheap clock measures it."""
    task: str | None
    """The name of the task that ran, if one did."""
    stack: tuple[Frame, ...]
    """The Python stack: the task's coroutine, or the callback, and what it has called."""


@dataclass(frozen=True, slots=True)
class Stall:
    """A loop that did not come back in time."""

    seconds: float
    over: bool
    """Whether that is the whole length."""
    thread: int
    """`threading.get_ident()` of the loop's thread."""
    looks: tuple[Look, ...]
    """Looks at the stack during the stall, of which each shows another.  None where native code kept the
    interpreter's lock all the time, or the whole process stood still: stopped, throttled, on a machine that was."""

    @classmethod
    def _of(cls, record: Mapping[str, Any]) -> "Stall":
        looks = tuple(
            Look(look["after"], look["task"], tuple(Frame(**link) for link in look["stack"]))
            for look in record["looks"]
        )
        return cls(record["seconds"], record["over"], record["thread"], looks)

    def __str__(self) -> str:
        lines = [f"the event loop {'was' if self.over else 'has been'} stalled for {self.seconds:.3f} s"]
        if not self.looks:
            lines.append(
                "  no stack could be read: native code kept the interpreter's lock, or the whole process stood still"
            )
        for look in self.looks:
            who = "a callback" if look.task is None else f"task {look.task!r}"
            lines.append(f"  after {look.after:.3f} s, in {who}:")
            lines += [f"    {frame}" for frame in look.stack]
        return "\n".join(lines)


class Watchdog:
    """The watchdog that `watchdog` has started; in a `with` statement it stops at the end."""

    def __init__(self, threshold: float, callback: Callable[[Stall], object] | None, is_quiet: bool = False) -> None:
        self.threshold = threshold
        self._callback = callback
        self._is_quiet = is_quiet
        _core._watchdog_start(threshold, self._report)

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Watch no more.  Stalls that are over by now have been reported when this returns."""
        global _running
        with _lock:
            if _running is not self:
                return
            _running = None
        _core._watchdog_stop(True)

    def _report(self, text: str) -> None:
        stall = Stall._of(json.loads(text))
        if not self._is_quiet:
            _logger.warning("%s", stall)
        if self._callback is not None and stall.over:
            self._callback(stall)


_lock = threading.Lock()
_running: Watchdog | None = None
_hooked = False


def watchdog(threshold: float = 0.1, *, callback: Callable[[Stall], object] | None = None) -> Watchdog:
    """Report each time an event loop of aioxide's does not come back for `threshold` seconds.

    A native thread watches every loop of the process, those that start later
    too, and reads the stack of the loop's thread during the stall.  A stall
    that it sleeps through itself, as the process was stopped or got no
    processor, is reported without a stack.  At the end
    of the stall it is logged once, to the logger "aioxide", and `callback` is
    called with it, in the watchdog's thread.  A stall that lasts over five
    seconds is logged once more while it lasts.

    A watchdog that is there already is replaced.
    """
    global _running
    if not 0 < threshold < float("inf"):
        raise ValueError(f"threshold must be a positive number of seconds, not {threshold!r}")
    with _lock:
        _core._watchdog_stop(False)
        _running = None
        _hook()
        _running = Watchdog(float(threshold), callback)
        return _running


def watch_quietly(threshold: float = 0.1) -> Watchdog | None:
    """A watchdog for those who ask for `stalls`, if there is none; it logs nothing."""
    global _running
    with _lock:
        if _running is not None:
            return None
        _hook()
        _running = Watchdog(threshold, None, is_quiet=True)
        return _running


def _hook() -> None:
    """Before the interpreter ends, the thread does; and a child process has none."""
    global _hooked
    if not _hooked:
        atexit.register(_core._watchdog_stop, True)
        os.register_at_fork(after_in_child=_forked)
        _hooked = True


def _forked() -> None:
    global _lock, _running
    _lock, _running = threading.Lock(), None  # a thread that is not here may have had the old one
    _core._watchdog_forked()


def stalls() -> list[Stall]:
    """The last stalls, at most a hundred, and those that last."""
    return [Stall._of(record) for record in json.loads(_core._stalls())]


for _public in (Look, Stall, Watchdog, watchdog, stalls):
    _public.__module__ = "aioxide"
