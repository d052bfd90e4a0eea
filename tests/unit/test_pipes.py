"""Pipe transports: every byte, flow control, both ends of a life, and what is refused."""

import asyncio
import contextvars
import errno
import gc
import os
import pty
import socket
import tempfile
import tty

import pytest


class Recorder(asyncio.Protocol):
    """Writes down what it is told."""

    def __init__(self, loop):
        self.calls = []
        self.data = bytearray()
        self.lost = loop.create_future()
        self.paused = loop.create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data):
        assert type(data) is bytes
        self.data += data

    def eof_received(self):
        self.calls.append("eof")

    def pause_writing(self):
        self.calls.append("pause")
        if not self.paused.done():
            self.paused.set_result(None)

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.calls.append("lost")
        self.lost.set_result(exc)


async def until(condition, seconds=5):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


async def reading(loop, file):
    return await loop.connect_read_pipe(lambda: Recorder(loop), file)


async def writing(loop, file):
    return await loop.connect_write_pipe(lambda: Recorder(loop), file)


@pytest.fixture
def pipe():
    """Both ends of a pipe, as files."""
    ends = [open(fd, mode, 0) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True)]
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def reported(loop):
    """What reaches the exception handler."""
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))
    return contexts


def test_a_megabyte_goes_through_with_flow_control(loop, run, pipe):
    data = os.urandom(1 << 20)

    async def main():
        source, reader = await reading(loop, pipe[0])
        sink, writer = await writing(loop, pipe[1])
        assert isinstance(source, asyncio.ReadTransport) and isinstance(sink, asyncio.WriteTransport)
        assert source.get_extra_info("pipe") is pipe[0] and sink.get_extra_info("pipe") is pipe[1]
        assert source.get_extra_info("nothing", 7) == 7
        assert sink.can_write_eof()
        sink.write(data)
        assert sink.get_write_buffer_size() > 0
        assert writer.calls == ["made", "pause"]
        sink.write_eof()
        assert sink.is_closing()
        sink.write(b"lost")
        assert await reader.lost is None and await writer.lost is None
        assert reader.calls == ["made", "eof", "lost"]
        assert writer.calls == ["made", "pause", "resume", "lost"]
        assert reader.data == data
        assert pipe[0].closed and pipe[1].closed
        assert source.is_closing() and sink.is_closing()

    run(main())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_may_be_written(loop, run, pipe, kind):
    async def main():
        _, reader = await reading(loop, pipe[0])
        sink, _ = await writing(loop, pipe[1])
        sink.write(kind(b"abc"))
        sink.write(kind(b""))
        sink.writelines([b"d", b"e"])
        for wrong in ("text", 1, None, [b"x"]):
            with pytest.raises(AssertionError):
                sink.write(wrong)
        sink.close()
        await reader.lost
        assert reader.data == b"abcde"

    run(main())


def test_a_buffer_that_changes_after_the_write(loop, run, pipe):
    async def main():
        sink, _ = await writing(loop, pipe[1])
        filled = bytearray(b"x" * (1 << 20))
        sink.write(filled)
        assert sink.get_write_buffer_size()
        filled[:] = b"y" * len(filled)
        later = bytearray(b"z" * 10)
        sink.write(later)
        later[:] = b"y" * 10
        sink.close()
        _, reader = await reading(loop, pipe[0])
        await reader.lost
        assert reader.data == b"x" * (1 << 20) + b"z" * 10

    run(main())


def test_pause_and_resume_reading(loop, run, pipe):
    async def main():
        source, reader = await reading(loop, pipe[0])
        assert source.is_reading()
        source.pause_reading()
        source.pause_reading()
        assert not source.is_reading()
        os.write(pipe[1].fileno(), b"abc")
        await asyncio.sleep(0.02)
        assert not reader.data
        source.resume_reading()
        source.resume_reading()
        await until(lambda: reader.data == b"abc")
        source.close()
        assert not source.is_reading()
        source.resume_reading()
        source.close()
        assert await reader.lost is None
        assert reader.calls == ["made", "lost"]

    run(main())


