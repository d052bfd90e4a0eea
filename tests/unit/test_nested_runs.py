"""Loops that run within a run, as `nest_asyncio` has them do.  (Its own tests are among those of `make ecosystem`.)"""

import asyncio
import contextvars
import gc
import socket
import threading
import time

import aioxide
import pytest
from aioxide import _core
from recorder import tcp_pair
from tls import client_context, server_context


def _patch_loop(loop):
    """What `nest_asyncio` does with each loop, in a function of this name."""
    return hasattr(loop, "_nest_patched")


@pytest.fixture
def nest(loop):
    _core._allow_nested_runs(False)
    assert not hasattr(loop, "_nest_patched")
    assert _patch_loop(loop)
    assert hasattr(loop, "_nest_patched")
    yield loop
    _core._allow_nested_runs(False)


@pytest.fixture
def new_loop():
    return aioxide.new_event_loop


@pytest.fixture
def aio():
    return aioxide


async def value(n, seconds=0.0):
    await asyncio.sleep(seconds)
    return n


def inner(awaitable):
    return asyncio.get_running_loop().run_until_complete(awaitable)


class Peer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport


def test_nobody_has_asked_for_it(loop):
    async def main():
        coro = value(1)
        with pytest.raises(RuntimeError, match="already running"):
            inner(coro)
        coro.close()

    loop.run_until_complete(main())
    assert not hasattr(loop, "_nest_patched")  # others ask without meaning it
    loop.run_until_complete(main())


