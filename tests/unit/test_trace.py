"""The timeline, on programs of which the tests know what happens in them."""

import asyncio
import contextlib
import functools
import gc
import inspect
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aioxide
import pytest


@dataclass
class Track:
    """What a file says of one task, or of a loop."""

    name: str = ""
    process: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    slices: list[dict[str, Any]] = field(default_factory=list)

    def of(self, category):
        return [one for one in self.slices if one["cat"] == category]


class File:
    """A trace, read back."""

    def __init__(self, path):
        self.text = Path(path).read_text()
        self.content = json.loads(self.text)
        self.facts = self.content["otherData"]
        self.tracks: dict[tuple[int, int], Track] = {}
        self.processes: dict[int, str] = {}
        self.stalls = []
        self.marks = []
        starts, self.arrows = {}, []
        for event in self.content["traceEvents"]:
            key = (event["pid"], event["tid"])
            if event["ph"] == "M":
                if event["name"] == "process_name":
                    self.processes[key[0]] = event["args"]["name"]
                elif event["name"] == "thread_name":
                    self.tracks[key] = Track(event["args"]["name"], self.processes[key[0]], event["args"])
            elif event["ph"] == "X":
                assert event["ts"] >= 0 and event["dur"] > 0
                self.tracks[key].slices.append(event)
                if event["cat"] == "stall":
                    self.stalls.append(event)
            elif event["ph"] == "s":
                starts[event["id"]] = (key, event["ts"])
            elif event["ph"] == "f":
                self.arrows.append((*starts.pop(event["id"]), key, event["ts"]))
            else:
                self.marks.append(event)
        assert not starts

    def task(self, name):
        (found,) = [track for track in self.tracks.values() if track.name == name and "coroutine" in track.about]
        return found

    @property
    def loop(self):
        (found,) = [track for key, track in self.tracks.items() if key[1] == 0]
        return found

    def wakers(self, name):
        """Who woke the task of that name, in order."""
        found = [arrow for arrow in self.arrows if self.tracks[arrow[2]].name == name]
        return [self.tracks[arrow[0]].name for arrow in sorted(found, key=lambda arrow: arrow[3])]


def line_of(function, text):
    lines, start = inspect.getsourcelines(function)
    return start + next(number for number, line in enumerate(lines) if text in line)


def at(function, text):
    """A place as a trace names it."""
    return f"{function.__qualname__}  {__file__}:{line_of(function, text)}"


def run(coroutine):
    return aioxide.run(coroutine, loop_factory=aioxide.new_event_loop)


@pytest.fixture
def record(tmp_path):
    """Runs a coroutine function and returns what was recorded."""

    def go(main, **options):
        path = tmp_path / "trace.json"
        with aioxide.trace(path, **options):
            run(main())
        return File(path)

    return go


# --- steps, waits, arrows -----------------------------------------------------------------------------------------


def test_steps_and_waits_of_a_task(record):
    async def sleeper():
        await asyncio.sleep(0)
        await aioxide.sleep(0.05)  # the wait

    async def main():
        asyncio.current_task().set_name("main")
        await asyncio.create_task(sleeper(), name="sleeper")  # the main task's

    file = record(main)
    task = file.task("sleeper")
    assert task.about["coroutine"] == sleeper.__qualname__
    assert task.about["place"] == at(sleeper, "async def")
    steps, waits = task.of("step"), task.of("wait")
    assert [step["name"] for step in steps] == [sleeper.__qualname__] * 3
    assert [step.get("args") for step in steps] == [None, None, {"end": "returned"}]
    (wait,) = waits
    assert wait["name"] == "timer"
    assert wait["args"] == {"for": "timer", "at": at(sleeper, "# the wait")}
    assert 45_000 < wait["dur"] < 5_000_000
    # One thing after the other, without gaps.
    parts = sorted(task.slices, key=lambda one: one["ts"])
    for before, after in itertools.pairwise(parts):
        assert before["ts"] + before["dur"] == pytest.approx(after["ts"], abs=0.01)
    (wait,) = file.task("main").of("wait")
    assert (wait["name"], wait["args"]["for"]) == ("task", "task sleeper")
    assert wait["args"]["at"] == at(main, "# the main task's")


