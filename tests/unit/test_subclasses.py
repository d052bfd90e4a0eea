"""Programs that build on asyncio's private names: subclasses that replace a part, or keep a lock's line themselves.

What they do here is what public code does; each runs on asyncio's own classes first.
"""

import asyncio
import collections
import contextlib
import contextvars
import random

import pytest

pytestmark = pytest.mark.usefixtures("in_place")


def run(main):
    return asyncio.run(asyncio.wait_for(main, 10))


# --- task groups ---------------------------------------------------------------------------------


async def fails():
    raise ValueError("one")


async def works(log):
    await asyncio.sleep(0.01)
    log.append("done")


def failures_in(group, log):
    """A block with a task that fails and one that goes on; what happened."""

    async def main():
        try:
            async with group() as tasks:
                tasks.create_task(fails())
                tasks.create_task(works(log))
                await asyncio.sleep(0.005)
                log.append("block")
        except* ValueError:
            log.append("raised")

    run(main())
    return log


def test_a_group_that_forgives():
    class Forgiving(asyncio.TaskGroup):
        def __init__(self):
            super().__init__()
            self._parent_cancel_requested = True

        def _abort(self):
            pass

    assert failures_in(Forgiving, []) == ["block", "done", "raised"]


def test_a_group_whose_block_alone_is_cancelled():
    class Group(asyncio.TaskGroup):
        def _abort(self):
            pass

    assert failures_in(Group, []) == ["done", "raised"]


def test_a_group_that_looks_at_its_tasks():
    log = []

    class Watching(asyncio.TaskGroup):
        def _on_task_done(self, task):
            log.append(type(task.exception()))
            return super()._on_task_done(task)

    async def main():
        async with Watching() as group:
            group.create_task(works(log))

    run(main())
    assert log == ["done", type(None)]


def test_a_group_that_keeps_errors_to_itself():
    class Collecting(asyncio.TaskGroup):
        def __init__(self):
            super().__init__()
            self.failures = []

        def _on_task_done(self, task):
            if task.cancelled() or task.exception() is None:
                return super()._on_task_done(task)
            self.failures.append(task.exception())
            self._tasks.discard(task)
            if self._on_completed_fut is not None and not self._tasks and not self._on_completed_fut.done():
                self._on_completed_fut.set_result(True)

    async def main():
        log = []
        async with Collecting() as group:
            group.create_task(fails())
            group.create_task(works(log))
        assert log == ["done"]
        assert [str(error) for error in group.failures] == ["one"]
        async with Collecting() as group:
            group.create_task(fails())
        assert len(group.failures) == 1

    run(main())


def test_a_group_that_does_all_of_it_itself():
    """What public code copies out of asyncio."""

    class Own(asyncio.TaskGroup):
        def _on_task_done(self, task):
            self._tasks.discard(task)
            if self._on_completed_fut is not None and not self._tasks and not self._on_completed_fut.done():
                self._on_completed_fut.set_result(True)
            if task.cancelled() or task.exception() is None:
                return
            self._errors.append(task.exception())
            if self._is_base_error(task.exception()) and self._base_error is None:
                self._base_error = task.exception()
            if not self._aborting and not self._parent_cancel_requested:
                self._abort()
                self._parent_cancel_requested = True
                self._parent_task.cancel()

    assert failures_in(Own, []) == ["raised"]


def test_a_group_with_a_fatal_error_of_its_own():
    class Group(asyncio.TaskGroup):
        def _is_base_error(self, exc):
            return isinstance(exc, ValueError)

    async def main():
        async with Group() as group:
            group.create_task(fails())

    with pytest.raises(ValueError, match="one"):
        run(main())


def test_a_groups_callback_has_a_context_and_can_be_taken_away():
    variable, seen = contextvars.ContextVar("variable", default="none"), []

    class Group(asyncio.TaskGroup):
        def _on_task_done(self, task):
            seen.append(variable.get())
            super()._on_task_done(task)

    async def main():
        variable.set("main")
        async with Group() as group:
            group.create_task(asyncio.sleep(0))
            detached = group.create_task(fails())
            group._tasks.discard(detached)
            assert detached.remove_done_callback(group._on_task_done) == 1
        await asyncio.wait([detached])
        assert isinstance(detached.exception(), ValueError)

    run(main())
    assert seen == ["main"]


