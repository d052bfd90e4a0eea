"""The timeline's file: its bounds, several loops and processes, the ends of programs, and what is refused."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import aioxide
import pytest
from traces import File, run

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
import asyncio, threading
async def main():
    asyncio.current_task().set_name("it")
    asyncio.get_running_loop().call_later(0.01, ready.set)
    await asyncio.sleep(1000)
ready = threading.Event()
threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
ready.wait()
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
