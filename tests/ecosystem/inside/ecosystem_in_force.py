"""Puts the loop under test in force; every Python process of a project's environment imports this as it starts.

`ECOSYSTEM_LOOP` says which: `stock` leaves asyncio alone, `aioxide` installs aioxide.
With `ECOSYSTEM_STAND_IN=uvloop` the loops that uvloop would make are of that kind as well,
so that uvloop's own tests run on them.
"""

import os


class Counter:
    """How many loops of aioxide have been made in this process, and how often somebody has counted."""

    loops = 0
    own = 0


def put_in_force():
    import asyncio

    factory = asyncio.SelectorEventLoop
    if os.environ["ECOSYSTEM_LOOP"] == "aioxide":
        import aioxide

        count_loops(aioxide.EventLoop)
        aioxide.install()
        factory = aioxide.EventLoop
    if os.environ.get("ECOSYSTEM_STAND_IN") == "uvloop":
        stand_in_for_uvloop(factory)


def count_loops(loop_type):
    initialise = loop_type.__init__

    def count_and_initialise(loop, *args, **kwargs):
        Counter.loops += 1
        initialise(loop, *args, **kwargs)

    loop_type.__init__ = count_and_initialise


def stand_in_for_uvloop(factory):
    import uvloop

    uvloop.Loop = factory
    uvloop.new_event_loop = factory  # its run() and its policy look this name up when they are called


if "ECOSYSTEM_LOOP" in os.environ:
    put_in_force()
