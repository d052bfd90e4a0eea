"""`run` and `Runner`, the same on every Python: as the newest has them."""

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading

import aioxide
import pytest

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


async def answer(value=42):
    await asyncio.sleep(0)
    return value


def test_run_returns_the_result():
    assert aioxide.run(answer()) == 42


def test_run_takes_any_awaitable():
    class Awaitable:
        def __await__(self):
            return answer("awaited").__await__()

    assert aioxide.run(Awaitable()) == "awaited"
    with aioxide.Runner() as runner:
        future = runner.get_loop().create_future()
        runner.get_loop().call_soon(future.set_result, "future")
        assert runner.run(future) == "future"


@pytest.mark.parametrize("wrong", [1, None, "text", lambda: None, object()])
def test_run_refuses_what_cannot_be_awaited(wrong):
    with pytest.raises(TypeError, match="awaitable is required"):
        aioxide.run(wrong)


def test_run_takes_a_loop_factory():
    made = []

    def factory():
        made.append(asyncio.SelectorEventLoop())
        return made[0]

    async def running():
        return asyncio.get_running_loop()

    assert aioxide.run(running(), loop_factory=factory) is made[0]
    assert made[0].is_closed()


@pytest.mark.parametrize("debug", [None, False, True])
def test_run_sets_the_debug_mode(debug):
    async def mode():
        return asyncio.get_running_loop().get_debug()

    assert aioxide.run(mode(), debug=debug) is bool(debug)


def test_run_in_a_running_loop_is_refused():
    async def nested():
        coroutine = answer()
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            aioxide.run(coroutine)
        coroutine.close()

    aioxide.run(nested())


def test_run_cancels_what_is_left_and_closes_generators(caplog):
    ends = []

    async def generate():
        try:
            yield 1
        finally:
            ends.append("generator")

    async def linger():
        try:
            await asyncio.sleep(60)
        finally:
            ends.append("task")
            raise ValueError("on the way out")

    async def main():
        asyncio.get_running_loop().create_task(linger())
        async for _ in generate():
            break
        await asyncio.sleep(0)

    aioxide.run(main())
    assert sorted(ends) == ["generator", "task"]
    assert "unhandled exception during asyncio.run() shutdown" in caplog.text


def test_runner_keeps_one_loop_and_one_context():
    async def set_and_get(value):
        before = VARIABLE.get()
        VARIABLE.set(value)
        return before, asyncio.get_running_loop()

    with aioxide.Runner() as runner:
        first, loop = runner.run(set_and_get("one"))
        second, same = runner.run(set_and_get("two"))
        assert (first, second) == ("unset", "one")
        assert loop is same is runner.get_loop()
        own = contextvars.Context()
        assert runner.run(set_and_get("three"), context=own)[0] == "unset"
        assert own[VARIABLE] == "three"
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="Runner is closed"):
        runner.get_loop()
    runner.close()


def test_runner_is_one_of_asyncio_too():
    assert isinstance(aioxide.Runner(), asyncio.Runner)


def test_run_works_in_threads():
    results = []
    threads = [threading.Thread(target=lambda: results.append(aioxide.run(answer()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results == [42] * 4


def test_interrupt_cancels_the_main_task():
    seen = []

    async def main():
        asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt):
        aioxide.run(main())
    assert seen == ["cancelled"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_is_not_held_back():
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            loop.call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
            await asyncio.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        aioxide.run(main())


def test_interrupts_lose_no_callback():
    """What was ready when Ctrl-C came runs later, not never."""
    source = """
import aioxide, os, signal
loop = aioxide.new_event_loop()
ran = []
loop.call_soon(ran.append, 1)
loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
for number in range(2, 6):
    loop.call_soon(ran.append, number)
while len(ran) < 5:
    loop.call_soon(loop.stop)
    try:
        loop.run_forever()
    except KeyboardInterrupt:
        print("interrupted")
loop.close()
print(ran)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "interrupted\n[1, 2, 3, 4, 5]\n", done.stderr
