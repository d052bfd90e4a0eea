"""A program that is typed against asyncio stays typed on aioxide. `make lint` has mypy read it; nothing runs it."""

from typing import assert_type

import aioxide
import aioxide as asyncio
from aioxide import Queue, Task, sleep


async def number(delay: float) -> int:
    await sleep(delay)
    return 3


async def main() -> str:
    task: Task[int] = asyncio.create_task(number(0))
    assert_type(await task, int)
    assert_type(await sleep(0, "result"), str)
    assert_type(await asyncio.wait_for(number(1), timeout=2), int)
    assert_type(await asyncio.gather(number(1), sleep(1, "text")), tuple[int, str])
    assert_type(await asyncio.shield(number(1)), int)

    queue: Queue[bytes] = asyncio.Queue(1)
    assert_type(await queue.get(), bytes)

    async with asyncio.TaskGroup() as group, asyncio.timeout(1), asyncio.Lock():
        assert_type(group.create_task(number(1)), asyncio.Task[int])

    loop = asyncio.get_running_loop()
    assert_type(await loop.run_in_executor(None, len, "four"), int)
    reader, writer = await asyncio.open_connection("localhost", 80)
    assert_type(await reader.readline(), bytes)
    writer.close()
    assert_type(asyncio.subprocess.PIPE, int)
    return "done"


assert_type(aioxide.run(main(), debug=True), str)
with aioxide.Runner(loop_factory=aioxide.new_event_loop) as runner:
    assert_type(runner.run(main()), str)
with aioxide.install():
    assert_type(aioxide.installed(), bool)
loop = aioxide.EventLoop()
assert_type(loop.time(), float)
assert_type(loop.run_until_complete(number(1)), int)
loop.close()

aioxide.create_tusk(number(1))  # type: ignore[attr-defined]
aioxide.run(number("soon"))  # type: ignore[arg-type]
aioxide.run(main(), loop_factory=3)  # type: ignore[arg-type]
