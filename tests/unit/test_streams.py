"""StreamReader, StreamWriter and StreamReaderProtocol."""

import asyncio
import gc
import inspect
import socket
import subprocess
import sys
import weakref

import aioxide
import pytest


class Transport(asyncio.Transport):
    """Notes what a stream asks of it."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.closing = False

    def pause_reading(self):
        self.calls.append("pause")

    def resume_reading(self):
        self.calls.append("resume")

    def write(self, data):
        self.calls.append(bytes(data))

    def writelines(self, lines):
        self.calls.append([bytes(line) for line in lines])

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    def abort(self):
        self.calls.append("abort")


@pytest.fixture
def reader(aio, loop):
    return aio.StreamReader(limit=8, loop=loop)


def fed(aio, loop, *pieces, limit=2**16, eof=False):
    reader = aio.StreamReader(limit=limit, loop=loop)
    for piece in pieces:
        reader.feed_data(piece)
    if eof:
        reader.feed_eof()
    return reader


# --- reading -------------------------------------------------------------------------------------

SPLITS = [
    (b"one\ntwo\nthree",),
    (b"one\n", b"two\n", b"three"),
    (b"o", b"ne", b"\n", b"two", b"\nthree"),
    (b"one\ntwo", b"\nth", b"ree"),
]


@pytest.mark.parametrize("pieces", SPLITS)
def test_the_same_bytes_however_they_come(aio, loop, run, pieces):
    async def read():
        reader = fed(aio, loop, *pieces, eof=True)
        found = [await reader.readline(), await reader.readexactly(2), await reader.readuntil(b"t")]
        return [*found, await reader.read(), await reader.read(), await reader.readline(), reader.at_eof()]

    assert run(read()) == [b"one\n", b"tw", b"o\nt", b"hree", b"", b"", True]


@pytest.mark.parametrize("pieces", SPLITS)
def test_a_reader_that_waits_gets_them_too(aio, loop, run, pieces):
    async def read():
        reader = aio.StreamReader(loop=loop)

        async def feed():
            for piece in pieces:
                await aio.sleep(0)
                reader.feed_data(piece)
            reader.feed_eof()

        feeding = aio.create_task(feed())
        lines = [line async for line in reader]
        await feeding
        return lines

    assert run(read()) == [b"one\n", b"two\n", b"three"]


def test_read_takes_what_there_is(aio, loop, run):
    async def read():
        reader = fed(aio, loop, b"abcdef")
        return [await reader.read(0), await reader.read(2), await reader.read(100), reader.at_eof()]

    assert run(read()) == [b"", b"ab", b"cdef", False]


def test_a_piece_that_is_read_whole_is_not_copied():
    async def read():
        piece = bytes(1000)
        return await fed(aioxide, asyncio.get_running_loop(), piece).read(1000) is piece

    assert aioxide.run(read())


def test_all_up_to_the_end(aio, loop, run):
    async def read():
        reader = aio.StreamReader(limit=4, loop=loop)
        task = aio.create_task(reader.read())
        await aio.sleep(0)
        for piece in (b"first piece", b"second"):
            reader.feed_data(piece)
            await aio.sleep(0)
        assert not task.done()
        reader.feed_eof()
        return await task

    assert run(read()) == b"first piecesecond"


def test_what_was_read_before_a_cancellation_is_lost_by_read_all_alone(aio, loop, run):
    async def read():
        reader = aio.StreamReader(loop=loop)
        task = aio.create_task(reader.readexactly(10))
        await aio.sleep(0)
        reader.feed_data(b"12345")
        await aio.sleep(0)
        task.cancel()
        await aio.gather(task, return_exceptions=True)
        return await reader.read(100)

    assert run(read()) == b"12345"


def test_a_cancelled_read_that_was_woken_takes_nothing(aio, loop, run):
    async def read():
        reader = aio.StreamReader(loop=loop)
        task = aio.create_task(reader.read(10))
        await aio.sleep(0)
        reader.feed_data(b"12345")
        task.cancel()  # it was woken, but has not run
        await aio.gather(task, return_exceptions=True)
        return task.cancelled(), await reader.read(10)

    assert run(read()) == (True, b"12345")


@pytest.mark.parametrize("method", ["read", "readline", "readuntil", "readexactly"])
def test_one_reader_at_a_time(aio, loop, run, method):
    async def read():
        reader = aio.StreamReader(loop=loop)
        argument = {"read": (5,), "readexactly": (5,)}.get(method, ())
        first = aio.create_task(reader.read(10))
        await aio.sleep(0)
        with pytest.raises(RuntimeError, match="already waiting for incoming data"):
            await getattr(reader, method)(*argument)
        reader.feed_data(b"x")
        return await first

    assert run(read()) == b"x"


@pytest.mark.parametrize(
    ("method", "argument", "error"),
    [
        ("readexactly", -1, ValueError),
        ("readuntil", b"", ValueError),
        ("read", "x", TypeError),
        ("readexactly", "x", TypeError),
        ("readuntil", 5, TypeError),
    ],
)
def test_bad_arguments(aio, loop, run, method, argument, error):
    async def read():
        with pytest.raises(error):
            await getattr(fed(aio, loop, b"abc"), method)(argument)

    run(read())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio has tuples of separators since 3.13")
def test_the_nearest_of_several_separators(aio, loop, run):
    check_several_separators(aio, loop, run)


def test_several_separators_on_every_python():
    loop = aioxide.new_event_loop()
    check_several_separators(aioxide, loop, loop.run_until_complete)
    loop.close()


def check_several_separators(aio, loop, run):
    async def read():
        reader = fed(aio, loop, b"key=value; more", b"; rest\r\n", eof=True)
        found = [await reader.readuntil((b"\r\n", b";", b"=")) for _ in range(4)]
        with pytest.raises(ValueError, match="at least one element"):
            await reader.readuntil(())
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readuntil((b"x", b"yy"))
        return found

    assert run(read()) == [b"key=", b"value;", b" more;", b" rest\r\n"]


def test_too_long(aio, loop, run):
    async def read():
        reader = fed(aio, loop, b"0123456789\nab\n", limit=8)
        with pytest.raises(asyncio.LimitOverrunError) as found:
            await reader.readuntil()
        assert (found.value.consumed, str(found.value)) == (10, "Separator is found, but chunk is longer than limit")
        with pytest.raises(ValueError, match="Separator is found, but chunk is longer than limit"):
            await reader.readline()
        assert await reader.readline() == b"ab\n"
        reader.feed_data(b"0123456789")
        with pytest.raises(asyncio.LimitOverrunError) as found:
            await reader.readuntil()
        assert (found.value.consumed, str(found.value)) == (10, "Separator is not found, and chunk exceed the limit")
        with pytest.raises(ValueError, match="Separator is not found"):
            await reader.readline()
        reader.feed_eof()
        return await reader.read()

    assert run(read()) == b""


def test_too_little(aio, loop, run):
    async def read():
        reader = fed(aio, loop, b"abc", eof=True)
        with pytest.raises(asyncio.IncompleteReadError) as found:
            await reader.readexactly(5)
        assert (found.value.partial, found.value.expected) == (b"abc", 5)
        with pytest.raises(asyncio.IncompleteReadError) as found:
            await reader.readuntil(b"x")
        assert (found.value.partial, found.value.expected) == (b"", None)
        return await reader.readline()

    assert run(read()) == b""


def test_an_exception_for_every_reader(aio, loop, run):
    async def read():
        reader = aio.StreamReader(loop=loop)
        waiting = aio.create_task(reader.readline())
        await aio.sleep(0)
        error = OSError("gone")
        reader.set_exception(error)
        assert await aio.gather(waiting, return_exceptions=True) == [error]
        reader.feed_data(b"abc\n")
        for method, argument in [("read", 1), ("readexactly", 1), ("readuntil", b"\n")]:
            with pytest.raises(OSError, match="gone"):
                await getattr(reader, method)(argument)
        return reader.exception() is error

    assert run(read())


def test_nothing_after_the_end(aio, loop):
    reader = fed(aio, loop, eof=True)
    with pytest.raises(AssertionError, match="feed_data after feed_eof"):
        reader.feed_data(b"x")


@pytest.mark.parametrize("data", [bytearray(b"abc"), memoryview(b"abc"), b"abc"])
def test_what_can_be_fed(aio, loop, run, data):
    assert run(fed(aio, loop, data, b"", eof=True).read()) == b"abc"


@pytest.mark.parametrize("limit", [0, -1])
def test_bad_limits(aio, loop, limit):
    with pytest.raises(ValueError, match="Limit cannot be <= 0"):
        aio.StreamReader(limit, loop)


# --- flow control --------------------------------------------------------------------------------


def test_twice_the_limit_pauses_the_transport(reader, run):
    transport = Transport()
    reader.set_transport(transport)

    async def read():
        reader.feed_data(bytes(16))
        assert transport.calls == []
        reader.feed_data(b"x")
        assert transport.calls == ["pause"]
        await reader.readexactly(8)
        assert transport.calls == ["pause"]
        await reader.readexactly(1)
        assert transport.calls == ["pause", "resume"]

    run(read())


def test_one_piece_beyond_the_limit_pauses_too(reader, run):
    transport = Transport()
    reader.set_transport(transport)
    reader.feed_data(bytes(17))
    assert transport.calls == ["pause"]
    assert run(reader.read(100)) == bytes(17)
    assert transport.calls == ["pause", "resume"]


def test_who_waits_for_more_than_the_limit_gets_it(aio, reader, run):
    transport = Transport()
    reader.set_transport(transport)

    async def read():
        reader.feed_data(bytes(17))
        task = aio.create_task(reader.readexactly(20))
        await aio.sleep(0)
        assert transport.calls == ["pause", "resume"]
        reader.feed_data(bytes(3))
        return await task

    assert run(read()) == bytes(20)


def test_a_transport_that_cannot_pause(reader):
    class Stubborn(Transport):
        def pause_reading(self):
            raise NotImplementedError

    reader.set_transport(Stubborn())
    reader.feed_data(bytes(20))
    reader.feed_data(bytes(20))
    assert (reader._transport, reader._paused, len(reader._buffer)) == (None, False, 40)


def test_drain_waits_until_writing_may_go_on(aio, loop, run):
    async def drain():
        reader = aio.StreamReader(loop=loop)
        protocol = aio.StreamReaderProtocol(reader, loop=loop)
        writer = aio.StreamWriter(Transport(), protocol, reader, loop)
        await writer.drain()
        protocol.pause_writing()
        waiting = [aio.create_task(writer.drain()) for _ in range(3)]
        await aio.sleep(0)
        waiting[1].cancel()
        await aio.sleep(0)
        assert [task.done() for task in waiting] == [False, True, False]
        assert len(protocol._drain_waiters) == 2
        protocol.resume_writing()
        await aio.gather(waiting[0], waiting[2])
        assert len(protocol._drain_waiters) == 0
        with pytest.raises(AssertionError):
            protocol.resume_writing()
        writer.close()

    run(drain())


@pytest.mark.parametrize("error", [None, OSError("gone")])
def test_drain_ends_with_the_connection(aio, loop, run, error):
    async def drain():
        reader = aio.StreamReader(loop=loop)
        protocol = aio.StreamReaderProtocol(reader, loop=loop)
        writer = aio.StreamWriter(Transport(), protocol, reader, loop)
        protocol.pause_writing()
        waiting, closed = aio.create_task(writer.drain()), aio.create_task(writer.wait_closed())
        await aio.sleep(0)
        protocol.connection_lost(error)
        assert await aio.gather(waiting, closed, return_exceptions=True) == [error, error]
        with pytest.raises(OSError, match="gone" if error else "Connection lost"):
            await writer.drain()
        writer.close()
        return await aio.gather(writer.wait_closed(), return_exceptions=True)

    assert run(drain()) == [error]


def test_drain_gives_a_closing_transport_its_turn(aio, loop, run):
    async def drain():
        reader = aio.StreamReader(loop=loop)
        protocol = aio.StreamReaderProtocol(reader, loop=loop)
        transport = Transport()
        writer = aio.StreamWriter(transport, protocol, reader, loop)
        transport.closing = True
        loop.call_soon(protocol.connection_lost, None)
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            await writer.drain()

    run(drain())


def test_a_writer_of_another_protocol(aio, loop, run):
    class Protocol(asyncio.Protocol):
        async def _drain_helper(self):
            await aio.sleep(0)
            drained.append(self)

        def _get_close_waiter(self, stream):
            return aio.sleep(0, stream)

    async def use():
        protocol, transport = Protocol(), Transport()
        writer = aio.StreamWriter(transport, protocol, None, loop)
        writer.write(b"abc")
        writer.write(data=bytearray(b"def"))
        writer.writelines([b"g", b"h"])
        await writer.drain()
        assert drained == [protocol]
        assert transport.calls == [b"abc", b"def", [b"g", b"h"]]
        writer.close()
        assert writer.is_closing()
        await writer.wait_closed()

    drained = []
    run(use())


# --- the private side, which libraries use -------------------------------------------------------


def test_the_buffer_can_be_looked_at_and_changed(aio, loop, run):
    async def read():
        reader = fed(aio, loop, b"abcdef")
        assert (reader._buffer, bool(reader._buffer), len(reader._buffer)) == (b"abcdef", True, 6)
        del reader._buffer[:2]
        assert await reader.read(2) == b"cd"
        kept = reader._buffer
        reader.feed_data(b"ghi")
        assert kept == b"efghi"
        kept.extend(b"jk")
        assert await reader.readexactly(6) == b"efghij"
        assert kept == b"k"
        del kept
        reader._buffer.clear()
        reader.feed_eof()
        assert reader.at_eof()
        return await reader.read()

    assert run(read()) == b""


def test_attributes_can_be_set(aio, loop):
    reader = aio.StreamReader(loop=loop)
    assert (reader._limit, reader._eof, reader._waiter, reader._loop) == (2**16, False, None, loop)
    assert (reader._exception, reader._transport, reader._paused) == (None, None, False)
    reader._limit, reader._eof = 10, True
    assert (reader._limit, reader.at_eof()) == (10, True)
    reader.note = "own"
    assert reader.__dict__ == {"note": "own"} or "note" in reader.__dict__


def test_waiting_for_data_only(aio, loop, run):
    async def wait():
        reader = aio.StreamReader(loop=loop)
        waiting = aio.create_task(reader._wait_for_data("test"))
        await aio.sleep(0)
        assert isinstance(reader._waiter, asyncio.Future)
        reader.feed_data(b"x")
        assert reader._waiter is None
        return await waiting, await reader.read(1)

    assert run(wait()) == (None, b"x")


def test_reprs(aio, loop):
    reader = fed(aio, loop, b"abc", limit=10, eof=True)
    reader.set_exception(OSError("x"))
    assert repr(reader) == "<StreamReader 3 bytes eof limit=10 exception=OSError('x')>"
    transport = Transport()
    writer = aio.StreamWriter(transport, None, reader, loop)
    assert repr(writer) == f"<StreamWriter transport={transport!r} reader={reader!r}>"
    assert writer.transport is transport
    writer.close()


def test_coroutines_look_like_coroutines(aio, loop):
    reader = aio.StreamReader(loop=loop)
    writer = aio.StreamWriter(Transport(), aio.StreamReaderProtocol(reader, loop=loop), reader, loop)
    coroutines = [reader.read(), reader.readline(), reader.readexactly(1), writer.drain(), writer.wait_closed()]
    for coroutine in coroutines:
        assert asyncio.iscoroutine(coroutine)
        assert inspect.iscoroutine(coroutine) or aio is aioxide
    assert [c.__qualname__ for c in coroutines[:4]] == [
        "StreamReader.read",
        "StreamReader.readline",
        "StreamReader.readexactly",
        "StreamWriter.drain",
    ]
    for coroutine in coroutines:
        coroutine.close()
    writer.close()


def test_a_read_that_nobody_awaits_is_told(aio, loop):
    reader = aio.StreamReader(loop=loop)
    with pytest.warns(RuntimeWarning, match="coroutine 'StreamReader.read' was never awaited"):
        reader.read()
        gc.collect()


def test_subclasses(aio, loop, run):
    class Reader(aio.StreamReader):
        def __init__(self, name):
            super().__init__(limit=100, loop=loop)
            self.name = name
            self.fed = []

        def feed_data(self, data):
            self.fed.append(data)
            super().feed_data(data.upper())

    class Protocol(aio.StreamReaderProtocol):
        def connection_made(self, transport):
            made.append(transport)
            super().connection_made(transport)

    async def use():
        one, other = socket.socketpair()
        reader = Reader("mine")
        protocol = Protocol(reader, loop=loop)
        transport, _ = await loop.create_connection(lambda: protocol, sock=one)
        writer = aio.StreamWriter(transport, protocol, reader, loop)
        other.send(b"line\n")
        assert await reader.readline() == b"LINE\n"
        assert (reader.fed, made) == ([b"line\n"], [transport])
        writer.close()
        await writer.wait_closed()
        other.close()

    made = []
    run(use())


def test_a_method_put_on_a_protocol_is_called(aio, loop, run):
    async def use():
        one, other = socket.socketpair()
        reader = aio.StreamReader(loop=loop)
        protocol = aio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_connection(lambda: protocol, sock=one)
        received = loop.create_future()
        protocol.data_received = received.set_result
        other.send(b"abc")
        assert await received == b"abc"
        assert reader._buffer == b""
        transport.close()
        await aio.sleep(0)
        other.close()

    run(use())


def test_a_protocol_does_not_keep_its_reader(aio, loop):
    reader = aio.StreamReader(loop=loop)
    protocol = aio.StreamReaderProtocol(reader, loop=loop)
    assert protocol._stream_reader is reader
    gone = weakref.ref(reader)
    del reader
    gc.collect()
    assert (gone(), protocol._stream_reader) == (None, None)
    protocol.data_received(b"nobody reads this")
    assert protocol.eof_received() is True
    protocol.connection_lost(None)


def test_isinstance_of_protocol(aio, loop):
    reader = aio.StreamReader(loop=loop)
    protocol = aio.StreamReaderProtocol(reader, loop=loop)
    assert isinstance(protocol, asyncio.Protocol)
    assert issubclass(aio.StreamReaderProtocol, asyncio.BaseProtocol)


def test_installed_mixin(installed):
    assert issubclass(asyncio.StreamReaderProtocol, asyncio.streams.FlowControlMixin)
    assert asyncio.streams.StreamReader is aioxide.StreamReader


HIDDEN = """
import socket, sys, aioxide

async def main():
    async def serve(reader, writer):
        writer.write(await reader.readexactly(3))
        writer.close()
    server = await aioxide.start_server(serve, "127.0.0.1", 0)
    reader, writer = await aioxide.open_connection(*server.sockets[0].getsockname())
    writer.write(b"abc")
    try:
        await reader.readexactly(4)
    except Exception as error:
        print(type(error).__name__, error.partial)
    writer.close()
    server.close()
    loop = aioxide.get_running_loop()
    one, two = socket.socketpair()
    with two:
        await loop.create_connection(type("Any", (), {
            "connection_made": lambda self, transport: transport.close(), "connection_lost": print,
        }), sock=one)
        await loop.run_in_executor(None, int)

with aioxide.Runner() as runner:
    sys.modules["asyncio"] = None  # not to be imported
    runner.run(main())
"""


def test_a_program_that_hides_asyncio():
    done = subprocess.run([sys.executable, "-c", HIDDEN], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("IncompleteReadError b'abc'"), done.stderr
    assert (done.returncode, done.stderr) == (0, "")
