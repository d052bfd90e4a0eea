"""`aioxide doctor`: what aioxide is and finds here, whether it works, and what makes it slow."""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import aioxide
from aioxide import _commands, _machine

Facts = Mapping[str, Any]

# A check that has not come to its end by then has failed; a machine may be busy.
PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that its reader would want to know, and what can be done."""

    kind: str
    """"broken" (something can't work), "slow", "limit" or "note"."""
    what: str
    advice: str


@dataclass(frozen=True, slots=True)
class Check:
    """Something that was tried."""

    name: str
    error: str | None
    """None if it works."""
    seconds: float


def main(words: list[str]) -> int:
    """Look, try, and report; the status to exit with is 1 if something does not work."""
    parser = _commands.Parser(words[0], __doc__)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(words[1:])
    facts = examine()
    checks = aioxide.run(try_all(), debug=False)
    findings = list(judge(facts))
    if options.json:
        report = {**facts, "checks": [asdict(check) for check in checks]}
        report["findings"] = [asdict(finding) for finding in findings]
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(describe(facts, checks, findings)) + "\n")
    works = all(check.error is None for check in checks) and all(found.kind != "broken" for found in findings)
    return 0 if works else 1


def examine() -> dict[str, Any]:
    """Everything that can be read."""
    return {
        "aioxide": _machine.build(),
        "python": _machine.python(),
        "machine": _machine.machine(),
        "kernel": _machine.kernel(),
        "libraries": _machine.libraries(),
    }


async def try_all() -> list[Check]:
    """Everything that can be tried without leaving the machine."""
    return [await _try(name, action) for name, action in CHECKS.items()]


async def _try(name: str, action: Callable[[], Awaitable[None]]) -> Check:
    started = time.monotonic()
    error = None
    try:
        async with aioxide.timeout(PATIENCE):
            await action()
    except TimeoutError:
        error = f"did not end within {PATIENCE:.0f} s"
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}".rstrip(": ")
    return Check(name, error, time.monotonic() - started)


def _expect(found: object, expected: object) -> None:
    if found != expected:
        raise RuntimeError(f"{found!r} came out, not {expected!r}")


async def _try_tasks() -> None:
    async def child(number: int) -> int:
        await aioxide.sleep(0.001)
        return number

    numbers = await aioxide.gather(*(child(number) for number in range(10)))
    _expect(numbers, list(range(10)))


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


async def _expect_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    _expect(answer, b"hello\n")


async def _try_tcp() -> None:
    async with await aioxide.start_server(_echo, "127.0.0.1", 0) as server:
        await _expect_echo(*await aioxide.open_connection("127.0.0.1", server.sockets[0].getsockname()[1]))


async def _try_unix() -> None:
    with tempfile.TemporaryDirectory(prefix="aioxide-") as directory:
        path = f"{directory}/socket"
        async with await aioxide.start_unix_server(_echo, path):
            await _expect_echo(*await aioxide.open_unix_connection(path))


async def _try_names() -> None:
    await aioxide.get_running_loop().getaddrinfo("localhost", 80)


async def _try_threads() -> None:
    _expect(await aioxide.to_thread(sum, [1, 2]), 3)


