"""Work in other threads, names to resolve among it, and the end of the default executor."""

import asyncio
import concurrent.futures
import logging
import socket
import sys
import threading
import time

import pytest


@pytest.fixture(autouse=True)
def threads_end(loop):
    yield
    if not loop.is_closed():
        loop.run_until_complete(loop.shutdown_default_executor())


def test_results_and_errors_come_back(run, loop):
    async def main():
        assert await loop.run_in_executor(None, max, 1, 2) == 2
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("asyncio_")
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 / 0)
        with concurrent.futures.ThreadPoolExecutor(1) as own:
            assert await loop.run_in_executor(own, max, 1, 2) == 2

    run(main())


def test_many_at_once(run, loop):
    async def main():
        results = await asyncio.gather(*(loop.run_in_executor(None, lambda n=n: n) for n in range(500)))
        assert results == list(range(500))

    run(main())


def test_cancelling_what_has_not_begun(run, loop):
    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as own:
            release = threading.Event()
            running = loop.run_in_executor(own, release.wait)
            ran = []
            waiting = loop.run_in_executor(own, ran.append, 1)
            waiting.cancel()
            await asyncio.sleep(0)
            release.set()
            assert await running is True
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert ran == []

    run(main())


def test_cancelling_what_has_begun_lets_it_end(run, loop):
    async def main():
        begun, release = threading.Event(), threading.Event()

        def work():
            begun.set()
            release.wait()

        future = loop.run_in_executor(None, work)
        while not begun.is_set():
            await asyncio.sleep(0.001)
        future.cancel()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await future
        await asyncio.sleep(0.02)
        assert future.cancelled()

    run(main())


def test_a_cancelled_source_cancels_the_wait(run, loop):
    class Executor(concurrent.futures.Executor):
        def submit(self, function, /, *args, **kwargs):
            future = concurrent.futures.Future()
            threading.Timer(0.01, future.cancel).start()
            return future

    async def main():
        with pytest.raises(asyncio.CancelledError):
            await loop.run_in_executor(Executor(), print)

    run(main())


def test_the_cancelled_error_of_the_work_is_an_error_of_ours(run, loop):
    def fail():
        raise concurrent.futures.InvalidStateError("odd")

    async def main():
        with pytest.raises(asyncio.InvalidStateError, match="odd"):
            await loop.run_in_executor(None, fail)

    run(main())


def test_an_executor_that_is_done_at_once(run, loop):
    class Executor(concurrent.futures.Executor):
        def submit(self, function, /, *args, **kwargs):
            future = concurrent.futures.Future()
            future.set_result(function(*args, **kwargs))
            return future

    async def main():
        future = loop.run_in_executor(Executor(), max, 1, 2)
        assert await future == 2

    run(main())


def test_an_executor_that_returns_something_else(loop):
    class Executor(concurrent.futures.Executor):
        def submit(self, function, /, *args, **kwargs):
            return 42

    with pytest.raises(AssertionError, match=r"concurrent\.futures\.Future is expected, got 42"):
        loop.run_in_executor(Executor(), print)


def test_a_loop_closed_before_the_result_comes(new_loop):
    loop = new_loop()
    release = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as own:
        future = loop.run_in_executor(own, release.wait)
        loop.close()
        release.set()
    assert not future.done()


def test_the_default_executor_must_be_threads(loop):
    for wrong in (None, 1, object(), concurrent.futures.Executor()):
        with pytest.raises(TypeError, match=r"^executor must be ThreadPoolExecutor instance$"):
            loop.set_default_executor(wrong)


def test_a_default_executor_of_ones_own(run, loop):
    own = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="own")
    loop.set_default_executor(own)

    async def main():
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("own")

    run(main())


def test_after_the_shutdown(run, loop):
    async def main():
        await loop.run_in_executor(None, print)
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match=r"^Executor shutdown has been called$"):
            loop.run_in_executor(None, print)

    run(main())


def test_the_shutdown_waits(run, loop):
    async def main():
        ended = []
        loop.run_in_executor(None, lambda: (time.sleep(0.05), ended.append(1)))
        await loop.shutdown_default_executor()
        assert ended == [1]

    run(main())


def test_the_shutdown_does_not_wait_for_ever(run, loop, aio):
    if aio is asyncio and sys.version_info < (3, 13):
        pytest.skip("this version of asyncio has no timeout, or warns in other words")
    release = threading.Event()

    async def main():
        loop.run_in_executor(None, release.wait)
        with pytest.warns(RuntimeWarning, match="did not finishing joining its threads within 0.05 seconds"):
            await loop.shutdown_default_executor(0.05)
        release.set()

    run(main())


def test_a_cancelled_shutdown(run, loop, aio):
    if aio is asyncio and sys.version_info < (3, 13):
        pytest.skip("this version of asyncio blocks the loop when its shutdown is cancelled")
    release = threading.Event()

    async def main():
        loop.run_in_executor(None, release.wait)
        task = asyncio.ensure_future(loop.shutdown_default_executor())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()

    run(main())


def test_names(run, loop):
    async def main():
        found = await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        assert found == socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        assert await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == (
            "127.0.0.1",
            "80",
        )
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("does.not.exist.invalid", 80)
        with pytest.raises(TypeError):
            await loop.getaddrinfo("127.0.0.1", 80, family="x")

    run(main())


def test_names_go_through_the_socket_module(run, loop, monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments: asked.append(arguments) or [])

    async def main():
        assert await loop.getaddrinfo("name", 80, family=1, type=2, proto=3, flags=4) == []

    run(main())
    assert asked == [("name", 80, 1, 2, 3, 4)]


def test_slow_names_are_logged_in_debug_mode(run, loop, caplog):
    caplog.set_level(logging.DEBUG, "asyncio")
    loop.set_debug(True)
    loop.slow_callback_duration = 0

    async def main():
        await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)

    run(main())
    assert any("Getting address info 127.0.0.1:80, type=" in record.message for record in caplog.records)