async def forever():
    await asyncio.get_running_loop().create_future()


async def for_a_lock():
    lock = aioxide.Lock()

    async def hold():
        async with lock:
            await aioxide.sleep(0.02)

    holder = asyncio.create_task(hold(), name="holder")
    await aioxide.sleep(0)
    async with lock:  # waits
        pass
    await holder
    return "lock", f"lock {id(lock):#x}, held by holder"


async def for_an_event():
    event = aioxide.Event()
    asyncio.get_running_loop().call_later(0.01, event.set)
    await event.wait()  # waits
    return "event", f"event {id(event):#x}"


async def for_a_queue():
    queue = aioxide.Queue()
    asyncio.get_running_loop().call_later(0.01, queue.put_nowait, 1)
    await queue.get()  # waits
    return "queue", f"queue {id(queue):#x}"


async def for_a_semaphore():
    semaphore = aioxide.Semaphore(0)
    asyncio.get_running_loop().call_later(0.01, semaphore.release)
    await semaphore.acquire()  # waits
    return "semaphore", f"semaphore {id(semaphore):#x}"


async def for_a_gathering():
    tasks = [asyncio.create_task(aioxide.sleep(0.01), name=name) for name in "abcdefg"]
    await aioxide.gather(*tasks)  # waits
    return "gather", "gather: a, b, c, d, e and 2 more"


async def for_fresh_tasks():
    await aioxide.gather(aioxide.sleep(0.01), aioxide.sleep(0.01))  # waits
    return "gather", None


async def for_a_group():
    async with aioxide.TaskGroup() as group:  # waits
        group.create_task(aioxide.sleep(0.01), name="member")
    return "group", "group: member"


async def for_a_thread():
    await aioxide.to_thread(time.sleep, 0.01)  # waits
    return "thread", None


async def for_a_future():
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, future.set_result, None)
    await future  # waits
    return "future", f"future {id(future):#x}"


async def for_a_stream():
    async def serve(reader, writer):
        await aioxide.sleep(0.01)
        writer.write(b"hello\n")
        writer.close()

    server = await aioxide.start_server(serve, "127.0.0.1", 0)
    reader, writer = await aioxide.open_connection(*server.sockets[0].getsockname())
    assert await reader.readline() == b"hello\n"  # waits
    writer.close()
    server.close()
    return "stream", None


WAITS = [
    for_a_lock,
    for_an_event,
    for_a_queue,
    for_a_semaphore,
    for_a_gathering,
    for_fresh_tasks,
    for_a_group,
    for_a_thread,
    for_a_future,
    for_a_stream,
]


@pytest.mark.parametrize("waits", WAITS)
def test_a_wait_says_for_what_and_where(record, waits):
    expected = ()

    async def main():
        nonlocal expected
        asyncio.current_task().set_name("it")
        expected = await waits()

    task = record(main).task("it")
    place = at(waits, "# waits")
    (wait,) = [wait for wait in task.of("wait") if wait["args"]["at"] == place]
    kind, subject = expected
    assert wait["name"] == kind
    if subject is not None:
        assert wait["args"]["for"] == subject
    if waits is for_fresh_tasks:
        assert "a task" not in wait["args"]["for"]


def test_waits_are_named_as_the_tasks_are_listed(record):
    """At one moment, `aioxide.tasks()` and the trace say the same."""
    said = {}

    async def main():
        lock, queue = aioxide.Lock(), aioxide.Queue()
        await lock.acquire()
        coroutines = {
            "lock": lock.acquire(),
            "queue": queue.get(),
            "timer": aioxide.sleep(10),
            "task": asyncio.wait_for(forever(), 10),
            "future": forever(),
            "event": aioxide.Event().wait(),
        }
        tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in coroutines.items()]
        await aioxide.sleep(0.01)
        said.update((info.name, info.waits_for.kind) for info in aioxide.tasks() if info.waits_for is not None)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    file = record(main)
    assert {"lock", "queue", "timer", "task", "future", "event"} <= said.keys()
    for name, kind in said.items():
        assert file.task(name).of("wait")[0]["name"] == kind, name


