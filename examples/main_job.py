"""An aiohttp server and an aiohttp client in one program.

The client asks for 2,000 reports, at most 100 at a time.  A few of them take
longer than it is willing to wait, a few are broken and fail.  Every answer is
checked, and the program fails if one is wrong or if the counts are not what
they have to be.

It is a plain asyncio program: `python main_job.py` runs it on CPython's event
loop, `aioxide main_job.py` on aioxide.
"""

import argparse
import asyncio
import collections
import hashlib
import platform
import sys
import time

import aiohttp
from aiohttp import web
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

REQUESTS = 2000
AT_ONCE = 100
PATIENCE = 0.25  # seconds the client waits for a report that may be slow
SLOW = range(10, 60, 10)  # reports that take longer; early ones, so that nobody waits for them at the end
BROKEN = range(99, REQUESTS, 250)  # reports that the server fails to make
EXPECTED = {"done": REQUESTS - len(SLOW) - len(BROKEN), "timed out": len(SLOW), "failed": len(BROKEN)}


def report(number: int) -> dict[str, object]:
    """What the server answers: long enough to be worth checking."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return {"number": number, "digest": digest, "lines": [f"{number}-{line}" for line in range(20)]}


async def serve_report(request: web.Request) -> web.Response:
    number = int(request.match_info["number"])
    if number in BROKEN:
        raise web.HTTPInternalServerError(text="this report is broken")
    if number in SLOW:
        await asyncio.sleep(4 * PATIENCE)
    return web.json_response(report(number))


async def start_server() -> tuple[web.AppRunner, str]:
    """A server on a free port of this machine, and its address."""
    app = web.Application()
    app.router.add_get("/report/{number}", serve_report)
    # Slow reports that nobody waits for any more end with their connection.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}"


async def fetch(session: aiohttp.ClientSession, number: int) -> str:
    """Ask for one report, check the answer, and say how it ended."""
    try:
        async with asyncio.timeout(PATIENCE if number in SLOW else 60 * PATIENCE):
            async with session.get(f"/report/{number}") as response:
                if response.status == 500 and await response.text() == "this report is broken":
                    return "failed"
                found = await response.json()
    except TimeoutError:
        return "timed out"
    return "done" if response.status == 200 and found == report(number) else "wrong"


async def fetch_all(address: str, progress: Progress) -> tuple[collections.Counter[str], float]:
    """Ask for every report; how many ended in which way, and the seconds it took."""
    endings: collections.Counter[str] = collections.Counter()
    gate = asyncio.Semaphore(AT_ONCE)
    bar = progress.add_task("requests", total=REQUESTS)

    async with aiohttp.ClientSession(address, connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:

        async def fetch_one(number: int) -> None:
            async with gate:
                ending = await fetch(session, number)
            endings[ending] += 1
            progress.advance(bar)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(REQUESTS):
                group.create_task(fetch_one(number))
        return endings, time.perf_counter() - began


async def main(console: Console, *, brief: bool) -> bool:
    """Run server and client, show the result, and say whether all is as it has to be."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    runner, address = await start_server()
    try:
        with Progress(*columns, console=console, disable=brief) as progress:
            endings, seconds = await fetch_all(address, progress)
    finally:
        await runner.cleanup()

    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    rate = f"{REQUESTS / seconds:,.0f}"
    if brief:
        console.print(f"the same on {loop}: {rate} requests/s ({seconds:.2f} s)", highlight=False)
    else:
        table = Table("event loop", *EXPECTED, "seconds", "requests/s", title="main job")
        for column in table.columns[1:]:
            column.justify = "right"
        counts = (str(endings[ending]) for ending in EXPECTED)
        table.add_row(f"{loop}, Python {platform.python_version()}", *counts, f"{seconds:.2f}", rate)
        console.print(table)
    if dict(endings) != EXPECTED:
        console.print(f"wrong: expected {EXPECTED}, found {dict(endings)}", style="red")
        return False
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--brief", action="store_true", help="one line instead of a progress bar and a table")
    options = parser.parse_args()
    if not asyncio.run(main(Console(), brief=options.brief)):
        sys.exit(1)
