"""TCP connections whose packets are counted. For the tests of writes that wait in the kernel."""

import asyncio
import contextlib
import select
import socket
import struct

SEGMENTS = 156  # of struct tcp_info: tcpi_data_segs_out


@contextlib.contextmanager
def pair(number=1):
    """Accepted sockets, and who has connected to them."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        found = []
        for _ in range(number):
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            sock = stack.enter_context(listener.accept()[0])
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # which asyncio does by itself for proto=6 only
            found.append((sock, client))
        yield found


class Sink(asyncio.Protocol):
    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, error):
        self.lost.set_result(None)


@contextlib.asynccontextmanager
async def connected(number=1):
    """Transports with the sockets of their peers."""
    with pair(number) as sockets:
        loop = asyncio.get_running_loop()
        made = [await loop.connect_accepted_socket(Sink, sock) for sock, _ in sockets]
        try:
            yield [(transport, client) for (transport, _), (_, client) in zip(made, sockets, strict=True)]
        finally:
            for transport, sink in made:
                transport.abort()
                await sink.lost


@contextlib.asynccontextmanager
async def accepted(number):
    """As `connected`, of a server, so that nobody but the transport has a socket."""
    made = {}

    class Accepted(Sink):
        def connection_made(self, transport):
            made[transport.get_extra_info("peername")] = transport, self

    server = await asyncio.get_running_loop().create_server(Accepted, "127.0.0.1", 0)
    with contextlib.ExitStack() as stack:
        address = server.sockets[0].getsockname()
        clients = [stack.enter_context(socket.create_connection(address)) for _ in range(number)]
        while len(made) < number:
            await asyncio.sleep(0.001)
        ends = [(*made[client.getsockname()], client) for client in clients]
        try:
            yield [(transport, client) for transport, _, client in ends]
        finally:
            for transport, sink, _ in ends:
                transport.abort()
                await sink.lost
            server.close()
            await server.wait_closed()


def segments(transport):
    info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return struct.unpack_from("I", info, SEGMENTS)[0]


def is_there(client):
    """Whether something can be received, without anybody's timer having its way."""
    return bool(select.select([client], [], [], 0.1)[0])


def read(client, length):
    client.settimeout(10)
    got = b""
    while len(got) < length:
        more = client.recv(length - len(got))
        assert more, got
        got += more
    return got
