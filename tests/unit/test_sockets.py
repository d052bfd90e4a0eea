"""`sock_recv` and its kin: every byte at its owner, whatever is closed, cancelled, shared or reused meanwhile."""

import asyncio
import contextlib
import os
import random
import socket

import pytest


def fd_count():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def pair():
    """Two connected sockets, not blocking."""
    with contextlib.ExitStack() as stack:
        socks = socket.socketpair()
        for sock in socks:
            stack.enter_context(sock)
            sock.setblocking(False)
        yield socks


@pytest.fixture(params=["plain", "subclass"])
def kind(request):
    """socket.socket is known to native code; a subclass is asked by its methods."""

    class Subclass(socket.socket):
        pass

    return socket.socket if request.param == "plain" else Subclass


def pair_of(kind, family=socket.AF_UNIX, type=socket.SOCK_STREAM):
    pair = []
    for sock in socket.socketpair(family, type):
        pair.append(kind(fileno=sock.detach()))
        pair[-1].setblocking(False)
    return pair


async def soon(awaitable):
    """A task that has begun to wait."""
    task = asyncio.ensure_future(awaitable)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


def test_bytes_come_as_they_are(loop, run, kind):
    async def main():
        one, two = pair_of(kind)
        with one, two:
            two.send(b"now")
            assert await loop.sock_recv(one, 100) == b"now"
            task = await soon(loop.sock_recv(one, 2))
            two.send(b"later")
            assert await task == b"la"
            buffer = bytearray(10)
            assert await loop.sock_recv_into(one, buffer) == 3
            assert buffer[:3] == b"ter"
            task = await soon(loop.sock_recv_into(one, memoryview(buffer)[3:]))
            two.send(b"!")
            assert await task == 1
            assert buffer[:4] == b"ter!"
            task = await soon(loop.sock_recv(one, 2**20))
            two.close()
            assert await task == b""
            assert await loop.sock_recv(one, 0) == b""

    run(main())


def test_the_end_comes_with_the_last_bytes(loop, run, kind):
    """The bytes and the end of the stream are there at the same time: both are seen."""

    async def main():
        for _ in range(20):
            one, two = pair_of(kind)
            with one, two:
                task = await soon(loop.sock_recv(one, 100))
                two.send(b"last")
                two.close()
                assert await task == b"last"
                assert await loop.sock_recv(one, 100) == b""

    run(main())


def test_a_megabyte_both_ways_at_once(loop, run, kind):
    async def main():
        one, two = pair_of(kind)
        data = os.urandom(1 << 20)

        async def receive(sock):
            got = bytearray()
            while len(got) < len(data):
                got += await loop.sock_recv(sock, 10_000)
            return got

        with one, two:
            results = await asyncio.gather(
                loop.sock_sendall(one, data),
                loop.sock_sendall(two, memoryview(data)),
                receive(one),
                receive(two),
            )
            assert results == [None, None, data, data]

    run(main())


def test_datagrams(loop, run, kind):
    async def main():
        with kind(socket.AF_INET, socket.SOCK_DGRAM) as one, kind(socket.AF_INET, socket.SOCK_DGRAM) as two:
            for sock in (one, two):
                sock.bind(("127.0.0.1", 0))
                sock.setblocking(False)
            task = await soon(loop.sock_recvfrom(one, 100))
            assert await loop.sock_sendto(two, b"hello", one.getsockname()) == 5
            assert await task == (b"hello", two.getsockname())
            buffer = bytearray(10)
            task = await soon(loop.sock_recvfrom_into(one, buffer))
            await loop.sock_sendto(two, b"hello", one.getsockname())
            assert await task == (5, two.getsockname())
            await loop.sock_sendto(two, b"world", one.getsockname())
            assert await loop.sock_recvfrom_into(one, buffer, 2) == (2, two.getsockname())
            assert buffer[:5] == b"wollo"
            await loop.sock_sendto(two, b"", one.getsockname())
            assert await loop.sock_recvfrom(one, bufsize=10) == (b"", two.getsockname())

    run(main())


def test_accept(loop, run, kind):
    async def main():
        with kind() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            listening.setblocking(False)
            for _ in range(3):
                task = await soon(loop.sock_accept(listening))
                with socket.socket() as client:
                    client.setblocking(False)
                    await loop.sock_connect(client, listening.getsockname())
                    accepted, peer = await task
                    with accepted:
                        assert peer == client.getsockname()
                        assert not accepted.getblocking()

    run(main())


