"""The files of the repository, for the tests of the house rules."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _files():
    """All files that are or could be committed; without git, all that are not hidden."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        listed = [str(path) for path in found if not {part[0] for part in path.parts} & {"."}]
        listed = [name for name in listed if not name.startswith("target")]
    return sorted(name for name in listed if (ROOT / name).is_file())


FILES = _files()
RUST = [name for name in FILES if name.endswith(".rs")]
PYTHON = [name for name in FILES if name.endswith((".py", ".pyi"))]


def text_of(name):
    return (ROOT / name).read_text(errors="replace")


def code_of(name):
    """The text of a Rust file without its comments and string literals."""
    comment_or_string = r"""//[^\n]*|/\*.*?\*/|r(#*)".*?"\1|b?"(?:\\.|[^"\\])*\""""
    return re.sub(comment_or_string, lambda match: "\n" * match[0].count("\n"), text_of(name), flags=re.S)


def lines_with(pattern, names, read=code_of):
    """FILE:LINE of each line that the pattern is found in."""
    expression = re.compile(pattern)
    return [
        f"{name}:{number}: {line.strip()}"
        for name in names
        for number, line in enumerate(read(name).splitlines(), 1)
        if expression.search(line)
    ]
