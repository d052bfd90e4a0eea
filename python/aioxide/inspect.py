"""What a program does just now: its tasks, what each waits for, and who waits for it.

The native module takes the picture; here it gets its types and its layout.  The
same records come from another process by `aioxide ps` and its kin.
"""

import asyncio
import atexit
import contextlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aioxide import _core

if TYPE_CHECKING:
    from aioxide._web import Web


@dataclass(frozen=True, slots=True)
class Frame:
    """A line of code: in which function, in which file."""

    function: str
    file: str
    line: int

    @property
    def is_native(self) -> bool:
        """Whether this is a coroutine of aioxide's, which has no Python code."""
        return self.file == "<aioxide>"

    def __str__(self) -> str:
        return self.function if self.is_native else f"{self.function}  {self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class WaitInfo:
    """What a task waits for."""

    kind: str
    """"timer", "lock", "event", "condition", "semaphore", "barrier", "queue", "task", "gather", "group", "tasks",
    "shield", "socket", "stream", "connection", "server", "subprocess", "thread" or "future"."""
    class_name: str
    object_id: int
    tasks: tuple[int, ...]
    """The ids of the tasks that it waits for."""
    owners: tuple[int, ...]
    """The ids of the tasks that hold the lock or the semaphore."""
    ended_owners: tuple[str, ...]
    """Names of tasks that ended without letting go of it."""
    seconds_left: float | None
    """When a timer ends it."""
    fd: int | None

    @classmethod
    def _of(cls, record: Mapping[str, Any]) -> "WaitInfo":
        about = record["object"] or {"class": "object", "id": 0}
        return cls(
            kind=record["kind"],
            class_name=about["class"],
            object_id=about["id"],
            tasks=tuple(record["tasks"]),
            owners=tuple(record["owners"]),
            ended_owners=tuple(record["ended_owners"]),
            seconds_left=record["seconds_left"],
            fd=record["fd"],
        )


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task at one moment."""

    id: int
    """`id(task)`."""
    name: str
    state: str
    """"running", "ready" (it runs when its turn comes) or "waiting"."""
    cancelling: int
    """How often it was asked to cancel."""
    timeout: float | None
    """Seconds until a timeout cancels it."""
    age: float | None
    """Seconds since its first step.  This and the next two are known if `accounting` is on."""
    steps: int | None
    cpu: float | None
    """Seconds of processor time."""
    chain: tuple[Frame, ...]
    """Where it is: its coroutine, what that awaits, and so on."""
    waits_for: WaitInfo | None
    awaited_by: tuple[int, ...]
    """The ids of the tasks that wait for it."""
    loop: int
    """`id(loop)`."""
    thread: int | None
    """`threading.get_ident()` of the thread that runs the loop."""

    @classmethod
    def _of(cls, record: Mapping[str, Any], loop: Mapping[str, Any]) -> "TaskInfo":
        waits = record["waits_for"]
        return cls(
            id=record["id"],
            name=record["name"],
            state=record["state"],
            cancelling=record["cancelling"],
            timeout=record["timeout"],
            age=record["age"],
            steps=record["steps"],
            cpu=record["cpu"],
            chain=tuple(Frame(**link) for link in record["chain"]),
            waits_for=None if waits is None else WaitInfo._of(waits),
            awaited_by=tuple(record["awaited_by"]),
            loop=loop["id"],
            thread=loop["thread"],
        )


def tasks(loop: asyncio.AbstractEventLoop | None = None) -> list[TaskInfo]:
    """Every task that is not done, by name: of `loop`, or of all loops that run in this process."""
    return from_records(json.loads(_core._tasks(loop)))


def _by_name(task: TaskInfo) -> list[tuple[int, str]]:
    """Sorts names as people do: worker 2 before worker 10."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", task.name)]


