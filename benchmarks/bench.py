"""Measures event loops against each other.

    python benchmarks/bench.py [--only 'gather*,queue*'] [--rounds 5] [--loops stock,uvloop,aioxide] [--json FILE]

Each measurement is a process of its own: it runs the workload once to warm up
and then some times more, and counts the best.  The loops take turns within a round,
and what is reported is the median, over the rounds, of the ratio between runs
of the same round: a machine that is slow for a while slows all of them.

The cost is CPU time of the process, all threads together.
"""

import argparse
import fnmatch
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time

REPEATS = 5


def use(loop):
    """Puts an implementation in the place of asyncio."""
    if loop == "aioxide":
        import aioxide

        aioxide.install()
    if loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return None


def measure(loop, name):
    """In a process of its own: CPU seconds for one operation, the best of some runs."""
    import asyncio
    import gc

    from workloads import WORKLOADS

    factory = use(loop)
    function, n = WORKLOADS[name]
    costs = []
    for _ in range(1 + REPEATS):
        gc.collect()
        if factory is None:
            event_loop = asyncio.new_event_loop()
        else:
            event_loop = factory()
        began = time.process_time()
        done = event_loop.run_until_complete(function(n))
        costs.append((time.process_time() - began) / n)
        event_loop.run_until_complete(event_loop.shutdown_default_executor())
        event_loop.close()
        if done != n:
            raise SystemExit(f"{name} on {loop} did {done} operations of {n}")
    print(min(costs[1:]))


def run(loop, name):
    """The cost, measured in a new process, or None where it cannot be had."""
    command = [sys.executable, "-W", "ignore", __file__, "--measure", loop, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        print(f"{name} on {loop}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return float(done.stdout)


def compare(names, loops, rounds):
    """The costs by workload and loop, a list for the rounds."""
    costs = {name: {loop: [] for loop in loops} for name in names}
    for number in range(rounds):
        for name in names:
            for loop in loops:
                costs[name][loop].append(run(loop, name))
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return costs


def ratio(costs, base, loop):
    """How many times cheaper `loop` is than `base`: median, least and most over the rounds."""
    pairs = [(one, other) for one, other in zip(costs[base], costs[loop], strict=True) if one and other]
    ratios = sorted(one / other for one, other in pairs)
    return (statistics.median(ratios), ratios[0], ratios[-1]) if ratios else None


def table(costs, loops):
    """Markdown: nanoseconds for each operation, and how much cheaper the last loop is than the others."""
    *bases, subject = loops
    yield (
        "| workload | "
        + " | ".join(f"{loop} ns" for loop in loops)
        + "".join(f" | {subject} against {base}" for base in bases)
        + " |"
    )
    yield "|---|" + "---:|" * (len(loops) + len(bases))
    for name, by_loop in costs.items():
        cells = []
        for loop in loops:
            known = [cost for cost in by_loop[loop] if cost]
            cells.append(f"{statistics.median(known) * 1e9:,.0f}" if known else "")
        for base in bases:
            found = ratio(by_loop, base, subject)
            cells.append("{:.2f}x ({:.2f}-{:.2f})".format(*found) if found else "")
        yield f"| {name} | " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="*", help="names of workloads, separated by commas; * is a wildcard")
    parser.add_argument("--loops", help="by default stock, uvloop if it is installed, and aioxide")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write every figure to this file")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(*options.measure)

    from workloads import WORKLOADS

    patterns = options.only.split(",")
    names = [name for name in WORKLOADS if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    have_uvloop = importlib.util.find_spec("uvloop") is not None
    loops = (options.loops or ("stock,uvloop,aioxide" if have_uvloop else "stock,aioxide")).split(",")
    costs = compare(names, loops, options.rounds)
    print(f"CPython {platform.python_version()}, {platform.system()} {platform.release()}, {os.cpu_count()} cores,")
    print(f"CPU time for each operation, median of {options.rounds} rounds; ratios with their least and most.\n")
    print("\n".join(table(costs, loops)))
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"python": sys.version, "machine": platform.platform(), "costs": costs}, file, indent=1)
    return None


if __name__ == "__main__":
    sys.exit(main())
