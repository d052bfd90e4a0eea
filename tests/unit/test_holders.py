"""Who holds a lock or a permit, and whose awaitable one is: what reports about waiting tasks are made of."""

import asyncio
import sys
import weakref

import aioxide
import pytest
from aioxide import _core


@pytest.fixture(params=["native loop", "asyncio's loop"])
def run(request):
    """Runs a coroutine in a native task of a native loop, and in a task of asyncio's on asyncio's loop."""
    return aioxide.run if request.param == "native loop" else asyncio.run


def names(lock):
    """The holders' names; those of live tasks with a mark."""
    return [f"{held.get_name()}!" if isinstance(held, asyncio.Task) else held for held in _core._holders(lock)]


async def turns(number=3):
    for _ in range(number):
        await asyncio.sleep(0)


def spawn(coro, name):
    return asyncio.get_running_loop().create_task(coro, name=name)


@pytest.mark.parametrize("how", ["acquire", "with"])
def test_the_owner_is_who_acquired(run, how):
    async def main():
        lock, go = aioxide.Lock(), asyncio.Event()

        async def hold():
            if how == "with":
                async with lock:
                    await go.wait()
            else:
                await lock.acquire()
                await go.wait()
                lock.release()

        assert names(lock) == []
        first, second = spawn(hold(), "first"), spawn(hold(), "second")
        await turns()
        assert names(lock) == ["first!"]
        assert _core._holders(lock) == [first]
        go.set()
        await turns()
        await asyncio.gather(first, second)
        assert names(lock) == []
        async with lock:
            assert _core._holders(lock) == [asyncio.current_task()]
        assert names(lock) == []

    run(main())


def test_the_next_in_line_is_the_owner_once_it_runs(run):
    async def main():
        lock, inside = aioxide.Lock(), []

        async def hold():
            async with lock:
                inside.extend(names(lock))
                await asyncio.sleep(0)

        await asyncio.gather(*(spawn(hold(), name) for name in "abc"))
        assert inside == ["a!", "b!", "c!"]

    run(main())


def test_anybody_may_release(run):
    async def main():
        lock = aioxide.Lock()
        holder = spawn(lock.acquire(), "holder")
        await holder
        assert names(lock) == ([None] if type(holder) is not aioxide.Task else ["holder"])
        lock.release()
        assert names(lock) == []
        await lock.acquire()
        assert _core._holders(lock) == [asyncio.current_task()]

    run(main())


def test_an_owner_that_ended_is_no_other_task():
    async def main():
        lock = aioxide.Lock()

        async def forget():
            await lock.acquire()

        task = aioxide.create_task(forget())
        name = task.get_name()
        await task
        gone = weakref.ref(task)
        del task
        await asyncio.sleep(0)
        assert gone() is None, "a lock doesn't keep its owner alive"
        for _ in range(50):  # some of these have the place in memory that the owner had
            await aioxide.create_task(asyncio.sleep(0))
            later = aioxide.create_task(lock.acquire())
            await turns()
            assert _core._holders(lock) == [name]
            later.cancel()
            await asyncio.gather(later, return_exceptions=True)

    aioxide.run(main())


def test_a_renamed_owner_is_the_same_task():
    async def main():
        lock = aioxide.Lock()
        async with lock:
            asyncio.current_task().set_name("renamed")
            assert _core._holders(lock) == [asyncio.current_task()]

    aioxide.run(main())


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
def test_a_semaphore_knows_who_has_its_permits(run, kind):
    async def main():
        permits, go = getattr(aioxide, kind)(2), [asyncio.Event() for _ in range(3)]

        async def hold(number):
            async with permits:
                await go[number].wait()

        tasks = [spawn(hold(number), f"task {number}") for number in range(3)]
        await turns()
        assert names(permits) == ["task 0!", "task 1!"]
        go[0].set()
        await turns()
        assert names(permits) == ["task 1!", "task 2!"]
        go[2].set()
        go[1].set()
        await asyncio.gather(*tasks)
        assert names(permits) == []

    run(main())


