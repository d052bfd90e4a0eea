"""The command `aioxide`: run an unmodified asyncio program on aioxide."""

import sys
from typing import NoReturn

import aioxide
from aioxide import _program

USAGE = """\
usage: aioxide [-h] [-V] FILE [ARG ...]
       aioxide [-h] [-V] -m MODULE [ARG ...]
       aioxide [-h] [-V] -c CODE [ARG ...]
       aioxide [-h] [-V] - [ARG ...]

Run a Python program with aioxide in the place of asyncio.

  FILE           a program, a directory or a zip file with a __main__.py
  -m MODULE      a module or package by its name
  -c CODE        the code itself
  -              read the code from standard input
  ARG ...        left to the program, as sys.argv[1:]
  -h, --help     show this text
  -V, --version  show the version
"""


def main() -> None:
    """Read the command line, install aioxide and run the program."""
    if len(sys.argv) < 2:
        _refuse("no program given")
    first, *rest = sys.argv[1:]
    if first in ("-h", "--help"):
        sys.stdout.write(USAGE)
    elif first in ("-V", "--version"):
        sys.stdout.write(f"aioxide {aioxide.__version__} (Python {sys.version.split()[0]})\n")
    elif first.startswith(("-m", "-c")):
        _run_named(first, rest)
    elif first == "-":
        aioxide.install()
        _program.run_standard_input(rest)
    elif first.startswith("-"):
        _refuse(f"unknown option {first}")
    else:
        aioxide.install()
        _program.run_path(first, rest)


def _run_named(option: str, rest: list[str]) -> None:
    """Run what follows -m or -c, in the same word or in the next."""
    option, value = option[:2], option[2:]
    if not value:
        if not rest:
            _refuse(f"{option} needs {'a module' if option == '-m' else 'code'}")
        value, *rest = rest
    aioxide.install()
    if option == "-m":
        _program.run_module(value, rest)
    else:
        _program.run_code(value, rest)


def _refuse(reason: str) -> NoReturn:
    sys.stderr.write(f"aioxide: {reason} (see aioxide --help)\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
