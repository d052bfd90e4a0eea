"""No input, however wrong, crashes the interpreter or lets a Rust panic through."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MISUSE = Path(__file__).with_name("misuse.py")


@pytest.mark.parametrize("part", ["functions", "classes", "loop", "transports"])
def test_misuse_ends_in_exceptions(part, tmp_path):
    environment = {**os.environ, "RUST_BACKTRACE": "1"}
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", MISUSE, part],
        env=environment,
        cwd=tmp_path,  # files are made of some of the names
        capture_output=True,
        text=True,
        errors="replace",
        timeout=170,
        check=False,
    )
    output = done.stdout[-2000:] + done.stderr[-4000:]
    assert done.returncode == 0, output
    assert "panicked" not in done.stderr, output
    last = done.stdout.splitlines()[-1]
    assert last.startswith("survived "), output
    assert int(last.split()[1]) > 100, output
