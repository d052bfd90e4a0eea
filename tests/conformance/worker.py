"""The process in which the tests of one class run; `run.py` starts it.

It reads a request as JSON from standard input, and writes what happens as JSON
lines to the file descriptor that is its argument:

    {"start": TEST}                        a test begins
    {"end": TEST, "status": ..., ...}      it is over
    {"broken": STATUS, "detail": ...}      the setup of a class or module failed
    {"answer": {...}}                      nothing is left to do
"""

import faulthandler
import json
import os
import sys
import time
import traceback
import unittest

import modules
from adapt import adapt
from modules import name_of
from subject import SUBJECTS

RANKED = ("pass", "skip", "fail", "error")  # the worst part of a test decides


class Reporter:
    """Writes the lines; a process that a test has forked keeps silent."""

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self._owner = os.getpid()

    def tell(self, **line):
        if os.getpid() != self._owner:
            return
        data = json.dumps(line).encode() + b"\n"
        while data:
            data = data[os.write(self._descriptor, data) :]


class Result(unittest.TestResult):
    """Reports each test as it goes, with the loops and tasks it has made."""

    def __init__(self, reporter, subject):
        super().__init__()
        self._reporter = reporter
        self._subject = subject
        self._begin()

    def _begin(self):
        self._status = "pass"
        self._details = []
        self._made = self._subject.made()
        self._began = time.monotonic()

    def startTest(self, test):
        super().startTest(test)
        self._reporter.tell(start=name_of(test))
        self._begin()

    def stopTest(self, test):
        super().stopTest(test)
        seconds = round(time.monotonic() - self._began, 3)
        loops, tasks = (now - then for now, then in zip(self._subject.made(), self._made, strict=True))
        self._reporter.tell(
            end=name_of(test),
            status=self._status,
            detail="\n".join(self._details),
            seconds=seconds,
            loops=loops,
            tasks=max(0, tasks - 1),  # less the one that was made to count them
        )
        self._begin()  # Python 3.12.1 stops tests of a skipped class without having started them

    def addFailure(self, test, error):
        self._note(test, "fail", text_of(error))

    def addError(self, test, error):
        self._note(test, "error", text_of(error))

    def addSkip(self, test, reason):
        self._note(test, "skip", reason)

    def addUnexpectedSuccess(self, test):
        self._note(test, "fail", "passed, and was expected to fail")

    def addSubTest(self, test, subtest, error):
        if error is not None:
            status = "fail" if issubclass(error[0], test.failureException) else "error"
            self._note(test, status, f"{subtest}\n{text_of(error)}")

    def _note(self, test, status, detail):
        if isinstance(test, unittest.suite._ErrorHolder):
            self._reporter.tell(broken=status, detail=f"{test}\n{detail}")
            return
        self._status = max(self._status, status, key=RANKED.index)
        self._details.append(detail)


def text_of(error):
    return "".join(traceback.format_exception(*error))


def load(kind, subject, name):
    module, tests = modules.load(name)
    if kind != "stock" and name not in modules.OTHERS:
        adapt(subject.loop_type, module)
    return tests


def list_tests(kind, subject, names):
    """The tests of each module, or the reason why it has none."""
    found = {}
    for name in names:
        try:
            found[name] = [name_of(test) for test in load(kind, subject, name)]
        except unittest.SkipTest as reason:
            found[name] = {"skip": str(reason)}
    return found


def main():
    faulthandler.enable()
    reporter = Reporter(int(sys.argv[1]))
    request = json.load(sys.stdin)
    kind = request["subject"]
    subject = SUBJECTS[kind]()
    if "list" in request:
        answer = {"modules": list_tests(kind, subject, request["list"]), "version": subject.version}
    else:
        wanted = set(request["tests"])
        tests = [test for test in load(kind, subject, request["module"]) if name_of(test) in wanted]
        unittest.TestSuite(tests).run(Result(reporter, subject))
        answer = {"lost": subject.lost()}
    reporter.tell(answer=answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # without waiting for threads that a test has left behind


if __name__ == "__main__":
    main()
