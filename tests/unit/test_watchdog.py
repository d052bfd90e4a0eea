"""The watchdog, on programs that block where the tests know it."""

import asyncio
import ctypes
import functools
import gc
import inspect
import logging
import os
import re
import subprocess
import sys
import threading
import time

import aioxide
import pytest

SHORT = 0.05


@pytest.fixture
def stalls(caplog):
    """What the watchdog reports."""
    caplog.set_level(logging.WARNING, "aioxide")
    found = []
    with aioxide.watchdog(SHORT, callback=found.append):
        yield found


def until(condition, seconds=10):
    """Waits, in this thread, for what happens in another."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


def the_stall(stalls, length):
    """One of that length, in seconds; a machine that stands still now and then has others."""
    until(lambda: any(stall.seconds > length for stall in stalls))
    return next(stall for stall in stalls if stall.seconds > length)


def looked_at(stalls, length, main, count=1):
    """The stall of that length that `main` has, with so many looks: without, if everything stood still meanwhile."""
    for _ in range(4):
        stalls.clear()
        run(main())
        stall = the_stall(stalls, length)
        if len(stall.looks) >= count:
            break
    return stall


def line_of(function, text):
    lines, start = inspect.getsourcelines(function)
    return start + next(number for number, line in enumerate(lines) if text in line)


def run(coroutine):
    aioxide.run(coroutine, loop_factory=aioxide.new_event_loop)


async def blocks(how):
    await asyncio.sleep(0.01)
    how()  # the call
    await asyncio.sleep(0.01)


def by_sleeping():
    time.sleep(0.3)  # the line


def by_computing():
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        sum(range(100))  # the line


@pytest.mark.parametrize("how", [by_sleeping, by_computing])
def test_the_line_that_blocks_is_named(stalls, caplog, how):
    async def main():
        asyncio.current_task().set_name("culprit")
        await blocks(how)

    stall = looked_at(stalls, 0.28, main)
    assert stall.seconds < 5
    assert stall.over
    assert stall.thread == threading.get_ident()
    assert stall.looks[0].task == "culprit"
    places = [(frame.function.rpartition(".")[2], frame.line) for frame in stall.looks[0].stack]
    assert places[:3] == [
        ("main", line_of(test_the_line_that_blocks_is_named, "await blocks(how)")),
        ("blocks", line_of(blocks, "# the call")),
        (how.__name__, places[2][1]),
    ]
    if how is by_sleeping:
        assert places[2][1] == line_of(how, "# the line")
    (message,) = [text for text in caplog.messages if f"stalled for {stall.seconds:.3f} s" in text]
    assert "'culprit'" in message
    assert f"{__file__}:" in message


def test_a_callback_is_no_task(stalls):
    async def main():
        asyncio.get_running_loop().call_soon(by_sleeping)
        await asyncio.sleep(0.02)

    look = looked_at(stalls, 0.28, main).looks[0]
    assert look.task is None
    assert look.stack[-1].function == "by_sleeping"
    assert len(look.stack) == 1


def keeps_the_lock():
    ctypes.PyDLL(None).usleep(300_000)  # PyDLL: the interpreter's lock is kept


def searches():
    re.match(r"(a+)+$", "a" * 22 + "b")


@pytest.mark.parametrize("how", [keeps_the_lock, searches])
def test_native_code_that_keeps_the_interpreters_lock(stalls, how):
    lengths = []

    def timed():
        before = time.monotonic()
        how()
        lengths.append(time.monotonic() - before)

    run(blocks(timed))
    stall = the_stall(stalls, lengths[0] - 0.02)
    assert stall.over
    assert stall.seconds > SHORT
    # The stack comes late, when the lock is to be had, or not at all; never is it somebody else's.
    for look in stall.looks:
        assert look.stack[0].function == "blocks"
        assert look.after <= stall.seconds + SHORT
    assert stall.looks or "native code kept the interpreter's lock" in str(stall)


STOPPED = """
import asyncio, subprocess, time, aioxide
found = []
async def main():
    await asyncio.sleep(0.01)
    subprocess.Popen(["sh", "-c", "kill -STOP $PPID; sleep 0.3; kill -CONT $PPID"]).wait()
    await asyncio.sleep(0.01)
