"""What is measured: small asyncio programs that do one thing n times, and say how often they did it.

Every name of asyncio is looked up when it is used, so that an installed aioxide is the one at work.
"""

import asyncio
import socket
import threading

WORKLOADS = {}


def workload(n):
    """Registers a coroutine function that is given n and returns how many operations it saw done."""

    def register(function):
        WORKLOADS[function.__name__] = (function, n)
        return function

    return register


async def nothing():
    pass


async def one():
    return 1


# Tasks and futures ------------------------------------------------------------------------


@workload(100_000)
async def task_switch(n):
    """A hundred tasks that do nothing but let the next one run."""
    done = 0

    async def spin():
        nonlocal done
        for _ in range(n // 100):
            await asyncio.sleep(0)
            done += 1

    await asyncio.gather(*[spin() for _ in range(100)])
    return done


@workload(15_000)
async def create_task(n):
    done = 0
    for _ in range(n):
        await asyncio.create_task(nothing())
        done += 1
    return done


@workload(20_000)
async def future_pingpong(n):
    """Two tasks that wake each other through futures."""
    loop = asyncio.get_running_loop()
    balls = [loop.create_future(), loop.create_future()]

    async def play(side):
        for _ in range(n // 2):
            await balls[side]
            balls[side] = loop.create_future()
            balls[1 - side].set_result(None)

    balls[0].set_result(None)
    await asyncio.gather(play(0), play(1))
    return n


@workload(10_000)
async def cancel10k(n):
    tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(n)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return sum(task.cancelled() for task in tasks)


# Callbacks and timers ---------------------------------------------------------------------


@workload(100_000)
async def call_soon_chain(n):
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    left = n

    def again():
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(again)
        else:
            finished.set_result(None)

    loop.call_soon(again)
    await finished
    return n - left


@workload(50_000)
async def threadsafe_flood(n):
    """Another thread calls call_soon_threadsafe as fast as it can."""
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    count = 0

    def hit():
        nonlocal count
        count += 1
        if count == n:
            finished.set_result(None)

    def flood():
        for _ in range(n):
            loop.call_soon_threadsafe(hit)

    thread = threading.Thread(target=flood)
    thread.start()
    await finished
    thread.join()
    return count


@workload(50_000)
async def timers_cancel(n):
    """Timers of which nine in ten are cancelled before they are due."""
    loop = asyncio.get_running_loop()
    fired = 0

    def fire():
        nonlocal fired
        fired += 1

    timers = [loop.call_later(0.01 + (number * 7919 % 1000) / 1e6, fire) for number in range(n)]
    for number, timer in enumerate(timers):
        if number % 10:
            timer.cancel()
    await asyncio.sleep(0.05)
    return fired * 10


@workload(20_000)
async def timers_fire(n):
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    fired = 0

    def fire():
        nonlocal fired
        fired += 1
        if fired == n:
            finished.set_result(None)

    for number in range(n):
        loop.call_later((number * 7919 % 1000) / 1e5, fire)
    await finished
    return fired


@workload(10_000)
async def sleep_storm(n):
    await asyncio.gather(*[asyncio.sleep((number % 100) / 1e4) for number in range(n)])
    return n


# Waiting for several ----------------------------------------------------------------------


@workload(10_000)
async def gather10k(n):
    return sum(await asyncio.gather(*[one() for _ in range(n)]))


@workload(10_000)
async def taskgroup10k(n):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(n)]
    return sum(task.result() for task in tasks)


@workload(10_000)
async def wait_for(n):
    return sum([await asyncio.wait_for(one(), 60) for _ in range(n)])


@workload(20_000)
async def timeout(n):
    done = 0
    for _ in range(n):
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
            done += 1
    return done


# Locks and queues -------------------------------------------------------------------------


@workload(50_000)
async def lock_free(n):
    lock = asyncio.Lock()
    done = 0
    for _ in range(n):
        async with lock:
            done += 1
    return done


@workload(20_000)
async def lock_contended(n):
    lock = asyncio.Lock()
    done = 0

    async def work():
        nonlocal done
        for _ in range(n // 100):
            async with lock:
                await asyncio.sleep(0)
                done += 1

    await asyncio.gather(*[work() for _ in range(100)])
    return done


@workload(20_000)
async def queue_1(n):
    """A producer and a consumer with room for one item between them."""
    queue = asyncio.Queue(1)

    async def produce():
        for number in range(n):
            await queue.put(number)

    producer = asyncio.create_task(produce())
    for number in range(n):
        assert await queue.get() == number
    await producer
    return n


# Bytes and threads ------------------------------------------------------------------------


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Client(asyncio.Protocol):
    """Sends a message, waits for it to come back, and does so again."""

    def __init__(self, message, times, finished):
        self.message, self.left, self.finished = message, times, finished
        self.missing = len(message)

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self.message)

    def data_received(self, data):
        self.missing -= len(data)
        if self.missing:
            return
        self.left -= 1
        if self.left:
            self.missing = len(self.message)
            self.transport.write(self.message)
        else:
            self.transport.close()
            self.finished.set_result(None)


@workload(20_000)
async def echo_protocol(n):
    """Sixteen connections, server and client in this loop, 1 KiB a message."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    ends = [loop.create_future() for _ in range(16)]
    for end in ends:
        await loop.create_connection(lambda end=end: Client(b"x" * 1024, n // 16, end), *address)
    await asyncio.gather(*ends)
    server.close()
    await server.wait_closed()
    return n


@workload(5_000)
async def echo_streams(n):
    """One connection with readers and writers, 1 KiB a message."""

    async def serve(reader, writer):
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    done = 0
    for _ in range(n):
        writer.write(b"x" * 1024)
        await reader.readexactly(1024)
        done += 1
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    return done


@workload(10_000)
async def sock_echo(n):
    """sock_recv and sock_sendall over a pair of sockets."""
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    done = 0
    with one, other:
        for _ in range(n):
            await loop.sock_sendall(one, b"x" * 64)
            done += len(await loop.sock_recv(other, 64)) == 64
    return done


@workload(2_000)
async def to_thread(n):
    return sum([await asyncio.to_thread(int, 1) for _ in range(n)])
