"""Download many files at once: a limit on how many, retries, time limits, a progress bar.

    aioxide examples/downloads.py URL ... [--into FOLDER]
    aioxide examples/downloads.py            # from a small server of its own

What to take from it: a Semaphore bounds the work, `asyncio.timeout` bounds each attempt, a TaskGroup
owns the tasks, and each file is written piece by piece, so that memory does not grow with its size.
"""

import argparse
import asyncio
import hashlib
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import aiohttp
from aiohttp import web
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

AT_ONCE = 8
ATTEMPTS = 3
PATIENCE = 30.0  # seconds for one attempt
PIECE = 64 * 1024  # bytes


async def download(
    session: aiohttp.ClientSession,
    url: str,
    target: pathlib.Path,
    limit: asyncio.Semaphore,
    progress: Progress,
) -> str | None:
    """Download one file; what went wrong, or None."""
    problem = ""
    async with limit:
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(0.1 * 2**attempt)
            bar = progress.add_task(target.name, total=None)
            try:
                async with asyncio.timeout(PATIENCE), session.get(url) as response:
                    response.raise_for_status()
                    progress.update(bar, total=response.content_length)
                    with target.open("wb") as file:
                        async for piece in response.content.iter_chunked(PIECE):
                            file.write(piece)
                            progress.advance(bar, len(piece))
                return None
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problem = f"{url}: {error or type(error).__name__}"
            finally:
                progress.remove_task(bar)
    return problem


async def download_all(urls: Sequence[str], folder: pathlib.Path) -> list[str]:
    """Download all of them; what went wrong with those that failed."""
    limit = asyncio.Semaphore(AT_ONCE)
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    async with aiohttp.ClientSession() as session:
        with Progress(*columns, console=console, transient=True) as progress:
            whole = progress.add_task("files", total=len(urls))
            async with asyncio.TaskGroup() as group:
                tasks = []
                for number, url in enumerate(urls):
                    name = f"{number:03}-{url.rsplit('/', 1)[-1] or 'index'}"
                    task = group.create_task(download(session, url, folder / name, limit, progress))
                    task.add_done_callback(lambda _: progress.advance(whole))
                    tasks.append(task)
    return [problem for task in tasks if (problem := task.result())]


async def demo(folder: pathlib.Path) -> list[str]:
    """Download from a server of our own, some of whose answers fail the first time, and check the files."""
    files = {f"file-{n}": hashlib.sha256(bytes([n])).digest() * 5_000 * (n + 1) for n in range(20)}
    failed_once = set()

    async def serve(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name.endswith("5") and name not in failed_once:
            failed_once.add(name)
            raise web.HTTPServiceUnavailable
        return web.Response(body=files[name])

    app = web.Application()
    app.router.add_get("/{name}", serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        problems = await download_all([f"http://{host}:{port}/{name}" for name in files], folder)
    finally:
        await runner.cleanup()
    return problems + check(files, folder)


def check(files: dict[str, bytes], folder: pathlib.Path) -> list[str]:
    got = {path.name[4:]: path.read_bytes() for path in folder.iterdir()}
    return [f"{name} is not what was sent" for name in files if got.get(name) != files[name]]


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("urls", nargs="*", metavar="URL")
    parser.add_argument("--into", type=pathlib.Path, metavar="FOLDER", default=pathlib.Path())
    arguments = parser.parse_args()
    if arguments.urls:
        arguments.into.mkdir(parents=True, exist_ok=True)
        problems = asyncio.run(download_all(arguments.urls, arguments.into))
    else:
        with tempfile.TemporaryDirectory() as folder:
            problems = asyncio.run(demo(pathlib.Path(folder)))
    for problem in problems:
        print(problem, file=sys.stderr)
    print("failed:", len(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
