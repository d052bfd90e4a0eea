"""Runs the tests of other people's projects on asyncio and on aioxide, and compares.

Each project has an environment of its own; its tests come from its sdist as they are. A test that
passes on asyncio and not on aioxide is a difference, unless projects.toml says why. One that
goes wrong gets three more tries alone on both loops, so that flaky tests do not count, but are listed.

The exit status is 0 if there is no difference and aioxide was seen at work in every project.
"""

import argparse
import collections
import fnmatch
import json
import pathlib
import signal
import sys
import time
import tomllib

from project import Project, where_aioxide_is
from services import Missing
from session import Session

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
AGAIN = 3
WORTH_TRYING_AGAIN = 60  # more than so many are no matter of luck


class Outcome:
    """What came of one project."""

    def __init__(self, project):
        self.project = project
        self.differences = {}  # test: row of aioxide's run
        self.explained = {}  # test: reason
        self.flaky = {}  # test: what happened when it was tried again
        self.left_out = ""  # why nothing was run
        self.counts = collections.Counter()
        self.made = {"loops": 0, "tasks": 0}
        self.seconds = 0

    def good(self):
        return not self.differences

    def line(self):
        if self.left_out:
            return f"{self.project.name:14} {self.project.version:10} left out: {self.left_out}"
        numbers = (self.counts["tests"], self.counts["stock"], self.counts["aioxide"], len(self.differences))
        numbers += (len(self.explained), len(self.flaky), self.made["loops"], self.made["tasks"], round(self.seconds))
        return f"{self.project.name:14} {self.project.version:10}" + "".join(f"{number:>9}" for number in numbers)


HEAD = f"{'project':14} {'version':10}" + "".join(
    f"{word:>9}" for word in ("tests", "stock", "aioxide", "differ", "reasons", "flaky", "loops", "tasks", "seconds")
)


def matching(test, rows):
    """The first of these rows whose patterns name the test."""
    bare = test.replace("[", "(").replace("]", ")")  # brackets mean something to fnmatch, and stand in names
    for row in rows:
        for pattern in row["tests"]:
            if fnmatch.fnmatchcase(bare, pattern.replace("[", "(").replace("]", ")")):
                return row
    return None


def run_project(project, package, reasons, options):
    outcome = Outcome(project)
    began = time.monotonic()
    try:
        project.prepare(package)
        with project.serve() as (variables, words):
            compare(project, reasons, options, outcome, variables, words)
    except Missing as missing:
        outcome.left_out = f"this machine has no {missing}"
    except (RuntimeError, LookupError) as error:
        outcome.differences["(environment)"] = {"status": "trouble", "detail": str(error)}
    outcome.seconds = time.monotonic() - began
    return outcome


def compare(project, reasons, options, outcome, variables, words):
    def session(loop, tests=None):
        return Session(project, loop, variables, words).run(tests)

    stock = stock_of(project, options, session)
    aioxide = session("aioxide")
    keep(project.home / "aioxide.json", aioxide)
    outcome.made = aioxide.made
    passing = [test for test, row in stock.results.items() if row["status"] == "pass"]
    outcome.counts.update(
        tests=len(stock.results),
        stock=len(passing),
        aioxide=sum(row["status"] == "pass" for row in aioxide.results.values()),
    )
    absent = {"status": "absent", "detail": "not seen on aioxide"}
    wrong = {}
    for test in passing:
        row = aioxide.results.get(test, absent)
        if row["status"] == "pass":
            continue
        if explanation := matching(test, reasons):
            outcome.explained[test] = explanation["reason"]
        elif row is not absent or not goes_by_another_name(test, stock, aioxide):
            wrong[test] = row
    for number, test in enumerate(wrong):
        luck = tried_again(session, test) if number < WORTH_TRYING_AGAIN and options.retry else None
        if luck and (luck["aioxide"] > AGAIN / 2 or luck["stock"] < AGAIN):
            outcome.flaky[test] = luck
        else:
            outcome.differences[test] = wrong[test]
    for place, note in enumerate(aioxide.trouble):
        if not stock.trouble:
            outcome.differences[f"(no test {place})"] = {"status": "trouble", "detail": note}
    if not outcome.made["loops"] or not outcome.made["tasks"]:
        outcome.differences["(in force)"] = {"status": "idle", "detail": "no loop or no task of aioxide was made"}
    if not passing:
        note = "\n".join(stock.trouble) or f"see {project.home / 'stock.log'}"
        outcome.differences["(stock)"] = {"status": "idle", "detail": f"no test passes on stock asyncio: {note}"}


