"""Lets helpers of CPython's test package work with any event loop.

Many tests ask for public behaviour only, and get there through a helper that
is written against private parts of CPython's loop.  These functions put helpers
in place that do the same by public means.
"""

import asyncio
import heapq
import importlib
import logging
from unittest import mock

from modules import ASYNCIO


def adapt(loop_type, module):
    """Adapt the helpers that all test modules share, and those of this one."""
    utils = importlib.import_module(f"{ASYNCIO}.utils")
    adapt_test_case(loop_type, utils)
    show_log_to_mocks()
    own = OWN_HELPERS.get(module.__name__.rpartition(".")[2])
    if own is not None:
        own(loop_type, module, utils)


def adapt_test_case(loop_type, utils):
    close_cpython_loop = utils.TestCase.close_loop

    def close_loop(loop):
        if hasattr(loop, "_default_executor"):
            close_cpython_loop(loop)
        else:
            loop.close()

    def new_test_loop(self, gen=None):
        loop = loop_type() if gen is None else scripted(loop_type)(gen)
        self.set_event_loop(loop)
        return loop

    utils.TestCase.close_loop = staticmethod(close_loop)
    utils.TestCase.new_test_loop = new_test_loop


def set_up_with(make_loop):
    """A `setUp` that gives each test a loop of its own."""

    def install(test_class, utils):
        def set_up(self):
            utils.TestCase.setUp(self)
            self.loop = make_loop()
            self.set_event_loop(self.loop)

        test_class.setUp = set_up

    return install


def adapt_pep492(loop_type, module, utils):
    set_up_with(loop_type)(module.BaseTest, utils)


def adapt_base_events(loop_type, module, utils):
    """Mocks of private methods are accepted, and have no effect."""
    private = {"_process_events", "_selector", "_write_to_self"}

    class Loop(loop_type):
        def __setattr__(self, name, value):
            if name not in private or not isinstance(value, mock.Mock):
                super().__setattr__(name, value)

    set_up_with(Loop)(module.BaseEventLoopTests, utils)


def adapt_runners(loop_type, module, utils):
    class Loop(loop_type):
        shutdown_ag_run = False

        async def shutdown_asyncgens(self):
            self.shutdown_ag_run = True
            await super().shutdown_asyncgens()

    module.BaseTest.new_loop = lambda self: Loop()


def adapt_tasks(loop_type, module, utils):
    """`run until nothing is ready` becomes a number of turns that is enough for each test."""

    def run_loop(self, loop):
        for _ in range(10):
            utils.run_briefly(loop)

    module.GatherTestsBase._run_loop = run_loop


OWN_HELPERS = {
    "test_base_events": adapt_base_events,
    "test_pep492": adapt_pep492,
    "test_runners": adapt_runners,
    "test_tasks": adapt_tasks,
}


def show_log_to_mocks():
    """Tests put a mock in the place of the logger in `asyncio.base_events`.

    What they want to know is what is logged to "asyncio", so it is told to the mock.
    """
    logger = asyncio.base_events.logger

    class Teller(logging.Handler):
        def emit(self, record):
            listener = asyncio.base_events.logger
            if isinstance(listener, mock.Mock):
                tell = getattr(listener, record.levelname.lower())
                tell(record.msg, *record.args, exc_info=record.exc_info)

    logger.addHandler(Teller())


class ScriptedTimer:
    """What `call_at` of a scripted loop returns."""

    def __init__(self, when, number, call):
        self.order = (when, number)
        self.call = call
        self._cancelled = False

    def __lt__(self, other):
        return self.order < other.order

    def when(self):
        return self.order[0]

    def cancel(self):
        self._cancelled = True

    def cancelled(self):
        return self._cancelled


def scripted(loop_type):
    """A kind of loop whose clock is moved by a script: a generator function.

    The turn after a timer has been set, the generator is sent its time and
    yields by how much the clock is to move.  A loop that is closed before the
    script is at its end, or that sets a timer the script does not know, fails.
    """

    class ScriptedLoop(loop_type):
        def __init__(self, script):
            super().__init__()
            self._now = 0
            self._script = script()
            self._misplayed = None
            self._timers = []  # a heap
            self._new_times = []
            self._timers_made = 0
            next(self._script)

        def time(self):
            if not self.is_running():
                self._play()  # what the last turn has set
            return self._now

        def advance_time(self, seconds):
            self._now += seconds
            self.call_soon(self._tick)

        def call_later(self, delay, callback, *args, context=None):
            return self.call_at(self._now + delay, callback, *args, context=context)

        def call_at(self, when, callback, *args, context=None):
            self._timers_made += 1
            timer = ScriptedTimer(when, self._timers_made, lambda: self.call_soon(callback, *args, context=context))
            heapq.heappush(self._timers, timer)
            self._new_times.append(when)
            self.call_soon(self._tick)
            return timer

        def _tick(self):
            try:
                self._play()
            except (AssertionError, StopIteration) as error:
                self._misplayed = error
                self.stop()
            while self._timers and self._timers[0].when() <= self._now + 1e-9:
                timer = heapq.heappop(self._timers)
                if not timer.cancelled():
                    timer.call()

        def _play(self):
            times, self._new_times = self._new_times, []
            for when in times:
                self._now += self._script.send(when) or 0

        def close(self):
            super().close()
            if self._misplayed is not None:
                raise AssertionError("a timer was set against the script") from self._misplayed
            finished = object()
            if next(self._script, finished) is not finished:
                raise AssertionError("the script has not come to its end")

    return ScriptedLoop