def circles(found: Iterable[TaskInfo]) -> list[list[TaskInfo]]:
    """The circles of tasks each of which waits for the next, directly or by a lock that the next one holds.

    A task with several roads ahead is in a circle if none of them leads out, and
    one under a timeout never is.
    """
    by_id = {task.id: task for task in found}
    ahead = {
        task.id: [id for id in (*task.waits_for.tasks, *task.waits_for.owners) if id in by_id]
        for task in by_id.values()
        if task.waits_for is not None and task.timeout is None
    }
    # Take out whoever has a way out, until nobody is left who has.
    stuck = {id for id, others in ahead.items() if others}
    while free := {id for id in stuck if not _is_stuck(by_id[id], ahead[id], stuck)}:
        stuck -= free
    rings = []
    left = set(stuck)
    while left:
        at = min(left, key=lambda id: by_id[id].name)
        path: list[int] = []
        while at in left and at not in path:
            path.append(at)
            at = next(id for id in ahead[at] if id in stuck)
        if at in path:
            ring = [by_id[id] for id in path[path.index(at) :]]
            # Whichever way led into it: the same circle reads the same.
            first = min(range(len(ring)), key=lambda number: ring[number].name)
            rings.append(ring[first:] + ring[:first])
        left.difference_update(path)
    return rings


def _is_stuck(task: TaskInfo, others: list[int], stuck: set[int]) -> bool:
    """Whether nobody outside `stuck` can end the task's wait."""
    assert task.waits_for is not None
    if task.waits_for.kind in ("semaphore", "tasks"):  # the first of several is enough
        return all(id in stuck for id in others) and not task.waits_for.ended_owners
    return any(id in stuck for id in others)


def format_circle(ring: list[TaskInfo]) -> str:
    """A circle in one line."""
    steps = []
    for task, after in zip(ring, [*ring[1:], ring[0]], strict=True):
        assert task.waits_for is not None
        direct = after.id in task.waits_for.tasks
        what = "" if direct else f" the {task.waits_for.kind} {task.waits_for.object_id:#x} that is held by"
        steps.append(f"{task.name} waits for{what} {after.name}")
    return ", ".join(steps)


class Server:
    """What answers `aioxide ps` and its kin; in a `with` statement it stops at the end."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._web: Web | None = None

    @property
    def url(self) -> str | None:
        """The address of the page for the browser, token included: whoever has it can look."""
        return None if self._web is None else self._web.url

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer no more."""
        global _server
        if _server is self:
            _server = None
            _core._serve_stop()
            web, self._web = self._web, None
            if web is not None:
                web.close()


_server: Server | None = None
_hooked = False


def serve(*, web: bool = False, port: int = 0) -> Server:
    """Let `aioxide ps`, `tree`, `top` and `stacks` look at this process, by its owner alone.

    With `web` there is a page for the browser as well, at the server's `url`: on
    the loopback interface, at `port` or at one that is free, for those who have
    the token in that address.  For its list of stalls a watchdog runs, which
    logs nothing, unless there is one already.

    Native threads answer, so a stalled loop can be looked at too.  The ages,
    steps and processor time of tasks are known if `accounting` is on.
    """
    global _server
    if _server is None:
        _server = _listen()
    if web and _server._web is None:
        from aioxide._web import Web

        _server._web = Web(port)
    return _server


def _listen() -> Server:
    global _hooked
    directory = _private_directory()
    path = os.path.join(directory, f"{os.getpid()}.sock")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of a process that had our number before
    before = os.umask(0o177)
    try:
        _core._serve_start(path)
    finally:
        os.umask(before)
    if not _hooked:
        atexit.register(_core._serve_stop)
        os.register_at_fork(after_in_child=_forked)
        _hooked = True
    return Server(path)


def _forked() -> None:
    global _server
    if _server is not None:
        _server._web = None
    _server = None
    _core._serve_forked()
    _core._web_forked()


