"""The page in the browser: its address with the token, and what the page may do.

Native threads answer, so that a stalled loop is shown too; page.html asks them
for figures and tasks, and draws.
"""

import atexit
import base64
import hashlib
import re
import secrets
from importlib import resources

from aioxide import _core, _watchdog

_hooked = False


class Web:
    """The page, as long as it is served."""

    def __init__(self, port: int) -> None:
        global _hooked
        page = resources.files("aioxide").joinpath("page.html").read_text(encoding="utf-8")
        token = secrets.token_urlsafe(24)
        self.port = _core._web_start(port, token, page, _policy(page))
        self.url = f"http://127.0.0.1:{self.port}/?token={token}"
        self._watchdog = _watchdog.watch_quietly()
        if not _hooked:
            atexit.register(_core._web_stop)
            _hooked = True

    def close(self) -> None:
        """Serve it no more."""
        _core._web_stop()
        if self._watchdog is not None:
            self._watchdog.stop()


def _policy(page: str) -> str:
    """What a browser lets the page do: run its own script, use its own style, ask its own server."""
    allowed = {
        "default": "'none'",
        "script": _fingerprint(page, "script"),
        "style": _fingerprint(page, "style"),
        "img": "data:",
        "connect": "'self'",
    }
    rules = [f"{kind}-src {source}" for kind, source in allowed.items()]
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"])


def _fingerprint(page: str, tag: str) -> str:
    found = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    assert found is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"
