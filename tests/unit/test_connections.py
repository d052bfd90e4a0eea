"""create_connection, create_server, connect_accepted_socket, Server, and sock_*: who gets connected to whom."""

import asyncio
import errno
import gc
import socket
import sys
import warnings
import weakref

import pytest


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Client(asyncio.Protocol):
    def __init__(self):
        loop = asyncio.get_running_loop()
        self.answer, self.lost = loop.create_future(), loop.create_future()

    def data_received(self, data):
        if not self.answer.done():
            self.answer.set_result(data)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def newest(aio, since):
    """Skips a test of what asyncio does only since a version; aioxide does it on all of them."""
    if aio is asyncio and sys.version_info < since:
        pytest.skip(f"asyncio does so since {since[0]}.{since[1]}")


def address_of(server):
    return server.sockets[0].getsockname()


def unused_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def ask(*args, **options):
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(Client, *args, **options)
    transport.write(b"hello")
    assert await protocol.answer == b"hello"
    transport.close()
    assert await protocol.lost is None


# --- connecting --------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"happy_eyeballs_delay": 0.2},
        {"interleave": 2},
        {"local_addr": ("127.0.0.1", 0)},
        {"family": socket.AF_INET, "proto": socket.IPPROTO_TCP},
        {"all_errors": True},
    ],
)
def test_connect_by_address_and_by_name(run, loop, options, aio):
    newest(aio, (3, 12) if "all_errors" in options else (3, 11))

    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            host, port = address_of(server)
            await ask(host, port, **options)
            await ask(host, str(port), **options)
            await ask(host.encode(), port, **options)
            await ask("localhost", port, **{"family": socket.AF_INET, **options})

    run(main())


@pytest.mark.parametrize("delay", [None, 0.1])
def test_an_address_that_refuses_is_followed_by_the_next(run, loop, delay):
    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            good, bad = address_of(server)[1], unused_port()

            async def getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0):
                kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
                return [(*kind, ("127.0.0.1", bad)), (*kind, ("127.0.0.1", good))]

            loop.getaddrinfo = getaddrinfo
            await ask("some.name", 80, happy_eyeballs_delay=delay)

    run(main())


@pytest.mark.parametrize("delay", [None, 0.01])
def test_failures_are_combined(run, loop, delay, aio):
    newest(aio, (3, 12))
    ports = [unused_port(), unused_port()]

    async def getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0):
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, ("127.0.0.1", port)) for port in ports]

    async def main():
        loop.getaddrinfo = getaddrinfo
        with pytest.raises(OSError, match=r"Multiple exceptions: .*Connect call failed.*Connect call failed") as caught:
            await loop.create_connection(Client, "some.name", 80, happy_eyeballs_delay=delay)
        assert not isinstance(caught.value, ConnectionRefusedError)
        with pytest.raises(ExceptionGroup, match="create_connection failed") as caught:
            await loop.create_connection(Client, "some.name", 80, happy_eyeballs_delay=delay, all_errors=True)
        assert [type(error) for error in caught.value.exceptions] == [ConnectionRefusedError] * 2
        ports.pop()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Client, "some.name", 80, happy_eyeballs_delay=delay)

    run(main())


def test_a_cancelled_race_leaves_nothing_running(run, loop, aio):
    newest(aio, (3, 13))

    async def main():
        async def hang(sock, address):
            await asyncio.sleep(30)

        loop.sock_connect = hang
        before = asyncio.all_tasks(loop)
        call = loop.create_connection(Client, "127.0.0.1", 9, happy_eyeballs_delay=0.01)
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0.05)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks(loop) == before

    run(main())


@pytest.mark.parametrize(
    ("args", "options", "text"),
    [
        ((), {}, "host and port was not specified and no sock specified"),
        (("h", 1), {"server_hostname": "h"}, "server_hostname is only meaningful with ssl"),
        ((), {"ssl": True}, "You must set server_hostname when using ssl without a host"),
        (("h", 1), {"ssl_handshake_timeout": 1}, "ssl_handshake_timeout is only meaningful with ssl"),
        (("h", 1), {"ssl_shutdown_timeout": 1}, "ssl_shutdown_timeout is only meaningful with ssl"),
    ],
)
def test_arguments_that_make_no_sense(run, loop, args, options, text):
    async def main():
        with pytest.raises(ValueError, match=text):
            await loop.create_connection(Client, *args, **options)

    run(main())


