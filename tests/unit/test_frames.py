"""What native coroutines show to those who draw stacks: inspect, Task.get_stack, call graphs."""

import asyncio
import inspect
import io
import sys
import traceback

import aioxide
import pytest


def waits():
    """Coroutines that wait, with the names on the way to the future that they wait for."""
    return {
        "Queue.get": (lambda aio: aio.Queue().get(), []),
        "Queue.join": (_joined, ["Event.wait"]),
        "Event.wait": (lambda aio: aio.Event().wait(), []),
        "sleep": (lambda aio: aio.sleep(60), []),
        "wait": (lambda aio: aio.wait([aio.Future()]), ["_wait"]),
        "Lock.acquire": (_taken, []),
        "Semaphore.acquire": (lambda aio: aio.Semaphore(0).acquire(), []),
    }


def _taken(aio):
    lock = aio.Lock()
    with pytest.raises(StopIteration):
        lock.acquire().send(None)
    return lock.acquire()


def _joined(aio):
    queue = aio.Queue()
    queue.put_nowait(1)
    return queue.join()


def chain(coro):
    """The coroutines that await one another, from the outside in."""
    names = []
    while hasattr(coro, "cr_await"):
        assert coro.cr_frame.f_code is coro.cr_code
        names.append(coro.__qualname__)
        coro = coro.cr_await
    return names


@pytest.mark.parametrize("name", waits())
def test_states_and_frames(aio, run, name):
    make, inner = waits()[name]

    async def main():
        coro = make(aio)
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CREATED
        assert coro.cr_frame.f_code.co_qualname == name
        assert coro.cr_code.co_flags & inspect.CO_COROUTINE
        task = asyncio.create_task(coro)
        await asyncio.sleep(0)
        assert inspect.getcoroutinestate(coro) == inspect.CORO_SUSPENDED
        assert chain(coro) == [name, *inner]
        assert [frame.f_code.co_name for frame in task.get_stack()] == [name.rpartition(".")[2]]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
        assert coro.cr_frame is None
        assert coro.cr_await is None

    run(main())


def test_a_waiting_task_says_where(aio, run):
    async def main():
        task = asyncio.create_task(aio.Queue().get())
        await asyncio.sleep(0)
        assert "coro=<Queue.get() running at " in repr(task)
        out = io.StringIO()
        task.print_stack(file=out)
        assert ", in get\n" in out.getvalue()
        traceback.StackSummary.extract((frame, frame.f_lineno) for frame in task.get_stack())
        task.cancel()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="call graphs came with 3.14")
def test_call_graph_goes_through_native_coroutines(aio, run):
    async def consumer(queue):
        return await queue.get()

    async def main():
        task = asyncio.create_task(consumer(aio.Queue()))
        await asyncio.sleep(0)
        text = asyncio.format_call_graph(task)
        assert "async Queue.get()" in text
        assert text.index("async Queue.get()") < text.index("consumer()")
        task.cancel()

    run(main())


def test_nobody_sees_variables():
    async def main():
        coro = aioxide.Queue().get()
        frame = coro.cr_frame
        assert frame.f_locals == {}
        assert frame.f_globals == {}
        assert frame.f_back is None
        assert "Queue.get" in repr(frame)
        coro.close()

    aioxide.run(main())
