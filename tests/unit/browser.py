"""Headless Chromium, driven by its DevTools protocol over a pair of pipes: pages as somebody sees them."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

OWN = Path(__file__).resolve().parents[2] / ".browsers" / "chromium"  # tools/install-browser puts it there
NAMES = ("chromium", "chromium-headless-shell", "google-chrome", "google-chrome-stable", "chromium-browser")


def find():
    """The command of a browser, or None."""
    return str(OWN) if OWN.exists() else next(filter(None, map(shutil.which, NAMES)), None)


needed = pytest.mark.skipif(find() is None, reason="no Chromium here: tools/install-browser gets one")


class Browser:
    """One page in a browser of its own; used as a context manager."""

    def __init__(self, width=1280, height=900, dark=False):
        self.size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.dark = dark
        self.messages = 0
        self.received = b""
        self.events = []

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="browser-")
        theirs_in, self.to = os.pipe()
        self.from_, theirs_out = os.pipe()
        # Out of the way of 3 and 4, which is where the browser looks for its pipes.
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out)]
        os.close(theirs_in)
        os.close(theirs_out)
        command = [
            find(),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            f"--user-data-dir={self.directory}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        devnull = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
        pipes = [(os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[1], 4)]
        self.pid = os.posix_spawn(command[0], command, os.environ, file_actions=devnull + pipes, setpgroup=0)
        for end in high:
            os.close(end)
        self.session = None
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.call("Emulation.setDeviceMetricsOverride", **self.size)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if self.dark else "light"}
            self.call("Emulation.setEmulatedMedia", features=[scheme])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.to)
        os.close(self.from_)
        shutil.rmtree(self.directory, ignore_errors=True)

    def call(self, method, **parameters):
        """The result of a method of the protocol."""
        self.messages += 1
        message = {"id": self.messages, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 60
        while True:
            answer = self._next(end)
            if answer.get("id") == self.messages:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _next(self, end):
        while b"\0" not in self.received:
            assert select.select([self.from_], [], [], max(end - time.monotonic(), 0))[0], "the browser does not answer"
            piece = os.read(self.from_, 1 << 16)
            assert piece, "the browser has ended"
            self.received += piece
        text, _, self.received = self.received.partition(b"\0")
        return json.loads(text)

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script):
        """The value of an expression of JavaScript; a promise is awaited."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script, seconds=30):
        """The value of an expression as soon as there is something true to it."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}\n{self.text()}"
            time.sleep(0.1)
        return value

    def text(self):
        """What a reader sees."""
        return self.run("document.body.innerText")

    def complaints(self):
        """Exceptions, violations of the page's policy and failed loads so far."""
        self.run("0")
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded")
        return [event["params"] for event in self.events if event.get("method") in kinds]

    def requests(self):
        """The addresses that the page has asked for."""
        events = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in events]

    def screenshot(self, path):
        picture = self.call("Page.captureScreenshot", format="png")
        Path(path).write_bytes(base64.b64decode(picture["data"]))
