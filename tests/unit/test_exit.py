"""The end of the interpreter, when it collects what a program has left lying about."""

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, gc, sys
if sys.argv[1] == "aioxide":
    import aioxide
    aioxide.install()

class Holder:
    pass

holder = Holder()
holder.holder = holder  # a cycle that only the collector ends
gc.disable()

async def main():
    loop = asyncio.get_running_loop()
    holder.server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    address = holder.server.sockets[0].getsockname()
    holder.transport, holder.protocol = await loop.create_connection(asyncio.Protocol, *address)
    holder.reader, holder.writer = await asyncio.open_connection(*address)
    for transport in holder.transport, holder.writer.transport:
        transport.pause_reading()
        transport.write(b"x" * 10_000_000)  # more than the kernel takes
    holder.lock, holder.queue = asyncio.Lock(), asyncio.Queue()
    holder.future = loop.create_future()
    holder.tasks = [loop.create_task(coroutine) for coroutine in (
        asyncio.sleep(100), holder.queue.get(), holder.reader.read(), asyncio.wait_for(holder.future, 100),
    )]
    holder.timer = loop.call_later(100, print, holder)
    await asyncio.sleep(0)

holder.loop = loop = asyncio.new_event_loop()
loop.run_until_complete(main())
if sys.argv[2] == "module":
    sys.holder = holder
elif sys.argv[2] == "cycle":
    del holder, loop
"""


@pytest.mark.parametrize("kept", ["global", "module", "cycle"])
@pytest.mark.parametrize("loop", ["stock", "aioxide"])
def test_the_interpreter_ends_whatever_is_left(loop, kept):
    command = [sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", PROGRAM, loop, kept]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "panicked" not in done.stderr
