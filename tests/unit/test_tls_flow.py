"""TLS: flow control, and what is left behind."""

import asyncio
import gc
import socket
import ssl
import subprocess
import sys
import weakref

import pytest
from tls import (
    Echo,
    Recorder,
    by_hand,
    client_context,
    connect,
    server_context,
    serving,
)

# --- flow control --------------------------------------------------------------------------------


def test_a_program_that_pauses_reading_gets_no_more(run_clean):
    async def main():
        async with serving(Echo) as address:
            transport, protocol = await connect(address)
            transport.pause_reading()
            assert not transport.is_reading()
            transport.write(b"x" * 100_000)
            await asyncio.sleep(0.05)
            assert protocol.data == b""
            transport.resume_reading()
            assert transport.is_reading()
            await protocol.until(100_000)
            transport.close()
            await protocol.lost

    run_clean(main())


def test_what_came_before_the_end_is_read_after_a_pause(run_clean):
    async def main():
        async def handler(peer):
            await peer.handshake()
            peer.send(b"x" * 10)
            await peer.recv(2)
            peer.send(b"y" * 100_000)

        async with by_hand(handler) as address:
            transport, protocol = await connect(address)
            await protocol.until(10)
            transport.pause_reading()
            transport.write(b"ok")
            await asyncio.sleep(0.1)
            assert protocol.data == b"x" * 10
            transport.resume_reading()
            assert await protocol.lost is None
            assert protocol.data == b"x" * 10 + b"y" * 100_000
            assert protocol.events == ["made", "eof", "lost"]

    run_clean(main())


def test_a_fast_writer_is_asked_to_pause(run_clean):
    class Paused(Recorder):
        def pause_writing(self):
            self.events.append("pause")

        def resume_writing(self):
            self.events.append("resume")

    async def main():
        go = asyncio.Event()
        size, total = 100_000, 0

        async def handler(peer):
            await peer.handshake()
            await go.wait()
            left = total
            while left:
                left -= len(await peer.recv())

        async with by_hand(handler) as address:
            transport, protocol = await connect(address, Paused)
            assert transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
            transport.set_write_buffer_limits(high=200_000, low=50_000)
            assert transport.get_write_buffer_limits() == (50_000, 200_000)
            with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
                transport.set_write_buffer_limits(high=1, low=2)
            while "pause" not in protocol.events:
                transport.write(b"x" * size)
                total += size
                assert total < 100_000_000
            assert transport.get_write_buffer_size() >= 200_000
            go.set()
            while "resume" not in protocol.events:
                await asyncio.sleep(0.001)
            assert transport.get_write_buffer_size() <= 50_000
            assert protocol.events == ["made", "pause", "resume"]
            transport.abort()
            await protocol.lost

    run_clean(main(), 30)


