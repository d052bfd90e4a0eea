"""`aioxide report`, on traces of programs that the tests know, and on what is no trace."""

import html.parser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import aioxide
import browser
import pytest
from aioxide import _report, _report_page

PROGRAM = """
import asyncio, time

def crunch():
    time.sleep(0.3)  # the line

async def blocker():
    await asyncio.sleep(0.01)
    crunch()

async def worker(queue):
    while True:
        await queue.get()  # the wait
        await asyncio.sleep(0)
        queue.task_done()

async def main():
    asyncio.current_task().set_name("main")
    queue = asyncio.Queue()
    worker_ = asyncio.create_task(worker(queue), name="<script>alert(1)</script>")
    for number in range(20):
        queue.put_nowait(number)
    await queue.join()
    await asyncio.create_task(blocker(), name="the blocker")
    worker_.cancel()
    await asyncio.sleep(0.3)

asyncio.run(main())
"""


def command(*words, cwd):
    package = str(Path(aioxide.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "aioxide", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a trace and its report."""
    place = tmp_path_factory.mktemp("report")
    (place / "app.py").write_text(PROGRAM)
    done = command("--trace", "out.json", "app.py", cwd=place)
    assert done.returncode == 0, done.stderr
    done = command("report", "out.json", "-o", "page.html", cwd=place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "page.html\n", "")
    return place


@pytest.fixture(scope="module")
def page(place):
    return (place / "page.html").read_text()


class _Text(html.parser.HTMLParser):
    """The text of a page by the sections that have an id, and what its tags refer to."""

    VOID = ("meta", "input", "br")

    def __init__(self, page):
        super().__init__()
        self.sections, self.current, self.references, self.open = {}, "", [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "section":
            self.current = attributes.get("id", "share")
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "action", "srcset")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.sections[self.current] = self.sections.get(self.current, "") + data


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_is_whole_and_loads_nothing(page):
    text = _Text(page)
    assert text.open == []
    assert text.references == []
    assert "{{" not in page
    assert not re.search(r"https?://|@import|url\(", page)
    assert "default-src 'none'" in page
    assert "<script>alert" not in page


def test_the_stall_is_named_with_its_line(page, place):
    stalls = _Text(page).sections["stalls"]
    line = next(number for number, line in enumerate(PROGRAM.splitlines(), 1) if "# the line" in line)
    assert "the blocker" in stalls
    assert re.search(rf"crunch\s+\S*app\.py:{line}", stalls)
    assert re.search(r"(?<!\d)[3-9]\d\d ms|\d\.\d\d s", stalls)


def test_where_time_went(page):
    text = _Text(page)
    assert "event loop in MainThread" in text.sections["share"]
    assert re.search(r"tasks \d+\.\d %", text.sections["share"])
    tasks = text.sections["tasks"]
    assert tasks.index("the blocker") < tasks.index("main")
    assert "<script>alert(1)</script>" in tasks
    assert "cancelled" in tasks
    waits = text.sections["waits"]
    line = next(number for number, line in enumerate(PROGRAM.splitlines(), 1) if "# the wait" in line)
    assert re.search(rf"queue worker\s+\S*app\.py:{line}", waits)
    assert "blocker" in text.sections["coroutines"]
    assert re.search(r"main\s*→\s*the blocker\s*1", text.sections["wakers"])
    assert "timer" in text.sections["callbacks"]


def test_the_timeline_is_that_of_the_trace(page, place):
    data, trace = data_of(page), _report.read(str(place / "out.json"))
    rows = {row["name"]: row for row in data["rows"]}
    assert rows.keys() == {"event loop in MainThread", *(task.name for task in trace.tasks.values())}
    blocker = rows["the blocker"]["segments"]
    segments = [tuple(blocker[i : i + 4]) for i in range(0, len(blocker), 4)]
    kinds = [kind for kind, *_ in segments]
    assert kinds == [_report_page.READY, _report_page.STEP, _report_page.WAIT, _report_page.READY, _report_page.STEP]
    assert data["labels"][segments[2][3]].startswith("timer\nblocker  ")
    assert segments[-1][2] > 290_000
    loop = rows["event loop in MainThread"]["segments"]
    assert _report_page.STALL in loop[::4]
    assert len(data["arrows"]) == 4 * len(trace.arrows)
    for i in range(0, len(data["arrows"]), 4):
        waker, at, woken, then = data["arrows"][i : i + 4]
        assert 0 <= waker < len(rows) and 0 <= woken < len(rows) and at <= then


def test_many_events_make_no_large_page(tmp_path):
    segments = [(_report_page.STEP if n % 2 else _report_page.WAIT, 3 * n, 3, str(n)) for n in range(100_000)]
    segments.insert(50_000, (_report_page.STEP, 150_000, 500_000, "long"))
    few = _report_page.merged(segments, 1000)
    assert len(few) < 2000
    assert (_report_page.STEP, 150_000, 500_000, "long") in few
    length = sum(length for kind, _, length, _ in few if kind == _report_page.STEP)
    assert length == pytest.approx(500_000 + 150_000, rel=0.05)
    assert few == sorted(few, key=lambda segment: segment[1])
    assert _report_page.merged(segments[:10], 1000) == segments[:10]


def test_rows_with_little_to_show_leave_room_to_others():
    most = _report_page.MOST_SEGMENTS
    assert _report_page.shared([10, 10 * most, 20]) == [200, most - 400, 200]
    assert _report_page.shared([most, most]) == [most // 2] * 2
    assert _report_page.shared([]) == []


def test_a_trace_that_lost_its_beginning_says_so(tmp_path):
    (tmp_path / "app.py").write_text(
        "import asyncio\nasync def main():\n    for _ in range(3000): await asyncio.sleep(0)\nasyncio.run(main())\n"
    )
    assert command("--trace=out.json", "--trace-limit=0.03", "app.py", cwd=tmp_path).returncode == 0
    done = command("report", "out.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "out.html\n")
    page = (tmp_path / "out.html").read_text()
    assert "were dropped" in page
    assert data_of(page)["begin"] > 0


BAD = {
    "missing": None,
    "empty": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "another's": b'{"traceEvents": [{"ph": "X", "ts": 1}]}',
    "no events": b'{"traceEvents": []}',
    "half": json.dumps(
        {"otherData": {"program": {"aioxide": "1"}, "seconds": 1}, "traceEvents": [{"ph": "X"}]}
    ).encode(),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_trace_is_refused(tmp_path, kind):
    if BAD[kind] is not None:
        (tmp_path / "in.json").write_bytes(BAD[kind])
    done = command("report", "in.json", "-o", "page.html", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("aioxide report: ")
    assert "in.json" in line
    assert not (tmp_path / "page.html").exists()


def test_a_page_that_cannot_be_written(place):
    done = command("report", "out.json", "-o", "no/page.html", cwd=place)
    assert done.returncode == 2
    assert "No such file" in done.stderr and len(done.stderr.splitlines()) == 1
    assert command("report", cwd=place).returncode == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (4e-9, "4 ns"),
        (1.5e-6, "1.50 µs"),
        (0.0123, "12.3 ms"),
        (0.9999, "1,000 ms"),
        (75.4, "75.4 s"),
        (1234.5, "1,234 s"),
    ],
)
def test_spans(seconds, text):
    assert _report_page.span(seconds) == text


@browser.needed
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_in_a_browser(place, tmp_path, dark):
    with browser.Browser(dark=dark) as seen:
        seen.open((place / "page.html").as_uri())
        assert "The longest stalls" in seen.text()
        ground = seen.run("getComputedStyle(document.body).backgroundColor")
        light = [int(part) for part in re.findall(r"\d+", ground)]
        assert (sum(light[:3]) < 300) == dark
        # The picture has the colours of what happened.
        colours = """(() => {
            const sheet = document.getElementById("sheet"), found = {};
            const points = sheet.getContext("2d").getImageData(0, 0, sheet.width, sheet.height).data;
            for (let i = 0; i < points.length; i += 4) {
                const colour = `#${[0, 1, 2].map((n) => points[i + n].toString(16).padStart(2, "0")).join("")}`;
                found[colour] = (found[colour] || 0) + 1;
            }
            const style = getComputedStyle(document.documentElement);
            const of = (name) => found[style.getPropertyValue("--" + name).trim()] || 0;
            return [of("step"), of("wait"), of("stall"), of("step") / sheet.width];
        })()"""
        step, wait, stall, share = seen.run(colours)
        assert step > 1000 and wait > 100 and stall > 100
        # Nearer to the stall, it fills more of the picture.
        seen.run("document.querySelector('button[data-from]').click()")
        seen.until(f"({colours})[3] !== {share}")
        seen.run("document.getElementById('whole').click()")
        seen.until(f"Math.abs(({colours})[3] - {share}) < 0.01")
        # Pointing at the stalled step says what it was.
        says = """(() => {
            const sheet = document.getElementById("sheet"), box = sheet.getBoundingClientRect();
            const tip = document.getElementById("tip");
            for (let y = 30; y < box.height; y += 10) {
                const at = { clientX: box.left + box.width * 0.4, clientY: box.top + y, bubbles: true };
                sheet.dispatchEvent(new PointerEvent("pointermove", at));
                if (tip.style.display === "block" && tip.textContent.startsWith("the blocker")) return tip.textContent;
            }
        })()"""
        assert re.match(r"the blocker\nruns, returned\n\d+ ms, from ", seen.run(says))
        seen.screenshot(tmp_path / "page.png")
        assert [one for one in seen.complaints() if "willReadFrequently" not in str(one)] == []  # our own look
        assert [url for url in seen.requests() if not url.startswith("file:")] == []
