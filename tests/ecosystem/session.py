"""One run of a project's tests on one loop, through crashes and hangs to its end."""

import json
import os
import signal
import subprocess
import tempfile
import time

from project import clean_environment

GRACE = 30  # seconds that a process may take to end after its last test
ROUNDS = 40  # how often a run is taken up again after a crash or hang


class Session:
    """Runs pytest in the project's environment; `results` has a row for each test afterwards."""

    def __init__(self, project, loop, variables, words):
        self._project = project
        self._loop = loop
        self._variables = variables
        self._words = words
        self.results = {}
        self.trouble = []  # what went wrong outside any test
        self.made = {"loops": 0, "tasks": 0}

    def run(self, tests=None):
        """Run these tests of those that the project's arguments name, or all."""
        log = self._project.home / f"{self._loop}.log"
        deadline = time.monotonic() + 60 * self._project.minutes
        with open(log if tests is None else os.devnull, "wb") as output:
            for _ in range(ROUNDS):
                if self._process(tests, output, deadline):
                    return self
        self.trouble.append(f"given up after {ROUNDS} crashes and hangs")
        return self

    def _process(self, tests, output, deadline):
        """One process; whether nothing is left to do after it."""
        project = self._project
        with tempfile.TemporaryDirectory(prefix="ecosystem-") as scratch:
            record, done = os.path.join(scratch, "record"), os.path.join(scratch, "done")
            with open(done, "w") as file:
                json.dump({"done": list(self.results), "only": tests}, file)
            words = [word.format(**self._words) for word in self._arguments(tests)]
            started = output.tell()
            process = subprocess.Popen(
                [
                    *(project.python, "-X", "faulthandler", "-m", "pytest", "-p", "ecosystem_plugin"),
                    *("-p", "no:cacheprovider", "-o", "addopts=", "-o", "faulthandler_timeout=0", "--strict-markers"),
                    *(
                        "-q",
                        "--tb=short",
                        "--continue-on-collection-errors",
                        "--basetemp",
                        os.path.join(scratch, "base"),
                        *words,
                    ),
                ],
                cwd=project.source,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=clean_environment(
                    **self._variables,
                    PATH=f"{project.env / 'bin'}:{os.environ['PATH']}",
                    ECOSYSTEM_LOOP=self._loop,
                    ECOSYSTEM_STAND_IN=project.stand_in,
                    ECOSYSTEM_RECORD=record,
                    ECOSYSTEM_DONE=done,
                    ECOSYSTEM_PATIENCE=str(project.patience),
                ),
            )
            ended = self._wait(process, record, deadline)
            return self._read(record, ended, tail_of(output.name, started))

    def _arguments(self, tests):
        """The project's arguments; where tests are files below its source, those instead: to collect all takes long."""
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests or ()))
        if not files or not all((self._project.source / name).is_file() for name in files):
            return self._project.arguments
        return [word for word in self._project.arguments if not (self._project.source / word).exists()] + files

    def _wait(self, process, record, deadline):
        """How the process ended: its exit status, or why it was killed."""
        over = None
        try:
            while True:
                try:
                    return process.wait(0.5)
                except subprocess.TimeoutExpired:
                    now = time.monotonic()
                if now > deadline:
                    return "the time of the project is over"
                if over is None and is_over(record):
                    over = now
                if over is not None and now > over + GRACE:
                    return "does not end after its last test"
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # with whatever its tests have started
            except ProcessLookupError:
                pass
            process.wait()

    def _read(self, record, ended, tail):
        running, over, made = None, False, {}
        for event in events_of(record):
            if "start" in event:
                running = event["start"]
            elif "end" in event:
                running = None
                self.results[event.pop("end")] = event
            elif "broken" in event:
                self.results[event["broken"]] = {"status": "fail", "detail": event["detail"], "seconds": 0}
            elif "over" in event:
                over = True
            made = event.get("made", made)
        for what, number in made.items():
            self.made[what] += number
        if running is not None:
            status = "crash" if isinstance(ended, int) and ended < 0 else "hang"
            self.results[running] = {"status": status, "detail": f"{how(ended)}\n{tail}", "seconds": 0}
            return isinstance(ended, str) and self._note(ended)
        if isinstance(ended, str) or ended not in (0, 1, 5):
            return self._note(f"{'after' if over else 'outside'} the tests: {how(ended)}\n{tail}")
        return True

    def _note(self, text):
        self.trouble.append(text)
        return True


def how(ended):
    if isinstance(ended, str):
        return ended
    return f"killed by {signal.Signals(-ended).name}" if ended < 0 else f"exit status {ended}"


def is_over(record):
    return any("over" in event for event in events_of(record, last=3))


def events_of(record, last=0):
    try:
        with open(record, "rb") as file:
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines[-last:]]


def tail_of(name, start):
    """What a process has written at last; from where faulthandler begins, if it has written."""
    with open(name, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(start, file.tell() - 20000, 0))
        text = file.read().decode(errors="replace")
    for sign in ("Timeout (", "Fatal Python error"):
        if sign in text:
            return text[text.rindex(sign) :][:6000]
    return text[-6000:]
