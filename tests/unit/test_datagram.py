"""Datagram endpoints: every parameter, both ways of every datagram, and what is refused."""

import asyncio
import gc
import logging
import os
import socket
import tempfile

import pytest

HERE = ("127.0.0.1", 0)


class Recorder(asyncio.DatagramProtocol):
    """Writes down what it is told."""

    def __init__(self, loop):
        self.calls = []
        self.got = asyncio.Queue()
        self.errors = asyncio.Queue()
        self.lost = loop.create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("made")

    def datagram_received(self, data, addr):
        assert type(data) is bytes
        self.got.put_nowait((data, addr))

    def error_received(self, exc):
        self.errors.put_nowait(exc)

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.calls.append("lost")
        self.lost.set_result(exc)


class Endpoints:
    """Makes endpoints, and closes them in the end."""

    def __init__(self, loop):
        self.loop, self.open = loop, []

    async def __call__(self, *args, factory=Recorder, **options):
        transport, protocol = await self.loop.create_datagram_endpoint(lambda: factory(self.loop), *args, **options)
        assert isinstance(transport, asyncio.BaseTransport)  # stock's is a DatagramTransport since 3.12
        self.open.append((transport, protocol))
        return transport, protocol

    async def close(self):
        for transport, protocol in self.open:
            transport.close()
            await protocol.lost


@pytest.fixture
def go(loop, run):
    """Runs a coroutine function that is given a maker of endpoints."""

    def go(main):
        async def whole():
            endpoints = Endpoints(loop)
            try:
                await main(endpoints)
            finally:
                await endpoints.close()

        run(whole())

    return go


def name(transport):
    return transport.get_extra_info("sockname")


@pytest.mark.stock_since((3, 13))
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_ways(go, host):
    async def main(endpoint):
        one, first = await endpoint((host, 0))
        two, second = await endpoint((host, 0))
        assert len(name(one)) == (2 if host == "127.0.0.1" else 4)
        for data in (b"hello", b"", bytes(60_000), bytearray(b"array"), memoryview(b"view")):
            one.sendto(data, name(two))
            assert await second.got.get() == (bytes(data), name(one))
            two.sendto(data, name(one)[:2])
            assert await first.got.get() == (bytes(data), name(two))
        assert first.errors.empty() and second.errors.empty()

    go(main)


def test_a_burst_arrives_in_order(go):
    async def main(endpoint):
        one, _ = await endpoint(HERE)
        two, second = await endpoint(HERE)
        for number in range(50):
            one.sendto(b"%d" % number, name(two))
        got = [await second.got.get() for _ in range(50)]
        assert [data for data, _ in got] == [b"%d" % number for number in range(50)]
        assert {addr for _, addr in got} == {name(one)}

    go(main)


def test_many_peers_are_told_apart(go):
    async def main(endpoint):
        server, hub = await endpoint(HERE)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dummy:
            dummy.bind(HERE)
        for number in range(300):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind(HERE)
                peer.settimeout(5)
                peer.sendto(b"%d" % number, name(server))
                data, addr = await hub.got.get()
                assert (data, addr) == (b"%d" % number, peer.getsockname())
                server.sendto(data, addr)
                assert peer.recv(100) == data

    go(main)


@pytest.mark.stock_since((3, 13))
def test_connected(go):
    async def main(endpoint):
        server, hub = await endpoint(HERE)
        client, mine = await endpoint(remote_addr=name(server))
        assert client.get_extra_info("peername") == name(server)
        client.sendto(b"a")
        client.sendto(b"b", None)
        client.sendto(b"c", name(server))
        client.sendto(b"")
        assert [(await hub.got.get())[0] for _ in range(4)] == [b"a", b"b", b"c", b""]
        with pytest.raises(ValueError, match=r"Invalid address: must be None or \('127.0.0.1', "):
            client.sendto(b"x", ("127.0.0.1", 1))
        server.sendto(b"back", name(client))
        assert await mine.got.get() == (b"back", name(server))

    go(main)


