"""The harness itself: what it finds, what it finds again, and what survives a crash."""

import collections
import pathlib
import sys

import pytest
import run
from project import Project
from session import Session

INSIDE = pathlib.Path(__file__).resolve().parent / "inside"
SUITE = """
import os, signal, time
import pytest

def test_good():
    pass

@pytest.mark.parametrize("word", ["a", "b"])
def test_word(word):
    assert word == "a"

def test_crash():
    os.kill(os.getpid(), signal.SIGKILL)

@pytest.fixture
def endless():
    yield
    time.sleep(60)

def test_failed_and_hung(endless):
    assert False

def test_after():
    pass
"""


@pytest.fixture(params=["path", "module"])
def suite(request, tmp_path):
    """A project whose arguments name its tests as a directory, or as a package that is installed."""
    project = Project("suite", "1", minutes=2, arguments=["tests"], patience=5)
    project.place(tmp_path)
    project.python = pathlib.Path(sys.executable)
    project.source.mkdir(parents=True)
    directory = project.source / "tests"
    if request.param == "module":
        project.arguments = ["--pyargs", "suite.tests"]
        directory = tmp_path / "installed" / "suite" / "tests"
    directory.mkdir(parents=True)
    (directory / "test_it.py").write_text(SUITE)
    if request.param == "module":
        for package in (directory.parent, directory):
            (package / "__init__.py").touch()
    variables = {"PYTHONPATH": f"{tmp_path / 'installed'}:{INSIDE}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return lambda tests=None: Session(project, "stock", variables, {}).run(tests)


def by_function(session):
    return {test.rpartition("::")[2]: row["status"] for test, row in session.results.items()}


def test_a_crash_costs_one_test_and_one_is_found_again(suite):
    session = suite()
    assert by_function(session) == {
        "test_good": "pass",
        "test_word[a]": "pass",
        "test_word[b]": "fail",
        "test_crash": "crash",
        "test_failed_and_hung": "hang",
        "test_after": "pass",
    }
    assert session.trouble == []
    (name,) = [test for test in session.results if test.endswith("test_word[a]")]
    again = suite([name])
    assert {test: row["status"] for test, row in again.results.items()} == {name: "pass"}


def test_what_is_not_found_again_is_not_luck():
    nothing = collections.namedtuple("Nothing", "results")({})
    assert run.tried_again(lambda loop, tests: nothing, "tests/test_it.py::test_gone") is None


@pytest.mark.parametrize(
    ("test", "passed_here", "same"),
    [
        ("t.py::test[<object at 0x1>]", ["t.py::test[<object at 0x2>]"], True),
        ("t.py::test[<object at 0x1>]", [], False),
        ("t.py::test[<object at 0x1>]", ["t.py::test_other[<object at 0x2>]"], False),
        ("t.py::test", ["t.py::test_other"], False),
    ],
)
def test_another_name(test, passed_here, same):
    session = collections.namedtuple("Fake", "results")
    stock = session({test: {"status": "pass"}})
    here = session({name: {"status": "pass"} for name in passed_here})
    assert run.goes_by_another_name(test, stock, here) is same


def test_reasons_name_tests_with_brackets():
    rows = [{"tests": ["t.py::*::test[a-*]"], "reason": "because"}]
    assert run.matching("t.py::Case::test[a-b]", rows) is rows[0]
    assert run.matching("t.py::Case::test[b-a]", rows) is None


def test_every_reason_is_for_a_project():
    projects, reasons = run.read_projects()
    assert set(reasons) <= set(projects)
