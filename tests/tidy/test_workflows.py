"""The workflows do what the Makefile does, for the Pythons that are supported."""

import re
import shlex
import tomllib

import pytest
from house import ROOT, text_of

yaml = pytest.importorskip("yaml")

WORKFLOWS = sorted(path.name for path in (ROOT / ".github/workflows").glob("*.yml"))
PROJECT = tomllib.loads(text_of("pyproject.toml"))["project"]
PYTHONS = [entry.rpartition(" ")[2] for entry in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", entry)]
RECIPES = dict(re.findall(r"^([a-z]+):(?!=).*\n((?:\t.*\n)*)", text_of("Makefile"), re.MULTILINE))


def jobs(name):
    return yaml.safe_load(text_of(f".github/workflows/{name}"))["jobs"]


def steps(name):
    return [step for job in jobs(name).values() for step in job["steps"]]


def test_both_are_there():
    assert WORKFLOWS == ["ci.yml", "release.yml"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_by_their_major_version(name):
    used = [step["uses"] for step in steps(name) if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@(release/)?v\d+", action)] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_what_is_made_can_be_made(name):
    lines = [line for step in steps(name) for line in step.get("run", "").splitlines()]
    made = [shlex.split(line)[1:] for line in lines if line.startswith("make ")]
    assert made
    for words in made:
        targets = [word for word in words if "=" not in word]
        variables = [word.partition("=")[0] for word in words if "=" in word]
        assert targets
        for target in targets:
            assert target in RECIPES
            for variable in variables:
                assert variable in {"PYTHON", "PROFILE"} or f"$({variable})" in RECIPES[target]
    programs = [line.removeprefix("sudo ").split()[0] for line in lines]
    assert [path for path in programs if path.startswith("tools/") and not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_more_is_allowed_than_needed(name):
    text = yaml.safe_load(text_of(f".github/workflows/{name}"))
    assert text["permissions"] == {"contents": "read"}
    for job, content in text["jobs"].items():
        assert content.get("permissions", {}) in ({}, {"id-token": "write"} if job == "publish" else {})
        assert content.get("timeout-minutes") or job == "publish"


def test_every_supported_python_is_tested_and_built():
    assert PYTHONS == ["3.11", "3.12", "3.13", "3.14", "3.15"]
    assert jobs("ci.yml")["python"]["strategy"]["matrix"]["python"] == PYTHONS
    [build] = [step["run"] for step in steps("release.yml") if step.get("run", "").startswith("make wheels")]
    assert f'VERSIONS="{" ".join(PYTHONS)}"' in build
    [setup] = [step["with"] for step in steps("release.yml") if step.get("uses", "").startswith("actions/setup-python")]
    assert sorted(setup["python-version"].split()) == PYTHONS
    counted = [step["run"] for step in steps("release.yml") if "*.whl" in step.get("run", "")]
    assert counted == [f'test "$(ls target/wheels/*.whl | wc -l)" = {len(PYTHONS)}']


def test_a_release_needs_its_packages():
    assert jobs("release.yml")["publish"]["needs"] == "packages"
    assert jobs("release.yml")["publish"]["if"] == "startsWith(github.ref, 'refs/tags/')"
