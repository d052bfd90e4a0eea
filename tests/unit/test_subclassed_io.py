"""Subclasses of asyncio's readers, protocols, processes, handles, timeouts and runners.

As in test_subclasses.py, what they do here is what public code does, and runs on asyncio's own classes first.
"""

import asyncio
import heapq
import os
import signal
import time
from asyncio.runners import _State
from asyncio.timeouts import _State as TimeoutState
from unittest.mock import MagicMock

import pytest

pytestmark = pytest.mark.usefixtures("in_place")


def run(main):
    return asyncio.run(asyncio.wait_for(main, 10))


# --- streams, pipes and processes ----------------------------------------------------------------


def test_a_reader_with_a_readuntil_of_its_own():
    class LongLines(asyncio.StreamReader):
        """Has no limit for its lines."""

        async def readuntil(self, separator=b"\n"):
            while True:
                try:
                    return await super().readuntil(separator)
                except asyncio.LimitOverrunError as error:
                    end = error.consumed + len(separator)
                    if self._buffer.startswith(separator, error.consumed):
                        line = bytes(self._buffer[:end])
                        del self._buffer[:end]
                        self._maybe_resume_transport()
                        return line
                    await self._wait_for_data("readuntil")

    async def main():
        reader = LongLines(limit=4)
        reader.feed_data(b"0123456789\nab\n0123456789")
        assert await reader.readline() == b"0123456789\n"

        async def rest():
            return [line async for line in reader]

        lines = asyncio.create_task(rest())
        await asyncio.sleep(0)
        reader.feed_data(b"\n")
        reader.feed_eof()
        assert await lines == [b"ab\n", b"0123456789\n"]

    run(main())


def test_streams_around_other_streams():
    class Reader(asyncio.StreamReader):
        def __init__(self, inner):
            self.inner = inner

        async def read(self, n=-1):
            return await self.inner.read(4)

    async def main():
        inner = asyncio.StreamReader()
        inner.feed_data(b"12345")
        assert await Reader(inner).read() == b"1234"

    run(main())


def test_a_protocol_that_keeps_its_state():
    class Safe(asyncio.StreamReaderProtocol):
        def connection_made(self, transport):
            if self._stream_reader._transport is None:
                super().connection_made(transport)

        def connection_lost(self, exc):
            state = self.__dict__.copy()
            super().connection_lost(exc)
            self.__dict__.update(state)

    async def main():
        source, sink = os.pipe()
        reader = asyncio.StreamReader()
        protocol = Safe(reader)
        with open(source, "rb", 0) as file:
            await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, file)
            os.write(sink, b"hi\n")
            os.close(sink)
            assert await reader.read() == b"hi\n"
            await asyncio.sleep(0.01)

    run(main())


def test_a_writer_for_a_pipe():
    class Flow(asyncio.streams.FlowControlMixin):
        def __init__(self, loop):
            super().__init__(loop=loop)
            self.closed = loop.create_future()

        def connection_lost(self, exc):
            super().connection_lost(exc)
            self.closed.set_result(None)

        def _get_close_waiter(self, stream):
            return self.closed

    async def main():
        source, sink = os.pipe()
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(lambda: Flow(loop), open(sink, "wb", 0))
        writer = asyncio.StreamWriter(transport, protocol, None, loop)
        writer.write(bytes(100_000))
        drained, count = asyncio.create_task(writer.drain()), 0
        while count < 100_000:
            count += len(await asyncio.to_thread(os.read, source, 65536))
        await drained
        writer.close()
        await writer.wait_closed()
        os.close(source)

    run(main())


def test_a_process_with_a_protocol_of_its_own():
    class Tee(asyncio.subprocess.SubprocessStreamProtocol):
        def __init__(self, limit, loop):
            super().__init__(limit=limit, loop=loop)
            self.seen, self.exited = [], loop.create_future()

        def pipe_data_received(self, fd, data):
            self.seen.append((fd, bytes(data)))
            super().pipe_data_received(fd, data)

        def process_exited(self):
            super().process_exited()
            self.exited.set_result(None)

    async def main():
        loop = asyncio.get_running_loop()
        command = ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]
        transport, protocol = await loop.subprocess_exec(lambda: Tee(2**16, loop), *command)
        process = asyncio.subprocess.Process(transport, protocol, loop)
        assert await process.communicate() == (b"out\n", b"err\n")
        await protocol.exited
        assert sorted(protocol.seen) == [(1, b"out\n"), (2, b"err\n")]
        assert process.returncode == 3
        transport.close()

    run(main())


def test_a_process_that_is_none():
    class Fake(asyncio.subprocess.Process):
        @property
        def returncode(self):
            return 3

        async def communicate(self, input=None):
            return b"", b""

    async def main():
        process = Fake(MagicMock(), MagicMock(), MagicMock())
        assert (process.returncode, await process.communicate()) == (3, (b"", b""))

    run(main())


# --- handles, timeouts and runners ---------------------------------------------------------------


