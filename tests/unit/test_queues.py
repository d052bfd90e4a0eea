"""Queue, LifoQueue, PriorityQueue: beyond what CPython's own tests look at."""

import asyncio
import collections
import gc
import sys
import weakref

import aioxide
import pytest
from test_locks import cancel_everywhere

KINDS = ["Queue", "LifoQueue", "PriorityQueue"]
has_shutdown = pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio's queues can be shut down since 3.13")


# --- cancelled at every await point ----------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_no_item_is_lost_or_doubled_by_a_cancelled_get(kind):
    def scenario(aio, trace):
        queue = getattr(aio, kind)()

        async def consume(name):
            trace.append((name, await queue.get()))
            queue.task_done()

        tasks = [asyncio.ensure_future(consume(name)) for name in "abc"]
        acts = (lambda: queue.put_nowait(1), tasks[0].cancel, lambda: queue.put_nowait(2))
        return acts, tasks, lambda: (queue.qsize(), len(queue._getters), queue._unfinished_tasks)

    for trace in cancel_everywhere(scenario):
        ends, (items, _, unfinished) = trace[-1]
        got = [item for _, item in trace[:-1]]
        assert len(got) == len(set(got)) == 2 - items == ends.count("done")
        assert unfinished == items
        assert items == 0


@pytest.mark.parametrize("kind", KINDS)
def test_no_item_is_lost_or_doubled_by_a_cancelled_put(kind):
    def scenario(aio, trace):
        queue = getattr(aio, kind)(1)
        queue.put_nowait(0)

        async def produce(item):
            await queue.put(item)
            trace.append(("put", item))

        def get():
            if not queue.empty():
                trace.append(("got", queue.get_nowait()))

        tasks = [asyncio.ensure_future(produce(item)) for item in (1, 2, 3)]
        acts = (get, tasks[0].cancel, get)
        return acts, tasks, lambda: (queue.qsize(), len(queue._putters))

    for trace in cancel_everywhere(scenario):
        steps, (_, (items, _)) = trace[:-1], trace[-1]
        got = [item for what, item in steps if what == "got"]
        put = [0] + [item for what, item in steps if what == "put"]
        assert len(got) == len(set(got))
        assert set(got) <= set(put)
        assert len(put) - len(got) == items == 1


def test_no_joiner_is_forgotten():
    def scenario(aio, trace):
        queue = aio.Queue()
        queue.put_nowait(1)

        async def join(name):
            await queue.join()
            trace.append(name)

        tasks = [asyncio.ensure_future(join(name)) for name in "abc"]
        return (queue.task_done, tasks[1].cancel), tasks, lambda: queue._unfinished_tasks

    for trace in cancel_everywhere(scenario):
        ends, unfinished = trace[-1]
        assert ends[0] == ends[2] == "done"
        assert unfinished == 0


@has_shutdown
def test_a_shutdown_wakes_everybody():
    def scenario(aio, trace):
        full, empty = aio.Queue(1), aio.Queue()
        full.put_nowait(0)

        async def outcome(name, method, *args):
            try:
                trace.append((name, await method(*args)))
            except aio.QueueShutDown:
                trace.append((name, "shut down"))

        tasks = [asyncio.ensure_future(outcome(name, empty.get)) for name in "ab"]
        tasks += [asyncio.ensure_future(outcome(name, full.put, name)) for name in "cd"]
        tasks += [asyncio.ensure_future(outcome("join", full.join))]
        acts = (empty.shutdown, lambda: full.shutdown(immediate=True), tasks[1].cancel)
        return acts, tasks, lambda: (full.qsize(), full._unfinished_tasks)

    for trace in cancel_everywhere(scenario):
        ends, rest = trace[-1]
        assert "pending" not in ends
        assert rest == (0, 0)