def test_paused_before_reading_began(loop, run, pipe):
    class Shy(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async def main():
        os.write(pipe[1].fileno(), b"abc")
        source, reader = await loop.connect_read_pipe(lambda: Shy(loop), pipe[0])
        await asyncio.sleep(0.02)
        assert not reader.data
        source.resume_reading()
        await until(lambda: reader.data == b"abc")
        source.close()
        await reader.lost

    run(main())


def test_the_writer_hears_that_the_reader_is_gone(loop, run, pipe):
    async def main():
        sink, writer = await writing(loop, pipe[1])
        pipe[0].close()
        assert await writer.lost is None
        assert writer.calls == ["made", "lost"]
        assert sink.is_closing()
        sink.write(b"into the void")
        sink.close()
        sink.write_eof()

    run(main())


def test_unsent_bytes_when_the_reader_goes(loop, run, pipe):
    async def main():
        sink, writer = await writing(loop, pipe[1])
        sink.write(b"x" * (1 << 20))
        pipe[0].close()
        assert type(await writer.lost) is BrokenPipeError
        assert sink.get_write_buffer_size() == 0

    run(main())


def test_abort_throws_unsent_bytes_away(loop, run, pipe):
    async def main():
        sink, writer = await writing(loop, pipe[1])
        sink.write(b"x" * (1 << 20))
        sink.abort()
        assert sink.get_write_buffer_size() == 0
        assert await writer.lost is None
        assert len(os.read(pipe[0].fileno(), 1 << 21)) < 1 << 20

    run(main())


def test_abort_while_closing(loop, run, pipe):
    async def main():
        sink, writer = await writing(loop, pipe[1])
        sink.write(b"x" * (1 << 20))
        sink.close()
        await asyncio.sleep(0)
        assert not writer.lost.done()
        sink.abort()
        assert await writer.lost is None
        assert writer.calls == ["made", "pause", "lost"]

    run(main())


def test_limits(loop, run, pipe):
    async def main():
        sink, writer = await writing(loop, pipe[1])
        assert sink.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        sink.set_write_buffer_limits(high=10, low=5)
        assert sink.get_write_buffer_limits() == (5, 10)
        with pytest.raises(ValueError, match="must be >= low"):
            sink.set_write_buffer_limits(high=1, low=2)
        sink.write(b"x" * 70_000)
        assert sink.get_write_buffer_size() > 0
        await writer.paused
        sink.abort()
        await writer.lost

    run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # stock's, half made
@pytest.mark.parametrize("end", ["read", "write"])
def test_a_regular_file_is_refused(loop, run, end):
    connect = reading if end == "read" else writing

    async def main():
        with tempfile.TemporaryFile() as file, pytest.raises(ValueError, match=r"Pipe transport is (for|only)"):
            await connect(loop, file)
        with pytest.raises(OSError, match="Bad file"):
            await connect(loop, Closed())
        with pytest.raises(AttributeError):
            await connect(loop, object())

    class Closed:
        def fileno(self):
            return 1_000_000

    run(main())


def test_a_device_that_cannot_be_watched(loop, run, reported):
    async def main():
        file = open("/dev/null", "wb", 0)
        sink, writer = await writing(loop, file)
        sink.write(b"x" * (1 << 20))
        assert sink.get_write_buffer_size() == 0
        sink.close()
        assert await writer.lost is None
        file = open("/dev/null", "rb", 0)
        source, reader = await reading(loop, file)
        await asyncio.sleep(0)
        assert [type(context["exception"]) for context in reported] == [PermissionError]
        source.close()
        await reader.lost

    run(main())


def test_a_terminal(loop, run):
    async def main():
        ours, theirs = pty.openpty()
        tty.setraw(theirs)
        source, reader = await reading(loop, open(ours, "rb", 0))
        sink, writer = await writing(loop, open(theirs, "wb", 0))
        sink.write(b"typed")
        await until(lambda: reader.data == b"typed")
        sink.close()
        await writer.lost
        lost = await reader.lost  # Linux says EIO when the other side hangs up
        assert lost is None or lost.errno == errno.EIO
        assert source.is_closing()

    run(main())


def test_sockets(loop, run):
    async def main():
        one, two = socket.socketpair()
        source, reader = await reading(loop, one)
        sink, writer = await writing(loop, two)
        sink.write(b"abc")
        sink.write_eof()
        assert await writer.lost is None
        assert await reader.lost is None
        assert (reader.data, reader.calls) == (b"abc", ["made", "eof", "lost"])
        one, two = socket.socketpair()
        sink, writer = await writing(loop, one)
        two.close()
        await writer.lost
        assert source.is_closing() and sink.is_closing()

    run(main())


def test_a_protocol_that_fails(loop, run, pipe, reported):
    class Broken(Recorder):
        def data_received(self, data):
            raise ZeroDivisionError

    async def main():
        source, reader = await loop.connect_read_pipe(lambda: Broken(loop), pipe[0])
        os.write(pipe[1].fileno(), b"abc")
        await until(lambda: reported)
        assert type(reported[0]["exception"]) is ZeroDivisionError
        source.close()
        await reader.lost

    run(main())


def test_set_protocol(loop, run, pipe):
    async def main():
        source, first = await reading(loop, pipe[0])
        second = Recorder(loop)
        assert source.get_protocol() is first
        source.set_protocol(second)
        assert source.get_protocol() is second
        os.write(pipe[1].fileno(), b"abc")
        await until(lambda: second.data)
        source.close()
        await second.lost
        assert (first.data, second.data) == (b"", b"abc")

    run(main())


def test_callbacks_run_in_the_context_of_the_making(loop, run, pipe):
    place = contextvars.ContextVar("place", default="outside")
    seen = []

    class Curious(Recorder):
        def connection_made(self, transport):
            seen.append(place.get())

        def data_received(self, data):
            seen.append(place.get())

        def connection_lost(self, exc):
            seen.append(place.get())
            super().connection_lost(exc)

    async def make():
        place.set("inside")
        return await loop.connect_read_pipe(lambda: Curious(loop), pipe[0])

    async def main():
        _, reader = await loop.create_task(make())
        os.write(pipe[1].fileno(), b"abc")
        await until(lambda: len(seen) == 2)
        pipe[1].close()
        await reader.lost
        assert seen == ["inside"] * 3

    run(main())


@pytest.mark.parametrize("end", ["read", "write"])
def test_cancelled_while_it_connects(loop, run, pipe, end):
    async def main():
        before = len(os.listdir("/proc/self/fd"))
        connect, file = (reading, pipe[0]) if end == "read" else (writing, pipe[1])
        task = loop.create_task(connect(loop, file))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: file.closed)
        assert len(os.listdir("/proc/self/fd")) == before - 1

    run(main())


