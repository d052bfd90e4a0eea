"""Examples that need a server: examples/service.py and the recipes of asyncpg and redis, with real ones."""

import contextlib
import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 90

spec = importlib.util.spec_from_file_location("services", ROOT / "tests" / "ecosystem" / "services.py")
services = importlib.util.module_from_spec(spec)
spec.loader.exec_module(services)


def need(*packages):
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.fixture(scope="module")
def database():
    """The address of an empty database."""
    need("asyncpg")
    with tempfile.TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as home:
        os.chmod(home, 0o755)  # for the user that PostgreSQL runs as
        home = pathlib.Path(home)
        try:
            stack = contextlib.ExitStack()
            variables, _ = stack.enter_context(services.running(["postgresql"], home))
        except services.Missing as missing:
            pytest.skip(f"not here: {missing}")
        with stack:
            programs = pathlib.Path(variables["PGINSTALLATION"])
            data = home / "data"
            data.mkdir()
            made = subprocess.run(
                [programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync"],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert made.returncode == 0, made.stdout + made.stderr
            port = free_port()
            options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off".split()
            with open(home / "log", "wb") as log:
                server = subprocess.Popen([programs / "postgres", "-D", data, *options], stdout=log, stderr=log)
            try:
                services.wait_for(port, server)
                yield f"postgresql://tester@127.0.0.1:{port}/postgres"
            finally:
                server.send_signal(signal.SIGINT)
                server.wait(PATIENCE)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


WAYS = {
    "aioxide's loop": ["-m", "uvicorn", "--loop", "aioxide:new_event_loop"],
    "all of aioxide": ["-m", "aioxide", "-m", "uvicorn", "--loop", "none"],
}


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
def service(request, database):
    need("fastapi", "uvicorn")
    port = free_port()
    words = [sys.executable, *request.param, "--port", str(port), "service:app"]
    environment = {**os.environ, "DATABASE_URL": database, "PYTHONPATH": ""}
    process = subprocess.Popen(
        words, cwd=ROOT / "examples", env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE)
        assert "Application shutdown complete" in said, said
    finally:
        process.kill()
        process.communicate()


def ask(method, address, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_more_buyers_than_stock(service):
    assert ask("PUT", f"{service}/items/lamp", {"name": "lamp", "stock": 20}) == (201, {"name": "lamp", "stock": 20})
    with ThreadPoolExecutor(16) as buyers:
        found = list(buyers.map(lambda _: ask("POST", f"{service}/items/lamp/sell"), range(50)))
    assert sorted(answer["stock"] for status, answer in found if status == 200) == list(range(20))
    assert [answer for status, answer in found if status != 200] == [{"detail": "sold out"}] * 30
    assert ask("GET", f"{service}/items") == (200, [{"name": "lamp", "stock": 0}])


def test_what_is_not_there_and_what_is_not_allowed(service):
    assert ask("POST", f"{service}/items/chair/sell") == (404, {"detail": "no such item"})
    status, answer = ask("PUT", f"{service}/items/chair", {"name": "chair", "stock": -1})
    assert status == 422
    assert answer["detail"][0]["loc"] == ["body", "stock"]


def recipe(name, **variables):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "recipes" / name],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_asyncpg(database):
    assert recipe("asyncpg_pool.py", DATABASE_URL=database) == "aioxide.EventLoop [0, 1, 4, 9, 16]\n"


def test_redis(tmp_path):
    need("redis")
    try:
        with services.running(["redis"], tmp_path) as (_, words):
            assert recipe("redis_client.py", REDIS_URL=words["redis"]) == "aioxide.EventLoop 50 ['a', 'b', 'c']\n"
    except services.Missing as missing:
        pytest.skip(f"not here: {missing}")
