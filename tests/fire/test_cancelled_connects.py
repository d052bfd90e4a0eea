"""Connects that are cancelled at random moments, while their descriptors are used again at once.

What a connection receives must be its own: a descriptor that is closed by two owners delivers the answers of one
client to another one (uvloop #645).
"""

import asyncio
import contextlib
import random
import socket
import struct

import pytest

from .conftest import size

IDENTITY = struct.Struct("!Q")
ANSWER = 64  # times its identity


class Answering(asyncio.Protocol):
    """Answers each identity with many copies of it."""

    live = 0

    def __init__(self):
        self.received = b""

    def connection_made(self, transport):
        Answering.live += 1
        self.transport = transport
        # No TIME_WAIT: many more connections are made than there are ports.
        no_linger(transport)

    def data_received(self, data):
        self.received += data
        if len(self.received) == IDENTITY.size:
            self.transport.write(self.received * ANSWER)

    def connection_lost(self, exc):
        Answering.live -= 1


class Asking(asyncio.Protocol):
    """Says who it is, and collects what it is answered."""

    def __init__(self, identity):
        self.word = IDENTITY.pack(identity)
        self.done = asyncio.get_running_loop().create_future()
        self.received = bytearray()

    def connection_made(self, transport):
        no_linger(transport)
        transport.write(self.word)

    def data_received(self, data):
        self.received += data
        assert (self.word * ANSWER).startswith(self.received), "somebody else's bytes"
        if len(self.received) == IDENTITY.size * ANSWER and not self.done.done():
            self.done.set_result(bytes(self.received))

    def connection_lost(self, exc):
        if not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("closed"))
            self.done.exception()


def no_linger(transport):
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def one(identity, address, options):
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(lambda: Asking(identity), *address, **options)
    try:
        assert await protocol.done == protocol.word * ANSWER
    finally:
        transport.abort()


@pytest.mark.parametrize("options", [{}, {"happy_eyeballs_delay": 0.01}], ids=["plain", "happy-eyeballs"])
def test_nobody_gets_the_bytes_of_another(fire, options):
    if options and fire.on == "stock":
        pytest.skip("asyncio leaves sockets of cancelled attempts to the garbage collector")
    total = size(1_500, 50_000)
    chance = random.Random(total)
    served = cancelled = 0

    async def client(numbers, address):
        nonlocal served, cancelled
        for identity in numbers:
            task = asyncio.ensure_future(one(identity, address, options))
            if chance.random() < 0.7:
                for _ in range(chance.randrange(8)):
                    await asyncio.sleep(0)
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.random() / 1000)
                task.cancel()
            try:
                await task
                served += 1
            except asyncio.CancelledError:
                cancelled += 1

    async def main():
        loop = asyncio.get_running_loop()
        Answering.live = 0
        server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=1000)
        address = server.sockets[0].getsockname()
        numbers = iter(range(total))
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(client(numbers, address))
        assert served + cancelled == total
        assert served > total // 5
        assert cancelled > total // 5
        # The loop is alive, and serves.
        await one(total, address, options)
        server.close()
        await server.wait_closed()
        async with asyncio.timeout(10):
            while Answering.live:
                await asyncio.sleep(0.01)

    fire(main)


@pytest.mark.parametrize("fire", ["aioxide"], indirect=True)
def test_sock_connect_cancelled_and_the_descriptor_reused(fire):
    """The same with the program's own sockets: nothing of a cancelled wait is left on the descriptor.

    asyncio stops to watch a descriptor in the turn after the cancellation. By then somebody else may have it, who
    then waits for ever.
    """
    total = size(500, 20_000)
    chance = random.Random(total)

    async def attempt(address, identity):
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await loop.sock_connect(sock, address)
            word = IDENTITY.pack(identity)
            await loop.sock_sendall(sock, word)
            received = b""
            while len(received) < IDENTITY.size * ANSWER:
                data = await loop.sock_recv(sock, 1000)
                if not data:
                    raise ConnectionResetError
                received += data
            assert received == word * ANSWER

    async def client(numbers, address):
        for identity in numbers:
            task = asyncio.ensure_future(attempt(address, identity))
            if chance.random() < 0.7:
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def main():
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=1000)
        address = server.sockets[0].getsockname()
        numbers = iter(range(total))
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(client(numbers, address))
        await attempt(address, total)
        server.close()
        await server.wait_closed()

    fire(main)
