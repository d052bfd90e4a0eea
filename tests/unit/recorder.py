"""What tests of stream transports share: sockets in pairs, and a protocol that writes down what it is told."""

import asyncio
import contextlib
import socket

MOST = 256 * 1024  # what one receive takes


class Recorder(asyncio.Protocol):
    """Writes down what it is told."""

    def __init__(self, loop):
        self.calls = []
        self.data = bytearray()
        self.lost = loop.create_future()
        self.ended = loop.create_future()
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        self.calls.append("eof")
        self.ended.set_result(None)
        return self.keep_open

    keep_open = False

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.calls.append("lost")
        if not self.lost.done():
            self.lost.set_result(exc)


def tcp_pair():
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    return ours, theirs


@contextlib.asynccontextmanager
async def connected(sock, kind=Recorder, **options):
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(lambda: kind(loop, **options), sock=sock)
    try:
        yield transport, protocol
    finally:
        transport.abort()
        await protocol.lost


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)
