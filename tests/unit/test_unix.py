"""Unix stream sockets: paths of every kind, the socket's file, what is refused, and the life of the file."""

import asyncio
import errno
import logging
import os
import pathlib
import socket
import sys
import tempfile

import aioxide
import pytest


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Client(asyncio.Protocol):
    def __init__(self, loop):
        self.answer, self.lost = loop.create_future(), loop.create_future()

    def data_received(self, data):
        self.answer.set_result(data)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


@pytest.fixture
def path():
    with tempfile.TemporaryDirectory() as place:
        yield os.path.join(place, "socket")


@pytest.fixture
def cleans(aio, loop):
    """Options of create_unix_server that make stock asyncio clean up where it can (3.13 and later)."""
    return aio is aioxide or hasattr(loop, "_unix_server_sockets")


async def ask(loop, path, **options):
    """One question and its answer."""
    transport, protocol = await loop.create_unix_connection(lambda: Client(loop), path, **options)
    transport.write(b"question")
    answer = await protocol.answer
    transport.close()
    await protocol.lost
    return answer


def kinds(path):
    yield path
    yield os.fsencode(path)
    yield pathlib.Path(path)


def test_paths_of_every_kind(loop, run, path):
    async def main():
        for kind in kinds(path):
            async with await loop.create_unix_server(Echo, kind) as server:
                assert [sock.getsockname() for sock in server.sockets] == [path]
                for asked in kinds(path):
                    assert await ask(loop, asked) == b"question"

    run(main())


@pytest.mark.parametrize("name", ["\0aioxide-test-%d", b"\0aioxide-test-%d"])
def test_abstract_names(loop, run, name):
    name %= os.getpid()

    async def main():
        async with await loop.create_unix_server(Echo, name):
            assert await ask(loop, name) == b"question"
        with pytest.raises(ConnectionRefusedError):
            await ask(loop, name)

    run(main())


def test_extra_info(loop, run, path):
    made = []

    class Curious(Echo):
        def connection_made(self, transport):
            super().connection_made(transport)
            made.append(transport)

    async def main():
        async with await loop.create_unix_server(Curious, path):
            transport, protocol = await loop.create_unix_connection(lambda: Client(loop), path)
            assert transport.get_extra_info("peername") == path
            assert transport.get_extra_info("sockname") == ""
            assert transport.get_extra_info("socket").family == socket.AF_UNIX
            transport.write(b"x")
            await protocol.answer
            assert made[0].get_extra_info("sockname") == path
            assert made[0].get_extra_info("peername") == ""
            transport.close()
            await protocol.lost

    run(main())


def test_by_socket(loop, run, path):
    async def main():
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        async with await loop.create_unix_server(Echo, sock=listening) as server:
            assert not listening.getblocking()
            assert server.is_serving()
            connected = socket.socket(socket.AF_UNIX)
            connected.connect(path)
            assert await ask(loop, None, sock=connected) == b"question"
            assert connected.fileno() == -1

    run(main())


def test_the_file_goes_with_the_server(loop, run, path, cleans):
    async def main():
        server = await loop.create_unix_server(Echo, path)
        assert os.path.exists(path)
        server.close()
        await server.wait_closed()
        assert os.path.exists(path) is not cleans
        listening = socket.socket(socket.AF_UNIX)
        if os.path.exists(path):
            os.unlink(path)
        listening.bind(path)
        server = await loop.create_unix_server(Echo, sock=listening)
        server.close()
        assert os.path.exists(path) is not cleans

    run(main())


def test_the_file_stays_when_asked(loop, run, path, cleans):
    async def main():
        options = {"cleanup_socket": False} if cleans else {}
        server = await loop.create_unix_server(Echo, path, **options)
        server.close()
        assert os.path.exists(path)

    run(main())


def test_a_file_that_somebody_else_has_made_stays(loop, run, path):
    async def main():
        server = await loop.create_unix_server(Echo, path)
        os.rename(path, path + ".mine")
        pathlib.Path(path).write_text("theirs")
        server.close()
        assert pathlib.Path(path).read_text() == "theirs"
        server = await loop.create_unix_server(Echo, path + ".other")
        os.unlink(path + ".other")
        server.close()

    run(main())


def test_a_file_that_cannot_be_removed_is_reported(loop, run, path, cleans, caplog, monkeypatch):
    if not cleans:
        pytest.skip("does not clean up")

    async def main():
        server = await loop.create_unix_server(Echo, path)
        monkeypatch.setattr(os, "unlink", lambda path: os.open("/proc/self", os.O_WRONLY))
        with caplog.at_level(logging.ERROR):
            server.close()
        assert f"Unable to clean up listening UNIX socket {path!r}" in caplog.text

    run(main())


