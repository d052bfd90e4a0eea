"""`aioxide report`: a trace as one page for people, with where time went, the stalls, and the timeline."""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aioxide import _commands

Key = tuple[int, int]


class Unreadable(Exception):
    """Why no report can be made of a file."""


def main(words: list[str]) -> int:
    """Make the page; the status to exit with."""
    parser = _commands.Parser(words[0], __doc__)
    parser.add_argument("trace", metavar="TRACE", help="what `aioxide --trace TRACE app.py` has written")
    parser.add_argument("-o", "--output", metavar="PAGE", help="the page (TRACE with the ending .html)")
    options = parser.parse_args(words[1:])
    output = options.output or os.path.splitext(options.trace)[0] + ".html"
    try:
        from aioxide import _report_page  # only for those who want one

        page = _report_page.page(read(options.trace), os.path.basename(options.trace))
        try:
            with open(output, "w", encoding="utf-8") as file:
                file.write(page)
        except OSError as error:
            raise Unreadable(f"can't write {output}: {error.strerror}") from None
    except Unreadable as reason:
        sys.stderr.write(f"aioxide report: {reason}\n")
        return 2
    sys.stdout.write(f"{output}\n")
    return 0


class Slice(NamedTuple):
    """From when, for how long (in seconds); what it was, and about what."""

    start: float
    length: float
    name: str
    detail: str = ""
    place: str = ""
    is_open: bool = False

    @property
    def end(self) -> float:
        return self.start + self.length


@dataclass
class Row:
    """A task, or a loop: what it did, in the order in which it did that."""

    name: str
    loop: int
    coroutine: str = ""
    place: str = ""
    steps: list[Slice] = field(default_factory=list)
    waits: list[Slice] = field(default_factory=list)
    ready: list[Slice] = field(default_factory=list)
    callbacks: list[Slice] = field(default_factory=list)
    asleep: list[Slice] = field(default_factory=list)

    @property
    def busy(self) -> float:
        return total(self.steps)

    @property
    def first(self) -> float:
        return min(
            (of[0].start for of in (self.steps, self.waits, self.ready, self.callbacks, self.asleep) if of),
            default=0.0,
        )

    @property
    def end(self) -> str:
        """How the task ended, if it did."""
        return self.steps[-1].detail if self.steps else ""


@dataclass(frozen=True)
class Stall:
    """What kept a loop too long."""

    start: float
    length: float
    loop: int
    task: str | None
    name: str
    stacks: list[list[str]]
    """The stacks that were seen meanwhile, the innermost line last."""


@dataclass(frozen=True)
class Arrow:
    """Who woke whom."""

    waker: Key
    at: float
    woken: Key
    then: float


@dataclass
class Trace:
    """A trace, read."""

    program: Mapping[str, Any]
    seconds: float
    begin: float
    """Where the record begins: later than at 0 if something had to go."""
    dropped: int
    loops: dict[int, Row]
    tasks: dict[Key, Row]
    stalls: list[Stall]
    arrows: list[Arrow]
    stall_seconds: float

    def row(self, key: Key) -> Row | None:
        """The loop or task behind an end of an arrow."""
        return self.loops.get(key[0]) if key[1] == 0 else self.tasks.get(key)


def total(slices: Iterable[Slice]) -> float:
    """The lengths of some slices together."""
    return sum(one.length for one in slices)


