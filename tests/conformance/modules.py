"""CPython's test modules that run on asyncio: those of asyncio itself, and classes of others."""

import fnmatch
import importlib
import importlib.util
import pathlib
import sys
import unittest

ASYNCIO = "test.test_asyncio"
UNITTEST = "test.test_unittest" if sys.version_info >= (3, 12) else "unittest.test"

# What the others are called here, where they are, and which of their tests run on asyncio in their own process.
OTHERS = {
    "test_async_case": (f"{UNITTEST}.test_async_case", ["*"]),
    "test_asyncgen": ("test.test_asyncgen", ["AsyncGenAsyncioTest.*"]),
    "test_coroutines": ("test.test_coroutines", ["CoroAsyncIOCompatTest.*"]),
    "test_external_inspection": (
        "test.test_external_inspection",
        ["*.test_async_generator_*", "*.test_long_task_name_*", "*.test_recursive_coroutine_*", "*.test_class_named_*"],
    ),
    "test_inspect": ("test.test_inspect.test_inspect", ["TestGetAsyncGenState.*"]),
    "test_logging": ("test.test_logging", ["LogRecordTest.test_taskName_*"]),
    "test_os": ("test.test_os", ["TestSendfile.*"]),
    "test_testasync": (f"{UNITTEST}.testmock.testasync", ["*"]),
    "test_warnings": ("test.test_warnings", ["CAsyncTests.*", "PyAsyncTests.*"]),
}


def names():
    """What all of them are called here; none where the interpreter ships no tests."""
    package = importlib.util.find_spec("test") and importlib.util.find_spec(ASYNCIO)
    if package is None:
        return []
    places = map(pathlib.Path, package.submodule_search_locations)
    return sorted({*OTHERS, *(file.stem for place in places for file in place.glob("test_*.py"))})


def load(name):
    """The module and its tests.  SkipTest if this Python has none of that name."""
    path, patterns = OTHERS.get(name, (f"{ASYNCIO}.{name}", ["*"]))
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if not f"{path}.".startswith(f"{error.name}."):
            raise
        raise unittest.SkipTest("this Python has no such module") from None
    found = [
        test
        for test in _flat(unittest.defaultTestLoader.loadTestsFromModule(module))
        if any(fnmatch.fnmatchcase(".".join(test.id().rsplit(".", 2)[1:]), pattern) for pattern in patterns)
        or isinstance(test, unittest.loader._FailedTest)
    ]
    if not found:
        raise unittest.SkipTest("this Python has no such test in it")
    return module, found


def _flat(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from _flat(item)
        else:
            yield item


def name_of(test):
    """`module.Class.test`, with the module as it is called here."""
    for name, (path, _) in OTHERS.items():
        if test.id().startswith(f"{path}."):
            return name + test.id().removeprefix(path)
    return test.id().removeprefix(f"{ASYNCIO}.")