class VirtualLoop(asyncio.AbstractEventLoop):
    """A loop with a clock that jumps, and handles of its own."""

    def __init__(self):
        self.now, self.timers, self.count = 0, [], 0

        class Timer(asyncio.TimerHandle):
            __slots__ = ("number",)

            def __init__(self, number, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.number = number

            def __lt__(self, other):
                return (self._when, self.number) < (other._when, other.number)

            def cancel(self):
                if not self.cancelled():
                    asyncio.Handle.cancel(self)

        self.timer = Timer

    def get_debug(self):
        return False

    def is_running(self):
        return True

    def time(self):
        return self.now

    def call_soon(self, callback, *args, context=None):
        return self.call_at(self.now, callback, *args, context=context)

    def call_later(self, delay, callback, *args, context=None):
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        self.count += 1
        handle = self.timer(self.count, when, callback, args, self, context=context)
        heapq.heappush(self.timers, handle)
        return handle

    def _timer_handle_cancelled(self, handle):
        pass

    def create_future(self):
        return asyncio.Future(loop=self)

    def create_task(self, coro, **kwargs):
        return asyncio.Task(coro, loop=self, **kwargs)

    def run_until_complete(self, main):
        asyncio._set_running_loop(self)
        try:
            task = asyncio.ensure_future(main, loop=self)
            while not task.done():
                handle = heapq.heappop(self.timers)
                self.now = handle.when()
                if not handle._cancelled:
                    handle._run()
            return task.result()
        finally:
            asyncio._set_running_loop(None)


def test_a_loop_with_handles_of_its_own():
    async def main():
        async with asyncio.timeout(100):
            await asyncio.sleep(50)
        queue, lock = asyncio.Queue(), asyncio.Lock()

        async def put():
            async with lock:
                await asyncio.sleep(1)
                queue.put_nowait("item")

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(put())
        items = await asyncio.gather(*(queue.get() for _ in range(3)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 3)
        return items, asyncio.get_running_loop().time()

    assert VirtualLoop().run_until_complete(main()) == (["item"] * 3, 56)


def test_a_handle_around_another():
    class Wrapped(asyncio.Handle):
        __slots__ = ("_run", "base")

        def __init__(self, base, run):
            self.base, self._run = base, run

        def __getattr__(self, name):
            return getattr(self.base, name)

    loop = asyncio.new_event_loop()
    seen = []
    handle = Wrapped(loop.call_soon(print), lambda: seen.append(1))
    handle._run()
    assert seen == [1]
    handle.base.cancel()
    loop.close()


def test_a_timeout_that_is_forced():
    async def forced(limit):
        async with limit:
            assert (limit._when, limit._task) == (limit.when(), asyncio.current_task())
            assert limit._state.value == "active"
            limit._on_timeout()
            await asyncio.sleep(1)

    async def main():
        timeout = asyncio.timeout(100)
        with pytest.raises(TimeoutError):
            await forced(timeout)
        assert timeout.expired()
        assert timeout._state.value == "expired"

    run(main())


def noticing(seen):
    class Noticing(asyncio.Timeout):
        def _on_timeout(self):
            seen.append(1)
            super()._on_timeout()

    return Noticing


def test_a_timeout_that_notices():
    seen = []

    async def main():
        with pytest.raises(TimeoutError):
            async with noticing(seen)(asyncio.get_running_loop().time() + 0.01):
                await asyncio.sleep(1)

    run(main())
    assert seen == [1]


@pytest.mark.parametrize("delay", [0, 0.01])
def test_a_timeout_that_is_left_in_time(delay):
    """Even if it is due in the very turn in which it is left."""
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        async with noticing(seen)(loop.time() + delay):
            if delay:
                future = loop.create_future()
                loop.call_soon(future.set_result, None)
                loop.call_soon(time.sleep, 0.05)
                await future
        await asyncio.sleep(0)

    run(main())
    assert seen == []


def test_a_timeout_that_does_all_of_it_itself():
    class Own(asyncio.Timeout):
        def _on_timeout(self):
            self._task.cancel()
            self._state = TimeoutState.EXPIRING
            self._timeout_handler = None

    async def main():
        with pytest.raises(TimeoutError):
            async with Own(asyncio.get_running_loop().time() + 0.01):
                await asyncio.sleep(5)

    run(main())


def test_the_states_of_a_runner():
    runner = asyncio.Runner()
    assert runner._state is _State.CREATED
    loop = runner.get_loop()
    assert (runner._state, runner._loop) == (_State.INITIALIZED, loop)
    runner.run(asyncio.sleep(0))
    assert runner._interrupt_count == 0
    runner.close()
    assert runner._state is _State.CLOSED


def test_a_runner_that_looks_at_signals():
    class Looking(asyncio.Runner):
        def _on_sigint(self, signum, frame, main_task):
            seen.append(signum)
            return super()._on_sigint(signum, frame, main_task)

    async def main():
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(5)

    seen = []
    with pytest.raises(KeyboardInterrupt), Looking() as runner:
        runner.run(main())
    assert seen == [signal.SIGINT]


def test_a_runner_with_a_loop_of_its_own():
    class Own(asyncio.Runner):
        def _lazy_init(self):
            if self._state is _State.CREATED:
                self._loop, self._state = asyncio.new_event_loop(), _State.INITIALIZED

    with Own() as runner:
        loop = runner.get_loop()
        assert runner.run(asyncio.sleep(0, "done")) == "done"
    assert loop.is_closed()
