"""What holds for all tests."""

import faulthandler
import sys


def pytest_unconfigure():
    """Shows all stacks and ends, where a thread that has outlived its failed test keeps the interpreter here."""
    faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__)
