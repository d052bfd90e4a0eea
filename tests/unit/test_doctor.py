"""`aioxide doctor` says what is true here, and knows trouble when it sees it."""

import copy
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import aioxide
import pytest
from aioxide import _doctor, _machine


def doctor(*arguments, options=(), before=None, **variables):
    environment = {**os.environ, "PYTHONPATH": str(Path(aioxide.__file__).parent.parent), **variables}
    command = [sys.executable, *options, "-m", "aioxide", "doctor", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False, preexec_fn=before
    )


@pytest.fixture(scope="module")
def report():
    found = doctor("--json")
    assert (found.returncode, found.stderr) == (0, "")
    return json.loads(found.stdout)


def test_what_it_says_is_so(report):
    assert report["aioxide"]["version"] == aioxide.__version__
    assert report["python"]["version"] == platform.python_version()
    assert report["python"]["debug_build"] == hasattr(sys, "gettotalrefcount")
    assert report["kernel"]["release"] == os.uname().release
    assert report["machine"]["usable_processors"] == len(os.sched_getaffinity(0))
    if hasattr(os, "pidfd_open"):
        os.close(os.pidfd_open(os.getpid()))  # or this raises, and so does the kernel for us
        assert report["kernel"]["calls"]["pidfd_open"] is None
    assert 0 < report["machine"]["clock_seconds"] < 1e-3
    assert 0 < report["machine"]["call_seconds"] < 1e-3


def test_everything_works_here(report):
    assert {check["name"] for check in report["checks"]} == set(_doctor.CHECKS)
    assert [check for check in report["checks"] if check["error"] is not None] == []


def test_the_report_for_people_says_the_same(report):
    found = doctor()
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert lines[0].startswith(f"aioxide {aioxide.__version__} ({report['aioxide']['profile']} build)")
    for name in _doctor.CHECKS:
        assert any(line.startswith(f"  {name} ") and "works" in line for line in lines), name
    for finding in report["findings"]:
        if not any(map(str.isdigit, finding["what"])):  # figures are others each time
            assert f"{finding['kind']}: {finding['what']}" in lines


@pytest.mark.parametrize(
    ("options", "variables", "word"),
    [
        (["-X", "dev"], {}, "development mode"),
        ([], {"PYTHONASYNCIODEBUG": "1"}, "debug mode"),
        ([], {"PYTHONMALLOC": "malloc"}, "PYTHONMALLOC=malloc"),
        ([], {"PYTHONTRACEMALLOC": "1"}, "allocation is recorded"),
    ],
)
def test_what_slows_python_down(options, variables, word):
    clean = {"PYTHONASYNCIODEBUG": "", "PYTHONMALLOC": "", "PYTHONDEVMODE": "", "PYTHONTRACEMALLOC": ""}
    found = json.loads(doctor("--json", options=options, **{**clean, **variables}).stdout)
    assert [finding["kind"] for finding in found["findings"] if word in finding["what"]] == ["slow"]


def test_few_descriptors():
    import resource

    def lower():
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    found = json.loads(doctor("--json", before=lower).stdout)
    assert [finding["kind"] for finding in found["findings"] if "300 open descriptors" in finding["what"]] == ["limit"]


@pytest.fixture
def fine(report):
    """A machine without trouble."""
    facts = copy.deepcopy(report)
    facts["aioxide"]["profile"] = "release"
    facts["python"].update(
        debug_build=False, optimised=True, free_threaded_build=False, dev_mode=False, asyncio_debug=False
    )
    facts["python"].update(malloc=None, tracemalloc=False, traced_by=None)
    facts["kernel"].update(calls=dict.fromkeys(facts["kernel"]["calls"]), descriptors=None, listen_backlog=4096)
    facts["machine"].update(usable_processors=4, processor_share=None, load=0.5, governor="performance")
    facts["machine"].update(clock_source="tsc", clock_seconds=50e-9, call_seconds=100e-9)
    facts["libraries"] = {"uvicorn": "1"}
    return facts


def test_no_news_is_good_news(fine):
    assert list(_doctor.judge(fine)) == []
    assert list(_doctor.describe(fine, [], []))[-1] == "Nothing stands in its way here."


@pytest.mark.parametrize(
    ("part", "name", "value", "kind", "word"),
    [
        ("kernel", "pidfd_open", "Function not implemented", "broken", "subprocesses"),
        ("kernel", "waitid_pidfd", "Invalid argument", "broken", "subprocesses"),
        ("kernel", "eventfd", "Operation not permitted", "broken", "no loop"),
        ("kernel", "epoll_pwait2", "Function not implemented", "slow", "timers are late"),
        ("kernel", "recvmmsg", "Operation not permitted", "slow", "datagrams"),
        ("kernel", "descriptors", 1024, "limit", "1024 open descriptors"),
        ("kernel", "listen_backlog", 128, "limit", "at most 128 connections"),
        ("aioxide", "profile", "dev", "slow", "profile 'dev'"),
        ("python", "debug_build", True, "slow", "debug build"),
        ("python", "optimised", False, "note", "profile-guided"),
        ("python", "free_threaded_build", True, "note", "GIL"),
        ("python", "implementation", "PyPy", "broken", "PyPy"),
        ("python", "traced_by", "coverage", "slow", "reported to coverage"),
        ("machine", "clock_source", "hpet", "slow", "the clock is hpet"),
        ("machine", "clock_seconds", 1e-6, "slow", "1.0 µs"),
        ("machine", "call_seconds", 3e-6, "slow", "a system call takes 3.0 µs"),
        ("machine", "governor", "powersave", "slow", "lowest frequency"),
        ("machine", "processor_share", 0.5, "limit", "0.5 of 4 processors"),
        ("machine", "load", 7.0, "slow", "7.0 processes for 4"),
        ("libraries", "uvloop", "0.22", "note", "uvicorn prefers uvloop"),
    ],
)
def test_trouble_is_found(fine, part, name, value, kind, word):
    facts = fine[part]["calls"] if name in fine[part].get("calls", ()) else fine[part]
    facts[name] = value
    if name == "governor":
        facts["frequency_driver"] = "acpi-cpufreq"
    [finding] = _doctor.judge(fine)
    assert finding.kind == kind
    assert word in finding.what
    assert finding.advice


def test_what_does_not_work_is_reported(monkeypatch, capsys):
    async def broken():
        raise OSError("the cable is out")

    async def slow():
        await aioxide.sleep(60)

    monkeypatch.setattr(_doctor, "CHECKS", {"the network": broken, "the mail": slow})
    monkeypatch.setattr(_doctor, "PATIENCE", 0.01)
    assert _doctor.main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert "  the network  FAILS: OSError: the cable is out\n" in output
    assert "  the mail     FAILS: did not end within" in output


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (0.0042, "4.2 ms"), (5e-6, "5.0 µs"), (4.4e-8, "44 ns")]
)
def test_lengths_of_time(seconds, text):
    assert _doctor._short(seconds) == text


def test_a_limit_of_the_control_group(monkeypatch):
    files = {"/proc/self/cgroup": "0::/app", "/sys/fs/cgroup/app/cpu.max": "50000 100000"}
    monkeypatch.setattr(_machine, "_text", files.get)
    assert _machine._quota() == 0.5
    files["/sys/fs/cgroup/app/cpu.max"] = "max 100000"
    assert _machine._quota() is None
