"""anyio's pytest plugin: every test marked `anyio` runs on aioxide."""

import aioxide
import pytest


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio", {"loop_factory": aioxide.new_event_loop}
