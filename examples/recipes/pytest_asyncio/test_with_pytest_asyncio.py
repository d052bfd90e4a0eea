"""python -m pytest pytest_asyncio"""

import asyncio

import aioxide
import pytest


@pytest.mark.asyncio
async def test_which_loop():
    assert type(asyncio.get_running_loop()) is aioxide.EventLoop
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0.001, number)) for number in range(3)]
    assert [task.result() for task in tasks] == [0, 1, 2]