def test_who_woke_whom(record):
    async def waiter(event):
        await event.wait()

    async def setter(event):
        await aioxide.sleep(0.01)
        event.set()

    async def main():
        asyncio.current_task().set_name("main")
        event = aioxide.Event()
        waiting = asyncio.create_task(waiter(event), name="waiter")
        setting = asyncio.create_task(setter(event), name="setter")
        await waiting
        await setting

    file = record(main)
    assert file.wakers("waiter") == ["main", "setter"]  # whoever made it, whoever set the event
    assert file.wakers("setter") == ["main", "event loop"]  # … and the timer
    assert file.wakers("main")[-1] in ("waiter", "setter")
    for waker, start, woken, end in file.arrows:
        assert start <= end
        own = [one for one in file.tracks[waker].slices if one["ts"] <= start < one["ts"] + one["dur"]]
        assert [one for one in own if one["cat"] in ("step", "callback")], "an arrow from nothing"
        assert [one for one in file.tracks[woken].of("step") if one["ts"] == pytest.approx(end, abs=0.002)]


@pytest.mark.parametrize("how", ["gather", "group", "wait", "task"])
def test_whoever_ends_last_wakes_those_who_wait_for_all(record, how):
    async def main():
        asyncio.current_task().set_name("parent")
        if how == "group":
            async with aioxide.TaskGroup() as group:
                group.create_task(aioxide.sleep(0.01), name="first")
                group.create_task(aioxide.sleep(0.02), name="last")
            return
        first = asyncio.create_task(aioxide.sleep(0.01), name="first")
        last = asyncio.create_task(aioxide.sleep(0.02), name="last")
        if how == "gather":
            await aioxide.gather(first, last)
        elif how == "wait":
            await aioxide.wait([first, last])
        else:
            await last

    assert record(main).wakers("parent") == ["last"]


def test_who_gives_others_a_turn_wakes_nobody(record):
    async def main():
        asyncio.current_task().set_name("it")
        for _ in range(3):
            await aioxide.sleep(0)

    file = record(main)
    assert file.wakers("it") == []
    task = file.task("it")
    assert len(task.of("step")) == 4
    assert len(task.of("ready")) == 4
    assert task.of("wait") == []


@pytest.mark.parametrize(
    ("end", "expected"),
    [("return", "returned"), ("raise", "raised LookupError"), ("cancel", "cancelled")],
)
def test_how_a_task_ended(record, end, expected):
    async def child():
        if end == "raise":
            raise LookupError("secret")
        if end == "cancel":
            asyncio.current_task().cancel()
            await aioxide.sleep(1)

    async def main():
        await asyncio.wait([asyncio.create_task(child(), name="child")])

    file = record(main)
    assert file.task("child").of("step")[-1]["args"] == {"end": expected}
    assert "secret" not in file.text


def test_callbacks_have_names(record):
    def plain():
        pass

    class Callable:
        def __call__(self):
            pass

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(plain)
        loop.call_soon(functools.partial(plain))
        loop.call_soon(Callable())
        loop.call_soon_threadsafe(threading.Event().set)
        await aioxide.sleep(0.01)

    found = Counter(call["name"] for call in record(main).loop.of("callback"))
    assert found[plain.__qualname__] == 2
    assert found["Callable"] == 1
    assert found["Event.set"] == 1
    assert found["timer"] == 1


def test_a_loop_that_sleeps_is_seen_to_sleep(record):
    async def main():
        await aioxide.sleep(0.1)

    asleep = sum(one["dur"] for one in record(main).loop.of("asleep"))
    assert asleep > 90_000


def test_a_task_of_another_make_is_a_track_too(record):
    pure = type("Pure", (asyncio.tasks._PyTask,), {})

    async def child():
        await aioxide.sleep(0.01)

    async def main():
        await pure(child(), loop=asyncio.get_running_loop(), name="pure")

    task = record(main).task("pure")
    assert len(task.of("step")) == 2
    assert task.of("step")[-1]["args"] == {"end": "done"}
    assert [wait["name"] for wait in task.of("wait")] == ["timer"]