def directories() -> list[str]:
    """Where the sockets of this user's processes may be."""
    found = [os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{os.getuid()}"]
    places = [os.path.join(place, "aioxide") for place in found if place and os.path.isdir(place)]
    return [*dict.fromkeys(places), f"/tmp/aioxide-{os.getuid()}"]


def _private_directory() -> str:
    """The first of those that can be made, and is nobody else's."""
    for path in directories():
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            state = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o077:
            return path
    raise PermissionError(f"no directory that is only ours for the socket: tried {', '.join(directories())}")


def accounting(on: bool = True) -> None:
    """Keep accounts of the age, the steps and the processor time of each task, or no longer.

    Off at first: it takes two readings of a clock and a look at a table at each step.
    """
    _core._keep_accounts(bool(on))


def from_records(loops: Iterable[Mapping[str, Any]]) -> list[TaskInfo]:
    """The tasks in what the native module says about some loops, by name."""
    return sorted((TaskInfo._of(record, loop) for loop in loops for record in loop["tasks"]), key=_by_name)


def format_tasks(found: Iterable[TaskInfo] | asyncio.AbstractEventLoop | None = None) -> str:
    """The tasks as a tree: under each task those that it waits for.

    `found` is what `tasks` returned, or a loop to look at; without it all loops
    that run are looked at.
    """
    if found is None or isinstance(found, asyncio.AbstractEventLoop):
        found = tasks(found)
    return "\n".join(_Tree(list(found)).lines())


class _Tree:
    def __init__(self, found: list[TaskInfo]) -> None:
        self.found = found
        self.by_id = {task.id: task for task in found}
        self.shown: set[int] = set()

    def lines(self) -> Iterator[str]:
        if not self.found:
            yield "no tasks"
        for task in self.found:
            if not task.awaited_by:
                yield from self.branch(task, "", "")
        # Whoever is left waits in a circle.
        for task in self.found:
            if task.id not in self.shown:
                yield from self.branch(task, "", "")

    def branch(self, task: TaskInfo, first: str, rest: str) -> Iterator[str]:
        if task.id in self.shown:
            yield f"{first}{task.name} (see there)"
            return
        self.shown.add(task.id)
        yield f"{first}{headline(task)}"
        children = self.children(task)
        stem = f"{rest}{'│' if children else ' '}  "
        for frame in task.chain:
            yield f"{stem}{frame}"
        if task.waits_for is not None:
            yield f"{stem}waits for {self.subject(task.waits_for)}"
        for number, child in enumerate(children, 1):
            last = number == len(children)
            yield from self.branch(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))

    def children(self, task: TaskInfo) -> list[TaskInfo]:
        waits = task.waits_for
        ids = () if waits is None else waits.tasks
        return sorted((self.by_id[id] for id in ids if id in self.by_id), key=_by_name)

    def subject(self, waits: WaitInfo) -> str:
        names = [self.name_of(id) for id in waits.tasks]
        if waits.kind == "task":
            return f"task {names[0]}" if names else "a task"
        if waits.kind in ("gather", "group", "tasks", "shield"):
            return f"{waits.kind}: {some(names)}" if names else waits.kind
        if waits.kind == "turn":
            return "its turn"
        text = waits.kind
        if waits.kind == "timer":
            return text if waits.seconds_left is None else f"{text}, {waits.seconds_left:.3f} s left"
        if waits.fd is not None:
            text += f", descriptor {waits.fd}"
        elif waits.class_name.lower() != waits.kind:
            text += f" ({waits.class_name} {waits.object_id:#x})"
        else:
            text += f" {waits.object_id:#x}"
        owners = [self.name_of(id) for id in waits.owners]
        owners += [f"{name} (which has ended)" for name in waits.ended_owners]
        return f"{text}, held by {some(owners)}" if owners else text

    def name_of(self, id: int) -> str:
        return self.by_id[id].name if id in self.by_id else f"a task of another loop ({id:#x})"


def describer(found: Iterable[TaskInfo]) -> Callable[[WaitInfo], str]:
    """What says in words what one of these tasks waits for."""
    return _Tree(list(found)).subject


def headline(task: TaskInfo) -> str:
    """The task in one line."""
    text = f"{task.name}  {task.state}"
    if task.cancelling:
        text += ", to be cancelled"
    if task.timeout is not None:
        text += f", timeout in {task.timeout:.3f} s"
    if task.steps is not None and task.cpu is not None and task.age is not None:
        text += f", {task.age:.1f} s old, {task.steps} steps, {task.cpu:.3f} s of CPU"
    return text


def some(names: list[str], most: int = 5) -> str:
    """The names, or as many as fit a line."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return ", ".join(names)


for _public in (Frame, WaitInfo, TaskInfo, Server, serve, accounting, tasks, format_tasks):
    _public.__module__ = "aioxide"
