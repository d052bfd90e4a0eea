"""What a program that ends leaves to the interpreter."""

import subprocess
import sys

import pytest


def stderr_of(source):
    command = [sys.executable, "-X", "dev", "-c", source]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0
    return result.stderr


@pytest.mark.parametrize("module", ["asyncio", "aioxide"])
def test_a_loop_that_nobody_closed_is_reported_at_the_end(module):
    text = stderr_of(f"import {module}\nloop = {module}.new_event_loop()")
    assert "ResourceWarning: unclosed event loop" in text


@pytest.mark.parametrize("module", ["asyncio", "aioxide"])
def test_objects_of_the_program_are_finalized_at_the_end(module):
    """Nothing of the extension keeps the globals of the main module."""
    source = f"""
import {module}, sys

class Last:
    def __del__(self, write=sys.stderr.write):
        write("finalized")

last = Last()
"""
    assert stderr_of(source) == "finalized"
