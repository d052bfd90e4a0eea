"""Cancellation in every turn of what waits for several things, compared with CPython turn by turn.

Each scenario is a small program that notes what happens.  It is run on CPython's
asyncio and on aioxide, and cancelled in its first turn, in its second, and so on:
the notes, with the number of the turn of each, must be the same.
"""

import asyncio
import gc
import sys

import aioxide
import pytest

SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


class Notes(list):
    """What happened, and in which turn."""

    turn = 0

    def add(self, *what):
        self.append((self.turn, *what))


def describe(error):
    """An exception with its causes and parts, without what depends on the run."""
    if error is None:
        return None
    parts = [describe(part) for part in getattr(error, "exceptions", ())]
    return type(error).__name__, str(error), parts, describe(error.__cause__), error.__suppress_context__


def play(aio, new_loop, function, cancelled_in):
    """Runs the scenario and returns its notes."""
    notes = Notes()
    loop = new_loop()
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context["message"]))

    def tick():
        notes.turn += 1
        if notes.turn == cancelled_in:
            notes.add("cancel", main.cancel("from outside"))
        if not main.done():
            loop.call_soon(tick)

    async def run():
        try:
            notes.add("result", await function(aio, notes))
        except BaseException as error:
            notes.add("raised", describe(error), describe(error.__context__))
            if not isinstance(error, (Exception, asyncio.CancelledError)):
                raise
        notes.add("cancelling", asyncio.current_task().cancelling())

    async def settle():
        while left := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in sorted(left, key=lambda task: (len(task.get_name()), task.get_name())):
                task.cancel()  # in the order in which they were made
            await asyncio.wait(left)

    try:
        main = loop.create_task(run())
        loop.call_soon(tick)
        try:
            loop.run_until_complete(main)
        except BaseException as error:
            notes.add("ended", type(error).__name__)
        left = sorted(task.get_coro().__name__ for task in asyncio.all_tasks(loop))
        notes.add("left", left)
        loop.run_until_complete(settle())
    finally:
        loop.close()
    gc.collect()
    return notes, reports


async def worker(notes, name, turns, error=None):
    """Lives for some turns and notes its end."""
    try:
        for _ in range(turns):
            await asyncio.sleep(0)
        if error is not None:
            raise error
    except asyncio.CancelledError as cancelled:
        notes.add(name, "cancelled", cancelled.args)
        raise
    notes.add(name, "done")
    return name


async def stubborn(notes, name, turns):
    """Takes its time to end when it is cancelled."""
    try:
        await worker(notes, name, turns)
    except asyncio.CancelledError:
        await worker(notes, f"{name}'s end", 2)
    return name


@scenario
async def gather(aio, notes):
    return await aio.gather(worker(notes, "a", 2), worker(notes, "b", 4), worker(notes, "c", 1))


@scenario
async def gather_failing(aio, notes):
    slow = aio.create_task(worker(notes, "slow", 6))
    try:
        return await aio.gather(worker(notes, "bad", 2, ValueError("bad")), slow)
    finally:
        notes.add("slow", slow.done())
        await slow


@scenario
async def gather_exceptions(aio, notes):
    lazy = stubborn(notes, "lazy", 3)
    results = await aio.gather(worker(notes, "bad", 2, ValueError("bad")), lazy, return_exceptions=True)
    return [describe(r) if isinstance(r, BaseException) else r for r in results]


@scenario
async def gather_twice_the_same(aio, notes):
    task = aio.create_task(worker(notes, "a", 2))
    future = aio.get_running_loop().create_future()
    future.set_result("f")
    return await aio.gather(task, future, task, worker(notes, "b", 1), future)


@scenario
async def gather_of_gathers(aio, notes):
    inner = aio.gather(worker(notes, "a", 3), stubborn(notes, "b", 3))
    return await aio.gather(inner, worker(notes, "c", 1), return_exceptions=True) == [["a", "b"], "c"]


@scenario
async def gather_cancelled_child(aio, notes):
    task = aio.create_task(worker(notes, "a", 5))
    aio.get_running_loop().call_soon(task.cancel, "inside")
    return await aio.gather(task, worker(notes, "b", 3))


@scenario
async def wait_all(aio, notes):
    tasks = [aio.create_task(worker(notes, name, turns)) for name, turns in (("a", 1), ("b", 3), ("c", 2))]
    done, pending = await aio.wait(tasks)
    return [t in done for t in tasks], [t in pending for t in tasks]