def test_by_name(loop, run, pair):
    one, two = pair

    async def main():
        await loop.sock_sendall(sock=two, data=bytearray(b"abc"))
        assert await loop.sock_recv(sock=one, n=10) == b"abc"
        for wrong in ((), (one,), (one, 1, 2)):
            with pytest.raises(TypeError):
                await loop.sock_recv(*wrong)
        with pytest.raises(TypeError):
            await loop.sock_recv(one, bufsize=10)

    run(main())


def test_arguments_that_are_wrong(loop, run, pair):
    one, two = pair

    async def main():
        with pytest.raises(TypeError):
            await loop.sock_recv(one, "many")
        with pytest.raises(ValueError, match="negative"):
            await loop.sock_recv(one, -1)
        with pytest.raises((TypeError, BufferError)):
            await loop.sock_recv_into(one, b"constant")
        with pytest.raises(TypeError):
            await loop.sock_sendall(one, "text")
        with pytest.raises(AttributeError):
            await loop.sock_recv(object(), 1)
        two.close()
        with pytest.raises(OSError, match="Bad file"):
            await loop.sock_recv(two, 1)
        with pytest.raises(BrokenPipeError):
            await loop.sock_sendall(one, b"x")

    run(main())


def test_debug_mode_refuses_blocking_sockets(loop, run):
    loop.set_debug(True)
    one, two = socket.socketpair()

    async def main():
        with one, two:
            for call in (
                loop.sock_recv(one, 1),
                loop.sock_recv_into(one, bytearray(1)),
                loop.sock_recvfrom(one, 1),
                loop.sock_sendall(one, b"x"),
                loop.sock_accept(one),
                loop.sock_connect(one, "x"),
            ):
                with pytest.raises(ValueError, match="the socket must be non-blocking"):
                    await call

    run(main())


def test_never_awaited(loop, pair):
    with pytest.warns(RuntimeWarning, match="sock_recv' was never awaited"):
        loop.sock_recv(pair[0], 1)


def test_a_cancelled_wait_takes_nothing(loop, run, kind):
    async def main():
        one, two = pair_of(kind)
        with one, two:
            for _ in range(5):
                task = await soon(loop.sock_recv(one, 100))
                two.send(b"x")
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await loop.sock_recv(one, 100) == b"x"
            # ready and cancelled in the same turn
            task = await soon(loop.sock_recv(one, 100))
            two.send(b"y")
            loop.call_soon(task.cancel)
            await asyncio.wait([task])
            if task.cancelled():
                assert await loop.sock_recv(one, 100) == b"y"
            else:
                assert task.result() == b"y"

    run(main())


def test_random_cancellation_loses_no_byte(loop, run):
    """10,000 receives, cancelled at random moments: the stream arrives whole and in order."""
    chance = random.Random(1)

    async def main():
        one, two = pair_of(socket.socket)
        data = bytes(chance.randrange(256) for _ in range(200_000))
        got = bytearray()

        async def send():
            start = 0
            while start < len(data):
                size = chance.randrange(1, 100)
                await loop.sock_sendall(two, data[start : start + size])
                start += size
                if chance.random() < 0.5:
                    await asyncio.sleep(0)

        with one, two:
            sender = asyncio.create_task(send())
            while len(got) < len(data):
                task = asyncio.create_task(loop.sock_recv(one, 100))
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    got += await task
            await sender
            assert got == data

    run(main(), 60)


def test_a_number_that_is_used_again(loop, run):
    """A socket is closed and another gets its number: it is watched, whatever was watched under the number before."""

    async def main():
        for _ in range(50):
            one, two = pair_of(socket.socket)
            number = one.fileno()
            task = await soon(loop.sock_recv(one, 100))
            two.send(b"first")
            assert await task == b"first"
            one.close()
            two.close()
            one, two = pair_of(socket.socket)
            assert one.fileno() == number
            with one, two:
                task = await soon(loop.sock_recv(one, 100))
                two.send(b"second")
                assert await asyncio.wait_for(task, 5) == b"second"

    run(main())