def test_a_stale_socket_gives_way(loop, run, path):
    async def main():
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        async with await loop.create_unix_server(Echo, path):
            assert await ask(loop, path) == b"question"

    run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # stock leaves one open
def test_anything_else_does_not_give_way(loop, run, path):
    pathlib.Path(path).write_text("text")

    async def main():
        fds = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="is already in use") as raised:
            await loop.create_unix_server(Echo, path)
        assert raised.value.errno == errno.EADDRINUSE
        assert str(raised.value) == f"[Errno {errno.EADDRINUSE}] Address {path!r} is already in use"
        with pytest.raises(FileNotFoundError):
            await loop.create_unix_server(Echo, path + ".d/socket")
        with pytest.raises(OSError, match="too long"):
            await loop.create_unix_server(Echo, path + "x" * 200)
        with pytest.raises(IndexError):
            await loop.create_unix_server(Echo, "")
        assert len(os.listdir("/proc/self/fd")) == fds

    run(main())


def test_connections_that_fail(loop, run, path):
    async def main():
        fds = len(os.listdir("/proc/self/fd"))
        for wrong, error in [
            (path, FileNotFoundError),
            (path + "x" * 200, OSError),
            ("/dev/null", ConnectionRefusedError),
            (3.5, TypeError),
        ]:
            with pytest.raises(error):
                await loop.create_unix_connection(asyncio.Protocol, wrong)
        assert len(os.listdir("/proc/self/fd")) == fds

    run(main())


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, ValueError, "no path and sock were specified"),
        ({"path": "x", "sock": "y"}, ValueError, "path and sock can not be specified at the same time"),
        ({"path": "x", "server_hostname": "y"}, ValueError, "server_hostname is only meaningful with ssl"),
        ({"path": "x", "server_hostname": 1}, AssertionError, None),
        ({"path": "x", "ssl": True}, ValueError, "you have to pass server_hostname when using ssl"),
        ({"path": "x", "ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful"),
        ({"path": "x", "ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful"),
    ],
)
def test_bad_arguments_of_a_connection(loop, run, options, error, text):
    with pytest.raises(error, match=text):
        run(loop.create_unix_connection(asyncio.Protocol, **options))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, ValueError, "path was not specified, and no sock specified"),
        ({"path": "x", "sock": "y"}, ValueError, "path and sock can not be specified at the same time"),
        ({"path": "x", "ssl": True}, TypeError, "ssl argument must be an SSLContext or None"),
        ({"path": "x", "ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful"),
        ({"path": "x", "ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful"),
    ],
)
def test_bad_arguments_of_a_server(loop, run, options, error, text):
    with pytest.raises(error, match=text):
        run(loop.create_unix_server(asyncio.Protocol, **options))


@pytest.mark.parametrize("family", [(socket.AF_INET, socket.SOCK_STREAM), (socket.AF_UNIX, socket.SOCK_DGRAM)])
def test_sockets_of_another_kind(loop, run, family):
    with socket.socket(*family) as sock:
        for method in (loop.create_unix_connection, loop.create_unix_server):
            with pytest.raises(ValueError, match="A UNIX Domain Stream Socket was expected, got <socket"):
                run(method(asyncio.Protocol, sock=sock))


def test_cancelled_at_every_await(loop, run, path):
    """However far it got: no descriptor stays, and the server goes on."""

    async def main():
        async with await loop.create_unix_server(Echo, path):
            await ask(loop, path)
            fds = len(os.listdir("/proc/self/fd"))
            for turns in range(8):
                task = loop.create_task(loop.create_unix_connection(lambda: Client(loop), path))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    transport, _ = await task
                except asyncio.CancelledError:
                    pass
                else:
                    transport.close()
            assert await ask(loop, path) == b"question"
            async with asyncio.timeout(5):
                while len(os.listdir("/proc/self/fd")) != fds:
                    await asyncio.sleep(0.001)

    run(main())


def test_not_serving_yet(loop, run, path):
    async def main():
        server = await loop.create_unix_server(Echo, path, start_serving=False)
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await ask(loop, path)
        await server.start_serving()
        assert await ask(loop, path) == b"question"
        server.close()

    run(main())


@pytest.mark.stock_since((3, 13))
def test_tools_that_forbid_blocking_calls_know_who_looks_after_the_file(loop, run, path, monkeypatch):
    seen = set()
    look = os.stat

    def stat(asked, **options):
        frame = sys._getframe(1)
        while asked == path and frame is not None:
            if frame.f_code.co_filename.endswith("asyncio/unix_events.py"):
                seen.add(frame.f_code.co_name)
            frame = frame.f_back
        return look(asked, **options)

    async def main():
        server = await loop.create_unix_server(Echo, path)
        monkeypatch.setattr(os, "stat", stat)
        server.close()
        await server.wait_closed()

    run(main())
    assert "_stop_serving" in seen
    assert not os.path.exists(path)