def test_in_a_task_and_in_a_callback(nest):
    results = []

    async def main():
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        results.append(inner(value(1, 0.001)))
        assert asyncio.current_task() is task
        assert asyncio.get_running_loop() is loop
        loop.call_soon(lambda: results.append(inner(value(2))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        future = loop.create_future()
        future.add_done_callback(lambda future: results.append(inner(value(future.result()))))
        future.set_result(3)
        await value(0, 0.001)
        return "end"

    assert nest.run_until_complete(main()) == "end"
    assert sorted(results) == [1, 2, 3]


def test_others_go_on_meanwhile(nest):
    seen = []

    async def other():
        for n in range(3):
            seen.append((n, asyncio.current_task().get_name()))
            await asyncio.sleep(0.001)

    async def main():
        task = asyncio.create_task(other(), name="other")
        inner(value(1, 0.05))
        assert task.done()

    nest.run_until_complete(main())
    assert seen == [(n, "other") for n in range(3)]


def test_each_waits_for_its_own(nest):
    """An inner run that ends before the outer one goes on, and one that is done early waits for those within it."""
    order = []

    async def runs(name, seconds):
        order.append(inner(value(name, seconds)))

    async def main():
        await asyncio.gather(runs("long", 0.02), runs("short", 0.001), runs("none", 0))

    nest.run_until_complete(main())
    assert order == ["none", "short", "long"]


def test_deep(nest):
    async def down(depth):
        await asyncio.sleep(0)
        return depth if depth == 60 else inner(down(depth + 1))

    assert nest.run_until_complete(down(0)) == 60


@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_what_the_inner_one_raises(nest, kind):
    async def fail():
        await asyncio.sleep(0)
        raise kind("mine")

    async def main():
        task = asyncio.current_task()
        with pytest.raises(kind):
            inner(fail())
        assert asyncio.current_task() is task
        return await value(7, 0.001)

    assert nest.run_until_complete(main()) == 7
    assert not nest.is_running()


def test_stop_is_for_all(nest):
    async def main():
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().stop)
        with pytest.raises(RuntimeError, match="stopped before Future completed"):
            inner(value(1, 10))

    task = nest.create_task(main())
    nest.run_forever()
    assert not nest._stopping
    nest.run_until_complete(task)
    for task in asyncio.all_tasks(nest):
        task.cancel()
    nest.run_until_complete(asyncio.sleep(0))


def test_run_forever(nest):
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        return await value(3)

    assert nest.run_until_complete(main()) == 3


def test_another_loop(nest):
    async def main():
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        other = aioxide.new_event_loop()
        back = other.create_task(across(loop))
        assert other.run_until_complete(back) == 5
        other.close()
        assert (asyncio.get_running_loop(), asyncio.current_task()) == (loop, task)

    async def across(loop):
        mine = asyncio.get_running_loop()
        assert mine is not loop
        await asyncio.sleep(0)
        result = loop.run_until_complete(value(5, 0.001))
        assert asyncio.get_running_loop() is mine
        return result

    nest.run_until_complete(main())
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_while_no_loop_is_said_to_run(nest):
    """As some programs do to run another one inside."""

    async def main():
        asyncio._set_running_loop(None)
        assert nest.run_until_complete(value(1, 0.001)) == 1
        asyncio._set_running_loop(nest)
        return await value(2)

    assert nest.run_until_complete(main()) == 2


def test_answers_leave_before_another_loop_runs(nest):
    """Held back with the first half of an answer, they would wait for the end of the job."""
    times = []

    class Serves(Peer):
        def data_received(self, data):
            self.transport.write(b"head")
            self.transport.write(b"body")
            self.transport.write(b"head")
            if data == b"last":
                other = aioxide.new_event_loop()
                other.run_until_complete(asyncio.sleep(0.05))
                other.close()
            self.transport.write(b"body")

    def ask(theirs):
        for question in [b"go on"] * 20 + [b"last"]:
            theirs.sendall(question)
            started = time.monotonic()
            assert len(theirs.recv(12, socket.MSG_WAITALL)) == 12
            times.append(time.monotonic() - started)
            assert theirs.recv(4, socket.MSG_WAITALL) == b"body"

    async def main():
        ours, theirs = tcp_pair()
        transport, _ = await asyncio.get_running_loop().create_connection(Serves, sock=ours)
        await asyncio.to_thread(ask, theirs)
        transport.close()
        theirs.close()

    nest.run_until_complete(main())
    assert times[-1] < 0.04


def test_not_in_another_thread(nest):
    errors, begun = [], []

    async def begins():
        begun.append(1)

    def elsewhere():
        coro = begins()
        try:
            nest.run_until_complete(coro)
        except RuntimeError as error:
            errors.append(str(error))
        coro.close()

    async def main():
        await asyncio.to_thread(elsewhere)
        return inner(value(1))

    assert nest.run_until_complete(main()) == 1
    assert errors == ["This event loop is already running"]
    assert not begun


def test_a_context_that_is_taken(nest):
    """Work that shares the context of the job that waits can't run before it goes on, and does then, in its order."""
    context, seen = contextvars.copy_context(), []

    async def shares(name):
        seen.append(name)
        await asyncio.sleep(0)
        seen.append(name)

    async def main():
        loop = asyncio.get_running_loop()
        first = asyncio.create_task(shares("first"), context=context)
        loop.call_soon(seen.append, "second", context=context)
        future = loop.create_future()
        future.add_done_callback(lambda _: seen.append("third"), context=context)
        future.set_result(None)
        inner(value(1, 0.001))
        assert seen == []
        await first

    nest.run_until_complete(nest.create_task(main(), context=context))
    assert seen == ["first", "second", "third", "first"]


class Talks(Peer):
    """Runs the loop until the next bytes are there, in the call that brought the last ones."""

    def __init__(self, loop):
        self.loop, self.got, self.depth, self.deepest = loop, bytearray(), 0, 0
        self.lost = loop.create_future()

    def data_received(self, data):
        self.got += data
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        if self.depth < 20:
            self.transport.write(b"more")
            self.loop.run_until_complete(asyncio.sleep(0.002))
        self.depth -= 1

    def connection_lost(self, error):
        self.lost.set_result(error)


class TalksBuffered(Talks, asyncio.BufferedProtocol):
    def get_buffer(self, hint):
        self.buffer = bytearray(100)
        return self.buffer

    def buffer_updated(self, count):
        Talks.data_received(self, bytes(self.buffer[:count]))


@pytest.mark.parametrize("pair", [tcp_pair, socket.socketpair])
@pytest.mark.parametrize("kind", [Talks, TalksBuffered])
def test_a_protocol_runs_the_loop(nest, kind, pair):
    ours, theirs = pair()

    def answer():
        theirs.settimeout(5)
        for n in range(25):
            theirs.sendall(bytes([n]))
            if n < 19:
                assert theirs.recv(4) == b"more"
        theirs.shutdown(socket.SHUT_WR)
        while theirs.recv(4):
            pass

    async def main():
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(lambda: kind(loop), sock=ours)
        thread = threading.Thread(target=answer)
        thread.start()
        assert await protocol.lost is None
        thread.join()
        return protocol

    protocol = nest.run_until_complete(main())
    assert sorted(protocol.got) == list(range(25))
    assert protocol.deepest > 5
    theirs.close()


@pytest.mark.parametrize("kind", [Talks, TalksBuffered])
def test_a_protocol_runs_the_loop_over_tls(nest, kind):
    async def main():
        loop, served = asyncio.get_running_loop(), []

        def serve():
            served.append(kind(loop))
            return served[-1]

        server = await loop.create_server(serve, "127.0.0.1", 0, ssl=server_context())
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context(), server_hostname="localhost"
        )
        for n in range(25):
            writer.write(bytes([n]))
            if n < 19:
                assert await reader.readexactly(4) == b"more"
        writer.close()
        await writer.wait_closed()
        assert await served[0].lost is None
        server.close()
        return served[0]

    protocol = nest.run_until_complete(main())
    assert sorted(protocol.got) == list(range(25))
    assert protocol.deepest > 5


