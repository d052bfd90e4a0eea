"""`aioxide ps`, `tree`, `top` and `stacks`: looking at another process of the same user."""

import json
import os
import select
import shutil
import socket
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aioxide import _commands, inspect
from aioxide.inspect import Frame, TaskInfo

PATIENCE = 10.0


class Unreachable(Exception):
    """Why a process cannot be looked at."""


def main(words: list[str]) -> int:
    """Do one of the commands; the status to exit with."""
    parser = _commands.Parser(words[0], __doc__)
    parser.add_argument("pid", type=_commands.process, metavar="PID")
    parser.add_argument("--json", action="store_true", help="print what is known, as JSON")
    if words[0] == "top":
        parser.add_argument(
            "--interval", type=_commands.seconds, default=1.0, metavar="SECONDS", help="between two looks"
        )
        parser.add_argument("--sort", choices=sorted(_ORDERS), default="cpu", help="what the list is sorted by")
    options = parser.parse_args(words[1:])
    try:
        if words[0] == "top" and not options.json:
            _Top(options.pid, options.interval, options.sort).run()
            return 0
        picture = ask(options.pid, "stacks" if words[0] == "stacks" else "tasks")
        if options.json:
            _print(json.dumps(picture, indent=2))
            return 0
        _say_unavailable(picture)
        view = {"ps": table, "tree": tree, "stacks": stacks}[words[0]]
        _print(view(picture))
    except Unreachable as reason:
        sys.stderr.write(f"aioxide {words[0]}: {reason}\n")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has enough
    except KeyboardInterrupt:
        return 130
    return 0


def ask(pid: int, request: str) -> dict[str, Any]:
    """What a process says of itself."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        raise Unreachable(f"there is no process {pid}") from None
    if owner != os.getuid():
        raise Unreachable(f"process {pid} belongs to another user (number {owner})")
    for directory in inspect.directories():
        path = os.path.join(directory, f"{pid}.sock")
        if os.path.lexists(path):
            return _exchange(pid, path, request)
    raise Unreachable(f"process {pid} can't be inspected: it was not started with aioxide --inspect")


def _exchange(pid: int, path: str, request: str) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(path)
            connection.sendall(request.encode() + b"\n")
            pieces = []
            while piece := connection.recv(1 << 16):
                pieces.append(piece)
            found = json.loads(b"".join(pieces))
        except ConnectionRefusedError:
            raise Unreachable(f"process {pid} does not listen any more: {path} is left from another") from None
        except (OSError, ValueError) as error:
            raise Unreachable(f"process {pid} does not answer: {error}") from None
    if not isinstance(found, dict) or found.get("pid") != pid:
        raise Unreachable(f"process {pid} does not answer: somebody else listens at {path}")
    return found


def tasks_of(picture: Mapping[str, Any]) -> list[TaskInfo]:
    """The tasks in what a process says."""
    return inspect.from_records(picture.get("loops", ()))


def _say_unavailable(picture: Mapping[str, Any]) -> None:
    why = picture.get("unavailable") or picture.get("error")
    if why:
        busy = sum(pulse["busy"] for pulse in picture.get("pulses", ()))
        sys.stderr.write(f"aioxide: nothing to be seen now: {why} ({busy} event loops are busy)\n")


def tree(picture: Mapping[str, Any]) -> str:
    """The tasks, under each those that it waits for."""
    return inspect.format_tasks(tasks_of(picture))


def stacks(picture: Mapping[str, Any]) -> str:
    """The Python stack of each thread."""
    lines = []
    for thread in picture.get("stacks", ()):
        lines.append(f"thread {thread['name']!r}")
        lines += [f"  {Frame(**link)}" for link in thread["stack"]]
    return "\n".join(lines)


HEADINGS = ("NAME", "STATE", "AGE", "STEPS", "CPU", "WAITS FOR", "AT")


def table(picture: Mapping[str, Any], found: list[TaskInfo] | None = None) -> str:
    """The tasks, one a line."""
    all_tasks = tasks_of(picture)
    describe = inspect.describer(all_tasks)
    rows = [HEADINGS]
    for task in all_tasks if found is None else found:
        place = next((frame for frame in reversed(task.chain) if not frame.is_native), None)
        rows.append(
            (
                task.name,
                task.state,
                "-" if task.age is None else f"{task.age:.1f}",
                "-" if task.steps is None else str(task.steps),
                "-" if task.cpu is None else f"{task.cpu:.3f}",
                "-" if task.waits_for is None else describe(task.waits_for),
                "-" if place is None else f"{place.function} {os.path.basename(place.file)}:{place.line}",
            )
        )
    widths = [min(40, max(len(row[column]) for row in rows)) for column in range(len(HEADINGS))]
    return "\n".join(_row(row, widths) for row in rows)


def _row(row: tuple[str, ...], widths: list[int]) -> str:
    cells = (_printable(cell)[:width].ljust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join(cells).rstrip()


def _printable(text: str) -> str:
    """Names are somebody else's: no control characters reach the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _print(text: str) -> None:
    printable = (character if character.isprintable() or character == "\n" else "?" for character in text)
    sys.stdout.write("".join(printable) + "\n")
    sys.stdout.flush()


