"""The timeline of a program: which task ran when, what each waited for and who woke it, as a file for trace viewers."""

import atexit
import json
import os
import stat
import sys
import threading
import time
from pathlib import Path

from aioxide import _core, _watchdog
from aioxide._core import __version__

_SMALLEST = 0.01
_EMPTY = '{"traceEvents":[]}\n'


class Trace:
    """The recording that `trace` has started; in a `with` statement it stops at the end."""

    def __init__(self, path: str | os.PathLike[str], limit: float, stall: float) -> None:
        self.path = Path(path)
        self._absolute = os.path.abspath(path)  # the program may go elsewhere
        self._began = time.time()
        _prepare(self._absolute)
        _core._trace_start(int(limit * 1_000_000), stall)
        self._dog = _watchdog.watch_quietly(stall / 2)  # so that whatever is a stall has been looked at

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Record no more, and write the file."""
        global _running
        with _lock:
            if _running is not self:
                return
            _running = None
        if self._dog is not None:
            self._dog.stop()  # it may be about to tell of the last stall
        facts = {
            "name": sys.argv[0][:500] if sys.argv else "",
            "pid": os.getpid(),
            "began": round(self._began, 6),
            "python": sys.version.split()[0],
            "aioxide": __version__,
        }
        with _Replaced(self._absolute) as place:
            _core._trace_stop(place, json.dumps(facts))


class _Replaced:
    """A place to write a file that takes the place of another one, at once and as a whole."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path) if _is_plain(path) else path
        self.place = f"{self.path}.{os.getpid()}.part" if _is_plain(path) else path

    def __enter__(self) -> str:
        return self.place

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.place != self.path:
            if kind is None:
                os.replace(self.place, self.path)
            elif os.path.exists(self.place):
                os.unlink(self.place)


def _is_plain(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _prepare(path: str) -> None:
    """See now, and not at the end, that the file can be written; until then it is a trace without events."""
    with open(path, "w", encoding="utf-8") as file:
        if _is_plain(path):
            file.write(_EMPTY)


_lock = threading.Lock()
_running: Trace | None = None
_hooked = False


def trace(path: str | os.PathLike[str], *, limit: float = 100, stall: float = 0.1) -> Trace:
    """Record what every event loop of aioxide's does, for a file in the format of Chrome and Perfetto.

    Tasks are tracks; their steps, the waits in between (for what, and where),
    the time until a task that could run did, and who woke it are what the
    viewer shows; so are callbacks, and stalls: what kept a loop for `stall`
    seconds or longer, with the lines that it was seen at.

    The file is written by `stop()`, or when the interpreter ends.  It has at
    most `limit` megabytes: when there is more to tell, the oldest goes, and the
    file says so.  Names and lines are written, never the values of variables.

    There is one trace at a time: RuntimeError if one is being recorded.
    """
    global _running, _hooked
    if not _SMALLEST <= limit < float("inf"):
        raise ValueError(f"limit must be a number of megabytes, {_SMALLEST} or more, not {limit!r}")
    if not 0 < stall < float("inf"):
        raise ValueError(f"stall must be a positive number of seconds, not {stall!r}")
    with _lock:
        if _running is not None:
            raise RuntimeError(f"a trace is being recorded already, to {_running.path}")
        if not _hooked:
            atexit.register(_at_exit)
            os.register_at_fork(after_in_child=_forked)
            _hooked = True
        _running = Trace(path, limit, stall)
        return _running


def _at_exit() -> None:
    if _running is not None:
        try:
            _running.stop()
        except OSError as error:
            sys.stderr.write(f"aioxide: the trace can't be written: {error}\n")


def _forked() -> None:
    """A child process leaves the trace to its parent."""
    global _lock, _running
    _lock, _running = threading.Lock(), None  # a thread that is not here may have had the old one
    _core._trace_forked()


for _public in (Trace, trace):
    _public.__module__ = "aioxide"
