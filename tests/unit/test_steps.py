"""How a task is stepped: its context, its coroutine, and the results that awaitables hand over."""

import asyncio
import contextvars
import ctypes
import gc
import sys
import weakref

import pytest


def test_each_task_has_its_own_variables_however_they_take_turns(aio, run):
    variable = contextvars.ContextVar("variable")
    seen = []

    async def spin(name):
        variable.set(name)
        for number in range(50):
            await aio.sleep(0)
            assert variable.get() == name
            variable.set(name)
            seen.append((number, name))

    async def main():
        variable.set("main")
        await aio.gather(*[spin(name) for name in "abc"])
        return variable.get()

    assert run(main()) == "main"
    assert seen == [(number, name) for number in range(50) for name in "abc"]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="contexts are watched since 3.14")
def test_whoever_watches_contexts_is_told_of_each_change(aio, run):
    told = []
    watcher = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.py_object)
    watch = watcher(lambda event, context: told.append(context) or 0)
    add, clear = ctypes.pythonapi.PyContext_AddWatcher, ctypes.pythonapi.PyContext_ClearWatcher
    add.argtypes = [watcher]

    async def main():
        await aio.sleep(0)
        number = add(watch)
        for _ in range(10):
            await aio.sleep(0)
        clear(number)
        counted = len(told)
        for _ in range(10):
            await aio.sleep(0)
        return counted

    counted = run(main())
    # Each time the task leaves its context and enters it again.
    assert counted == 20
    assert len(told) == counted
    assert sum(isinstance(context, contextvars.Context) for context in told) >= 10


def test_a_task_that_leaves_itself(aio, loop):
    """Its step then finds no current task to leave, and says so as asyncio does."""
    told = []

    async def leaves():
        asyncio._leave_task(loop, asyncio.current_task())

    async def current():
        return asyncio.current_task()

    loop.set_exception_handler(lambda loop, context: (told.append(str(context["exception"])), loop.stop()))
    task = loop.create_task(leaves())
    loop.run_forever()
    if sys.version_info < (3, 14):
        assert told == [f"Leaving task {task!r} does not match the current task None."]
    else:
        assert told == [f"Invalid attempt to leave task {task!r} while task None is entered."]
    again = loop.create_task(current())
    assert loop.run_until_complete(again) is again


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="a second __init__ is refused")
def test_a_task_made_anew_by_its_own_coroutine(aio, loop):
    if aio is asyncio:
        pytest.skip("CPython frees the coroutine that runs")
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    async def second():
        return "second"

    async def main():
        async def first():
            aio.Task.__init__(task, second(), loop=loop)
            await aio.sleep(0)

        task = loop.create_task(first())
        for _ in range(10):
            await aio.sleep(0)
        return task.result()

    assert loop.run_until_complete(main()) == "second"


def test_results_that_are_ints_stay_apart(aio, loop):
    def stopped(value):
        future = loop.create_future()
        future.set_result(value)
        with pytest.raises(StopIteration) as caught:
            next(future.__await__())
        return caught.value

    kept = [stopped(value) for value in (1, 10**30, True, 2)]
    assert [stop.value for stop in kept] == [1, 10**30, True, 2]
    assert [stop.args for stop in kept] == [(1,), (10**30,), (True,), (2,)]
    assert len({id(stop) for stop in kept}) == 4
    for value in range(1000):
        assert stopped(value).value == value


@pytest.mark.parametrize("value", ["text", 5, True])
def test_a_result_keeps_nothing_of_those_who_asked_for_it(aio, loop, value):
    class Local:
        pass

    def ask():
        local = Local()
        seen.append(weakref.ref(local))
        future = loop.create_future()
        future.set_result(value)
        try:
            next(future.__await__())
        except StopIteration:
            pass

    seen = []
    ask()
    gc.collect()
    assert seen[0]() is None


def test_cancelled_handles_go_with_the_last_timer(aio, loop):
    class Local:
        pass

    variable = contextvars.ContextVar("variable")

    def cancel_some():
        context, local = contextvars.copy_context(), Local()
        context.run(variable.set, local)
        for handle in [loop.call_later(50, print, context=context) for _ in range(60)]:
            handle.cancel()
        return weakref.ref(local)

    async def main():
        async with aio.timeout(100):
            seen = cancel_some()
        for _ in range(3):
            await aio.sleep(0)
        gc.collect()
        return seen() is None

    assert loop.run_until_complete(main())
