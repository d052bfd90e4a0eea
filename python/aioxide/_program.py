"""Run a program the way the interpreter itself would.

`sys.argv`, `sys.path`, the module `__main__`, tracebacks and exit statuses are
those of `python FILE`, `python -m MODULE`, `python -c CODE` and `python -`.
"""

import builtins
import io
import linecache
import os
import pkgutil
import runpy
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import BuiltinImporter, SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any

from aioxide._usage import refuse

_OWN_FILES = {__file__, contextmanager.__code__.co_filename}


def run_path(path: str, arguments: list[str]) -> None:
    """Run a file, or the `__main__` of a directory or a zip file."""
    if pkgutil.get_importer(path) is not None:
        _prepare([path, *arguments], first_on_path=os.path.abspath(path))
        with _own_frames_hidden():
            _run_as_main("__main__", False)
        return
    try:
        with io.open_code(os.path.abspath(path)) as file:
            source = file.read()
    except OSError as error:
        sys.stderr.write(
            f"aioxide: can't open file {os.path.abspath(path)!r}: [Errno {error.errno}] {error.strerror}\n"
        )
        sys.exit(2)
    filename = os.path.abspath(path)
    namespace = _prepare([path, *arguments], first_on_path=os.path.dirname(os.path.realpath(path)))
    namespace["__file__"] = filename
    namespace["__cached__"] = None
    namespace["__loader__"] = SourceFileLoader("__main__", filename)
    with _own_frames_hidden():
        exec(compile(source, filename, "exec", dont_inherit=True), namespace)


def run_module(name: str, arguments: list[str]) -> None:
    """Run a module or package found on `sys.path`."""
    _prepare(["-m", *arguments], first_on_path=os.getcwd())
    with _own_frames_hidden():
        _run_as_main(name)


def run_code(code: str, arguments: list[str]) -> None:
    """Run code given as text."""
    namespace = _prepare(["-c", *arguments], first_on_path="")
    if sys.version_info >= (3, 14):
        code = textwrap.dedent(code)
    with _own_frames_hidden():
        exec(_compile(code, "<string>"), namespace)


def run_standard_input(arguments: list[str]) -> None:
    """Run code read from standard input."""
    namespace = _prepare(["-", *arguments], first_on_path="")
    source = b"" if sys.stdin is None else sys.stdin.buffer.read()
    with _own_frames_hidden():
        exec(_compile(source, "<stdin>"), namespace)


# Runs a module in the namespace of `sys.modules["__main__"]`; `python -m` calls it too.
_run_as_main: Callable[..., Any] = runpy._run_module_as_main  # type: ignore[attr-defined]
# What it meets when there is no such module, or nothing to run in it, before it ends the process.
_NoProgram: type[Exception] = runpy._Error  # type: ignore[attr-defined]


def _prepare(argv: list[str], first_on_path: str) -> dict[str, Any]:
    """Set up what a program finds when it starts, and return its namespace."""
    sys.argv[:] = argv
    if not sys.flags.safe_path:
        sys.path[0] = first_on_path
    main = ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __loader__=BuiltinImporter)
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    # The module that runs now must outlive its place in sys.modules.
    main.__dict__.setdefault("__spec__", None)
    _launchers.append(sys.modules["__main__"])
    sys.modules["__main__"] = main
    return main.__dict__


_launchers: list[ModuleType] = []


def _compile(source: str | bytes, filename: str) -> CodeType:
    """Compile code that is in no file; tracebacks quote it where Python's do."""
    text = source if isinstance(source, str) else source.decode(errors="replace")
    if sys.version_info >= (3, 13):  # until there is a code object: for errors of syntax
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    code = compile(source, filename, "exec", dont_inherit=True)
    register = getattr(linecache, "_register_code", None)
    if register is not None and register.__code__.co_argcount == 3:
        del linecache.cache[filename]
        register(code, text, filename)
    return code


@contextmanager
def _own_frames_hidden() -> Iterator[None]:
    """Report what the program raises as if it had been started by the interpreter.

    The exception goes on to the interpreter, which is to end the process as it
    always does; only the hook that shows it is told to leave out our frames.
    """
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, _NoProgram):  # the interpreter's own status, 1, could be the program's
            refuse(str(error.__context__))
        raise
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename in _OWN_FILES:
            trace = trace.tb_next
        _show_with(error, trace)
        raise


def _show_with(error: BaseException, trace: TracebackType | None) -> None:
    shown_by = sys.excepthook

    def show(kind: type[BaseException], value: BaseException, whole: TracebackType | None) -> None:
        if value is error:
            whole = trace
            value.__traceback__ = trace
        shown_by(kind, value, whole)

    sys.excepthook = show