# Most first, but for names.
_ORDERS: dict[str, Callable[[TaskInfo], Any]] = {
    "age": lambda task: -(task.age or 0),
    "cpu": lambda task: -(task.cpu or 0),
    "name": lambda task: task.name,
    "steps": lambda task: -(task.steps or 0),
}
_KEYS = {"a": "age", "c": "cpu", "n": "name", "s": "steps"}


class _Top:
    """The live list."""

    def __init__(self, pid: int, interval: float, order: str) -> None:
        self.pid = pid
        self.interval = max(interval, 0.1)
        self.order = order
        self.before: dict[str, Any] | None = None

    def run(self) -> None:
        picture = ask(self.pid, "tasks")
        if not sys.stdout.isatty():
            _print(self.screen(picture, (200, 10_000)))
            return
        with _full_screen():
            while True:
                size = shutil.get_terminal_size()
                lines = self.screen(picture, (size.columns, size.lines)).splitlines()
                text = "\n".join(_printable(line)[: size.columns] + "\x1b[K" for line in lines)
                sys.stdout.write(f"\x1b[H{text}\x1b[J")
                sys.stdout.flush()
                if not self.rest():
                    return
                self.before, picture = picture, ask(self.pid, "tasks")

    def rest(self) -> bool:
        """Wait for a key or for the next look; whether to go on."""
        end = time.monotonic() + self.interval
        while (left := end - time.monotonic()) > 0:
            if not select.select([sys.stdin], [], [], left)[0]:
                return True
            key = os.read(sys.stdin.fileno(), 1).decode(errors="replace")
            if key in ("q", "\x03", "\x04", ""):
                return False
            if key in _KEYS:
                self.order = _KEYS[key]
                return True
        return True

    def screen(self, picture: Mapping[str, Any], size: tuple[int, int]) -> str:
        found = sorted(tasks_of(picture), key=_ORDERS[self.order])
        keys = "a: age, c: cpu, n: name, s: steps, q: quit"
        lines = [f"process {self.pid}, {len(found)} tasks, sorted by {self.order} ({keys})"]
        if picture.get("unavailable"):
            lines.append(f"nothing to be seen now: {picture['unavailable']}")
        for number, metrics in enumerate(picture.get("metrics", ())):
            lines.append(self.rates(number, metrics, picture["time"]))
        lasting = [stall for stall in picture.get("stalls", ()) if not stall["over"]]
        lines += [f"STALLED for {stall['seconds']:.1f} s" for stall in lasting]
        return "\n".join([*lines, "", table(picture, found[: max(1, size[1] - len(lines) - 3)])])

    def rates(self, number: int, metrics: Mapping[str, Any], now: float) -> str:
        parts = [
            f"{what} p99 {metrics[name]['p99'] * 1000:.1f} ms, most {metrics[name]['max'] * 1000:.1f} ms"
            for what, name in (("timers late", "lag"), ("iterations", "iteration"))
        ]
        text = f"{'; '.join(parts)}; {metrics['timers']} timers, {metrics['transports']} transports"
        if self.before is not None and len(self.before.get("metrics", ())) > number:
            earlier, seconds = self.before["metrics"][number], now - self.before["time"]
            rate = (metrics["callbacks"] - earlier["callbacks"]) / seconds if seconds > 0 else 0
            text = f"{rate:.0f} callbacks/s; {text}"
        return text


@contextmanager
def _full_screen() -> Iterator[None]:
    """The terminal's other screen, and keys as they come."""
    is_keyboard = sys.stdin.isatty()
    before = termios.tcgetattr(sys.stdin) if is_keyboard else None
    try:
        if is_keyboard:
            tty.setcbreak(sys.stdin)
        sys.stdout.write("\x1b[?1049h\x1b[?25l")
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        if before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
