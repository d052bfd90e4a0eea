"""CPU work from an asyncio program: on other cores, and on other machines.

    aioxide examples/cpu_work.py                     # on the cores of this machine
    aioxide examples/cpu_work.py --dask              # on a Dask cluster, here a local one
    aioxide examples/cpu_work.py --dask ADDRESS      # on a running one: tcp://scheduler:8786

What to take from it: both are executors behind `loop.run_in_executor`, so the program around them is the same.
Errors come back as exceptions, and cancelling takes back what has not begun.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import sys
from collections.abc import AsyncIterator

import aioxide


def count_primes(start: int, stop: int) -> int:
    """The work: plain Python that keeps a core busy."""
    return sum(n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(start, stop))


def ranges(stop: int, parts: int) -> list[tuple[int, int]]:
    step = -(-stop // parts)
    return [(start, min(start + step, stop)) for start in range(0, stop, step)]


async def on_processes(stop: int) -> int:
    """On this machine: `aioxide.to_process` is `asyncio.to_thread` with processes."""
    return sum(await asyncio.gather(*[aioxide.to_process(count_primes, *part) for part in ranges(stop, 16)]))


@contextlib.asynccontextmanager
async def dask_executor(address: str | None) -> AsyncIterator[concurrent.futures.Executor]:
    """The executor of a Dask client. Dask runs its own event loop in a thread of its own."""
    from distributed import Client, LocalCluster

    def start() -> tuple[LocalCluster | None, Client]:
        cluster = None if address else LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
        return cluster, Client(cluster or address)

    cluster, client = await asyncio.to_thread(start)
    try:
        yield client.get_executor()
    finally:
        await asyncio.to_thread(client.close)
        if cluster is not None:
            await asyncio.to_thread(cluster.close)


async def on_dask(stop: int, address: str | None) -> int:
    """On a cluster, with each part under a time limit of its own."""
    loop = asyncio.get_running_loop()
    async with dask_executor(address) as executor, asyncio.TaskGroup() as group:

        async def count(start: int, stop: int) -> int:
            async with asyncio.timeout(120):
                return await loop.run_in_executor(executor, count_primes, start, stop)

        tasks = [group.create_task(count(*part)) for part in ranges(stop, 16)]
    return sum(task.result() for task in tasks)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--dask", nargs="?", const="", metavar="ADDRESS")
    parser.add_argument("--stop", type=int, default=200_000)
    arguments = parser.parse_args()
    if arguments.dask is None:
        count = asyncio.run(on_processes(arguments.stop))
    else:
        count = asyncio.run(on_dask(arguments.stop, arguments.dask or None))
    print(f"{count} primes below {arguments.stop}")
    return 0 if arguments.stop != 200_000 or count == 17984 else 1


if __name__ == "__main__":
    sys.exit(main())
