"""Servers that programs make of `asyncio.Server`, or without one: what they do here is what public code does."""

import abc
import asyncio
import contextlib
import contextvars
import errno
import gc
import socket
import sys
from asyncio import base_events
from unittest import mock

import pytest

pytestmark = pytest.mark.usefixtures("in_place")
only_here = pytest.mark.parametrize("in_place", ["aioxide"], indirect=True)  # asyncio's own is deaf or raises there

FromBefore = asyncio.Server  # imported before aioxide was installed


def run(main):
    return asyncio.run(asyncio.wait_for(main, 10))


def listening():
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def asked(sock, data=b"hello"):
    """What a server answers, and the transport, still open."""
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), 5), writer


async def left(writer):
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def refused(address):
    """Nobody takes connections there: one waits in the queue of the socket, or is refused."""
    try:
        reader, writer = await asyncio.open_connection(*address)
    except OSError:
        return True
    writer.write(b"hello")
    try:
        await asyncio.wait_for(reader.readexactly(5), 0.1)
    except (TimeoutError, OSError, asyncio.IncompleteReadError):
        return True
    finally:
        await left(writer)
    return False


def arguments(loop, sock, factory=Echo):
    return loop, [sock], factory, None, 10, None


@pytest.mark.parametrize("module", [asyncio, base_events], ids=lambda module: module.__name__)
def test_one_made_by_hand(module):
    async def main():
        loop, sock = asyncio.get_running_loop(), listening()
        server = module.Server(*arguments(loop, sock))
        assert isinstance(server, (asyncio.Server, base_events.Server))
        assert not server.is_serving()
        async with server:
            await server.start_serving()
            assert server.is_serving()
            assert [made.getsockname() for made in server.sockets] == [sock.getsockname()]
            answer, writer = await asked(sock)
            assert answer == b"hello"
            await left(writer)
        assert sock.fileno() == -1

    run(main())


def test_one_that_knows_when_it_has_enough():
    """Stops accepting by `remove_reader` and goes on by `_start_serving`, as chia's does."""

    class Pausable(asyncio.Server):
        most = 2

        def __init__(self, *args):
            super().__init__(*args)
            self.connections = 0
            self.paused = False

        def _attach(self, *transport):
            super()._attach(*transport)
            self.connections += 1
            if not self.paused and self.connections >= self.most:
                self.paused = True
                for sock in self._sockets:
                    assert self._loop.remove_reader(sock.fileno())

        def _detach(self, *transport):
            super()._detach(*transport)
            self.connections -= 1
            if self.paused and self._sockets is not None and self.connections < self.most:
                self.paused = False
                for sock in self._sockets:
                    self._loop._start_serving(self._protocol_factory, sock, self._ssl_context, self, self._backlog)

    async def main():
        sock = listening()
        server = Pausable(*arguments(asyncio.get_running_loop(), sock))
        await server.start_serving()
        (_, first), (_, second) = await asked(sock), await asked(sock)
        assert server.paused
        third = asyncio.create_task(asked(sock))
        assert await asyncio.wait([third], timeout=0.05) == (set(), {third})
        await left(first)
        answer, writer = await third
        assert answer == b"hello"
        server.close()
        await left(writer)
        await left(second)
        while server.connections:
            await asyncio.sleep(0)
        await server.wait_closed()

    run(main())


def test_one_around_another():
    class Counted(asyncio.Server):
        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

    async def main():
        server = Counted(await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0))
        assert server.is_serving()
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        await left(writer)
        server._inner.close()
        assert not server.is_serving()

    run(main())


def test_serving_without_a_server():
    async def main():
        loop, sock = asyncio.get_running_loop(), listening()
        address = sock.getsockname()
        loop._start_serving(Echo, sock)
        answer, writer = await asked(sock)
        assert answer == b"hello"
        await left(writer)
        assert loop.remove_reader(sock)
        assert not loop.remove_reader(sock)
        assert await refused(address)
        loop._start_serving(Echo, sock)
        answer, writer = await asked(sock)
        await left(writer)
        loop._stop_serving(sock)
        assert sock.fileno() == -1
        assert await refused(address)

    run(main())


def test_serving_on_a_closed_socket():
    async def main():
        sock = listening()
        sock.close()
        with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
            asyncio.get_running_loop()._start_serving(Echo, sock)

    run(main())


