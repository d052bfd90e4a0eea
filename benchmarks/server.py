"""One server on one event loop, in a process of its own.

    python benchmarks/server.py LOOP KIND PLACE

PLACE is a path for a Unix socket, the file to send, or nothing.  Says "READY PORT" when it accepts,
and ends when its standard input does.
"""

import asyncio
import os
import pathlib
import socket
import ssl
import sys

import loops

CERTIFICATE = pathlib.Path(__file__).resolve().parents[1] / "tests" / "unit" / "certificates" / "server.pem"
RECEIVE = 64 * 1024
KINDS = {}


def kind(function):
    """Registers a coroutine function that starts a server; it is given a place and returns the port."""
    KINDS[function.__name__] = function
    return function


# Echo -------------------------------------------------------------------------------------


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.write = transport.write

    def data_received(self, data):
        self.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    def connection_made(self, transport):
        self.transport = transport
        self.buffer = memoryview(bytearray(RECEIVE))

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, size):
        self.transport.write(bytes(self.buffer[:size]))


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


async def echo(reader, writer):
    try:
        while data := await reader.read(RECEIVE):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


def tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def port_for(address="127.0.0.1"):
    """A free port: not every loop says which one it has been given."""
    with socket.socket() as free:
        free.bind((address, 0))
        return free.getsockname()[1]


async def serve_protocol(factory, context=None):
    port = port_for()
    loop = asyncio.get_running_loop()
    KEPT.append(await loop.create_server(factory, "127.0.0.1", port, backlog=4096, ssl=context))
    return port


async def serve_streams(handler, context=None):
    port = port_for()
    KEPT.append(await asyncio.start_server(handler, "127.0.0.1", port, backlog=4096, ssl=context))
    return port


@kind
async def protocol(place):
    return await serve_protocol(Echo)


@kind
async def buffered(place):
    return await serve_protocol(BufferedEcho)


@kind
async def streams(place):
    return await serve_streams(echo)


@kind
async def tls_protocol(place):
    return await serve_protocol(Echo, tls())


@kind
async def tls_streams(place):
    return await serve_streams(echo, tls())


@kind
async def udp(place):
    port = port_for()
    await asyncio.get_running_loop().create_datagram_endpoint(DatagramEcho, local_addr=("127.0.0.1", port))
    return port


@kind
async def unix(place):
    KEPT.append(await asyncio.get_running_loop().create_unix_server(Echo, place, backlog=4096))
    return 0


@kind
async def sock(place):
    """Sockets that the program keeps itself."""
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)

    async def serve(connection):
        with connection:
            while data := await loop.sock_recv(connection, RECEIVE):
                await loop.sock_sendall(connection, data)

    async def accept():
        while True:
            connection, _ = await loop.sock_accept(listener)
            task = asyncio.create_task(serve(connection))
            KEPT.append(task)

    KEPT.append(asyncio.create_task(accept()))
    return listener.getsockname()[1]


@kind
async def sendfile(place):
    """The whole file for each line that comes."""
    loop = asyncio.get_running_loop()

    async def handle(reader, writer):
        while await reader.readline():
            with open(place, "rb") as file:
                await loop.sendfile(writer.transport, file)
        writer.close()

    return await serve_streams(handle)


# HTTP -------------------------------------------------------------------------------------


@kind
async def aiohttp(place):
    from aiohttp import web

    async def hello(request):
        return web.Response(text="Hello, world!")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = port_for()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    KEPT.append(runner)
    return port


@kind
async def uvicorn(place):
    import uvicorn

    async def hello(scope, receive, send):
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"Hello, world!"})

    port = port_for()
    config = uvicorn.Config(hello, "127.0.0.1", port, lifespan="off", ws="none", log_level="error", access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    KEPT.append(serving)
    while not server.started and not serving.done():
        await asyncio.sleep(0.02)
    return port


KEPT = []  # what has to live as long as the process


async def main(name, place):
    port = await KINDS[name](place)
    print("READY", port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    with asyncio.Runner(loop_factory=loops.use(sys.argv[1])) as runner:
        runner.run(main(*sys.argv[2:]))
