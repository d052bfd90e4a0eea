"""TLS: handshakes and connections that fail."""

import asyncio
import contextlib
import gc
import socket
import ssl
import struct

import pytest
from conftest import open_files
from tls import (
    Echo,
    Recorder,
    by_hand,
    connect,
    serving,
)

# --- handshakes that fail ------------------------------------------------------------------------


def test_garbage_instead_of_a_handshake(run_clean, loop):
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    loop.set_debug(True)

    async def main():
        async def babble(reader, writer):
            writer.write(b"220 ready when you are\r\n" * 100)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        with pytest.raises(ssl.SSLError):
            await connect(server.sockets[0].getsockname())
        server.close()
        made = []

        class Never(Recorder):
            def connection_made(self, transport):
                made.append(transport)

        async with serving(Never) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while await reader.read(1000):
                    pass
            writer.close()
            await asyncio.sleep(0.05)
        assert made == []

    run_clean(main())
    messages = {report["message"] for report in reports}
    assert messages <= {"Error on transport creation for incoming connection"}
    assert reports
    assert isinstance(reports[0]["exception"], ssl.SSLError)


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("when", ["before", "amid"])
def test_the_peer_goes_away_in_the_handshake(run_clean, how, when):
    async def leave(reader, writer):
        if when == "amid":
            await reader.read(100)
        if how == "reset":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "half-close":
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                await reader.read()
        writer.close()

    async def main():
        before = open_files()
        server = await asyncio.start_server(leave, "127.0.0.1", 0)
        with pytest.raises(ConnectionError):
            await connect(server.sockets[0].getsockname())
        server.close()
        await asyncio.sleep(0.05)
        assert open_files() == before

    run_clean(main())


def test_a_handshake_takes_too_long(run_clean, loop):
    loop.set_exception_handler(lambda *_: None)

    async def main():
        before = open_files()
        silent = socket.create_server(("127.0.0.1", 0))
        with silent, pytest.raises(ConnectionAbortedError, match=r"is taking longer than 0\.05 seconds"):
            await connect(silent.getsockname(), ssl_handshake_timeout=0.05)
        assert open_files() == before

    run_clean(main())


def test_a_server_gives_up_a_silent_client(run_clean):
    async def main():
        async with serving(Echo, ssl_handshake_timeout=0.05) as address:
            reader, writer = await asyncio.open_connection(*address)
            assert await reader.read() == b""
            writer.close()

    run_clean(main())


@pytest.mark.parametrize("how", ["reset", "end", "silence"])
def test_the_server_hears_of_handshakes_that_fail_in_debug_mode(run_clean, loop, how):
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    loop.set_debug(True)

    async def main():
        async with serving(Echo, ssl_handshake_timeout=0.2) as address:
            with socket.create_connection(address) as peer:
                if how == "reset":
                    await asyncio.sleep(0.05)
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    peer.close()
                elif how == "end":
                    peer.shutdown(socket.SHUT_WR)
                while not reports:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)

    run_clean(main())
    (report,) = reports
    assert report["message"] == "Error on transport creation for incoming connection"
    error = ConnectionAbortedError if how == "silence" else ConnectionResetError
    assert isinstance(report["exception"], error)
    assert isinstance(report["protocol"], Echo)
    assert report["transport"] is not None


def test_a_failed_handshake_is_explained_to_the_peer(aio, run_clean):
    if aio is asyncio:
        pytest.skip("asyncio drops the alert")

    async def main():
        seen = asyncio.get_running_loop().create_future()

        async def handler(peer):
            try:
                await peer.handshake()
                await peer.recv()
            except ssl.SSLError as error:
                seen.set_result(error)

        async with by_hand(handler) as address:
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(address, context=ssl.create_default_context())
            assert "UNKNOWN_CA" in str(await seen)

    run_clean(main())


def test_cancelled_at_every_point_of_a_handshake(aio, run_clean):
    async def main():
        loop = asyncio.get_running_loop()
        async with serving(Echo) as address:
            transport, protocol = await connect(address)  # what is kept for good is there now
            transport.close()
            await protocol.lost
            await asyncio.sleep(0.05)
            gc.collect()
            before, finished = open_files(), 0
            for turns in range(40):
                task = loop.create_task(connect(address))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if task.done():
                    finished += 1
                    (await task)[0].abort()
                    continue
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            while open_files() > before:
                await asyncio.sleep(0.01)

    run_clean(main(), 30)


# --- connections that fail -----------------------------------------------------------------------


