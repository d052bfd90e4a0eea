"""Fixtures: most tests run on CPython's asyncio first, so that a wrong expectation shows there."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys

import aioxide
import pytest
from children import children, open_descriptors
from recorder import tcp_pair
from traces import File, run as run_traced


@pytest.fixture(scope="module", autouse=True)
def garbage_collector():
    """Many tests run it: it need not look at thousands of tests and all that they left in pytest each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=["stock", "aioxide"])
def aio(request):
    """asyncio, by CPython and by aioxide."""
    since = request.node.get_closest_marker("stock_since")
    if request.param == "stock" and since and sys.version_info < since.args[0]:
        pytest.skip(f"CPython's own does so since {'.'.join(map(str, since.args[0]))}")
    return asyncio if request.param == "stock" else aioxide


@pytest.fixture(params=["stock", "aioxide"])
def in_place(request):
    """asyncio's names are CPython's, and then ours."""
    with contextlib.nullcontext() if request.param == "stock" else aioxide.install():
        yield


@pytest.fixture
def new_loop(aio):
    return asyncio.SelectorEventLoop if aio is asyncio else aioxide.new_event_loop


@pytest.fixture
def loop(new_loop):
    """An event loop that must be left without loose ends."""
    loop = new_loop()
    yield loop
    loop.close()
    gc.collect()


@pytest.fixture
def run(loop, aio):
    """Runs a coroutine in `loop`, for as long as a test may take."""

    def run(coroutine, seconds=10):
        async def limited():
            async with asyncio.timeout(seconds):
                return await coroutine

        return loop.run_until_complete(limited())

    return run


@pytest.fixture
def installed():
    with aioxide.install():
        yield


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """Where processes that can be looked at have their sockets."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "aioxide"


@pytest.fixture
def record(tmp_path):
    """Runs a coroutine function and returns the trace of it."""

    def go(main, **options):
        path = tmp_path / "trace.json"
        with aioxide.trace(path, **options):
            run_traced(main())
        return File(path)

    return go


@pytest.fixture(params=["tcp", "unix"])
def pair(request):
    """Two connected stream sockets: for a transport of ours, and for a peer that need not be one."""
    ours, theirs = tcp_pair() if request.param == "tcp" else socket.socketpair()
    theirs.settimeout(10)
    with theirs:
        yield ours, theirs
    ours.close()


@pytest.fixture
def nothing_is_left(request):
    """No child process and no descriptor outlives the test."""
    gc.collect()
    before = open_descriptors()
    yield
    gc.collect()
    left = children()
    for pid in left:  # not to be found by the next test too
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    if "stock" not in request.node.name:  # which loses a child or its pidfd here and there
        assert not left
        assert open_descriptors() == before


def open_files():
    return len(os.listdir("/proc/self/fd"))


@contextlib.asynccontextmanager
async def left_clean():
    """Waits at the end until every connection that was made meanwhile is gone."""
    before = open_files()
    yield
    for _ in range(300):
        if open_files() <= before:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("connections are left open")


@pytest.fixture
def run_clean(run):
    """As `run`, and no connection may be left open."""

    def run_clean(coroutine, seconds=10):
        async def clean():
            async with left_clean():
                await coroutine

        run(clean(), seconds)

    return run_clean
