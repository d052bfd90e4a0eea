"""What is under test, put in place of CPython's asyncio and counted while it is used."""

import asyncio
import sys


class Aioxide:
    """aioxide, installed.  Counts the loops and the tasks that are made."""

    name = "aioxide"

    def __init__(self):
        import aioxide

        aioxide.install()
        self._aioxide = aioxide
        self.version = aioxide.__version__
        self.loop_type = aioxide.EventLoop
        self._loops = 0
        self._count_loops()
        self._clerk = aioxide.EventLoop()
        self._check_the_count()

    def _count_loops(self):
        initialise = self.loop_type.__init__

        def count_and_initialise(loop, *args, **kwargs):
            self._loops += 1
            initialise(loop, *args, **kwargs)

        self.loop_type.__init__ = count_and_initialise

    def made(self):
        """How many loops and tasks of aioxide have been made so far."""
        return self._loops, self._tasks_made()

    def _tasks_made(self):
        """Tasks without a name are numbered as they are made: ask a new one for its number."""

        async def own_number():
            task = asyncio.current_task()
            assert type(task) is self._aioxide.Task, task
            return int(task.get_name().removeprefix("Task-"))

        return self._clerk.run_until_complete(own_number())

    def _check_the_count(self):
        async def nothing():
            pass

        before = self._tasks_made()
        for _ in range(3):
            self._clerk.run_until_complete(nothing())
        assert self._tasks_made() - before == 4, "the tasks of aioxide cannot be counted"

    def lost(self):
        """Names of asyncio that have ceased to lead to aioxide."""
        names = ("Future", "Task", "Handle", "TimerHandle", "run", "Runner", "SelectorEventLoop")
        return [name for name in names if getattr(asyncio, name) is not getattr(self._aioxide, name)]


class Stock:
    """CPython's own asyncio, to see what a test does there."""

    name = "stock"
    version = sys.version.split()[0]
    loop_type = asyncio.SelectorEventLoop

    def made(self):
        return 0, 0

    def lost(self):
        return []


SUBJECTS = {"aioxide": Aioxide, "stock": Stock, "stock-adapted": Stock}