def goes_by_another_name(test, stock, aioxide):
    """Whether as many tests pass that differ in their parameters: the text of one may hold an address."""
    function, bracket, _ = test.partition("[")

    def passed(session):
        return sum(row["status"] == "pass" and name.startswith(f"{function}[") for name, row in session.results.items())

    return bool(bracket) and passed(aioxide) >= passed(stock)


def stock_of(project, options, session):
    """The run on stock asyncio; an older one if that is wanted and there."""
    kept = project.home / "stock.json"
    if options.reuse_stock and kept.exists():
        old = json.loads(kept.read_text())
        if (old["version"], old.get("arguments")) == (project.version, project.arguments):
            stock = Session(project, "stock", {}, {})
            stock.results, stock.trouble = old["results"], old["trouble"]
            return stock
    stock = session("stock")
    keep(kept, stock, version=project.version, arguments=project.arguments)
    return stock


def keep(path, session, **more):
    path.write_text(json.dumps({"results": session.results, "trouble": session.trouble, "made": session.made, **more}))


def tried_again(session, test):
    """How often the test passes alone, of some tries on each loop; nothing if it is not found again."""
    luck = {}
    for loop in ("stock", "aioxide"):
        rows = [session(loop, [test]).results.get(test) for _ in range(AGAIN)]
        if None in rows:
            return None
        luck[loop] = sum(row["status"] == "pass" for row in rows)
    return luck


def read_projects():
    table = tomllib.loads((HERE / "projects.toml").read_text())
    reasons = collections.defaultdict(list)
    for row in table.get("difference", ()):
        assert row["reason"], row
        reasons[row["project"]].append(row)
    return {row["name"]: Project(**row) for row in table["project"]}, reasons


def choose(projects, options):
    if options.all:
        return list(projects.values())
    if not options.projects:
        return [project for project in projects.values() if project.ci]
    unknown = set(options.projects.split(",")) - projects.keys()
    if unknown:
        raise SystemExit(f"no project {', '.join(sorted(unknown))}; there are {', '.join(projects)}")
    return [projects[name] for name in options.projects.split(",")]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--projects", help="names with commas between (default: those that CI runs)")
    parser.add_argument("--all", action="store_true", help="every project")
    parser.add_argument(
        "--directory", type=pathlib.Path, default=ROOT / ".ecosystem", help="where environments are kept"
    )
    parser.add_argument(
        "--reuse-stock", action="store_true", help="take the last run on stock asyncio where there is one"
    )
    parser.add_argument("--no-retry", dest="retry", action="store_false", help="do not try again what went wrong")
    parser.add_argument("--lines", type=int, default=15, help="how much to show of each difference (default: 15 lines)")
    parser.add_argument("--report", type=pathlib.Path, help="write everything as JSON to this file")
    return parser.parse_args()


def main():
    options = arguments()
    projects, reasons = read_projects()
    chosen = choose(projects, options)
    package, build = where_aioxide_is()
    version = f"{sys.version_info[0]}.{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
    print(f"aioxide {package} (build {build}) on Python {sys.version.split()[0]}", flush=True)
    outcomes = []
    for project in chosen:
        project.place(options.directory.resolve() / version)
        print(f"--- {project.name} {project.version}", flush=True)
        outcomes.append(outcome := run_project(project, package, reasons[project.name], options))
        print(HEAD, outcome.line(), sep="\n", flush=True)
        show(outcome, options.lines)
    print("", HEAD, *(outcome.line() for outcome in outcomes), sep="\n")
    if options.report:
        options.report.write_text(
            json.dumps([vars(o) | {"project": o.project.name} for o in outcomes], indent=1, default=str)
        )
    named = bool(options.projects)
    failed = [outcome.project.name for outcome in outcomes if not outcome.good() or (named and outcome.left_out)]
    ran = sum(not outcome.left_out for outcome in outcomes)
    print(
        f"{ran - len(failed)} passed, {len(failed)} failed"
        if not failed
        else f"{len(failed)} failed: {' '.join(failed)}"
    )
    sys.exit(bool(failed))


def show(outcome, lines):
    for test, row in outcome.differences.items():
        said = row["detail"].strip().splitlines()
        text = "\n".join(said[:lines] if row["status"] in ("hang", "crash") else said[-lines:])
        print(f"* {test}: {row['status']}\n{text}\n")
    for test, luck in outcome.flaky.items():
        print(f"  flaky: {test}, alone {luck['aioxide']} of {AGAIN} on aioxide, {luck['stock']} of {AGAIN} on stock")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so to the end of what has been started
    main()
