"""What is measured, and how: each measurement is a fresh process, and its cost is CPU time or memory.

`registry()` maps names to functions that are given a loop's name and the settings; they return the cost
of one operation, in seconds or bytes, or raise Failed.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import resource
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

import loops
from probe import resident
from workloads import WORKLOADS

HERE = pathlib.Path(__file__).resolve().parent
BUILT = HERE.parent / "target" / "bench"
LONGEST = 60  # seconds that a measurement may take


class Failed(Exception):
    """The loop crashed, hung, or gave a wrong answer."""


@dataclasses.dataclass
class Settings:
    scale: float = 1.0  # of the number of operations
    repeats: int = 5  # runs of a program, of which the cheapest counts
    seconds: float = 0.6  # how long a server is asked


FULL, QUICK = Settings(), Settings(scale=0.2, repeats=2, seconds=0.15)


def environment():
    left_out = {"PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONMALLOC"}
    return {name: value for name, value in os.environ.items() if name not in left_out} | {"PYTHONHASHSEED": "0"}


def output(*words):
    """What a process prints, if it ends well."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
            env=environment(),
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"took more than {LONGEST} s") from None
    if done.returncode:
        raise Failed(last_words(done.returncode, done.stderr))
    return done.stdout


def last_words(code, errors):
    how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    lines = [line for line in errors.splitlines() if line.strip()]
    return f"{how}: {lines[-1].strip()[:120]}" if lines else how


# Programs ---------------------------------------------------------------------------------


def program(name, loop, settings):
    return float(output(HERE / "probe.py", loop, "program", name, settings.scale, settings.repeats))


def idle(name, loop, settings):
    return float(output(HERE / "probe.py", loop, "idle", name))


def start(loop, settings):
    """A process that imports the loop and runs nothing: CPU time, the cheapest of some."""
    costs = []
    for _ in range(settings.repeats):
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", loops.smallest_program(loop)], env=environment()
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise Failed(last_words(child.returncode, ""))
        costs.append(used.ru_utime + used.ru_stime)
    return min(costs)


# Servers ----------------------------------------------------------------------------------


@functools.cache
def c_server():
    """The path of the server in C, or None where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    BUILT.mkdir(parents=True, exist_ok=True)
    program = BUILT / "echo"
    fresh = BUILT / f"echo-{os.getpid()}"  # another run may be about to start the program
    built = subprocess.run([compiler, "-O2", "-o", fresh, HERE / "echo.c"], capture_output=True, check=False)
    return fresh.replace(program) if built.returncode == 0 else None


IN_C = {"protocol": "tcp", "buffered": "tcp", "streams": "tcp", "sock": "tcp"}
IN_C |= {"udp": "udp", "unix": "unix", "aiohttp": "http", "uvicorn": "http"}


class Server:
    """A server in a process of its own, on the first core."""

    def __init__(self, loop, kind, place=""):
        if loop == loops.C:
            command = ["taskset", "-c", str(CORES[0])] if shutil.which("taskset") else []
            command += [c_server(), IN_C[kind], *([place] if kind == "unix" else [])]
        else:
            command = [sys.executable, "-W", "ignore", HERE / "server.py", loop, kind, place]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([str(word) for word in command], env=environment(), **pipes)
        said = b""
        if select.select([self.process.stdout], [], [], LONGEST / 2)[0]:
            said = self.process.stdout.readline()
        if not said.startswith(b"READY"):
            raise Failed(self.end() or "does not start")
        self.port = int(said.split()[1])

    def cpu(self):
        """The CPU seconds of the process, all threads together, as the scheduler counts them."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def end(self):
        """Ends the process; its last words, if there are any."""
        if self.process.stdin.closed:
            return ""
        alive = self.process.poll() is None
        try:
            errors = self.process.communicate(timeout=10)[1]  # the end of its input is the end of it
        except subprocess.TimeoutExpired:
            self.process.kill()
            errors = self.process.communicate()[1]
        errors = errors.decode(errors="replace")
        if alive:
            return errors.strip().rpartition("\n")[2][:120]
        return last_words(self.process.returncode, errors)


CORES = sorted(os.sched_getaffinity(0))


