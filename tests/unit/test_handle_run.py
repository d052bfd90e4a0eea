"""What programs put in the place of `Handle._run`, to measure what runs.  Every test runs on asyncio's own first."""

import asyncio
import contextlib
import gc
import socket
import weakref

import pytest

pytestmark = pytest.mark.usefixtures("in_place")


@pytest.fixture
def seen(monkeypatch):
    """The handles that were run, as they show themselves: what monitors of slow callbacks do."""
    handles, run = [], asyncio.Handle._run

    def watched(self):
        handles.append(repr(self))
        return run(self)

    monkeypatch.setattr(asyncio.Handle, "_run", watched)
    return handles


@pytest.fixture
def loop():
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        yield loop


def test_each_callback_is_seen(loop, seen):
    def callback(*args):
        called.append(args)

    async def task():
        loop.call_soon(callback, 1)
        loop.call_later(0.001, callback, 2)
        loop.call_soon_threadsafe(callback, 3)
        loop.call_soon(callback, 4).cancel()
        future = loop.create_future()
        future.add_done_callback(callback)
        loop.call_soon(future.set_result, 5)
        await future
        await asyncio.sleep(0.005)
        return "done"

    called = []
    assert loop.run_until_complete(task()) == "done"
    assert [args[0] for args in called if isinstance(args[0], int)] == [1, 3, 2]
    assert len(called) == 4
    assert sum("locals>.callback" in one for one in seen) == 4
    assert sum("test_each_callback_is_seen.<locals>.task()" in one or "Task" in one for one in seen) >= 3


def test_until_it_is_put_back(loop, seen, monkeypatch):
    loop.run_until_complete(asyncio.sleep(0))
    assert seen
    monkeypatch.undo()
    seen.clear()
    loop.run_until_complete(asyncio.sleep(0.001))
    assert seen == []


def test_put_there_while_it_runs(loop, monkeypatch):
    seen, run = [], asyncio.Handle._run

    async def main():
        await asyncio.sleep(0)
        monkeypatch.setattr(asyncio.events.TimerHandle, "_run", lambda self: (seen.append(self.when()), run(self)))
        await asyncio.sleep(0)
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, 1)
        return await future

    assert loop.run_until_complete(main()) == 1
    assert len(seen) == 1


def test_errors_of_callbacks(loop, seen):
    def fail():
        raise ValueError("mine")

    def leave():
        raise SystemExit(3)

    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    loop.call_soon(fail)
    loop.run_until_complete(asyncio.sleep(0))
    assert [str(context["exception"]) for context in contexts] == ["mine"]
    loop.call_soon(leave)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert loop.run_until_complete(asyncio.sleep(0, "goes on")) == "goes on"


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_errors_of_what_is_there(loop, monkeypatch, kind):
    """A monitor that fails ends the run, and is not asked about the rest."""

    def broken(self):
        raise kind

    monkeypatch.setattr(asyncio.Handle, "_run", broken)
    loop.call_soon(print)
    with pytest.raises(kind):
        loop.run_forever()
    monkeypatch.undo()
    assert loop.run_until_complete(asyncio.sleep(0, "goes on")) == "goes on"


def test_what_the_world_brings(loop, seen):
    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        async with asyncio.timeout(5):
            for _ in range(10):
                writer.write(b"x" * 300_000)
                assert len(await reader.readexactly(300_000)) == 300_000
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await reader.read(1)
        writer.close()
        await writer.wait_closed()
        server.close()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.sendall(b"y")
        assert await loop.sock_recv(ours, 1) == b"y"
        ours.close()
        theirs.close()
        return await asyncio.to_thread(int, "3")

    assert loop.run_until_complete(main()) == 3
    assert sum("_read_ready" in one for one in seen) >= 10
    assert any("connection_made" in one for one in seen)


def test_debug_mode(loop, seen):
    loop.set_debug(True)
    assert loop.run_until_complete(asyncio.sleep(0.001, "done")) == "done"
    assert seen


def test_what_waits_is_shown(loop):
    """As tests do that turn the clock on: all that is due is run by hand."""
    called = []

    async def sleeps():
        await asyncio.sleep(100)
        called.append("slept")

    async def gives_up():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(300):
                await loop.create_future()
        called.append("gave up")

    async def main():
        tasks = [asyncio.create_task(sleeps()), asyncio.create_task(gives_up())]
        handle = loop.call_later(200, called.append, "called")
        loop.call_later(150, called.append, "cancelled").cancel()
        assert len(loop._ready) >= 2
        await asyncio.sleep(0)
        assert handle in loop._scheduled
        waiting = sorted(timer for timer in loop._scheduled if not timer.cancelled())
        assert [round(timer.when() - loop.time()) for timer in waiting] == [100, 200, 300]
        assert loop._scheduled[0].when() == waiting[0].when()
        for timer in waiting:
            assert isinstance(timer, asyncio.TimerHandle)
            timer._run()
            timer.cancel()
        await asyncio.wait(tasks, timeout=1)

    loop.run_until_complete(main())
    assert called == ["called", "slept", "gave up"]


def test_a_loop_that_is_done_has_nothing(loop):
    loop.call_soon(print)
    assert loop._ready
    while loop._ready or loop._scheduled:
        loop._run_once()
    assert not loop._ready
    assert not loop._scheduled


def test_what_other_threads_leave_is_ready(loop):
    handle = loop.call_soon_threadsafe(print)
    assert handle in loop._ready
    handle.cancel()


def test_what_is_shown_is_collected():
    async def main(loop):
        task = asyncio.create_task(asyncio.sleep(100))
        await asyncio.sleep(0)
        loop.kept = list(loop._scheduled)
        assert "_set_result_unless_cancelled" in repr(loop.kept[0])
        task.cancel()

    def go():
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main(loop))
        loop.close()
        return weakref.ref(loop)

    loop = go()
    gc.collect()
    assert loop() is None
