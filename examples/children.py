"""Run many programs at once, a few at a time, and collect what they print.

    aioxide examples/children.py [--at-once N] [-- COMMAND ...]

Each line of the standard input is the last argument of one run of COMMAND (by default, of a small Python
program). A run that takes too long is terminated, then killed.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass

PROGRAM = (sys.executable, "-c", "import sys; n = int(sys.argv[1]); print(sum(range(n))); sys.exit(n % 7 == 0)")


@dataclass
class Outcome:
    argument: str
    status: int | None  # None: it took too long
    output: bytes
    errors: bytes


async def run(command: Sequence[str], argument: str, patience: float) -> Outcome:
    """Run a command; nothing of it is left when this returns, also when it is cancelled."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, argument, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(patience):
            output, errors = await process.communicate()
        return Outcome(argument, process.returncode, output, errors)
    except TimeoutError:
        return Outcome(argument, None, b"", b"took too long")
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(1):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def run_all(
    command: Sequence[str], arguments: Sequence[str], at_once: int, patience: float = 30.0
) -> list[Outcome]:
    limit = asyncio.Semaphore(at_once)

    async def limited(argument: str) -> Outcome:
        async with limit:
            return await run(command, argument, patience)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(limited(argument)) for argument in arguments]
    return [task.result() for task in tasks]


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("command", nargs="*", default=PROGRAM, metavar="COMMAND")
    options = parser.parse_args()
    own = tuple(options.command) == PROGRAM
    arguments = [str(n) for n in range(1, 41)] if own else sys.stdin.read().split("\n")[:-1]
    outcomes = asyncio.run(run_all(options.command, arguments, options.at_once))
    for outcome in outcomes:
        print(outcome.argument, outcome.status, outcome.output.decode(errors="replace").rstrip())
    if own:
        right = [(outcome.status, int(outcome.output)) for outcome in outcomes]
        return 0 if right == [(int(n % 7 == 0), sum(range(n))) for n in range(1, 41)] else 1
    return max((1 if outcome.status is None else outcome.status for outcome in outcomes), default=0)


if __name__ == "__main__":
    sys.exit(main())
