"""to_process and to_interpreter: results, errors and cancellation across the border."""

import asyncio
import concurrent.futures
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import time

import aioxide
import pytest
from aioxide import _pools


def die():
    os._exit(3)


# Other interpreters import by their own path, so what is run there is the standard library's.
POOLS = ["to_process"] + (["to_interpreter"] if sys.version_info >= (3, 14) else [])


@pytest.fixture(scope="module", autouse=True)
def no_interpreters_are_left():
    """CPython's fork fails while there are some."""
    yield
    if sys.version_info >= (3, 14):
        _pools._interpreter_pool.shutdown()


@pytest.fixture(params=POOLS)
def to_pool(request):
    return getattr(aioxide, request.param)


def test_results_and_errors_come_back(to_pool, run):
    async def main():
        assert await to_pool(math.factorial, 5) == 120
        assert await to_pool(json.dumps, {"a": 1}, indent=None, separators=(",", ":")) == '{"a":1}'
        with pytest.raises(ValueError, match="Expecting value"):
            await to_pool(json.loads, "nothing")
        with pytest.raises(TypeError):
            await to_pool(math.factorial)
        many = await asyncio.gather(*[to_pool(math.factorial, n) for n in range(20)])
        assert many == [math.factorial(n) for n in range(20)]

    run(main(), 60)


def test_another_process(run):
    async def main():
        assert await aioxide.to_process(os.getpid) != os.getpid()

    run(main(), 60)


def test_nothing_is_said_at_the_end_of_a_program(to_pool):
    source = f"import aioxide, math\nprint(aioxide.run(aioxide.{to_pool.__name__}(math.factorial, 5)))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "120\n", "")


def test_the_loop_goes_on_meanwhile(to_pool, run):
    async def main():
        await to_pool(math.factorial, 1)  # started by now
        turns = 0
        task = asyncio.ensure_future(to_pool(time.sleep, 0.2))
        while not task.done():
            await asyncio.sleep(0.005)
            turns += 1
        assert turns > 5

    run(main(), 60)


def test_what_has_not_begun_is_taken_back(to_pool, run, tmp_path):
    target = tmp_path / "copies"
    target.mkdir()
    (tmp_path / "source").write_text("x")
    workers = os.cpu_count() or 1

    async def main():
        await to_pool(math.factorial, 1)
        blockers = [asyncio.ensure_future(to_pool(time.sleep, 0.5)) for _ in range(3 * workers + 2)]
        await asyncio.sleep(0.05)
        copies = [
            asyncio.ensure_future(to_pool(shutil.copy, str(tmp_path / "source"), str(target / str(n))))
            for n in range(9)
        ]
        await asyncio.sleep(0)
        for task in copies:
            task.cancel()
        outcomes = await asyncio.gather(*copies, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        await asyncio.gather(*blockers)
        assert await to_pool(math.factorial, 5) == 120
        assert len(list(target.iterdir())) < 9

    run(main(), 60)


def test_a_process_that_dies_is_told_and_replaced(run):
    async def main():
        with pytest.raises(concurrent.futures.BrokenExecutor):
            await aioxide.to_process(die)
        assert await aioxide.to_process(math.factorial, 5) == 120

    run(main(), 60)


def test_what_cannot_be_sent(run):
    async def main():
        with pytest.raises((pickle.PicklingError, AttributeError), match=r"pickle|get local object"):
            await aioxide.to_process(lambda: 1)
        assert await aioxide.to_process(math.factorial, 5) == 120

    run(main(), 60)
