"""The reference has every public name, as it can be called."""

import ast
import inspect
import pathlib
import re
import sys
import types
import warnings

import aioxide
import pytest

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
STUBS = sorted(path for path in (DOCS / "api").glob("*.pyi") if path.stem != "__init__")
OWN = set(re.findall(r"^::: aioxide\.(?:_pools\.)?([\w.]+)", (DOCS / "reference.md").read_text(), re.MULTILINE))
OWN.add("tasks")  # aioxide.inspect.tasks by a shorter name


def definitions(body):
    """What a stub defines: functions, classes and typed names."""
    found = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            found[node.target.id] = node
    return found


TREES = {path.stem: ast.parse(path.read_text()) for path in STUBS}
NAMES = {name: node for tree in TREES.values() for name, node in definitions(tree.body).items()}
MEMBERS = [
    pytest.param(owner, name, node, id=f"{owner}.{name}" if owner else name)
    for owner, nodes in [
        (None, NAMES),
        *((name, definitions(node.body)) for name, node in NAMES.items() if isinstance(node, ast.ClassDef)),
    ]
    for name, node in nodes.items()
]


def look_up(place, name):
    """An attribute, if this Python has it. Some are deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return getattr(place, name, None)


def test_every_name_is_there():
    public = {name for name in aioxide.__all__ if not name.startswith("_")}
    assert sorted(public - NAMES.keys() - OWN) == []


def test_every_page_shows_its_stub():
    pages = {path.stem: path.read_text() for path in (DOCS / "reference").glob("*.md")}
    assert pages.keys() == TREES.keys()
    site = (DOCS.parent / "mkdocs.yml").read_text()
    for name, page in pages.items():
        assert f"::: api.{name}\n" in page
        assert f"reference/{name}.md" in site


@pytest.mark.parametrize("name", [name for name, node in NAMES.items() if isinstance(node, ast.ClassDef)])
def test_every_method_is_there(name):
    real = look_up(aioxide, name)
    documented = inherited(name)
    if real is None or documented <= {"__init__"}:
        return  # not on this Python; or not described further than by its name
    public = {
        attribute
        for attribute in dir(real)
        if not attribute.startswith("_") and not hasattr(getattr(real, attribute), "mro")
    }
    if issubclass(real, BaseException):
        public -= set(dir(BaseException)) | set(dir(OSError))
    assert sorted(public - documented) == []


def inherited(name):
    node = NAMES.get(name)
    if node is None:
        return set()
    found = set(definitions(node.body))
    for base in node.bases:
        base = base.value if isinstance(base, ast.Subscript) else base
        found |= inherited(ast.unparse(base).strip("\"'"))
    return found


@pytest.mark.parametrize(("owner", "name", "node"), MEMBERS)
def test_a_name_is_as_it_is_described(owner, name, node):
    place = aioxide if owner is None else look_up(aioxide, owner)
    real = look_up(place, name)
    if real is None:
        # What only some Pythons have, and attributes that instances have.
        later = name in {"FutureCallGraph", "FrameCallGraphEntry"} or "call_graph" in name or "awaited_by" in name
        sooner = "Policy" in name or "policy" in name or "Watcher" in name or "watcher" in name
        assert place is None or later or sooner or isinstance(node, ast.AnnAssign)
        return
    if isinstance(node, ast.AnnAssign):
        return
    if isinstance(node, ast.ClassDef):
        assert isinstance(real, type)
        return
    if any(ast.unparse(decorator) == "property" for decorator in node.decorator_list):
        assert not isinstance(real, types.FunctionType)
        return
    if isinstance(real, types.GetSetDescriptorType):
        return  # what each instance borrows from its lock
    assert callable(real)
    try:
        found = inspect.signature(place if name == "__init__" else real)
    except (TypeError, ValueError):
        return
    actual = [parameter for parameter in found.parameters.values() if parameter.name not in ("self", "cls")]
    there = [(one.name, kind(one), one.default is not one.empty) for one in actual]
    expected = described(node.args)
    if there and there[-1][1] == "VAR_KEYWORD" and expected[-1][1] != "VAR_KEYWORD":
        # Passed on by name: spelt out here, as the callee takes it.
        names = {one[0] for one in there}
        expected = [one for one in expected if one[1] != "KEYWORD_ONLY" or one[0] in names]
        del there[-1]
    if sys.version_info < (3, 14) and "eager_start" not in (names := {one[0] for one in there}):
        expected = [one for one in expected if one[0] in names]
    assert expected == there


def kind(parameter):
    # Whether it can be given by its name as well is not what a reader looks for.
    return "positional" if parameter.kind <= 1 else parameter.kind.name


def described(arguments):
    """Name, kind, and whether it may be left out, of each parameter of a stub."""
    positional = [*arguments.posonlyargs, *arguments.args]
    left_out = [False] * (len(positional) - len(arguments.defaults)) + [True] * len(arguments.defaults)
    found = [(one.arg, "positional", optional) for one, optional in zip(positional, left_out, strict=True)]
    if arguments.vararg:
        found.append((arguments.vararg.arg, "VAR_POSITIONAL", False))
    found += [
        (one.arg, "KEYWORD_ONLY", default is not None)
        for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    if arguments.kwarg:
        found.append((arguments.kwarg.arg, "VAR_KEYWORD", False))
    return [one for one in found if one[0] != "self"]
