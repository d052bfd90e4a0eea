"""TLS peers that send nonsense, stall, break off, replay and dribble, while others are being served.

Whatever one peer does, the connections beside it get every byte once and in order, what its own connection came to is
told as documented, and nothing of it is left: neither a descriptor, nor a session, nor memory.
"""

import asyncio
import contextlib
import functools
import gc
import itertools
import pathlib
import random
import socket
import ssl
import struct

import pytest

from .conftest import resident_bytes, size

CERTIFICATES = pathlib.Path(__file__).parents[1] / "unit" / "certificates"
PEERS = size(4, 100)  # of each kind
AT_ONCE = 50
HEALTHY = 3
SLOW = 2.5  # seconds after which a handshake is given up
PATIENCE = size(90, 900)

chance = random.Random(11)


def server_context(name="server"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{name}.pem")
    return context


def client_context(newest=ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=CERTIFICATES / "authority.pem")
    context.maximum_version = newest
    return context


def sessions():
    """How many TLS sessions are alive."""
    gc.collect()
    return sum(type(thing) is ssl.SSLObject for thing in gc.get_objects())


def changed(data, first):
    """The same with one bit turned, from the byte `first` on."""
    place = chance.randrange(first, len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


def cut(data):
    """The beginning of it."""
    return data[: chance.randrange(1, len(data))]


class Peer:
    """One side of a connection by hand: a socket, and a session that has no part in it."""

    def __init__(self, sock, context, server_side=False):
        self.sock, self.loop = sock, asyncio.get_running_loop()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "localhost"
        self.session = context.wrap_bio(self.incoming, self.outgoing, server_side, name)

    async def send(self, data):
        await self.loop.sock_sendall(self.sock, data)

    async def send_wrong(self, data):
        """What the other side may not want to hear the end of."""
        with contextlib.suppress(ConnectionError):
            await self.send(data)

    async def send_in_bytes(self, data):
        for start in range(len(data)):
            await self.send(data[start : start + 1])

    async def step(self, call, *args, send=None):
        """Does `call` with what it takes from the other side; what it has to say goes through `send`."""
        while True:
            try:
                return call(*args)
            except ssl.SSLWantReadError:
                await self.flush(send)
                if data := await self.loop.sock_recv(self.sock, 65536):
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
            finally:
                await self.flush(send)

    async def flush(self, send=None):
        if data := self.outgoing.read():
            await (send or self.send)(data)

    async def handshake(self, send=None):
        await self.step(self.session.do_handshake, send=send)

    def flight(self):
        """What the session says next of the handshake, from what it has got."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.session.do_handshake()
        return self.outgoing.read()

    async def answered_flight(self):
        """The last part of the handshake, which is up to the caller to send."""
        await self.send(self.flight())
        while True:
            self.incoming.write(await self.loop.sock_recv(self.sock, 65536))
            if flight := self.flight():
                return flight

    def sealed(self, data):
        """The bytes of a record."""
        self.session.write(data)
        return self.outgoing.read()

    async def read_exactly(self, length):
        data = b""
        while len(data) < length:
            data += await self.step(self.session.read, length - len(data))
        return data

    async def is_ended(self):
        """Waits until the other side is gone, whatever it says before that."""
        with contextlib.suppress(ConnectionError):
            while await self.loop.sock_recv(self.sock, 65536):
                pass

    def will_reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def leave(peer, how):
    if how == "reset":
        peer.will_reset()
    elif how == "half-close":
        with contextlib.suppress(OSError):  # it is reset already
            peer.sock.shutdown(socket.SHUT_WR)
        await peer.is_ended()


# --- what peers do instead of a handshake ----------------------------------------------------------


def noted_in(kinds):
    """A decorator that takes the errors that the other side makes of a kind of peer."""

    def expecting(*errors):
        def note(kind):
            kinds[kind] = errors
            return kind

        return note

    return expecting


HANDSHAKES = {}  # what the server makes of each kind of peer
handshake = noted_in(HANDSHAKES)


@handshake(ssl.SSLError)
async def speaks_http(peer):
    await peer.send_wrong(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await peer.is_ended()


@handshake(ssl.SSLError, ConnectionResetError)  # it may look like the beginning of a record
async def makes_noise(peer):
    await peer.send_wrong(chance.randbytes(chance.randrange(5, 3000)))
    await leave(peer, "half-close")


@handshake(ssl.SSLError)
async def says_too_much(peer):
    await peer.send_wrong(b"\x16\x03\x01\xff\xff\x01" + bytes(70_000))
    await peer.is_ended()


@handshake(ssl.SSLError)
async def complains(peer):
    await peer.send_wrong(b"\x15\x03\x01\x00\x02\x02\x28")
    await peer.is_ended()


@handshake(ssl.SSLError, ConnectionResetError)
async def changes_its_hello(peer):
    # From what has been agreed on without knowing it, nothing comes.
    await peer.send_wrong(changed(peer.flight(), 5))
    with contextlib.suppress(ssl.SSLError, TimeoutError, ConnectionError):
        await asyncio.wait_for(peer.handshake(), SLOW / 5)
    await leave(peer, "half-close")


@handshake(ConnectionResetError)
async def breaks_off_its_hello(peer):
    await peer.send(cut(peer.flight()))
    await leave(peer, chance.choice(["close", "reset", "half-close"]))


@handshake(ssl.SSLError, ConnectionResetError)
async def changes_its_answer(peer):
    await peer.send_wrong(changed(await peer.answered_flight(), 3))
    await leave(peer, "half-close")


@handshake(ConnectionResetError)
async def breaks_off_its_answer(peer):
    await peer.send(cut(await peer.answered_flight()))
    await leave(peer, chance.choice(["close", "reset", "half-close"]))


@handshake(ConnectionAbortedError)
async def says_nothing(peer):
    await peer.is_ended()


@handshake(ConnectionAbortedError)
async def stops_in_the_middle(peer):
    await peer.send(cut(peer.flight()))
    await peer.is_ended()


# --- what peers do once they are connected ---------------------------------------------------------

RECORDS = {}


def record(ending):
    """Of a kind of peer: how its connection ends for the server. It returns what the server has to have got of it."""

    def note(kind):
        RECORDS[kind] = ending
        return kind

    return note


@record("SSLError")
async def changes_a_record(peer):
    await peer.send_wrong(changed(peer.sealed(b"never seen"), 5))
    await peer.is_ended()
    return b""


@record("SSLError")
async def sends_nonsense(peer):
    await peer.send_wrong(b"\x17\x03\x03\x00\x40" + chance.randbytes(64))
    await peer.is_ended()
    return b""


@record("SSLError")
async def speaks_plainly(peer):
    await peer.send_wrong(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await peer.is_ended()
    return b""


@record("SSLError")
async def sends_too_long_a_record(peer):
    await peer.send_wrong(b"\x17\x03\x03\xff\xff" + bytes(70_000))
    await peer.is_ended()
    return b""


@record("SSLError")
async def says_it_twice(peer):
    sealed = peer.sealed(b"once")
    await peer.send(sealed)
    assert await peer.read_exactly(4) == b"once"
    await peer.send_wrong(sealed)
    await peer.is_ended()
    return b"once"


@record("SSLError")
async def swaps_records(peer):
    first, second = peer.sealed(b"first"), peer.sealed(b"second")
    await peer.send_wrong(second + first)
    await peer.is_ended()
    return b""


@record("eof")
async def breaks_off_a_record(peer):
    await peer.send(cut(peer.sealed(b"never whole" * 100)))
    await leave(peer, chance.choice(["close", "half-close"]))
    return b""


@record("ConnectionResetError")
async def resets_in_a_record(peer):
    await peer.send(cut(peer.sealed(b"never whole" * 100)))
    peer.will_reset()
    return b""


@record("eof")
async def dribbles(peer):
    words = b"one byte at a time"
    await peer.send_in_bytes(peer.sealed(words[:9]) + peer.sealed(words[9:]))
    assert await peer.read_exactly(len(words)) == words
    return words


@record("eof")
async def sends_crumbs(peer):
    """Many records in one piece, with a byte in each."""
    words = chance.randbytes(500)
    await peer.send(b"".join(peer.sealed(words[n : n + 1]) for n in range(len(words))))
    assert await peer.read_exactly(len(words)) == words
    return words


@record("eof")
async def talks_after_its_goodbye(peer):
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.session.unwrap()
    await peer.send_wrong(peer.outgoing.read() + chance.randbytes(1000))
    await peer.is_ended()
    return b""


# --- the server, and who is served well ------------------------------------------------------------


class Served:
    """What the server has got of one connection, and how that ended."""

    def __init__(self, log):
        self.received, self.ending = bytearray(), None
        log.append(self)

    def got(self, data):
        if len(self.received) < 4096:  # which is all of it, from the peers that this is about
            self.received += data

    def ended(self, error):
        assert self.ending is None
        self.ending = type(error).__name__ if error else "eof"


class Echo(asyncio.Protocol):
    def __init__(self, log):
        self.log = log

    def connection_made(self, transport):
        self.transport, self.served = transport, Served(self.log)

    def data_received(self, data):
        self.served.got(data)
        self.transport.write(data)

    def connection_lost(self, error):
        self.served.ended(error)


class Lender(asyncio.BufferedProtocol):
    def __init__(self, log):
        self.log, self.memory = log, memoryview(bytearray(3000))

    def connection_made(self, transport):
        self.transport, self.served = transport, Served(self.log)

    def get_buffer(self, hint):
        return self.memory

    def buffer_updated(self, length):
        self.served.got(self.memory[:length])
        self.transport.write(bytes(self.memory[:length]))

    def connection_lost(self, error):
        self.served.ended(error)


async def converse(log, reader, writer):
    served = Served(log)
    try:
        while data := await reader.read(65536):
            served.got(data)
            writer.write(data)
            await writer.drain()
        served.ended(None)
    except OSError as error:
        served.ended(error)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(kind, **options):
    """An echo server over TLS, and what it has noted of each connection."""
    log = []
    options |= {"ssl": server_context(), "backlog": 500}
    if kind == "streams":
        handler = functools.partial(converse, log)
        server = await asyncio.start_server(handler, "127.0.0.1", 0, **options)
    else:
        factory = functools.partial({"protocol": Echo, "buffered": Lender}[kind], log)
        server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0, **options)
    async with server:
        yield server.sockets[0].getsockname(), log


@contextlib.asynccontextmanager
async def others(address):
    """Clients that do nothing wrong, all the while: each byte comes back once and in order."""
    wanted, rounds = True, [0] * HEALTHY
    context = client_context()

    async def client(number):
        reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname="localhost")
        block = random.Random(number).randbytes(1 << 16)
        while wanted:
            start = chance.randrange(1 << 15)
            piece = block[start : start + chance.randrange(1, 1 << 15)]
            writer.write(b"healthy" + piece)
            assert await reader.readexactly(7 + len(piece)) == b"healthy" + piece
            rounds[number] += 1
            await asyncio.sleep(0.001)
        writer.close()
        await writer.wait_closed()

    async with asyncio.TaskGroup() as group:
        for number in range(HEALTHY):
            group.create_task(client(number))
        while not all(rounds):
            await asyncio.sleep(0.001)
        before = list(rounds)
        yield
        # They have gone on, and do so still.
        after = list(rounds)
        while any(now <= then for now, then in zip(rounds, after, strict=True)):
            await asyncio.sleep(0.001)
        assert all(now > then for now, then in zip(after, before, strict=True))
        wanted = False


async def crowd(kinds, address, behave):
    """`PEERS` of each kind, many at once, in the hands of `behave`."""
    loop = asyncio.get_running_loop()
    contexts = itertools.cycle([client_context(), client_context(ssl.TLSVersion.TLSv1_2)])
    waiting = [kind for kind in kinds for _ in range(PEERS)]
    chance.shuffle(waiting)

    async def work():
        while waiting:
            kind = waiting.pop()
            with socket.socket() as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    await behave(kind, Peer(sock, next(contexts)))
                except Exception as error:
                    error.add_note(f"a peer that {kind.__name__}")
                    raise

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def without_growth():
    """What is done inside leaves no session behind."""
    before = sessions()
    yield
    for _ in range(100):
        if sessions() <= before:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{sessions() - before} sessions are left")


@pytest.mark.parametrize("kind", ["streams", "protocol"])
def test_handshakes_that_come_to_nothing(fire, kind):
    """The server's protocol never hears of them; in debug mode the program is told what was wrong."""
    told = []

    def hear(report):
        told.append((report["message"], type(report["exception"])))

    def behave(kind, peer):
        return kind(peer)

    async def main():
        loop = asyncio.get_running_loop()
        async with (
            asyncio.timeout(PATIENCE),
            serving(kind, ssl_handshake_timeout=SLOW) as (address, log),
            others(address),
        ):
            async with without_growth():
                await crowd(HANDSHAKES, address, behave)
            assert told == []
            before = resident_bytes()
            loop.set_debug(True)
            async with without_growth():
                for behaviour, errors in HANDSHAKES.items():
                    await crowd([behaviour], address, behave)
                    await until(lambda: len(told) >= PEERS)
                    assert len(told) == PEERS
                    for message, error in told:
                        assert message == "Error on transport creation for incoming connection"
                        assert issubclass(error, errors), behaviour.__name__
                    told.clear()
            loop.set_debug(False)
            assert resident_bytes() - before < 16 << 20
            assert len(log) == HEALTHY

    fire(main, hear)
    assert told == []


@pytest.mark.parametrize("kind", ["streams", "protocol", "buffered"])
def test_connections_that_go_wrong(fire, kind):
    """What was right is delivered, what was not never is, and the server hears of it once."""
    expected, names = {}, itertools.count()

    async def behave(kind, peer):
        await peer.handshake()
        name = b"peer %d;" % next(names)
        await peer.send(peer.sealed(name))
        assert await peer.read_exactly(len(name)) == name
        expected[name + await kind(peer)] = RECORDS[kind]

    async def main():
        resident = []
        async with asyncio.timeout(PATIENCE), serving(kind) as (address, log), others(address):
            for _ in range(2):
                async with without_growth():
                    await crowd(RECORDS, address, behave)
                    await until(lambda: sum(served.ending is not None for served in log) >= len(expected))
                resident.append(resident_bytes())
            peers = [served for served in log if not served.received.startswith(b"healthy")]
            assert len(log) == len(peers) + HEALTHY
            assert {bytes(served.received): served.ending for served in peers} == expected
            assert len(peers) == len(expected) == 2 * PEERS * len(RECORDS)
        assert resident[1] - resident[0] < 16 << 20

    fire(main)


@pytest.mark.parametrize("kind", ["streams", "protocol", "buffered"])
def test_a_handshake_of_single_bytes(fire, kind):
    """It takes its time, and comes to the same."""

    async def patient(peer):
        await peer.handshake(peer.send_in_bytes)
        await peer.send_in_bytes(peer.sealed(b"at last"))
        assert await peer.read_exactly(7) == b"at last"

    async def main():
        async with asyncio.timeout(PATIENCE), serving(kind) as (address, log), others(address):
            await crowd([patient], address, lambda kind, peer: kind(peer))
            await until(lambda: sum(served.ending is not None for served in log) == PEERS)
            got = [(bytes(served.received), served.ending) for served in log if served.ending]
            assert got == [(b"at last", "eof")] * PEERS

    fire(main)


# --- servers that are no better --------------------------------------------------------------------

SERVERS = {}  # what the clients of each kind are told
server = noted_in(SERVERS)


@server(ssl.SSLError)
async def greets_by_mail(peer):
    await peer.send_wrong(b"220 ready when you are\r\n" * 10)
    await peer.is_ended()


@server(ssl.SSLError, ConnectionResetError)
async def answers_with_noise(peer):
    await peer.loop.sock_recv(peer.sock, 65536)
    await peer.send_wrong(chance.randbytes(chance.randrange(5, 3000)))
    await leave(peer, "half-close")


@server(ssl.SSLError, ConnectionResetError)
async def changes_its_hello_too(peer):
    peer.incoming.write(await peer.loop.sock_recv(peer.sock, 65536))
    await peer.send_wrong(changed(peer.flight(), 5))
    await leave(peer, "half-close")


@server(ConnectionResetError)
async def breaks_off_the_handshake(peer):
    peer.incoming.write(await peer.loop.sock_recv(peer.sock, 65536))
    await peer.send(peer.flight()[: chance.randrange(100)])
    await leave(peer, chance.choice(["close", "reset", "half-close"]))


@server(ConnectionAbortedError)
async def never_answers(peer):
    await peer.is_ended()


@server(ConnectionAbortedError)
async def answers_half(peer):
    peer.incoming.write(await peer.loop.sock_recv(peer.sock, 65536))
    await peer.send(peer.flight()[: chance.randrange(100)])
    await peer.is_ended()


@server(ssl.SSLCertVerificationError)
async def is_somebody_else(peer):
    peer.session.context = server_context("other")
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await peer.handshake()
    await peer.is_ended()


def test_servers_that_come_to_nothing(fire):
    """Each client is told what was wrong, and nothing of its connection is left."""
    options = {"server_hostname": "localhost", "ssl_handshake_timeout": SLOW}

    async def connect(address, context):
        await asyncio.open_connection(*address, ssl=context, **options)

    async def upgrade(address, context):
        reader, writer = await asyncio.open_connection(*address)
        try:
            await writer.start_tls(context, **options)
        finally:
            writer.close()
            if fire.on != "stock":  # whose protocol isn't told in the handshake that its connection is lost
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def main():
        loop = asyncio.get_running_loop()
        contexts = [client_context(), client_context(ssl.TLSVersion.TLSv1_2)]
        waiting = [(kind, how, context) for kind in SERVERS for how in (connect, upgrade) for context in contexts]
        waiting *= size(2, 100)
        chance.shuffle(waiting)
        theirs, addresses = server_context(), {}

        async def accept(kind, listening, group):
            with listening:
                while True:
                    sock, _ = await loop.sock_accept(listening)
                    group.create_task(attend(kind, sock))

        async def attend(kind, sock):
            with sock:
                await kind(Peer(sock, theirs, server_side=True))

        async def work():
            while waiting:
                kind, how, context = waiting.pop()
                try:
                    await how(addresses[kind], context)
                except SERVERS[kind]:
                    continue
                except Exception as error:
                    error.add_note(f"a server that {kind.__name__}")
                    raise
                raise AssertionError(f"connected to a server that {kind.__name__}")

        async with asyncio.timeout(PATIENCE), serving("streams") as (healthy, _), others(healthy):
            async with asyncio.TaskGroup() as group:
                accepting = []
                for kind in SERVERS:
                    listening = socket.create_server(("127.0.0.1", 0), backlog=500)
                    listening.setblocking(False)
                    addresses[kind] = listening.getsockname()
                    accepting.append(group.create_task(accept(kind, listening, group)))
                async with without_growth():
                    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
                for task in accepting:
                    task.cancel()

    fire(main)
