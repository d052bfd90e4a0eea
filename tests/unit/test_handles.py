"""Handles: the context each callback runs in, and what the garbage collector knows of handles."""

import asyncio
import contextvars
import gc
import sys
import threading
import traceback
import weakref

import aioxide
import pytest

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")
OTHER = contextvars.ContextVar("OTHER", default=None)


class Token:
    """Something that weak references can watch."""


def collected(reference):
    gc.collect()
    return reference() is None


WAYS = {
    "call_soon": lambda loop, *args: loop.call_soon(*args),
    "call_later": lambda loop, *args: loop.call_later(0, *args),
    "call_at": lambda loop, *args: loop.call_at(loop.time(), *args),
    "call_soon_threadsafe": lambda loop, *args: loop.call_soon_threadsafe(*args),
}


@pytest.fixture(params=list(WAYS))
def schedule(request):
    return WAYS[request.param]


def turns(loop, number=3):
    async def main():
        for _ in range(number):
            await asyncio.sleep(0.001)

    loop.run_until_complete(main())


def test_a_callback_sees_the_variables_of_when_it_was_scheduled(loop, schedule):
    seen = []

    def look():
        seen.append(VARIABLE.get())

    async def main():
        for value in "one", "two":
            VARIABLE.set(value)
            schedule(loop, look)
        VARIABLE.set("three")
        await asyncio.sleep(0.01)
        return VARIABLE.get()

    assert loop.run_until_complete(main()) == "three"
    assert seen == ["one", "two"]
    assert VARIABLE.get() == "unset"


def test_what_a_callback_sets_no_other_callback_sees(loop, schedule):
    seen = []

    def change(value):
        seen.append((VARIABLE.get(), OTHER.get()))
        VARIABLE.set(value)
        OTHER.set(value)
        seen.append((VARIABLE.get(), OTHER.get()))

    for value in range(3):
        schedule(loop, change, value)
    turns(loop)
    assert seen == [("unset", None), (0, 0), ("unset", None), (1, 1), ("unset", None), (2, 2)]
    assert VARIABLE.get() == "unset"