def test_both_addresses(go):
    async def main(endpoint):
        server, _ = await endpoint(HERE)
        client, _ = await endpoint(local_addr=HERE, remote_addr=name(server))
        assert name(client)[0] == "127.0.0.1" and name(client)[1]
        assert client.get_extra_info("peername") == name(server)

    go(main)


def test_nobody_there(go):
    async def main(endpoint):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
            unused.bind(HERE)
            nobody = unused.getsockname()
        client, mine = await endpoint(remote_addr=nobody)
        client.sendto(b"x")
        assert type(await mine.errors.get()) is ConnectionRefusedError
        client.sendto(b"x")
        client.sendto(b"y")  # the error of the one before comes out here, or when the descriptor is looked at
        assert type(await mine.errors.get()) is ConnectionRefusedError
        assert not client.is_closing()

    go(main)


def test_too_long(go):
    async def main(endpoint):
        one, first = await endpoint(HERE)
        one.sendto(bytes(70_000), name(one))
        assert "too long" in str(await first.errors.get())
        assert not one.is_closing()

    go(main)


@pytest.mark.parametrize("wrong", ["text", 1, None, [b"x"], object()])
def test_what_may_not_be_sent(go, wrong):
    async def main(endpoint):
        one, _ = await endpoint(HERE)
        kind = type(wrong).__name__
        with pytest.raises(TypeError, match=f"data argument must be a bytes-like object, not '{kind}'"):
            one.sendto(wrong, name(one))

    go(main)


@pytest.mark.parametrize(
    ("addr", "ends"), [(None, True), (("127.0.0.1",), True), (("127.0.0.1", "x"), True), (("\0", 1), None)]
)
def test_addresses_that_mean_nothing(loop, run, addr, ends):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    async def main():
        one, first = await loop.create_datagram_endpoint(lambda: Recorder(loop), HERE)
        one.sendto(b"x", addr)
        if ends:
            assert type(await first.lost) is TypeError
            assert [context["message"] for context in contexts] == ["Fatal write error on datagram transport"]
        else:
            one.close()
            await first.lost

    run(main())


def test_a_host_name_is_looked_up(go):
    async def main(endpoint):
        one, first = await endpoint(HERE)
        one.sendto(b"x", ("localhost", name(one)[1]))
        assert await first.got.get() == (b"x", name(one))
        two, second = await endpoint(("localhost", 0), family=socket.AF_INET)
        one.sendto(b"y", name(two))
        assert await second.got.get() == (b"y", name(one))

    go(main)


def test_options(go):
    async def main(endpoint):
        def option(transport, option):
            return transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, option)

        one, _ = await endpoint(HERE, reuse_port=True, allow_broadcast=True)
        assert option(one, socket.SO_REUSEPORT) and option(one, socket.SO_BROADCAST)
        two, _ = await endpoint(name(one), reuse_port=True)
        assert name(two) == name(one)
        three, _ = await endpoint(HERE)
        assert not option(three, socket.SO_REUSEPORT) and not option(three, socket.SO_BROADCAST)
        with pytest.raises(OSError, match="already in use"):
            await endpoint(name(three))
        four, protocol = await endpoint(HERE, remote_addr=name(three), allow_broadcast=True)
        assert four.get_extra_info("peername") is None, "not connected, as broadcasts go out"
        four.sendto(b"x")
        with pytest.raises(ValueError, match="Invalid address"):
            four.sendto(b"x", name(one))
        assert await three.get_protocol().got.get() == (b"x", name(four))

    go(main)


def test_a_given_socket(go):
    async def main(endpoint):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(HERE)
        one, first = await endpoint(sock=sock)
        assert not sock.getblocking()
        two, second = await endpoint(HERE)
        two.sendto(b"x", sock.getsockname())
        assert await first.got.get() == (b"x", name(two))
        connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        connected.connect(name(two))
        three, _ = await endpoint(sock=connected)
        three.sendto(b"y")
        assert (await second.got.get())[0] == b"y"

    go(main)


