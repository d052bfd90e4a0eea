"""Peers that reset, half-close, stall, dribble, and talk nonsense."""

import asyncio
import contextlib
import os
import random
import socket
import struct

import pytest

from .conftest import size


@pytest.fixture(params=["streams", "protocol"])
def serving(request):
    """An echo server that remembers how each connection ended."""

    @contextlib.asynccontextmanager
    async def serve():
        endings = []

        async def handle(reader, writer):
            try:
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
                writer.write_eof()
                endings.append("eof")
            except OSError as error:
                endings.append(type(error).__name__)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def data_received(self, data):
                self.transport.write(data)

            def connection_lost(self, exc):
                endings.append(type(exc).__name__ if exc else "eof")

        if request.param == "streams":
            server = await asyncio.start_server(handle, "127.0.0.1", 0)
        else:
            server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname(), endings

    return serve


async def ended(endings, count):
    async with asyncio.timeout(20):
        while len(endings) < count:
            await asyncio.sleep(0.01)
    return endings


def test_reset(fire, serving):
    """The server is told that the connection is gone, each time, and goes on."""
    times = size(50, 2000)

    async def main():
        loop = asyncio.get_running_loop()
        async with serving() as (address, endings):
            for number in range(times):
                with socket.socket() as peer:
                    peer.setblocking(False)
                    await loop.sock_connect(peer, address)
                    await loop.sock_sendall(peer, b"x" * (1 + number % 3000))
                    if number % 2:
                        await loop.sock_recv(peer, 1)
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert len(await ended(endings, times)) == times
            assert set(endings) <= {"ConnectionResetError", "BrokenPipeError", "eof"}
            assert "ConnectionResetError" in endings

    fire(main)


def test_half_close(fire, serving):
    """A peer that has said all it has to say still gets all its answers."""
    payload = random.Random(1).randbytes(size(1 << 20, 1 << 26))

    async def main():
        async with serving() as (address, endings):
            reader, writer = await asyncio.open_connection(*address)

            async def send():
                for start in range(0, len(payload), 50_000):
                    writer.write(payload[start : start + 50_000])
                    await writer.drain()
                writer.write_eof()

            async with asyncio.timeout(60):
                _, echoed = await asyncio.gather(send(), reader.read())
            assert echoed == payload
            writer.close()
            await writer.wait_closed()
            assert await ended(endings, 1) == ["eof"]

    fire(main)


def test_one_byte_at_a_time(fire):
    """What is read as records arrives as records, however it was cut."""
    records = [os.urandom(random.Random(n).randrange(1, 60)) for n in range(size(100, 3000))]

    async def main():
        got, rest = [], []
        done = asyncio.Event()

        async def handle(reader, writer):
            while True:
                try:
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                except asyncio.IncompleteReadError as error:
                    rest.append(error.partial)
                    break
                got.append(await reader.readexactly(length))
            writer.close()
            await writer.wait_closed()
            done.set()

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            with socket.socket() as peer:
                peer.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(peer, server.sockets[0].getsockname())
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for record in records:
                    for byte in struct.pack("!H", len(record)) + record:
                        await loop.sock_sendall(peer, bytes([byte]))
            await asyncio.wait_for(done.wait(), 20)
        assert got == records
        assert rest == [b""]

    fire(main)


def test_stalled_peer_is_given_up(fire):
    """A peer that says nothing is timed out, and its connection is closed."""

    async def main():
        outcomes = []

        async def handle(reader, writer):
            try:
                await asyncio.wait_for(reader.readexactly(100), 0.05)
            except TimeoutError:
                outcomes.append("timed out")
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            connections = [await asyncio.open_connection(*server.sockets[0].getsockname()) for _ in range(20)]
            for _, writer in connections:
                writer.write(b"half of it")
            for reader, writer in connections:
                # What the server hasn't read when it closes makes its kernel reset the connection.
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.wait_for(reader.read(), 10) == b""
                writer.close()
                with contextlib.suppress(ConnectionResetError):
                    await writer.wait_closed()
        assert outcomes == ["timed out"] * 20

    fire(main)


def test_peer_gone_while_much_is_unsent(fire):
    """What could not be sent is dropped, drain says so, and nothing is left of it."""

    async def main():
        outcome = asyncio.get_running_loop().create_future()

        async def handle(reader, writer):
            try:
                while True:
                    writer.write(bytes(1 << 20))
                    await writer.drain()
            except OSError as error:
                outcome.set_result(error)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            with socket.socket() as peer:
                peer.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(peer, server.sockets[0].getsockname())
                await loop.sock_recv(peer, 100_000)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert isinstance(await asyncio.wait_for(outcome, 10), ConnectionError)

    fire(main)
