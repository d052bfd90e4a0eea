"""Every block of code in the README and the docs is run."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What these do is the business of other tests: they build, or take as long as a test run of their own.
INCLUDED = '--8<-- "examples/'
ELSEWHERE = ("make ", "pip install ", "docker ")


def blocks(*languages):
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            if match[1] in languages and not match[2].startswith(INCLUDED):
                line = text.count("\n", 0, match.start()) + 1
                yield pytest.param(match[2], id=f"{page.name}:{line}")


def test_every_block_says_what_it_is():
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)
        assert len(fences) % 2 == 0, page
        for language in fences[::2]:
            assert language.split(" ")[0] in {"python", "sh", "text", "json"}, (page, language)


@pytest.fixture
def place(tmp_path):
    """A directory as a user would have it: a program and a package."""
    (tmp_path / "app.py").write_text("import asyncio\nasyncio.run(asyncio.sleep(0.01))\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text("import asyncio\nasyncio.run(asyncio.sleep(0))\n")
    (tmp_path / "package" / "__init__.py").touch()
    return tmp_path


def run(command, place, seconds=60):
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("code", list(blocks("python")))
def test_python(code, place):
    (place / "block.py").write_text(code)
    run([sys.executable, "block.py"], place)


@pytest.mark.parametrize("commands", list(blocks("sh")))
def test_shell(commands, place):
    for line in commands.splitlines():
        words = shlex.split(line, comments=True)
        if words and not line.startswith(ELSEWHERE):
            run(words, place)