def test_a_group_that_is_aborted_from_outside():
    async def main():
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(100))
            await asyncio.sleep(0)
            state = group._entered, group._exiting, group._aborting, group._parent_cancel_requested
            assert state == (True, False, False, False)
            assert (group._tasks, group._errors, group._base_error, group._on_completed_fut) == ({task}, [], None, None)
            assert group._parent_task is asyncio.current_task()
            group._abort()
            assert group._aborting
            refused = asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="shutting down"):
                group.create_task(refused)
            refused.close()
        assert task.cancelled()
        assert group._tasks == set()

    run(main())


def test_a_groups_set_of_tasks_is_its_own():
    """A task that somebody takes out is not waited for, and one that somebody puts in is."""

    async def main():
        log = []
        async with asyncio.TaskGroup() as group:
            forgotten = group.create_task(asyncio.sleep(100))
            group._tasks.discard(forgotten)
            own = asyncio.create_task(works(log))
            group._tasks.add(own)
            own.add_done_callback(group._on_task_done)
            assert len(group._tasks) == 1
        assert log == ["done"]
        assert not forgotten.done()
        forgotten.cancel()

    run(main())


# --- semaphores ----------------------------------------------------------------------------------


def test_a_semaphore_that_grows():
    class Flexible(asyncio.Semaphore):
        def increment(self, by):
            self._value += by
            for _ in range(by):
                self._wake_up_next()

    async def main():
        semaphore, log = Flexible(1), []

        async def enter(number):
            async with semaphore:
                log.append(number)
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(enter(number)) for number in range(4)]
        await asyncio.sleep(0)
        assert (log, len(semaphore._waiters)) == ([0], 3)
        semaphore.increment(2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert log == [0, 1, 2]
        await asyncio.gather(*tasks)
        assert semaphore._value == 3
        assert not semaphore._wake_up_next()

    run(main())


def test_a_bound_that_changes():
    class Dynamic(asyncio.BoundedSemaphore):
        def set_bound(self, bound):
            self._value += bound - self._bound_value
            self._bound_value = bound

    async def main():
        semaphore = Dynamic(1)
        semaphore.set_bound(3)
        for _ in range(3):
            await semaphore.acquire()
        assert semaphore.locked()
        for _ in range(3):
            semaphore.release()
        with pytest.raises(ValueError, match="too many times"):
            semaphore.release()
        assert semaphore._bound_value == 3

    run(main())


def test_a_semaphore_of_nothing():
    class Dummy(asyncio.Semaphore):
        _value = 0

        def __init__(self):
            pass

        async def acquire(self):
            return True

        def release(self):
            pass

    async def main():
        async with Dummy() as nothing:
            assert nothing is None
        assert Dummy()._value == 0

    run(main())


async def order(lock, count=4, cancelled=None):
    """In which order so many get in, of whom one may be cancelled while it waits."""
    log = []

    async def enter(number):
        async with lock:
            log.append(number)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(enter(number)) for number in range(count)]
    await asyncio.sleep(0)
    if cancelled is not None:
        tasks[cancelled].cancel()
    await asyncio.wait(tasks)
    assert [number for number, task in enumerate(tasks) if task.cancelled()] == (
        [] if cancelled is None else [cancelled]
    )
    assert not lock.locked()
    assert "waiters" not in repr(lock)
    return log


class Newest(collections.deque):
    """A line in which the last one is the first."""

    def __iter__(self):
        return reversed(list(super().__iter__()))


def test_a_semaphore_that_serves_the_newest_first():
    class Stack(asyncio.Semaphore):
        def __init__(self):
            super().__init__(1)
            self._waiters = Newest()

    assert run(order(Stack())) == [0, 3, 2, 1]