def test_a_trace_may_begin_and_end_while_tasks_run(tmp_path):
    path = tmp_path / "trace.json"

    async def before(event):
        await event.wait()  # the wait

    async def main():
        asyncio.current_task().set_name("main")
        event = aioxide.Event()
        waiter = asyncio.create_task(before(event), name="before")
        await aioxide.sleep(0)
        with aioxide.trace(path):
            asyncio.create_task(before(event), name="within").set_name("renamed")
            await aioxide.sleep(0.01)
        event.set()
        await waiter
        await aioxide.sleep(0.01)

    run(main())
    file = File(path)
    for name in ("before", "renamed"):
        (wait,) = file.task(name).of("wait")
        assert wait["name"] == "event"
        assert wait["args"]["at"] == at(before, "# the wait")
        assert wait["args"]["open"] is True
    assert file.task("before").of("step") == []
    assert len(file.task("renamed").of("step")) == 1
    assert len(file.task("main").of("step")) == 1, "the step that ends the trace"


def test_recording_keeps_no_task_alive(tmp_path):
    seen = []

    async def child():
        await aioxide.sleep(0)

    async def main():
        for _ in range(10):
            task = asyncio.create_task(child())
            seen.append(weakref.ref(task))
            await task
        del task
        gc.collect()
        await aioxide.sleep(0)
        assert [ref for ref in seen if ref() is not None] == []

    with aioxide.trace(tmp_path / "trace.json"):
        run(main())


def test_values_are_not_written(record):
    async def child(password):
        secret = password + "-more"
        await aioxide.sleep(0.01)
        assert secret

    async def main():
        asyncio.get_running_loop().call_soon(len, "hunter2")
        await child("hunter2")

    assert "hunter2" not in record(main).text


def test_names_that_are_no_names(record):
    class Name:
        def __str__(self):
            return 'quote " back\\slash <b> \n\x01 ä' + 1000 * "x"

    async def main():
        asyncio.current_task().set_name(Name())
        await aioxide.sleep(0)

    file = record(main)
    (name,) = [track.name for track in file.tracks.values() if track.name.startswith("quote")]
    assert name.startswith('quote " back\\slash <b> \n\x01 ä')
    assert len(name) <= 300


# --- stalls -------------------------------------------------------------------------------------------------------


def by_sleeping():
    time.sleep(0.4)  # the line


def test_a_stall_and_its_line(record):
    async def main():
        asyncio.current_task().set_name("culprit")
        await aioxide.sleep(0.01)
        by_sleeping()

    (stall,) = record(main).stalls
    assert stall["args"]["task"] == "culprit"
    assert 390_000 < stall["dur"] < 5_000_000
    lines = [(frame["function"], frame["line"]) for frame in stall["args"]["looks"][0]["stack"]]
    assert lines[-1] == ("by_sleeping", line_of(by_sleeping, "# the line"))
    assert lines[0][0] == main.__qualname__


def test_a_callback_that_stalls(record):
    async def main():
        asyncio.get_running_loop().call_soon(by_sleeping)
        await aioxide.sleep(0.01)

    (stall,) = record(main).stalls
    assert stall["name"] == "by_sleeping"
    assert stall["args"]["task"] is None
    assert stall["args"]["looks"][0]["stack"][-1]["function"] == "by_sleeping"


def test_what_a_stall_is_can_be_said(record):
    async def main():
        time.sleep(0.05)

    assert record(main, stall=5).stalls == []
    file = record(main, stall=0.02)
    assert len(file.stalls) == 1
    assert file.facts["stall_seconds"] == 0.02


def test_the_watchdog_of_the_program_goes_on(tmp_path, caplog):
    found = []
    with aioxide.watchdog(0.05, callback=found.append), aioxide.trace(tmp_path / "trace.json"):

        async def main():
            by_sleeping()
            await aioxide.sleep(0.1)

        run(main())
        end = time.monotonic() + 10
        while not found and time.monotonic() < end:
            time.sleep(0.01)
    assert len(found) == 1
    assert len(File(tmp_path / "trace.json").stalls) == 1


def test_a_trace_alone_logs_nothing(record, caplog):
    async def main():
        by_sleeping()

    assert len(record(main).stalls) == 1
    assert [one for one in caplog.records if one.name == "aioxide"] == []


# --- bounds -------------------------------------------------------------------------------------------------------