@pytest.mark.stock_since((3, 13))
def test_bad_arguments(loop, run):
    async def main():
        for options, error, text in [
            ({}, ValueError, "unexpected address family"),
            ({"local_addr": "host"}, TypeError, "2-tuple is expected"),
            ({"remote_addr": ("127.0.0.1", 1, 2)}, TypeError, "2-tuple is expected"),
            ({"local_addr": ("127.0.0.1", 0), "family": socket.AF_INET6}, (OSError, ValueError), ""),
            ({"local_addr": ("127.0.0.1", 0), "remote_addr": ("::1", 1)}, ValueError, "can not get address"),
            ({"family": socket.AF_UNIX, "local_addr": b"bytes"}, TypeError, "string is expected"),
        ]:
            with pytest.raises(error, match=text or None):
                await loop.create_datagram_endpoint(asyncio.DatagramProtocol, **options)
        with socket.socket() as stream, pytest.raises(ValueError, match="A datagram socket was expected, got <socket"):
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=stream)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for option in ("local_addr", "remote_addr", "family", "proto", "flags", "reuse_port", "allow_broadcast"):
                text = f"socket modifier keyword arguments can not be used when sock is specified. ({option}=1)"
                with pytest.raises(ValueError) as raised:
                    await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock, **{option: 1})
                assert str(raised.value) == text

    run(main())


def test_unix_datagrams(go):
    async def main(endpoint):
        with tempfile.TemporaryDirectory() as place:
            path = os.path.join(place, "one")
            one, first = await endpoint(path, family=socket.AF_UNIX)
            two, second = await endpoint(path + "2", path, family=socket.AF_UNIX)
            two.sendto(b"x")
            assert await first.got.get() == (b"x", path + "2")
            one.sendto(b"y", path + "2")
            assert await second.got.get() == (b"y", path)
            big = bytes(150_000)  # more than IP would take
            two.sendto(big)
            assert (await first.got.get())[0] == big
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
                nameless.sendto(b"z", path)
            assert await first.got.get() == (b"z", None)
            one.close()
            await first.lost
            again, _ = await endpoint(path, family=socket.AF_UNIX)  # the file was left behind
            abstract = f"\0aioxide-{os.getpid()}"
            three, third = await endpoint(abstract, family=socket.AF_UNIX)
            again.sendto(b"abstract", abstract)
            assert await third.got.get() == (b"abstract", path)

    go(main)


@pytest.mark.stock_since((3, 13))
def test_what_waits_and_flow_control(go):
    """A Unix socket whose reader sleeps makes the writer wait."""

    async def main(endpoint):
        with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sleeper:
            path = os.path.join(place, "one")
            sleeper.bind(path)
            sleeper.settimeout(5)
            one, first = await endpoint(remote_addr=path, family=socket.AF_UNIX)
            one.set_write_buffer_limits(high=2000)
            assert one.get_write_buffer_limits() == (500, 2000)
            with pytest.raises(ValueError, match="must be >= low"):
                one.set_write_buffer_limits(high=1, low=2)
            sent = 0
            while "pause" not in first.calls:
                assert sent < 10_000
                data = bytearray(b"%d" % sent)
                one.sendto(data)
                data[:] = b"changed later"
                sent += 1
            assert one.get_write_buffer_size() > 2000
            one.sendto(b"")
            received = []
            while len(received) <= sent:
                received.append(sleeper.recv(100))
                await asyncio.sleep(0)
            assert received == [*(b"%d" % number for number in range(sent)), b""]
            assert one.get_write_buffer_size() == 0
            assert first.calls == ["made", "pause", "resume"]

    go(main)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_the_end_with_unsent_datagrams(loop, run, end):
    async def main():
        with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sleeper:
            path = os.path.join(place, "one")
            sleeper.bind(path)
            sleeper.setblocking(False)
            one, first = await loop.create_datagram_endpoint(
                lambda: Recorder(loop), remote_addr=path, family=socket.AF_UNIX
            )
            sent = 0
            while one.get_write_buffer_size() < 100:
                one.sendto(b"%d" % sent)
                sent += 1
            getattr(one, end)()
            assert one.is_closing()
            received = 0
            async with asyncio.timeout(5):
                while not first.lost.done():
                    try:
                        received += bool(sleeper.recv(100))
                    except BlockingIOError:
                        pass
                    await asyncio.sleep(0)
            assert await first.lost is None
            try:
                while True:
                    received += bool(sleeper.recv(100))
            except BlockingIOError:
                pass
            assert (received == sent) is (end == "close")

    run(main())


