"""House rules of the repository as a whole, and of its Python."""

import ast
import re
import subprocess
import sys

import pytest
from house import FILES, PYTHON, ROOT, lines_with, text_of

PACKAGE = [name for name in PYTHON if name.startswith("python/aioxide/")]
BINARY = (".png", ".svg", ".ico", ".lock")


@pytest.mark.parametrize("name", PYTHON)
def test_files_are_short_enough_to_read(name):
    assert len(text_of(name).splitlines()) <= 700


def test_no_path_of_a_machine():
    texts = [name for name in FILES if not name.endswith(BINARY)]
    assert lines_with(r"(?<![\w.}>])/(?:root|home|Users|work)/\w", texts, text_of) == []


def test_nothing_is_left_of_a_merge():
    assert lines_with(r"^(?:<{7}|>{7}) ", [name for name in FILES if not name.endswith(BINARY)], text_of) == []


def test_the_makefile_fits_a_screen_or_two():
    assert len(text_of("Makefile").splitlines()) <= 120


def test_the_code_map_names_every_source_file():
    checked = subprocess.run(
        [sys.executable, ROOT / "tools/code-map", "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", [name for name in PACKAGE if name.endswith(".py")])
def test_private_names_of_asyncio_are_read_in_one_place(name):
    if name.endswith("/_stdlib.py"):
        return
    tree = ast.parse(text_of(name))
    modules = {"asyncio"}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "asyncio":
            modules.update(alias.asname or alias.name for alias in node.names)
            found += [alias.name for alias in node.names if alias.name.startswith("_")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match(r"_(?!_)", node.attr):
            base = node.value
            while isinstance(base, ast.Attribute):
                base = base.value
            if isinstance(base, ast.Name) and base.id in modules:
                found.append(node.attr)
    assert found == []