def test_garbage_after_a_record(run_clean):
    """What came before is delivered; then the connection is over, with OpenSSL's error."""

    async def main():
        async def handler(peer):
            await peer.handshake()
            peer.object.write(b"good")
            peer.writer.write(peer.outgoing.read())
            await peer.recv(2)
            peer.writer.write(b"\x17\x03\x03\x00\x20" + b"garbage!" * 4)
            with contextlib.suppress(ConnectionError):
                await peer.reader.read()

        async with by_hand(handler) as address:
            transport, protocol = await connect(address)
            await protocol.until(4)
            transport.write(b"ok")
            assert isinstance(await protocol.lost, ssl.SSLError)
            assert protocol.data == b"good"
            assert protocol.events == ["made", "lost"]

    run_clean(main())


def test_good_records_in_front_of_garbage(aio, run_clean):
    if aio is asyncio:
        pytest.skip("asyncio drops what came in the same receive")

    async def main():
        async def handler(peer):
            await peer.handshake()
            peer.object.write(b"good")
            peer.writer.write(peer.outgoing.read() + b"\x17\x03\x03\x00\x20" + b"garbage!" * 4)
            with contextlib.suppress(ConnectionError):
                await peer.reader.read()

        async with by_hand(handler) as address:
            _, protocol = await connect(address)
            assert isinstance(await protocol.lost, ssl.SSLError)
            assert protocol.data == b"good"

    run_clean(main())


@pytest.mark.parametrize("how", ["end", "reset"])
def test_the_peer_goes_away_without_close_notify(run_clean, how):
    async def main():
        async def handler(peer):
            await peer.handshake()
            peer.send(b"last words")
            await peer.recv(2)
            if how == "reset":
                sock = peer.writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        async with by_hand(handler) as address:
            transport, protocol = await connect(address)
            await protocol.until(10)
            transport.write(b"ok")
            error = await protocol.lost
            assert isinstance(error, ConnectionResetError) if how == "reset" else error is None
            assert protocol.events == (["made", "lost"] if how == "reset" else ["made", "eof", "lost"])

    run_clean(main())


def test_close_notify_is_answered_after_what_is_unsent(run_clean):
    async def main():
        got = asyncio.get_running_loop().create_future()

        async def handler(peer):
            await peer.handshake()
            peer.send(b"bye")
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.object.unwrap()
            peer.flush()
            data = b""
            while True:
                try:
                    chunk = await peer.recv()
                except ssl.SSLZeroReturnError:
                    break
                if not chunk:
                    break
                data += chunk
            got.set_result(data)

        class Answer(Recorder):
            def eof_received(self):
                super().eof_received()
                self.transport.write(b"x" * 300_000)

        async with by_hand(handler) as address:
            _, protocol = await connect(address, Answer)
            assert await got == b"x" * 300_000
            assert await protocol.lost is None
            assert (protocol.data, protocol.events) == (b"bye", ["made", "eof", "lost"])

    run_clean(main())


def test_close_sends_what_is_unsent_and_waits_for_the_peer(run_clean):
    async def main():
        got = asyncio.get_running_loop().create_future()

        async def handler(peer):
            await peer.handshake()
            await asyncio.sleep(0.05)
            data = b""
            while chunk := await peer.recv():
                data += chunk
            await peer.step(peer.object.unwrap)
            got.set_result(len(data))

        async with by_hand(handler) as address:
            transport, protocol = await connect(address)
            transport.write(b"x" * 5_000_000)
            transport.close()
            transport.close()
            assert await protocol.lost is None
            assert await got == 5_000_000

    run_clean(main(), 30)


def test_a_shutdown_takes_too_long(run_clean):
    async def main():
        done = asyncio.Event()

        async def handler(peer):
            await peer.handshake()
            await done.wait()  # neither reads nor answers

        async with by_hand(handler) as address:
            transport, protocol = await connect(address, ssl_shutdown_timeout=0.05)
            transport.close()
            error = await protocol.lost
            assert isinstance(error, TimeoutError)
            assert str(error) == "SSL shutdown timed out"
            done.set()

    run_clean(main())


def test_abort_throws_away_what_is_unsent(run_clean):
    async def main():
        done = asyncio.Event()

        async def handler(peer):
            await peer.handshake()
            await done.wait()

        async with by_hand(handler) as address:
            transport, protocol = await connect(address)
            transport.write(b"x" * 10_000_000)
            transport.abort()
            assert await protocol.lost is None
            assert transport.is_closing()
            done.set()

    run_clean(main())


def test_a_protocol_that_fails_ends_its_connection(run_clean, loop):
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    class Fails(Recorder):
        def data_received(self, data):
            raise ZeroDivisionError

    async def main():
        async with serving(Echo) as address:
            transport, protocol = await connect(address, Fails)
            transport.write(b"x")
            assert isinstance(await protocol.lost, ZeroDivisionError)

    run_clean(main())
    assert [(r["message"], type(r["exception"])) for r in reports] == [
        ("Fatal error on SSL protocol", ZeroDivisionError)
    ]
