"""Mixed traffic for a while: every answer is checked, and memory and descriptors are the same at the end.

    python tests/fire/soak.py [SECONDS]

Each kind of traffic is a coroutine that goes on until the time is over and counts its rounds. The first tenth of the
time warms up; after that the process may not grow.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import pathlib
import random
import socket
import ssl
import struct
import sys
import tempfile
import time

import aioxide

chance = random.Random(7)
CERTIFICATES = pathlib.Path(__file__).parents[1] / "unit" / "certificates"


def resident_mebibytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


async def echo(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def exchange(reader, writer):
    """Sends something, expects it back, closes."""
    payload = chance.randbytes(chance.randrange(1, 200_000))
    writer.write(payload)
    assert await reader.readexactly(len(payload)) == payload
    writer.close()
    await writer.wait_closed()


async def tcp(place):
    await exchange(*await asyncio.open_connection(*place.address))


async def unix(place):
    await exchange(*await asyncio.open_unix_connection(place.path))


async def tls(place):
    await exchange(*await asyncio.open_connection(*place.secure, ssl=place.trust, server_hostname="localhost"))


async def upgraded(place):
    """Plain bytes first, then TLS on the same connection."""
    reader, writer = await asyncio.open_connection(*place.upgrading)
    writer.write(b"plain\n")
    assert await reader.readline() == b"go on\n"
    await writer.start_tls(place.trust, server_hostname="localhost")
    await exchange(reader, writer)


async def upgrade(reader, writer, context):
    try:
        if await reader.readline() == b"plain\n":  # else given up
            writer.write(b"go on\n")
            await writer.start_tls(context)
            await echo(reader, writer)
    except OSError:
        pass
    finally:
        writer.close()


async def broken(place):
    """Peers of the TLS server that break off: with nonsense, in the middle of the handshake, or by a reset."""
    reader, writer = await asyncio.open_connection(*place.secure)
    hello, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        place.trust.wrap_bio(hello, out, server_hostname="localhost").do_handshake()
    data = out.read()
    how = chance.randrange(4)
    if how == 0:
        data = chance.randbytes(300)
    elif how == 1:
        data = data[: chance.randrange(len(data))]
    elif how == 2:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.write(data)
    with contextlib.suppress(OSError):
        if how == 3:
            await reader.read(100)
        writer.close()
        await writer.wait_closed()


async def given_up(place):
    """Connections that are cancelled anywhere."""
    task = asyncio.ensure_future(chance.choice([tcp, tls, upgraded])(place))
    for _ in range(chance.randrange(10)):
        await asyncio.sleep(0)
    if chance.randrange(2):
        await asyncio.sleep(chance.random() / 200)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def protocols(place):
    class Client(asyncio.Protocol):
        def __init__(self):
            self.received, self.done = bytearray(), asyncio.get_running_loop().create_future()

        def connection_made(self, transport):
            transport.write(b"x" * 10_000)
            transport.write_eof()

        def data_received(self, data):
            self.received += data

        def connection_lost(self, exc):
            if not self.done.done():
                self.done.set_result(exc)

    transport, protocol = await asyncio.get_running_loop().create_connection(Client, *place.address)
    assert await protocol.done is None
    assert protocol.received == b"x" * 10_000
    transport.close()


async def datagrams(place):
    class Client(asyncio.DatagramProtocol):
        def __init__(self):
            self.answer = asyncio.get_running_loop().create_future()

        def datagram_received(self, data, addr):
            self.answer.set_result(data)

    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Client, remote_addr=place.udp)
    transport.sendto(b"ping")
    with contextlib.suppress(TimeoutError):
        assert await asyncio.wait_for(protocol.answer, 5) == b"ping"
    transport.close()


async def local_datagrams(place):
    """Unix datagrams, both ways over a pair."""
    received = asyncio.get_running_loop().create_future()

    class Last(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            if data == b"the last":
                received.set_result(data)

    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=ours)
    receiver, _ = await loop.create_datagram_endpoint(Last, sock=theirs)
    for _ in range(chance.randrange(50)):
        sender.sendto(chance.randbytes(500))
    sender.sendto(b"the last")
    await received
    sender.close()
    receiver.close()


async def files(place):
    """A file over a connection, as the kernel does it and, over TLS, by hand."""
    loop = asyncio.get_running_loop()
    secure = chance.choice([None, place.trust])
    where = {"ssl": secure, "server_hostname": "localhost"} if secure else {}
    reader, writer = await asyncio.open_connection(*(place.secure if secure else place.address), **where)
    with open(place.file, "rb") as file:
        sent, echoed = await asyncio.gather(
            loop.sendfile(writer.transport, file), reader.readexactly(len(place.content))
        )
    assert sent == len(place.content)
    assert echoed == place.content
    writer.close()
    await writer.wait_closed()


async def pipes(place):
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    inlet, outlet = os.pipe()
    receiving, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), open(inlet, "rb", buffering=0)
    )
    sending, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, open(outlet, "wb", buffering=0))
    sending.write(b"through a pipe")
    sending.close()
    assert await reader.read() == b"through a pipe"
    receiving.close()


async def sockets(place):
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, place.address)
        await loop.sock_sendall(sock, b"y" * 5000)
        count = 0
        while count < 5000:
            count += len(await loop.sock_recv(sock, 5000))


async def threads(place):
    assert await asyncio.to_thread(sum, range(100)) == 4950


async def children(place):
    process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate(b"through a child")
    assert out == b"through a child"
    assert process.returncode == 0
    await asyncio.sleep(0.05)


async def pipeline(place):
    queue, results = asyncio.Queue(5), []

    async def consume():
        while True:
            results.append(await queue.get())
            queue.task_done()

    async with asyncio.TaskGroup() as group:
        consumers = [group.create_task(consume()) for _ in range(3)]
        for number in range(100):
            await queue.put(number)
        await queue.join()
        for consumer in consumers:
            consumer.cancel()
    assert sorted(results) == list(range(100))


async def timeouts(place):
    lock = asyncio.Lock()
    async with lock:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await lock.acquire()
        done, pending = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0.001 * n)) for n in range(5)])
        assert len(done) == 5
        assert not pending


async def names(place):
    assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)


async def failures(place):
    """What goes wrong leaves nothing behind either."""
    with contextlib.suppress(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", place.nobody)
    try:
        await asyncio.open_connection(*place.secure, ssl=place.distrust, server_hostname="localhost")
    except ssl.SSLCertVerificationError:
        pass
    else:
        raise AssertionError("an unknown authority was trusted")


KINDS = [tcp, unix, tls, upgraded, broken, given_up, protocols, datagrams, local_datagrams, files, pipes, sockets]
KINDS += [threads, children, pipeline, timeouts, names, failures]


class Place:
    """Where the servers are."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "echo")
        self.file = os.path.join(directory, "content")
        self.content = chance.randbytes(300_000)
        with open(self.file, "wb") as file:
            file.write(self.content)
        self.trust = ssl.create_default_context(cafile=CERTIFICATES / "authority.pem")
        self.distrust = ssl.create_default_context(cafile=CERTIFICATES / "other.pem")

    async def open(self, stack):
        class Reflect(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport

            def datagram_received(self, data, addr):
                self.transport.sendto(data, addr)

        async def serve(handler, **options):
            server = await asyncio.start_server(handler, "127.0.0.1", 0, backlog=500, **options)
            await stack.enter_async_context(server)
            return server.sockets[0].getsockname()

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATES / "server.pem")
        self.address = await serve(echo)
        self.secure = await serve(echo, ssl=context)
        self.upgrading = await serve(lambda reader, writer: upgrade(reader, writer, context))
        refusing = stack.enter_context(socket.socket())
        refusing.bind(("127.0.0.1", 0))  # and never listens
        self.nobody = refusing.getsockname()[1]
        await stack.enter_async_context(await asyncio.start_unix_server(echo, self.path))
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Reflect, local_addr=("127.0.0.1", 0))
        stack.callback(transport.close)
        self.udp = transport.get_extra_info("sockname")


