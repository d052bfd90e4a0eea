"""On a debug build of Python, doing something again and again leaves no reference behind."""

import asyncio
import gc
import itertools
import socket
import ssl
import sys

import aioxide
import pytest
from tls import Lender, Recorder, client_context, server_context

OURS, THEIRS = client_context(), server_context()

ROUNDS = 8
TIMES = 100

pytestmark = pytest.mark.skipif(
    not hasattr(sys, "gettotalrefcount"), reason="only a debug build of Python counts its references"
)


async def do_nothing():
    pass


async def fail():
    raise ValueError("expected")


async def tasks(aio, loop):
    task = loop.create_task(do_nothing(), name="named")
    await task
    await aio.gather(do_nothing(), do_nothing())


async def failing_tasks(aio, loop):
    try:
        await loop.create_task(fail())
    except ValueError:
        pass
    await aio.gather(fail(), fail(), return_exceptions=True)


async def cancelled_tasks(aio, loop):
    task = loop.create_task(aio.sleep(60))
    await aio.sleep(0)
    task.cancel("message")
    try:
        await task
    except asyncio.CancelledError:
        pass


async def futures(aio, loop):
    future = loop.create_future()
    future.add_done_callback(lambda done: None)
    loop.call_soon(future.set_result, 1)
    await future
    future = loop.create_future()
    future.set_exception(ValueError("expected"))
    try:
        await future
    except ValueError:
        pass
    aio.Future(loop=loop).cancel()


async def handles(aio, loop):
    loop.call_soon(int)
    loop.call_soon(int).cancel()
    loop.call_later(60, int).cancel()
    loop.call_at(loop.time(), int)
    loop.call_soon_threadsafe(int)
    await aio.sleep(0)


async def timers(aio, loop):
    await aio.sleep(0.0001)
    try:
        async with aio.timeout(0.0001):
            await aio.sleep(60)
    except TimeoutError:
        pass
    try:
        await aio.wait_for(loop.create_future(), 0.0001)
    except TimeoutError:
        pass


async def groups(aio, loop):
    async with aio.TaskGroup() as group:
        group.create_task(aio.sleep(0))
    try:
        async with aio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(aio.sleep(60))
    except* ValueError:
        pass


async def waiting(aio, loop):
    await aio.wait([loop.create_task(do_nothing()), loop.create_task(do_nothing())])
    for done in aio.as_completed([aio.sleep(0), aio.sleep(0)]):
        await done
    await aio.shield(do_nothing())


async def locks(aio, loop):
    lock, event, semaphore, condition = aio.Lock(), aio.Event(), aio.Semaphore(), aio.Condition()

    async def work():
        async with lock, semaphore, condition:
            await event.wait()

    both = loop.create_task(work()), loop.create_task(work())
    await aio.sleep(0)
    event.set()
    await aio.gather(*both)


async def queues(aio, loop):
    queue = aio.Queue(1)
    getting = loop.create_task(queue.get())
    await aio.sleep(0)
    await queue.put(1)
    await getting
    queue.task_done()
    await queue.join()
    getting = loop.create_task(queue.get())
    await aio.sleep(0)
    getting.cancel()
    await aio.gather(getting, return_exceptions=True)


async def watchers(aio, loop):
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        readable = loop.create_future()
        loop.add_reader(one, readable.set_result, None)
        other.send(b"x")
        await readable
        loop.remove_reader(one)


async def threads(aio, loop):
    await loop.run_in_executor(None, int)


async def streams(aio, loop):
    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await aio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"line\n")
    assert await reader.read() == b"line\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    await aio.sleep(0)


async def tls(aio, loop):
    """A connection; one whose handshake fails; an upgrade."""

    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    server = await aio.start_server(echo, "127.0.0.1", 0, ssl=THEIRS)
    address = server.sockets[0].getsockname()
    reader, writer = await aio.open_connection(*address, ssl=OURS, server_hostname="localhost")
    writer.write(b"line\n")
    assert await reader.read() == b"line\n"
    writer.close()
    await writer.wait_closed()
    with pytest.raises(ssl.SSLError):
        await aio.open_connection(*address, ssl=OURS, server_hostname="elsewhere")
    server.close()
    here, there = socket.socketpair()
    transport, protocol = await loop.create_connection(Recorder, sock=here)
    other, theirs = await loop.connect_accepted_socket(Recorder, there)
    transport, other = await aio.gather(
        loop.start_tls(transport, protocol, OURS, server_hostname="localhost"),
        loop.start_tls(other, theirs, THEIRS, server_side=True),
    )
    transport.write(b"x" * 100)
    await theirs.until(100)
    other.close()
    await asyncio.gather(protocol.lost, theirs.lost)
    await aio.sleep(0)


async def much_over_tls(aio, loop):
    """More than fits a record, into a buffer of the protocol's and back."""
    here, there = socket.socketpair()
    (transport, protocol), (_, echo) = await aio.gather(
        loop.create_connection(Recorder, sock=here, ssl=OURS, server_hostname="localhost"),
        loop.connect_accepted_socket(lambda: Lender(100_000), there, ssl=THEIRS),
    )
    transport.write(b"x" * 300_000)
    await protocol.until(300_000)
    transport.close()
    await aio.gather(protocol.lost, echo.lost)
    await aio.sleep(0)


OPERATIONS = [
    tasks,
    failing_tasks,
    cancelled_tasks,
    futures,
    handles,
    timers,
    groups,
    waiting,
    locks,
    queues,
    watchers,
    threads,
    streams,
    tls,
    much_over_tls,
]


def growth(do):
    """How many references a round of doing it adds, at least."""
    counts = []
    for _ in range(ROUNDS):
        do()
        gc.collect()
        sys._clear_internal_caches()  # the interpreter remembers the names that were looked up
        counts.append(sys.gettotalrefcount())
    return min(after - before for before, after in itertools.pairwise(counts[2:]))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_operation_leaves_nothing_behind(operation, aio, loop):
    times = TIMES // 5 if operation in (streams, timers, tls, much_over_tls) else TIMES

    async def repeat():
        for _ in range(times):
            await operation(aio, loop)

    assert growth(lambda: loop.run_until_complete(repeat())) < 5


def test_loops_leave_nothing_behind(new_loop):
    def make_and_use():
        for _ in range(20):
            loop = new_loop()
            loop.call_later(60, int)
            loop.call_soon(int)
            loop.run_until_complete(do_nothing())
            loop.close()

    assert growth(make_and_use) < 5


def test_installing_leaves_nothing_behind():
    def install():
        for _ in range(20):
            with aioxide.install():
                asyncio.run(do_nothing())

    assert growth(install) < 5
