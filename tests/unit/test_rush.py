"""Writes of many jobs of one turn that wait for each other: programs must notice nothing but the time."""

import asyncio
import contextlib
import random
import select
import socket
import subprocess
import sys
import time

import aioxide
import pytest
from packets import accepted, connected, is_there, pair, read, segments

MANY = 8


def busy(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def turn(jobs):
    """Runs functions as jobs of one turn, and goes on in the next one."""
    loop = asyncio.get_running_loop()
    for job in jobs:
        loop.call_soon(job)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def answer(transport, data=b"answer", seconds=40e-6):
    def job():
        busy(seconds)
        transport.write(data)

    return job


async def answer_all(ends):
    """One turn in which everybody gets an answer. How many packets had gone when the last job was through."""
    transports = [transport for transport, _ in ends]
    before, gone = sum(map(segments, transports)), []
    await turn([*map(answer, transports), lambda: gone.append(sum(map(segments, transports)) - before)])
    assert sum(map(segments, transports)) - before == len(ends)
    for _, client in ends:
        assert read(client, 6) == b"answer"
    return gone[0]


async def rush(ends):
    """Answers until answers wait, where they can."""
    for _ in range(500):
        if await answer_all(ends) == 0:
            return
    assert not isinstance(asyncio.get_running_loop(), aioxide.EventLoop)


async def at_last(attempt):
    """Tries it until it is true: a machine that is busy elsewhere disturbs, but not each time."""
    for _ in range(50):
        if await attempt():
            return
    raise AssertionError("never")


def test_slow_answers_of_a_turn_go_at_its_end():
    async def use():
        async with connected(MANY) as ends:

            async def attempt():
                await rush(ends)
                return [await answer_all(ends) for _ in range(10)] == [0] * 10

            await at_last(attempt)

    aioxide.run(use())


def test_answers_to_few_go_at_once(run):
    async def use():
        async with connected(3) as ends:
            for _ in range(100):
                assert await answer_all(ends) == 3

    run(use(), 60)


def test_so_do_those_of_one_job(run):
    async def use():
        async with connected(MANY) as ends:

            def everybody():
                for transport, _ in ends:
                    answer(transport)()
                seen.append(sum(segments(transport) for transport, _ in ends))

            for _ in range(50):
                seen = [sum(segments(transport) for transport, _ in ends)]
                await turn([everybody])
                assert seen[1] - seen[0] == MANY
                for _, client in ends:
                    assert read(client, 6) == b"answer"

    run(use(), 60)


def test_no_answer_waits_longer_than_a_moment():
    async def use():
        async with connected(MANY) as ends:
            (transport, client), *_ = ends

            async def attempt():
                await rush(ends)
                arrived = []

                def look():
                    busy(300e-6)
                    if not arrived and select.select([client], [], [], 0)[0]:
                        arrived.append(time.perf_counter())

                began = time.perf_counter()
                await turn([answer(transport)] + [look] * 100)
                assert read(client, 6) == b"answer"
                return 0.001 < arrived[0] - began < 0.01

            await at_last(attempt)

    aioxide.run(use())


def test_nor_longer_than_the_next_job_where_that_is_long():
    async def use():
        async with connected(MANY) as ends:
            (transport, client), *_ = ends

            async def attempt():
                await rush(ends)
                before, seen = segments(transport), []

                def note():
                    seen.append(segments(transport) - before)

                await turn([answer(transport), note, lambda: time.sleep(0.01), note])
                assert read(client, 6) == b"answer"
                assert seen[1] == 1
                return seen[0] == 0

            await at_last(attempt)

    aioxide.run(use())


@pytest.mark.parametrize("place", [MANY // 2, MANY])
def test_where_jobs_are_often_long_nothing_waits(run, place):
    async def use():
        async with connected(MANY) as ends:
            await rush(ends)
            for _ in range(4):
                jobs = [answer(transport) for transport, _ in ends]
                jobs.insert(place, lambda: time.sleep(0.01))
                await turn(jobs)
                for _, client in ends:
                    assert read(client, 6) == b"answer"
            for _ in range(30):
                assert await answer_all(ends) == MANY

    run(use(), 60)


def test_a_job_that_blocks_after_its_write(run):
    async def use():
        async with connected(MANY) as ends:
            (transport, client), *_ = ends
            await rush(ends)
            transport.write(b"held")
            # The kernel's own timer: a fifth of a second.
            assert select.select([client], [], [], 5)[0]
            assert read(client, 4) == b"held"

    run(use(), 60)


@pytest.mark.parametrize("end", ["close", "abort", "write_eof"])
@pytest.mark.parametrize("unread", [False, True])
def test_the_end_of_a_connection_in_a_rush(run, end, unread):
    async def use():
        async with connected(MANY) as ends:
            await rush(ends)
            if unread:
                for transport, client in ends:
                    transport.pause_reading()
                    client.sendall(b"never read")  # so that the kernel resets the connection when it is closed
            await turn([answer(transport, b"farewell") for transport, _ in ends])
            await turn(
                job for transport, _ in ends for job in (answer(transport, b"farewell"), getattr(transport, end))
            )
            await asyncio.sleep(0.01)
            for _, client in ends:
                assert is_there(client)
                assert read(client, 16) == b"farewell" * 2
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""

    run(use(), 60)


@pytest.mark.parametrize("how", ["stop", SystemExit, KeyboardInterrupt])
def test_a_loop_that_ends_in_a_rush_leaves_nothing_behind(new_loop, how):
    def last():
        if how != "stop":
            raise how
        loop.stop()

    async def begin():
        ends = await stack.enter_async_context(connected(MANY))
        await rush(ends)
        return ends

    with asyncio.Runner(loop_factory=new_loop) as runner:
        stack = contextlib.AsyncExitStack()
        ends = runner.run(begin())
        loop = runner.get_loop()
        for _ in range(2):
            for transport, _ in ends:
                loop.call_soon(answer(transport))
            loop.call_soon(last)
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                loop.run_forever()
            for _, client in ends:
                assert is_there(client)
                read(client, 6)
            runner.run(rush(ends))
        # Nor does what is written while no loop runs wait for one.
        ends[0][0].write(b"between")
        assert is_there(ends[0][1])
        runner.run(stack.aclose())


PROCESS = """
import asyncio, os, socket, sys
import aioxide
from packets import segments
from test_rush import answer, turn

async def main():
    loop = asyncio.get_running_loop()
    transports = [
        (await loop.create_connection(asyncio.Protocol, sock=socket.socket(fileno=int(fd))))[0] for fd in sys.argv[1:]
    ]
    gone = lambda: sum(map(segments, transports))
    for _ in range(500):
        before = gone()
        await turn([*map(answer, transports), lambda: gone() == before and os._exit(3)])

aioxide.run(main())
"""


def test_a_process_that_ends_in_a_rush_has_written_everything():
    with pair(MANY) as ends:
        numbers = [sock.fileno() for sock, _ in ends]
        command = [sys.executable, "-c", PROCESS, *map(str, numbers)]
        process = subprocess.Popen(command, cwd=__file__.rpartition("/")[0], pass_fds=numbers)
        for sock, _ in ends:
            sock.close()
        got = []
        for _, client in ends:
            client.settimeout(60)
            got.append(b"".join(iter(lambda client=client: client.recv(1000), b"")))
        assert process.wait(60) == 3
        assert len(got[0]) > 0
        assert set(got) == {b"answer" * (len(got[0]) // 6)}


def test_what_a_program_corks_stays_corked_in_a_rush(run):
    def corked(sock):
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)

    async def use():
        async with connected(MANY) as ends:
            await rush(ends)
            for transport, _ in ends:
                sock = transport.get_extra_info("socket")
                for again in range(3):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                    await turn([answer(other, seconds=30e-6) for other, _ in ends])
                    assert corked(sock), again
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
                    for _, peer in ends:
                        assert is_there(peer)
                        read(peer, 6)

    run(use(), 60)


def test_what_a_server_accepts_and_a_program_corks_later(run):
    """A socket that nobody but the transport had until somebody asked for it."""

    async def use():
        async with accepted(MANY) as ends:
            await rush(ends)
            for transport, client in ends:
                sock = transport.get_extra_info("socket")
                for _ in range(3):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                    await turn([answer(transport)] + [answer(other) for other, _ in ends if other is not transport])
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
                    assert is_there(client)
                    for _, peer in ends:
                        read(peer, 6)
                    await answer_all(ends)

    run(use(), 60)


@pytest.mark.parametrize("seed", range(3))
def test_everything_arrives_once_and_in_order(run, seed):
    chance = random.Random(seed)

    async def use():
        async with connected(MANY) as ends:
            await rush(ends)
            for _ in range(150):
                sent = {client: b"" for _, client in ends}

                def job(transport, client, sent=sent):
                    def write():
                        busy(30e-6)
                        for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
                            data = chance.randbytes(chance.choice([1, 10, 100, 1000, 20_000]))
                            sent[client] += data
                            match chance.randrange(3):
                                case 0:
                                    transport.write(bytearray(data))
                                case 1 if len(data) > 5:  # CPython 3.12 and 3.13 never finish with an empty last part
                                    transport.writelines([data[:5], data[5:]])
                                case _:
                                    transport.write(data)

                    return write

                await turn([job(*end) for end in chance.choices(ends, k=2 * MANY)])
                for client, data in sent.items():
                    assert read(client, len(data)) == data

    run(use(), 60)


def test_a_transport_is_let_go_after_the_turn(new_loop):
    async def use():
        async with connected(MANY) as ends:
            await rush(ends)
            counts = [sys.getrefcount(transport) for transport, _ in ends]
            await rush(ends)
            assert [sys.getrefcount(transport) for transport, _ in ends] == counts

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(use())


@pytest.mark.parametrize("debug", [False, True])
def test_two_writes_of_each_answer(loop, run, debug):
    async def use():
        loop.set_debug(debug)
        loop.slow_callback_duration = 60
        async with connected(MANY) as ends:
            for _ in range(200):
                await turn(
                    [
                        lambda transport=transport: (answer(transport, b"head")(), transport.write(b"body"))
                        for transport, _ in ends
                    ]
                )
                for _, client in ends:
                    assert is_there(client)
                    assert read(client, 8) == b"headbody"

    run(use(), 60)