def test_a_reader_that_pauses_stops_the_writer(run_clean):
    """Nothing but bounded buffers lies between two programs."""

    async def main():
        made = []

        class Stuck(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                transport.pause_reading()
                made.append(self)

        class Writer(Recorder):
            paused = False

            def pause_writing(self):
                self.paused = True

        async with serving(Stuck) as address:
            transport, protocol = await connect(address, Writer)
            total = 0
            while not protocol.paused:
                transport.write(b"x" * 65536)
                total += 65536
                await asyncio.sleep(0)
                assert total < 100_000_000
            server = made[0].transport
            assert server.get_read_buffer_size() <= 600_000
            server.resume_reading()
            await made[0].until(total)
            transport.close()
            await protocol.lost

    run_clean(main(), 60)


def test_read_buffer_limits(run_clean):
    async def main():
        async with serving(Echo) as address:
            transport, protocol = await connect(address)
            assert transport.get_read_buffer_limits() == (64 * 1024, 256 * 1024)
            transport.set_read_buffer_limits(high=1000, low=10)
            assert transport.get_read_buffer_limits() == (10, 1000)
            transport.pause_reading()
            transport.write(b"x" * 50_000)
            while transport.get_read_buffer_size() < 1000:
                await asyncio.sleep(0.001)
            transport.resume_reading()
            await protocol.until(50_000)
            transport.close()
            await protocol.lost

    run_clean(main())


# --- nothing is left behind ----------------------------------------------------------------------


def test_everything_goes_with_the_connection(run_clean):
    """Without the garbage collector."""

    async def main():
        loop = asyncio.get_running_loop()
        context = client_context()
        async with serving(Echo) as address:
            transport, protocol = await connect(address, context=context)
            transport.write(b"x")
            await protocol.until(1)
            transport.close()
            await protocol.lost
            await asyncio.sleep(0.01)
            known = [weakref.ref(o) for o in (transport, transport._ssl_protocol, protocol, context)]
            gc.disable()
            try:
                protocol.transport = None
                del transport, protocol, context
                await asyncio.sleep(0)
                assert [ref() for ref in known] == [None] * 4
            finally:
                gc.enable()
        assert loop.is_running()

    run_clean(main())


def test_a_failed_handshake_leaves_nothing(aio, run_clean):
    if aio is asyncio:
        pytest.skip("gh-159049: a cycle in all but the newest")

    async def main():
        context = client_context()
        known = [weakref.ref(context)]

        class Known(Recorder):
            def __init__(self):
                super().__init__()
                known.append(weakref.ref(self))

        async with serving(Echo) as address:
            gc.disable()
            try:
                with pytest.raises(ssl.SSLError):
                    await connect(address, Known, context, server_hostname="other.test")
                del context
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert [ref() for ref in known] == [None, None]
            finally:
                gc.enable()

    run_clean(main())


def test_a_transport_knows_that_the_one_below_it_is_closing(aio, run_clean):
    if aio is asyncio and sys.version_info < (3, 13):
        pytest.skip("this asyncio has not mended it")

    async def main():
        here, there = socket.socketpair()
        loop = asyncio.get_running_loop()
        server = loop.create_task(loop.connect_accepted_socket(asyncio.Protocol, there, ssl=server_context()))
        transport, _ = await loop.create_connection(
            asyncio.Protocol, sock=here, ssl=client_context(), server_hostname="localhost"
        )
        other, _ = await server
        other.abort()
        assert not transport.is_closing()
        transport._ssl_protocol._transport.abort()
        assert transport.is_closing()
        await asyncio.sleep(0.01)

    run_clean(main())


def test_connections_leave_no_objects(aio, run_clean):
    if aio is asyncio:
        pytest.skip("for aioxide")

    async def main():
        async with serving(Echo) as address:

            async def visit():
                transport, protocol = await connect(address, context=context)
                transport.write(b"x" * 1000)
                await protocol.until(1000)
                transport.close()
                await protocol.lost

            context = client_context()
            for _ in range(5):
                await visit()
            await asyncio.sleep(0.05)
            gc.collect()
            before = len(gc.get_objects())
            for _ in range(20):
                await visit()
            await asyncio.sleep(0.05)
            gc.collect()
            assert len(gc.get_objects()) - before < 20

    run_clean(main(), 30)


def test_unix_sockets(run_clean, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "socket")
        server = await loop.create_unix_server(Echo, path, ssl=server_context())
        transport, protocol = await loop.create_unix_connection(
            Recorder, path, ssl=client_context(), server_hostname="localhost"
        )
        transport.write(b"x" * 200_000)
        await protocol.until(200_000)
        transport.close()
        assert await protocol.lost is None
        server.close()

    run_clean(main())


def test_a_program_may_replace_methods_of_a_transport(run_clean):
    async def main():
        async with serving(Echo) as address:
            transport, protocol = await connect(address)
            written, write = [], transport.write
            transport.write = lambda data: (written.append(data), write(data))
            transport.write(b"abc")
            await protocol.until(3)
            assert written == [b"abc"]
            del transport.write
            transport.close()
            await protocol.lost

    run_clean(main())


def test_the_classes_are_asyncios(run_clean):
    async def main():
        async with serving(Echo) as address:
            transport, protocol = await connect(address)
            layer = transport._ssl_protocol
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(layer, asyncio.BufferedProtocol)
            assert layer._app_protocol is protocol
            assert layer._app_transport is transport
            assert layer._state is asyncio.sslproto.SSLProtocolState.WRAPPED
            assert layer._transport.get_protocol() is layer
            transport.close()
            await protocol.lost

    run_clean(main())


def test_ssl_is_imported_when_it_is_needed():

    program = (
        "import sys, aioxide._core\n"
        "before = set(sys.modules)\n"
        "import asyncio\n"
        "class NoSsl:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name in ('ssl', '_ssl'):\n"
        "            raise ImportError(name)\n"
        "for name in ('ssl', '_ssl'):\n"
        "    sys.modules.pop(name, None)\n"
        "sys.meta_path.insert(0, NoSsl())\n"
        "import aioxide, socket\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    a, b = socket.socketpair()\n"
        "    try:\n"
        "        await loop.create_connection(asyncio.Protocol, sock=a, ssl=True, server_hostname='x')\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
        "aioxide.run(main())\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert answer.stdout == "stdlib ssl module not available\n"
