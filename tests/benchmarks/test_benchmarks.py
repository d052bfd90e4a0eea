"""The benchmarks do what they say they measure, and the figures end up where they belong."""

import importlib.util
import json
import pathlib
import subprocess
import sys
import xml.etree.ElementTree

import pytest

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"


def load(name):
    """A module of the benchmarks, which import each other by plain names."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


bench, measure, plots, report = load("bench"), load("measure"), load("plots"), load("report")
SMALL = measure.Settings(scale=0.001, repeats=1, seconds=0.05)
LOOPS = ["asyncio", "aioxide"]


def test_what_looking_costs():
    command = [sys.executable, BENCHMARKS / "looking.py", "--pairs", "1", "--only", "metrics"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    head, _, row = done.stdout.splitlines()
    costs = [float(cell.rstrip("% ")) for cell in row.split("|")[2:-1]]
    assert len(costs) == head.count("|") - 2 == 3
    assert max(costs) < 1000


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", list(measure.registry()))
def test_each_workload_does_its_work(name, loop):
    package = measure.needed_package(name)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    if name == "scheduling/eager10k" and loop == "asyncio" and sys.version_info < (3, 12):
        pytest.skip("asyncio has no eager tasks here")
    if name == "memory/tasks" or name == "memory/timers":
        assert 20 < measure.registry()[name](loop, SMALL) < 10_000
        return
    assert measure.registry()[name](loop, SMALL) > 0


@pytest.mark.parametrize("kind", ["protocol", "udp", "unix", "aiohttp"])
def test_the_limit_in_c(kind):
    if measure.c_server() is None:
        pytest.skip("no C compiler")
    assert measure.asked(kind, 1024, 16, "C", SMALL) > 0


def test_a_wrong_answer_does_not_count(monkeypatch):
    monkeypatch.setattr(measure, "FILE", 2**16)
    real = pathlib.Path.read_bytes
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda path: real(path)[::-1])
    with pytest.raises(measure.Failed, match="wrong answer"):
        measure.asked("sendfile", 0, 1, "asyncio", SMALL)


def test_a_server_that_dies_is_a_failure_with_its_last_words():
    with pytest.raises(measure.Failed, match="KeyError: 'no such kind'"):
        measure.Server("asyncio", "no such kind")


def figures(aioxide=50.0):
    costs = {
        "scheduling/a": {"asyncio": [100.0, 200.0, 100.0], "aioxide": [aioxide, 50.0, 20.0]},
        "scheduling/b": {"asyncio": [100.0], "aioxide": [None]},
        "memory/c": {"asyncio": [900.0], "aioxide": [100.0]},
    }
    about = {"date": "2026-01-02", "python": "3.14.0", "system": "Linux 6", "cores": 2, "processor": "x", "rounds": 3}
    about |= {"how": "", "versions": {"asyncio": "", "aioxide": "0.1.0"}}
    return {"about": about, "loops": LOOPS, "costs": costs, "failures": {"scheduling/b": {"aioxide": "SIGSEGV"}}}


def test_ratios_are_taken_within_a_round():
    assert report.ratio(figures()["costs"]["scheduling/a"], "asyncio", "aioxide") == (4.0, 2.0, 5.0)
    assert report.ratio(figures()["costs"]["scheduling/b"], "asyncio", "aioxide") is None


def test_a_mean_says_what_is_missing_in_it():
    assert report.means(figures())["scheduling"]["aioxide"] == (pytest.approx(4.0), 1)
    text = report.text(figures())
    assert "4.00 (1 failed)" in text
    assert "- `scheduling/b` on aioxide: SIGSEGV" in text
    assert "| `c` | 900 B | 100 B | 9.00 |" in text


def test_the_measured_part_of_the_page_is_replaced_and_nothing_else():
    page = f"before\n{report.START}\nold\n{report.END}\nafter\n"
    once = report.splice(page, "new \\1\n")
    assert once == f"before\n{report.START}\n\nnew \\1\n\n{report.END}\nafter\n"
    assert report.splice(once, "new \\1\n") == once
    with pytest.raises(ValueError, match="0 measured parts"):
        report.splice("no marks", "new")


@pytest.mark.parametrize("draw", [plots.summary, plots.workloads])
def test_pictures_are_well_formed(draw):
    picture = xml.etree.ElementTree.fromstring(draw(figures()))
    said = " ".join(picture.itertext())
    assert "aioxide" in said
    assert "prefers-color-scheme: dark" in said


def test_new_figures_replace_old_ones_workload_by_workload():
    before, now = figures(), figures(aioxide=25.0)
    name = "scheduling/task_switch"
    before["costs"] = {name: before["costs"]["scheduling/a"], "start/run": {"asyncio": [1.0]}}
    now["costs"] = {name: now["costs"]["scheduling/a"]}
    before["failures"], now["failures"] = {name: {"aioxide": "was broken", "asyncio": "too"}}, {}
    found = bench.merged(now, before)
    assert found["costs"] == {name: now["costs"][name], "start/run": {"asyncio": [1.0]}}
    assert found["failures"] == {}


def test_the_tree_holds_what_the_figures_say():
    """The page and the pictures are made from the figures; change those by measuring."""
    kept = json.loads((BENCHMARKS / "figures.json").read_text())
    page = (BENCHMARKS / "README.md").read_text()
    assert report.splice(page, report.text(kept)) == page
    images = BENCHMARKS.parent / "docs" / "images"
    assert (images / "speed.svg").read_text() == plots.summary(kept)
    assert (images / "workloads.svg").read_text() == plots.workloads(kept)


def test_bad_usage_is_told():
    for words, said in ((["--only", "nothing"], "no workload"), (["--loops", "mine"], "not a loop")):
        done = subprocess.run(
            [sys.executable, BENCHMARKS / "bench.py", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith(said)