# --- locks, events and conditions ----------------------------------------------------------------


def test_hooks_that_wake():
    class Semaphore(asyncio.Semaphore):
        def _wake_up_next(self):
            for waiter in list(self._waiters or ())[::-1]:
                if not waiter.done():
                    self._value -= 1
                    waiter.set_result(True)
                    return True
            return False

    class Lock(asyncio.Lock):
        def _wake_up_first(self):
            for waiter in list(self._waiters or ())[::-1]:
                if not waiter.done():
                    waiter.set_result(True)
                    return

    assert run(order(Semaphore())) == [0, 3, 2, 1]
    assert run(order(Lock())) == [0, 3, 2, 1]


def test_a_semaphore_that_says_itself_whether_it_is_locked():
    class Reserved(asyncio.BoundedSemaphore):
        def locked(self):
            return self._value <= 1

    async def main():
        semaphore = Reserved(2)
        await semaphore.acquire()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(semaphore.acquire(), 0.01)
        semaphore.release()
        with pytest.raises(ValueError, match="too many times"):
            semaphore.release()

    run(main())


def test_a_lock_that_serves_the_newest_first():
    class Stack(asyncio.Lock):
        def __init__(self):
            super().__init__()
            self._waiters = Newest()

    async def main():
        lock = Stack()
        assert await order(lock, 5, cancelled=3) == [0, 4, 2, 1]
        condition, heard = asyncio.Condition(lock), []

        async def listen():
            async with condition:
                await condition.wait()
                heard.append(1)

        tasks = [asyncio.create_task(listen()) for _ in range(3)]
        await asyncio.sleep(0.001)
        async with condition:
            condition.notify_all()
        await asyncio.gather(*tasks)
        assert len(heard) == 3

    run(main())


def test_a_line_that_is_made_when_it_is_needed():
    class Stack(asyncio.Lock):
        async def acquire(self):
            if self._waiters is None:
                self._waiters = Newest()
            return await super().acquire()

    assert run(order(Stack())) == [0, 3, 2, 1]


def test_a_lock_with_an_acquire_of_its_own():
    class Own(asyncio.Lock):
        async def acquire(self):
            if not self._locked and (self._waiters is None or all(w.cancelled() for w in self._waiters)):
                self._locked = True
                return True
            if self._waiters is None:
                self._waiters = collections.deque()
            waiter = self._get_loop().create_future()
            self._waiters.append(waiter)
            try:
                try:
                    await waiter
                finally:
                    self._waiters.remove(waiter)
            except asyncio.CancelledError:
                if not self._locked:
                    self._wake_up_first()
                raise
            self._locked = True
            return True

    assert run(order(Own(), cancelled=1)) == [0, 2, 3]


def test_an_event_that_can_be_waited_for_both_ways():
    class Switch(asyncio.Event):
        def __init__(self):
            self._waiters = collections.deque()
            self._off = collections.deque()
            self._value = False

        def clear(self):
            self._value = False
            for waiter in self._off:
                waiter.set_result(True)

        async def wait_off(self):
            waiter = self._get_loop().create_future()
            self._off.append(waiter)
            return await waiter

    async def main():
        switch = Switch()
        on = asyncio.create_task(switch.wait())
        await asyncio.sleep(0)
        switch.set()
        assert await on
        off = asyncio.create_task(switch.wait_off())
        await asyncio.sleep(0)
        switch.clear()
        assert await off

    run(main())


def test_an_event_whose_line_is_somebody_elses():
    class Stack(asyncio.Event):
        def __init__(self):
            super().__init__()
            self._waiters = Newest()

    async def main():
        event, log = Stack(), []

        async def wait(number):
            await event.wait()
            log.append(number)

        tasks = [asyncio.create_task(wait(number)) for number in range(3)]
        await asyncio.sleep(0)
        assert len(event._waiters) == 3
        event.set()
        await asyncio.gather(*tasks)
        assert log == [2, 1, 0]

    run(main())


