"""`loop.sendfile` and `sock_sendfile`: the right part of the file, its position after, and every way to fail."""

import asyncio
import io
import os
import socket
import tempfile
import types

import filters
import pytest

DATA = os.urandom(3_000_000)


@pytest.fixture
def file():
    with tempfile.TemporaryFile() as file:
        file.write(DATA)
        file.flush()
        yield file


class Sink(asyncio.Protocol):
    """Collects what comes; may be slow."""

    def __init__(self, loop):
        self.data, self.lost = bytearray(), loop.create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data

    def connection_lost(self, exc):
        self.lost.set_result(exc)


class Source(asyncio.Protocol):
    """The protocol of the transport that the file goes through."""

    def __init__(self, loop):
        self.calls, self.data, self.lost = [], bytearray(), loop.create_future()

    def data_received(self, data):
        self.data += data

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.lost.set_result(exc)


@pytest.fixture(params=["unix", "tcp"])
def pair(request):
    """Makes two connected sockets: large files go another way over TCP to this machine than else."""

    def make():
        if request.param == "unix":
            return socket.socketpair()
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            one = socket.create_connection(server.getsockname())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            return one, server.accept()[0]

    return make


async def connected(loop, pair):
    """A transport with its protocol, and the sink at the other end."""
    one, two = pair()
    transport, source = await loop.create_connection(lambda: Source(loop), sock=one)
    _, sink = await loop.connect_accepted_socket(lambda: Sink(loop), two)
    return transport, source, sink


async def stalled(loop, pair, file, *numbers):
    """The same, and a file on its way to the sink, which does not read yet."""
    transport, source, sink = await connected(loop, pair)
    sink.transport.pause_reading()
    sending = asyncio.ensure_future(loop.sendfile(transport, file, *numbers))
    await asyncio.sleep(0.05)
    return transport, source, sink, sending


def part(offset, count):
    return DATA[offset:] if count is None else DATA[offset : offset + count]


PARTS = [(0, None), (5, None), (1_000_000, 1_000_000), (0, 1), (2_999_999, 100), (3_000_000, None), (4_000_000, 5)]


class NoFile(io.BytesIO):
    """Has no descriptor: native sendfile is out of the question."""


@pytest.mark.stock_since((3, 13))
@pytest.mark.parametrize(("offset", "count"), PARTS)
@pytest.mark.parametrize("how", ["native", "by hand"])
def test_a_part_through_a_transport(loop, run, pair, file, offset, count, how):
    source_file = file if how == "native" else NoFile(DATA)

    async def main():
        transport, source, sink = await connected(loop, pair)
        transport.write(b"before")
        source_file.seek(7)
        sent = await loop.sendfile(transport, source_file, offset, count, fallback=how != "native")
        expected = part(offset, count)
        assert sent == len(expected)
        if sent:
            assert source_file.tell() == offset + sent
        transport.write(b"after")
        assert transport.get_protocol() is source
        assert transport.is_reading()
        sink.transport.write(b"answer")
        transport.write_eof()
        await sink.lost
        assert sink.data == b"before" + expected + b"after"
        await source.lost
        assert source.data == b"answer"

    run(main(), 30)


@pytest.mark.parametrize(("offset", "count"), PARTS)
@pytest.mark.parametrize("how", ["native", "by hand"])
def test_a_part_through_a_socket(loop, run, pair, file, offset, count, how):
    source_file = file if how == "native" else NoFile(DATA)

    async def main():
        one, two = pair()
        with one, two:
            one.setblocking(False)
            _, sink = await loop.connect_accepted_socket(lambda: Sink(loop), two)
            sent = await loop.sock_sendfile(one, source_file, offset, count, fallback=how != "native")
            assert sent == len(part(offset, count))
            if sent:
                assert source_file.tell() == offset + sent
            one.close()
            await sink.lost
            assert sink.data == part(offset, count)

    run(main(), 30)


def test_not_available(loop, run, pair):
    async def main():
        transport, source, sink = await connected(loop, pair)
        with pytest.raises(asyncio.SendfileNotAvailableError, match="not a regular file"):
            await loop.sendfile(transport, NoFile(DATA), fallback=False)
        transport.write(b"goes on")
        transport.close()
        await sink.lost
        assert sink.data == b"goes on"
        await source.lost
        with pytest.raises(RuntimeError, match="Transport is closing"):
            await loop.sendfile(transport, NoFile(DATA))
        with pytest.raises(RuntimeError, match="sendfile is not supported for transport"):
            await loop.sendfile(types.SimpleNamespace(is_closing=lambda: False), NoFile(DATA))

    run(main())


@pytest.mark.parametrize(
    ("offset", "count", "error", "text"),
    [
        (0, 0, ValueError, r"count must be a positive integer \(got 0\)"),
        (0, -1, ValueError, r"count must be a positive integer \(got -1\)"),
        (0, 1.0, TypeError, r"count must be a positive integer \(got 1.0\)"),
        (-1, None, ValueError, r"offset must be a non-negative integer \(got -1\)"),
        (1.0, None, TypeError, r"offset must be a non-negative integer \(got 1.0\)"),
    ],
)
def test_bad_numbers(loop, run, file, offset, count, error, text):
    async def main():
        one, two = socket.socketpair()
        with one, two:
            one.setblocking(False)
            with pytest.raises(error, match=text):
                await loop.sock_sendfile(one, file, offset, count)

    run(main())


def test_bad_files_and_sockets(loop, run, file):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
            with pytest.raises(ValueError, match="only SOCK_STREAM type sockets are supported"):
                await loop.sock_sendfile(datagram, file)
        one, two = socket.socketpair()
        with one, two, tempfile.NamedTemporaryFile("w") as text:
            one.setblocking(False)
            with pytest.raises(ValueError, match="file should be opened in binary mode"):
                await loop.sock_sendfile(one, text)
            one.setblocking(True)
            loop.set_debug(True)
            with pytest.raises(ValueError, match="the socket must be non-blocking"):
                await loop.sock_sendfile(one, file)
            loop.set_debug(False)

    run(main())