async def _try_subprocess() -> None:
    command = [sys.executable, "-SIc", "print(6 * 7)"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    _expect((process.returncode, output.strip()), (0, b"42"))


CHECKS: dict[str, Callable[[], Awaitable[None]]] = {
    "tasks and timers": _try_tasks,
    "TCP on this machine": _try_tcp,
    "Unix sockets": _try_unix,
    "names: localhost": _try_names,
    "threads": _try_threads,
    "subprocesses": _try_subprocess,
}

# Clock sources that a process reads without asking the kernel.
FAST_CLOCKS = {"tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "timebase", "riscv_clocksource"}


def judge(facts: Facts) -> Iterator[Finding]:
    """What of it matters."""
    yield from _judge_kernel(facts["kernel"])
    yield from _judge_build(facts["aioxide"], facts["python"])
    yield from _judge_python(facts["python"])
    yield from _judge_machine(facts["machine"])
    yield from _judge_libraries(facts["libraries"])


def _judge_kernel(kernel: Facts) -> Iterator[Finding]:
    missing = {name: why for name, why in kernel["calls"].items() if why is not None}
    for name in ("pidfd_open", "waitid_pidfd"):
        if name in missing:
            yield Finding(
                "broken",
                f"subprocesses can't be started: {name}: {missing[name]}",
                "They need Linux 5.4, and a container's filter that allows pidfd_open and waitid.",
            )
            break
    if "eventfd" in missing:
        yield Finding("broken", f"no loop can be made: eventfd: {missing['eventfd']}", "Allow it in the sandbox.")
    if "epoll_pwait2" in missing:
        yield Finding(
            "slow",
            f"timers are late by up to a millisecond: epoll_pwait2: {missing['epoll_pwait2']}",
            "Linux 5.11 has it; the filter of a container may forbid it.",
        )
    if "recvmmsg" in missing:
        yield Finding(
            "slow",
            f"datagrams are received one by one: recvmmsg: {missing['recvmmsg']}",
            "Allow it in the sandbox.",
        )
    descriptors = kernel["descriptors"]
    if descriptors is not None and descriptors < 4096:
        most = kernel["most_descriptors"]
        yield Finding(
            "limit",
            f"this process may have {descriptors} open descriptors, and as many connections at most",
            f"`ulimit -n {'unlimited' if most is None else most}` in the shell allows more.",
        )
    backlog = kernel["listen_backlog"]
    if backlog is not None and backlog < 1024:
        yield Finding(
            "limit",
            f"at most {backlog} connections wait to be accepted",
            "sysctl net.core.somaxconn raises it, then backlog= of the server.",
        )


def _judge_build(build: Facts, python: Facts) -> Iterator[Finding]:
    if build["profile"] not in {"pgo", "release"}:
        yield Finding(
            "slow",
            f"this aioxide was built with cargo's profile {build['profile']!r}",
            "Wheels have the fastest one, `pgo`; `release` comes next.",
        )
    if python["free_threaded_build"]:
        yield Finding(
            "note",
            "this Python can do without the GIL; aioxide can't, so the GIL comes back when it is imported",
            "Programs that want threads without it have to wait.",
        )


def _judge_python(python: Facts) -> Iterator[Finding]:
    if python["implementation"] != "CPython":
        yield Finding("broken", f"this is {python['implementation']}", "aioxide is an extension of CPython.")
    if python["debug_build"]:
        yield Finding("slow", "this is a debug build of Python", "It is several times slower: don't measure with it.")
    elif not python["optimised"]:
        yield Finding(
            "note",
            "this Python does not say that it was built with profile-guided optimisation",
            "Without, it is 10 to 30 % slower. Own builds (pyenv too) get it by configure --enable-optimizations.",
        )
    if python["dev_mode"]:
        yield Finding(
            "slow", "Python is in development mode", "Leave out -X dev and PYTHONDEVMODE: it turns debugging on."
        )
    if python["asyncio_debug"]:
        yield Finding("slow", "event loops are in debug mode", "Unset PYTHONASYNCIODEBUG.")
    if python["malloc"] not in (None, "pymalloc", "default", "mimalloc"):
        yield Finding(
            "slow", f"memory comes from another allocator: PYTHONMALLOC={python['malloc']}", "Unset PYTHONMALLOC."
        )
    if python["tracemalloc"]:
        yield Finding("slow", "each allocation is recorded", "Leave out -X tracemalloc and PYTHONTRACEMALLOC.")
    if python["traced_by"] is not None:
        yield Finding(
            "slow",
            f"each line or call of Python code is reported to {python['traced_by']}",
            "A debugger, a profiler or a measurement of coverage is at work.",
        )


def _judge_machine(machine: Facts) -> Iterator[Finding]:
    source, seconds = machine["clock_source"], machine["clock_seconds"]
    if source is not None and source not in FAST_CLOCKS:
        yield Finding(
            "slow",
            f"the clock is {source}, which only the kernel can read ({_short(seconds)} each time)",
            "`tsc` is the fast one on x86; the machine or its virtualisation has to offer it.",
        )
    elif seconds > 500e-9:
        yield Finding(
            "slow",
            f"a look at the clock takes {_short(seconds)}, not some 50 ns",
            "A sandbox may stand between programs and the kernel.",
        )
    if machine["call_seconds"] > 1500e-9:
        yield Finding(
            "slow",
            f"a system call takes {_short(machine['call_seconds'])} at least, not some 100 ns",
            "A sandbox such as gVisor, a tracer or an audit rule looks at each of them.",
        )
    if machine["governor"] == "powersave" and not (machine["frequency_driver"] or "").startswith("intel_pstate"):
        yield Finding(
            "slow",
            "the processors run at their lowest frequency: the governor is powersave",
            "`cpupower frequency-set -g performance` while you measure.",
        )
    usable, share = machine["usable_processors"], machine["processor_share"]
    if share is not None and share < usable:
        yield Finding(
            "limit",
            f"the processor time of this process is limited to {share:g} of {usable} processors",
            "When it is used up the process stands still, for up to 0.1 s each time.",
        )
    if machine["load"] > usable:
        yield Finding(
            "slow",
            f"others are at work: {machine['load']:.1f} processes for {usable} processors",
            "Wait with measurements.",
        )


def _judge_libraries(libraries: Facts) -> Iterator[Finding]:
    if "uvloop" in libraries and "uvicorn" in libraries:
        yield Finding(
            "note",
            "uvicorn prefers uvloop where that is installed",
            "Tell it otherwise: uvicorn --loop aioxide:new_event_loop.",
        )


def describe(facts: Facts, checks: list[Check], findings: list[Finding]) -> Iterator[str]:
    """The report for people."""
    build, python, kernel, machine = (facts[name] for name in ("aioxide", "python", "kernel", "machine"))
    yield f"aioxide {build['version']} ({build['profile']} build) on Python {python['version']}, {kernel['system']}"
    rows = {
        "extension": build["file"],
        "wheel": build["wheel"] or "not from a wheel",
        "python": f"{python['executable']} ({python['compiler']})",
        "TLS": python["openssl"],
        "kernel": f"{kernel['release']} on {kernel['machine']}, {kernel['libc'] or 'an unknown C library'}",
        "calls": ", ".join(name if why is None else f"no {name}" for name, why in kernel["calls"].items()),
        "descriptors": kernel["descriptors"] or "as many as there is room for",
        "processors": f"{machine['usable_processors']} of {machine['processors']}, load {machine['load']:.1f}"
        + (f", governor {machine['governor']}" if machine["governor"] else ""),
        "clock": f"{machine['clock_source'] or 'of an unknown source'}, {_short(machine['clock_seconds'])} a look",
        "system call": f"{_short(machine['call_seconds'])} at least",
    }
    yield from _table(rows)
    yield from _section("Libraries", facts["libraries"] or {"none": "of those that run on an event loop"})
    tried = {
        check.name: f"works ({_short(check.seconds)})" if check.error is None else f"FAILS: {check.error}"
        for check in checks
    }
    yield from _section("Tried", tried)
    yield ""
    if not findings:
        yield "Nothing stands in its way here."
    for finding in findings:
        yield f"{finding.kind}: {finding.what}"
        yield f"  {finding.advice}"


def _section(title: str, rows: Mapping[str, object]) -> Iterator[str]:
    yield ""
    yield title
    yield from _table(rows)


def _table(rows: Mapping[str, object]) -> Iterator[str]:
    width = max(map(len, rows), default=0)
    for name, value in rows.items():
        yield f"  {name:{width}}  {value}"


def _short(seconds: float) -> str:
    """A length of time with a unit that fits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"
