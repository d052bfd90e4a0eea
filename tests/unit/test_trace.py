"""The timeline, on programs of which the tests know what happens in them."""

import asyncio
import functools
import gc
import inspect
import itertools
import threading
import time
import weakref
from collections import Counter

import aioxide
import pytest
from traces import File, run


def line_of(function, text):
    lines, start = inspect.getsourcelines(function)
    return start + next(number for number, line in enumerate(lines) if text in line)


def at(function, text):
    """A place as a trace names it."""
    return f"{function.__qualname__}  {__file__}:{line_of(function, text)}"


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
    waits = aioxide.Event()

    async def serve(reader, writer):
        await waits.wait()
        writer.write(b"hello\n")
        writer.close()

    server = await aioxide.start_server(serve, "127.0.0.1", 0)
    reader, writer = await aioxide.open_connection(*server.sockets[0].getsockname())
    asyncio.get_running_loop().call_soon(waits.set)
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
    assert asleep > 50_000


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


def longest(file):
    """The stall that is meant; a busy machine may make others."""
    return max(file.stalls, key=lambda stall: stall["dur"])


def test_a_stall_and_its_line(record):
    async def main():
        asyncio.current_task().set_name("culprit")
        await aioxide.sleep(0.01)
        by_sleeping()

    stall = longest(record(main))
    assert stall["args"]["task"] == "culprit"
    assert 390_000 < stall["dur"] < 5_000_000
    lines = [(frame["function"], frame["line"]) for frame in stall["args"]["looks"][0]["stack"]]
    assert lines[-1] == ("by_sleeping", line_of(by_sleeping, "# the line"))
    assert lines[0][0] == main.__qualname__


def test_a_callback_that_stalls(record):
    async def main():
        asyncio.get_running_loop().call_soon(by_sleeping)
        await aioxide.sleep(0.01)

    stall = longest(record(main))
    assert stall["name"] == "by_sleeping"
    assert stall["args"]["task"] is None
    assert stall["args"]["looks"][0]["stack"][-1]["function"] == "by_sleeping"


def test_what_a_stall_is_can_be_said(record):
    async def main():
        time.sleep(0.05)

    assert record(main, stall=5).stalls == []
    file = record(main, stall=0.02)
    assert file.stalls
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
    assert found
    assert File(tmp_path / "trace.json").stalls


def test_a_trace_alone_logs_nothing(record, caplog):
    async def main():
        by_sleeping()

    assert record(main).stalls
    assert [one for one in caplog.records if one.name == "aioxide"] == []
