"""Each example runs as its own text says, on aioxide, and says that it went well."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def run(name, *arguments, needs=(), seconds=240):
    for package in needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    command = [sys.executable, "-m", "aioxide", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_downloads():
    assert run("downloads.py", needs=["aiohttp", "rich"]).endswith("failed: 0\n")


def test_chat():
    assert "20 people heard 2000 messages" in run("chat.py", needs=["websockets"])


def test_pipeline():
    output = run("pipeline.py", "--seconds", "0.3").split()
    assert output[0] == output[3]
    assert int(output[0]) > 50


def test_children():
    assert run("children.py").splitlines()[-1] == "40 0 780"


def test_children_of_any_command():
    command = [sys.executable, "-m", "aioxide", str(EXAMPLES / "children.py"), "--", "echo", "said:"]
    done = subprocess.run(command, input="a\nb\n", capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "a 0 said: a\nb 0 said: b\n"


def test_cpu_work_on_processes():
    assert run("cpu_work.py") == "17984 primes below 200000\n"


def test_cpu_work_on_dask():
    assert run("cpu_work.py", "--dask", needs=["distributed"]) == "17984 primes below 200000\n"