def test_a_queue_can_be_shut_down_on_every_python(run):
    async def main():
        queue = aioxide.Queue()
        queue.put_nowait(1)
        joiner = asyncio.ensure_future(queue.join())
        await asyncio.sleep(0)
        queue.shutdown()
        assert "shutdown" in repr(queue)
        with pytest.raises(aioxide.QueueShutDown):
            queue.put_nowait(2)
        with pytest.raises(aioxide.QueueShutDown):
            await queue.put(2)
        assert await queue.get() == 1
        with pytest.raises(aioxide.QueueShutDown):
            queue.get_nowait()
        queue.task_done()
        await joiner
        with pytest.raises(aioxide.QueueShutDown):
            await queue.get()

    run(main())
    if hasattr(asyncio, "QueueShutDown") and not aioxide.installed():
        assert aioxide.QueueShutDown is asyncio.QueueShutDown


# --- awaitables ------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "args"), [("get", ()), ("put", (1,)), ("join", ())])
def test_what_is_awaited_is_a_coroutine(aio, method, args):
    coroutine = getattr(aio.Queue(), method)(*args)
    assert asyncio.iscoroutine(coroutine)
    assert coroutine.__qualname__ == f"Queue.{method}"
    coroutine.close()
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.send(None)
    coroutine = getattr(aio.Queue(), method)(*args)
    with pytest.warns(RuntimeWarning, match="was never awaited"):
        del coroutine


@pytest.mark.parametrize("item", [None, 1, (1, 2), (), StopIteration(3), ValueError()])
def test_any_item_comes_out_as_it_went_in(aio, run, item):
    async def main():
        queue = aio.Queue()
        await queue.put(item)
        assert await queue.get() is item
        getter = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        await queue.put(item=item)
        assert await getter is item

    run(main())


@pytest.mark.parametrize("end", ["close", "drop", "throw"])
def test_a_woken_getter_that_is_given_up_wakes_the_next(aio, run, end):
    async def main():
        queue = aio.Queue()
        coroutine = queue.get()
        coroutine.send(None)
        waiter = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        queue.put_nowait("item")
        if end == "close":
            coroutine.close()
        elif end == "throw":
            with pytest.raises(ZeroDivisionError):
                coroutine.throw(ZeroDivisionError())
        del coroutine
        gc.collect()
        assert await waiter == "item"

    run(main())


# --- subclasses ------------------------------------------------------------------------------


def test_a_subclass_keeps_items_its_own_way(aio, run):
    class Unique(aio.Queue):
        def _init(self, maxsize):
            self._queue = collections.OrderedDict()

        def _put(self, item):
            self._queue[item] = None

        def _get(self):
            return self._queue.popitem(last=False)[0]

    async def main():
        queue = Unique(2)
        getter = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        for item in "xx":
            await queue.put(item)
        assert await getter == "x"
        assert queue.empty()
        await queue.put("y")
        await queue.put("z")
        assert queue.full()
        putter = asyncio.ensure_future(queue.put("w"))
        await asyncio.sleep(0)
        assert [queue.get_nowait(), await queue.get()] == ["y", "z"]
        await putter
        assert queue.qsize() == 1
        assert "_queue=['w']" in repr(queue)

    run(main())


def test_a_subclass_adds_to_the_parents_methods(aio, run):
    seen = []

    class Noting(aio.PriorityQueue):
        def _init(self, maxsize):
            seen.append(("init", maxsize))
            super()._init(maxsize)

        def _put(self, item):
            seen.append(("put", item))
            super()._put(item)

        def _get(self):
            item = super()._get()
            seen.append(("get", item))
            return item

    async def main():
        queue = Noting(maxsize=5)
        for item in (3, 1, 2):
            await queue.put(item)
        assert [await queue.get() for _ in range(3)] == [1, 2, 3]

    run(main())
    assert seen == [("init", 5), *(("put", i) for i in (3, 1, 2)), *(("get", i) for i in (1, 2, 3))]


