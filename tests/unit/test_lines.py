"""The lists of those who wait for a lock or queue: programs put somebody first, or go through them from the end."""

import asyncio
import collections

import pytest


def test_the_wait_list_has_two_ends(aio, run):
    async def main():
        event, loop = aio.Event(), asyncio.get_running_loop()
        task = asyncio.ensure_future(event.wait())
        await asyncio.sleep(0)
        (parked,) = event._waiters
        first, last = loop.create_future(), loop.create_future()
        event._waiters.append(last)
        event._waiters.appendleft(first)
        assert list(event._waiters) == [first, parked, last]
        assert list(reversed(event._waiters)) == [last, parked, first]
        assert event._waiters.pop() is last
        assert event._waiters.popleft() is first
        event.set()
        assert await task is True
        for end in (event._waiters.pop, event._waiters.popleft):
            with pytest.raises(IndexError):
                end()

    run(main())


@pytest.mark.usefixtures("in_place")
def test_a_queue_that_says_first_that_it_has_something():
    class Ready(asyncio.Queue):
        async def ready(self):
            while self.empty():
                getter = self._get_loop().create_future()
                self._getters.appendleft(getter)
                await getter
            self._wakeup_next(self._getters)

    async def main():
        queue, log = Ready(), []

        async def get():
            log.append(await queue.get())

        async def ready():
            await queue.ready()
            log.append("ready")

        tasks = [asyncio.create_task(each()) for each in (get, ready)]
        await asyncio.sleep(0)
        assert len(queue._getters) == 2
        queue.put_nowait(1)
        await asyncio.gather(*tasks)
        assert log == ["ready", 1]

    asyncio.run(asyncio.wait_for(main(), 10))


@pytest.mark.usefixtures("in_place")
def test_a_semaphore_for_the_last_first():
    class LastFirst(asyncio.Semaphore):
        async def acquire(self):
            if not self.locked():
                self._value -= 1
                return True
            waiter = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = collections.deque()
            self._waiters.appendleft(waiter)
            await waiter
            return True

        def release(self):
            while self._waiters:
                waiter = self._waiters.popleft()
                if not waiter.done():
                    waiter.set_result(True)
                    return
            self._value += 1

    async def main():
        semaphore, log = LastFirst(1), []

        async def work(number):
            async with semaphore:
                log.append(number)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(work(number)) for number in range(4)]
        await asyncio.gather(*tasks)
        assert log == [0, 3, 2, 1]
        assert not semaphore.locked()

    asyncio.run(asyncio.wait_for(main(), 10))
