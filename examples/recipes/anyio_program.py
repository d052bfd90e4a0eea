"""A program written for anyio: the loop comes with `anyio.run`.

python anyio_program.py
"""

import asyncio

import aioxide
import anyio


async def main():
    send, receive = anyio.create_memory_object_stream(10)
    async with send, anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(send.send, number)
    loop = type(asyncio.get_running_loop())
    async with receive:
        print(f"{loop.__module__}.{loop.__qualname__}", sorted([number async for number in receive]))


if __name__ == "__main__":
    anyio.run(main, backend_options={"loop_factory": aioxide.new_event_loop})
