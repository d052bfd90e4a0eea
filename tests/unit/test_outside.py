"""Looking at a process from outside: what is seen, who may look, and what is said where nothing can be seen."""

import json
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import time

import aioxide
import pytest

PROGRAM = """
import asyncio, re, sys, threading, time
async def waits(lock):
    async with lock:
        await asyncio.sleep(1000)
async def stalls():
    await asyncio.sleep(0.3)
    time.sleep(1000)
async def keeps_the_gil():
    await asyncio.sleep(0.3)
    re.match("(a+)+b", "a" * 60)
async def spins():
    while True:
        await asyncio.sleep(0)
async def main():
    lock = asyncio.Lock()
    tasks = [asyncio.create_task(waits(lock), name=f"worker {n}") for n in range(3)]
    tasks.append(asyncio.create_task(asyncio.sleep(1000), name="bad \\x1b[31m\\n name"))
    for name in sys.argv[1:]:
        tasks.append(asyncio.create_task(globals()[name](), name=name))
    print("ready", flush=True)
    await asyncio.wait(tasks)
asyncio.run(main())
"""


pytestmark = [
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # is multi-threaded
    pytest.mark.usefixtures("directory"),
]


@pytest.fixture
def start(directory):
    processes = []

    def start(*arguments, options=("--inspect",), **keywords):
        process = subprocess.Popen(
            [sys.executable, "-m", "aioxide", *options, "-c", PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            **keywords,
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def aioxide_command(*words, **keywords):
    command = [sys.executable, "-m", "aioxide", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **keywords)


def test_the_table(start):
    done = aioxide_command("ps", start().pid)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "AGE", "STEPS", "CPU", "WAITS", "FOR", "AT"]
    (worker,) = [line for line in lines if line.startswith("worker 1 ")]
    assert "waiting" in worker
    assert "held by worker 0" in worker
    assert "waits <string>:4" in worker
    assert "\x1b" not in done.stdout
    assert len(lines) == 6


def test_the_tree(start):
    done = aioxide_command("tree", start().pid)
    assert "waits for tasks: " in done.stdout
    assert "├─ worker 0  waiting" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_stacks(start):
    done = aioxide_command("stacks", start("stalls").pid)
    assert "thread 'MainThread'" in done.stdout


def test_json(start):
    process = start()
    for command in ("ps", "tree", "top", "stacks"):
        found = json.loads(aioxide_command(command, process.pid, "--json").stdout)
        assert found["pid"] == process.pid
        assert {task["name"] for task in found["loops"][0]["tasks"]} >= {"worker 0", "worker 1", "Task-1"}
        assert found["metrics"][0]["timers"] == 2


def test_a_stalled_loop_is_seen(start):
    process = start("stalls")
    time.sleep(0.5)
    done = aioxide_command("stacks", process.pid)
    assert "stalls  <string>:8" in done.stdout
    (line,) = [line for line in aioxide_command("ps", process.pid).stdout.splitlines() if line.startswith("stalls")]
    assert "running" in line
    assert "stalls <string>:8" in line


def test_where_native_code_keeps_the_lock_that_is_said(start):
    process = start("keeps_the_gil")
    time.sleep(0.5)
    done = aioxide_command("ps", process.pid)
    assert done.returncode == 0
    assert "native code keeps the interpreter's lock (1 event loops are busy)" in done.stderr


def test_the_socket_is_its_owners_alone(start, directory):
    process = start()
    path = directory / f"{process.pid}.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert not path.exists()


def test_reasons_why_not(start, directory):
    done = aioxide_command("ps", 2**22 - 1)
    assert (done.returncode, done.stderr) == (2, f"aioxide ps: there is no process {2**22 - 1}\n")
    done = aioxide_command("tree", os.getpid())
    assert done.returncode == 2
    assert done.stderr.startswith(f"aioxide tree: process {os.getpid()} can't be inspected: it was not started with")
    directory.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(directory / f"{os.getpid()}.sock"))
        done = aioxide_command("stacks", os.getpid())
    assert done.returncode == 2
    assert "does not listen any more" in done.stderr
    assert done.stderr.count("\n") == 1
    assert aioxide_command("ps", "no").returncode == 2
    assert aioxide_command("ps").returncode == 2


@pytest.mark.skipif(os.getuid() != 0, reason="needs to start a process as another user")
def test_processes_of_others(start):
    with subprocess.Popen(["sleep", "100"], user=65534) as other:
        done = aioxide_command("ps", other.pid)
        other.kill()
    assert (done.returncode, done.stderr) == (
        2,
        f"aioxide ps: process {other.pid} belongs to another user (number 65534)\n",
    )


def test_a_directory_of_others_is_not_used(tmp_path, monkeypatch):
    mine = tmp_path / "aioxide"
    mine.mkdir(mode=0o777)
    mine.chmod(0o777)
    monkeypatch.setattr("aioxide.inspect.directories", lambda: [str(mine)])
    with pytest.raises(PermissionError, match="no directory that is only ours"):
        aioxide.inspect.serve()


def test_top(start):
    """Driven in a terminal: it shows the tasks, follows keys, and leaves the terminal as it was."""
    process = start("spins")
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "aioxide", "top", str(process.pid), "--interval", "0.2"])
    shown = ""

    def until(text, seconds=20):
        nonlocal shown
        end = time.monotonic() + seconds
        while text not in shown:
            assert time.monotonic() < end, shown
            if select.select([terminal], [], [], 0.1)[0]:
                shown += os.read(terminal, 1 << 16).decode(errors="replace")

    until("sorted by cpu")
    until("callbacks/s")
    until("\x1b[J\x1b[H")  # a whole screen
    assert "spins" in shown
    assert "\x1b[31m" not in shown
    whole = [screen for screen in shown.split("\x1b[H") if screen.endswith("\x1b[J")]
    screen = [line for line in whole[-1].splitlines() if line]
    first = next(number for number, line in enumerate(screen) if line.startswith("NAME"))
    assert screen[first + 1].startswith("spins")  # nobody works more
    os.write(terminal, b"n")
    until("sorted by name")
    os.write(terminal, b"q")
    until("\x1b[?1049l")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)


def test_many_looks_at_a_busy_process(start, directory):
    process = start("spins")
    path = str(directory / f"{process.pid}.sock")

    def look():
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(path)
            connection.sendall(b"tasks\n")
            text = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        assert json.loads(text)["loops"], text

    def memory():
        with open(f"/proc/{process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(100):
        look()
    before = memory()
    count = int(os.environ.get("LOOKS", "500"))
    for _ in range(count):
        look()
    assert memory() - before < 2 << 20
    assert process.poll() is None


def test_nonsense_is_refused_and_the_silent_are_left(start, directory):
    process = start()
    path = str(directory / f"{process.pid}.sock")
    with socket.socket(socket.AF_UNIX) as nonsense:
        nonsense.connect(path)
        nonsense.sendall(b"x" * 100)
        assert b"unknown request" in nonsense.recv(1000)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(path)
        silent.close()
    assert aioxide_command("ps", process.pid).returncode == 0


def test_a_fork_leaves_the_socket_to_its_parent(directory):
    with aioxide.inspect.serve() as server:
        child = os.fork()
        if child == 0:
            os._exit(0 if aioxide.inspect._server is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert os.path.exists(server.path)
    assert not os.path.exists(server.path)
