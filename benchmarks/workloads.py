"""What is measured: small asyncio programs that do one thing n times, and say how often they did it.

Every name of asyncio is looked up when it is used, so that an installed aioxide is the one at work.
"""

import asyncio
import sys
import threading

WORKLOADS = {}
UNIT = 400  # every n is a multiple of this, so that it can be divided among a hundred tasks


def workload(group, n):
    """Registers a coroutine function that is given n and returns how many operations it saw done."""

    def register(function):
        WORKLOADS[f"{group}/{function.__name__}"] = (function, n)
        return function

    return register


def scaled(n, scale):
    return max(1, round(n * scale / UNIT)) * UNIT if n >= UNIT else max(4, round(n * scale))


async def nothing():
    pass


async def one():
    return 1


# Tasks and futures ------------------------------------------------------------------------


@workload("scheduling", 100_000)
async def task_switch(n):
    """A hundred tasks that do nothing but let the next one run."""
    done = 0

    async def spin():
        nonlocal done
        for _ in range(n // 100):
            await asyncio.sleep(0)
            done += 1

    await asyncio.gather(*[spin() for _ in range(100)])
    return done


@workload("scheduling", 15_000)
async def create_task(n):
    done = 0
    for _ in range(n):
        await asyncio.create_task(nothing())
        done += 1
    return done


@workload("scheduling", 20_000)
async def future_pingpong(n):
    """Two tasks that wake each other through futures."""
    loop = asyncio.get_running_loop()
    balls = [loop.create_future(), loop.create_future()]

    async def play(side):
        for _ in range(n // 2):
            await balls[side]
            balls[side] = loop.create_future()
            balls[1 - side].set_result(None)

    balls[0].set_result(None)
    await asyncio.gather(play(0), play(1))
    return n


@workload("scheduling", 10_000)
async def cancel10k(n):
    tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(n)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return sum(task.cancelled() for task in tasks)


@workload("scheduling", 10_000)
async def eager10k(n):
    """Tasks that are done before anything has to be scheduled (3.12 and later in asyncio)."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        tasks = [loop.create_task(one()) for _ in range(n)]
    finally:
        loop.set_task_factory(None)
    return sum([await task for task in tasks])


# Callbacks and timers ---------------------------------------------------------------------


@workload("scheduling", 100_000)
async def call_soon_chain(n):
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    left = n

    def again():
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(again)
        else:
            finished.set_result(None)

    loop.call_soon(again)
    await finished
    return n - left


@workload("scheduling", 50_000)
async def threadsafe_flood(n):
    """Another thread calls call_soon_threadsafe as fast as it can."""
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    count = 0

    def hit():
        nonlocal count
        count += 1
        if count == n:
            finished.set_result(None)

    def flood():
        for _ in range(n):
            loop.call_soon_threadsafe(hit)

    thread = threading.Thread(target=flood)
    thread.start()
    await finished
    thread.join()
    return count


@workload("scheduling", 50_000)
async def timers_cancel(n):
    """Timers of which nine in ten are cancelled before they are due."""
    loop = asyncio.get_running_loop()
    fired = 0

    def fire():
        nonlocal fired
        fired += 1

    timers = [loop.call_later(0.01 + (number * 7919 % 1000) / 1e6, fire) for number in range(n)]
    for number, timer in enumerate(timers):
        if number % 10:
            timer.cancel()
    await asyncio.sleep(0.05)
    return fired * 10


@workload("scheduling", 20_000)
async def timers_fire(n):
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    fired = 0

    def fire():
        nonlocal fired
        fired += 1
        if fired == n:
            finished.set_result(None)

    for number in range(n):
        loop.call_later((number * 7919 % 1000) / 1e5, fire)
    await finished
    return fired


@workload("scheduling", 10_000)
async def sleep_storm(n):
    await asyncio.gather(*[asyncio.sleep((number % 100) / 1e4) for number in range(n)])
    return n


# Waiting for several ----------------------------------------------------------------------


@workload("primitives", 10_000)
async def gather10k(n):
    return sum(await asyncio.gather(*[one() for _ in range(n)]))


@workload("primitives", 10_000)
async def taskgroup10k(n):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(n)]
    return sum(task.result() for task in tasks)


@workload("primitives", 10_000)
async def as_completed10k(n):
    return sum([await done for done in asyncio.as_completed([one() for _ in range(n)])])


@workload("primitives", 4_000)
async def wait_first(n):
    """The first of two tasks, of which the other is cancelled."""
    done = 0
    for _ in range(n):
        quick, slow = asyncio.create_task(one()), asyncio.create_task(asyncio.sleep(3600))
        finished, _ = await asyncio.wait([quick, slow], return_when=asyncio.FIRST_COMPLETED)
        slow.cancel()
        done += finished == {quick}
    return done


@workload("primitives", 4_000)
async def shield_cancel(n):
    """A task that waits for a shielded future is cancelled; the future is not."""
    inner = asyncio.get_running_loop().create_future()

    async def wait():
        await asyncio.shield(inner)

    done = 0
    for _ in range(n):
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        done += task.cancelled() and not inner.done()
    inner.cancel()
    return done


@workload("primitives", 10_000)
async def wait_for(n):
    return sum([await asyncio.wait_for(one(), 60) for _ in range(n)])


@workload("primitives", 20_000)
async def timeout(n):
    done = 0
    for _ in range(n):
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
            done += 1
    return done


# Locks and queues -------------------------------------------------------------------------


@workload("primitives", 50_000)
async def lock_free(n):
    lock = asyncio.Lock()
    done = 0
    for _ in range(n):
        async with lock:
            done += 1
    return done


@workload("primitives", 20_000)
async def lock_contended(n):
    lock = asyncio.Lock()
    done = 0

    async def work():
        nonlocal done
        for _ in range(n // 100):
            async with lock:
                await asyncio.sleep(0)
                done += 1

    await asyncio.gather(*[work() for _ in range(100)])
    return done


async def through_queue(room, n):
    queue = asyncio.Queue(room)

    async def produce():
        for number in range(n):
            await queue.put(number)

    producer = asyncio.create_task(produce())
    for number in range(n):
        assert await queue.get() == number
    await producer
    return n


@workload("primitives", 20_000)
async def queue_1(n):
    """A producer and a consumer with room for one item between them."""
    return await through_queue(1, n)


@workload("primitives", 100_000)
async def queue_100(n):
    """A producer and a consumer with room for a hundred items between them."""
    return await through_queue(100, n)


@workload("primitives", 20_000)
async def semaphore(n):
    """A hundred tasks for ten permits."""
    permits = asyncio.Semaphore(10)
    done = 0

    async def work():
        nonlocal done
        for _ in range(n // 100):
            async with permits:
                await asyncio.sleep(0)
                done += 1

    await asyncio.gather(*[work() for _ in range(100)])
    return done


@workload("primitives", 20_000)
async def event(n):
    """A hundred tasks wait, are woken by one call, and wait again."""
    done = 0
    for _ in range(n // 100):
        flag = asyncio.Event()
        waiters = [asyncio.create_task(flag.wait()) for _ in range(100)]
        await asyncio.sleep(0)
        flag.set()
        done += sum(await asyncio.gather(*waiters))
    return done


@workload("primitives", 20_000)
async def condition(n):
    """A hundred tasks wait under one lock, and all are notified."""
    news = asyncio.Condition()
    woken = turn = 0

    async def follow():
        nonlocal woken
        for number in range(n // 100):
            async with news:
                await news.wait_for(lambda number=number: turn > number)
                woken += 1

    followers = [asyncio.create_task(follow()) for _ in range(100)]
    for number in range(n // 100):
        while woken < number * 100:
            await asyncio.sleep(0)
        async with news:
            turn += 1
            news.notify_all()
    await asyncio.gather(*followers)
    return woken


# Threads and processes --------------------------------------------------------------------


@workload("io", 2_000)
async def to_thread(n):
    return sum([await asyncio.to_thread(int, 1) for _ in range(n)])


@workload("io", 40)
async def subprocess(n):
    """Child processes, one after the other; what counts is the parent's time."""
    done = 0
    for _ in range(n):
        child = await asyncio.create_subprocess_exec("true")
        done += await child.wait() == 0
    return done


# What an idle thing weighs ----------------------------------------------------------------


async def idle_tasks(n):
    return [asyncio.create_task(asyncio.sleep(3600)) for _ in range(n)]


async def idle_timers(n):
    loop = asyncio.get_running_loop()
    return [loop.call_later(3600 + number % 1000, sys.exit) for number in range(n)]


IDLE = {"tasks": (idle_tasks, 10_000), "timers": (idle_timers, 50_000)}
