"""From figures to ratios, tables and the measured part of benchmarks/README.md."""

import math
import re
import statistics

import loops

TITLES = {"io": "I/O", "http": "HTTP"}
GROUPS = {
    "scheduling": "tasks, callbacks, timers",
    "primitives": "gather, groups, timeouts, locks, queues",
    "io": "servers of each kind, threads, children",
    "http": "a small answer over HTTP/1.1",
    "memory": "one that is idle",
    "start": "import, run nothing, end",
}
START, END = "<!-- --8<-- [start:measured] -->", "<!-- --8<-- [end:measured] -->"


def group(name):
    return name.partition("/")[0]


def rounds_of(costs, loop):
    return costs.get(loop) or []


def ratio(costs, base, loop):
    """How many times cheaper `loop` is than `base`, from runs of the same round: median, least, most."""
    pairs = zip(rounds_of(costs, base), rounds_of(costs, loop), strict=False)
    ratios = sorted(one / other for one, other in pairs if one and other)
    return (statistics.median(ratios), ratios[0], ratios[-1]) if ratios else None


def cost(costs, loop):
    known = [one for one in rounds_of(costs, loop) if one]
    return statistics.median(known) if known else None


def means(figures, base="asyncio"):
    """For each group and loop the geometric mean of the ratios, and how many workloads the loop failed."""
    found = {}
    for name in GROUPS:
        members = [costs for workload, costs in figures["costs"].items() if group(workload) == name]
        for loop in figures["loops"]:
            ratios = [ratio(costs, base, loop) for costs in members if cost(costs, base)]
            known = [one[0] for one in ratios if one]
            if known:
                found.setdefault(name, {})[loop] = (statistics.geometric_mean(known), len(ratios) - len(known))
    return found


def amount(value, name):
    if value is None:
        return "–"
    if group(name) == "memory":
        return f"{value:,.0f} B"
    for factor, unit in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        if value * factor < 9_999:
            return f"{value * factor:,.0f} {unit}" if value * factor >= 100 else f"{value * factor:.3g} {unit}"
    return f"{value:.1f} s"


def times(found):
    if found is None:
        return "–"
    median, least, most = found
    return f"{median:.2f} [{least:.2f}–{most:.2f}]" if least < most else f"{median:.2f}"


def row(cells):
    return "| " + " | ".join(cells) + " |"


def summary(figures):
    found = means(figures)
    others = [loop for loop in figures["loops"] if loop != "asyncio"]
    yield row(["group", "what", *others])
    yield "|---|---|" + "---:|" * len(others)
    for name, by_loop in found.items():
        cells = [
            f"{by_loop[loop][0]:.2f}" + (f" ({by_loop[loop][1]} failed)" if by_loop[loop][1] else "")
            if loop in by_loop
            else "–"
            for loop in others
        ]
        yield row([name, GROUPS[name], *cells])


def table(figures, name):
    """The workloads of a group: what one operation costs, and how aioxide stands to the others."""
    members = {workload: costs for workload, costs in figures["costs"].items() if group(workload) == name}
    columns = [*figures["loops"], *([loops.C] if any(costs.get(loops.C) for costs in members.values()) else [])]
    bases = [base for base in ("asyncio", "uvloop", loops.C) if base in columns and "aioxide" in columns]
    yield row(["workload", *columns, *(f"against {base}" for base in bases)])
    yield "|---|" + "---:|" * (len(columns) + len(bases))
    for workload, costs in members.items():
        cells = [amount(cost(costs, loop), workload) for loop in columns]
        cells += [times(ratio(costs, base, "aioxide")) for base in bases]
        yield row([f"`{workload.partition('/')[2]}`", *cells])


def failures(figures):
    for workload, by_loop in figures["failures"].items():
        for loop, why in by_loop.items():
            yield f"- `{workload}` on {loop}: {why}"


def text(figures):
    """Everything that was measured, as Markdown."""
    about = figures["about"]
    versions = ", ".join(f"{name} {about['versions'][name]}".strip() for name in figures["loops"])
    lines = [
        f"Measured on {about['date']} by `make bench`{about['how']}, rounds: {about['rounds']}. "
        f"CPython {about['python']}, {about['system']}, {about['cores']} cores ({about['processor']}); {versions}.",
        "",
        "How many times cheaper than asyncio, geometric mean over the workloads of a group:",
        "",
        *summary(figures),
    ]
    for name in GROUPS:
        if any(group(workload) == name for workload in figures["costs"]):
            lines += ["", f"### {TITLES.get(name, name.capitalize())}: {GROUPS[name]}", "", *table(figures, name)]
    if any(figures["failures"].values()):
        lines += ["", "What did not work:", "", *failures(figures)]
    return "\n".join(lines) + "\n"


def splice(page, measured):
    """The page with its measured part replaced."""
    pattern = re.compile(re.escape(START) + ".*?" + re.escape(END), re.DOTALL)
    replaced, count = pattern.subn(lambda _: f"{START}\n\n{measured}\n{END}", page)
    if count != 1:
        raise ValueError(f"the page has {count} measured parts, not one")
    return replaced


def nice_steps(most):
    """Marks for an axis from nothing to `most`."""
    step = 10 ** math.floor(math.log10(most))
    while most / step < 4:
        step /= 2
    return [step * number for number in range(math.ceil(most / step) + 1)]
