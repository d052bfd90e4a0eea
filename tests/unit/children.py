"""What tests of child processes share."""

import contextlib
import os
import sys
import textwrap
from multiprocessing import forkserver, resource_tracker

SLEEP = ("/bin/sleep", "100")
CAT = ("/bin/cat",)


def script(source):
    return (sys.executable, "-S", "-c", textwrap.dedent(source))


def open_descriptors():
    """What the open descriptors lead to."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(found)


def children():
    """Processes started by this one that are left, running or not; but for those that multiprocessing keeps."""
    assert os.path.exists("/proc/thread-self/children"), "a kernel that does not tell"
    found = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/task/{thread}/children") as file:
            found.update(map(int, file.read().split()))
    return found - {resource_tracker._resource_tracker._pid, forkserver._forkserver._forkserver_pid}


def reap(pid):
    """Take the status of a child away from whoever wants it."""
    os.waitpid(pid, 0)
