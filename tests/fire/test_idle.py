"""Thousands of connections that do nothing: they cost memory, no time, and answer when they are spoken to."""

import asyncio
import resource
import time

import pytest

from .conftest import resident_bytes, size


@pytest.mark.parametrize("fire", ["aioxide"], indirect=True)
def test_idle_connections(fire):
    count = size(1_000, 10_000)
    wanted = 2 * count + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        if hard < wanted:
            count = (hard - 200) // 2
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    class Client(asyncio.Protocol):
        answer = None

        def data_received(self, data):
            self.answer.set_result(data)

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=2000)
        address = server.sockets[0].getsockname()
        before = resident_bytes()
        connections = []
        while len(connections) < count:
            some = [loop.create_connection(Client, *address) for _ in range(min(500, count - len(connections)))]
            connections += await asyncio.gather(*some)
        each = (resident_bytes() - before) / count / 2
        assert each < 8_000, f"{each:.0f} bytes a connection"

        spent = time.process_time()
        await asyncio.sleep(1)
        assert time.process_time() - spent < 0.1, "idle connections take time"

        for number, (transport, protocol) in enumerate(connections):
            protocol.answer = loop.create_future()
            transport.write(b"%d" % number)
            assert await protocol.answer == b"%d" % number
        for transport, _ in connections:
            transport.close()
        server.close()
        server.close_clients()
        await server.wait_closed()

    fire(main)