def test_sockets_that_make_no_sense(run, loop):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for call in (
                lambda: loop.create_connection(Client, sock=sock),
                lambda: loop.create_server(Echo, sock=sock),
                lambda: loop.connect_accepted_socket(Echo, sock),
            ):
                with pytest.raises(ValueError, match="A Stream Socket was expected, got"):
                    await call()
            for call in (loop.create_connection, loop.create_server):
                with pytest.raises(ValueError, match="host/port and sock can not be specified at the same time"):
                    await call(Client, "h", 1, sock=sock)
        with pytest.raises(ValueError, match="Neither host/port nor sock were specified"):
            await loop.create_server(Echo)
        with pytest.raises(TypeError, match="ssl argument must be an SSLContext or None"):
            await loop.create_server(Echo, "127.0.0.1", 0, ssl=True)

    run(main())


def test_a_failing_protocol_factory_closes_the_socket(run, loop, aio):
    newest(aio, (3, 14))

    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            sock = socket.create_connection(address_of(server))
            with pytest.raises(ZeroDivisionError):
                await loop.create_connection(lambda: 1 / 0, sock=sock)

    run(main())


def test_local_addresses_that_cannot_be_had(run, loop):
    async def main():
        with pytest.raises(OSError, match=r"error while attempting to bind on address \('192.0.2.1', 0\): ") as caught:
            await loop.create_connection(Client, "127.0.0.1", 9, local_addr=("192.0.2.1", 0))
        assert caught.value.errno == errno.EADDRNOTAVAIL

    run(main())


# --- serving -----------------------------------------------------------------


def test_several_hosts_and_a_port_in_use(run, loop):
    async def main():
        async with await loop.create_server(Echo, ["127.0.0.1", "127.0.0.2", "127.0.0.1"], 0) as server:
            assert sorted(sock.getsockname()[0] for sock in server.sockets) == ["127.0.0.1", "127.0.0.2"]
            for sock in server.sockets:
                await ask(*sock.getsockname())
            taken = address_of(server)
            with pytest.raises(OSError, match="error while attempting to bind on address") as caught:
                await loop.create_server(Echo, *taken, reuse_address=False)
            assert caught.value.errno == errno.EADDRINUSE

    run(main())


def test_accepted_sockets(run, loop):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            client = asyncio.ensure_future(ask(*listener.getsockname()))
            conn, _ = await loop.sock_accept(listener)
            transport, protocol = await loop.connect_accepted_socket(Echo, conn)
            assert protocol.transport is transport
            await client
            await asyncio.sleep(0.01)

    run(main())


def test_the_life_of_a_server(run, loop, aio):
    newest(aio, (3, 13))  # 3.12 waits for its clients for ever

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
        assert not server.is_serving()
        assert server.get_loop() is loop
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving()
        address = address_of(server)
        forever = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="is already being awaited on serve_forever"):
            await server.serve_forever()
        transport, protocol = await loop.create_connection(Client, *address)
        forever.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forever
        assert not server.is_serving()
        assert server.sockets == ()
        await server.wait_closed()
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Client, *address)
        transport.close()
        await protocol.lost

    run(main())


def test_many_connections_at_once(run, loop):
    async def main():
        async with await loop.create_server(Echo, "127.0.0.1", 0, backlog=500) as server:
            await asyncio.gather(*(ask(*address_of(server)) for _ in range(150)))

    run(main())


def test_out_of_descriptors_is_reported_and_survived(run, loop):
    class Listener(socket.socket):
        failures = 1

        def accept(self):
            if self.failures:
                Listener.failures -= 1
                raise OSError(errno.EMFILE, "too many open files")
            return super().accept()

    async def main():
        contexts = []
        loop.set_exception_handler(lambda _, context: contexts.append(context))
        sock = Listener()
        sock.bind(("127.0.0.1", 0))
        async with await loop.create_server(Echo, sock=sock) as server:
            await ask(*address_of(server))
        assert contexts[0]["message"] == "socket.accept() out of system resource"
        assert contexts[0]["exception"].errno == errno.EMFILE

    run(main())


