"""Runs CPython's own asyncio tests on the aioxide that is installed here.

The tests come with the interpreter: `test.test_asyncio`, and those of other
modules that run on asyncio; none is copied.  Each test class has a process of
its own.  A crash or a hang is recorded and the rest of the class goes on in a
new process.  Tests that are left out stand in differences.toml, each with a
reason.

The exit status is 0 if every test passed and aioxide was seen at work.
"""

import argparse
import collections
import concurrent.futures
import fnmatch
import itertools
import json
import os
import pathlib
import platform
import re
import sys
import time
import tomllib

import modules
from subject import SUBJECTS
from watched import WatchedWorker

HERE = pathlib.Path(__file__).resolve().parent
KINDS = ("internal", "duplicate", "twin", "changed")
WRONG = ("fail", "error", "hang", "crash")
COLUMNS = ("pass", *WRONG, "skip", *KINDS, "loops", "tasks")


class Differences:
    """The tests that are left out on this Python, and why."""

    def __init__(self):
        rows = tomllib.loads((HERE / "differences.toml").read_text())["difference"]
        for row in rows:
            assert row["kind"] in KINDS, row
            assert row["reason"], row
            assert row["kind"] != "changed" or "issue" in row, row
        here = sys.version_info[:2]
        self._rows = [
            row for row in rows if version(row.get("since", "3.0")) <= here < version(row.get("before", "4.0"))
        ]

    def of(self, test):
        """The kind and the reason, or None for a test that is to pass."""
        for row in self._rows:
            if any(fnmatch.fnmatchcase(test, pattern) for pattern in row["tests"]):
                reason = row["reason"] + (f" ({row['issue']})" if "issue" in row else "")
                return {"status": row["kind"], "detail": reason}
        return None


class Run:
    """Runs tests, a class at a time in each of some threads."""

    def __init__(self, options):
        self._subject = options.subject
        self._patience = options.patience
        self._retry = options.retry
        self.lost = set()

    def list(self, names):
        request = {"subject": self._subject, "list": names}
        with WatchedWorker(request, 120) as worker:
            *_, last = worker.events()
        if "answer" not in last:
            raise SystemExit(f"the tests cannot be listed: {last}\n{last.get('output', '')}")
        return last["answer"]

    def run_class(self, tests):
        """The result of each of these tests, all of one class."""
        results = {}
        while left := [test for test in tests if test not in results]:
            results.update(self._until_broken(left))
        if self._retry and len(tests) > 1:
            for test in tests:
                if results[test]["status"] in WRONG:
                    results[test] = self._once_more(test, results[test])
        return results

    def _once_more(self, test, first):
        """A test that went wrong gets a process for itself, and may pass there."""
        second = self._until_broken([test])[test]
        return first if second["status"] in WRONG else {**second, "first": first}

    def _until_broken(self, tests):
        results = {}
        running = None
        missing = {"status": "error", "detail": "was not run"}
        request = {"subject": self._subject, "module": tests[0].partition(".")[0], "tests": tests}
        with WatchedWorker(request, self._patience) as worker:
            for event in worker.events():
                if "start" in event:
                    running = event["start"]
                elif "end" in event:
                    running = None
                    results[event.pop("end")] = event
                elif "broken" in event:
                    missing = {"status": event["broken"], "detail": event["detail"]}
                elif "answer" in event:
                    self.lost.update(event["answer"]["lost"])
                    return {test: results.get(test, missing) for test in tests}
                else:
                    status = "hang" if "hung" in event else "crash"
                    reason = event.get("hung") or event["died"]
                    ended = {"status": status, "detail": f"{reason}\n{event['output']}"}
        if running is not None:
            results[running] = ended
        elif not results:  # nor will another process get any further
            return dict.fromkeys(tests, ended)
        return results


def version(text):
    return tuple(map(int, text.split(".")))


def run_all(run, listed, differences, options):
    """All results by test, in the order of the list."""
    results = {}
    classes = []
    for module, tests in listed.items():
        if isinstance(tests, dict):
            results[module] = {"status": "skip", "detail": tests["skip"]}
            continue
        wanted = []
        for test in tests:
            if options.tests and not fnmatch.fnmatchcase(test, options.tests):
                continue
            difference = differences.of(test)
            if difference is None or options.excluded:
                wanted.append(test)
            if difference is not None:
                results[test] = difference
        grouped = itertools.groupby(sorted(wanted), key=lambda test: test.rpartition(".")[0])
        classes.extend(list(group) for _, group in grouped)
    classes.sort(key=len, reverse=True)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for outcome in pool.map(run.run_class, classes):
            for test, result in outcome.items():
                if test in results:
                    results[test] = {**results[test], "here": result["status"]}
                else:
                    results[test] = result
    return dict(sorted(results.items()))