def read(path: str) -> Trace:
    """Read a trace of aioxide's; Unreadable says in one line why that can't be done."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise Unreadable(f"can't read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise Unreadable(f"{path} is no trace: it isn't JSON") from None
    try:
        events = content["traceEvents"]
        if not events:
            raise Unreadable(f"{path} holds no events: did the program end before it could write them?")
        about = content["otherData"]
        if "aioxide" not in about["program"]:
            raise KeyError("program")
        found = _collect(about, events)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise Unreadable(f"{path} is no trace that aioxide has written") from None
    return found


def _collect(about: Mapping[str, Any], events: list[dict[str, Any]]) -> Trace:
    seconds = float(about["seconds"])
    dropped = int(about["dropped_events"])
    begin = min(float(about["dropped_until_seconds"]), seconds) if dropped else 0.0
    trace = Trace(about["program"], seconds, begin, dropped, {}, {}, [], [], float(about["stall_seconds"]))
    starts: dict[int, tuple[Key, float]] = {}
    for event in events:
        kind, key = event["ph"], (event["pid"], event["tid"])
        if kind == "M":
            _name(trace, event, key)
        elif kind == "X":
            _add(trace, event, key)
        elif kind == "s":
            starts[event["id"]] = (key, event["ts"] / 1e6)
        elif kind == "f" and event["id"] in starts:
            waker, at = starts.pop(event["id"])
            trace.arrows.append(Arrow(waker, at, key, event["ts"] / 1e6))
    for row in (*trace.loops.values(), *trace.tasks.values()):
        for slices in (row.steps, row.waits, row.ready, row.callbacks, row.asleep):
            slices.sort(key=lambda one: one.start)
    trace.stalls.sort(key=lambda stall: -stall.length)
    return trace


def _name(trace: Trace, event: Mapping[str, Any], key: Key) -> None:
    given = event["args"]
    if event["name"] == "process_name":
        trace.loops[key[0]] = Row(str(given["name"]), key[0])
    elif event["name"] == "thread_name" and key[1] > 1:
        trace.tasks[key] = Row(str(given["name"]), key[0], str(given["coroutine"]), str(given["place"]))


def _add(trace: Trace, event: Mapping[str, Any], key: Key) -> None:
    given = event.get("args", {})
    start, length, name = event["ts"] / 1e6, event["dur"] / 1e6, str(event["name"])
    category = event["cat"]
    if category == "stall":
        stacks = [[_line(frame) for frame in look["stack"]] for look in given["looks"]]
        trace.stalls.append(Stall(start, length, key[0], given["task"], name, stacks))
    elif category == "step":
        trace.tasks[key].steps.append(Slice(start, length, name, str(given.get("end", ""))))
    elif category == "wait":
        is_open = bool(given.get("open", False))
        wait = Slice(start, length, name, str(given["for"]), str(given["at"]), is_open)
        trace.tasks[key].waits.append(wait)
    elif category == "ready":
        trace.tasks[key].ready.append(Slice(start, length, name))
    elif category == "callback":
        trace.loops[key[0]].callbacks.append(Slice(start, length, name))
    elif category == "asleep":
        trace.loops[key[0]].asleep.append(Slice(start, length, name))


def _line(frame: Mapping[str, Any]) -> str:
    if frame["file"] == "<aioxide>":
        return str(frame["function"])
    return f"{frame['function']}  {frame['file']}:{frame['line']}"


class Share(NamedTuple):
    """What the time of a loop went into."""

    tasks: float
    callbacks: float
    asleep: float
    rest: float


def share(trace: Trace, loop: int) -> Share:
    """Where the time of a loop went, from its first event to its last."""
    row = trace.loops[loop]
    tasks = [task for task in trace.tasks.values() if task.loop == loop]
    slices = [*row.callbacks, *row.asleep, *(step for task in tasks for step in task.steps)]
    if not slices:
        return Share(0.0, 0.0, 0.0, 0.0)
    length = max(one.end for one in slices) - min(one.start for one in slices)
    known = (sum(task.busy for task in tasks), total(row.callbacks), total(row.asleep))
    return Share(*known, max(0.0, length - sum(known)))


class Group(NamedTuple):
    """Slices that have something in common."""

    name: str
    place: str
    tasks: int
    times: int
    seconds: float
    longest: float


def by_coroutine(trace: Trace) -> list[Group]:
    """The steps of all tasks, by their coroutines; most time first."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for task in trace.tasks.values():
        if task.steps:
            found[task.coroutine, task.place].append(task)
    groups = [
        Group(
            name,
            place,
            len(tasks),
            sum(len(task.steps) for task in tasks),
            sum(task.busy for task in tasks),
            max(step.length for task in tasks for step in task.steps),
        )
        for (name, place), tasks in found.items()
    ]
    return sorted(groups, key=lambda group: -group.seconds)


def by_callback(trace: Trace) -> list[Group]:
    """What loops ran beside tasks, by name; most time first."""
    found: dict[str, list[Slice]] = defaultdict(list)
    for row in trace.loops.values():
        for call in row.callbacks:
            found[call.name].append(call)
    return _grouped({(name, ""): calls for name, calls in found.items()})


def by_wait(trace: Trace) -> list[Group]:
    """What tasks waited for, by kind and place; most time first."""
    found: dict[tuple[str, str], list[Slice]] = defaultdict(list)
    for task in trace.tasks.values():
        for wait in task.waits:
            found[wait.name, wait.place].append(wait)
    return _grouped(found)


def _grouped(found: Mapping[tuple[str, str], list[Slice]]) -> list[Group]:
    groups = [
        Group(name, place, 0, len(slices), total(slices), max(one.length for one in slices))
        for (name, place), slices in found.items()
    ]
    return sorted(groups, key=lambda group: -group.seconds)


def wakers(trace: Trace) -> list[tuple[str, str, int]]:
    """Who woke whom, and how often; the most frequent first."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for arrow in trace.arrows:
        waker, woken = trace.row(arrow.waker), trace.row(arrow.woken)
        if waker is not None and woken is not None:
            counts[waker.name, woken.name] += 1
    return sorted(((*pair, count) for pair, count in counts.items()), key=lambda one: -one[2])


def around(trace: Trace, stall: Stall) -> tuple[str, str]:
    """Where the task of a stall had waited before, and where it waited next, if that is known."""
    for task in trace.tasks.values():
        if task.name == stall.task and task.loop == stall.loop:
            before = [wait.place for wait in task.waits if wait.start <= stall.start]
            after = [wait.place for wait in task.waits if wait.start >= stall.start + stall.length - 1e-6]
            return (before[-1] if before else "", after[0] if after else "")
    return ("", "")
