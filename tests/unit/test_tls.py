"""TLS on the program's own contexts: data, what is known of a connection, bad options."""

import asyncio
import contextlib
import os
import socket
import ssl

import pytest
from tls import (
    AUTHORITY,
    HERE,
    Echo,
    Lender,
    Recorder,
    client_context,
    connect,
    server_context,
    serving,
)

# --- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000, 16 * 1024, 16 * 1024 + 1, 100_000, 1 << 20])
def test_an_echo_through_protocols(run_clean, size):
    data = os.urandom(size)

    async def main():
        async with serving(Echo) as address:
            transport, protocol = await connect(address)
            transport.write(data)
            await protocol.until(size)
            assert protocol.data == data
            transport.close()
            assert await protocol.lost is None
            assert transport.is_closing()

    run_clean(main(), 30)


@pytest.mark.parametrize("room", [1000, 5000, 300_000])
def test_an_echo_through_lent_buffers(run_clean, room):
    data = os.urandom(1 << 20)

    async def main():
        async with serving(lambda: Lender(room)) as address:
            transport, protocol = await connect(address, lambda: Lender(room, keep=True))
            transport.write(data)
            while len(protocol.received) < len(data):
                await asyncio.sleep(0.001)
            assert protocol.received == data
            transport.close()
            await protocol.lost

    run_clean(main(), 30)


def test_a_lent_bytearray_gets_what_is_received(aio, run_clean):
    if aio is asyncio:
        pytest.skip("gh-156275: asyncio loses all records but the first")
    data = os.urandom(300_000)

    class Bytes(Lender):
        kind = bytearray

    async def main():
        async with serving(lambda: Bytes(100_000)) as address:
            transport, protocol = await connect(address, lambda: Bytes(70_000, keep=True))
            transport.write(data)
            while len(protocol.received) < len(data):
                await asyncio.sleep(0.001)
            assert protocol.received == data
            transport.abort()

    run_clean(main(), 30)


def test_streams(aio, run_clean):
    async def main():
        async def handler(reader, writer):
            while line := await reader.readline():
                writer.write(line.upper())
            writer.close()

        server = await aio.start_server(handler, "127.0.0.1", 0, ssl=server_context())
        address = server.sockets[0].getsockname()
        reader, writer = await aio.open_connection(*address, ssl=client_context(), server_hostname="localhost")
        for length in (1, 10, 10_000, 60_000):
            writer.write(b"a" * length + b"\n")
            await writer.drain()
            assert await reader.readline() == b"A" * length + b"\n"
        assert writer.can_write_eof() is False
        writer.close()
        await writer.wait_closed()
        server.close()

    run_clean(main())


def test_each_kind_of_bytes_is_written_as_it_was_at_the_call(run_clean):
    async def main():
        async with serving(Echo) as address:
            transport, protocol = await connect(address)
            changing = bytearray(b"0123456789" * 30_000)
            expected = bytes(changing)
            transport.write(changing)
            changing[:] = b"x" * len(changing)
            transport.write(memoryview(b"--abc--")[2:5])
            transport.write(b"")
            transport.writelines([b"de", bytearray(b"fg"), memoryview(b"h")])
            transport.writelines([])
            expected += b"abcdefgh"
            await protocol.until(len(expected))
            assert protocol.data == expected
            for bad in ("text", 1, None, [b"x"]):
                with pytest.raises(TypeError):
                    transport.write(bad)
            transport.abort()
            assert await protocol.lost is None

    run_clean(main())