@scenario
async def wait_first(aio, notes):
    tasks = [aio.create_task(worker(notes, name, turns)) for name, turns in (("a", 4), ("b", 2))]
    done, _pending = await aio.wait(tasks, return_when=aio.FIRST_COMPLETED)
    notes.add([t in done for t in tasks], [t._callbacks for t in tasks if not t.done()])
    return await aio.gather(*tasks)


@scenario
async def wait_exception(aio, notes):
    bad = aio.create_task(worker(notes, "bad", 2, KeyError("bad")))
    tasks = [aio.create_task(worker(notes, "a", 1)), bad, aio.create_task(worker(notes, "c", 5))]
    done, _pending = await aio.wait(tasks, return_when=aio.FIRST_EXCEPTION)
    return [t in done for t in tasks]


@scenario
async def wait_for_done_ones(aio, notes):
    future = aio.get_running_loop().create_future()
    future.set_result(1)
    done, pending = await aio.wait([future], timeout=5)
    return future in done, pending


@scenario
async def wait_without_time(aio, notes):
    task = aio.create_task(worker(notes, "a", 9))
    done, pending = await aio.wait([task], timeout=0)
    notes.add(done, task in pending)
    return await task


@scenario
async def wait_for(aio, notes):
    return await aio.wait_for(worker(notes, "a", 3), 5)


@scenario
async def wait_for_a_task(aio, notes):
    return await aio.wait_for(aio.create_task(stubborn(notes, "a", 3)), 5)


@scenario
async def wait_for_without_time(aio, notes):
    task = aio.create_task(stubborn(notes, "a", 3))
    await aio.sleep(0)
    return await aio.wait_for(task, 0)


@scenario
async def wait_for_overdue(aio, notes):
    task = aio.create_task(worker(notes, "a", 3))
    await aio.sleep(0)
    return await aio.wait_for(task, -1)


@scenario
async def wait_for_in_wait_for(aio, notes):
    return await aio.wait_for(aio.wait_for(worker(notes, "a", 2), None), 5)


@scenario
async def as_completed(aio, notes):
    # Tasks, as asyncio starts coroutines in the order of their addresses.
    tasks = [
        aio.create_task(worker(notes, "a", 3)),
        aio.create_task(worker(notes, "b", 1)),
        aio.create_task(worker(notes, "c", 5, ValueError("c"))),
    ]
    found = []
    for one in aio.as_completed(tasks):
        try:
            found.append(await one)
        except ValueError as error:
            found.append(describe(error))
    return found


@scenario
async def as_completed_by_async_for(aio, notes):
    tasks = [aio.create_task(worker(notes, "a", 3)), aio.create_task(worker(notes, "b", 1))]
    found = []
    async for one in aio.as_completed(tasks):
        found.append((tasks.index(one), await one))
    return found


@scenario
async def as_completed_by_two(aio, notes):
    tasks = [aio.create_task(worker(notes, "a", 4)), aio.create_task(worker(notes, "b", 2))]
    steps = iter(aio.as_completed(tasks))
    first, second = aio.create_task(next(steps)), aio.create_task(next(steps))
    await aio.sleep(0)
    await aio.sleep(0)
    first.cancel()
    return await aio.gather(first, second, return_exceptions=True) and await next(steps)


@scenario
async def shield(aio, notes):
    task = aio.create_task(worker(notes, "a", 4))
    try:
        return await aio.shield(task)
    finally:
        notes.add("callbacks", bool(task._callbacks))
        await task


@scenario
async def shield_of_the_cancelled(aio, notes):
    task = aio.create_task(worker(notes, "a", 4))
    outer = aio.shield(task)
    await aio.sleep(0)
    task.cancel("inner")
    return await outer


@scenario
async def shields(aio, notes):
    futures = [aio.get_running_loop().create_future() for _ in range(3)]
    outer = aio.gather(*map(aio.shield, futures))
    await aio.sleep(0)
    outer.cancel()
    try:
        await outer
    except aio.CancelledError:
        notes.add("outer")
    for future in futures:
        future.set_result(1)
    return [await future for future in futures]


@scenario
async def timeout(aio, notes):
    async with aio.timeout(5) as limit:
        result = await worker(notes, "a", 3)
    return result, limit.expired()


@scenario
async def timeout_at_once(aio, notes):
    async with aio.timeout(0) as limit:
        try:
            await worker(notes, "a", 5)
        finally:
            notes.add(limit.expired(), repr(limit))
            await aio.sleep(0)


