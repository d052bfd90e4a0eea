"""Tasks are shown to the garbage collector after their first step; nothing may be lost or leaked by it."""

import asyncio
import contextvars
import gc
import weakref

import aioxide
import pytest

VARIABLE = contextvars.ContextVar("VARIABLE", default=None)


class Token:
    """Something that weak references can watch."""


def collected(reference):
    gc.collect()
    return reference() is None


async def nothing():
    pass


def test_a_task_that_waits_is_tracked():
    async def main():
        task = asyncio.get_running_loop().create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
        tracked = gc.is_tracked(task), gc.is_tracked(task.get_context())
        task.cancel()
        return tracked

    assert aioxide.run(main()) == (True, True)


@pytest.mark.parametrize("place", ["result", "attribute", "context", "exception"])
def test_a_cycle_through_a_task_that_never_waited_is_collected(run, place):
    async def keep(token):
        task = token.task = asyncio.current_task()
        if place == "context":
            VARIABLE.set(token)
        elif place == "attribute":
            task.token = token
        elif place == "exception":
            raise ValueError(token)
        return token

    async def main():
        token = Token()
        task = asyncio.get_running_loop().create_task(keep(token))
        await asyncio.gather(task, return_exceptions=True)
        return weakref.ref(token)

    assert collected(run(main()))


def test_a_task_that_never_began_is_collected_with_its_loop(new_loop):
    async def hold(token):
        pass

    async def main(token):
        token.task = asyncio.get_running_loop().create_task(hold(token))

    loop = new_loop()
    token = Token()
    watched = weakref.ref(token)
    main = main(token)
    loop.run_until_complete(loop.create_task(main))
    loop.run_until_complete(nothing())
    del token, main
    loop.close()
    del loop
    assert collected(watched)


def test_a_task_left_over_when_the_loop_stops_is_tracked():
    loop = aioxide.new_event_loop()
    made = []

    def last():
        made.append(loop.create_task(nothing()))
        loop.stop()

    loop.call_soon(last)
    loop.run_forever()
    assert gc.is_tracked(made[0])
    assert gc.is_tracked(made[0].get_context())
    loop.run_until_complete(made[0])
    loop.close()


def test_a_context_outlives_its_task():
    async def main():
        task = asyncio.get_running_loop().create_task(nothing())
        context = task.get_context()
        await task
        del task
        return context

    loop = aioxide.new_event_loop()
    try:
        context = loop.run_until_complete(main())
    finally:
        loop.close()
    assert gc.is_tracked(context)
    assert context.run(VARIABLE.get) is None


def test_tasks_and_contexts_that_never_begin_go_away_quietly():
    loop = aioxide.new_event_loop()
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context["message"]))
    contexts = []

    async def main():
        for _ in range(100):
            contexts.append(loop.create_task(asyncio.sleep(0)).get_context())
        loop.stop()

    loop.create_task(main())
    loop.run_forever()
    with pytest.warns(RuntimeWarning, match="never awaited"):
        loop.close()
    gc.collect()
    assert len(contexts) == 100
    assert all(map(gc.is_tracked, contexts))
    assert set(reports) <= {"Task was destroyed but it is pending!"}


def test_a_second_init_of_a_new_task():
    loop = aioxide.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # the first start finds the task done

    async def main():
        task = loop.create_task(nothing())
        try:
            task.__init__(task.get_coro(), loop=loop)
        except RuntimeError:
            pass  # 3.15 refuses
        await task
        await asyncio.sleep(0)
        return gc.is_tracked(task.get_context())

    try:
        assert loop.run_until_complete(main())
    finally:
        loop.close()
