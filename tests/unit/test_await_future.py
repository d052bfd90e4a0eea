"""`await future`: what the interpreter iterates, what Python code sees of it, and how a result gets out."""

import asyncio
import collections.abc
import copy
import gc
import inspect
import pickle
import sys
import weakref

import pytest

RESULTS = [None, True, 0, 7, "text", (), (1, 2), ([],), ValueError("a value"), StopIteration(3)]


class Token:
    """Something that weak references can watch."""


@pytest.fixture(params=["future", "task", "subclass"])
def done_with(request, aio, loop):
    """A future, a task or a future of a subclass that will have a result."""

    class Mine(aio.Future):
        pass

    def make(value):
        if request.param == "task":

            async def give():
                return value

            return aio.Task(give(), loop=loop)
        future = aio.Future(loop=loop) if request.param == "future" else Mine(loop=loop)
        loop.call_soon(future.set_result, value)
        return future

    return make


@pytest.mark.parametrize("value", RESULTS, ids=repr)
def test_the_result_of_an_await(run, done_with, value):
    async def main():
        future = done_with(value)
        first = await future
        return first, await future, future.result()

    assert all(result is value for result in run(main()))


def test_a_future_is_awaitable_and_no_iterator(aio, loop):
    future = aio.Future(loop=loop)
    assert isinstance(future, collections.abc.Awaitable)
    assert inspect.isawaitable(future)
    assert not isinstance(future, collections.abc.Iterator | collections.abc.Coroutine)
    assert not hasattr(future, "__next__")
    assert not hasattr(future, "send")
    assert not asyncio.iscoroutine(future)


@pytest.mark.parametrize("way", ["__await__", "__iter__"])
def test_an_await_by_hand(aio, loop, way):
    future = aio.Future(loop=loop)
    iterator = getattr(future, way)()
    assert isinstance(iterator, collections.abc.Iterator)
    assert iterator.send(None) is future
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        next(iterator)
    future.set_result((1, 2))
    with pytest.raises(StopIteration) as caught:
        next(iterator)
    assert caught.value.value == (1, 2)
    with pytest.raises(ValueError, match="thrown"):
        getattr(future, way)().throw(ValueError("thrown"))
    getattr(future, way)().close()


@pytest.mark.parametrize("value", RESULTS[1:], ids=repr)
def test_the_stop_iteration_of_an_await_by_hand(aio, loop, value):
    future = aio.Future(loop=loop)
    future.set_result(value)
    with pytest.raises(StopIteration) as caught:
        next(future.__await__())
    stop, plain = caught.value, StopIteration(value)
    assert (stop.value, stop.args) == (plain.value, plain.args)
    assert (str(stop), repr(stop)) == (str(plain), repr(plain))
    assert type(stop).__name__ == "StopIteration"
    assert stop.args is stop.args
    stop.args = [1]
    assert stop.args == (1,)
    stop.attribute = 1
    stop.value = 2
    if not isinstance(value, Exception):  # which aren't equal to their copies
        stop.args = (value,)
        for twin in copy.copy(stop), pickle.loads(pickle.dumps(stop)):
            assert isinstance(twin, StopIteration)
            assert twin.args == (value,)


def test_stop_iterations_that_somebody_keeps(aio, loop):
    kept = []
    for value in range(100):
        future = aio.Future(loop=loop)
        future.set_result([value])
        try:
            next(future.__await__())
        except StopIteration as stop:
            kept.append(stop)
            stop.add_note("kept")
    assert [stop.value for stop in kept] == [[value] for value in range(100)]
    assert all(stop.__traceback__ and stop.__notes__ == ["kept"] for stop in kept)
    token = Token()
    reference = weakref.ref(token)
    kept[0].cycle = kept, token
    del kept, token
    gc.collect()
    assert reference() is None


def test_two_tasks_await_one_future(run, done_with):
    async def main():
        future = done_with("result")

        async def wait():
            return await future

        return await asyncio.gather(wait(), wait(), wait())

    assert run(main()) == ["result"] * 3


def test_a_result_goes_with_its_last_name(run, aio, loop):
    async def main():
        future = aio.Future(loop=loop)
        loop.call_soon(future.set_result, Token())
        token = await future
        del future
        await asyncio.sleep(0)
        reference = weakref.ref(token)
        del token
        return reference()

    assert run(main()) is None


def test_an_exception_thrown_where_a_coroutine_awaits_a_future(aio, loop):
    seen = []

    async def wait(future):
        try:
            await future
        except ValueError as error:
            seen.append(error)
        except GeneratorExit:
            seen.append("closed")
            raise

    error = ValueError("thrown")
    future = aio.Future(loop=loop)
    coroutine = wait(future)
    assert coroutine.send(None) is future
    with pytest.raises(StopIteration):
        coroutine.throw(error)
    future._asyncio_future_blocking = False
    coroutine = wait(future)
    assert coroutine.send(None) is future
    coroutine.close()
    assert seen == [error, "closed"]


def test_a_bare_yield_of_a_future_is_an_error(run, aio, loop):
    class Bare:
        def __await__(self):
            yield aio.Future(loop=loop)

    async def main():
        with pytest.raises(RuntimeError, match="yield was used instead of yield from"):
            await Bare()

    run(main())


def test_subclasses_have_the_last_word(run, aio, loop):
    class Twice(aio.Future):
        def __await__(self):
            first = yield from super().__await__()
            return first * 2

    class Listed(aio.Future):
        __iter__ = __await__ = lambda self: iter([])

    class Counting(aio.Future):
        def __next__(self):
            raise AssertionError("a future is not asked for its next object")

    async def main():
        future, counting = Twice(loop=loop), Counting(loop=loop)
        loop.call_soon(future.set_result, 21)
        loop.call_soon(counting.set_result, 1)
        return await future, await Listed(loop=loop), await counting

    assert run(main()) == (42, None, 1)


def test_a_future_that_was_never_made_up(aio):
    future = aio.Future.__new__(aio.Future)
    with pytest.raises(RuntimeError, match="not initialized"):
        future.__await__()

    async def wait():
        await future

    with pytest.raises(RuntimeError, match="not initialized"):
        wait().send(None)


@pytest.mark.skipif(not hasattr(sys, "gettotalrefcount"), reason="needs a debug build of Python")
def test_references_stay_as_many_as_they_were(run, done_with):
    async def main():
        for value in range(500):
            await done_with([value])

    counts = []
    for _ in range(4):
        run(main())
        gc.collect()
        counts.append(sys.gettotalrefcount())
    assert counts[-1] - counts[-2] < 50
