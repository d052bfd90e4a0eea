"""A pytest plugin: writes what happens to a file as it happens, and ends a process in which a test hangs.

The lines are JSON:

    {"start": TEST}                          a test begins
    {"end": TEST, "status": ..., ...}        it is over: pass, skip or fail
    {"broken": FILE, "detail": ...}          a file that cannot be collected
    {"over": true}                           the session is over

The line of an end also has what aioxide has made in this process so far: `"made": {"loops": ..., "tasks": ...}`.
"""

import faulthandler
import json
import os
import sys

import ecosystem_in_force
import pytest

RANKED = ("pass", "skip", "fail")  # the worst part of a test decides


class Recorder:
    def __init__(self):
        self._owner = os.getpid()
        self._file = os.open(os.environ["ECOSYSTEM_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._stacks = os.dup(2)
        self._patience = float(os.environ["ECOSYSTEM_PATIENCE"])
        with open(os.environ["ECOSYSTEM_DONE"]) as file:
            wanted = json.load(file)
        self._done, self._only = set(wanted["done"]), wanted["only"]

    def tell(self, **line):
        if os.getpid() == self._owner:
            os.write(self._file, json.dumps(line).encode() + b"\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        left, others = [], []
        for item in items:
            wanted = item.nodeid not in self._done and (self._only is None or item.nodeid in self._only)
            (left if wanted else others).append(item)
        if others:
            config.hook.pytest_deselected(items=others)
            items[:] = left

    def pytest_collectreport(self, report):
        if report.failed:
            self.tell(broken=report.nodeid, detail=str(report.longrepr)[-4000:])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        self._status, self._details, self._seconds = "pass", [], 0
        self.tell(start=item.nodeid)
        self._watch()
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.tell(
                end=item.nodeid,
                status=self._status,
                detail="\n".join(self._details)[-6000:],
                seconds=round(self._seconds, 3),
                made=made(),
            )

    def _watch(self):
        faulthandler.dump_traceback_later(self._patience, exit=True, file=self._stacks)

    @pytest.hookimpl(trylast=True)
    def pytest_exception_interact(self, node):
        if isinstance(node, pytest.Item):
            self._watch()  # pytest has called it off: after a failure somebody might look into it by hand

    def pytest_runtest_logreport(self, report):
        self._seconds += report.duration
        if report.passed:
            return
        self._status = max(self._status, "fail" if report.failed else "skip", key=RANKED.index)
        self._details.append(f"{report.when}: {report.longreprtext or report.longrepr}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self):
        self.tell(over=True)


def made():
    """Loops are counted. Tasks without a name are numbered as they are made: ask a new one for its number."""
    aioxide = sys.modules.get("aioxide")
    if aioxide is None:
        return {"loops": 0, "tasks": 0}

    async def nothing():
        pass

    loops = ecosystem_in_force.Counter.loops
    loop = aioxide.EventLoop()
    task = aioxide.Task(nothing(), loop=loop)
    loop.run_until_complete(task)
    loop.close()
    ecosystem_in_force.Counter.loops, ecosystem_in_force.Counter.own = loops, ecosystem_in_force.Counter.own + 1
    return {"loops": loops, "tasks": int(task.get_name().removeprefix("Task-")) - ecosystem_in_force.Counter.own}


def pytest_configure(config):
    config.pluginmanager.register(Recorder(), "ecosystem-recorder")
