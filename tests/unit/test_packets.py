"""Writes of one step that go in one packet: programs must notice nothing but the time."""

import asyncio
import contextlib
import random
import select
import socket
import sys
import threading
import time

import aioxide
import pytest
import tls
from packets import Sink, connected, is_there, pair, read, segments


async def learn(transport, client):
    """Writes twice a step until that is one packet, where it can be; what was written is read."""
    for _ in range(500):
        await asyncio.sleep(0)
        before = segments(transport)
        transport.write(b"head")
        transport.write(b"body")
        after = segments(transport)
        await asyncio.sleep(0)
        read(client, 8)
        if after == before + 1:
            return
    assert not isinstance(asyncio.get_running_loop(), aioxide.EventLoop)


def test_two_writes_of_a_step_go_in_one_packet():
    async def use():
        async with connected() as [(transport, client)]:
            before = segments(transport)
            for _ in range(500):
                transport.write(b"head")
                transport.write(b"body")
                await asyncio.sleep(0)
            assert segments(transport) - before < 900  # 504, and more where the machine was busy elsewhere
            assert read(client, 4000) == b"headbody" * 500

    aioxide.run(use())


def test_three_writes_of_a_step_go_in_one_packet():
    async def use():
        async with connected() as [(transport, client)]:
            before = segments(transport)
            for _ in range(500):
                for piece in (b"one", bytearray(b"two"), memoryview(b"three")):
                    transport.write(piece)
                await asyncio.sleep(0)
            assert segments(transport) - before < 1300
            assert read(client, 11 * 500) == b"onetwothree" * 500

    aioxide.run(use())


def test_so_do_the_records_of_tls():
    async def use():
        async with tls.serving(tls.Recorder) as address:
            transport, _ = await tls.connect(address)
            before = segments(transport)
            for _ in range(500):
                transport.write(b"head")
                transport.write(b"body")
                await asyncio.sleep(0)
            sent = segments(transport) - before
            transport.close()
            return sent

    assert aioxide.run(use()) < 900


def test_who_writes_once_a_step_sends_a_packet_each():
    async def use():
        async with connected() as [(transport, client)]:
            before = segments(transport)
            for _ in range(100):
                transport.write(b"message")
                assert is_there(client)
                read(client, 7)
                await asyncio.sleep(0)
            assert segments(transport) - before == 100

    aioxide.run(use())


@pytest.mark.parametrize("seed", range(4))
def test_everything_arrives_once_and_in_order(run, seed):
    chance = random.Random(seed)
    got = bytearray()

    def receive(client):
        client.settimeout(30)
        sizes = random.Random(seed)  # of its own: two threads would take numbers of one in any order
        while data := client.recv(sizes.choice([100, 100_000])):
            got.extend(data)

    async def use():
        sent = bytearray()
        async with connected() as [(transport, client)]:
            reader = threading.Thread(target=receive, args=(client,))
            reader.start()
            for number in range(600):
                if number % 150 == 0:
                    usual = chance.choice([1, 2, 2, 3])
                for _ in range(usual if chance.random() < 0.9 else chance.randrange(4)):
                    size = chance.choice([1, 10, 100, 1000, 20_000, 20_000 if number % 50 else 500_000])
                    data = chance.randbytes(size)
                    sent += data
                    match chance.randrange(8):
                        case 0:
                            transport.write(bytearray(data))
                        case 1 if size > 5:  # CPython 3.12 and 3.13 never finish with an empty last part
                            transport.writelines([data[:5], data[5:]])
                        case _:
                            transport.write(data)
                while transport.get_write_buffer_size() > 200_000:
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0)
            transport.write_eof()
            while reader.is_alive():
                await asyncio.sleep(0.01)
        assert got == sent

    run(use(), 60)


@pytest.mark.parametrize("debug", [False, True])
def test_a_write_alone_is_there_when_the_next_job_runs(aio, loop, run, debug):
    async def use():
        loop.set_debug(debug)
        loop.slow_callback_duration = 60
        async with connected() as [(transport, client)]:
            sock = transport.get_extra_info("socket")
            await learn(transport, client)
            seen = loop.create_future()
            loop.call_soon(transport.write, b"alone")
            loop.call_soon(lambda: seen.set_result(is_there(client)))
            assert await seen
            assert read(client, 5) == b"alone"
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)

    run(use(), 60)