def test_a_protocol_ends_within_its_call(nest):
    events = []

    class Closes(Peer):
        def data_received(self, data):
            self.transport.close()
            inner(asyncio.sleep(0.001))
            events.append("received")

        def connection_lost(self, error):
            events.append("lost")

    async def main():
        ours, theirs = tcp_pair()
        transport, _ = await asyncio.get_running_loop().create_connection(Closes, sock=ours)
        theirs.sendall(b"x")
        await asyncio.sleep(0.01)
        assert transport.is_closing()
        theirs.close()

    nest.run_until_complete(main())
    assert events == ["lost", "received"]


def test_datagrams(nest):
    got = []

    class Waits(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            got.append(data)
            if len(got) < 10:
                inner(asyncio.sleep(0.001))

    async def main():
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Waits, local_addr=("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
            for n in range(30):
                theirs.sendto(b"%d" % n, transport.get_extra_info("sockname"))
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        transport.close()

    nest.run_until_complete(main())
    assert sorted(map(int, got)) == list(range(30))


def test_a_reader_that_runs_the_loop(nest):
    ours, theirs = socket.socketpair()
    seen = []

    def read():
        inner(asyncio.sleep(0.005))  # it stays readable, and asks again and again
        seen.append(ours.recv(1))

    async def main():
        asyncio.get_running_loop().add_reader(ours, read)
        theirs.sendall(b"abc")
        while len(seen) < 3:
            await asyncio.sleep(0.001)
        asyncio.get_running_loop().remove_reader(ours)

    ours.setblocking(False)
    nest.run_until_complete(main())
    assert seen == [b"a", b"b", b"c"]
    ours.close()
    theirs.close()


def test_streams(nest):
    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(inner(value(line.upper(), 0.001)))
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for n in range(5):
            writer.write(b"line %d\n" % n)
            assert inner(reader.readline()) == b"LINE %d\n" % n
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    nest.run_until_complete(main())


def test_while_it_is_watched(nest, tmp_path):
    async def main():
        before = asyncio.get_running_loop().metrics().iterations
        assert inner(value(1, 0.02)) == 1
        assert asyncio.get_running_loop().metrics().iterations > before
        return await value(2, 0.001)

    nest.set_debug(True)
    with aioxide.trace(tmp_path / "trace.json"):
        assert nest.run_until_complete(main()) == 2
    gc.collect()


def test_the_names_stay_ours():
    """`nest_asyncio` puts asyncio's Task in Python in the place, before it asks."""
    with aioxide.install():
        loop = asyncio.new_event_loop()
        try:
            asyncio.Task = asyncio.tasks.Task = asyncio.tasks._PyTask
            asyncio.Future = asyncio.futures.Future = asyncio.futures._PyFuture
            assert _patch_loop(loop)
            assert (asyncio.Task, asyncio.tasks.Task) == (aioxide.Task, aioxide.Task)
            assert (asyncio.Future, asyncio.futures.Future) == (aioxide.Future, aioxide.Future)
        finally:
            _core._allow_nested_runs(False)
            loop.close()