def test_a_number_that_is_used_again_by_anything(loop, run):
    async def main():
        for use in ("reader", "pipe", "server", "connection", "datagram"):
            one, two = pair_of(socket.socket)
            number = one.fileno()
            task = await soon(loop.sock_recv(one, 100))
            two.send(b"x")
            await task
            one.close()
            heard = loop.create_future()
            if use == "reader":
                source, sink = os.pipe()
                assert source == number
                loop.add_reader(source, heard.set_result, None)
                os.write(sink, b"x")
                await asyncio.wait_for(heard, 5)
                loop.remove_reader(source)
                os.close(source)
                os.close(sink)
            elif use == "pipe":
                source, sink = os.pipe()
                assert source == number
                transport, reader = await loop.connect_read_pipe(lambda: Hears(heard), open(source, "rb", 0))
                os.write(sink, b"x")
                await asyncio.wait_for(heard, 5)
                transport.close()
                os.close(sink)
            elif use == "server":
                server = await loop.create_server(lambda: Hears(heard), "127.0.0.1", 0)
                assert server.sockets[0].fileno() == number
                with socket.create_connection(server.sockets[0].getsockname()) as client:
                    client.send(b"x")
                    await asyncio.wait_for(heard, 5)
                server.close()
            elif use == "connection":
                three, four = pair_of(socket.socket)
                assert three.fileno() == number
                transport, _ = await loop.create_connection(lambda: Hears(heard), sock=three)
                four.send(b"x")
                await asyncio.wait_for(heard, 5)
                transport.close()
                four.close()
            else:
                transport, _ = await loop.create_datagram_endpoint(lambda: Hears(heard), ("127.0.0.1", 0))
                assert transport.get_extra_info("socket").fileno() == number
                transport.sendto(b"x", transport.get_extra_info("sockname"))
                await asyncio.wait_for(heard, 5)
                transport.close()
            two.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    class Hears(asyncio.Protocol):
        def __init__(self, heard):
            self.heard = heard

        def data_received(self, data):
            self.heard.set_result(data)

        def datagram_received(self, data, addr):
            self.heard.set_result(data)

    run(main())


def test_closed_under_a_wait_and_used_again(loop, run, aio):
    """Who waits on a socket that was closed under it never gets the bytes of the next one under the number."""

    async def main():
        one, two = pair_of(socket.socket)
        number = one.fileno()
        waiting = await soon(loop.sock_recv(one, 100))
        one.close()
        two.close()
        one, two = pair_of(socket.socket)
        with one, two:
            assert one.fileno() == number
            if aio is asyncio:
                waiting.cancel()  # its loop would go on with the number of the closed one
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await waiting
            task = await soon(loop.sock_recv(one, 100))
            two.send(b"mine")
            assert await asyncio.wait_for(task, 5) == b"mine"
            if not waiting.done():
                await asyncio.wait([waiting], timeout=1)
            assert waiting.cancelled() or isinstance(waiting.exception(), OSError)

    run(main())


def test_two_objects_for_one_descriptor(loop, run):
    async def main():
        one, two = pair_of(socket.socket)
        twin = socket.socket(fileno=one.fileno())
        with two:
            for _ in range(5):
                reading = await soon(loop.sock_recv(one, 100))
                two.send(b"x")
                assert await reading == b"x"
                reading = await soon(loop.sock_recv(twin, 100))
                two.send(b"y")
                assert await reading == b"y"
            reading = await soon(loop.sock_recv(one, 100))
            await loop.sock_sendall(twin, b"z")
            assert await loop.sock_recv(two, 100) == b"z"
            two.send(b"x")
            assert await reading == b"x"
        twin.detach()
        one.close()

    run(main())


def test_a_reader_after_a_wait(loop, run, pair):
    """`add_reader` is told as long as bytes are there, also on a socket that sock_recv has waited on."""
    one, two = pair
    calls = []

    async def main():
        task = await soon(loop.sock_recv(one, 100))
        two.send(b"x")
        await task
        two.send(b"abc")
        loop.add_reader(one, calls.append, None)
        async with asyncio.timeout(5):
            while len(calls) < 3:
                await asyncio.sleep(0)
        assert loop.remove_reader(one)
        assert await loop.sock_recv(one, 100) == b"abc"
        assert not loop.remove_reader(one)
        task = await soon(loop.sock_recv(one, 100))
        two.send(b"y")
        assert await task == b"y"

    run(main())


def test_idle_watches_cost_no_turns(loop, run, pair):
    """Bytes that nobody wants do not keep the loop awake."""
    one, two = pair

    async def main():
        task = await soon(loop.sock_recv(one, 1))
        two.send(b"x" * 1000)
        await task
        before = os.times()
        await asyncio.sleep(0.3)
        after = os.times()
        assert after.user + after.system - before.user - before.system < 0.15

    run(main())


def test_the_descriptor_of_a_transport_is_refused(loop, run, pair):
    async def main():
        one, two = pair_of(socket.socket)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=one)
        with pytest.raises(RuntimeError, match="is used by transport"):
            await loop.sock_recv(one, 1)
        transport.close()
        await asyncio.sleep(0)
        two.close()

    run(main())


def test_descriptors_stay_flat(loop, run):
    async def main():
        counts = []
        for _ in range(3):
            for _ in range(50):
                one, two = pair_of(socket.socket)
                task = await soon(loop.sock_recv(one, 100))
                two.send(b"x")
                await task
                one.close()
                two.close()
            counts.append(fd_count())
        assert len(set(counts)) == 1

    run(main())