@scenario
async def timeout_rescheduled(aio, notes):
    async with aio.timeout(None) as limit:
        await aio.sleep(0)
        limit.reschedule(aio.get_running_loop().time() - 1)
        limit.reschedule(aio.get_running_loop().time() + 100)
        await aio.sleep(0)
        limit.reschedule(-1)
        limit.reschedule(None)
        await aio.sleep(0)
        notes.add(limit.when(), limit.expired())
        limit.reschedule(-1)
        await worker(notes, "a", 3)


@scenario
async def timeout_and_its_error(aio, notes):
    async with aio.timeout(-1):
        try:
            await aio.sleep(1)
        except aio.CancelledError:
            raise ValueError("while cancelled") from None


@scenario
async def timeouts_nested(aio, notes):
    try:
        async with aio.timeout(-1):
            async with aio.timeout(-1) as inner:
                await worker(notes, "a", 3)
    finally:
        notes.add(inner.expired())


@scenario
async def group(aio, notes):
    async with aio.TaskGroup() as tasks:
        a = tasks.create_task(worker(notes, "a", 3))
        b = tasks.create_task(worker(notes, "b", 1), name="b")
        notes.add(repr(tasks))
        await aio.sleep(0)
    return a.result(), b.result(), b.get_name()


@scenario
async def group_failing(aio, notes):
    async with aio.TaskGroup() as tasks:
        tasks.create_task(worker(notes, "bad", 2, ValueError("bad")))
        tasks.create_task(stubborn(notes, "slow", 9))
        tasks.create_task(worker(notes, "worse", 2, KeyError("worse")))
        await worker(notes, "body", 9)


@scenario
async def group_failing_body(aio, notes):
    async with aio.TaskGroup() as tasks:
        tasks.create_task(stubborn(notes, "slow", 9))
        await aio.sleep(0)
        raise ValueError("body")


@scenario
async def groups_nested(aio, notes):
    async with aio.TaskGroup() as outer:
        outer.create_task(worker(notes, "outer", 5))
        async with aio.TaskGroup() as inner:
            inner.create_task(worker(notes, "bad", 1, ValueError("bad")))
            await worker(notes, "body", 4)


@scenario
async def group_and_system_exit(aio, notes):
    async with aio.TaskGroup() as tasks:
        tasks.create_task(worker(notes, "slow", 9))
        await aio.sleep(0)
        raise KeyboardInterrupt("now")


@scenario
async def group_under_timeout(aio, notes):
    async with aio.timeout(-1):
        async with aio.TaskGroup() as tasks:
            tasks.create_task(stubborn(notes, "slow", 9))


@scenario
async def group_of_eager_tasks(aio, notes):
    aio.get_running_loop().set_task_factory(aio.eager_task_factory)
    async with aio.TaskGroup() as tasks:
        a = tasks.create_task(worker(notes, "a", 0))
        tasks.create_task(worker(notes, "b", 2))
        notes.add(a.done())
    return await aio.gather(worker(notes, "c", 0), worker(notes, "d", 2))


@scenario
async def wait_for_an_item(aio, notes):
    """Cancelled while the item is on its way, the item stays in the queue."""
    queue = aio.Queue()
    getting = aio.create_task(aio.wait_for(queue.get(), 60))
    for _ in range(2):
        await asyncio.sleep(0)
    queue.put_nowait("item")
    try:
        notes.add("got", await getting)
    finally:
        notes.add("left", queue.qsize(), getting.cancelled())


@scenario
async def wait_for_a_lock(aio, notes):
    lock = aio.Lock()
    await lock.acquire()

    async def hold(name):
        try:
            await aio.wait_for(lock.acquire(), 60)
        except asyncio.CancelledError:
            notes.add(name, "cancelled")
            raise
        notes.add(name, "got")
        lock.release()

    tasks = [aio.create_task(hold(name)) for name in "ab"]
    await asyncio.sleep(0)
    tasks[0].cancel()
    lock.release()
    try:
        await aio.gather(*tasks, return_exceptions=True)
    finally:
        await asyncio.sleep(0)
        notes.add("locked", lock.locked())


