"""pytest-asyncio: every asynchronous test runs on aioxide.

Before pytest-asyncio 1.4, which has no such hook, a fixture does the same:

    @pytest.fixture(scope="session")
    def event_loop_policy():
        return aioxide.EventLoopPolicy()
"""

import aioxide


def pytest_asyncio_loop_factories(config, item):
    return {"aioxide": aioxide.new_event_loop}