def test_the_oldest_goes_when_it_is_too_much(record, tmp_path):
    async def child():
        await aioxide.sleep(0)

    async def main():
        for number in range(500):
            await asyncio.create_task(child(), name=f"child-{number}")

    file = record(main, limit=0.05)
    assert 20_000 < len(file.text.encode()) <= 50_000
    assert file.facts["dropped_events"] > 1000
    assert 0 < file.facts["dropped_until_seconds"] <= file.facts["seconds"]
    (mark,) = file.marks
    assert "dropped" in mark["name"]
    names = {track.name for track in file.tracks.values()}
    assert "child-499" in names
    assert "child-0" not in names
    assert record(main).facts["dropped_events"] == 0


def test_tasks_of_which_nothing_is_known_take_no_room(record):
    async def main():
        asyncio.current_task().set_name("main")
        event = aioxide.Event()
        tasks = [asyncio.create_task(event.wait(), name=f"waiter-{number}") for number in range(2000)]
        for _ in range(300):
            await aioxide.sleep(0)
        event.set()
        await asyncio.wait(tasks)
        await aioxide.sleep(0.01)

    file = record(main, limit=0.05)
    assert 20_000 < len(file.text.encode()) <= 50_000
    assert file.task("main").of("wait")[-1]["name"] == "timer"


def test_stalls_stay_within_the_limit_too(record):
    def deep(more):
        if more:
            deep(more - 1)
        else:
            time.sleep(0.1)

    async def main():
        for _ in range(8):
            deep(60)
            await aioxide.sleep(0)

    file = record(main, limit=0.02, stall=0.04)
    assert len(file.text.encode()) <= 20_000
    assert file.stalls


# --- several loops, threads, processes ----------------------------------------------------------------------------


