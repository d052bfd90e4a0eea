"""What it costs to look inside a program: each instrument on, against none.

    python benchmarks/looking.py                    CPU time, in turns within one process; in hundredths of it
    python benchmarks/looking.py --instructions     instructions of one operation, counted by valgrind's callgrind

Instructions do not depend on what else the machine does; but a look at the clock, which most instruments take now
and then, is a call of the system under valgrind and does not count, and threads that only wake up now and then count
for more than they cost, since all else is slower.  CPU time has both in it, and noise.
"""

import argparse
import asyncio
import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import aioxide
from server import echo
from workloads import WORKLOADS

CLIENTS = 256
MESSAGE = bytes(1024)


@contextlib.contextmanager
def metrics(loop):
    loop.metrics()
    yield


def watchdog(loop):
    return aioxide.watchdog(0.1)


@contextlib.contextmanager
def accounting(loop):
    aioxide.inspect.accounting()
    yield
    aioxide.inspect.accounting(False)


@contextlib.contextmanager
def inspect(loop):
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_RUNTIME_DIR"] = directory
        with aioxide.inspect.serve():
            yield


@contextlib.contextmanager
def trace(loop):
    with tempfile.TemporaryDirectory() as directory:
        recording = aioxide.trace(os.path.join(directory, "trace.json"), limit=1)
        yield
        recording.stop()


@contextlib.contextmanager
def debug(loop):
    loop.set_debug(True)
    yield
    loop.set_debug(False)


@contextlib.contextmanager
def nothing(loop):
    yield


# Measuring does not end: it comes last.
INSTRUMENTS = {
    "nothing": nothing,
    "watchdog": watchdog,
    "--inspect, nobody asking": inspect,
    "accounts of tasks": accounting,
    "--trace": trace,
    "debug mode": debug,
    "metrics": metrics,
}


# A server of streams, and 256 clients in another process that send all, then read all --------


class Served:
    """Runs so many requests; the server is this process."""

    async def __aenter__(self):
        self.server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        command = [sys.executable, __file__, "--clients", str(port)]
        self.clients = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
        await self.clients.stdout.readline()
        return self

    async def __call__(self, n):
        rounds = n // CLIENTS
        self.clients.stdin.write(b"%d\n" % rounds)
        return CLIENTS * int(await self.clients.stdout.readline())

    async def __aexit__(self, *_):
        self.clients.stdin.close()
        await self.clients.wait()
        self.server.close()
        await self.server.wait_closed()


def clients(port):
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(CLIENTS)]
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            for connection in connections:
                connection.sendall(MESSAGE)
            for connection in connections:
                assert connection.recv(len(MESSAGE), socket.MSG_WAITALL) == MESSAGE
        print(int(line), flush=True)


@contextlib.asynccontextmanager
async def plain(function):
    yield function


PROGRAMS = {
    "task_switch": (lambda: plain(WORKLOADS["scheduling/task_switch"][0]), 20_000),
    "create_task": (lambda: plain(WORKLOADS["scheduling/create_task"][0]), 10_000),
    "streams, 1 kB, 256 clients": (Served, 20 * CLIENTS),
}


# Measuring ------------------------------------------------------------------------------------


async def do(run, n):
    if (done := await run(n)) != n:
        raise SystemExit(f"did {done} operations of {n}")


def by_time(program, instrument, pairs):
    """How much more CPU time, of the whole process: the median over pairs of runs, one with the instrument."""
    make, n = PROGRAMS[program]

    async def timed(run):
        began = time.process_time()
        await do(run, n)
        return time.process_time() - began

    with asyncio.Runner() as on, asyncio.Runner() as off:

        async def enter(made):
            return await made.__aenter__()

        made = [make(), make()]
        runs = [runner.run(enter(one)) for runner, one in zip((on, off), made, strict=True)]
        ratios = []
        for number in range(pairs + 2):
            costs = {}
            for is_on in (True, False) if number % 2 else (False, True):
                runner = on if is_on else off
                with INSTRUMENTS[instrument](runner.get_loop()) if is_on else contextlib.nullcontext():
                    costs[is_on] = runner.run(timed(runs[0 if is_on else 1]))
            ratios.append(costs[True] / costs[False])
        for runner, one in zip((on, off), made, strict=True):
            runner.run(one.__aexit__(None, None, None))
    return statistics.median(ratios[2:]) - 1


def by_instructions(program, instruments):
    """One process does all.  callgrind writes its counts down whenever somebody asks for the parent's number."""
    n = PROGRAMS[program][1]
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, "counts")
        tool = ["valgrind", "--tool=callgrind", "--dump-before=getppid", f"--callgrind-out-file={out}"]
        command = [*tool, "--log-file=/dev/null", sys.executable, __file__, "--counted", program, ";".join(instruments)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "0"})
        for number in range(len(instruments)):
            with open(f"{out}.{2 * number + 2}") as file:
                yield int(re.search(r"^(?:summary|totals): (\d+)", file.read(), re.MULTILINE)[1]) / n


async def counted(program, instruments):
    make, n = PROGRAMS[program]
    async with make() as run:
        await do(run, n // 4)
        for name in instruments:
            with INSTRUMENTS[name](asyncio.get_running_loop()):
                await do(run, n // 4)
                os.getppid()
                await do(run, n)
                os.getppid()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--pairs", type=int, default=41, help="of runs, by CPU time")
    parser.add_argument("--only", help="the instruments whose name has this in it")
    parser.add_argument("--clients", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--counted", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clients:
        return clients(options.clients)
    aioxide.install()
    if options.counted:
        return asyncio.run(counted(options.counted[0], options.counted[1].split(";")))
    chosen = [name for name in INSTRUMENTS if (options.only or "") in name and name != "nothing"]
    print("| |", " | ".join(f"`{name}`" if "," not in name else name for name in PROGRAMS), "|")
    print("|---|" + "---:|" * len(PROGRAMS))
    if options.instructions:
        counts = [list(by_instructions(program, ["nothing", *chosen])) for program in PROGRAMS]
        print("| nothing |", " | ".join(f"{base:,.0f}" for base, *_ in counts), "|")
        for number, name in enumerate(chosen, 1):
            cells = [f"{count[number]:,.0f} ({count[number] / count[0] - 1:+.1%})" for count in counts]
            print(f"| {name} |", " | ".join(cells), "|")
        return
    for name in chosen:
        cells = [f"{by_time(program, name, options.pairs):+.1%}" for program in PROGRAMS]
        print(f"| {name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
