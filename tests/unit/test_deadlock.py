"""Deadlocks that are some, and rests that are none."""

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time

import aioxide
import pytest
from aioxide import inspect

RUN = """
import asyncio, logging, os, signal, socket, sys, threading, time
import aioxide
logging.basicConfig(format="%(message)s")
"""


def outcome(program, seconds=3.0, option="warn"):
    """What a program says that is left to itself for a while: its output, and whether it came to an end."""
    text = RUN + program + f"\naioxide.run(main(), on_deadlock={option!r})\nprint('done')\n"
    command = [sys.executable, "-W", "ignore", "-c", text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            return process.communicate(timeout=30 if option == "raise" else seconds)[0], True
        except subprocess.TimeoutExpired:
            process.kill()
            return process.communicate()[0], False


def alarm(program, option="warn"):
    """As `outcome`, of a program that says something and goes on: what it has said a second after it began to."""
    text = RUN + program + f"\naioxide.run(main(), on_deadlock={option!r})\nprint('done')\n"
    command = [sys.executable, "-W", "ignore", "-c", text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        limit = threading.Timer(60, process.kill)
        limit.start()
        first = process.stdout.readline()
        time.sleep(1)
        ended = process.poll() is not None
        process.kill()
        rest = process.communicate()[0]
        limit.cancel()
        return first + rest, ended


NOBODY = """
async def main():
    queue = asyncio.Queue()
    await asyncio.sleep(0.01)
    await queue.get()
"""

LOCKS = """
async def take(one, other, ready, both):
    async with one:
        ready.set()
        await both.wait()
        async with other:
            pass

async def main():
    a, b = asyncio.Lock(), asyncio.Lock()
    ready = [asyncio.Event(), asyncio.Event()]
    both = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(take(a, b, ready[0], both), name="left")
        group.create_task(take(b, a, ready[1], both), name="right")
        for one in ready:
            await one.wait()
        both.set()
"""

PAIRS = [("ping", "pong"), ("pong", "ping")]  # a circle begins where it will

EACH_OTHER = """
async def main():
    tasks = []
    async def wait(number):
        await asyncio.shield(tasks[number])
    tasks.append(asyncio.create_task(wait(1), name="ping"))
    tasks.append(asyncio.create_task(wait(0), name="pong"))
    await asyncio.wait(tasks)
"""


@pytest.mark.parametrize("install", ["", "aioxide.install()\n"])
def test_a_wait_that_nobody_can_end(install):
    text, ended = alarm(install + NOBODY)
    assert text.count("deadlock: nothing can wake this program any more") == 1
    assert "waits for queue" in text
    assert "main  <string>:" in text
    assert not ended


def test_raised_in_the_main_task():
    text, ended = outcome("aioxide.install()\n" + NOBODY, option="raise")
    assert ended
    assert "aioxide.DeadlockError: deadlock: nothing can wake this program any more" in text
    if sys.version_info >= (3, 13):  # which show the lines of a program given by -c
        assert "await queue.get()" in text


def test_the_main_task_may_go_on():
    text, ended = outcome(
        """
aioxide.install()
async def main():
    lock = asyncio.Lock()
    await lock.acquire()
    try:
        await lock.acquire()
    except aioxide.DeadlockError as error:
        print("caught", "held by Task-1" in str(error))
    lock.release()
    await asyncio.wait_for(lock.acquire(), 1)
""",
        option="raise",
    )
    assert ended
    assert "caught True" in text
    assert text.endswith("done\n")


def test_locks_crosswise_name_their_owners():
    text, ended = outcome("aioxide.install()\n" + LOCKS, option="raise")
    assert ended
    assert re.search("left waits for the lock 0x[0-9a-f]+ that is held by right", text)
    assert re.search("right waits for the lock 0x[0-9a-f]+ that is held by left", text)


def test_tasks_that_wait_for_each_other():
    text, ended = alarm("aioxide.install()\n" + EACH_OTHER)
    assert not ended
    assert any(f"{one} waits for {other}, {other} waits for {one}" in text for one, other in PAIRS)


def test_a_circle_in_a_program_that_has_other_things_to_wait_for():
    text, ended = alarm(
        "aioxide.install()\n"
        + EACH_OTHER.replace(
            "async def main():\n", "async def main():\n    await asyncio.start_server(print, '127.0.0.1', 0)\n"
        )
    )
    assert not ended
    assert text.count("deadlock: tasks wait for each other in a circle") == 1
    assert any(f"{one} waits for {other}, {other} waits for {one}" in text for one, other in PAIRS)


@pytest.mark.parametrize(
    "before",
    [
        "await asyncio.to_thread(print)",
        "await asyncio.get_running_loop().getaddrinfo('localhost', 1)",
        "await (await asyncio.create_subprocess_exec('true')).wait()",
        "loop = asyncio.get_running_loop(); loop.add_signal_handler(10, print); loop.remove_signal_handler(10)",
        "aioxide.watchdog(5)",
        "keep = aioxide.inspect.serve()",
    ],
)
def test_after_what_might_have_woken_it(before):
    text, ended = outcome("aioxide.install()\n" + NOBODY.replace("await asyncio.sleep(0.01)", before), option="raise")
    assert ended
    assert "DeadlockError: deadlock: nothing can wake" in text


WAITS = {
    "semaphore": "gate = asyncio.Semaphore(1); await gate.acquire(); await gate.acquire()",
    "join": "queue = asyncio.Queue(); queue.put_nowait(1); await queue.join()",
    "barrier": "barrier = asyncio.Barrier(3); await asyncio.gather(barrier.wait(), barrier.wait())",
    "future": "await asyncio.get_running_loop().create_future()",
    "lock": "gate = asyncio.Lock(); await asyncio.create_task(gate.acquire(), name='careless'); await gate.acquire()",
    "ring": (
        "tasks = []\n    async def wait(number): await asyncio.shield(tasks[number])\n"
        "    tasks += [asyncio.create_task(wait((number + 1) % 3)) for number in range(3)]\n"
        "    await asyncio.wait(tasks)"
    ),
}


@pytest.mark.parametrize("wait", WAITS)
def test_waits_that_nobody_can_end(wait):
    text, ended = outcome(f"aioxide.install()\nasync def main():\n    {WAITS[wait]}\n", option="raise")
    assert ended
    assert "DeadlockError: deadlock: nothing can wake this program any more" in text
    assert ("Task-2 waits for Task-3" in text) == (wait == "ring")
    assert ("held by careless (which has ended)" in text) == (wait == "lock")


THREAD = """
aioxide.install()
async def main():
    loop = asyncio.get_running_loop()
    event, future = asyncio.Event(), loop.create_future()
    async def wake():
        event.set()
        future.cancel()
    async def wait():
        await event.wait()
    task = asyncio.create_task(wait())
    def thread():
        time.sleep(1.2)
        %s
    threading.Thread(target=thread, daemon=True).start()
    await asyncio.wait([task])
"""


@pytest.mark.parametrize(
    "way",
    [
        "future.get_loop().call_soon_threadsafe(event.set)",
        "task.get_loop().call_soon_threadsafe(task.cancel)",
        "asyncio.run_coroutine_threadsafe(wake(), loop).result()",
        "aioxide.run(inner(loop, event))",
    ],
)
def test_no_alarm_for_a_thread_that_knows_anything(way):
    inner = "async def inner(loop, event):\n    loop.call_soon_threadsafe(event.set)\n"
    assert outcome(inner + THREAD % way, seconds=30) == ("done\n", True)


def test_no_alarm_while_a_host_name_is_looked_up():
    text, ended = outcome(
        """
aioxide.install()
async def main():
    plain = socket.getaddrinfo
    def slow(*query):
        time.sleep(1.2)
        return plain("127.0.0.1", 1)
    socket.getaddrinfo = slow
    await asyncio.get_running_loop().getaddrinfo("localhost", 1)
""",
        seconds=30,
    )
    assert (text, ended) == ("done\n", True)


def test_no_alarm_for_executors_and_children_of_ones_own():
    text, ended = outcome(
        """
import concurrent.futures, subprocess
aioxide.install()
async def main():
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(concurrent.futures.ThreadPoolExecutor(), time.sleep, 0.8)
    future = concurrent.futures.Future()
    threading.Timer(0.8, future.set_result, (1,)).start()
    await asyncio.wrap_future(future)
    reading, writing = os.pipe()
    child = subprocess.Popen(["sh", "-c", f"sleep 0.8; echo x >&{writing}"], pass_fds=[writing])
    event = asyncio.Event()
    loop.add_reader(reading, event.set)
    await event.wait()
    loop.remove_reader(reading)
    child.wait()
""",
        seconds=30,
    )
    assert (text, ended) == ("done\n", True)


def test_no_alarm_within_a_nested_loop():
    text, ended = outcome(
        """
aioxide.install()
async def main():
    outer, event = asyncio.get_running_loop(), asyncio.Event()
    def nested():
        asyncio._set_running_loop(None)
        inner = aioxide.new_event_loop()
        inner.run_until_complete(asyncio.sleep(1.2))
        inner.close()
        asyncio._set_running_loop(outer)
        event.set()
    outer.call_soon(nested)
    await event.wait()
""",
        seconds=30,
    )
    assert (text, ended) == ("done\n", True)


@pytest.mark.parametrize(
    "hope",
    [
        "asyncio.get_running_loop().call_later(100, print)",
        "asyncio.create_task(asyncio.sleep(100))",
        "keep = socket.socketpair(); asyncio.get_running_loop().add_reader(keep[0], print)",
        "keep = await asyncio.start_server(print, '127.0.0.1', 0)",
        "asyncio.create_task(asyncio.to_thread(time.sleep, 100)); await asyncio.sleep(0.1)",
        "threading.Thread(target=time.sleep, args=(100,), daemon=True).start()",
        "asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)",
        "signal.signal(signal.SIGUSR1, print)",
        "await asyncio.create_subprocess_exec('sleep', '5')",
        "keep = asyncio.wait_for(asyncio.Event().wait(), 100); asyncio.create_task(keep)",
    ],
)
def test_no_false_alarm(hope):
    text, ended = outcome("aioxide.install()\n" + NOBODY.replace("await asyncio.sleep(0.01)", hope), seconds=2.5)
    assert text == ""
    assert not ended


@pytest.mark.parametrize("seconds", [0, 0.019, 0.021, 0.12])
def test_no_false_alarm_for_jobs_of_the_executor_that_end_while_it_looks(seconds):
    times = 300 if seconds == 0 else 20
    text, ended = outcome(
        f"""
aioxide.install()
async def main():
    for _ in range({times}):
        await asyncio.to_thread(time.sleep, {seconds})
""",
        seconds=60,
    )
    assert (text, ended) == ("done\n", True)


def test_ignored():
    text, ended = outcome("aioxide.install()\n" + NOBODY, option="ignore")
    assert (text, ended) == ("", False)


def test_no_alarm_for_one_who_is_woken_from_another_thread():
    text, ended = outcome(
        """
aioxide.install()
async def main():
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    threading.Timer(1.5, loop.call_soon_threadsafe, (event.set,)).start()
    await event.wait()
""",
        seconds=20,
    )
    assert (text, ended) == ("done\n", True)


def test_a_loop_in_another_thread_is_left_alone(caplog):
    caplog.set_level(logging.WARNING, "aioxide")
    made = threading.Event()
    found = []

    async def main():
        event = asyncio.Event()
        found.extend([asyncio.get_running_loop(), event])
        made.set()
        await event.wait()

    thread = threading.Thread(target=aioxide.run, args=(main(),))
    thread.start()
    made.wait()
    loop, event = found
    thread.join(0.5)
    loop.call_soon_threadsafe(event.set)
    thread.join(10)
    assert caplog.records == []


def test_a_timeout_breaks_a_circle():
    async def main():
        lock = aioxide.Lock()
        await lock.acquire()
        me = asyncio.current_task()

        async def wait():
            async with asyncio.timeout(30):
                await lock.acquire()

        async def wait_for(task):
            await asyncio.shield(task)

        task = asyncio.create_task(wait_for(me))
        other = asyncio.create_task(wait())
        await asyncio.sleep(0.01)
        found = {t.id: t for t in aioxide.tasks()}
        task.cancel()
        other.cancel()
        await asyncio.wait([task, other])
        return found[id(other)], id(me), inspect.circles(found.values())

    with aioxide.install():
        waiting, me, rings = aioxide.run(main())
    assert waiting.waits_for.kind == "lock"
    assert waiting.waits_for.owners == (me,)
    assert 20 < waiting.timeout <= 30
    assert rings == []


def test_an_owner_that_has_ended_is_named():
    async def main():
        lock = aioxide.Lock()
        await asyncio.create_task(lock.acquire(), name="careless")
        task = asyncio.create_task(lock.acquire(), name="waiter")
        await asyncio.sleep(0)
        text = aioxide.format_tasks()
        task.cancel()
        return text

    with aioxide.install():
        text = aioxide.run(main())
    assert "held by careless (which has ended)" in text


def test_on_deadlock_is_checked():
    with pytest.raises(ValueError, match="on_deadlock must be"):
        aioxide.Runner(on_deadlock="panic")


def test_ctrl_c_still_ends_it():
    command = [sys.executable, "-c", RUN + "aioxide.install()\n" + NOBODY + "\naioxide.run(main())\n"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert "deadlock" in process.stderr.readline()
        os.kill(process.pid, signal.SIGINT)
        assert process.communicate(timeout=20)[1].rstrip().endswith("KeyboardInterrupt")
        assert process.returncode != 0