with aioxide.watchdog(0.1, callback=found.append):
    for number in range(10):
        aioxide.run(main())
lengths = [stall.seconds for stall in found if stall.seconds > 0.28]
assert len(lengths) == 10 and max(lengths) < 5, found
"""


def test_a_process_that_is_stopped():
    """The watchdog's thread stands still as well, and comes back later than the loop."""
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the event loop was stalled for") >= 10


def test_the_end_of_a_stall_is_told_once(stalls):
    """Stalls that are over just when the watchdog comes to look, and turns hardly too long."""
    lengths = [SHORT * part / 20 for part in range(16, 40)]

    async def main():
        for length in lengths:
            await asyncio.sleep(0)
            time.sleep(length)

    run(main())
    # A turn is a stall from the threshold on; the clock that says when it began may be some milliseconds late.
    sure = sum(length > SHORT + 0.012 for length in lengths)
    until(lambda: len(stalls) >= sure)
    time.sleep(4 * SHORT)
    assert sure <= len(stalls) <= len(lengths)
    assert all(stall.seconds >= SHORT for stall in stalls)


def test_loops_in_several_threads_stall_at_once(stalls):
    lengths = [0.2, 0.3, 0.4]
    threads = [threading.Thread(target=run, args=(blocks(functools.partial(time.sleep, n)),)) for n in lengths]
    for thread in threads:
        thread.start()
    idents = [thread.ident for thread in threads]
    for thread in threads:
        thread.join()
    until(lambda: {stall.thread for stall in stalls if stall.seconds > 0.18} == set(idents))
    found = {stall.thread: stall.seconds for stall in sorted(stalls, key=lambda stall: stall.seconds)}
    for ident, length in zip(idents, lengths, strict=True):
        assert length - 0.02 < found[ident] < length + 5


def test_a_stall_that_ends_with_its_loop_is_told(stalls):
    def last():
        time.sleep(0.2)
        raise SystemExit

    loop = aioxide.new_event_loop()
    loop.call_soon(last)
    with pytest.raises(SystemExit):
        loop.run_forever()
    loop.close()
    del loop
    gc.collect()
    stall = the_stall(stalls, 0.18)
    assert stall.over
    assert stall.seconds < 5


def test_what_lies_between_two_runs_is_no_stall(stalls):
    loop, lengths = aioxide.new_event_loop(), []
    for _ in range(2):
        before = time.monotonic()
        loop.run_until_complete(asyncio.sleep(0.01))
        lengths.append(time.monotonic() - before)
        time.sleep(0.3)
    loop.close()
    time.sleep(4 * SHORT)
    assert [stall for stall in stalls if stall.seconds > max(lengths)] == []


def test_what_lies_before_a_single_turn_is_no_stall(stalls):
    loop = aioxide.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    time.sleep(0.5)
    before = time.monotonic()
    loop.call_soon(int)
    loop._run_once()
    length = time.monotonic() - before
    loop.close()
    time.sleep(4 * SHORT)
    assert [stall for stall in stalls if stall.seconds > 0.4 + length] == []


def test_a_stall_in_which_the_watchdog_stops_lasts_no_longer():
    async def main():
        with aioxide.watchdog(SHORT):
            time.sleep(0.3)
        return aioxide._watchdog.stalls()

    assert [stall for stall in aioxide.run(main()) if not stall.over] == []


def test_a_stall_of_an_inner_loop_shows_its_own_task(stalls):
    def nested():
        outer = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        inner = aioxide.new_event_loop()
        task = inner.create_task(blocks(by_sleeping), name="inner")
        inner.run_until_complete(task)
        inner.close()
        asyncio._set_running_loop(outer)

    async def main():
        asyncio.get_running_loop().call_soon(nested)
        await asyncio.sleep(0.02)

    for _ in range(4):
        run(main())
    until(
        lambda: any(
            look.task == "inner" and look.stack[0].function == "blocks" for stall in stalls for look in stall.looks
        )
    )