# --- sock_* ------------------------------------------------------------------


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_receive_in_every_way(run, loop, pair):
    ours, theirs = pair

    async def main():
        memory = bytearray(10)
        for call, expected in (
            (lambda: loop.sock_recv(ours, 10), b"hello"),
            (lambda: loop.sock_recv_into(ours, memory), 5),
            (lambda: loop.sock_recvfrom(ours, 10), (b"hello", None)),
            (lambda: loop.sock_recvfrom_into(ours, memory), (5, None)),
            (lambda: loop.sock_recvfrom_into(ours, memory, 5), (5, None)),
        ):
            for sent_first in (True, False):
                task = asyncio.ensure_future(call())
                if not sent_first:
                    await asyncio.sleep(0.001)
                theirs.send(b"hello")
                result = await task
                if isinstance(expected, tuple):
                    result = (result[0], None)
                assert result == expected
        assert memory.startswith(b"hello")
        theirs.shutdown(socket.SHUT_WR)
        assert await loop.sock_recv(ours, 10) == b""

    run(main())


def test_send_all_of_it_while_somebody_reads(run, loop, pair):
    ours, theirs = pair

    async def main():
        payload = bytes(range(256)) * 20_000
        sending = asyncio.ensure_future(loop.sock_sendall(ours, memoryview(payload)))
        received = bytearray()
        while len(received) < len(payload):
            received += await loop.sock_recv(theirs, 100_000)
        assert await sending is None
        assert received == payload
        assert await loop.sock_sendall(ours, b"") is None

    run(main())


def test_a_cancelled_receive_takes_nothing(run, loop, pair):
    ours, theirs = pair

    async def main():
        for _ in range(3):
            task = asyncio.ensure_future(loop.sock_recv(ours, 10))
            await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not loop.remove_reader(ours)
        theirs.send(b"for you")
        assert await loop.sock_recv(ours, 10) == b"for you"

    run(main())


def test_reading_and_writing_the_same_socket_at_once(run, loop, pair):
    ours, theirs = pair

    async def echo():
        while data := await loop.sock_recv(theirs, 1000):
            await loop.sock_sendall(theirs, data)

    async def main():
        echoing = asyncio.ensure_future(echo())
        payload = b"0123456789" * 30_000
        sending = asyncio.ensure_future(loop.sock_sendall(ours, payload))
        received = bytearray()
        while len(received) < len(payload):
            received += await loop.sock_recv(ours, 5000)
        await sending
        assert received == payload
        ours.shutdown(socket.SHUT_WR)
        await echoing

    run(main())


def test_connect_and_its_failures(run, loop):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
            sock.setblocking(False)
            assert await loop.sock_connect(sock, listener.getsockname()) is None
            assert sock.getpeername() == listener.getsockname()
        with socket.socket() as sock:
            sock.setblocking(False)
            port = unused_port()
            with pytest.raises(ConnectionRefusedError, match=rf"Connect call failed \('127.0.0.1', {port}\)"):
                await loop.sock_connect(sock, ("127.0.0.1", port))

    run(main())


def test_blocking_sockets_are_refused_in_debug_mode(run, loop):
    loop.set_debug(True)

    async def main():
        with socket.socket() as sock:
            for call in (
                lambda: loop.sock_recv(sock, 1),
                lambda: loop.sock_recv_into(sock, bytearray(1)),
                lambda: loop.sock_sendall(sock, b"x"),
                lambda: loop.sock_connect(sock, ("127.0.0.1", 1)),
                lambda: loop.sock_accept(sock),
            ):
                with pytest.raises(ValueError, match="the socket must be non-blocking"):
                    await call()

    run(main())


# --- what is left behind -----------------------------------------------------


@pytest.mark.parametrize("what", ["receive", "connect", "race", "serve"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_that_was_closed_too_early_is_collected(new_loop, pair, aio, what):
    if aio is asyncio and what == "race":
        pytest.skip("asyncio's race fails when it is closed")
    ours, _ = pair

    async def serve(loop):
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        await server.serve_forever()

    async def hang(sock, address):
        await asyncio.get_running_loop().create_future()

    calls = {
        "receive": lambda loop: loop.sock_recv(ours, 1),
        "connect": lambda loop: loop.create_connection(Client, "127.0.0.1", 9),
        "race": lambda loop: loop.create_connection(Client, "127.0.0.1", 9, happy_eyeballs_delay=10),
        "serve": serve,
    }
    loop = new_loop()
    if what in ("connect", "race"):
        loop.sock_connect = hang
    task = loop.create_task(calls[what](loop))
    loop.run_until_complete(asyncio.sleep(0.01))
    assert not task.done()
    task._log_destroy_pending = False
    loop.close()
    gone = weakref.ref(loop)
    del task, loop
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
    assert gone() is None
