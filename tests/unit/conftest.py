"""Fixtures: most tests run on CPython's asyncio first, so that a wrong expectation shows there."""

import asyncio
import gc

import aioxide
import pytest


@pytest.fixture(params=["stock", "aioxide"])
def aio(request):
    """asyncio, by CPython and by aioxide."""
    return asyncio if request.param == "stock" else aioxide


@pytest.fixture
def new_loop(aio):
    return asyncio.SelectorEventLoop if aio is asyncio else aioxide.new_event_loop


@pytest.fixture
def loop(new_loop):
    """An event loop that must be left without loose ends."""
    loop = new_loop()
    yield loop
    loop.close()
    gc.collect()


@pytest.fixture
def run(loop, aio):
    """Runs a coroutine in `loop`, for as long as a test may take."""

    def run(coroutine, seconds=10):
        async def limited():
            async with asyncio.timeout(seconds):
                return await coroutine

        return loop.run_until_complete(limited())

    return run


@pytest.fixture
def installed():
    with aioxide.install():
        yield