def test_one_byte_at_a_time(run_clean):
    """Records come in pieces, in the handshake and after it."""

    async def crawl(reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                for i in range(len(data)):
                    writer.write(data[i : i + 1])
                    if i % 50 == 0:
                        await asyncio.sleep(0)
        writer.close()

    async def main():
        async with serving(Echo) as address:

            async def relay(reader, writer):
                there, here = await asyncio.open_connection(*address)
                here.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await asyncio.gather(crawl(reader, here), crawl(there, writer))

            server = await asyncio.start_server(relay, "127.0.0.1", 0)
            transport, protocol = await connect(server.sockets[0].getsockname())
            for _ in range(3):
                transport.write(b"x" * 700)
            await protocol.until(2100)
            transport.close()
            assert await protocol.lost is None
            server.close()

    run_clean(main(), 60)


# --- what is known of a connection ---------------------------------------------------------------


def test_extra_info(run_clean):
    async def main():
        context = client_context()
        async with serving(Echo) as address:
            transport, protocol = await connect(address, context=context)
            assert isinstance(transport, asyncio.Transport)
            info = transport.get_extra_info
            assert info("sslcontext") is context
            assert isinstance(info("ssl_object"), ssl.SSLObject)
            assert info("peercert")["subject"] == ((("commonName", "localhost"),),)
            assert info("cipher") == info("ssl_object").cipher()
            assert info("compression") is None
            assert info("peername") == address
            assert info("sockname")[0] == "127.0.0.1"
            assert info("socket").fileno() > 0
            assert info("nothing") is None
            assert info("nothing", 5) == 5
            assert transport.get_protocol() is protocol
            transport.close()
            await protocol.lost
            assert info("sslcontext") is context
            assert info("peername", "gone") == "gone"

    run_clean(main())


def test_what_a_tls_transport_cannot_do(run_clean):
    async def main():
        async with serving(Echo) as address:
            transport, protocol = await connect(address)
            assert transport.can_write_eof() is False
            with pytest.raises(NotImplementedError):
                transport.write_eof()
            transport.close()
            transport.write(b"lost")
            await protocol.lost
            for _ in range(10):
                transport.write(b"lost")

    run_clean(main())


def test_the_protocol_can_be_changed(run_clean):
    async def main():
        async with serving(Echo) as address:
            transport, first = await connect(address)
            transport.write(b"one")
            await first.until(3)
            second = Recorder()
            transport.set_protocol(second)
            assert transport.get_protocol() is second
            transport.write(b"two")
            await second.until(3)
            third = Lender(keep=True)
            transport.set_protocol(third)
            transport.write(b"three")
            while len(third.received) < 5:
                await asyncio.sleep(0.001)
            transport.close()
            assert await third.lost is None
            assert (first.data, second.data) == (b"one", b"two")
            assert second.events == []

    run_clean(main())


# --- contexts ------------------------------------------------------------------------------------


def test_alpn_and_a_client_certificate(run_clean):
    async def main():
        theirs, ours = server_context(), client_context()
        theirs.set_alpn_protocols(["h2", "http/1.1"])
        theirs.verify_mode = ssl.CERT_REQUIRED
        theirs.load_verify_locations(AUTHORITY)
        ours.set_alpn_protocols(["http/1.1"])
        ours.load_cert_chain(HERE / "client.pem")
        made = []

        def factory():
            made.append(Echo())
            return made[0]

        async with serving(factory, theirs) as address:
            transport, protocol = await connect(address, context=ours)
            transport.write(b"x")
            await protocol.until(1)
            server = made[0].transport
            for end in (transport, server):
                assert end.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            assert server.get_extra_info("peercert")["subject"] == ((("commonName", "client.test"),),)
            transport.close()
            await protocol.lost

    run_clean(main())


def test_a_server_chooses_its_certificate_by_name(run_clean):
    async def main():
        theirs, other, asked = server_context(), server_context("other"), []

        def choose(sslobject, name, context):
            asked.append(name)
            if name == "other.test":
                sslobject.context = other
            elif name == "nobody.test":
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            return None

        theirs.sni_callback = choose
        async with serving(Echo, theirs) as address:
            for name in ("localhost", "other.test"):
                transport, protocol = await connect(address, server_hostname=name)
                assert transport.get_extra_info("peercert")["subject"] == ((("commonName", name),),)
                transport.close()
                await protocol.lost
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await connect(address, server_hostname="nobody.test")
        assert asked == ["localhost", "other.test", "nobody.test"]

    run_clean(main())


def test_an_encrypted_key_and_version_limits(run_clean):
    async def main():
        theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), client_context()
        theirs.load_cert_chain(HERE / "encrypted.pem", password="secret")
        theirs.minimum_version = ssl.TLSVersion.TLSv1_3
        ours.maximum_version = ssl.TLSVersion.TLSv1_2
        async with serving(Echo, theirs) as address:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await connect(address, context=ours)
            theirs.minimum_version = ssl.TLSVersion.TLSv1_2
            transport, protocol = await connect(address, context=ours)
            assert transport.get_extra_info("ssl_object").version() == "TLSv1.2"
            transport.write(b"x" * 50_000)
            await protocol.until(50_000)
            transport.close()
            assert await protocol.lost is None

    run_clean(main())


