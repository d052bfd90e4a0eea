"""Every name of asyncio is there, and can be called as asyncio's."""

import ast
import asyncio
import inspect

import aioxide
import pytest
from aioxide import _core, _names, _stdlib
from house import text_of

# asyncio's classes are compared as programs can see them: what is there before anything is installed.
NAMES = sorted(asyncio.__all__)
MADE_BY_LOOPS = {"Server"}  # whose constructors are not for programs
CLASSES = [name for name in NAMES if isinstance(getattr(asyncio, name), type)]


@pytest.mark.parametrize("name", NAMES)
def test_name_is_exported(name):
    assert hasattr(aioxide, name)
    assert name in aioxide.__all__


def test_modules_are_attributes_as_in_asyncio():
    for name in ("events", "futures", "subprocess", "locks", "queues", "streams", "exceptions"):
        assert getattr(aioxide, name) is getattr(asyncio, name)
    # `aioxide.tasks` is a function besides.
    assert aioxide.tasks.Task is asyncio.tasks.Task
    assert dir(aioxide.tasks) == dir(asyncio.tasks)


@pytest.mark.parametrize("name", sorted(set(NAMES) - MADE_BY_LOOPS))
def test_signature_takes_what_asyncio_takes(name):
    assert_takes_the_same(getattr(asyncio, name), getattr(aioxide, name))


@pytest.mark.parametrize("name", CLASSES)
def test_public_methods_take_what_asyncio_takes(name):
    original, twin = getattr(asyncio, name), getattr(aioxide, name)
    if original is twin:
        return
    for attribute in dir(original):
        if attribute.startswith("_") or isinstance(getattr(original, attribute), property):
            continue
        assert hasattr(twin, attribute), attribute
        assert_takes_the_same(getattr(original, attribute), getattr(twin, attribute))


def assert_takes_the_same(original, twin):
    """Each parameter of the original is there; what is new beyond them is optional."""
    if original is twin or not callable(original):
        return
    expected = signature_of(original)
    if expected is None:
        return
    found = signature_of(twin)
    assert found is not None, f"{twin!r} tells no signature"
    names = list(found.parameters)
    for name, parameter in expected.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD and name not in found.parameters:
            # Newer versions of asyncio spell out what older ones pass on.
            assert any(other.kind is other.KEYWORD_ONLY for other in found.parameters.values()), twin
            continue
        assert name in found.parameters, f"{twin!r} has no {name}: {found}"
        other = found.parameters[name]
        assert other.kind is parameter.kind, f"{name} of {twin!r}: {found}, expected {expected}"
        assert same_default(parameter.default, other.default), f"{name} of {twin!r}: {found}, expected {expected}"
    positional = [name for name, parameter in expected.parameters.items() if parameter.kind <= 1]
    assert names[: len(positional)] == positional, f"{twin!r}: {found}, expected {expected}"
    for name in found.parameters.keys() - expected.parameters.keys():
        parameter = found.parameters[name]
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        assert optional, f"{name} of {twin!r} is new and must be given"


def signature_of(thing):
    """Without the receiver, which native methods call `self` as well but take by position only."""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return None
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].name in ("self", "cls"):
        del parameters[0]
    return signature.replace(parameters=parameters)


def same_default(one, other):
    """Sentinels are objects without a meaning of their own: any two are alike."""
    if one is inspect.Parameter.empty or other is inspect.Parameter.empty:
        return one is other
    return one == other or (type(one) is object and other is not None)


def test_every_native_name_has_a_type():
    stub = ast.parse(text_of("python/aioxide/_core.pyi"))
    typed = {node.name for node in stub.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    typed |= {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    native = {name for name in vars(_core) if not name.startswith("_")}
    # What some Pythons have no type for is typed where it is used: in the asyncio of the others.
    assert sorted(native - typed - _stdlib.LATER_NAMES) == []


def test_public_names_that_asyncio_does_not_list_are_exported_too():
    unlisted = {name for name, value in vars(asyncio).items() if not name.startswith("_") and name != "sys"}
    assert sorted(name for name in unlisted if not hasattr(aioxide, name)) == []


def test_own_versions_are_the_ones_exported():
    for name, twin in _names.twins().items():
        assert getattr(aioxide, name) is twin