@contextlib.contextmanager
def on_the_last_core():
    os.sched_setaffinity(0, CORES[-1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


def connect(kind, server, place):
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(place)
    elif kind == "udp":
        connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        connection.connect(("127.0.0.1", server.port))
    else:
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(10)
    if kind.startswith("tls"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = context.wrap_socket(connection)
    return connection


def receive(connection, into):
    """Fills a buffer."""
    left = len(into)
    view = memoryview(into)
    while left:
        got = connection.recv_into(view[-left:], left)
        if not got:
            raise Failed("the server closed a connection")
        left -= got


def ask(connections, request, answers):
    """One request on each connection, then one answer from each: up to all of them are on their way at once."""
    for connection in connections:
        connection.sendall(request)
    for connection, answer in zip(connections, answers, strict=True):
        receive(connection, answer)


def first_answer(connection):
    """The answer to a first HTTP request: how long they are, one like the other."""
    found = b""
    while b"Hello, world!" not in found:
        got = connection.recv(65536)
        if not got:
            raise Failed(f"the server answered {found[:80]!r}")
        found += got
    if not found.startswith(b"HTTP/1.1 200"):
        raise Failed(f"the server answered {found[:80]!r}")
    return found


GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
FILE = 4 * 2**20


def asked(kind, size, count, loop, settings, *, reconnect=False):
    """CPU seconds that a server takes for one request."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        place = ""
        if kind == "unix":
            place = os.path.join(directory, "socket")
        if kind == "sendfile":
            place = os.path.join(directory, "file")
            pathlib.Path(place).write_bytes(os.urandom(2**16) * (FILE // 2**16))
        server = Server(loop, kind, place)
        stack.callback(server.end)
        stack.enter_context(on_the_last_core())
        try:
            return exchange(server, kind, place, size, count, settings, reconnect)
        except (OSError, Failed) as error:
            raise Failed(server.end() or str(error)) from None


def exchange(server, kind, place, size, count, settings, reconnect):
    with contextlib.ExitStack() as stack:

        def open_all(stack):
            return [stack.enter_context(connect(kind, server, place)) for _ in range(count)]

        connections = open_all(stack)
        request = expected = bytes(number % 251 for number in range(size))
        if kind in ("aiohttp", "uvicorn"):
            request = GET
            connections[0].sendall(GET)
            expected = first_answer(connections[0])
        elif kind == "sendfile":
            request, expected = b"\n", pathlib.Path(place).read_bytes()
        answers = [bytearray(len(expected)) for _ in range(count)]

        def once():
            if not reconnect:
                return ask(connections, request, answers)
            with contextlib.ExitStack() as inner:
                return ask(open_all(inner), request, answers)

        until(time.perf_counter() + settings.seconds / 4, once)
        if request is not GET and any(answer != expected for answer in answers):
            raise Failed("wrong answer")
        began = server.cpu()
        rounds = until(time.perf_counter() + settings.seconds, once)
        cost = server.cpu() - began
        if (said := server.process.poll()) is not None:
            raise Failed(f"the server ended: {said}")
        return cost / (rounds * count)


def until(end, once):
    """Does it until then, and once at least; how often."""
    rounds = 0
    while not rounds or time.perf_counter() < end:
        once()
        rounds += 1
    return rounds


@contextlib.contextmanager
def many_descriptors():
    """As many open files as this process may have, and those that it starts."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2**16 if hard == resource.RLIM_INFINITY else min(hard, 2**16)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft if soft == resource.RLIM_INFINITY else max(soft, most), hard))
    try:
        yield most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connections(kind, loop, settings):
    """Bytes of the server for a connection that has been used once."""
    with contextlib.ExitStack() as stack:
        most = stack.enter_context(many_descriptors())
        count = min(round(4000 * max(settings.scale, 0.5)), most // 2)
        server = Server(loop, kind)
        stack.callback(server.end)

        def open_some(count):
            for _ in range(count):
                connection = stack.enter_context(connect(kind, server, ""))
                ask([connection], b"hello", [bytearray(5)])

        try:
            open_some(200)
            before = resident(server.process.pid)
            open_some(count)
            return (resident(server.process.pid) - before) / count
        except OSError as error:
            raise Failed(server.end() or f"{type(error).__name__}: {error}") from None


# The registry -----------------------------------------------------------------------------

ECHO = (
    ("protocol", 1, 1),
    ("protocol", 1, 16),
    ("protocol", 1, 256),
    ("protocol", 100, 16),
    ("buffered", 1, 16),
    ("streams", 1, 1),
    ("streams", 1, 16),
    ("streams", 1, 256),
    ("streams", 100, 16),
    ("sock", 1, 16),
    ("unix", 1, 16),
    ("udp", 1, 16),
    ("tls_protocol", 1, 16),
    ("tls_streams", 1, 16),
)


def registry():
    found = {name: functools.partial(program, name) for name in WORKLOADS}
    for kind, kilobytes, count in ECHO:
        found[f"io/{kind}_{kilobytes}k_x{count}"] = functools.partial(asked, kind, kilobytes * 1024, count)
    found["io/connect_protocol"] = functools.partial(asked, "protocol", 64, 16, reconnect=True)
    found["io/connect_streams"] = functools.partial(asked, "streams", 64, 16, reconnect=True)
    found["io/sendfile_4m"] = functools.partial(asked, "sendfile", 0, 1)
    for kind in ("aiohttp", "uvicorn"):
        found[f"http/{kind}"] = functools.partial(asked, kind, 0, 16)
    for name in ("tasks", "timers"):
        found[f"memory/{name}"] = functools.partial(idle, name)
    for kind in ("protocol", "streams"):
        found[f"memory/{kind}_connections"] = functools.partial(connections, kind)
    found["start/run"] = start
    order = ("scheduling", "primitives", "io", "http", "memory", "start")
    return {name: found[name] for name in sorted(found, key=lambda name: order.index(name.partition("/")[0]))}


def has_limit(name):
    """Whether the server in C answers the same client."""
    function = registry()[name]
    return getattr(function, "func", None) is asked and function.args[0] in IN_C


def needed_package(name):
    """The package that a workload is about, if it is about one."""
    return name.removeprefix("http/") if name.startswith("http/") else None