@pytest.mark.parametrize("way", ["callback", "task"])
def test_a_write_alone_is_there_while_the_loop_sleeps(aio, loop, run, way):
    async def step(transport):
        transport.write(b"alone")
        await asyncio.sleep(0.3)

    async def try_it(transport, client):
        await learn(transport, client)
        if way == "callback":
            loop.call_soon(transport.write, b"alone")
        else:
            task = loop.create_task(step(transport))
        seen = await loop.run_in_executor(None, is_there, client)
        if way == "task":
            await task
        assert read(client, 5) == b"alone"
        return seen

    async def use():
        async with connected() as [(transport, client)]:
            # A machine that is busy elsewhere may be late, but not each time.
            for _ in range(5):
                if await try_it(transport, client):
                    return
            raise AssertionError("nothing came in time")

    run(use(), 60)


def test_a_step_that_writes_and_blocks(run):
    async def use():
        async with connected() as [(transport, client)]:
            transport.write(b"first")
            assert is_there(client)
            read(client, 5)
            await learn(transport, client)
            transport.write(b"held")
            # The kernel's own timer: a fifth of a second.
            assert select.select([client], [], [], 5)[0]
            assert read(client, 4) == b"held"

    run(use(), 60)


def test_a_slow_second_write_unlearns(run):
    async def use():
        async with connected() as [(transport, client)]:
            await learn(transport, client)
            transport.write(b"head")
            time.sleep(0.01)
            transport.write(b"body")
            assert is_there(client)
            await asyncio.sleep(0)
            read(client, 8)
            for _ in range(20):
                transport.write(b"head")
                assert is_there(client)
                time.sleep(0.001)
                transport.write(b"body")
                assert read(client, 8) == b"headbody"
                await asyncio.sleep(0)

    run(use(), 60)


@pytest.mark.parametrize("end", ["close", "abort", "write_eof"])
@pytest.mark.parametrize("unread", [False, True])
def test_the_end_of_a_connection_after_a_single_write(run, end, unread):
    async def use():
        async with connected() as [(transport, client)]:
            await learn(transport, client)
            if unread:
                transport.pause_reading()
                client.sendall(b"never read")  # so that the kernel resets the connection when it is closed
            transport.write(b"farewell")
            getattr(transport, end)()
            await asyncio.sleep(0.01)
            assert is_there(client)
            assert read(client, 8) == b"farewell"
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""

    run(use(), 60)


@pytest.mark.parametrize("how", ["stop", SystemExit, KeyboardInterrupt])
def test_a_loop_that_ends_in_the_step_leaves_nothing_behind(new_loop, how):
    def step(loop, transport):
        transport.write(b"farewell")
        if how != "stop":
            raise how
        loop.stop()

    async def begin():
        [(transport, client)] = await stack.enter_async_context(connected())
        await learn(transport, client)
        return transport, client

    with asyncio.Runner(loop_factory=new_loop) as runner:
        stack = contextlib.AsyncExitStack()
        transport, client = runner.run(begin())
        loop = runner.get_loop()
        for again in range(2):
            loop.call_soon(step, loop, transport)
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                loop.run_forever()
            assert is_there(client), again
            read(client, 8)
            runner.run(learn(transport, client))
        # Nor does what is written while no loop runs wait for one.
        transport.write(b"between")
        assert is_there(client)
        runner.run(stack.aclose())


def test_several_transports_in_one_step(run):
    async def use():
        async with connected(3) as ends:
            for _ in range(100):
                for piece in (b"head", b"body"):
                    for transport, _ in ends:
                        transport.write(piece)
                await asyncio.sleep(0)
                for _, client in ends:
                    assert is_there(client)
                    assert read(client, 8) == b"headbody"
            for transport, _ in ends:
                transport.write(b"head")
            await asyncio.sleep(0)
            for _, client in ends:
                assert is_there(client)
                assert read(client, 4) == b"head"

    run(use(), 60)


def test_what_a_program_corks_stays_corked(run):
    async def use():
        async with connected() as [(transport, client)]:
            await learn(transport, client)
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            transport.write(b"corked")
            await asyncio.sleep(0)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
            assert is_there(client)

    run(use(), 60)


def test_a_transport_that_is_dropped_after_a_write(new_loop):
    async def use():
        with pair() as [(sock, client)]:
            transport, sink = await asyncio.get_running_loop().connect_accepted_socket(Sink, sock)
            await learn(transport, client)
            references = sys.getrefcount(transport)
            transport.write(b"head")
            transport.write(b"body")
            assert sys.getrefcount(transport) == references
            await asyncio.sleep(0)
            transport.write(b"alone")
            await asyncio.sleep(0)
            assert sys.getrefcount(transport) == references
            assert read(client, 13) == b"headbodyalone"
            transport.close()
            await sink.lost

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(use())