def test_a_reader_in_place_of_the_server():
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        (shown,) = server.sockets
        ready = loop.create_future()

        def on_ready():
            loop.remove_reader(shown.fileno())
            ready.set_result(None)

        loop.add_reader(shown.fileno(), on_ready)
        reader, writer = await asyncio.open_connection(*shown.getsockname())
        await asyncio.wait_for(ready, 5)
        await left(writer)
        server.close()

    run(main())


def test_a_reader_that_outlives_the_server():
    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(2):
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            (shown,) = server.sockets
            number = shown.fileno()
            loop.add_reader(number, print)
            server.close()
            assert not loop.remove_reader(number)
            # What comes next has the number again.
            with listening() as sock:
                assert sock.fileno() == number
                server = await loop.create_server(Echo, sock=sock)
                answer, writer = await asked(sock)
                assert answer == b"hello"
                await left(writer)
                server.close()

    run(main())


@only_here
@pytest.mark.parametrize("watch", ["add_reader", "add_writer"])
def test_the_number_of_a_file_that_was_closed_while_watched(watch):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        number = ours.fileno()
        getattr(loop, watch)(number, lambda: None)
        ours.close()
        with theirs, listening() as sock:
            assert sock.fileno() == number
            server = await loop.create_server(Echo, sock=sock)
            answer, writer = await asked(sock)
            assert answer == b"hello"
            await left(writer)
            server.close()

    run(main())


@only_here
def test_the_number_of_a_server_whose_socket_was_closed():
    async def main():
        loop, sock = asyncio.get_running_loop(), listening()
        number = sock.fileno()
        loop._start_serving(Echo, sock)
        sock.close()
        loop._stop_serving(sock)
        with listening() as sock:
            assert sock.fileno() == number
            ready = loop.create_future()
            loop.add_reader(sock, ready.set_result, None)
            with socket.create_connection(sock.getsockname()):
                await asyncio.wait_for(ready, 5)
            loop.remove_reader(sock)

    run(main())


def test_a_server_in_place_of_a_reader():
    async def main():
        loop, sock = asyncio.get_running_loop(), listening()
        called = []
        loop.add_reader(sock, called.append, "reader")
        loop._start_serving(Echo, sock)
        answer, writer = await asked(sock)
        assert answer == b"hello"
        assert not called
        await left(writer)
        loop._stop_serving(sock)

    run(main())


def test_a_writer_beside_the_server():
    async def main():
        loop = asyncio.get_running_loop()
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            (shown,) = server.sockets
            loop.add_writer(shown.fileno(), lambda: None)
            answer, writer = await asked(shown)
            assert answer == b"hello"
            assert loop.remove_writer(shown.fileno())
            assert not loop.remove_writer(shown.fileno())
            await left(writer)
            answer, writer = await asked(shown)
            assert answer == b"hello"
            await left(writer)

    run(main())


def test_accepting_by_hand_in_place_of_the_server():
    async def main():
        loop, sock = asyncio.get_running_loop(), listening()
        server = await loop.create_server(Echo, sock=sock)
        accepting = asyncio.create_task(loop.sock_accept(sock))
        await asyncio.sleep(0)
        with socket.create_connection(sock.getsockname()) as client:
            conn, address = await asyncio.wait_for(accepting, 5)
            with conn:
                assert address == client.getsockname()
        assert await refused(sock.getsockname())
        server.close()

    run(main())


class Failing(socket.socket):
    """No descriptor is left, once."""

    failures = 1

    def accept(self):
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return super().accept()


@pytest.fixture
def failing():
    sock = Failing()
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


@pytest.mark.parametrize("removed", [False, True], ids=["left alone", "removed"])
def test_it_goes_on_after_a_pause(failing, removed):
    variable = contextvars.ContextVar("variable", default=None)

    class Seeing(Echo):
        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(variable.get())

    seen, reports = [], []

    async def main():
        loop = asyncio.get_running_loop()
        paused = asyncio.Event()
        loop.set_exception_handler(lambda _, context: (reports.append(context), paused.set()))
        variable.set("made")
        async with await loop.create_server(Seeing, sock=failing):
            variable.set("later")
            asking = asyncio.create_task(asked(failing))
            await paused.wait()
            # Not there in the pause, and made anew after it.
            assert not (removed and loop.remove_reader(failing))
            answer, writer = await asking
            assert answer == b"hello"
            await left(writer)

    run(main())
    assert seen == ["made"]
    assert [report["message"] for report in reports] == ["socket.accept() out of system resource"]


