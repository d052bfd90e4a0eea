"""One measurement inside a process of its own; prints one number.

python benchmarks/probe.py LOOP program GROUP/NAME SCALE REPEATS     CPU seconds for one operation
python benchmarks/probe.py LOOP idle NAME SCALE                      bytes for one idle thing
"""

import asyncio
import gc
import sys
import time

import loops


def resident(pid="self"):
    """Private resident bytes of a process."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Private_"))


def cost_of_program(factory, name, scale, repeats):
    """The cheapest of some runs, after one to warm up. Another loop is made for each."""
    from workloads import WORKLOADS, scaled

    function, n = WORKLOADS[name]
    n = scaled(n, scale)
    costs = []
    for _ in range(1 + repeats):
        gc.collect()
        with asyncio.Runner(loop_factory=factory) as runner:
            loop = runner.get_loop()
            asyncio.set_event_loop(loop)  # where children need a watcher of their loop (3.11)
            began = time.process_time()
            done = runner.run(function(n))
            costs.append((time.process_time() - began) / n)
        if done != n:
            raise SystemExit(f"did {done} operations of {n}")
    return min(costs[1:])


def weight_of(factory, name):
    from workloads import IDLE

    make, n = IDLE[name]

    async def main():
        await make(100)
        await asyncio.sleep(0)
        gc.collect()
        before = resident()
        held = await make(n)
        for _ in range(3):
            await asyncio.sleep(0)
        after = resident()
        for thing in held:
            thing.cancel()
        return (after - before) / n

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


if __name__ == "__main__":
    _, loop, what, name, *rest = sys.argv
    factory = loops.use(loop)
    if what == "program":
        print(cost_of_program(factory, name, float(rest[0]), int(rest[1])))
    else:
        print(weight_of(factory, name))