@pytest.mark.parametrize("end", ["read", "write"])
def test_a_forgotten_transport_says_so(loop, run, pipe, end):
    async def main():
        connect, file = (reading, pipe[0]) if end == "read" else (writing, open("/dev/ptmx", "wb", 0))
        transport, protocol = await connect(loop, file)
        if end == "read":
            transport.pause_reading()
        protocol.transport = None
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            del transport, protocol
            gc.collect()
        assert file.closed

    run(main())


def test_reprs(loop, run, pipe):
    async def main():
        source, reader = await reading(loop, pipe[0])
        sink, writer = await writing(loop, pipe[1])
        assert repr(source).endswith(f" fd={pipe[0].fileno()} polling>")
        assert repr(sink).endswith(f" fd={pipe[1].fileno()} idle bufsize=0>")
        fd = pipe[1].fileno()
        sink.write(b"x" * (1 << 20))
        assert f" fd={fd} polling bufsize=" in repr(sink)
        sink.close()
        assert f" closing fd={fd} " in repr(sink)
        await reader.lost
        await writer.lost
        assert f" closed fd={fd} closed>" in repr(sink)
        assert source._pipe is sink._pipe is None
        assert isinstance(source._fileno, int)

    run(main())


def test_the_descriptor_is_the_transports(pipe):
    """Beyond asyncio, which lets `add_reader` take a pipe away from its transport."""
    import aioxide

    loop = aioxide.new_event_loop()

    async def main():
        source, reader = await reading(loop, pipe[0])
        for call in (loop.add_reader, loop.add_writer):
            with pytest.raises(RuntimeError, match="is used by transport"):
                call(pipe[0], print)
        source.close()
        await reader.lost

    loop.run_until_complete(main())
    loop.close()


def test_wakes_no_more_than_it_must(loop, run, pipe):
    """A write end that nobody reads from costs no turns."""

    async def main():
        sink, writer = await writing(loop, pipe[1])
        sink.write(b"x" * (1 << 20))
        await asyncio.sleep(0.01)
        before = os.times()
        await asyncio.sleep(0.3)
        after = os.times()
        assert after.user + after.system - before.user - before.system < 0.15
        sink.abort()
        await writer.lost

    run(main())
