"""A busy server, looked at from all sides while tasks end, names raise, loops come and go and the process forks:
no look fails, no client gets a wrong byte, nothing grows."""

import asyncio
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
from urllib.request import urlopen

import aioxide
import pytest

from .conftest import resident_bytes, size

SERVER = """
import asyncio, os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)

class Hostile(asyncio.Task):
    def get_name(self):
        raise RuntimeError("no name for you")
    def __repr__(self):
        raise RuntimeError("no repr for you")

async def brief(number):
    await asyncio.sleep(0 if number else 0.001)

async def handle(reader, writer):
    while data := await reader.read(4096):
        await asyncio.gather(*(brief(number) for number in range(4)))
        await asyncio.wait_for(brief(1), 5)
        writer.write(data)
        await writer.drain()
    writer.close()

def loops_come_and_go():
    async def main():
        tasks = [asyncio.create_task(brief(number)) for number in range(3)]
        await asyncio.sleep(0.002)
        tasks[0].cancel()
    while True:
        asyncio.run(main())

async def fork_now_and_then():
    while True:
        await asyncio.sleep(0.5)
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: print(context, file=sys.stderr))
    waiting = asyncio.Event()
    tasks = [Hostile(waiting.wait(), loop=loop) for _ in range(3)]
    forks = asyncio.create_task(fork_now_and_then())
    threading.Thread(target=loops_come_and_go, daemon=True).start()
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    # Only when this task waits for its clients.
    loop.call_later(0.2, lambda port=server.sockets[0].getsockname()[1]: print(port, flush=True))
    async with server:
        await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    command = [sys.executable, "-m", "aioxide", "--inspect=web", "-c", SERVER]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    try:
        process.url = re.search(r"http\S+", process.stderr.readline())[0]
        process.port = int(process.stdout.readline())
        process.path = tmp_path / "aioxide" / f"{process.pid}.sock"
        yield process
    finally:
        process.kill()
        process.communicate()


class Clients(threading.Thread):
    """Talks to the server until told to stop."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.is_wanted = True
        self.echoes = 0
        self.error = None

    def run(self):
        try:
            with asyncio.Runner(loop_factory=aioxide.new_event_loop) as runner:
                runner.run(self.talk())
        except BaseException as error:
            self.error = error

    async def talk(self):
        await asyncio.gather(*(self.client(number) for number in range(8)))

    async def client(self, number):
        while self.is_wanted:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for turn in range(50):
                data = f"client {number}, turn {turn};".encode() * (turn + 1)
                writer.write(data)
                async with asyncio.timeout(60):
                    assert await reader.readexactly(len(data)) == data
                self.echoes += 1
            writer.close()
            await writer.wait_closed()


def by_socket(server, what):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(server.path))
        connection.sendall(what.encode() + b"\n")
        return json.loads(b"".join(iter(lambda: connection.recv(1 << 16), b"")))


def by_web(server, what):
    with urlopen(server.url.replace("/?", f"/{what}?"), timeout=60) as answer:
        return json.load(answer)


def check(picture):
    # On a machine with more to do than it has processors for, the lock may not be had in time.
    if "unavailable" in picture:
        assert picture["unavailable"] == "native code keeps the interpreter's lock"
        return 1
    assert "error" not in picture
    if "loops" in picture:
        tasks = [task for one in picture["loops"] for task in one["tasks"]]
        assert [task["name"] for task in tasks].count("?") == 3
        (main,) = [
            task
            for task in tasks
            if task["name"] == "Task-1"
            and "main" in task["chain"][0]["function"]
            and any("serve_forever" in link["function"] for link in task["chain"])
        ]
        assert main["waits_for"]["kind"] == "server"
    return 0


def test_ten_thousand_looks(server):
    count = size(400, 10_000)
    clients = Clients(server.port)
    clients.start()

    def descriptors():
        return len(os.listdir(f"/proc/{server.pid}/fd"))

    def looks(times):
        blind = 0
        for number in range(times):
            look = (by_socket, by_web)[number % 2]
            what = ("tasks", "tasks", "stacks", "figures" if look is by_web else "tasks")[number // 2 % 4]
            blind += check(look(server, what))
        return blind

    looks(max(count // 10, 100))
    before, echoes = resident_bytes(server.pid), clients.echoes
    assert looks(count) <= count // 20
    assert clients.is_alive() and clients.error is None
    assert clients.echoes > echoes
    assert resident_bytes(server.pid) - before < 4 << 20
    clients.is_wanted = False
    clients.join(120)
    assert not clients.is_alive() and clients.error is None
    assert descriptors() < 40
    assert server.poll() is None
    server.kill()
    assert server.stderr.read() == ""


def test_ps_itself(server):
    for _ in range(size(2, 20)):
        for command in ("ps", "tree", "stacks", "top"):
            words = [sys.executable, "-m", "aioxide", command, str(server.pid)]
            done = subprocess.run(words, capture_output=True, text=True, timeout=120)
            assert (done.returncode, done.stderr) == (0, ""), command


SHORT = """
import asyncio
async def main():
    tasks = [asyncio.create_task(asyncio.sleep(100)) for _ in range(500)]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
asyncio.run(main())
"""


@pytest.mark.parametrize("what", ["tasks", "stacks"])
def test_the_end_while_somebody_looks(tmp_path, monkeypatch, what):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def look(url):
        try:
            while True:
                with urlopen(url.replace("/?", f"/{what}?"), timeout=60) as answer:
                    answer.read()
        except (OSError, http.client.HTTPException):
            pass  # the end

    for _ in range(size(8, 100)):
        command = [sys.executable, "-m", "aioxide", "--inspect=web", "-c", SHORT]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            url = re.search(r"http\S+", process.stderr.readline())[0]
            threads = [threading.Thread(target=look, args=(url,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            assert process.wait(60) == 0
            assert process.stderr.read() == ""
            for thread in threads:
                thread.join(60)
