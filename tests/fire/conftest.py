"""Under fire: bytes arrive once, in order, at their owner, whatever peers and cancellations do.

Each test runs on CPython's asyncio first, so that a wrong expectation shows there, then with aioxide installed. The
sizes are small unless FIRE=full, which `make fire` sets.
"""

import asyncio
import contextlib
import gc
import os

import aioxide
import pytest

FULL = os.environ.get("FIRE") == "full"


def size(small, full):
    """How much of something a test does."""
    return full if FULL else small


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def resident_bytes(pid="self"):
    """What the process has in memory."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(params=["stock", "aioxide"])
def fire(request):
    """Runs a coroutine function: no descriptor is left, and nothing reaches the exception handler, or `hear` does."""
    if request.param == "stock" and FULL:
        pytest.skip("at full size for aioxide alone")
    factory = asyncio.SelectorEventLoop if request.param == "stock" else aioxide.new_event_loop

    def run(main, hear=None):
        reports = []
        hear = hear or reports.append

        async def watched():
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: hear(context))
            await main()
            assert await asyncio.sleep(0, "alive") == "alive"

        gc.collect()
        before = open_descriptors()
        with contextlib.ExitStack() as stack:
            if request.param == "aioxide":
                stack.enter_context(aioxide.install())
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(watched())
        gc.collect()
        assert open_descriptors() == before
        assert reports == []

    run.on = request.param
    return run
