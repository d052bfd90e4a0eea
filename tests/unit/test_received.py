"""Received data: the memory of what nobody has any more is used again, and of nothing else."""

import asyncio
import collections
import contextlib
import functools
import io
import os
import random
import socket
import subprocess
import sys
import threading
import tracemalloc

import pytest
from recorder import MOST, Recorder, connected, tcp_pair, until


def test_received_bytes_stay_as_they_are_for_whoever_keeps_them(run, pair):
    """The memory of those that nobody keeps is used again."""
    ways = [
        lambda data: None,
        lambda data: data,
        memoryview,
        lambda data: {data: hash(data)},
        lambda data: io.BytesIO(data),
        lambda data: data[:],
        lambda data: iter(data),
    ]

    def content(kept):
        if isinstance(kept, dict):
            ((data, number),) = kept.items()
            assert hash(data) == number == hash(bytes(bytearray(data)))
            return data
        return kept.getvalue() if isinstance(kept, io.BytesIO) else bytes(kept)

    class Keeper(Recorder):
        def __init__(self, loop):
            super().__init__(loop)
            self.kept = []

        def data_received(self, data):
            super().data_received(data)
            self.kept.append((bytes(bytearray(data)), hash(data), ways[len(self.kept) % len(ways)](data)))

    async def main():
        ours, theirs = pair
        async with connected(ours, Keeper) as (_, protocol):
            sent = b""
            for number in range(200):
                part = (b"%05d" % number) * (1 + number // 9 % 3)  # a new length after each of the ways
                theirs.sendall(part)
                sent += part
                await until(lambda: len(protocol.data) == len(sent))
        assert protocol.data == sent
        assert len(protocol.kept) == 200
        for copy, number, kept in protocol.kept:
            assert hash(copy) == number
            assert kept is None or content(kept) == copy

    run(main())


def test_received_bytes_stay_as_they_are_while_another_loop_receives(run, pair, new_loop):
    first, second = pair, tcp_pair()

    class Other(Recorder):
        def data_received(self, data):
            super().data_received(data)
            second[1].sendall(b"%05d" % len(self.data)) if len(self.data) < 100 else self.transport.close()

    async def receive_more():
        second[1].sendall(b"-----")
        async with connected(second[0], Other) as (_, protocol):
            await protocol.lost

    def in_a_loop():
        loop = new_loop()
        loop.run_until_complete(receive_more())
        loop.close()

    class Outer(Recorder):
        def data_received(self, data):
            copy = bytes(bytearray(data))
            thread = threading.Thread(target=in_a_loop)
            thread.start()
            thread.join(10)
            self.calls.append(data == copy)
            self.data += copy

    async def main():
        async with connected(first[0], Outer) as (_, protocol):
            first[1].sendall(b"outer")
            await until(lambda: protocol.data)
            assert protocol.calls == ["made", True]

    with second[1]:
        run(main())


def test_received_bytes_that_wait_to_be_written_stay_as_they_are(run, loop, pair):
    """The peer reads its echo after it has sent all."""
    parts = [b"%04d" % number * 1000 for number in range(500)]

    class Echo(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(data)

    def read_all():
        left, found = sum(map(len, parts)), []
        while left:
            found.append(pair[1].recv(MOST))
            left -= len(found[-1])
        return b"".join(found)

    async def main():
        async with connected(pair[0], Echo) as (transport, protocol):
            sent = 0
            for part in parts:
                pair[1].sendall(part)
                sent += len(part)
                await until(lambda: len(protocol.data) == sent)
            assert transport.get_write_buffer_size() > 0
            assert await loop.run_in_executor(None, read_all) == b"".join(parts)

    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    run(main())


@contextlib.asynccontextmanager
async def receivers(number):
    """Functions that receive once, by a stream or by `sock_recv`, and the sockets of those who send."""
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for index in range(number):
            ours, theirs = tcp_pair()
            stack.enter_context(theirs)
            if index % 2:
                ours.setblocking(False)
                stack.enter_context(ours)
                found.append((functools.partial(loop.sock_recv, ours, 10_000), theirs))
            else:
                reader, writer = await asyncio.open_connection(sock=ours)
                stack.callback(writer.close)
                found.append((functools.partial(reader.read, 10_000), theirs))
        yield found


@pytest.mark.parametrize("seed", range(4))
def test_what_many_receive_and_some_keep_for_a_while(run, seed):
    chance = random.Random(seed)

    async def main():
        async with receivers(6) as ends:
            kept = []
            for number in range(1500):
                receive, theirs = chance.choice(ends)
                sent = b"%04d" % number * chance.choice([1, 100, 100, 250])
                theirs.sendall(sent)
                data = await receive()
                assert data == sent
                kept.append((data, sent))
                for _ in range(chance.choice([0, 0, 1, 2, 3])):
                    if kept:
                        kept.pop(chance.randrange(len(kept)))
                del data
                if chance.random() < 0.01:
                    kept.clear()
                assert all(
                    data == sent and hash(data) == hash(sent) for data, sent in chance.sample(kept, len(kept) // 4)
                )
            assert all(data == sent for data, sent in kept)

    run(main(), 30)


def test_little_is_left_of_much_that_was_kept(run):
    async def main():
        async with receivers(2) as ends:
            for size in (1000, 10_000, 30_000):
                kept = []
                for number in range(400):
                    receive, theirs = ends[number % 2]
                    theirs.sendall(bytes(size))
                    got = 0
                    while got < size:
                        kept.append(await receive())
                        got += len(kept[-1])

    tracemalloc.start()
    try:
        run(main(), 30)
        assert tracemalloc.get_traced_memory()[0] < 3_000_000
        assert tracemalloc.get_traced_memory()[1] > 4_000_000
    finally:
        tracemalloc.stop()


FAULTS = """
import asyncio, resource, socket, sys
import aioxide

CONNECTIONS, SIZE = 10, 100_000

class Keeping(asyncio.Protocol):
    kept, size = [], 0

    def data_received(self, data):
        self.kept.append(data)
        Keeping.size += len(data)

async def main():
    pairs = [socket.socketpair() for _ in range(CONNECTIONS)]
    for ours, theirs in pairs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * SIZE)
        await asyncio.get_running_loop().create_connection(Keeping, sock=ours)
    data = bytes(SIZE)

    async def round():
        for _, theirs in pairs:
            theirs.sendall(data)
        while Keeping.size < CONNECTIONS * SIZE:
            await asyncio.sleep(0)
        Keeping.kept.clear()
        Keeping.size = 0

    for _ in range(5):
        await round()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        await round()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20 / CONNECTIONS)

aioxide.run(main())
"""


def test_large_messages_need_no_new_memory_from_the_system():
    """With the C library's thresholds as they are, memory goes back with each message: 25 faults for 100 kB."""
    tuned = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
    env = {name: value for name, value in os.environ.items() if not name.startswith(tuned)}
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=env)
    assert float(done.stdout) < 3


def test_large_data_lie_where_the_kernel_copies_fast(run, pair, aio):
    """Shortly before or after a round place in memory it takes twenty times as long on some processors."""
    if aio is asyncio:
        pytest.skip("left to chance, which is one in 32")

    def is_near_a_round_place(data):
        place = id(data) + sys.getsizeof(b"") - 1
        return min(place % 1024, -place % 1024) in range(1, 32)

    class Keeper(Recorder):
        def __init__(self, loop):
            super().__init__(loop)
            self.latest, self.near, self.size = collections.deque(maxlen=5), 0, 0

        def data_received(self, data):
            self.latest.append(data)
            self.near += is_near_a_round_place(data)
            self.size += len(data)

    async def main():
        async with connected(pair[0], Keeper) as (_, protocol):
            sent = 0
            for number in range(2000):
                size = 50_000 + number % 64 * 16
                pair[1].sendall(bytes(size))
                sent += size
                await until(lambda: protocol.size == sent)
        return protocol.near

    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
    assert run(main(), 60) < 5


def test_datagrams_that_came_together_while_another_loop_receives(run, new_loop):
    """Whoever delivers them lends their memory to nobody."""
    came, kept = [], []

    class Keeper(asyncio.DatagramProtocol):
        def __init__(self, inner=None):
            self.inner = inner

        def datagram_received(self, data, addr):
            came.append((data[:1], len(data)))
            if len(came) % 2:
                kept.append((data, bytes(bytearray(data))))
            if self.inner and data[:1] == b"3":
                outer = asyncio.get_running_loop()
                asyncio._set_running_loop(None)
                self.inner()
                asyncio._set_running_loop(outer)

    async def receive(letters, inner=None):
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: Keeper(inner), ("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            for letter in letters:
                peer.sendto(letter.encode() * 1000, transport.get_extra_info("sockname"))
        await until(lambda: (letters[-1].encode(), 1000) in came)
        transport.close()
        await asyncio.sleep(0)

    def inner():
        loop = new_loop()
        loop.run_until_complete(receive("abcdefg"))
        loop.close()

    run(receive("0123456", inner))
    assert bytes(b"".join(letter for letter, _ in came)) == b"0123abcdefg456"
    assert {length for _, length in came} == {1000}
    assert all(data == copy == data[:1] * 1000 for data, copy in kept)