def test_a_subclass_puts_by_hand(aio, run):
    """A put of its own, as many have written it, with the private parts of asyncio's Queue."""

    class Jumping(aio.Queue):
        def put_first_nowait(self, item):
            if self.full():
                raise asyncio.QueueFull
            self._queue.appendleft(item)
            self._unfinished_tasks += 1
            self._finished.clear()
            self._wakeup_next(self._getters)

    async def main():
        queue = Jumping(2)
        getter = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        queue.put_first_nowait("a")
        assert await getter == "a"
        await queue.put("b")
        queue.put_first_nowait("c")
        with pytest.raises(asyncio.QueueFull):
            queue.put_first_nowait("d")
        assert [await queue.get(), await queue.get()] == ["c", "b"]
        joiner = asyncio.ensure_future(queue.join())
        await asyncio.sleep(0)
        for _ in range(3):
            queue.task_done()
        await joiner

    run(main())


def test_overridden_nowait_methods_are_called(aio, run):
    class Doubling(aio.Queue):
        def put_nowait(self, item):
            super().put_nowait(item * 2)

        def get_nowait(self):
            return super().get_nowait() + 1

    async def main():
        queue = Doubling()
        await queue.put(5)
        assert await queue.get() == 11

    run(main())


def test_the_items_can_be_looked_at_and_changed(aio, run):
    async def main():
        queue = aio.Queue()
        for item in range(4):
            queue.put_nowait(item)
        assert isinstance(queue._queue, collections.deque)
        assert list(queue._queue) == [0, 1, 2, 3]
        queue._queue.remove(2)
        queue.put_nowait(4)
        assert [queue.get_nowait() for _ in range(queue.qsize())] == [0, 1, 3, 4]
        assert queue.empty()
        stack = aio.LifoQueue()
        stack.put_nowait(1)
        assert stack._queue == [1]

    run(main())


def test_comparisons_may_fail(aio, run):
    class Moody:
        def __lt__(self, other):
            raise ZeroDivisionError

    async def main():
        queue = aio.PriorityQueue()
        await queue.put(Moody())
        with pytest.raises(ZeroDivisionError):
            await queue.put(Moody())
        assert queue._unfinished_tasks == 1

    run(main())


def test_instances_are_like_those_of_a_python_class(aio):
    for kind in KINDS:
        queue = getattr(aio, kind)(maxsize=3)
        queue.label = "mine"
        assert vars(queue)["label"] == "mine"
        queue.put_nowait(1)
        assert queue.get_nowait() == 1
        assert queue.maxsize == 3
        assert weakref.ref(queue)() is queue
    assert issubclass(aio.PriorityQueue, aio.Queue)
    assert aio.Queue[int].__origin__ is aio.Queue
    with pytest.raises(TypeError):
        aio.Queue(loop=None)
    with pytest.raises(ValueError, match="called too many times"):
        aio.Queue().task_done()


def test_a_bound_that_is_no_bound(aio):
    for bound in (-1, 0, float("inf"), 10**30):
        queue = aio.Queue(bound)
        queue.put_nowait(1)
        assert not queue.full()
        assert queue.maxsize == bound


def test_items_are_let_go(aio, run):
    class Item:
        pass

    async def main():
        queue = aio.Queue()
        item = Item()
        alive = weakref.ref(item)
        await queue.put(item)
        del item
        await queue.get()
        assert alive() is None
        queue.put_nowait(queue)
        gone = weakref.ref(queue)
        del queue
        gc.collect()
        assert gone() is None

    run(main())


@pytest.mark.skipif(not hasattr(sys, "gettotalrefcount"), reason="needs a debug build of Python")
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_leaks(kind):
    async def once():
        queue = getattr(aioxide, kind)(2)
        consumers = [asyncio.ensure_future(queue.get()) for _ in range(3)]
        joiner = asyncio.ensure_future(queue.join())
        await asyncio.sleep(0)
        consumers[0].cancel()
        for item in range(6):
            await queue.put(item) if item < 4 else asyncio.ensure_future(queue.put(item))
        await asyncio.sleep(0)
        for _ in range(4):
            await queue.get()
        for _ in range(6):
            queue.task_done()
        await joiner
        queue.put_nowait(object())
        repr(queue), queue._queue, queue._getters
        queue.shutdown(immediate=True)

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
