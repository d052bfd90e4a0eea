"""Measures event loops against each other, and writes down what it finds.

    python benchmarks/bench.py [--only 'io/*,http/*'] [--loops asyncio,uvloop,aioxide] [--rounds 5] [--quick]

Prints tables, and leaves figures.json, report.md, speed.svg and workloads.svg in target/bench.  A full run also
writes the figures into the tree: benchmarks/figures.json, benchmarks/README.md and the pictures in docs/images.
So does --write, which replaces what was measured now and keeps the other figures.

Each measurement is a process of its own.  The loops take turns within a round, and what is reported is the median,
over the rounds, of the ratio between runs of the same round: a machine that is slow for a while slows all of them.
"""

import argparse
import datetime
import fnmatch
import importlib.util
import json
import os
import pathlib
import platform
import sys
import time

import loops
import measure
import plots
import report

TREE = pathlib.Path(__file__).resolve().parents[1]
BASIC = ("asyncio", "uvloop", "aioxide")


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] != "unknown" else platform.machine()


def about(names, rounds, quick):
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "cores": len(measure.CORES),
        "processor": processor(),
        "rounds": rounds,
        "how": " QUICK=1, which is rough" if quick else "",
        "versions": {name: loops.version(name) for name in names},
    }


def compare(workloads, names, rounds, settings, keep):
    """The costs by workload and loop, a list for the rounds; `keep` is told after each round."""
    costs = {workload: {} for workload in workloads}
    failures = {workload: {} for workload in workloads}
    functions = measure.registry()
    for number in range(rounds):
        began = time.monotonic()
        for workload in workloads:
            limit = [loops.C] if measure.has_limit(workload) and measure.c_server() else []
            # Nobody is always the first.
            turn = number % len(names)
            for loop in [*names[turn:], *names[:turn], *limit]:
                try:
                    found = functions[workload](loop, settings)
                except measure.Failed as reason:
                    found = None
                    failures[workload][loop] = str(reason)
                    print(f"{workload} on {loop}: {reason}", file=sys.stderr)
                costs[workload].setdefault(loop, []).append(found)
        print(f"round {number + 1} of {rounds}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        keep(costs, failures)
    return costs, failures


def save(figures, directory):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (directory / "report.md").write_text(report.text(figures))
    draw(figures, directory)


def draw(figures, directory):
    if all(any(costs.get(loop) for costs in figures["costs"].values()) for loop in ("asyncio", "aioxide")):
        (directory / "speed.svg").write_text(plots.summary(figures))
        (directory / "workloads.svg").write_text(plots.workloads(figures))


def merged(figures, before):
    """The figures of before, with what has been measured now in their place."""
    names = [name for name in loops.NAMES if name in {*before["loops"], *figures["loops"]}]
    costs, failures = {}, {}
    for workload in measure.registry():
        for part, whole in (("costs", costs), ("failures", failures)):
            found = {**before[part].get(workload, {}), **figures[part].get(workload, {})}
            if part == "failures":  # what works now has failed before
                now = figures["costs"].get(workload, {})
                found = {name: why for name, why in found.items() if not any(now.get(name, [None]))}
            if found:
                whole[workload] = found
    versions = {**before["about"]["versions"], **figures["about"]["versions"]}
    about = {**figures["about"], "versions": versions}
    return {"about": about, "loops": names, "costs": costs, "failures": failures}


def write_into_tree(figures):
    (TREE / "benchmarks" / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    page = TREE / "benchmarks" / "README.md"
    page.write_text(report.splice(page.read_text(), report.text(figures)))
    images = TREE / "docs" / "images"
    images.mkdir(exist_ok=True)
    draw(figures, images)


def chosen(only):
    """The workloads whose names fit, without those about packages that are not here."""
    patterns = only.split(",")
    for name in measure.registry():
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            continue
        package = measure.needed_package(name)
        if package and importlib.util.find_spec(package) is None:
            print(f"{name}: {package} is not installed, left out", file=sys.stderr)
            continue
        yield name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--list", action="store_true", help="show the names of the workloads")
    parser.add_argument("--only", default="*", help="names of workloads, separated by commas; * is a wildcard")
    parser.add_argument("--loops", help=f"of {', '.join(loops.NAMES)}; by default those that are installed")
    parser.add_argument("--rounds", type=int, help="how often each is measured (3; quick: 1)")
    parser.add_argument("--quick", action="store_true", help="few operations, once, on the best-known loops: rough")
    parser.add_argument("--write", action="store_true", help="write into the tree what has been measured")
    parser.add_argument("--figures", metavar="FILE", help="measure nothing: tables and pictures from this file")
    options = parser.parse_args()
    if options.list:
        print("\n".join(measure.registry()))
        return 0
    if options.figures:
        figures = json.loads(pathlib.Path(options.figures).read_text())
    else:
        figures = measured(options)
    save(figures, measure.BUILT)
    print(report.text(figures))
    full = options.only == "*" and not options.quick and not options.figures
    if options.write or full:
        before = TREE / "benchmarks" / "figures.json"
        if not full and not options.figures and before.exists():
            figures = merged(figures, json.loads(before.read_text()))
        write_into_tree(figures)
    print(f"tables and pictures: {os.path.relpath(measure.BUILT)}", file=sys.stderr)
    return 0 if figures["costs"] else 1


def measured(options):
    have = loops.installed()
    if options.loops:
        names = options.loops.split(",")
        if strangers := [name for name in names if name not in have]:
            raise SystemExit(f"not a loop, or not installed: {', '.join(strangers)}")
    else:
        names = [name for name in have if name in BASIC or not options.quick]
    workloads = list(chosen(options.only))
    if not workloads:
        raise SystemExit(f"no workload is called {options.only} (see --list)")
    rounds = options.rounds or (1 if options.quick else 3)
    settings = measure.QUICK if options.quick else measure.FULL
    # Only what asyncio and aioxide were measured with can be compared.
    facts = about(names, rounds, options.quick)

    def keep(costs, failures):
        save({"about": facts, "loops": names, "costs": costs, "failures": failures}, measure.BUILT)

    costs, failures = compare(workloads, names, rounds, settings, keep)
    return {"about": facts, "loops": names, "costs": costs, "failures": failures}


if __name__ == "__main__":
    sys.exit(main())
