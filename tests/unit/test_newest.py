"""What the newest CPython has of groups and iterators, on every Python."""

import asyncio

import aioxide
import pytest


async def forever(ended, name):
    try:
        await aioxide.sleep(3600)
    finally:
        ended.append(name)


def test_cancelling_a_group_from_inside():
    async def main():
        ended = []
        async with aioxide.TaskGroup() as group:
            group.create_task(forever(ended, "a"))
            group.create_task(forever(ended, "b"))
            await aioxide.sleep(0)
            group.cancel()
            group.cancel()
            await forever(ended, "body")
        assert aioxide.current_task().cancelling() == 0
        group.cancel()  # too late, and no harm
        await aioxide.sleep(0)
        return ended

    assert aioxide.run(main()) == ["a", "b", "body"]


def test_cancelling_a_group_from_one_of_its_tasks():
    async def main():
        async def last(group):
            group.cancel()  # and so itself

        async with aioxide.TaskGroup() as group:
            task = group.create_task(last(group))
        return task.cancelled()

    assert aioxide.run(main()) is True


def test_cancelling_a_group_before_it_is_entered():
    async def main():
        group = aioxide.TaskGroup()
        group.cancel()
        steps = []
        async with group:
            steps.append("in")
            await aioxide.sleep(0)
            steps.append("not here")
        return steps

    assert aioxide.run(main()) == ["in"]


def test_an_error_goes_before_the_cancellation_of_a_group():
    async def main():
        async with aioxide.TaskGroup() as group:
            group.cancel()
            raise ValueError("body")

    with pytest.raises(ExceptionGroup) as caught:
        aioxide.run(main())
    assert [repr(error) for error in caught.value.exceptions] == ["ValueError('body')"]


def test_a_cancellation_from_outside_survives_that_of_the_group():
    async def main():
        async with aioxide.TaskGroup() as group:
            group.cancel()
            aioxide.current_task().cancel()
            await aioxide.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        aioxide.run(main())


def test_a_generator_exit_stays_plain():
    async def numbers():
        async with aioxide.TaskGroup() as group:
            group.create_task(aioxide.sleep(3600))
            yield 1

    async def main():
        generator = numbers()
        assert await anext(generator) == 1
        await generator.aclose()

    aioxide.run(main())


def test_a_refused_coroutine_is_closed():
    async def main():
        async with aioxide.TaskGroup() as group:
            pass
        coroutine = forever([], "never")
        with pytest.raises(RuntimeError, match="is finished"):
            group.create_task(coroutine)

    aioxide.run(main())


def test_iterating_what_is_completed():
    async def main():
        async def number(turns):
            for _ in range(turns):
                await aioxide.sleep(0)
            return turns

        tasks = [aioxide.create_task(number(turns)) for turns in (3, 1, 2)]
        found = [(tasks.index(task), await task) async for task in aioxide.as_completed(tasks)]
        assert found == [(1, 1), (2, 2), (0, 3)]
        return [await result for result in aioxide.as_completed(map(number, (2, 1)))]

    assert aioxide.run(main()) == [1, 2]


def test_eager_tasks():
    async def main():
        steps = []

        async def step(name):
            steps.append(name)
            await aioxide.sleep(0)
            steps.append(name)

        aioxide.get_running_loop().set_task_factory(aioxide.eager_task_factory)
        first = aioxide.create_task(step("first"))
        steps.append("main")
        async with aioxide.TaskGroup() as group:
            group.create_task(step("second"), name="second")
        await first
        return steps

    assert aioxide.run(main()) == ["first", "main", "second", "first", "second"]
