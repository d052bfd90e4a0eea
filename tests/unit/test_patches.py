"""Tests and instruments that put something else into asyncio's classes and objects."""

import asyncio
from unittest.mock import AsyncMock, MagicMock, patch

import aioxide
import pytest

pytestmark = pytest.mark.usefixtures("in_place")


def run(main):
    return asyncio.run(asyncio.wait_for(main, 10))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("Lock", "acquire"),
        ("Event", "wait"),
        ("Condition", "wait"),
        ("Semaphore", "acquire"),
        ("BoundedSemaphore", "acquire"),
        ("Barrier", "wait"),
        ("Queue", "get"),
        ("PriorityQueue", "put"),
        ("StreamReader", "read"),
        ("StreamReader", "readuntil"),
        ("TaskGroup", "__aenter__"),
    ],
)
def test_a_method_of_a_class(name, method):
    cls = getattr(asyncio, name)
    before = getattr(cls, method)
    with patch(f"asyncio.{name}.{method}", AsyncMock(return_value="mock")):
        made = cls.__new__(cls)
        assert run(getattr(made, method)()) == "mock"
    assert getattr(cls, method) is before


def test_instruments_of_groups():
    """As OpenTelemetry's does it."""
    made = []
    original = asyncio.TaskGroup.create_task

    def create_task(self, coro, **kwargs):
        made.append(coro.__name__)
        return original(self, coro, **kwargs)

    async def work():
        pass

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(work())

    with patch.object(asyncio.TaskGroup, "create_task", create_task):
        run(main())
    assert made == ["work"]
    run(main())


def test_async_with_calls_what_is_there():
    acquire, release = AsyncMock(return_value=True), MagicMock()

    async def main():
        lock, semaphore, condition = asyncio.Lock(), asyncio.Semaphore(0), asyncio.Condition()
        with patch.object(asyncio.Lock, "acquire", acquire), patch.object(asyncio.Lock, "release", release):
            async with lock:
                pass
            async with asyncio.Condition():
                pass
        with patch.object(semaphore, "acquire", acquire), patch.object(semaphore, "release", release):
            async with semaphore:
                pass
        with patch.object(condition, "acquire", acquire), patch.object(condition, "release", release):
            async with condition:
                pass
        async with lock, condition:
            pass

    run(main())
    assert (acquire.await_count, release.call_count) == (4, 4)


def test_methods_that_build_on_others():
    async def main():
        reader = asyncio.StreamReader()
        with patch.object(reader, "readuntil", AsyncMock(return_value=b"one\n")):
            assert await reader.readline() == b"one\n"
        with patch.object(asyncio.StreamReader, "readuntil", AsyncMock(side_effect=[b"two\n", b""])):
            assert [line async for line in reader] == [b"two\n"]
        reader.feed_data(b"three\n")
        assert await reader.readline() == b"three\n"
        queue = asyncio.Queue()
        with patch.object(asyncio.Queue, "empty", return_value=False):
            with patch.object(asyncio.Queue, "get_nowait", return_value="mock"):
                assert await queue.get() == "mock"
        queue.put_nowait("item")
        assert await queue.get() == "item"
        with patch.object(asyncio.TaskGroup, "_abort", MagicMock()) as abort:
            with pytest.raises(ExceptionGroup):
                await in_a_group(fails())
        assert abort.call_count == 2

    async def fails():
        raise ValueError

    async def in_a_group(coro):
        async with asyncio.TaskGroup() as group:
            group.create_task(coro)
            await asyncio.sleep(1)

    run(main())


def test_protocols_and_servers():
    received = asyncio.StreamReaderProtocol.data_received

    def data_received(self, data):
        received(self, data.upper())

    async def main():
        async def serve(reader, writer):
            writer.write(b"line\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        with patch.object(asyncio.StreamReaderProtocol, "data_received", data_received):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.readline() == b"LINE\n"
        writer.close()
        await writer.wait_closed()
        with patch.object(type(server), "close", MagicMock()) as close:
            server.close()
        assert close.call_count == 1
        server.close()
        await server.wait_closed()

    run(main())


def test_functions_and_loops():
    async def main():
        with patch("asyncio.sleep", AsyncMock(return_value="mock")):
            assert await asyncio.sleep(100) == "mock"
        loop = asyncio.get_running_loop()
        with patch.object(loop, "run_in_executor", AsyncMock(return_value="mock")):
            assert await loop.run_in_executor(None, print) == "mock"
        with patch.object(loop, "time", return_value=42):
            assert loop.time() == 42

    run(main())


@pytest.mark.parametrize("name", ["Event", "Lock", "Queue", "Task", "Future", "StreamWriter", "Server", "TaskGroup"])
def test_mocks_of_a_class(name):
    assert isinstance(MagicMock(spec=getattr(asyncio, name)), getattr(asyncio, name))


def test_the_fast_way_is_there_again():
    """What `async with` awaits tells which way was taken: that for a lock, or that for whatever has `acquire`."""

    def taken():
        entering = aioxide.Lock().__aenter__()
        entering.close()
        return entering.__qualname__

    fast = taken()
    with patch.object(aioxide.Lock, "acquire", AsyncMock()):
        assert taken() != fast
    assert taken() == fast
    aioxide.Lock.another = "attribute"
    assert taken() == fast
    del aioxide.Lock.another
    assert taken() == fast == "Lock.__aenter__"


def test_mocks_know_what_is_awaited():
    writer = AsyncMock(spec=asyncio.StreamWriter)
    assert isinstance(writer.drain, AsyncMock)
    assert not isinstance(writer.write, AsyncMock)
    assert isinstance(MagicMock(spec=asyncio.Event).wait, AsyncMock)