@scenario
async def timeout_around_a_permit(aio, notes):
    permits = aio.BoundedSemaphore(1)
    await permits.acquire()

    async def hold(name, seconds):
        try:
            async with aio.timeout(seconds), permits:
                notes.add(name, "got")
                await asyncio.sleep(0)
        except TimeoutError:
            notes.add(name, "no time")

    tasks = [aio.create_task(hold("a", 0)), aio.create_task(hold("b", 60)), aio.create_task(hold("c", 60))]
    try:
        for _ in range(3):
            await asyncio.sleep(0)
    finally:
        permits.release()
        tasks[1].cancel()
        await asyncio.wait(tasks)
        notes.add("left", permits._value, permits.locked())


@scenario
async def condition_until(aio, notes):
    """`wait_for` of a condition comes back with the lock, whatever happens."""
    condition, ready = aio.Condition(), []

    async def produce():
        for item in range(3):
            async with condition:
                ready.append(item)
                condition.notify()

    producing = aio.create_task(produce())
    try:
        async with condition:
            try:
                return await condition.wait_for(lambda: len(ready) == 3)
            finally:
                notes.add("locked", condition.locked())
    finally:
        notes.add("free", not condition.locked())
        await producing


@scenario
async def parties(aio, notes):
    barrier = aio.Barrier(3)

    async def party(name):
        try:
            async with barrier as position:
                notes.add(name, position)
        except aio.BrokenBarrierError:
            notes.add(name, "broken")

    tasks = [aio.create_task(party(name)) for name in "ab"]
    try:
        return await barrier.wait()
    finally:
        await barrier.abort()
        await aio.wait(tasks)
        notes.add(barrier.n_waiting, barrier.broken)


@scenario
async def join(aio, notes):
    queue = aio.Queue()
    for item in range(3):
        queue.put_nowait(item)

    async def consume():
        while True:
            notes.add("consumed", await queue.get())
            await asyncio.sleep(0)
            queue.task_done()

    consuming = aio.create_task(consume())
    try:
        await queue.join()
        notes.add("joined")
    finally:
        consuming.cancel()
        notes.add("left", queue.qsize(), queue._unfinished_tasks)


@scenario
async def gather_of_primitives(aio, notes):
    lock, permits, event, queue = aio.Lock(), aio.Semaphore(0), aio.Event(), aio.Queue()
    aio.get_running_loop().call_soon(event.set)
    aio.get_running_loop().call_soon(permits.release)
    aio.get_running_loop().call_soon(queue.put_nowait, 1)
    try:
        return await aio.gather(lock.acquire(), permits.acquire(), event.wait(), queue.get())
    finally:
        notes.add(lock.locked(), permits._value, event.is_set(), queue.qsize())


@scenario
async def group_cancelled(aio, notes):
    async with aio.TaskGroup() as tasks:
        tasks.create_task(stubborn(notes, "a", 9))
        tasks.create_task(worker(notes, "b", 1))
        await asyncio.sleep(0)
        tasks.cancel()
        notes.add("cancelled the group")
        await asyncio.sleep(0)
        notes.add("never here")
    return "after"


@scenario
async def group_cancelled_by_a_task(aio, notes):
    async def stop(tasks):
        await asyncio.sleep(0)
        tasks.cancel()

    try:
        async with aio.TaskGroup() as tasks:
            tasks.create_task(stop(tasks))
            tasks.create_task(worker(notes, "bad", 3, ValueError("bad")))
            tasks.create_task(stubborn(notes, "slow", 9))
    finally:
        notes.add("cancelling", asyncio.current_task().cancelling())
    return "after"


if sys.version_info < (3, 15):  # no TaskGroup.cancel to compare with: see test_newest.py
    del SCENARIOS["group_cancelled"], SCENARIOS["group_cancelled_by_a_task"]
if sys.version_info < (3, 12):
    del SCENARIOS["group_of_eager_tasks"]
if sys.version_info < (3, 13):  # changed since: no async iteration, and one step for two
    del SCENARIOS["as_completed_by_async_for"]


@pytest.mark.skipif(
    sys.version_info < (3, 14),
    reason="wait_for, TaskGroup and as_completed have been mended since; aioxide has the newest behaviour everywhere",
)
@pytest.mark.parametrize("name", SCENARIOS)
def test_cancelled_in_any_turn(name):
    function = SCENARIOS[name]
    undisturbed, reports = play(aioxide, aioxide.new_event_loop, function, 0)
    assert (undisturbed, reports) == play(asyncio, asyncio.SelectorEventLoop, function, 0)
    for turn in range(1, undisturbed[-1][0] + 2):
        ours = play(aioxide, aioxide.new_event_loop, function, turn)
        assert ours == play(asyncio, asyncio.SelectorEventLoop, function, turn), f"cancelled in turn {turn}"