def test_a_condition_with_another_acquire():
    """asyncio's has `acquire`, `release` and `locked` as attributes of the instance."""

    class Counting(asyncio.Condition):
        def __init__(self):
            super().__init__()
            self.base, self.acquire, self.count = self.acquire, self.counted, 0

        async def counted(self):
            self.count += 1
            return await self.base()

        def locked(self):
            raise AssertionError("hidden by the instance's")

    async def main():
        condition = Counting()

        async def wait():
            async with condition:
                await condition.wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0.001)
        async with condition:
            condition.notify_all()
        await task
        assert condition.count == 3
        assert not condition.locked()

    run(main())


def test_a_condition_that_passes_messages():
    class Messages(asyncio.Condition):
        async def wait(self):
            self.release()
            try:
                waiter = self._get_loop().create_future()
                self._waiters.append(waiter)
                try:
                    return await waiter
                finally:
                    self._waiters.remove(waiter)
            finally:
                await self.acquire()

        def notify(self, n=1, message=None):
            for waiter in list(self._waiters)[:n]:
                waiter.set_result(message)

        def notify_all(self, message=None):
            self.notify(len(self._waiters), message)

    async def main():
        condition = Messages()

        async def wait():
            async with condition:
                return await condition.wait()

        tasks = [asyncio.create_task(wait()) for _ in range(3)]
        await asyncio.sleep(0.001)
        async with condition:
            condition.notify_all("news")
        assert await asyncio.gather(*tasks) == ["news"] * 3

    run(main())


def test_a_condition_that_serves_the_newest_first():
    class Stack(asyncio.Condition):
        def __init__(self):
            super().__init__()
            self._waiters = Newest()

    async def main():
        condition, log = Stack(), []

        async def wait(number):
            async with condition:
                await condition.wait()
                log.append(number)

        tasks = [asyncio.create_task(wait(number)) for number in range(4)]
        await asyncio.sleep(0.001)
        tasks[2].cancel()
        await asyncio.sleep(0)
        assert len(condition._waiters) == 3
        async with condition:
            condition.notify(1)
        await tasks[3]
        async with condition:
            condition.notify_all()
        await asyncio.wait(tasks)
        assert sorted(log) == [0, 1, 3]
        assert log[0] == 3

    run(main())


# --- queues --------------------------------------------------------------------------------------


def test_a_queue_whose_items_are_handled_directly():
    class Songs(asyncio.Queue):
        def put_first(self, item):
            self._queue.appendleft(item)
            self._unfinished_tasks += 1
            self._finished.clear()
            self._wakeup_next(self._getters)

    async def main():
        queue = Songs()
        for item in range(5):
            queue.put_nowait(item)
        assert list(queue._queue) == [0, 1, 2, 3, 4]
        del queue._queue[2]
        random.shuffle(queue._queue)
        assert sorted(queue._queue) == [0, 1, 3, 4]
        queue._queue.clear()
        assert queue.empty()
        getter = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.put_first("first")
        assert await getter == "first"

    run(main())


def test_a_queue_that_can_be_peeked():
    class Peek(asyncio.Queue):
        async def peek(self):
            while self.empty():
                getter = self._get_loop().create_future()
                self._getters.append(getter)
                try:
                    await getter
                except BaseException:
                    getter.cancel()
                    with contextlib.suppress(ValueError):
                        self._getters.remove(getter)
                    raise
            return self._queue[0]

    async def main():
        queue = Peek()
        peeks = [asyncio.create_task(queue.peek()) for _ in range(2)]
        await asyncio.sleep(0)
        peeks[0].cancel()
        await asyncio.sleep(0)
        queue.put_nowait(5)
        assert await peeks[1] == 5
        assert queue.qsize() == 1

    run(main())


def test_a_priority_queue_with_another_order():
    class Largest(asyncio.PriorityQueue):
        def _put(self, item):
            super()._put((-item, item))

        def _get(self):
            return super()._get()[1]

    async def main():
        queue = Largest()
        for item in (1, 3, 2):
            queue.put_nowait(item)
        assert [await queue.get() for _ in range(3)] == [3, 2, 1]

    run(main())