def test_nobody_may_write_meanwhile(loop, run, pair, file):
    async def main():
        transport, source, sink, sending = await stalled(loop, pair, file)
        with pytest.raises(RuntimeError, match="sendfile is in progress"):
            transport.write(b"x")
        assert not transport.is_reading()
        sink.transport.resume_reading()
        assert await sending == len(DATA)
        transport.close()
        await sink.lost
        assert sink.data == DATA

    run(main(), 30)


@pytest.mark.parametrize("how", ["native", "by hand"])
def test_cancelled_in_the_middle(aio, loop, run, pair, file, how):
    if aio is asyncio:
        pytest.skip("its file position, and its bytes when sent by hand, are wrong then")
    source_file = file if how == "native" else NoFile(DATA)

    async def main():
        transport, source, sink, sending = await stalled(loop, pair, source_file)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert transport.get_protocol() is source and transport.is_reading()
        assert 0 < source_file.tell() < len(DATA)
        sink.transport.resume_reading()
        transport.write(b"end")
        transport.close()
        await sink.lost
        assert sink.data.endswith(b"end")
        assert DATA.startswith(sink.data[:-3])
        if how == "native":
            assert source_file.tell() == len(sink.data) - 3

    run(main(), 30)


@pytest.mark.parametrize("how", ["native", "by hand"])
def test_the_peer_goes_away(loop, run, pair, file, how):
    source_file = file if how == "native" else NoFile(DATA)

    async def main():
        transport, source, sink, sending = await stalled(loop, pair, source_file)
        sink.transport.abort()
        with pytest.raises(ConnectionError):
            await sending
        transport.close()
        await source.lost

    run(main(), 30)


def test_closed_in_the_middle(aio, loop, run, pair, file):
    if aio is asyncio:
        pytest.skip("its sendfile waits for ever")

    async def main():
        transport, source, sink, sending = await stalled(loop, pair, file)
        transport.close()
        with pytest.raises(ConnectionError):
            await sending
        assert await source.lost is None
        sink.transport.resume_reading()
        await sink.lost
        assert file.tell() == len(sink.data)

    run(main(), 30)


def test_others_have_their_turn(loop, run, pair, file):
    """A reader as fast as the file does not starve the rest."""

    async def main():
        transport, source, sink = await connected(loop, pair)
        turns = 0

        async def others():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        await loop.sendfile(transport, file)
        task.cancel()
        assert turns > 10
        transport.close()
        await sink.lost

    run(main(), 30)


@pytest.mark.parametrize(("pair", "copied"), [("unix", False), ("tcp", True)], indirect=["pair"])
def test_who_has_the_pages(aio, loop, run, pair, file, copied):
    """What has been copied stays as it was; with sendfile(2) the peer sees the file's own pages."""
    if aio is asyncio:
        pytest.skip("it never copies")

    async def main():
        transport, source, sink, sending = await stalled(loop, pair, file)
        os.pwrite(file.fileno(), b"changed", 0)
        sink.transport.resume_reading()
        await sending
        transport.close()
        await sink.lost
        assert sink.data[:7] == (DATA[:7] if copied else b"changed")
        assert sink.data[7:] == DATA[7:]

    run(main(), 30)


@pytest.mark.parametrize("length", [0, 5000, 2_000_000])
def test_a_file_that_gets_shorter(loop, run, pair, file, length):
    """It ends where it ends then, even if more was asked for."""

    async def main():
        transport, source, sink, sending = await stalled(loop, pair, file, 0, len(DATA))
        file.truncate(length)
        sink.transport.resume_reading()
        sent = await sending
        assert length <= sent < len(DATA)
        transport.close()
        await sink.lost
        assert len(sink.data) == sent
        assert sink.data[:length] == DATA[:length]

    run(main(), 30)


HELD_UP = """
import asyncio, fcntl, os, socket, struct, sys, tempfile, threading, aioxide, filters

SYSCALL, CALLS = int(sys.argv[1]), []
installed = threading.Event()

def answer():
    # Another thread lets the calls pass, in Python: it has to get the interpreter's lock meanwhile.
    installed.wait()
    while True:
        call = bytearray(80)
        fcntl.ioctl(listener, 0xC0502100, call)  # SECCOMP_IOCTL_NOTIF_RECV
        CALLS.append(call)
        fcntl.ioctl(listener, 0xC0182101, call[:8] + struct.pack("<qiI", 0, 0, 1))  # NOTIF_SEND: go on

async def main():
    one, two = socket.socketpair() if SYSCALL == 40 else tcp()
    reader, writer = await asyncio.open_connection(sock=one)
    global listener
    listener = filters.held_up(SYSCALL)
    installed.set()
    data = os.urandom(1_000_000)
    received = asyncio.create_task(asyncio.to_thread(receive, two, len(data)))
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        await asyncio.get_running_loop().sendfile(writer.transport, file)
    assert await received == data
    assert CALLS
    print("done", flush=True)
    os._exit(0)

def tcp():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.create_connection(server.getsockname()), server.accept()[0]

def receive(sock, count):
    data = bytearray()
    while len(data) < count:
        data += sock.recv(65536)
    return data

threading.Thread(target=answer, daemon=True).start()
aioxide.run(main())
"""


@pytest.mark.parametrize("call", [40, 44], ids=["sendfile", "mapped"])
def test_other_threads_run_while_the_file_is_read(call):
    filters.run(HELD_UP, call)
