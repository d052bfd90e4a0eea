"""A fast writer against a slow reader: memory stays bounded and no byte is lost."""

import asyncio
import hashlib
import random

from .conftest import resident_bytes, size

MEBIBYTE = 1 << 20


def test_slow_reader_fast_writer(fire):
    total = size(24, 1024) * MEBIBYTE
    chance = random.Random(2)
    block = chance.randbytes(MEBIBYTE)

    async def main():
        sent, received = hashlib.blake2b(), hashlib.blake2b()
        most_unsent = 0

        async def handle(reader, writer):
            nonlocal most_unsent
            left = total
            while left:
                start = chance.randrange(MEBIBYTE // 2)
                piece = block[start : start + min(left, chance.randrange(1, MEBIBYTE // 2))]
                sent.update(piece)
                writer.write(piece)
                left -= len(piece)
                most_unsent = max(most_unsent, writer.transport.get_write_buffer_size())
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            before = resident_bytes()
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            count = most_resident = 0
            while data := await reader.read(chance.randrange(1, 300_000)):
                received.update(data)
                count += len(data)
                if chance.random() < 0.02:
                    await asyncio.sleep(0.002)
                    most_resident = max(most_resident, resident_bytes())
            writer.close()
            await writer.wait_closed()
        assert count == total
        assert sent.digest() == received.digest()
        assert most_unsent <= MEBIBYTE
        assert most_resident - before < 32 * MEBIBYTE

    fire(main)


def test_protocol_that_pauses_the_transport(fire):
    """pause_reading stops the bytes at once, and resume_reading brings all of them."""
    total = size(8, 256) * MEBIBYTE

    class Slow(asyncio.Protocol):
        def __init__(self):
            self.count = 0
            self.paused = False
            self.done = asyncio.get_running_loop().create_future()

        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            assert not self.paused
            self.count += len(data)
            self.paused = True
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.resume)

        def resume(self):
            self.paused = False
            self.transport.resume_reading()

        def connection_lost(self, exc):
            self.done.set_result(exc)

    async def main():
        async def handle(reader, writer):
            for _ in range(total // MEBIBYTE):
                writer.write(bytes(MEBIBYTE))
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            _, protocol = await asyncio.get_running_loop().create_connection(Slow, *address)
            assert await protocol.done is None
            assert protocol.count == total

    fire(main)
