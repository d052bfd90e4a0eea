"""The page of `aioxide report`: figures and tables as HTML, and the timeline as data for the page's own script.

One file, which loads nothing: styles and script come from `_report.html`, the same for every report.
"""

import html
import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from aioxide._report import (
    Group,
    Key,
    Row,
    Slice,
    Stall,
    Trace,
    around,
    by_callback,
    by_coroutine,
    by_wait,
    share,
    wakers,
)

MOST_ROWS = 400
"""So many tasks are drawn, those that ran longest."""
MOST_SEGMENTS = 120_000
MOST_ARROWS = 20_000
LINES = 20
"""So long are tables."""

STEP, WAIT, READY, CALLBACK, ASLEEP, STALL = range(6)


def page(trace: Trace, source: str) -> str:
    """The whole page."""
    template = resources.files("aioxide").joinpath("_report.html").read_text(encoding="utf-8")
    parts = {
        "TITLE": _text(f"{trace.program['name'] or 'a program'}: a trace of aioxide's"),
        "NAME": _text(str(trace.program["name"]) or "A program"),
        "ABOUT": _about(trace, source),
        "FIGURES": _figures(trace),
        "SHARES": "".join(_shares(trace)),
        "STALLS": _stalls(trace),
        "TASKS": _tasks(trace),
        "COROUTINES": _groups(by_coroutine(trace), "coroutine", "steps", with_tasks=True),
        "WAITS": _groups(by_wait(trace), "what for", "waits"),
        "CALLBACKS": _groups(by_callback(trace), "callback", "calls"),
        "WAKERS": _wakers(trace),
        "DATA": json.dumps(timeline(trace), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c"),
    }
    before, *rest = template.split("{{")
    pieces = [before]
    for piece in rest:
        name, _, after = piece.partition("}}")
        pieces += [parts[name], after]
    return "".join(pieces)


def _text(text: str) -> str:
    return html.escape(text)


def span(seconds: float) -> str:
    """A length of time, with three digits."""
    if seconds <= 0:
        return "0"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        value = seconds * factor
        if value >= 1:
            return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole > 0 else "none"


def _about(trace: Trace, source: str) -> str:
    began = datetime.fromtimestamp(float(trace.program["began"]), UTC)
    words = [
        _text(source),
        f"{began:%Y-%m-%d %H:%M:%S} UTC",
        f"process {int(trace.program['pid'])}",
        f"Python {_text(str(trace.program['python']))}",
        f"aioxide {_text(str(trace.program['aioxide']))}",
    ]
    text = f"<p class=about>{' · '.join(words)}</p>"
    if trace.dropped:
        text += (
            f"<p class=note>The first {trace.dropped:,} events, up to {span(trace.begin)}, were dropped"
            " to keep the trace within its limit: everything below is about the time after that.</p>"
        )
    return text


def _figures(trace: Trace) -> str:
    steps = sum(len(task.steps) for task in trace.tasks.values())
    shares = [share(trace, loop) for loop in trace.loops]
    busy = sum(one.tasks + one.callbacks for one in shares)
    whole = sum(sum(one) for one in shares)
    late = max((ready.length for task in trace.tasks.values() for ready in task.ready), default=0.0)
    stalled = trace.stalls[0].length if trace.stalls else 0.0
    figures = [
        (span(trace.seconds - trace.begin), "recorded"),
        (f"{len(trace.tasks):,}", "tasks" if len(trace.tasks) != 1 else "task"),
        (f"{steps:,}", "steps"),
        (_percent(busy, whole), "of the time busy"),
        (span(late), "longest a task waited for its turn"),
        (span(stalled) if stalled else "none", f"longest stall of {len(trace.stalls)}" if stalled else "stalls"),
    ]
    return "".join(
        f"<div{' class=bad' if stalled and number == 5 else ''}><b>{value}</b><span>{word}</span></div>"
        for number, (value, word) in enumerate(figures)
    )


def _shares(trace: Trace) -> Iterable[str]:
    words = (
        ("step", "tasks"),
        ("callback", "callbacks and I/O"),
        ("asleep", "asleep: nothing to do"),
        ("rest", "the loop itself, the recording, and waiting for the interpreter's lock"),
    )
    for loop, row in trace.loops.items():
        parts = share(trace, loop)
        whole = sum(parts)
        if not whole:
            continue
        bars = "".join(
            f'<i class="{kind}" style="width:{100 * part / whole:.3f}%"></i>'
            for part, (kind, _) in zip(parts, words, strict=True)
        )
        legend = "".join(
            f'<li><i class="{kind}"></i>{word} <b>{_percent(part, whole)}</b> <span>{span(part)}</span></li>'
            for part, (kind, word) in zip(parts, words, strict=True)
        )
        yield f"<h3>{_text(row.name)}</h3><div class=bar>{bars}</div><ul class=legend>{legend}</ul>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], more: int = 0) -> str:
    """A table; a head that begins with > is that of numbers, and a cell that begins with < is HTML already."""
    head = "".join(f"<th class=n>{word[1:]}</th>" if word[0] == ">" else f"<th>{word}</th>" for word in heads)
    body = ""
    for row in rows:
        cells = (
            f"<td{' class=n' if word[0] == '>' else ''}>{cell if cell[:1] == '<' else _text(cell)}</td>"
            for cell, word in zip(row, heads, strict=True)
        )
        body += f"<tr>{''.join(cells)}</tr>"
    rest = f"<p class=more>and {more:,} more</p>" if more > 0 else ""
    return f"<div class=table><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{rest}"


def _code(place: str) -> str:
    function, _, where = place.partition("  ")
    if not where:
        return f"<code>{_text(function)}</code>"
    return f"<code>{_text(function)}</code> <small>{_text(where)}</small>"


def _meter(part: float, whole: float, kind: str) -> str:
    width = min(100.0, 100 * part / whole) if whole else 0.0
    return f'<span class=meter><i class="{kind}" style="width:{width:.2f}%"></i></span>'


def _tasks(trace: Trace) -> str:
    found = sorted(trace.tasks.values(), key=lambda task: -task.busy)
    most = found[0].busy if found else 0.0
    rows = []
    for task in found[:LINES]:
        rows.append(
            (
                f"<b>{_text(task.name)}</b>",
                _code(task.place or task.coroutine),
                _meter(task.busy, most, "step"),
                span(task.busy),
                f"{len(task.steps):,}",
                span(max((step.length for step in task.steps), default=0.0)),
                span(sum(wait.length for wait in task.waits)),
                _mainly(task),
                task.end or "lives on",
            )
        )
    heads = ("task", "coroutine", "", ">ran", ">steps", ">longest step", ">waited", "mostly for", "end")
    return _table([head or "&nbsp;" for head in heads], rows, len(found) - LINES)


def _mainly(task: Row) -> str:
    """What a task waited for most."""
    kinds: dict[str, float] = {}
    for wait in task.waits:
        kinds[wait.name] = kinds.get(wait.name, 0.0) + wait.length
    text = max(kinds, key=lambda kind: kinds[kind]) if kinds else ""
    last = task.waits[-1] if task.waits else None
    if last is not None and last.is_open:
        text += f"; to the end for {last.detail}"
    return text


def _groups(groups: list[Group], what: str, count: str, *, with_tasks: bool = False) -> str:
    if not groups:
        return "<p class=none>None.</p>"
    kind = {"steps": "step", "waits": "wait", "calls": "callback"}[count]
    most = groups[0].seconds
    rows = []
    for group in groups[:LINES]:
        where = (
            _code(group.place or group.name)
            if with_tasks or not group.place
            else (f"<b>{_text(group.name)}</b> {_code(group.place)}")
        )
        tasks = [f"{group.tasks:,}"] if with_tasks else []
        rows.append(
            (
                where,
                _meter(group.seconds, most, kind),
                span(group.seconds),
                *tasks,
                f"{group.times:,}",
                span(group.longest),
            )
        )
    heads = (what, "&nbsp;", ">together", *([">tasks"] if with_tasks else []), f">{count}", ">longest")
    return _table(heads, rows, len(groups) - LINES)


def _wakers(trace: Trace) -> str:
    found = wakers(trace)
    if not found:
        return "<p class=none>Nobody woke anybody.</p>"
    rows = [(f"<b>{_text(by)}</b>", "→", f"<b>{_text(whom)}</b>", f"{count:,}") for by, whom, count in found[:LINES]]
    return _table(("who", "&nbsp;", "woke whom", ">times"), rows, len(found) - LINES)


def _stalls(trace: Trace) -> str:
    if not trace.stalls:
        return f"<p class=none>None: no loop was kept for {span(trace.stall_seconds)} or longer.</p>"
    items = []
    for number, stall in enumerate(trace.stalls[:LINES]):
        who = f"task <b>{_text(stall.task)}</b>" if stall.task is not None else f"callback <b>{_text(stall.name)}</b>"
        stacks = "".join(_stack(stack) for stack in stall.stacks) or _unseen(trace, stall)
        jump = f'<button data-from="{stall.start:.6f}" data-to="{stall.start + stall.length:.6f}">show</button>'
        items.append(
            f"<li><details{' open' if number < 3 else ''}><summary><b class=length>{span(stall.length)}</b> "
            f"{who} <small>at {span(stall.start)}</small> {jump}</summary>{stacks}</details></li>"
        )
    more = len(trace.stalls) - LINES
    rest = f"<p class=more>and {more:,} more</p>" if more > 0 else ""
    return f"<ol class=stalls>{''.join(items)}</ol>{rest}"


def _stack(stack: list[str]) -> str:
    lines = "".join(f"<li>{_code(line)}</li>" for line in stack)
    return f"<ol class=stack>{lines}</ol>"


def _unseen(trace: Trace, stall: Stall) -> str:
    before, after = around(trace, stall)
    text = "No stack could be read: native code kept the interpreter's lock, or it was over too soon."
    if before:
        text += f" The task went on from {_code(before)}"
        text += f", and waited next in {_code(after)}." if after else ", and waited no more."
    return f"<p class=none>{text}</p>"


# --- the timeline -----------------------------------------------------------------------------------------------


def timeline(trace: Trace) -> dict[str, Any]:
    """The picture as data: rows of segments, each a kind, a start and a length in microseconds, and a label."""
    drawn = sorted(trace.tasks.items(), key=lambda item: -item[1].busy)[:MOST_ROWS]
    rows: list[tuple[Key, Row]] = []
    for loop, row in trace.loops.items():
        rows.append(((loop, 0), row))
        own = [(key, task) for key, task in drawn if key[0] == loop]
        rows += sorted(own, key=lambda item: (item[1].first, item[0]))
    labels: dict[str, int] = {"": 0}
    drawn_rows = [list(_segments(trace, key, row)) for key, row in rows]
    content = []
    for (key, row), segments, most in zip(rows, drawn_rows, shared([len(one) for one in drawn_rows]), strict=True):
        flat: list[int] = []
        for kind, start, length, label in merged(segments, most):
            flat += (kind, start, length, labels.setdefault(label, len(labels)))
        about = row.coroutine if key[1] else ""
        content.append({"name": row.name, "about": about, "loop": key[1] == 0, "segments": flat})
    places = {key: number for number, (key, _) in enumerate(rows)}
    arrows: list[int] = []
    for arrow in trace.arrows[-MOST_ARROWS:]:
        if arrow.waker in places and arrow.woken in places:
            arrows += (places[arrow.waker], _micro(arrow.at), places[arrow.woken], _micro(arrow.then))
    return {
        "begin": _micro(trace.begin),
        "end": max(_micro(trace.seconds), _micro(trace.begin) + 1),
        "rows": content,
        "labels": list(labels),
        "arrows": arrows,
        "left_out": len(trace.tasks) - len(drawn),
    }


Segment = tuple[int, int, int, str]


def _segments(trace: Trace, key: Key, row: Row) -> Iterable[Segment]:
    def of(kind: int, slices: Iterable[Slice], label: Any) -> Iterable[tuple[float, Segment]]:
        for one in slices:
            start = _micro(one.start)
            yield one.start, (kind, start, max(1, _micro(one.end) - start), label(one))

    found = [
        *of(STEP, row.steps, lambda one: one.detail),
        *of(WAIT, row.waits, lambda one: f"{one.detail}\n{one.place}"),
        *of(READY, row.ready, lambda one: ""),
        *of(CALLBACK, row.callbacks, lambda one: one.name),
        *of(ASLEEP, row.asleep, lambda one: ""),
    ]
    yield from (segment for _, segment in sorted(found, key=lambda item: item[0]))
    if key[1] == 0:
        for stall in trace.stalls:
            if stall.loop == key[0]:
                label = stall.task or stall.name
                yield STALL, _micro(stall.start), max(1, _micro(stall.length)), label


def shared(counts: Sequence[int]) -> list[int]:
    """How many segments each row may have: rows with few leave their part to the others."""
    most = [0] * len(counts)
    left = MOST_SEGMENTS
    for done, (count, number) in enumerate(sorted((count, number) for number, count in enumerate(counts))):
        most[number] = max(200, min(count, left // (len(counts) - done)))
        left = max(0, left - most[number])
    return most


def merged(segments: list[Segment], most: int) -> list[Segment]:
    """As many segments as may be, those that are too short to be seen put together by their kinds."""
    if len(segments) <= most:
        return segments
    begin, end = segments[0][1], max(start + length for _, start, length, _ in segments)
    # At most three segments a bin, and long ones between bins.
    width = max(1, math.ceil((end - begin) / max(1, most // 5)))
    found: list[Segment] = []
    short: dict[int, list[Segment]] = {}
    for segment in segments:
        if segment[0] == STALL or segment[2] >= width:
            found.append(segment)
        else:
            short.setdefault((segment[1] - begin) // width, []).append(segment)
    for number, together in short.items():
        at = begin + number * width
        for kind in (STEP, READY, CALLBACK, WAIT, ASLEEP):
            own = [segment for segment in together if segment[0] == kind]
            if own:
                length = min(width, max(1, sum(segment[2] for segment in own)))
                found.append((kind, at, length, own[0][3] if len(own) == 1 else f"{len(own)} together"))
                at += length
    return sorted(found, key=lambda segment: (segment[0] == STALL, segment[1]))


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)
