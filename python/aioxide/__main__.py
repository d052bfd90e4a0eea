"""The command `aioxide`: run an unmodified asyncio program on aioxide."""

import importlib
import sys

import aioxide
from aioxide import _program
from aioxide._usage import refuse

USAGE = """\
usage: aioxide [OPTION ...] FILE [ARG ...]
       aioxide [OPTION ...] -m MODULE [ARG ...]
       aioxide [OPTION ...] -c CODE [ARG ...]
       aioxide [OPTION ...] - [ARG ...]

       aioxide {ps,tree,top,stacks} PID [--json]
       aioxide report TRACE [-o PAGE]
       aioxide doctor [--json]

Run a Python program with aioxide in the place of asyncio; or look at one that was started with
--inspect or has called aioxide.inspect.serve(): its tasks as a table or a tree, what it does (live),
the Python stacks of its threads. Or make a page for people of what --trace has recorded. Or say what
aioxide finds here: its build, the kernel, libraries, and what makes this machine slow.
(A program by such a name is ./ps.)

  FILE           a program, a directory or a zip file with a __main__.py
  -m MODULE      a module or package by its name
  -c CODE        the code itself
  -              read the code from standard input
  ARG ...        left to the program, as sys.argv[1:]
  -h, --help     show this text
  -V, --version  show the version

Options that look inside the program:
  --inspect             let `aioxide ps PID` and the like look at it
  --inspect=web[:PORT]  and serve a live page for the browser, at an address that is printed
  --trace FILE          record what every task does and when, for `aioxide report` and trace viewers
  --trace-limit=MB      of that file (100): when there is more to tell, the oldest goes
  --watchdog[=SECONDS]  report when an event loop does not come back for that long (0.1 s)
"""

# What each word means that is no program: a module, loaded only then, with a `main` that takes the words.
COMMANDS = {
    "doctor": "aioxide._doctor",
    "ps": "aioxide._outside",
    "report": "aioxide._report",
    "stacks": "aioxide._outside",
    "top": "aioxide._outside",
    "tree": "aioxide._outside",
}


def main() -> None:
    """Read the command line, install aioxide and run the program."""
    if len(sys.argv) < 2:
        refuse("no program given")
    words = sys.argv[1:]
    if words[0] in COMMANDS:
        sys.exit(importlib.import_module(COMMANDS[words[0]]).main(words))
    _Options(words).use()
    if not words:
        refuse("no program given")
    first, *rest = words
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
        refuse(f"unknown option {first}")
    else:
        aioxide.install()
        _program.run_path(first, rest)


def _run_named(option: str, rest: list[str]) -> None:
    """Run what follows -m or -c, in the same word or in the next."""
    option, value = option[:2], option[2:]
    if not value:
        if not rest:
            refuse(f"{option} needs {'a module' if option == '-m' else 'code'}")
        value, *rest = rest
    aioxide.install()
    if option == "-m":
        _program.run_module(value, rest)
    else:
        _program.run_code(value, rest)


class _Options:
    """The options in front of a program, taken off its words."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.trace: str | None = None
        self.limit = 100.0

    def use(self) -> None:
        """Do what they ask for."""
        while self.words and self.words[0].startswith("--") and self.words[0] not in ("--help", "--version"):
            self._take(self.words.pop(0))
        if self.trace is not None:
            try:
                aioxide.trace(self.trace, limit=self.limit)
            except ValueError as error:
                refuse(str(error))
            except OSError as error:
                refuse(f"--trace: can't write {self.trace}: {error.strerror}")

    def _take(self, word: str) -> None:
        name, equals, value = word.partition("=")
        if name == "--inspect":
            _inspect(value if equals else None)
        elif name == "--watchdog":
            try:
                aioxide.watchdog(float(value) if equals else 0.1)
            except ValueError:
                refuse(f"{word}: not a positive number of seconds")
        elif name == "--trace":
            self.trace = value or (self.words.pop(0) if self.words and not equals else "")
            if not self.trace:
                refuse("--trace needs a file to write")
        elif name == "--trace-limit":
            try:
                self.limit = float(value)
            except ValueError:
                refuse(f"{word}: not a number of megabytes")
        else:
            refuse(f"unknown option {word}")


def _inspect(how: str | None) -> None:
    """Let others look, and by a browser too if `how` says so."""
    web, _, port = (how or "").partition(":")
    if how is not None and (web != "web" or not (port or "0").isdecimal() or int(port or 0) > 65535):
        refuse(f"--inspect={how}: neither web nor web:PORT")
    aioxide.inspect.accounting()
    try:
        server = aioxide.inspect.serve(web=how is not None, port=int(port or 0))
    except OSError as error:
        refuse(f"can't listen: {error}")
    if server.url is not None:
        sys.stderr.write(f"aioxide: to look inside, open {server.url}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