def test_the_outer_loop_stalls_while_another_runs_inside_of_it(stalls):
    def nested():
        outer = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        inner = aioxide.new_event_loop()
        inner.run_until_complete(inner.create_task(asyncio.sleep(0.3)))
        inner.close()
        asyncio._set_running_loop(outer)

    async def main():
        asyncio.get_running_loop().call_soon(nested)
        await asyncio.sleep(0.02)

    run(main())
    assert the_stall(stalls, 0.28).seconds < 5


def test_several_stalls_are_several_reports(stalls):
    async def main():
        for _ in range(3):
            await blocks(functools.partial(time.sleep, 0.2))

    run(main())
    until(lambda: len([stall for stall in stalls if stall.seconds > 0.18]) >= 3)


def test_a_watchdog_that_comes_late_tells_all_of_it(caplog):
    found = []

    def callback(stall):
        found.append(stall)
        time.sleep(0.5)  # in the watchdog's own thread

    async def main():
        await blocks(functools.partial(time.sleep, 0.1))
        await asyncio.sleep(0.1)
        for length in (0.15, 0.2, 0.6):
            time.sleep(length)
            await asyncio.sleep(0)

    with aioxide.watchdog(SHORT, callback=callback):
        run(main())
        for count, length in enumerate((0.58, 0.18, 0.13, 0.08), 1):
            until(lambda count=count, length=length: sum(stall.seconds > length for stall in found) >= count)
    assert max(stall.seconds for stall in found) < 5


def test_a_stack_that_moves_on_is_seen_again(stalls):
    def first():
        time.sleep(0.15)

    def second():
        time.sleep(0.5)

    def both():
        first()
        second()

    stall = looked_at(stalls, 0.6, lambda: blocks(both), 2)
    assert [look.stack[-1].function.rpartition(".")[2] for look in stall.looks] == ["first", "second"]


def test_a_stall_is_seen_while_it_lasts(stalls):
    seen = []

    def watch():
        until(lambda: any(not stall.over and stall.looks for stall in aioxide._watchdog.stalls()))
        seen.extend(aioxide._watchdog.stalls())

    async def main():
        thread = threading.Thread(target=watch)
        thread.start()
        await blocks(functools.partial(time.sleep, 0.5))
        thread.join()

    run(main())
    last = seen[-1]
    assert not last.over
    assert last.looks[0].stack[-1].function == "blocks"


def test_a_loop_that_sleeps_or_is_busy_in_short_steps_is_not_stalled(stalls):
    begins, ends = [time.monotonic()], []  # of what may last long on a machine that stands still

    async def main():
        ends.append(time.monotonic())
        await asyncio.sleep(0.4)
        begins.append(ends[-1] + 0.4)
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            ends.append(time.monotonic())
            begins.append(ends[-1])
            await asyncio.sleep(0)

    run(main())
    ends.append(time.monotonic())
    longest = max(end - begin for begin, end in zip(begins, ends, strict=True))
    assert [stall for stall in stalls if stall.seconds > longest + 2 * SHORT] == []


def test_loops_in_other_threads_and_later_loops(stalls):
    thread = threading.Thread(target=run, args=(blocks(by_sleeping),))
    thread.start()
    ident = thread.ident
    thread.join()
    until(lambda: stalls)
    assert stalls[0].thread == ident


def test_callbacks_that_raise_are_shown(caplog):
    def fails(stall):
        raise ValueError("in callback")

    shown = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda what: shown.append(str(what.exc_value))
    try:
        with aioxide.watchdog(SHORT, callback=fails):
            run(blocks(by_sleeping))
            until(lambda: shown)
    finally:
        sys.unraisablehook = before
    assert set(shown) == {"in callback"}


def test_stopped_it_reports_nothing(caplog):
    found = []
    aioxide.watchdog(SHORT, callback=found.append).stop()
    run(blocks(by_sleeping))
    time.sleep(0.1)
    assert found == []


