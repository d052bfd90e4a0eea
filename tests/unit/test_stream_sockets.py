"""Streams over sockets: what servers and connections do with them."""

import asyncio
import gc
import os
import socket
import sys
import warnings

import aioxide
import pytest


async def echo(reader, writer):
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize("size", [1, 1000, 100_000, 3_000_000])
def test_echo(aio, run, size):
    async def use():
        server = await aio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(*server.sockets[0].getsockname(), limit=1000)
        data = os.urandom(size)
        writing = aio.create_task(write(writer, data))
        assert await reader.readexactly(size) == data
        await writing
        assert writer.can_write_eof()
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    async def write(writer, data):
        writer.write(data)
        await writer.drain()

    run(use(), 60)


def test_many_connections_get_their_own_bytes(aio, run):
    async def one(number, address):
        reader, writer = await aio.open_connection(*address)
        for turn in range(20):
            line = b"%d %d\n" % (number, turn)
            writer.write(line)
            assert await reader.readline() == line
        writer.close()
        await writer.wait_closed()

    async def use():
        server = await aio.start_server(echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        await aio.gather(*(one(number, address) for number in range(50)))
        server.close()
        await server.wait_closed()

    run(use(), 60)


@pytest.mark.stock_since((3, 14))
def test_a_handler_that_fails_is_reported_and_its_connection_closed(aio, loop, run):
    async def handle(reader, writer):
        raise ZeroDivisionError

    def plain(reader, writer):
        raise ZeroDivisionError

    async def use():
        for handler in (handle, plain):
            server = await aio.start_server(handler, "127.0.0.1", 0)
            reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()

    reports = []
    loop.set_exception_handler(lambda _, report: reports.append(report))
    run(use())
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError] * 2
    assert {report["message"] for report in reports} == {"Unhandled exception in client_connected_cb"}


def test_a_reset_reaches_reader_and_writer(aio, run):
    async def use():
        listener = socket.create_server(("127.0.0.1", 0))
        reader, writer = await aio.open_connection(*listener.getsockname())
        peer, _ = listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        peer.close()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionResetError):
            await writer.drain()
        writer.close()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()
        listener.close()

    run(use())


def test_a_slow_reader_holds_a_fast_writer(aio, run):
    async def flood(reader, writer):
        nonlocal written
        while written < total:
            writer.write(bytes(2**16))
            await writer.drain()
            written += 2**16
        writer.close()

    async def use():
        server = await aio.start_server(flood, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(*server.sockets[0].getsockname(), limit=2**12)
        await aio.sleep(0.2)
        assert written < total
        assert len(reader._buffer) <= 2**19
        received = 0
        while data := await reader.read(2**20):
            received += len(data)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return received

    written, total = 0, 64 * 2**20
    assert run(use(), 60) == total


def test_unknown_and_missing_arguments(aio, run):
    async def use():
        with pytest.raises(TypeError):
            await aio.open_connection("127.0.0.1", 1, wrong=True)
        with pytest.raises(TypeError):
            await aio.open_connection("127.0.0.1", 1, None)
        with pytest.raises(TypeError):
            await aio.start_server()
        with pytest.raises(TypeError):
            await aio.start_server(echo, client_connected_cb=echo)
        with pytest.raises(ValueError, match="Limit"):
            await aio.open_connection("127.0.0.1", 1, limit=0)

    run(use())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio warns since 3.13")
def test_a_forgotten_writer_is_closed_with_a_warning(aio, run):
    check_forgotten_writer(aio, run)


def test_a_forgotten_writer_is_told_on_every_python():
    check_forgotten_writer(aioxide, aioxide.run)


def check_forgotten_writer(aio, run):
    async def use():
        server = await aio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
        transport = writer.transport
        with pytest.warns(ResourceWarning, match="unclosed <StreamWriter"):
            del writer
            gc.collect()
        assert transport.is_closing()
        del reader
        server.close()
        await server.wait_closed()

    run(use())


def test_streams_on_a_loop_of_cpython():
    async def use():
        server = await aioxide.start_server(echo, "127.0.0.1", 0)
        reader, writer = await aioxide.open_connection(*server.sockets[0].getsockname())
        writer.write(b"line\n")
        await writer.drain()
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        server.close()
        return line

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            assert runner.run(use()) == b"line\n"


# --- what an accepted connection tells -----------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_extra_info_of_an_accepted_connection(aio, run, host):
    async def handle(reader, writer):
        transport = writer.transport
        sock = writer.get_extra_info("socket")
        assert isinstance(sock, asyncio.trsock.TransportSocket)
        assert sock.getpeername() == writer.get_extra_info("peername")
        assert sock.getsockname() == writer.get_extra_info("sockname")
        assert (sock.fileno(), sock.type, sock.gettimeout()) == (transport._sock_fd, socket.SOCK_STREAM, 0)
        assert writer.get_extra_info("nothing", "default") == "default"
        told.append(writer.get_extra_info("peername"))
        writer.close()
        await writer.wait_closed()
        assert sock.fileno() == -1

    async def use():
        server = await aio.start_server(handle, host, 0)
        reader, writer = await aio.open_connection(*server.sockets[0].getsockname()[:2])
        assert await reader.read() == b""
        assert told == [writer.get_extra_info("sockname")]
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    told = []
    run(use())


def test_extra_info_after_the_end(aio, run):
    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def connection_lost(self, exc):
            asyncio.get_running_loop().call_soon(lost.set_result, self.transport)

    async def use():
        nonlocal lost
        lost = asyncio.get_running_loop().create_future()
        server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        reader, writer = await aio.open_connection(*address)
        name = writer.get_extra_info("sockname")
        writer.close()
        await writer.wait_closed()
        transport = await lost
        assert (transport.get_extra_info("peername"), transport.get_extra_info("sockname")) == (name, address)
        assert transport.get_extra_info("socket").fileno() == -1
        server.close()
        await server.wait_closed()

    lost = None
    run(use())


def test_an_accepted_connection_leaves_no_descriptor(aio, run):
    async def use(ask):
        async def handle(reader, writer):
            if ask:
                writer.get_extra_info("socket")
            writer.close()

        server = await aio.start_server(handle, "127.0.0.1", 0)
        for _ in range(20):
            reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(use(True))
    before = len(os.listdir("/proc/self/fd"))
    run(use(False))
    run(use(True))
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("method", ["connection_made", "connection_lost"])
def test_a_protocol_that_fails_when_it_is_told(aio, loop, run, method):
    """The loop reports it as it does what any callback raised, and goes on."""

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            if method == "connection_made":
                raise ZeroDivisionError

        def connection_lost(self, exc):
            ended.set()
            if method == "connection_lost":
                raise ZeroDivisionError

    async def use():
        nonlocal ended
        ended = aio.Event()
        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
        writer.close()
        await ended.wait()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    ended, reports = None, []
    loop.set_exception_handler(lambda _, report: reports.append(report))
    run(use())
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
    assert reports[0]["message"].startswith("Exception in callback ")
    assert method in reports[0]["message"]
