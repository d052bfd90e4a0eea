"""What people will paste, run as they would run it: examples/recipes.

`make examples` installs what the recipes are about, and then none may be skipped.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest

RECIPES = pathlib.Path(__file__).resolve().parents[2] / "examples" / "recipes"
LOOP = "aioxide.EventLoop"
PATIENCE = 90


def is_here(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


@pytest.fixture(autouse=True)
def packages(request):
    """Skip what needs a package that is not here."""
    for mark in request.node.iter_markers("needs"):
        missing = [name for name in mark.args if not is_here(name)]
        if missing and not os.environ.get("ALL_RECIPES"):
            pytest.skip(f"no {', '.join(missing)} here")
        assert not missing


def command(*words, cwd=RECIPES, **variables):
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def served(*words):
    """Run a server; gives the address that it announces. It is to end on SIGINT."""
    process = subprocess.Popen(
        [sys.executable, *words], cwd=RECIPES, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"https?://127\.0\.0\.1:\d+", line):
                yield found[0]
                break
        else:
            pytest.fail("".join(said))
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait() in (0, -signal.SIGINT, 130), "".join(said) + rest
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def get(address):
    with urllib.request.urlopen(address, timeout=PATIENCE) as response:
        return response.read().decode()


@pytest.mark.needs("uvicorn")
def test_uvicorn():
    with served("-m", "uvicorn", "--loop", "aioxide:new_event_loop", "--port", "0", "asgi_app:app") as address:
        assert get(address) == LOOP


@pytest.mark.needs("hypercorn")
@pytest.mark.parametrize(
    "words",
    [
        ("-m", "aioxide", "-m", "hypercorn", "--workers", "0", "--bind", "127.0.0.1:0", "asgi_app:app"),
        ("asgi_app.py", "127.0.0.1:0"),
    ],
    ids=["command", "program"],
)
def test_hypercorn(words):
    with served(*words) as address:
        assert get(address) == LOOP


@pytest.mark.needs("aiohttp")
def test_aiohttp():
    assert command("aiohttp_server.py", "--ask") == f"200 {LOOP}\n"


@pytest.mark.needs("httpx")
def test_httpx():
    assert command("httpx_client.py") == f"{LOOP} ['/0', '/1', '/2', '/3', '/4']\n"


@pytest.mark.needs("anyio")
def test_anyio():
    assert command("anyio_program.py") == f"{LOOP} [0, 1, 2]\n"


@pytest.mark.needs("opentelemetry.sdk")
def test_opentelemetry():
    said = dict(line.rsplit(" ", 1) for line in command("opentelemetry_metrics.py").splitlines())
    assert float(said["aioxide.tasks_made"]) == 11
    assert float(said["aioxide.iterations"]) > 0
    assert 0 < float(said["aioxide.callback p50"]) <= float(said["aioxide.callback p99"])


@pytest.mark.parametrize(
    "directory",
    [
        pytest.param("anyio_pytest", marks=pytest.mark.needs("anyio")),
        pytest.param("pytest_asyncio", marks=pytest.mark.needs("pytest_asyncio")),
    ],
)
def test_pytest_plugins(directory, tmp_path):
    shutil.copytree(RECIPES / directory, tmp_path / directory)
    said = command("-m", "pytest", "-q", "-p", "no:cacheprovider", directory, cwd=tmp_path)
    assert "1 passed" in said


@pytest.mark.needs("ipykernel", "nbclient")
def test_jupyter(tmp_path):
    kernel = tmp_path / "kernels" / "aioxide" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    shutil.copy(RECIPES / "jupyter" / "kernel.json", kernel)
    shutil.copy(RECIPES / "jupyter" / "notebook.ipynb", tmp_path)
    command(
        *("-m", "jupyter", "execute", "--inplace", "--kernel_name=aioxide", "notebook.ipynb"),
        cwd=tmp_path,
        JUPYTER_PATH=str(tmp_path),
        HOME=str(tmp_path),
        PATH=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    cells = json.loads((tmp_path / "notebook.ipynb").read_text())["cells"]
    results = ["".join(cell["outputs"][0]["data"]["text/plain"]) for cell in cells if cell["cell_type"] == "code"]
    assert results == [LOOP, "[0, 1, 2]"]