@pytest.mark.parametrize("threshold", [0, -1, float("inf"), float("nan")])
def test_a_threshold_is_a_positive_number(threshold):
    with pytest.raises(ValueError, match="threshold must be"):
        aioxide.watchdog(threshold)


def test_a_new_watchdog_replaces_the_old():
    first, second = [], []
    aioxide.watchdog(SHORT, callback=first.append)
    with aioxide.watchdog(SHORT, callback=second.append):
        run(blocks(by_sleeping))
        until(lambda: second)
    assert first == []


PROGRAM = """
import asyncio, time
async def main():
    await asyncio.sleep(0.01)
    time.sleep(0.4)
asyncio.run(main())
"""


@pytest.mark.parametrize(("option", "reports"), [("--watchdog=0.05", 1), ("--watchdog=30", 0)])
def test_the_command_line(option, reports):
    done = subprocess.run(
        [sys.executable, "-m", "aioxide", option, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    lengths = re.findall(r"the event loop was stalled for (\S+) s", done.stderr)
    assert len([length for length in lengths if 0.38 < float(length) < 5]) == reports
    assert done.stderr.count("<string>:5") == reports


@pytest.mark.parametrize("value", ["=no", "=0", "="])
def test_the_command_line_refuses_nonsense(value):
    done = subprocess.run(
        [sys.executable, "-m", "aioxide", f"--watchdog{value}", "-c", "1"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "not a positive number" in done.stderr


def test_processes_that_fork_or_exit_while_stalled_end():
    program = """
import asyncio, os, sys, threading, time, aioxide
aioxide.watchdog(0.01)
async def main():
    pid = os.fork()
    if pid == 0:
        aioxide.watchdog(0.01)  # the child's own
        time.sleep(0.1)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    time.sleep(0.1)
    raise SystemExit(3)
aioxide.run(main())
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3, done.stderr


FORKS = """
import asyncio, os, signal, sys, time, aioxide
from aioxide._watchdog import stalls
sys.setrecursionlimit(5000)
def deep(calls):
    if calls:
        return deep(calls - 1)
    time.sleep(0.004)
async def main():
    for n in range(60):
        asyncio.get_running_loop().call_soon(deep, 900)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        end = time.perf_counter() + n % 40 * 5e-6
        while time.perf_counter() < end:
            pass
        pid = os.fork()
        if pid == 0:
            signal.alarm(5)
            stalls()
            with aioxide.watchdog(0.001):
                pass
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, n
aioxide.watchdog(0.001)
aioxide.run(main())
"""


def test_forked_while_the_watchdog_writes_a_stall_down():
    """The child has no thread that would let the list go; one fork in a hundred was at that moment."""
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]


SIGNALS = """
import asyncio, os, re, signal, subprocess, sys, time, aioxide
def say(line):
    sys.stdout.write(line + "\\n")  # at once: the report's thread writes too
def report(stall):
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    say("a child of a report blocks " + re.search(r"SigBlk:\\s(\\w+)", status)[1])
async def main():
    loop, count = asyncio.get_running_loop(), 0
    came = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR2, came.set)
    for _ in range(300):
        os.kill(os.getpid(), signal.SIGUSR2)
        await came.wait()
        came.clear()
        count += 1
    time.sleep(0.2)
    await asyncio.sleep(0)
    return count
aioxide.inspect.serve()
with aioxide.watchdog(0.05, callback=report):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    for _ in range(300):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.sigwait({signal.SIGUSR1}) == signal.SIGUSR1
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    say(f"handled {aioxide.run(main())}")
"""


def test_signals_are_the_programs_own(tmp_path):
    """No native thread takes one that the program waits for; and what a report starts can be sent signals."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SIGNALS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert "handled 300\n" in done.stdout
    assert "a child of a report blocks 0000000000000000\n" in done.stdout


def test_nothing_is_kept(stalls):
    async def main():
        await blocks(functools.partial(time.sleep, 0.1))

    run(main())
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(3):
        run(main())
    until(lambda: len(stalls) >= 3)
    stalls.clear()
    gc.collect()
    assert len(gc.get_objects()) - before < 500