def test_writes_to_a_lost_connection(go, caplog):
    async def main(endpoint):
        server, _ = await endpoint(HERE)
        client, _ = await endpoint(remote_addr=name(server))
        client.abort()
        with caplog.at_level(logging.WARNING):
            for _ in range(8):
                client.sendto(b"x")
        assert "socket.send() raised exception." in caplog.text

    go(main)


def test_a_protocol_that_fails_goes_on(loop, run):
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    class Broken(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            raise ZeroDivisionError

    async def main():
        one, first = await loop.create_datagram_endpoint(lambda: Broken(loop), HERE)
        for number in range(5):
            one.sendto(b"%d" % number, name(one))
        assert [(await first.got.get())[0] for _ in range(5)] == [b"%d" % number for number in range(5)]
        await asyncio.sleep(0)
        assert [type(context["exception"]) for context in contexts] == [ZeroDivisionError] * 5
        one.close()
        await first.lost

    run(main())


def test_closed_by_its_own_protocol(go):
    class Once(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.close()

    async def main(endpoint):
        one, first = await endpoint(HERE, factory=Once)
        two, _ = await endpoint(HERE)
        for _ in range(5):
            two.sendto(b"x", name(one))
        await first.lost
        assert first.got.qsize() == 1
        assert first.calls == ["made", "lost"]

    go(main)


def test_cancelled_at_every_await(loop, run):
    async def main():
        fds = len(os.listdir("/proc/self/fd"))
        for turns in range(6):
            task = loop.create_task(
                loop.create_datagram_endpoint(lambda: Recorder(loop), HERE, remote_addr=("127.0.0.1", 9))
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                transport, _ = await task
            except asyncio.CancelledError:
                continue
            transport.close()
        async with asyncio.timeout(5):
            while len(os.listdir("/proc/self/fd")) != fds:
                await asyncio.sleep(0.001)

    run(main())


def test_a_factory_that_fails_leaves_nothing_open(aio, loop, run):
    if aio is asyncio:
        pytest.skip("leaves its socket to the garbage collector")

    async def main():
        fds = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ZeroDivisionError):
            await loop.create_datagram_endpoint(lambda: 1 / 0, HERE)
        assert len(os.listdir("/proc/self/fd")) == fds

    run(main())


def test_the_descriptor_is_the_transports(go, loop):
    async def main(endpoint):
        one, _ = await endpoint(HERE)
        for call in (loop.add_reader, loop.add_writer):
            with pytest.raises(RuntimeError, match="is used by transport"):
                call(one.get_extra_info("socket").fileno(), print)

    go(main)


def test_a_forgotten_transport_is_closed_and_reported(new_loop):
    loop = new_loop()
    transport, _ = loop.run_until_complete(loop.create_datagram_endpoint(asyncio.DatagramProtocol, HERE))
    shown = repr(transport)
    assert " fd=" in shown and "read=polling write=<idle, bufsize=0>" in shown
    loop.close()
    assert "bufsize" not in repr(transport)
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del transport
        gc.collect()


def test_the_end_of_a_pair_without_names_needs_no_address(go, aio):
    async def main(endpoint):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.settimeout(10)
        with theirs:
            transport, protocol = await endpoint(sock=ours)
            theirs.send(b"to us")
            assert await protocol.got.get() == (b"to us", None)
            transport.sendto(b"to them")
            if aio is asyncio:  # gives the socket an address of None
                assert isinstance(await protocol.lost, TypeError)
            else:
                assert theirs.recv(100) == b"to them"

    go(main)
