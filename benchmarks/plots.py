"""The figures as pictures: SVG by hand, readable on light and on dark pages."""

import math
from html import escape

import loops
import report

STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2430 }
  .page { fill: #ffffff } .title { font-size: 16px; font-weight: 600 } .small { font-size: 11px; fill: #5b6270 }
  .group { font-weight: 600 } .line { stroke: #d9dce3; stroke-width: 1 } .one { stroke: #8a909c; stroke-width: 1.5 }
  .rloop { fill: #8fb8a8 } .rsloop { fill: #c3b27d } .zuvloop { fill: #a99cc8 }
  .ours { fill: #d1481f } .uvloop { fill: #3f7cc4 } .limit { stroke: #1f2430; stroke-width: 2 }
  .range { stroke: #d1481f; stroke-width: 2 } .strong { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e7ee } .page { fill: #171a21 } .small { fill: #9aa2b1 }
    .line { stroke: #2d323d } .one { stroke: #767e8d }
    .rloop { fill: #5f8a7a } .rsloop { fill: #8f8050 } .zuvloop { fill: #7d6fa0 }
  .ours { fill: #ff7a4d } .uvloop { fill: #6aa5ee } .limit { stroke: #e4e7ee }
    .range { stroke: #ff7a4d }
  }
"""


def label(x, y, words, kind="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x, y, other_x, other_y, kind="line"):
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{other_x:.1f}" y2="{other_y:.1f}" class="{kind}"/>'


def look(loop):
    return "ours" if loop == "aioxide" else loop


def page(width, height, title, parts):
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" role="img">',
            f"<title>{escape(title)}</title><style>{STYLE}</style>",
            f'<rect class="page" width="{width}" height="{height:.0f}" rx="6"/>',
            *parts,
            "</svg>\n",
        ]
    )


def summary(figures):
    """Bars: how many times cheaper than asyncio each loop is, by group."""
    found = report.means(figures)
    others = [loop for loop in figures["loops"] if loop != "asyncio"]
    most = max(by_loop[loop][0] for by_loop in found.values() for loop in others if loop in by_loop)
    steps = report.nice_steps(most)
    width, left, right, top, bar = 780, 190, 60, 66, 15
    scale = (width - left - right) / steps[-1]
    title = "How many times cheaper than asyncio"
    parts = [
        label(20, 28, title, "title"),
        label(
            20,
            46,
            "CPU time (memory: bytes) of an operation, geometric mean over the workloads: more is better",
            "small",
        ),
    ]
    y = top
    rows = []
    for name, by_loop in found.items():
        rows.append(label(20, y + bar - 3, name, "group"))
        for loop in sorted((loop for loop in others if loop in by_loop), key=lambda loop: -by_loop[loop][0]):
            mean, failed = by_loop[loop]
            strong = "strong" if loop == "aioxide" else ""
            rows.append(label(left - 8, y + bar - 3, loop, strong, "end"))
            rows.append(
                f'<rect x="{left}" y="{y}" width="{mean * scale:.1f}" height="{bar - 3}" rx="2" class="{look(loop)}"/>'
            )
            said = f"{mean:.2f}×" + (f" ({failed} failed)" if failed else "")
            rows.append(label(left + mean * scale + 6, y + bar - 4, said, strong or "small"))
            y += bar
        y += 12
    for step in steps:
        kind = "one" if step == 1 else "line"
        parts.append(line(left + step * scale, top - 6, left + step * scale, y - 4, kind))
        parts.append(label(left + step * scale, y + 10, f"{step:g}×", "small", "middle"))
    if 1 not in steps:
        parts.append(line(left + scale, top - 6, left + scale, y - 4, "one"))
    about = figures["about"]
    foot = f"asyncio is 1. CPython {about['python']}, {about['system']}, {about['date']}. Made by make bench."
    return page(width, y + 42, title, [*parts, *rows, label(20, y + 32, foot, "small")])


def workloads(figures):
    """Dots: each loop in each workload, against asyncio."""
    rows = []
    for name in report.GROUPS:
        for workload, costs in figures["costs"].items():
            if report.group(workload) == name and report.cost(costs, "asyncio"):
                found = {loop: report.ratio(costs, "asyncio", loop) for loop in [*figures["loops"], loops.C]}
                rows.append((workload, {loop: one for loop, one in found.items() if one and loop != "asyncio"}))
    values = [one for _, found in rows for three in found.values() for one in three]
    low, high = math.log(min([0.5, *values])), math.log(max([4, *values]))
    width, left, right, top, height = 780, 200, 30, 84, 17
    title = "Each workload, against asyncio"

    def x(value):
        return left + (math.log(value) - low) / (high - low) * (width - left - right)

    bottom = top + len(rows) * height
    parts = [
        label(20, 28, title, "title"),
        label(
            20, 46, "times cheaper than asyncio, logarithmic; the line through a dot goes from least to most", "small"
        ),
    ]
    at = left
    for loop in [loop for loop in figures["loops"] if loop != "asyncio"]:
        parts.append(f'<circle cx="{at}" cy="62" r="4.5" class="{look(loop)}"/>')
        parts.append(label(at + 9, 66, loop, "small"))
        at += 28 + 7 * len(loop)
    parts.append(line(at, 56, at, 68, "limit"))
    parts.append(label(at + 7, 66, "a server in C", "small"))
    for mark in (0.25, 0.5, 1, 2, 4, 8, 16, 32):
        if low <= math.log(mark) <= high:
            parts.append(line(x(mark), top - 6, x(mark), bottom, "one" if mark == 1 else "line"))
            parts.append(label(x(mark), bottom + 14, f"{mark:g}×", "small", "middle"))
    for number, (workload, found) in enumerate(rows):
        y = top + number * height + height / 2
        parts.append(label(left - 12, y + 4, workload, "", "end"))
        for loop, (median, least, most) in sorted(found.items(), key=lambda item: item[0] == "aioxide"):
            if loop == loops.C:
                parts.append(line(x(median), y - 6, x(median), y + 6, "limit"))
                continue
            if loop == "aioxide":
                parts.append(line(x(least), y, x(most), y, "range"))
            what = f"<title>{escape(loop)}: {median:.2f}</title>"
            parts.append(f'<circle cx="{x(median):.1f}" cy="{y:.1f}" r="4.5" class="{look(loop)}">{what}</circle>')
    return page(width, bottom + 28, title, parts)
