"""Lock, Event, Condition, Semaphore, BoundedSemaphore, Barrier: beyond what CPython's own tests look at."""

import asyncio
import fractions
import gc
import inspect
import re
import sys
import weakref

import aioxide
import pytest

TURNS = 5  # in which something is done to a scenario below
REST = 15  # more turns than any of them needs to come to rest

PRIMITIVES = ["Lock", "Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier"]


def make(aio, name):
    return getattr(aio, name)(*([2] if name == "Barrier" else []))


# --- cancelled at every await point ----------------------------------------------------------
#
# Each scenario is played with a cancellation in every turn, and everything else in every turn, on
# CPython's asyncio and on aioxide: the same tasks must do the same things in the same order.


async def played(aio, script, tasks):
    """Does what the script says, a turn at a time, and waits for the tasks."""
    for turn in range(TURNS + REST):
        for act in script.get(turn, ()):
            act()
        await asyncio.sleep(0)
    pending = [task for task in tasks if not task.done()]
    return ["cancelled" if task.cancelled() else "pending" if task in pending else "done" for task in tasks]


def scripts(*acts):
    """Every way to place the acts in turns."""
    if not acts:
        yield {}
        return
    for turn in range(TURNS):
        for script in scripts(*acts[1:]):
            yield {**script, turn: [acts[0], *script.get(turn, [])]}


