"""An aiohttp server and a client of it.

python aiohttp_server.py              # serves until Ctrl-C
python aiohttp_server.py --ask        # serves one request, its own, and ends
"""

import asyncio
import sys

import aiohttp
import aioxide
from aiohttp import web


async def hello(request):
    loop = type(asyncio.get_running_loop())
    return web.Response(text=f"{loop.__module__}.{loop.__qualname__}")


def make_app():
    app = web.Application()
    app.router.add_get("/", hello)
    return app


async def ask():
    runner = web.AppRunner(make_app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (_, port) = runner.addresses[0]
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as response:
        print(response.status, await response.text())
    await runner.cleanup()


if __name__ == "__main__":
    if "--ask" in sys.argv:
        aioxide.run(ask())
    else:
        web.run_app(make_app(), loop=aioxide.new_event_loop(), port=8000)
