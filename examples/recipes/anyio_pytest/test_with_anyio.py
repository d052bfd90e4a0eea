"""python -m pytest anyio_pytest"""

import asyncio

import aioxide
import anyio
import pytest

pytestmark = pytest.mark.anyio


async def test_which_loop():
    assert type(asyncio.get_running_loop()) is aioxide.EventLoop
    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
