"""For tests: an event loop with a virtual clock: sleeps and timeouts take no time, and always the same turn."""

from aioxide._loop import EventLoop

__all__ = ["new_virtual_loop"]


def new_virtual_loop(start: float = 0.0) -> EventLoop:
    """Return an event loop with a virtual clock.

    `start` is what `loop.time()` says at first, in seconds. When nothing is ready the clock jumps to the next timer
    at once. Real input and output, threads and signals still work, but no virtual time passes while they are waited
    for, and a loop without timers waits for them as long as it takes. The rules of order are those of every loop:
    FIFO, one iteration runs what was ready when it began.
    """
    loop = EventLoop()
    loop._use_virtual_clock(start)
    return loop