def test_the_record_of_a_large_semaphore_is_bounded(run):
    async def main():
        permits, go = aioxide.Semaphore(100), asyncio.Event()

        async def hold():
            async with permits:
                await go.wait()

        tasks = [spawn(hold(), "holder") for _ in range(100)]
        await turns()
        held = names(permits)
        assert len(held) == 100
        assert held.count("holder!") == 32
        assert set(held[32:]) == {None}
        go.set()
        await asyncio.gather(*tasks)
        assert names(permits) == []

    run(main())


def test_a_condition_gives_its_lock_to_who_waits_no_more(run):
    async def main():
        condition = aioxide.Condition()

        async def wait():
            async with condition:
                await condition.wait()
                assert names(condition._lock) == ["waiter!"]

        waiter = spawn(wait(), "waiter")
        await turns()
        assert names(condition._lock) == []
        async with condition:
            condition.notify()
            assert _core._holders(condition._lock) == [asyncio.current_task()]
        await waiter
        assert names(condition._lock) == []

    run(main())


def test_setting_the_state_by_hand_forgets_the_owner(run):
    async def main():
        lock = aioxide.Lock()
        await lock.acquire()
        lock._locked = False
        assert names(lock) == []
        await lock.acquire()
        lock.__init__()
        assert names(lock) == []
        assert not lock.locked()

    run(main())


def test_acquiring_outside_of_a_task():
    lock = aioxide.Lock()
    with pytest.raises(StopIteration):
        lock.acquire().send(None)
    assert lock.locked()

    async def main():
        assert names(lock) == [None]
        lock.release()
        assert names(lock) == []

    aioxide.run(main())


def test_what_a_coroutine_waits_for(run):
    async def main():
        lock, event, permits, queue = aioxide.Lock(), aioxide.Event(), aioxide.Semaphore(0), aioxide.Queue()
        condition, barrier = aioxide.Condition(), aioxide.Barrier(2)
        await lock.acquire()
        for whose, coroutine in [
            (lock, lock.acquire()),
            (lock, lock.__aenter__()),
            (event, event.wait()),
            (permits, permits.acquire()),
            (queue, queue.get()),
            (barrier, barrier.wait()),
        ]:
            future = coroutine.send(None)
            assert asyncio.isfuture(future)
            assert coroutine._waits_for[1] is whose
            inner = coroutine.cr_await
            while inner is not future:  # as deep as asyncio's own coroutines are
                inner = inner.cr_await
            coroutine.close()
            assert coroutine._waits_for is None
        await condition.acquire()
        waiting = condition.wait()
        waiting.send(None)
        assert waiting._waits_for == ("condition", condition)
        await condition.acquire()
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            waiting.close()
        assert waiting._waits_for == ("lock", condition._lock)
        condition.release()
        waiting.close()

    run(main())


def test_a_lock_has_no_reference_to_its_owner(run):
    async def main():
        locks = [aioxide.Lock(), aioxide.Semaphore(), aioxide.Condition()]
        task = asyncio.current_task()
        before = sys.getrefcount(task)
        for lock in locks:
            await lock.acquire()
        assert sys.getrefcount(task) == before
        for lock in locks:
            lock.release()

    run(main())


def test_the_owner_is_in_the_report():
    async def main():
        lock, permits = aioxide.Lock(), aioxide.Semaphore(2)

        async def hold():
            async with lock, permits:
                await asyncio.Event().wait()

        async def forget():
            await permits.acquire()

        async def wait(what):
            async with what:
                pass

        await spawn(forget(), "forgetful")
        holder = spawn(hold(), "holder")
        await turns()
        waiters = spawn(wait(lock), "for the lock"), spawn(wait(permits), "for a permit")
        await turns()
        waits = {task.name: task.waits_for for task in aioxide.tasks()}
        assert waits["for the lock"].owners == (id(holder),)
        assert waits["for a permit"].owners == (id(holder),)
        assert waits["for a permit"].ended_owners == ("forgetful",)
        for task in (holder, *waiters):
            task.cancel()
        await asyncio.gather(holder, *waiters, return_exceptions=True)

    aioxide.run(main())
