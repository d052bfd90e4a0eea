"""What waits, fails and is cancelled leaves no more cycles of references behind than CPython's asyncio does."""

import asyncio
import collections
import gc
import weakref

import aioxide
import pytest

OPERATIONS = {}


def operation(function):
    OPERATIONS[function.__name__] = function
    return function


class Failure(Exception):
    pass


async def fail(turns=1):
    for _ in range(turns):
        await asyncio.sleep(0)
    raise Failure


async def idle():
    await asyncio.get_running_loop().create_future()


@operation
async def gather(aio):
    return await aio.gather(aio.sleep(0), aio.sleep(0))


@operation
async def gather_failing(aio):
    try:
        await aio.gather(fail(), fail(2), aio.sleep(0))
    except Failure:
        pass
    await aio.sleep(0)


@operation
async def gather_exceptions(aio):
    assert len(await aio.gather(fail(), fail(2), return_exceptions=True)) == 2


@operation
async def gather_cancelled(aio):
    task = aio.create_task(gather_of_idle(aio))
    await aio.sleep(0)
    await aio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass


async def gather_of_idle(aio):
    await aio.gather(idle(), idle())


@operation
async def group(aio):
    async with aio.TaskGroup() as tasks:
        tasks.create_task(aio.sleep(0))
        tasks.create_task(aio.sleep(0))


@operation
async def group_failing(aio):
    try:
        async with aio.TaskGroup() as tasks:
            tasks.create_task(fail())
            tasks.create_task(idle())
    except* Failure:
        pass


@operation
async def group_failing_body(aio):
    try:
        async with aio.TaskGroup() as tasks:
            tasks.create_task(idle())
            raise Failure
    except* Failure:
        pass


@operation
async def group_cancelled(aio):
    async def inside():
        async with aio.TaskGroup() as tasks:
            tasks.create_task(idle())

    task = aio.create_task(inside())
    await aio.sleep(0)
    await aio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass


@operation
async def timeout(aio):
    async with aio.timeout(60):
        await aio.sleep(0)


@operation
async def timeout_expired(aio):
    try:
        async with aio.timeout(0):
            await idle()
    except TimeoutError:
        pass


@operation
async def timeout_with_an_error(aio):
    try:
        async with aio.timeout(60):
            await fail()
    except Failure:
        pass


@operation
async def timeout_error_of_its_own(aio):
    try:
        async with aio.timeout(0):
            try:
                await idle()
            finally:
                raise Failure
    except Failure:
        pass


@operation
async def wait_for(aio):
    await aio.wait_for(aio.sleep(0), 60)


@operation
async def wait_for_expired(aio):
    try:
        await aio.wait_for(idle(), 0.0001)
    except TimeoutError:
        pass


@operation
async def wait_for_failing(aio):
    try:
        await aio.wait_for(fail(), 60)
    except Failure:
        pass


@operation
async def wait(aio):
    tasks = [aio.create_task(fail()), aio.create_task(aio.sleep(0))]
    await aio.wait(tasks, return_when=aio.FIRST_EXCEPTION)
    await aio.gather(*tasks, return_exceptions=True)


@operation
async def as_completed(aio):
    for one in aio.as_completed([fail(), aio.sleep(0)]):
        try:
            await one
        except Failure:
            pass


@operation
async def shield(aio):
    try:
        await aio.shield(fail())
    except Failure:
        pass


@operation
async def shield_cancelled(aio):
    inner = aio.create_task(aio.sleep(0))

    async def outside():
        await aio.shield(inner)

    task = aio.create_task(outside())
    await aio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    await inner


@operation
async def lock(aio):
    mutex = aio.Lock()

    async def hold():
        async with mutex:
            await aio.sleep(0)

    await aio.gather(hold(), hold())


@operation
async def condition_cancelled(aio):
    condition = aio.Condition()

    async def inside():
        async with condition:
            await condition.wait()

    task = aio.create_task(inside())
    await aio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass


@operation
async def barrier_broken(aio):
    barrier = aio.Barrier(2)

    async def inside():
        try:
            await barrier.wait()
        except aio.BrokenBarrierError:
            pass

    task = aio.create_task(inside())
    await aio.sleep(0)
    await barrier.abort()
    await task


@operation
async def queue_cancelled(aio):
    queue = aio.Queue()
    task = aio.create_task(queue.get())
    await aio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass


TIMES = 20


def garbage(aio, function):
    """How many objects of which types only the garbage collector frees, after many times of it."""
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()

    async def repeat():
        await function(aio)
        await asyncio.sleep(0)
        gc.collect()
        gc.garbage.clear()
        for _ in range(TIMES):
            await function(aio)
            await asyncio.sleep(0)
        gc.collect()
        return collections.Counter(type(one).__name__ for one in gc.garbage)

    gc.disable()
    try:
        while gc.collect():  # what finalizers leave over takes another round
            pass
        gc.set_debug(gc.DEBUG_SAVEALL)
        return loop.run_until_complete(repeat())
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        loop.close()
        gc.enable()
        gc.collect()


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_cycle_that_asyncio_has_not(name):
    ours, stock = garbage(aioxide, OPERATIONS[name]), garbage(asyncio, OPERATIONS[name])
    assert ours.total() <= stock.total() + TIMES // 2, (ours, stock)


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_was_raised_is_let_go(name):
    """Without the collector's help, unless asyncio needs it too."""

    def left(aio):
        seen = []

        class Marked(Failure):
            def __init__(self):
                super().__init__()
                seen.append(weakref.ref(self))

        loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
        globals()["Failure"], before = Marked, Failure
        gc.disable()
        try:
            loop.run_until_complete(OPERATIONS[name](aio))
            return sum(ref() is not None for ref in seen)
        finally:
            globals()["Failure"] = before
            gc.enable()
            loop.close()

    assert left(aioxide) <= left(asyncio)