def test_loops_in_threads_are_apart(tmp_path):
    async def child():
        for _ in range(5):
            await aioxide.sleep(0.002)

    async def main(name):
        await asyncio.create_task(child(), name=name)

    names = ["one", "two", "three"]
    threads = [threading.Thread(target=run, args=(main(name),), name=f"thread {name}") for name in names]
    with aioxide.trace(tmp_path / "trace.json"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    file = File(tmp_path / "trace.json")
    assert sorted(file.processes.values()) == sorted(f"event loop in thread {name}" for name in names)
    for name in names:
        task = file.task(name)
        assert task.process == f"event loop in thread {name}"
        assert len(task.of("step")) == 6
    for waker, _, woken, _ in file.arrows:
        assert waker[0] == woken[0]


def test_one_loop_that_runs_often_is_one_loop(tmp_path):
    with aioxide.trace(tmp_path / "trace.json"):
        loop = aioxide.new_event_loop()
        for _ in range(3):
            loop.run_until_complete(aioxide.sleep(0.001))
        loop.close()
    file = File(tmp_path / "trace.json")
    assert len(file.processes) == 1
    assert len(file.loop.of("asleep")) >= 3


def test_another_thread_that_wakes_a_task_is_no_task(record):
    async def main():
        asyncio.current_task().set_name("it")
        loop = asyncio.get_running_loop()
        event = aioxide.Event()
        thread = threading.Timer(0.02, loop.call_soon_threadsafe, [event.set])
        thread.start()
        await event.wait()
        thread.join()

    assert record(main).wakers("it") == ["event loop"]


def test_a_forked_child_leaves_the_file_alone(tmp_path):
    path = tmp_path / "trace.json"
    code = """
import asyncio, os, sys, warnings
import aioxide
warnings.simplefilter("ignore")
async def main(name):
    asyncio.current_task().set_name(name)
    await aioxide.sleep(0.01)
def run(name):
    aioxide.run(main(name), loop_factory=aioxide.new_event_loop)
aioxide.trace(sys.argv[1])
run("parent")
child = os.fork()
if child == 0:
    run("child")
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
run("again")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], timeout=60, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    names = {track.name for track in File(path).tracks.values()}
    assert {"parent", "again"} <= names
    assert "child" not in names


# --- the ends of programs -----------------------------------------------------------------------------------------

ENDS = {
    "returns": ("pass", 0),
    "raises": ("raise LookupError", 1),
    "exits": ("sys.exit(3)", 3),
    "exits in a callback": ("asyncio.get_running_loop().call_soon(sys.exit, 4); await asyncio.sleep(10)", 4),
    "interrupted": ("os.kill(os.getpid(), signal.SIGINT); await asyncio.sleep(10)", -signal.SIGINT),
}


def environment():
    package = str(Path(aioxide.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}


def command(*words, cwd, **options):
    return subprocess.run(
        [sys.executable, "-m", "aioxide", *words],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.mark.parametrize("end", ENDS)
def test_the_file_is_written_however_the_program_ends(tmp_path, end):
    line, status = ENDS[end]
    program = f"""
import asyncio, os, signal, sys
async def main():
    asyncio.current_task().set_name("it")
    os.chdir("/")
    await asyncio.sleep(0.01)
    {line}
asyncio.run(main())
"""
    (tmp_path / "app.py").write_text(program)
    done = command("--trace", "out.json", "app.py", cwd=tmp_path)
    assert done.returncode == status, done.stderr
    file = File(tmp_path / "out.json")
    assert len(file.task("it").of("step")) >= 2
    assert file.facts["program"]["name"] == "app.py"
    assert os.listdir(tmp_path) in (["app.py", "out.json"], ["out.json", "app.py"])


def test_a_loop_that_still_runs_at_the_end(tmp_path):
    program = """
import asyncio, threading, time
async def main():
    asyncio.current_task().set_name("it")
    await asyncio.sleep(1000)
threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
time.sleep(0.2)
"""
    (tmp_path / "app.py").write_text(program)
    done = command("--trace=out.json", "app.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file = File(tmp_path / "out.json")
    (wait,) = file.task("it").of("wait")
    assert (wait["name"], wait["args"]["open"]) == ("timer", True)


def test_a_killed_program_leaves_valid_json(tmp_path):
    (tmp_path / "app.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert command("--trace", "out.json", "app.py", cwd=tmp_path).returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "out.json").read_text()) == {"traceEvents": []}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--trace"], "--trace"),
        (["--trace="], "--trace"),
        (["--trace", "no/such/directory.json", "app.py"], "No such file"),
        (["--trace", "out.json", "--trace-limit=much", "app.py"], "much"),
        (["--trace", "out.json", "--trace-limit=0", "app.py"], "limit"),
        (["--trace", "out.json", "--trace-limit=nan", "app.py"], "limit"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, options, word):
    (tmp_path / "app.py").write_text("print('ran')\n")
    done = command(*options, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert word in done.stderr


def test_the_limit_on_the_command_line(tmp_path):
    program = (
        "import asyncio\nasync def main():\n    for _ in range(2000): await asyncio.sleep(0)\nasyncio.run(main())\n"
    )
    (tmp_path / "app.py").write_text(program)
    assert command("--trace", "out.json", "--trace-limit=0.02", "app.py", cwd=tmp_path).returncode == 0
    file = File(tmp_path / "out.json")
    assert len(file.text) <= 20_000
    assert file.facts["dropped_events"] > 0


def test_into_a_pipe(tmp_path):
    (tmp_path / "app.py").write_text("import asyncio\nasyncio.run(asyncio.sleep(0.01))\n")
    done = command("--trace", "/dev/stdout", "app.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["otherData"]["events"] > 0


# --- the interface ------------------------------------------------------------------------------------------------


def test_one_at_a_time(tmp_path):
    with aioxide.trace(tmp_path / "one.json") as trace:
        assert trace.path == tmp_path / "one.json"
        with pytest.raises(RuntimeError, match=r"one\.json"):
            aioxide.trace(tmp_path / "two.json")
        trace.stop()
        trace.stop()
        with aioxide.trace(str(tmp_path / "two.json")):
            trace.stop()  # its own, and not the new one
            run(aioxide.sleep(0))
    assert File(tmp_path / "two.json").facts["events"] > 0


@pytest.mark.parametrize("bad", [{"limit": 0}, {"limit": -1}, {"limit": float("nan")}, {"stall": 0}, {"stall": -1}])
def test_bad_arguments(tmp_path, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        aioxide.trace(tmp_path / "trace.json", **bad)
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError):
        aioxide.trace(tmp_path / "no" / "trace.json")
    with contextlib.suppress(RuntimeError), aioxide.trace(tmp_path / "trace.json"):
        pass  # there is none left over
    assert (tmp_path / "trace.json").exists()
