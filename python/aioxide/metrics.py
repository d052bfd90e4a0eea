"""Figures of a running event loop, for people and for Prometheus.

`loop.metrics()` gives them.  The first call starts the measurements; those cost
little enough to leave them on.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from aioxide import _core


@dataclass(frozen=True, slots=True)
class Spread:
    """Many durations, in seconds."""

    count: int
    sum: float
    p50: float
    """Half of them took at most this."""
    p99: float
    max: float
    buckets: tuple[tuple[float, int], ...]
    """How many took at most so long, for several lengths."""

    @classmethod
    def _of(cls, record: Mapping[str, Any]) -> "Spread":
        buckets = tuple((limit, count) for limit, count in record["buckets"])
        return cls(**{**record, "buckets": buckets})


@dataclass(frozen=True, slots=True)
class Metrics:
    """What an event loop does and has done since it has been measured."""

    iterations: int
    callbacks: int
    """How many callbacks and steps of tasks have run."""
    ready: int
    """How many ran in the last iteration: the length of the ready queue."""
    most_ready: int
    lag: Spread
    """How late the first timer of each iteration was."""
    iteration: Spread
    """How long iterations took, without the waiting."""
    callback: Spread
    """How long callbacks and steps took.  One in a hundred is timed and stands for the others; those that take over a
    millisecond are found all the same, and known to half of one."""
    timers: int
    """How many are set."""
    descriptors: int
    """How many are watched."""
    transports: int
    """How many are open, those included that are paused and not watched."""
    bytes_received: int
    """By sockets and pipes: this and the next are of all loops of the process."""
    bytes_sent: int
    executor_queue: int
    """How many jobs wait for a thread of the default executor."""
    executor_threads: int
    tasks_made: int
    """This and the next two are of the whole process."""
    tasks_done: int
    tasks_cancelled: int
    """How many of those done were cancelled."""


def of(loop: "_core.EventLoop") -> Metrics:
    """The figures of one loop."""
    record = json.loads(_core._metrics(loop))
    for name in ("lag", "iteration", "callback"):
        record[name] = Spread._of(record[name])
    return Metrics(**record)


_HELP = {
    "iterations": ("counter", "Iterations of the event loop."),
    "callbacks": ("counter", "Callbacks and steps of tasks that have run."),
    "ready": ("gauge", "Callbacks in the last iteration."),
    "most_ready": ("gauge", "The most callbacks in an iteration."),
    "lag": ("histogram", "How late timers were."),
    "iteration": ("histogram", "How long iterations took."),
    "callback": ("histogram", "How long callbacks took, by samples."),
    "timers": ("gauge", "Timers that are set."),
    "descriptors": ("gauge", "Descriptors that are watched."),
    "transports": ("gauge", "Transports that are open."),
    "bytes_received": ("counter", "Bytes received by sockets and pipes."),
    "bytes_sent": ("counter", "Bytes sent by sockets and pipes."),
    "executor_queue": ("gauge", "Jobs that wait for a thread of the default executor."),
    "executor_threads": ("gauge", "Threads of the default executor."),
    "tasks_made": ("counter", "Tasks that were made."),
    "tasks_done": ("counter", "Tasks that have ended."),
    "tasks_cancelled": ("counter", "Tasks that ended cancelled."),
}


def prometheus_text(loop: "_core.EventLoop | None" = None) -> str:
    """The figures of a loop, by default the running one, in Prometheus' text format."""
    found = of(_running() if loop is None else loop)
    lines = []
    for field in fields(found):
        kind, help_text = _HELP[field.name]
        name = f"aioxide_{field.name}" + {"counter": "_total", "histogram": "_seconds"}.get(kind, "")
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
        value = getattr(found, field.name)
        if isinstance(value, Spread):
            lines += [f'{name}_bucket{{le="{limit:g}"}} {count}' for limit, count in value.buckets]
            lines += [f'{name}_bucket{{le="+Inf"}} {value.count}', f"{name}_sum {value.sum:.9f}"]
            lines.append(f"{name}_count {value.count}")
        else:
            lines.append(f"{name} {value}")
    return "\n".join(lines) + "\n"


async def serve(host: str = "127.0.0.1", port: int = 9464) -> asyncio.Server:
    """Answer Prometheus at http://HOST:PORT/metrics with the figures of the running loop."""
    loop = _running()
    of(loop)
    return await asyncio.start_server(_answer, host, port)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(10):
            request = await reader.readuntil(b"\r\n\r\n")
            words = request.split(b" ", 2)
            is_ours = len(words) == 3 and words[0] in (b"GET", b"HEAD") and words[1].partition(b"?")[0] == b"/metrics"
            body = (prometheus_text() if is_ours else "see /metrics\n").encode()
            writer.write(
                b"HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                b"Content-Length: %d\r\nConnection: close\r\n\r\n"
                % (b"200 OK" if is_ours else b"404 Not Found", len(body))
            )
            writer.write(b"" if words[0] == b"HEAD" else body)
            await writer.drain()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # whoever asked has gone, or asks nothing that makes sense
    finally:
        writer.close()


def _running() -> "_core.EventLoop":
    loop = asyncio.get_running_loop()
    if not isinstance(loop, _core.EventLoop):
        raise TypeError(f"only event loops of aioxide are measured, not {loop!r}")
    return loop