def test_sessions(run_clean):
    """A session that a program took from one connection is offered on the next by its own SSLObject class."""

    async def main():
        theirs, ours = server_context(), client_context()
        ours.maximum_version = ssl.TLSVersion.TLSv1_2  # whose tickets come with the handshake
        async with serving(Echo, theirs) as address:
            transport, protocol = await connect(address, context=ours)
            session = transport.get_extra_info("ssl_object").session
            assert session is not None
            assert transport.get_extra_info("ssl_object").session_reused is False
            transport.close()
            await protocol.lost

            class Again(ssl.SSLObject):
                def do_handshake(self):
                    if self.session is None:
                        self.session = session
                    super().do_handshake()

            ours.sslobject_class = Again
            transport, protocol = await connect(address, context=ours)
            assert transport.get_extra_info("ssl_object").session_reused is True
            transport.close()
            await protocol.lost

    run_clean(main())


def test_methods_of_a_programs_own_sslobject_are_called(run_clean):
    calls = []

    class Counting(ssl.SSLObject):
        def read(self, *args):
            calls.append("read")
            return super().read(*args)

        def write(self, data):
            calls.append("write")
            return super().write(data)

    async def main():
        context = client_context()
        context.sslobject_class = Counting
        async with serving(Echo) as address:
            transport, protocol = await connect(address, context=context)
            assert type(transport.get_extra_info("ssl_object")) is Counting
            transport.write(b"x" * 100_000)
            await protocol.until(100_000)
            assert protocol.data == b"x" * 100_000
            transport.close()
            await protocol.lost

    run_clean(main())
    assert {"read", "write"} <= set(calls)


def test_methods_that_replace_those_of_sslobject_are_called(run_clean, monkeypatch):
    calls, write = [], ssl.SSLObject.write
    monkeypatch.setattr(ssl.SSLObject, "write", lambda self, data: (calls.append(len(data)), write(self, data))[1])

    async def main():
        async with serving(Echo) as address:
            transport, protocol = await connect(address)
            transport.write(b"x" * 10)
            await protocol.until(10)
            transport.close()
            await protocol.lost

    run_clean(main())
    assert calls == [10, 10]


# --- what is asked for wrongly -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"ssl": True}, ValueError, "You must set server_hostname when using ssl without a host"),
        ({"server_hostname": "x"}, ValueError, "server_hostname is only meaningful with ssl"),
        ({"ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with ssl"),
        ({"ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful with ssl"),
        (
            {"ssl": True, "server_hostname": "x", "ssl_handshake_timeout": 0},
            ValueError,
            "ssl_handshake_timeout should be a positive number, got 0",
        ),
        (
            {"ssl": True, "server_hostname": "x", "ssl_shutdown_timeout": -1.5},
            ValueError,
            r"ssl_shutdown_timeout should be a positive number, got -1\.5",
        ),
    ],
)
def test_bad_options_of_a_connection(run_clean, options, error, text):
    async def main():
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        with here, there, pytest.raises(error, match=text):
            await loop.create_connection(asyncio.Protocol, sock=here, **options)

    run_clean(main())


def test_bad_options_of_servers_and_upgrades(run_clean):
    async def main():
        loop = asyncio.get_running_loop()
        for ssl_argument in (True, False):
            with pytest.raises(TypeError, match="ssl argument must be an SSLContext or None"):
                await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=ssl_argument)
        here, there = socket.socketpair()
        with pytest.raises(ValueError, match="Server side SSL needs a valid SSLContext"):
            await loop.connect_accepted_socket(asyncio.Protocol, here, ssl=True)
        here.close()
        there.close()
        here, there = socket.socketpair()
        transport, protocol = await loop.create_connection(asyncio.Protocol, sock=here)
        with pytest.raises(TypeError, match=r"sslcontext is expected to be an instance of ssl\.SSLContext, got None"):
            await loop.start_tls(transport, protocol, None)
        with pytest.raises(TypeError, match=r"transport <object .*> is not supported by start_tls\(\)"):
            await loop.start_tls(object(), protocol, client_context())
        with pytest.raises(ValueError, match="ssl_handshake_timeout should be a positive number"):
            await loop.start_tls(transport, protocol, client_context(), ssl_handshake_timeout=0)
        transport.close()
        there.close()

    run_clean(main())


def test_the_name_of_the_peer_is_checked(run_clean):
    async def main():
        loop = asyncio.get_running_loop()
        async with serving(Echo) as address:
            with pytest.raises(ssl.SSLCertVerificationError, match=r"other\.test"):
                await connect(address, server_hostname="other.test")
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(address, context=ssl.create_default_context())
            # Without a name of its own the host's is checked.
            transport, protocol = await connect(address, server_hostname=None)
            transport.close()
            await protocol.lost
            context = client_context()
            context.check_hostname = False
            transport, protocol = await loop.create_connection(Recorder, *address, ssl=context, server_hostname="")
            transport.close()
            await protocol.lost

    run_clean(main())
