"""Upgrades: `start_tls` in both directions, over every kind of transport."""

import asyncio
import contextlib
import inspect
import os
import socket
import ssl
import struct
import sys

import pytest
from tls import (
    Echo,
    Peer,
    Recorder,
    client_context,
    connect,
    server_context,
    serving,
)


def test_an_upgrade_of_streams_in_both_directions(aio, run_clean):
    async def main():
        async def handler(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"go ahead\n")
            await writer.drain()
            await writer.start_tls(server_context())
            writer.write(b"secret " + await reader.readline())
            await writer.drain()
            writer.close()

        server = await aio.start_server(handler, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go ahead\n"
        await writer.start_tls(client_context(), server_hostname="localhost")
        assert writer.get_extra_info("sslcontext") is not None
        writer.write(b"hello\n")
        assert await reader.readline() == b"secret hello\n"
        assert await reader.read() == b""
        writer.close()
        server.close()

    run_clean(main())


def test_a_handshake_that_came_with_the_clear_text_is_not_lost(aio, run_clean):
    """The ClientHello lies in the server's reader when it upgrades (as behind a PROXY header)."""
    if aio is asyncio and "_incoming" not in inspect.getsource(asyncio.BaseEventLoop.start_tls):
        pytest.skip("gh-142352: this asyncio loses it")

    async def main():
        arrived = asyncio.Event()

        async def handler(reader, writer):
            assert await reader.readline() == b"PROXY\n"
            await arrived.wait()
            while not reader._buffer:
                await asyncio.sleep(0.001)
            await writer.start_tls(server_context())
            writer.write(b"secret " + await reader.readline())
            writer.close()

        server = await aio.start_server(handler, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"PROXY\n")
        peer = Peer(reader, writer, client_context(), False, "localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.object.do_handshake()
        peer.flush()
        await asyncio.sleep(0.05)
        arrived.set()
        await asyncio.wait_for(peer.handshake(), 5)
        peer.send(b"hello\n")
        assert await peer.recv() == b"secret hello\n"
        writer.close()
        server.close()

    run_clean(main())


def test_clear_text_that_a_client_has_yet_to_read_stays(aio, run_clean):
    if aio is asyncio and sys.version_info < (3, 13):
        pytest.skip("this asyncio has not mended it")

    async def main():
        async def handler(reader, writer):
            writer.write(b"one\ntwo\nthree\n")
            await reader.readline()
            await writer.start_tls(server_context())
            writer.write(b"four\n")
            writer.close()

        server = await aio.start_server(handler, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
        assert await reader.readline() == b"one\n"
        writer.write(b"now\n")
        await writer.start_tls(client_context(), server_hostname="localhost")
        assert await reader.read() == b"two\nthree\nfour\n"
        writer.close()
        server.close()

    run_clean(main())


def test_an_upgrade_of_protocols(run_clean):
    async def main():
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        ours, theirs = Recorder(), Echo()
        transport, _ = await loop.create_connection(lambda: ours, sock=here)
        other, _ = await loop.connect_accepted_socket(lambda: theirs, there)
        theirs.transport, ours.transport = await asyncio.gather(
            loop.start_tls(other, theirs, server_context(), server_side=True),
            loop.start_tls(transport, ours, client_context(), server_hostname="localhost"),
        )
        ours.transport.write(b"x" * 100_000)
        await ours.until(100_000)
        # Nobody is told of a connection twice.
        assert ours.events == theirs.events == ["made"]
        ours.transport.close()
        assert await ours.lost is None
        assert await theirs.lost is None
        assert transport.is_closing()

    run_clean(main())


def test_a_failed_upgrade_closes_the_connection(run_clean):
    async def main():
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=here)
        there.send(b"this is no TLS, whatever it may be")
        with pytest.raises(ssl.SSLError):
            await loop.start_tls(transport, protocol, client_context(), server_hostname="localhost")
        assert isinstance(await protocol.lost, ssl.SSLError)
        assert transport.is_closing()
        there.close()

    run_clean(main())


@pytest.mark.parametrize("how", ["reset", "timeout"])
def test_a_connection_that_is_lost_in_an_upgrade(aio, run_clean, how):
    """Its protocol hears of it, as it does of any other end: `wait_closed` comes back."""
    if aio is asyncio:
        pytest.skip("asyncio leaves the protocol waiting")

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            reader, writer = await aio.open_connection(*listener.getsockname())
            sock, _ = listener.accept()
            error = ConnectionResetError if how == "reset" else ConnectionAbortedError
            with sock:
                if how == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    asyncio.get_running_loop().call_later(0.02, sock.close)
                timeout = 0.05 if how == "timeout" else None
                with pytest.raises(error):
                    await writer.start_tls(client_context(), server_hostname="localhost", ssl_handshake_timeout=timeout)
                writer.close()
                with pytest.raises(error):
                    await writer.wait_closed()
                with pytest.raises(error):
                    await reader.read()

    run_clean(main())


@pytest.mark.parametrize("turns", range(5))
def test_a_cancelled_upgrade_closes_the_connection(run_clean, turns):
    async def main():
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        protocol = Recorder()
        transport, _ = await loop.create_connection(lambda: protocol, sock=here)
        upgrade = loop.start_tls(transport, protocol, client_context(), server_hostname="localhost")
        task = loop.create_task(upgrade)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if turns:
            await asyncio.sleep(0)
            assert transport.is_closing()
        transport.close()
        there.close()

    run_clean(main())


def test_tls_in_tls(run_clean):
    async def main():
        loop = asyncio.get_running_loop()
        upgraded = loop.create_future()

        class Server(Echo):
            def data_received(self, data):
                if data != b"again":
                    super().data_received(data)
                    return
                self.transport.write(b"yes")
                upgraded.set_result(
                    loop.create_task(loop.start_tls(self.transport, self, server_context("other"), server_side=True))
                )

        server = None

        def factory():
            nonlocal server
            server = Server()
            return server

        async with serving(factory) as address:
            outer, protocol = await connect(address)
            outer.write(b"again")
            await protocol.until(3)
            inner = loop.start_tls(outer, protocol, client_context(), server_hostname="other.test")
            transport, server.transport = await asyncio.gather(inner, await upgraded)
            assert transport.get_extra_info("peercert")["subject"] == ((("commonName", "other.test"),),)
            protocol.data = b""
            data = os.urandom(1_000_000)
            transport.write(data)
            await protocol.until(len(data))
            assert protocol.data == data
            transport.close()
            assert await protocol.lost is None
            assert outer.is_closing()

    run_clean(main(), 30)


def test_tls_over_a_transport_written_in_python(run_clean):
    """Whatever has asyncio's methods can be upgraded."""

    class Pipe(asyncio.Transport):
        """Hands bytes to another one, in the next turn."""

        _start_tls_compatible = True
        other = protocol = None
        closing = False

        def write(self, data):
            asyncio.get_running_loop().call_soon(self.other.receive, bytes(data))

        def receive(self, data):
            if self.closing:
                return
            while data:
                buffer = self.protocol.get_buffer(-1)
                length = min(len(buffer), len(data))
                buffer[:length] = data[:length]
                self.protocol.buffer_updated(length)
                data = data[length:]

        def set_protocol(self, protocol):
            self.protocol = protocol

        def is_closing(self):
            return self.closing

        def close(self):
            if not self.closing:
                self.closing = True
                asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

        def _force_close(self, error):
            self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, error)

        def pause_reading(self):
            pass

        def resume_reading(self):
            pass

        def get_extra_info(self, name, default=None):
            return default

    async def main():
        loop = asyncio.get_running_loop()
        here, there = Pipe(), Pipe()
        here.other, there.other = there, here
        ours, theirs = Recorder(), Echo()
        theirs.transport, transport = await asyncio.gather(
            loop.start_tls(there, theirs, server_context(), server_side=True),
            loop.start_tls(here, ours, client_context(), server_hostname="localhost"),
        )
        transport.write(b"x" * 300_000)
        await ours.until(300_000)
        transport.close()
        assert await ours.lost is None

    run_clean(main())


def test_an_upgrade_of_a_connection_that_is_lost_meanwhile(run_clean):
    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            transport, protocol = await loop.create_connection(asyncio.Protocol, *listener.getsockname())
            transport.close()
            context = client_context()
            assert await loop.start_tls(transport, protocol, context, server_hostname="localhost") is None

    run_clean(main())
