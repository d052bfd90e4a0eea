"""A worker process under a watchdog."""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import tempfile
import time

WORKER = pathlib.Path(__file__).with_name("worker.py")
# Variables that change how asyncio behaves, whatever the user likes to set.
UNWANTED = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS", "PYTHONTRACEMALLOC")


class WatchedWorker:
    """Runs one request.  Silence for longer than `patience` seconds ends it."""

    def __init__(self, request, patience):
        self._patience = patience
        self._directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._output = tempfile.TemporaryFile("w+b")
        self._lines, lines_of_worker = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, WORKER, str(lines_of_worker)],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            pass_fds=[lines_of_worker],
            cwd=self._directory.name,
            env={name: value for name, value in os.environ.items() if name not in UNWANTED},
            start_new_session=True,
        )
        os.close(lines_of_worker)
        with self._process.stdin as stdin:
            stdin.write(json.dumps(request).encode())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._kill(signal.SIGKILL)
        self._process.wait()
        os.close(self._lines)
        self._output.close()
        self._directory.cleanup()

    def events(self):
        """Its lines.  The last is its answer, or tells how it ended: `hung` or `died`."""
        rest = b""
        while self._readable():
            data = os.read(self._lines, 1 << 16)
            if not data:
                yield {"died": describe(self._process.wait()), "output": self._last_output()}
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                event = json.loads(line)
                yield event
                if "answer" in event:
                    return
        self._kill(signal.SIGABRT)  # on which faulthandler writes the stack of every thread
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            pass
        yield {"hung": f"silent for {self._patience:g} s", "output": self._last_output()}

    def _readable(self):
        """Wait for a line, not longer than patience lasts.

        A child of the worker may hold the pipe open after the worker's end, so
        the end of the process counts as well as the end of the pipe.
        """
        deadline = time.monotonic() + self._patience
        while (left := deadline - time.monotonic()) > 0:
            over = self._process.poll() is not None
            if select.select([self._lines], [], [], 0 if over else min(left, 0.5))[0]:
                return True
            if over:
                os.close(self._lines)
                self._lines = os.open(os.devnull, os.O_RDONLY)
        return False

    def _last_output(self):
        self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, self._output.tell() - 6000))
        return self._output.read().decode(errors="replace")

    def _kill(self, number):
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass


def describe(status):
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
