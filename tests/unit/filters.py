"""Filters of system calls (seccomp): how the kernel answers one of them, and what is to happen before it does."""

import ctypes
import errno
import os
import platform
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

NO_FILTER = b"no filter\n"
NO_NEW_PRIVILEGES, SECCOMP = 38, 317  # an option of prctl, and a system call of x86-64
ALLOW, ERRNO, NOTIFY = 0x7FFF0000, 0x50000, 0x7FC00000


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("operations", ctypes.c_void_p)]


def install(call, action, flags=0):
    """What is to be done about a system call of this thread and those it starts; the program ends if that cannot be."""
    operations = [(0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, action), (0x06, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *operation) for operation in operations))
    program = Program(len(operations), ctypes.addressof(code))
    libc = ctypes.CDLL(None)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    libc.syscall.argtypes = [ctypes.c_long, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p]
    refused = libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    listener = -1 if refused else libc.syscall(SECCOMP, 1, flags, ctypes.addressof(program))
    if listener < 0:
        os.write(1, NO_FILTER)
        os._exit(0)
    return listener


def without(call):
    """As on a kernel that has no such system call."""
    install(call, ERRNO | errno.ENOSYS)


def held_up(call):
    """A descriptor that tells of each such call, which goes on when it has been answered (seccomp_unotify(2))."""
    return install(call, NOTIFY, flags=8)


def run(program, *arguments):
    """Runs a program that installs a filter, and prints "done" when all is well."""
    if platform.machine() != "x86_64":
        pytest.skip("system calls have other numbers")
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    if done.stdout == NO_FILTER.decode():
        pytest.skip("system calls cannot be filtered here")
    assert (done.stdout, done.stderr) == ("done\n", "")