@only_here
def test_closed_in_a_pause(failing):
    reports = []

    async def main():
        loop = asyncio.get_running_loop()
        paused = asyncio.Event()
        loop.set_exception_handler(lambda _, context: (reports.append(context), paused.set()))
        server = await loop.create_server(Echo, sock=failing)
        with socket.create_connection(failing.getsockname()):
            await paused.wait()
            server.close()
            await asyncio.sleep(1.1)

    run(main())
    assert [report["message"] for report in reports] == ["socket.accept() out of system resource"]


def test_a_socket_of_another_kind():
    class Wrapped:
        """As much of a socket as a server needs."""

        def __init__(self, sock):
            self._sock = sock

        def fileno(self):
            return self._sock.fileno()

        def accept(self):
            return self._sock.accept()

        def close(self):
            self._sock.close()

    async def main():
        loop, sock = asyncio.get_running_loop(), listening()
        loop._start_serving(Echo, Wrapped(sock), backlog=2**40)
        answer, writer = await asked(sock)
        assert answer == b"hello"
        await left(writer)
        loop._stop_serving(Wrapped(sock))
        assert sock.fileno() == -1

    run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_one_that_takes_no_connections():
    class Full(asyncio.Server):
        told = ()

        def _attach(self, *transport):
            self.told += ("attach",)
            raise ValueError("full")

        def _detach(self, *transport):
            self.told += ("detach",)

    async def main():
        sock = listening()
        server = Full(*arguments(asyncio.get_running_loop(), sock))
        await server.start_serving()
        assert await refused(sock.getsockname())
        gc.collect()
        await asyncio.sleep(0)
        server.close()
        # Since 3.13 a transport that nobody has closed tells its server, too, when it goes.
        assert server.told == ("attach", "detach")[: 1 + (sys.version_info >= (3, 13))]

    run(main())


def test_an_abstract_one():
    class Named(asyncio.Server, metaclass=abc.ABCMeta):
        @abc.abstractmethod
        def name(self): ...

    class Called(Named):
        def name(self):
            return "called"

    async def main():
        with listening() as sock:
            made = arguments(asyncio.get_running_loop(), sock)
            with pytest.raises(TypeError, match="abstract"):
                Named(*made)
            assert Called(*made).name() == "called"

    run(main())


def test_connections_are_made_in_the_servers_context():
    variable = contextvars.ContextVar("variable", default=None)
    seen = []

    class Seeing(Echo):
        def connection_made(self, transport):
            super().connection_made(transport)
            seen.append(variable.get())

    async def main():
        variable.set("made")
        server = await asyncio.get_running_loop().create_server(Seeing, "127.0.0.1", 0, start_serving=False)
        variable.set("started")
        await server.start_serving()
        variable.set("later")
        _, writer = await asked(server.sockets[0])
        await left(writer)
        server.close()

    run(main())
    assert seen == ["made" if sys.version_info >= (3, 15) else "started"]


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="a transport says who it is since 3.13")
def test_counting_by_hand():
    async def main():
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        server._attach()
        assert server._active_count == 1
        server.close()
        waiting = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0)
        server._detach()
        await waiting
        assert server._active_count == 0
        with pytest.raises(AssertionError):
            server._detach()
        with pytest.raises(AssertionError):
            server._attach()

    run(main())


def test_what_is_patched_is_heard():
    async def main():
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        for module in (asyncio, base_events):
            with mock.patch.object(module.Server, "close", autospec=True) as close:
                server.close()
                close.assert_called_once_with(server)
            assert server.is_serving()
            with mock.patch(f"{module.__name__}.Server.serve_forever") as serve:
                await server.serve_forever()
                serve.assert_awaited_once_with()
        asyncio.Server.close(server)
        assert not server.is_serving()

    run(main())


def test_the_class():
    assert asyncio.Server is base_events.Server
    assert issubclass(asyncio.Server, asyncio.AbstractServer)
    assert asyncio.Server.__name__ == "Server"

    async def main():
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        assert isinstance(server, asyncio.AbstractServer)
        assert issubclass(type(server), asyncio.Server)
        server.close()

    run(main())


def test_the_class_from_before():
    async def main():
        sock = listening()
        server = FromBefore(*arguments(asyncio.get_running_loop(), sock))
        await server.start_serving()
        answer, writer = await asked(sock)
        assert answer == b"hello"
        server.close()
        await left(writer)
        await server.wait_closed()
        async with await asyncio.start_server(print, "127.0.0.1", 0) as server:
            assert isinstance(server, FromBefore)

    run(main())
