"""A pipeline of producers and consumers, with back-pressure and a clean end.

    aioxide examples/pipeline.py [--seconds N]

Three stages: read, work, store. The queues between them are bounded, so that a slow stage slows down the ones
before it and memory stays where it is. On SIGINT or when the time is over the source stops; what is under way
goes through to the end, because each stage shuts its queue down when it has put the last item.
"""

import argparse
import asyncio
import signal
import sys
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

READERS, WORKERS = 3, 5


@dataclass
class Record:
    number: int
    text: bytes
    checksum: int = 0


@dataclass
class Store:
    """Where the records end up: in batches, as a database would want them."""

    batches: list[list[Record]] = field(default_factory=list)

    async def save(self, batch: list[Record]) -> None:
        await asyncio.sleep(0.002)
        self.batches.append(batch)


async def source(reader: int, stop: asyncio.Event) -> AsyncIterator[Record]:
    """Records as they come in, until told to stop."""
    number = reader
    while not stop.is_set():
        await asyncio.sleep(0)
        yield Record(number, b"record %d " % number * 50)
        number += READERS


async def read(reader: int, stop: asyncio.Event, out: asyncio.Queue[Record]) -> int:
    count = 0
    async for record in source(reader, stop):
        await out.put(record)  # waits while the workers are behind
        count += 1
    return count


async def work(work_in: asyncio.Queue[Record], out: asyncio.Queue[Record]) -> None:
    while True:
        try:
            record = await work_in.get()
        except asyncio.QueueShutDown:
            return
        record.checksum = zlib.crc32(record.text)
        await out.put(record)


async def store(store_in: asyncio.Queue[Record], target: Store, batch_size: int = 50) -> None:
    """Saves batches: full ones at once, others when nothing more has come for a moment."""
    batch: list[Record] = []
    while True:
        try:
            async with asyncio.timeout(0.05 if batch else None):
                batch.append(await store_in.get())
        except asyncio.QueueShutDown:
            break
        except TimeoutError:
            pass
        if len(batch) >= batch_size:
            await target.save(batch)
            batch = []
    if batch:
        await target.save(batch)


async def run(seconds: float) -> tuple[int, Store]:
    """Run the pipeline; how many records were read, and what was stored."""
    stop, target = asyncio.Event(), Store()
    raw: asyncio.Queue[Record] = asyncio.Queue(100)
    done: asyncio.Queue[Record] = asyncio.Queue(100)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.call_later(seconds, stop.set)
    async with asyncio.TaskGroup() as storing:
        storing.create_task(store(done, target))
        async with asyncio.TaskGroup() as working:
            for _ in range(WORKERS):
                working.create_task(work(raw, done))
            async with asyncio.TaskGroup() as reading:
                readers = [reading.create_task(read(n, stop, raw)) for n in range(READERS)]
            raw.shutdown()  # nobody puts any more: the workers finish what is there
        done.shutdown()
    return sum(reader.result() for reader in readers), target


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    count, target = asyncio.run(run(arguments.seconds))
    stored = [record for batch in target.batches for record in batch]
    print(f"{count} records read, {len(stored)} stored in {len(target.batches)} batches")
    right = all(record.checksum == zlib.crc32(record.text) for record in stored)
    return 0 if right and len({record.number for record in stored}) == count else 1


if __name__ == "__main__":
    sys.exit(main())
