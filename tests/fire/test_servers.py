"""Servers that end in the middle of traffic: nobody hangs, and what has arrived is the beginning of what was sent."""

import asyncio
import contextlib
import random

import pytest

from .conftest import size


@pytest.mark.parametrize("ending", ["close_clients", "abort_clients", "handlers cancelled"])
def test_server_closed_under_load(fire, ending, request):
    if not hasattr(asyncio.Server, "close_clients") and fire.on == "stock":
        pytest.skip("Server.close_clients came with 3.13")
    rounds, clients = size(4, 60), 30
    chance = random.Random(len(ending))
    block = chance.randbytes(1 << 16)

    async def main():
        for _ in range(rounds):
            await one_round()

    async def one_round():
        handlers = set()

        async def handle(reader, writer):
            task = asyncio.current_task()
            handlers.add(task)
            try:
                while data := await reader.read(chance.randrange(1, 100_000)):
                    writer.write(data)
                    await writer.drain()
            except (OSError, asyncio.CancelledError):
                pass
            finally:
                handlers.discard(task)
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

        async def client(address):
            reader, writer = await asyncio.open_connection(*address)
            received = bytearray()

            async def send():
                while True:
                    writer.write(block)
                    await writer.drain()

            sender = asyncio.ensure_future(send())
            try:
                while data := await reader.read(50_000):
                    received += data
            except OSError:
                pass
            sender.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await sender
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            whole = block * (len(received) // len(block) + 1)
            assert whole.startswith(received)
            return len(received)

        server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=100)
        address = server.sockets[0].getsockname()
        tasks = [asyncio.ensure_future(client(address)) for _ in range(clients)]
        await asyncio.sleep(chance.random() / 10)
        server.close()
        if ending == "handlers cancelled":
            # Those in the backlog never get a handler: the listening socket takes them with it.
            while not all(task.done() for task in tasks):
                for handler in list(handlers):
                    handler.cancel()
                await asyncio.sleep(0.001)
        else:
            getattr(server, ending)()
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()
        for task in tasks:
            assert task.exception() is None or isinstance(task.exception(), ConnectionError)
        async with asyncio.timeout(20):
            while handlers:
                await asyncio.sleep(0.001)

    fire(main)