def summarise(results):
    """How many of each status, for each module and in all."""
    table = collections.defaultdict(collections.Counter)
    for test, result in results.items():
        for row in (test.partition(".")[0], "total"):
            table[row][result["status"]] += 1
            table[row]["loops"] += result.get("loops", 0)
            table[row]["tasks"] += result.get("tasks", 0)
    total = table.pop("total", collections.Counter())
    return {**table, "total": total}


def print_report(results, table, verbose):
    columns = [column for column in COLUMNS if table["total"][column] or column == "pass"]
    print(f"{'':24}" + "".join(f"{column:>10}" for column in columns))
    for name, row in table.items():
        print(f"{name:24}" + "".join(f"{row[column]:10}" for column in columns))
    for test, result in results.items():
        if result["status"] in WRONG:
            print(f"\n{result['status']}: {test}")
            print("  " + last_lines(result["detail"], 40 if verbose else 6).replace("\n", "\n  "))
    for test, result in results.items():
        if "first" in result:
            print(f"passed only by itself ({result['first']['status']} before): {test}")


def last_lines(text, number):
    text = re.sub(r'File "[^"]*/', 'File "', text.strip())
    return "\n".join(text.splitlines()[-number:])


def print_stale(results):
    """Rows of differences.toml whose tests pass now, so that the row can go."""
    here = {test: result["here"] for test, result in results.items() if "here" in result}
    print(f"\n{len(here)} tests that are left out were run:", dict(collections.Counter(here.values())))
    for test, status in here.items():
        if status == "pass" and results[test]["status"] == "changed":
            print(f"passes and need not be left out: {test}")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--modules", help="separated by commas; by default every one")
    parser.add_argument("--tests", metavar="PATTERN", help="only these, such as 'test_tasks.*cancel*'")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="classes at a time")
    parser.add_argument("--patience", type=float, default=30, help="seconds a test may take")
    parser.add_argument("--no-retry", dest="retry", action="store_false", help="believe the first result")
    parser.add_argument("--excluded", action="store_true", help="run what is left out too, to see if it passes")
    parser.add_argument("--json", type=pathlib.Path, help="write every result to this file")
    parser.add_argument("--verbose", action="store_true", help="show more of what went wrong")
    parser.add_argument("--subject", choices=SUBJECTS, default="aioxide", help="CPython's own, to compare")
    return parser.parse_args()


def modules_of(options):
    """The modules to run, or the end of it where the interpreter ships no tests."""
    names = modules.names()
    if not names:
        print(f"not a pass: Python {platform.python_version()} at {sys.prefix} ships no {modules.ASYNCIO}")
        raise SystemExit(3)
    return options.modules.split(",") if options.modules else names


def main():
    options = parse_options()
    began = time.monotonic()
    run = Run(options)
    listed = run.list(modules_of(options))
    results = run_all(run, listed["modules"], Differences(), options)
    seconds = round(time.monotonic() - began)
    table = summarise(results)

    python = platform.python_version()
    print(f"{options.subject} {listed['version']} on Python {python}, {seconds} s")
    print_report(results, table, options.verbose)
    if options.excluded:
        print_stale(results)
    problems = []
    if options.subject == "aioxide":
        total = table["total"]
        print(f"\naioxide was in force: it made {total['loops']} loops and {total['tasks']} tasks")
        if not total["loops"] or not total["tasks"]:
            problems.append("aioxide was not seen at work")
        idle = [name for name, row in table.items() if name in modules.OTHERS and row["pass"] and not row["tasks"]]
        if idle:
            problems.append(f"aioxide was not seen at work in {', '.join(idle)}")
        if run.lost:
            problems.append(f"tests took out of force: {', '.join(sorted(run.lost))}")
    if options.json:
        meta = {
            "subject": options.subject,
            "version": listed["version"],
            "python": python,
            "seconds": seconds,
        }
        report = {"meta": meta, "summary": table, "problems": problems, "tests": results}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    for problem in problems:
        print("problem:", problem)
    failed = sum(table["total"][status] for status in WRONG)
    left_out = sum(table["total"][status] for status in ("skip", *KINDS))
    print(f"conformance: {table['total']['pass']} passed, {failed} failed, {left_out} skipped")
    return 1 if failed or problems or not table["total"]["pass"] else 0


if __name__ == "__main__":
    sys.exit(main())