def test_callbacks_inside_callbacks_have_contexts_of_their_own(loop, schedule):
    seen = []

    def inner():
        seen.append(VARIABLE.get())
        VARIABLE.set("inner")

    def outer():
        VARIABLE.set("outer")
        schedule(loop, inner)
        contextvars.copy_context().run(inner)
        seen.append(VARIABLE.get())

    schedule(loop, outer)
    turns(loop)
    assert seen == ["outer", "outer", "outer"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Handle.get_context() is 3.12's")
def test_the_context_of_a_handle_is_one_and_the_same(loop, schedule):
    token = VARIABLE.set("scheduled")
    inside = []

    def look():
        OTHER.set("ran")
        inside.append(handle.get_context())

    handle = schedule(loop, look)
    VARIABLE.reset(token)
    before = handle.get_context()
    assert before[VARIABLE] == "scheduled"
    assert OTHER not in before
    turns(loop)
    assert inside[0] is before
    assert handle.get_context() is before
    assert before[OTHER] == "ran"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Handle.get_context() is 3.12's")
def test_a_context_that_somebody_keeps_is_not_used_again(loop, schedule):
    kept, handles = [], []

    def keep(value):
        VARIABLE.set(value)
        kept.append(handles.pop(0).get_context())

    def watch(value):
        VARIABLE.set(value)
        watched.append(weakref.ref(handles.pop(0).get_context()))

    watched = []
    for value in range(3):
        handles.append(schedule(loop, keep, value))
    turns(loop)
    assert [context[VARIABLE] for context in kept] == [0, 1, 2]
    assert len({id(context) for context in kept}) == 3
    for value in range(3):
        handles.append(schedule(loop, watch, value))
    turns(loop)
    assert [collected(reference) for reference in watched] == [True] * 3


def test_a_given_context_is_the_one_that_is_entered(loop, schedule):
    context = contextvars.Context()
    loop.call_soon(VARIABLE.set, "set", context=context)
    loop.call_later(0, VARIABLE.set, "set", context=context)
    turns(loop)
    assert context[VARIABLE] == "set"
    assert VARIABLE.get() == "unset"


def test_values_of_a_callback_go_when_it_is_over(loop, schedule):
    token = Token()
    reference = weakref.ref(token)
    schedule(loop, VARIABLE.set, token)
    del token
    turns(loop)
    assert collected(reference)


def test_threads_have_contexts_of_their_own():
    def work(results):
        loop = aioxide.new_event_loop()

        def change(value):
            results.append((VARIABLE.get(), value))
            VARIABLE.set(value)

        try:
            for value in range(50):
                loop.call_soon(change, value)
                loop.call_later(0, change, value)
            turns(loop)
        finally:
            loop.close()

    found = [[] for _ in range(4)]
    threads = [threading.Thread(target=work, args=(results,)) for results in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results in found:
        assert sorted(results) == sorted([("unset", value) for value in range(50)] * 2)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_arguments_of_a_handle(loop, schedule, count):
    got = []
    handle = schedule(loop, lambda *args: got.append(args), *range(count))
    assert handle._args == tuple(range(count))
    turns(loop)
    assert got == [tuple(range(count))]
    cancelled = schedule(loop, print, *range(count))
    cancelled.cancel()
    assert cancelled._args is None


def test_a_tuple_as_the_only_argument(loop, schedule):
    got = []
    handle = schedule(loop, got.append, (1, 2))
    assert handle._args == ((1, 2),)
    turns(loop)
    assert got == [(1, 2)]


@pytest.mark.parametrize("end", ["run", "cancel", "stop", "close"])
def test_a_cycle_through_a_handle_is_collected(loop, schedule, end):
    """callback -> token -> handle, and variable -> token: whatever ends the handle."""

    async def main():
        token = Token()
        VARIABLE.set(token)
        token.handle = schedule(loop, lambda: token) if end == "run" else schedule(loop, token.__init__)
        if end == "cancel":
            token.handle.cancel()
        if end in ("run", "cancel"):
            await asyncio.sleep(0.01)
        return weakref.ref(token)

    reference = contextvars.copy_context().run(loop.run_until_complete, main())
    if end == "stop":
        turns(loop)
    if end == "close":
        loop.close()
    assert collected(reference)


def test_what_a_waiting_handle_holds_stays(loop):
    token = Token()
    reference = weakref.ref(token)

    async def main():
        nonlocal token
        token.handle = loop.call_later(0.05, token.__init__)
        token = None
        gc.collect()
        assert reference() is not None
        await asyncio.sleep(0.1)

    loop.run_until_complete(main())
    assert collected(reference)


def test_a_loop_that_is_dropped_with_handles_waiting_is_collected():
    def schedule_all(loop):
        for schedule in WAYS.values():
            schedule(loop, id, loop)
        loop.call_later(3600, id, loop)
        loop.stop()

    loop = aioxide.new_event_loop()
    loop.call_soon(schedule_all, loop)
    loop.run_forever()
    reference = weakref.ref(loop)
    del loop
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        gc.collect()
    assert collected(reference)


def test_a_handle_that_is_kept_is_tracked_once_it_has_left_the_loop():
    async def main():
        loop = asyncio.get_running_loop()
        VARIABLE.set(None)
        ran, cancelled, waiting = loop.call_soon(int), loop.call_later(60, int), loop.call_later(60, int)
        cancelled.cancel()
        await asyncio.sleep(0)
        return loop, ran, cancelled, waiting

    loop, *handles = aioxide.run(main())
    assert [gc.is_tracked(handle) for handle in handles] == [True] * 3
    assert loop.is_closed()


def test_a_cancelled_handle_does_not_keep_its_loop(schedule):
    async def cancel_some():
        loop = asyncio.get_running_loop()
        handles = [schedule(loop, int, 1) for _ in range(3)]
        for handle in handles:
            handle.cancel()
            assert handle._loop is loop
            assert gc.is_tracked(handle) == (loop in gc.get_referents(handle))
        return handles

    def use_a_loop():
        loop = aioxide.new_event_loop()
        first, second, third = loop.run_until_complete(cancel_some())
        loop.close()
        loop.kept = first  # a circle, if the handle held the loop
        context = second.get_context()
        context.run(VARIABLE.set, second)  # another
        return third, weakref.ref(loop), weakref.ref(first), weakref.ref(second)

    handle, *references = contextvars.Context().run(use_a_loop)
    assert all(map(collected, references))
    assert handle._loop is None
    assert handle.cancelled()


def test_a_cancelled_handle_is_not_kept_for_ever(loop):
    async def main():
        loop.call_later(60, int)
        kept = [loop.call_later(60, int) for _ in range(1000)]
        watched = list(map(weakref.ref, kept))
        for handle in kept:
            handle.cancel()
        del kept, handle
        await asyncio.sleep(0)
        assert sum(reference() is not None for reference in watched) < 150
        for _ in range(150):
            loop.call_later(60, int).cancel()
        assert all(reference() is None for reference in watched)

    loop.run_until_complete(main())


def test_cancelling_as_timers_come_to_their_time_hits_nobody_else(loop):
    """A place among the timers that is free again goes to another timer."""
    ran = []

    async def main():
        for wave in range(20):
            due = [loop.call_later(0, int) for _ in range(50)]
            await asyncio.sleep(0.002)
            late = [loop.call_later(0.01, ran.append, (wave, number)) for number in range(50)]
            for handle in due + late[::2]:
                handle.cancel()
            assert all(handle._scheduled for handle in late[1::2])
        await asyncio.sleep(0.05)

    loop.run_until_complete(main())
    assert sorted(ran) == [(wave, number) for wave in range(20) for number in range(1, 50, 2)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_handle_whose_callback_raises_is_tracked(error):
    loop = aioxide.new_event_loop()
    seen = []
    loop.set_exception_handler(lambda loop, details: seen.append(details["handle"]))

    def fail():
        raise error

    async def main():
        handles.append(asyncio.get_running_loop().call_soon(fail))
        await asyncio.sleep(0)

    handles = []
    if error is ValueError:
        loop.run_until_complete(main())
        assert seen == handles
    else:
        with pytest.raises(error):
            loop.run_until_complete(main())
        loop.run_until_complete(asyncio.sleep(0))
    assert gc.is_tracked(handles[0])
    loop.close()


@pytest.mark.skipif(not hasattr(sys, "gettotalrefcount"), reason="needs a debug build of Python")
def test_references_stay_as_many_as_they_were(schedule):
    loop = aioxide.new_event_loop()

    def change(*values):
        VARIABLE.set(values)

    def work():
        for _ in range(200):
            schedule(loop, change)
            schedule(loop, change, 1)
            schedule(loop, change, 1, 2).cancel()
            kept = schedule(loop, change, 1)
        turns(loop)
        del kept
        gc.collect()
        return sys.gettotalrefcount()

    work()
    before = work()
    assert work() - before < 50
    loop.close()


def test_the_time_of_a_timer_is_given_back_as_it_came(loop):
    whole = int(loop.time()) + 1000
    handle = loop.call_at(whole, print)
    assert handle.when() == whole
    assert isinstance(handle.when(), int)
    assert f"when={whole} " in repr(handle)
    handle.cancel()
    handle = loop.call_at(whole + 0.5, print)
    assert isinstance(handle.when(), float)
    handle.cancel()
    handle = loop.call_later(1000, print)
    assert isinstance(handle.when(), float)
    handle.cancel()


def test_an_int_as_time_of_a_timer_is_due(loop):
    done = loop.create_future()
    loop.call_at(int(loop.time()), done.set_result, "due")
    assert loop.run_until_complete(asyncio.wait_for(done, 30)) == "due"


def test_each_handle_leaves_its_own_loop(new_loop):
    """Of two loops that run at the same time, and one that has run, with as many timers each in the same places."""
    ran = {"first": [], "second": [], "third": []}
    handles = {}  # by the name of their loop
    started, cancelled = threading.Event(), threading.Event()

    async def plan(name):
        loop = asyncio.get_running_loop()
        handles[name] = [loop.call_later(0.05, ran[name].append, number) for number in range(4)]

    async def first():
        await plan("first")
        started.set()
        cancelled.wait(10)
        await asyncio.sleep(0.1)

    async def second():
        await plan("second")
        for number, name in enumerate(handles):
            handles[name][number].cancel()
        cancelled.set()
        await asyncio.sleep(0.1)

    loops = [new_loop() for _ in range(3)]
    loops[2].run_until_complete(plan("third"))
    thread = threading.Thread(target=loops[0].run_until_complete, args=(first(),))
    thread.start()
    assert started.wait(10)
    loops[1].run_until_complete(second())
    thread.join(10)
    handles["third"][3].cancel()
    loops[2].run_until_complete(asyncio.sleep(0.1))
    for loop in loops:
        loop.close()
    assert list(handles) == ["third", "first", "second"]
    assert ran == {"third": [1, 2], "first": [0, 2, 3], "second": [0, 1, 3]}


def test_a_waiting_handle_outlives_its_loop():
    async def plan():
        return asyncio.get_running_loop().call_later(100, print, 1)

    loop = aioxide.new_event_loop()
    handle = contextvars.Context().run(loop.run_until_complete, plan())
    assert handle._loop is loop
    gone = weakref.ref(loop)
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()
    assert gone() is None
    assert handle._loop is None
    assert "TimerHandle when=" in repr(handle)
    handle.cancel()
    assert handle.cancelled()


@pytest.mark.parametrize("debug", [False, True])
def test_a_timer_with_variables_keeps_its_loop(new_loop, debug):
    async def plan():
        VARIABLE.set("something")
        handles = [asyncio.get_running_loop().call_later(100, print) for _ in range(2)]
        handles[0].cancel()
        return handles

    loop = new_loop()
    loop.set_debug(debug)
    handles = loop.run_until_complete(plan())
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert all(handle._loop is gone() is not None for handle in handles)
    del handles
    gc.collect()
    assert gone() is None


def test_the_collector_knows_a_handle_that_was_made_while_the_loop_stopped(monkeypatch):
    """In debug mode the making of one takes long enough for that: its source is noted by Python code."""
    loop = aioxide.new_event_loop()
    loop.set_debug(True)
    running = threading.Event()
    loop.call_soon(running.set)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    assert running.wait(10)
    walk = traceback.walk_stack

    def stop_and_walk(frame):
        monkeypatch.undo()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        return walk(frame)

    monkeypatch.setattr(traceback, "walk_stack", stop_and_walk)
    handle = loop.call_soon_threadsafe(print)
    assert not loop.is_running()
    assert gc.is_tracked(handle)
    loop.close()