def cancel_everywhere(scenario, right_since=(3, 11)):
    """Plays the scenario in all its variants on both, and compares what happened.

    CPython's asyncio counts from the version it does the right thing in.
    """

    async def play(aio, number):
        trace = []
        acts, tasks, rest = scenario(aio, trace)
        await asyncio.sleep(0)
        ends = await played(aio, list(scripts(*acts))[number], tasks)
        trace.append((ends, rest()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return trace

    def run(aio, number):
        loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
        try:
            return loop.run_until_complete(play(aio, number))
        finally:
            loop.close()

    async def count(aio):
        acts, tasks, _ = scenario(aio, [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(list(scripts(*acts)))

    number = asyncio.run(count(asyncio))
    assert number >= TURNS
    for variant in range(number):
        got = run(aioxide, variant)
        if sys.version_info >= right_since:
            assert got == run(asyncio, variant), f"variant {variant}"
        yield got


def test_no_lock_is_lost_or_doubled():
    def scenario(aio, trace):
        lock = aio.Lock()
        inside = []

        async def worker(name):
            async with lock:
                inside.append(name)
                assert len(inside) == 1
                trace.append(("got", name))
                await asyncio.sleep(0)
                inside.remove(name)

        async def holder():
            async with lock:
                await released.wait()

        released = asyncio.Event()
        tasks = [asyncio.ensure_future(holder()), *(asyncio.ensure_future(worker(name)) for name in "abc")]
        return (released.set, tasks[1].cancel, tasks[2].cancel), tasks, lambda: lock.locked()

    for trace in cancel_everywhere(scenario):
        ends, locked = trace[-1]
        assert ends[0] == ends[3] == "done"
        assert not locked


def test_no_permit_is_lost_or_doubled():
    def scenario(aio, trace):
        permits = aio.Semaphore(2)

        async def worker(name):
            async with permits:
                trace.append(("got", name))
                await asyncio.sleep(0)

        async def holder(released):
            async with permits:
                await released.wait()

        released = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.ensure_future(holder(event)) for event in released]
        tasks += [asyncio.ensure_future(worker(name)) for name in "abc"]
        acts = (released[0].set, released[1].set, tasks[2].cancel, tasks[3].cancel)
        return acts, tasks, lambda: (permits._value, permits.locked())

    for trace in cancel_everywhere(scenario):
        ends, rest = trace[-1]
        assert ends[4] == "done"
        assert rest == (2, False)


def test_no_set_is_missed():
    def scenario(aio, trace):
        event = aio.Event()

        async def worker(name):
            trace.append((name, await event.wait()))

        tasks = [asyncio.ensure_future(worker(name)) for name in "abc"]
        return (event.set, tasks[1].cancel, event.clear), tasks, lambda: (event.is_set(), len(event._waiters))

    for trace in cancel_everywhere(scenario):
        ends, (_, waiting) = trace[-1]
        assert ends[0] == ends[2] == "done"
        assert waiting == 0


def test_no_notification_is_lost():
    def scenario(aio, trace):
        condition = aio.Condition()

        async def worker(name):
            async with condition:
                try:
                    await condition.wait()
                    trace.append(("notified", name))
                finally:
                    assert condition.locked()
                await asyncio.sleep(0)

        async def notifier():
            await go.wait()
            async with condition:
                condition.notify()
                await asyncio.sleep(0)

        go = asyncio.Event()
        tasks = [asyncio.ensure_future(worker(name)) for name in "abc"] + [asyncio.ensure_future(notifier())]
        acts = (go.set, tasks[0].cancel, tasks[1].cancel)
        return acts, tasks, lambda: (condition.locked(), len(condition._waiters))

    for trace in cancel_everywhere(scenario, right_since=(3, 13)):
        ends, (locked, _) = trace[-1]
        assert ends[3] == "done"
        assert not locked
        # The notification was heard by somebody who could use it.
        assert any(step[0] == "notified" for step in trace[:-1])


def test_a_barrier_keeps_its_count():
    def scenario(aio, trace):
        barrier = aio.Barrier(2)

        async def worker(name):
            try:
                trace.append((name, await barrier.wait()))
            except aio.BrokenBarrierError as error:
                trace.append((name, str(error)))

        resetting = []

        def reset():
            resetting.append(asyncio.ensure_future(barrier.reset()))

        tasks = [asyncio.ensure_future(worker(name)) for name in "abc"]
        acts = (tasks[0].cancel, tasks[2].cancel, reset)
        return acts, tasks, lambda: (barrier.n_waiting, barrier.broken, barrier.parties)

    for trace in cancel_everywhere(scenario):
        _, (waiting, broken, _) = trace[-1]
        assert waiting <= 1
        assert not broken


# --- awaitables ------------------------------------------------------------------------------

WAITS = {
    "Lock": ["acquire", "__aenter__"],
    "Event": ["wait"],
    "Condition": ["acquire", "wait", "__aenter__"],
    "Semaphore": ["acquire", "__aenter__"],
    "BoundedSemaphore": ["acquire", "__aenter__"],
    "Barrier": ["wait", "reset", "abort", "__aenter__"],
}
METHODS = [(name, method) for name, methods in WAITS.items() for method in methods]


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_what_is_awaited_is_a_coroutine(aio, name, method):
    coroutine = getattr(make(aio, name), method)()
    assert asyncio.iscoroutine(coroutine)
    assert coroutine.__name__ == method
    assert coroutine.close() is None
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.send(None)


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_what_was_never_awaited_says_so(aio, name, method):
    def forget():
        getattr(make(aio, name), method)()
        if method == "__aenter__":
            # aioxide keeps the last one for the next `async with`, and looks at it then.
            getattr(make(aio, name), method)().close()

    with pytest.warns(RuntimeWarning, match="was never awaited"):
        forget()


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_thrown_into_before_the_start(aio, name, method):
    coroutine = getattr(make(aio, name), method)()
    with pytest.raises(ZeroDivisionError):
        coroutine.throw(ZeroDivisionError())
    coroutine.close()


def test_nothing_happens_before_it_is_awaited(aio, run):
    async def main():
        lock = aio.Lock()
        coroutine = lock.acquire()
        assert not lock.locked()
        assert await coroutine is True
        assert lock.locked()
        leaving = lock.__aexit__(None, None, None)
        assert lock.locked()
        assert await leaving is None
        assert not lock.locked()

    run(main())


@pytest.mark.parametrize("end", ["close", "drop", "throw"])
def test_a_waiter_that_is_given_up_leaves_the_line(aio, run, end):
    async def main():
        lock = aio.Lock()
        await lock.acquire()
        coroutine = lock.acquire()
        coroutine.send(None)
        waiter = asyncio.ensure_future(lock.acquire())
        await asyncio.sleep(0)
        assert len(lock._waiters) == 2
        if end == "close":
            coroutine.close()
        elif end == "throw":
            with pytest.raises(ZeroDivisionError):
                coroutine.throw(ZeroDivisionError())
        del coroutine
        gc.collect()
        assert len(lock._waiters) == 1
        lock.release()
        await waiter

    run(main())


def test_the_latest_cancellation_comes_out_of_a_wait(aio, run):
    if aio is asyncio and sys.version_info < (3, 13):
        pytest.skip("it raises a new CancelledError")

    async def main():
        condition = aio.Condition()

        async def wait():
            async with condition:
                await condition.wait()

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        await condition.acquire()
        task.cancel("first")
        await asyncio.sleep(0)  # now it waits for the lock
        task.cancel("second")
        await asyncio.sleep(0)
        assert not task.done()
        condition.release()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == ("second",)
        assert not condition.locked()

    run(main())


def test_wait_for_gives_what_the_predicate_gave(aio, run):
    async def main():
        condition, items = aio.Condition(), []
        async with condition:
            assert await condition.wait_for(lambda: [1]) == [1]

        async def wait():
            async with condition:
                return await condition.wait_for(lambda: items)

        task = asyncio.ensure_future(wait())
        for item in (None, "x"):
            await asyncio.sleep(0)
            async with condition:
                items += [item] * bool(item)
                condition.notify_all()
        assert await task == ["x"]

        async with condition:
            with pytest.raises(ZeroDivisionError):
                await condition.wait_for(lambda: 1 / 0)

    run(main())


# --- subclasses and strangers ----------------------------------------------------------------


def test_a_subclass_is_used_through_its_methods(aio, run):
    calls = []

    class Own(aio.Lock):
        def __init__(self, name):
            super().__init__()
            self.name = name

        async def acquire(self):
            calls.append("acquire")
            await asyncio.sleep(0)
            return await super().acquire()

        def release(self):
            calls.append("release")
            super().release()

    async def main():
        lock = Own("x")
        async with lock as entered:
            assert entered is None
            assert lock.locked()
        condition = aio.Condition(lock)
        async with condition:
            waiter = asyncio.ensure_future(wait(condition))
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        async with condition:
            condition.notify()
        assert await waiter is True
        assert lock.name == "x"

    async def wait(condition):
        async with condition:
            return await condition.wait()

    run(main())
    assert calls.count("acquire") == calls.count("release") == 5


def test_a_condition_takes_any_lock(aio, run):
    class Plain:
        def __init__(self):
            self._lock = aio.Lock()

        def locked(self):
            return self._lock.locked()

        def acquire(self):
            return self._lock.acquire()

        def release(self):
            self._lock.release()

    async def main():
        condition = aio.Condition(Plain())
        news = []

        async def wait():
            async with condition:
                return await condition.wait_for(lambda: news)

        tasks = [asyncio.ensure_future(wait()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        async with condition:
            news.append(1)
            condition.notify_all()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [list, asyncio.CancelledError, list]
        assert not condition.locked()

    run(main())
    with pytest.raises(AttributeError):
        aio.Condition(object())


def test_wait_for_uses_the_wait_of_a_subclass(aio, run):
    class Own(aio.Condition):
        waits = 0

        async def wait(self):
            self.waits += 1
            return await super().wait()

    async def main():
        condition, ready = Own(), []

        async def wait():
            async with condition:
                await condition.wait_for(lambda: ready)

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        async with condition:
            ready.append(1)
            condition.notify_all()
        await task
        assert condition.waits == 1

    run(main())


@pytest.mark.parametrize("name", PRIMITIVES)
def test_instances_are_like_those_of_a_python_class(aio, name):
    lock = make(aio, name)
    lock.label = "mine"
    assert lock.label == "mine"
    assert vars(lock)["label"] == "mine"
    assert weakref.ref(lock)() is lock
    assert type(lock).__name__ in repr(lock)
    with pytest.raises(TypeError, match=rf"\b{name}\b.* can't be"):
        asyncio.run(await_it(lock))


async def await_it(thing):
    return await thing


@pytest.mark.parametrize("name", PRIMITIVES)
def test_signatures_are_those_of_asyncio(name):
    ours, theirs = getattr(aioxide, name), getattr(asyncio, name)
    assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
    for method in WAITS[name]:
        if method != "acquire" or name != "Condition":
            assert str(inspect.signature(getattr(ours, method))).replace(", /", "") == str(
                inspect.signature(getattr(theirs, method))
            )


def test_the_wait_list_is_live(aio, run):
    async def main():
        event = aio.Event()
        task = asyncio.ensure_future(event.wait())
        await asyncio.sleep(0)
        (parked,) = event._waiters
        assert not parked.done()
        assert event._waiters[0] is parked
        own = asyncio.get_running_loop().create_future()
        event._waiters.append(own)
        assert len(event._waiters) == 2
        assert "waiters:2" in repr(event)
        event.set()
        assert own.result() is True
        event._waiters.remove(own)
        assert await task is True
        assert not event._waiters

    run(main())


def test_a_lock_belongs_to_the_loop_of_its_first_waiter(aio, new_loop):
    lock = aio.Lock()

    async def contend():
        waiter = asyncio.ensure_future(lock.acquire())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait([waiter])
        return waiter

    loops = [new_loop(), new_loop()]
    asyncio.set_event_loop(None)
    loops[0].run_until_complete(lock.acquire())
    assert loops[0].run_until_complete(contend()).cancelled()
    waiter = loops[1].run_until_complete(contend())
    assert "is bound to a different event loop" in str(waiter.exception())
    for loop in loops:
        loop.close()


def test_bad_numbers(aio):
    for name in ("Semaphore", "BoundedSemaphore"):
        with pytest.raises(ValueError, match="must be >= 0"):
            getattr(aio, name)(-1)
    with pytest.raises(ValueError, match="parties must be"):
        aio.Barrier(0)
    with pytest.raises(ValueError, match="released too many times"):
        aio.BoundedSemaphore(1).release()
    with pytest.raises(RuntimeError, match="Lock is not acquired"):
        aio.Lock().release()
    with pytest.raises(RuntimeError, match="cannot notify on un-acquired lock"):
        aio.Condition().notify()


def test_a_semaphore_without_end(aio, run):
    async def main():
        semaphore = aio.Semaphore(float("inf"))
        for _ in range(100):
            await semaphore.acquire()
        assert not semaphore.locked()

    run(main())


@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_cycle_through_a_lock_is_collected(aio, name):
    class Own(getattr(aio, name)):
        pass

    lock = Own(*([2] if name == "Barrier" else []))
    lock.myself = lock
    alive = weakref.ref(lock)
    del lock
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("name", ["Lock", "Event", "Condition", "Semaphore", "Barrier"])
def test_waiters_of_a_lost_lock_are_collected(aio, run, name):
    """A task that waits for a lock nobody else knows is garbage, and the lock with it."""

    class Own(getattr(aio, name)):
        pass

    async def main():
        lock = Own(*([2] if name == "Barrier" else []))
        alive = weakref.ref(lock)
        if name in ("Lock", "Semaphore", "Condition"):
            await lock.acquire()
        waiting = lock.wait() if name in ("Event", "Condition", "Barrier") else lock.acquire()
        waiting.send(None)
        lock.waiting = waiting
        del lock, waiting
        gc.collect()
        return alive()

    assert run(main()) is None


@pytest.mark.skipif(not hasattr(sys, "gettotalrefcount"), reason="needs a debug build of Python")
@pytest.mark.parametrize("name", PRIMITIVES)
def test_nothing_leaks(name):
    async def once():
        lock = make(aioxide, name)
        tasks = [asyncio.ensure_future(use(lock)) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        if name == "Event":
            lock.set()
        if name == "Condition":
            async with lock:
                lock.notify_all()
        await asyncio.wait(tasks, timeout=1)
        repr(lock), lock._waiters if name != "Barrier" else lock._cond

    async def use(lock):
        if name in ("Event", "Barrier"):
            return await lock.wait()
        async with lock:
            await (lock.wait() if name == "Condition" else asyncio.sleep(0))

    async def main():
        counts = []
        for _ in range(6):
            for _ in range(20):
                await once()
            gc.collect()
            counts.append(sys.gettotalrefcount())
        return counts

    loop = aioxide.new_event_loop()
    counts = loop.run_until_complete(main())
    loop.close()
    assert counts[-1] - counts[2] < 60, counts


# --- on loops and in tasks of others -----------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("factory", [asyncio.SelectorEventLoop, aioxide.new_event_loop])
def test_primitives_serve_any_loop_and_any_task(factory, debug):
    """CPython's tasks on CPython's loop, and aioxide's on its own, do the same things in the same order."""

    async def main():
        lock, permits, event, condition = aioxide.Lock(), aioxide.Semaphore(2), aioxide.Event(), aioxide.Condition()
        barrier, queue, log = aioxide.Barrier(3), aioxide.Queue(2), []

        async def work(name):
            async with lock, permits:
                await asyncio.sleep(0)
            await event.wait()
            async with condition:
                await condition.wait_for(lambda: log)
            log.append((name, await barrier.wait()))
            await queue.put(name)
            log.append((name, await queue.get()))
            queue.task_done()

        tasks = [asyncio.create_task(work(name)) for name in range(6)]
        for _ in range(20):
            await asyncio.sleep(0)
        event.set()
        for _ in range(20):
            await asyncio.sleep(0)
        async with condition:
            log.append("go")
            condition.notify_all()
        await asyncio.gather(*tasks)
        await queue.join()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.get(), 0.001)
        assert "getters" not in repr(queue)
        return log

    with asyncio.Runner(loop_factory=factory, debug=debug) as runner:
        log = runner.run(main())
    assert log[0] == "go"
    assert log[1:] == [
        *((2, 2), (2, 2), (0, 0), (0, 0), (1, 1), (1, 1)),
        *((5, 2), (5, 5), (3, 0), (3, 3), (4, 1), (4, 4)),
    ]


@pytest.mark.parametrize("value", [float("inf"), 2.0, 2.5, 1 << 70, fractions.Fraction(3, 2), 1])
def test_a_semaphore_of_any_number(aio, run, value):
    """asyncio counts with whatever number it is given, and some programs give infinity."""

    async def main():
        kinds = [aio.Semaphore] if value == float("inf") else [aio.Semaphore, aio.BoundedSemaphore]
        for semaphore in [kind(value) for kind in kinds]:
            assert semaphore._value == value and type(semaphore._value) is type(value)
            assert f"value:{value}]" in repr(semaphore)
            assert await semaphore.acquire()
            assert semaphore._value == value - 1
            assert semaphore.locked() is (value == 1)
            semaphore.release()
            assert semaphore._value == value
            semaphore._value = value - 1
            assert semaphore.locked() is (value == 1)
        assert aio.BoundedSemaphore(value)._bound_value == value

    run(main())


@pytest.mark.parametrize("value", [-1, -0.5, float("-inf"), "x", None])
def test_what_a_semaphore_refuses(aio, value):
    with pytest.raises((ValueError, TypeError)) as caught:
        aio.Semaphore(value)
    with pytest.raises(type(caught.value), match=re.escape(str(caught.value))):
        asyncio.Semaphore(value)
