"""What a machine, its kernel and its Python are like, as far as it bears on how aioxide runs there.

Everything is read, nothing is judged: that is `_doctor`.  What can't be read is None.
"""

import os
import platform
import resource
import socket
import ssl
import sys
import sysconfig
import time
import tracemalloc
from collections.abc import Callable
from importlib import metadata
from typing import Any

import aioxide
from aioxide import _core

# Packages that run on an event loop, or bring one.
LIBRARIES = (
    "aiohttp",
    "aiofiles",
    "aiomysql",
    "anyio",
    "asyncpg",
    "distributed",
    "fastapi",
    "grpcio",
    "httpx",
    "hypercorn",
    "ipykernel",
    "psycopg",
    "pytest-asyncio",
    "redis",
    "rloop",
    "sqlalchemy",
    "starlette",
    "tornado",
    "trio",
    "uvicorn",
    "uvloop",
    "websockets",
)


def build() -> dict[str, Any]:
    """Which aioxide this is."""
    return {
        "version": aioxide.__version__,
        "profile": _core._profile(),
        "file": _core.__file__,
        "wheel": _wheel_tag(),
    }


def _wheel_tag() -> str | None:
    """What the wheel that this came from was built for."""
    try:
        lines = (metadata.distribution("aioxide").read_text("WHEEL") or "").splitlines()
    except metadata.PackageNotFoundError:
        return None
    tags = [line.partition(":")[2].strip() for line in lines if line.startswith("Tag:")]
    return tags[-1] if tags else None


def python() -> dict[str, Any]:
    """The interpreter, and what it was told to do besides running the program."""
    configured = sysconfig.get_config_var("CONFIG_ARGS") or ""
    with_gil = getattr(sys, "_is_gil_enabled", lambda: True)
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "compiler": platform.python_compiler(),
        "debug_build": hasattr(sys, "gettotalrefcount"),
        "optimised": "--enable-optimizations" in configured or "--with-lto" in configured,
        "free_threaded_build": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "gil": with_gil(),
        "asserts": __debug__,
        "dev_mode": sys.flags.dev_mode,
        "asyncio_debug": not sys.flags.ignore_environment and bool(os.environ.get("PYTHONASYNCIODEBUG")),
        "malloc": os.environ.get("PYTHONMALLOC") or None,
        "tracemalloc": tracemalloc.is_tracing(),
        "traced_by": _tracer(),
        "openssl": ssl.OPENSSL_VERSION,
    }


def _tracer() -> str | None:
    """Who is told of each line or call: a debugger, a profiler, a measurement of coverage."""
    for function in (sys.gettrace(), sys.getprofile()):
        if function is not None:
            return getattr(function, "__module__", None) or type(function).__module__
    if sys.version_info >= (3, 12):
        for number in range(6):
            name = sys.monitoring.get_tool(number)
            if name is not None and sys.monitoring.get_events(number):
                return name
    return None


def kernel() -> dict[str, Any]:
    """The operating system: its version, the calls that it offers, and its limits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    libc = " ".join(platform.libc_ver())
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "libc": libc.strip() or None,
        # Why a call is not to be had, or None where it is.
        "calls": {name: os.strerror(number) if number else None for name, number in _core._kernel_calls()},
        "descriptors": _unless_unlimited(soft),
        "most_descriptors": _unless_unlimited(hard),
        "listen_backlog": _number("/proc/sys/net/core/somaxconn"),
        "ipv6": socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"),
    }


def _unless_unlimited(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def machine() -> dict[str, Any]:
    """The processors, and what a look at the clock and a call of the kernel cost."""
    clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    return {
        "processors": os.cpu_count(),
        "usable_processors": len(os.sched_getaffinity(0)),
        "processor_share": _quota(),
        "load": os.getloadavg()[0],
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "frequency_driver": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"),
        "clock_source": _text(clock),
        "clock_seconds": _cost(time.monotonic),
        "call_seconds": _cost(os.getppid),
    }


def _cost(function: Callable[[], object]) -> float:
    """What one call takes when nobody disturbs it, Python's part included."""
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(200):
            function()
        best = min(best, time.perf_counter() - started)
    return best / 200


def _quota() -> float | None:
    """How many processors the control group of this process may use at most, if there is a limit."""
    for line in (_text("/proc/self/cgroup") or "").splitlines():
        path = line.partition("::")[2]
        if not path:
            continue
        for place in ("/sys/fs/cgroup" + path.rstrip("/"), "/sys/fs/cgroup"):
            words = (_text(place + "/cpu.max") or "").split()
            if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]) > 0:
                return int(words[0]) / int(words[1])
    return None


def libraries() -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip() or None
    except OSError:
        return None


def _number(path: str) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None
