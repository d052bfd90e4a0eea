"""Servers that a project's tests talk to: a real PostgreSQL, a real Redis."""

import contextlib
import glob
import os
import pathlib
import pwd
import shutil
import socket
import stat
import subprocess
import tempfile
import time


class Missing(Exception):
    """A server that this machine does not have."""


@contextlib.contextmanager
def running(names, home):
    """Start these servers; give variables for the tests' environment and words for their arguments."""
    with contextlib.ExitStack() as stack:
        variables, words = {}, {}
        for name in names:
            more_variables, more_words = stack.enter_context(SERVICES[name](home))
            variables |= more_variables
            words |= more_words
        yield variables, words


@contextlib.contextmanager
def postgresql(home):
    """asyncpg's tests start clusters themselves: show them PostgreSQL's programs.

    PostgreSQL refuses to work for root. Then the programs are scripts that change to its user.
    """
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
    programs = os.path.dirname(found[-1]) if found else None
    if programs is None:
        on_path = shutil.which("initdb")
        if on_path is None:
            raise Missing("PostgreSQL's initdb (on Debian: apt-get install postgresql)")
        programs = os.path.dirname(os.path.realpath(on_path))
    if os.geteuid() != 0:
        yield {"PGINSTALLATION": programs}, {}
        return
    try:
        user = pwd.getpwnam("postgres").pw_name
    except KeyError:
        user = "nobody"
    scripts = home / "postgresql"
    shutil.rmtree(scripts, ignore_errors=True)
    scripts.mkdir()
    for program in os.listdir(programs):
        script = scripts / program
        script.write_text(AS_USER.format(user=user, program=f"{programs}/{program}"))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    yield {"PGINSTALLATION": str(scripts)}, {}


# Hands the directories that are named over to the user, and all that root has written into them.
AS_USER = """#!/bin/sh
previous=
for word; do
    case "$previous" in -D | --pgdata) directory=$word ;; esac
    case "$word" in --pgdata=*) directory=${{word#--pgdata=}} ;; esac
    previous=$word
done
[ -d "${{directory:-}}" ] && chown -R {user} "$directory"
cd /
exec setpriv --reuid={user} --regid=$(id -g {user}) --clear-groups {program} "$@"
"""


@contextlib.contextmanager
def redis(home):
    program = shutil.which("redis-server")
    if program is None:
        raise Missing("redis-server (on Debian: apt-get install redis-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", ""]
        command += ["--enable-debug-command", "yes", "--enable-module-command", "yes"]
        with open(pathlib.Path(home) / "redis.log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(port, process)
            yield {}, {"redis": f"redis://127.0.0.1:{port}/0"}
        finally:
            process.terminate()
            process.wait()


def wait_for(port, process):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server does not start")


SERVICES = {"postgresql": postgresql, "redis": redis}
