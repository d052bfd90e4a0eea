"""`aioxide PROGRAM` does what `python PROGRAM` does.

Each test runs the same command line twice, once with the interpreter alone and
once through aioxide, and compares all that can be seen from outside.
"""

import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aioxide
import pytest
from aioxide.__main__ import COMMANDS

PYTHON = [sys.executable]
AIOXIDE = [sys.executable, "-m", "aioxide"]
# A debug build of Python takes its time to start, and does nothing else in its own way here.
WAYS = ["file"] if hasattr(sys, "gettotalrefcount") else ["file", "module", "code"]

SHOW_SURROUNDINGS = """
import os, sys
main = sys.modules["__main__"]
assert main.__dict__ is globals()
print(sys.argv, repr(sys.path[0]), __name__)
for name in sorted(globals()):
    if name not in ("os", "sys", "main", "__builtins__", "__cached__"):
        value = globals()[name]
        shown = getattr(value, "name", None) if name == "__spec__" else value
        kind = value if isinstance(value, type) else type(value)
        print(name, kind.__name__ if name == "__loader__" else shown)
"""


def run(command, arguments, cwd, **options):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHON_COLORS": "0"}
    if command is AIOXIDE:
        package = str(Path(aioxide.__file__).parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [*command, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def assert_same(arguments, cwd, **options):
    """Run it both ways, compare, and return the outcome."""
    with ThreadPoolExecutor() as pool:
        reference = pool.submit(run, PYTHON, arguments, cwd, **options)
        found = run(AIOXIDE, arguments, cwd, **options)
        expected = reference.result()
    assert found.stdout == expected.stdout
    assert found.stderr == expected.stderr
    assert found.returncode == expected.returncode
    return found


@pytest.fixture
def program(tmp_path):
    def write(source, name="program.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        return name

    return write


def test_surroundings_of_a_file(program, tmp_path):
    found = assert_same([program(SHOW_SURROUNDINGS), "one", "--two", "-"], tmp_path)
    assert found.stdout.startswith("['program.py', 'one', '--two', '-']")


def test_surroundings_of_a_file_in_another_directory(program, tmp_path):
    program("VALUE = 7", "inner/neighbour.py")
    name = program(SHOW_SURROUNDINGS + "import neighbour\nprint(neighbour.VALUE)", "inner/program.py")
    found = assert_same([name], tmp_path)
    assert found.stdout.endswith("7\n")


def test_a_link_is_followed_for_the_path(program, tmp_path):
    program("VALUE = 8", "inner/neighbour.py")
    program("import neighbour, sys\nprint(neighbour.VALUE, sys.argv, __file__)", "inner/program.py")
    (tmp_path / "link.py").symlink_to("inner/program.py")
    assert assert_same(["link.py"], tmp_path).stdout.startswith("8 ")


def test_surroundings_of_a_module(program, tmp_path):
    program(SHOW_SURROUNDINGS, "package/part.py")
    assert_same(["-m", "package.part", "-x"], tmp_path)
    assert_same(["-mpackage.part", "-x"], tmp_path)


def test_surroundings_of_a_package(program, tmp_path):
    program(SHOW_SURROUNDINGS, "package/__main__.py")
    program("", "package/__init__.py")
    assert_same(["-m", "package", "word"], tmp_path)


def test_surroundings_of_code(tmp_path):
    assert_same(["-c", SHOW_SURROUNDINGS, "-c", "word"], tmp_path)
    assert_same(["-cimport sys; print(sys.argv)", "word"], tmp_path)


def test_surroundings_of_standard_input(tmp_path):
    found = assert_same(["-", "word"], tmp_path, input="import sys\nprint(sys.argv, repr(sys.path[0]))\n")
    assert found.stdout == "['-', 'word'] ''\n"


def test_directory_and_zip_file(program, tmp_path):
    program("VALUE = 9", "folder/neighbour.py")
    main = "import neighbour, sys\nprint(neighbour.VALUE, sys.argv, sys.path[0], __name__)"
    program(main, "folder/__main__.py")
    assert_same(["folder", "word"], tmp_path)
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        for name in ("neighbour.py", "__main__.py"):
            archive.write(tmp_path / "folder" / name, name)
    assert_same(["archive", "word"], tmp_path)


def test_safe_path_leaves_the_path_alone(program, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    program("raise SystemExit('imported')", "neighbour.py")
    name = program("try:\n    import neighbour\nexcept ImportError:\n    print('safe')")
    assert assert_same([name], tmp_path).stdout == "safe\n"


@pytest.mark.parametrize(
    "source",
    [
        "raise SystemExit",
        "raise SystemExit(0)",
        "raise SystemExit(7)",
        "raise SystemExit('a message')",
        "import sys; sys.exit(None)",
        "import sys; sys.exit(300)",
        "import os; os._exit(9)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "1 / 0",
        "def f():\n    g()\ndef g():\n    raise ValueError('deep')\nf()",
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise KeyError('next') from error",
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise KeyError('context')",
        "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "x = = 1",
        "def f(:\n  pass",
        "print('before', flush=True)\nif True:\nprint('badly indented')",
        "import sys\nsys.excepthook = lambda *what: print('hooked', what[0], what[2].tb_lineno)\n1 / 0",
        "import atexit\natexit.register(print, 'at exit')\n1 / 0",
        "import threading\nthreading.Thread(target=lambda: print('thread')).start()",
        "import warnings\nwarnings.warn('shown')",
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_endings(source, way, program, tmp_path):
    arguments = {
        "file": [program(source)],
        "module": ["-m", "program"],
        "code": ["-c", source],
    }[way]
    found = assert_same(arguments, tmp_path)
    assert "aioxide" not in found.stderr


def test_a_program_that_does_not_compile_on_standard_input(tmp_path):
    expected = run(PYTHON, ["-"], tmp_path, input="x = = 1\n")
    found = run(AIOXIDE, ["-"], tmp_path, input="x = = 1\n")
    assert found.stderr == expected.stderr
    assert found.returncode == expected.returncode == 1


def test_null_bytes_and_encodings(tmp_path):
    (tmp_path / "latin.py").write_bytes("# coding: latin-1\nprint('é' == chr(233))\n".encode("latin-1"))
    assert assert_same(["latin.py"], tmp_path).stdout == "True\n"
    (tmp_path / "mark.py").write_bytes(b"\xef\xbb\xbfprint('marked')\n")
    assert assert_same(["mark.py"], tmp_path).stdout == "marked\n"


def test_a_file_that_is_not_there(tmp_path):
    expected = run(PYTHON, ["missing.py"], tmp_path)
    found = run(AIOXIDE, ["missing.py"], tmp_path)
    assert found.returncode == expected.returncode == 2
    assert without_program_name(found.stderr) == without_program_name(expected.stderr)


@pytest.mark.parametrize(
    "arguments", [["-m", "missing_module"], ["-m", "package.missing"], ["-m", "package"], ["empty"], ["empty.zip"]]
)
def test_nothing_to_run(arguments, program, tmp_path):
    """The interpreter says the same with status 1, as it does for programs that fail."""
    program("", "package/__init__.py")
    (tmp_path / "empty").mkdir()
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    expected = run(PYTHON, arguments, tmp_path)
    found = run(AIOXIDE, arguments, tmp_path)
    assert expected.returncode == 1
    assert found.returncode == 2
    message = without_program_name(expected.stderr).rstrip("\n")
    assert found.stderr == f"aioxide: {message} (see aioxide --help)\n"


def test_a_program_that_looks_for_modules_itself(program, tmp_path):
    source = """
import runpy
try:
    runpy.run_module("nowhere")
except ImportError as error:
    raise SystemExit(str(error))
"""
    program(source)
    assert assert_same(["-m", "program"], tmp_path).returncode == 1


def without_program_name(text):
    return re.sub(r"^[^:]*: ", "", text)


def test_classes_of_the_program_can_be_pickled(program, tmp_path):
    source = """
import pickle
class Thing:
    pass
assert type(pickle.loads(pickle.dumps(Thing()))) is Thing
print(Thing.__module__)
"""
    assert assert_same([program(source)], tmp_path).stdout == "__main__\n"


def test_processes_of_the_program_find_its_main_module(program, tmp_path):
    source = """
import multiprocessing
def work(number):
    return number * 2
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        print(pool.map(work, [1, 2]))
        pool.close()
        pool.join()
"""
    assert assert_same([program(source)], tmp_path).stdout == "[2, 4]\n"


@pytest.mark.parametrize("command", [PYTHON, AIOXIDE], ids=["python", "aioxide"])
def test_interrupt_kills_by_the_signal(command, program, tmp_path):
    name = program("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [*command, name], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert errors.startswith("Traceback (most recent call last):\n  File")
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "aioxide" not in errors


def test_the_program_runs_on_aioxide(program, tmp_path):
    source = """
import asyncio, sys
async def main():
    print(type(asyncio.get_running_loop()).__module__, type(asyncio.current_task()).__module__)
asyncio.run(main())
print(sys.modules["aioxide"].installed())
"""
    found = run(AIOXIDE, [program(source)], tmp_path)
    assert (found.stdout, found.stderr) == ("aioxide aioxide\nTrue\n", "")


LOOKS = ["ps", "tree", "top", "stacks"]  # which take the number of a process
NO_PROCESS = "4194305"  # one more than Linux has


def misuses():
    yield []
    yield from ([option] for option in ("--wrong", "-x", "-m", "-c", "--versio", "--", "--inspect=1", "-\n"))
    yield ["--help-me", "program.py"]
    yield from ([f"--watchdog={seconds}", "program.py"] for seconds in ("", "soon", "0", "-1", "nan", "inf"))
    yield ["--watchdog", "--inspect"]
    yield ["missing.py"]
    yield ["-m", "missing_module", "word"]
    yield ["--watchdog", "missing.py"]
    yield from ([look] for look in LOOKS)
    yield from ([look, NO_PROCESS] for look in LOOKS)
    yield from (["ps", pid] for pid in ("word", "-1", "0", "1.5", "", "9" * 30, "a\nb", "1 2"))
    yield from (["tree", "1", *more] for more in (["2"], ["--wrong"], ["--js"], ["--interval", "1"]))
    yield ["stacks", "--json"]
    yield from (["top", "1", f"--interval={seconds}"] for seconds in ("0", "-1", "nan", "inf", "word"))
    yield from (["top", "1", *more] for more in (["--sort", "colour"], ["--interval"]))
    yield from (
        ["report", *more] for more in ([], ["missing.json"], ["a", "b"], ["--wrong"], ["--out", "x", "y"], ["-o"])
    )
    yield from (["--trace"], ["--trace="], ["--trace=/nowhere/out.json", "program.py"])
    yield from ([f"--trace-limit={limit}", "--trace=out", "program.py"] for limit in ("", "word", "0", "-1", "nan"))
    yield from (["doctor", more] for more in ("word", "--wrong", "--json=1"))


@pytest.mark.parametrize("arguments", list(misuses()), ids=repr)
def test_misuse_is_one_line_and_status_2(arguments, program, tmp_path):
    program("print('must not run')")
    found = run(AIOXIDE, arguments, tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert re.fullmatch(r"aioxide[a-z ]*: [^\n]+\n", found.stderr), found.stderr


def test_a_process_that_cannot_be_looked_at(tmp_path):
    for look in LOOKS:
        found = run(AIOXIDE, [look, str(os.getpid())], tmp_path)
        assert found.returncode == 2
        assert "was not started with aioxide --inspect" in found.stderr
        assert found.stderr.count("\n") == 1


def test_every_word_that_is_no_program_is_in_the_help_and_has_its_own(tmp_path):
    text = run(AIOXIDE, ["--help"], tmp_path).stdout
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", text), command
        found = run(AIOXIDE, [command, "--help"], tmp_path)
        assert (found.returncode, found.stderr) == (0, "")
        assert found.stdout.startswith(f"usage: aioxide {command} ")


def test_no_directory_for_the_socket_of_inspect(program, tmp_path):
    program("print('must not run')")
    source = f"""
import sys
sys.path.insert(0, {str(Path(aioxide.__file__).parent.parent)!r})
import aioxide.__main__
aioxide.inspect.directories = lambda: ["/dev/null/aioxide"]
sys.argv[:] = ["aioxide", "--inspect", "program.py"]
aioxide.__main__.main()
"""
    found = run(PYTHON, ["-c", source], tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("aioxide: can't listen: no directory")
    assert found.stderr.count("\n") == 1


def test_a_program_does_not_pay_for_the_commands(program, tmp_path):
    name = program(
        "import sys\nprint({'argparse', 'aioxide._machine', 'aioxide._outside', 'aioxide._report'} & set(sys.modules))"
    )
    assert run(AIOXIDE, [name], tmp_path).stdout == "set()\n"


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(option, tmp_path):
    found = run(AIOXIDE, [option], tmp_path)
    assert found.returncode == 0
    assert found.stdout.startswith("usage: aioxide")


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(option, tmp_path):
    found = run(AIOXIDE, [option], tmp_path)
    assert found.returncode == 0
    assert found.stdout.startswith(f"aioxide {aioxide.__version__} ")