async def main(seconds):
    reports = []
    # As text: the objects are not to be kept.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(str(context)))
    rounds = dict.fromkeys(KINDS, 0)
    until = time.monotonic() + seconds
    descriptors, figures = open_descriptors(), []

    async def traffic(kind, place):
        while time.monotonic() < until:
            await kind(place)
            rounds[kind] += 1
            await asyncio.sleep(0)

    def look(label):
        gc.collect()
        figures.append(resident_mebibytes())
        print(f"{label:10} {figures[-1]:8.1f} MiB  {open_descriptors():4} descriptors  {sum(rounds.values())} rounds")

    async def watch():
        await asyncio.sleep(seconds / 10)
        while time.monotonic() < until:
            look(f"{seconds - (until - time.monotonic()):.0f} s")
            await asyncio.sleep(seconds / 10)

    with tempfile.TemporaryDirectory() as directory:
        async with contextlib.AsyncExitStack() as stack:
            place = Place(directory)
            await place.open(stack)
            async with asyncio.TaskGroup() as group:
                group.create_task(watch())
                for kind in KINDS:
                    for _ in range(3):
                        group.create_task(traffic(kind, place))
    await asyncio.sleep(0.1)
    look("end")
    for kind, count in rounds.items():
        print(f"{kind.__name__:12} {count}")
    problems = [f"reported: {report}" for report in reports[:10]]
    if len(reports) > 10:
        problems.append(f"{len(reports) - 10} more reports")
    problems += [f"{kind.__name__} never came round" for kind, count in rounds.items() if not count]
    growth = figures[-1] - figures[0]
    if growth > max(3, figures[0] * 0.1):
        problems.append(f"memory grew by {growth:.1f} MiB")
    # The default executor keeps its threads, and the loop what it has opened by now; nothing else may stay.
    if open_descriptors() > descriptors + 3:
        problems.append(f"{open_descriptors() - descriptors} descriptors are left")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", nargs="?", type=float, default=600)
    arguments = parser.parse_args()
    aioxide.install()
    sys.exit(asyncio.run(main(arguments.seconds)))
