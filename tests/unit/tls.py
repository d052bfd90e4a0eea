"""What the tests of TLS share: contexts, protocols, servers, and a peer by hand."""

import asyncio
import contextlib
import pathlib
import ssl
import weakref

HERE = pathlib.Path(__file__).parent / "certificates"
AUTHORITY = HERE / "authority.pem"


def server_context(name="server"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / f"{name}.pem")
    return context


def client_context():
    return ssl.create_default_context(cafile=AUTHORITY)


class Recorder(asyncio.Protocol):
    """Notes everything it is told."""

    def __init__(self):
        self.events = []
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()
        self.transport = None

    def connection_made(self, transport):
        self.events.append("made")
        self.transport = transport

    def data_received(self, data):
        assert type(data) is bytes
        self.data += data

    def eof_received(self):
        self.events.append("eof")

    def connection_lost(self, error):
        self.events.append("lost")
        self.lost.set_result(error)

    async def until(self, length):
        while len(self.data) < length:
            await asyncio.sleep(0.001)


class Echo(Recorder):
    def data_received(self, data):
        super().data_received(data)
        self.transport.write(data)


class Lender(asyncio.BufferedProtocol):
    """Echoes out of one small buffer of its own."""

    kind = memoryview

    def __init__(self, size=5000, keep=False):
        self.memory = bytearray(size)
        self.buffer = self.memory if self.kind is bytearray else memoryview(self.memory)
        self.received = bytearray() if keep else None
        self.transport = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, hint):
        assert hint >= 0
        return self.buffer

    def buffer_updated(self, length):
        if self.received is None:
            self.transport.write(bytes(self.memory[:length]))
        else:
            self.received += self.memory[:length]

    def connection_lost(self, error):
        self.lost.set_result(error)


class Peer:
    """The other side by hand, byte by byte: an SSLObject over plain streams."""

    def __init__(self, reader, writer, context, server_side, hostname=None):
        self.reader, self.writer = reader, writer
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_side, hostname)

    async def step(self, call, *args):
        while True:
            try:
                result = call(*args)
            except ssl.SSLWantReadError:
                self.flush()
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError from None
                self.incoming.write(data)
            else:
                self.flush()
                return result

    def flush(self):
        self.writer.write(self.outgoing.read())

    async def handshake(self):
        await self.step(self.object.do_handshake)

    def send(self, data):
        self.object.write(data)
        self.flush()

    async def recv(self, size=65536):
        return await self.step(self.object.read, size)


@contextlib.asynccontextmanager
async def by_hand(handler, context=None):
    """A server whose connections `handler` serves by hand; failures in it come out at the end."""
    problems = []

    async def serve(reader, writer):
        try:
            await handler(Peer(reader, writer, context or server_context(), True))
        except Exception as error:
            problems.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
    if problems:
        raise problems[0]


@contextlib.asynccontextmanager
async def serving(factory, context=None, **options):
    made = weakref.WeakSet()

    def remember():
        protocol = factory()
        made.add(protocol)
        return protocol

    loop = asyncio.get_running_loop()
    options["ssl"] = context or server_context()
    server = await loop.create_server(remember, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
    for protocol in list(made):
        if protocol.transport is not None:
            protocol.transport.abort()


async def connect(address, factory=Recorder, context=None, **options):
    loop = asyncio.get_running_loop()
    options.setdefault("server_hostname", "localhost")
    return await loop.create_connection(factory, *address, ssl=context or client_context(), **options)
