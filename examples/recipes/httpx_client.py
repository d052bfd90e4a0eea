"""httpx: nothing to set up, it uses the loop that runs. The server of this program is asked, by many at once.

python httpx_client.py
"""

import asyncio

import aioxide
import httpx


async def serve(reader, writer):
    while (line := await reader.readline()).strip():
        path = line.split()[1]
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(path), path))
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
        answers = await asyncio.gather(*[client.get(f"/{number}") for number in range(5)])
    server.close()
    loop = type(asyncio.get_running_loop())
    print(f"{loop.__module__}.{loop.__qualname__}", [answer.text for answer in answers])


if __name__ == "__main__":
    aioxide.install()
    asyncio.run(main())
