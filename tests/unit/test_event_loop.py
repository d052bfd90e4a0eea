"""The loop's turns and life: what runs when, what a stop or an error leaves behind, what a close gives back."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
import weakref

import pytest


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def run_briefly(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


# --- turns -------------------------------------------------------------------


def test_callbacks_run_in_order_and_later_ones_in_the_next_turn(loop):
    seen = []

    def first():
        seen.append("first")
        loop.call_soon(seen.append, "next turn")

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    run_briefly(loop)
    assert seen == ["first", "second"]
    run_briefly(loop)
    assert seen == ["first", "second", "next turn"]


def test_due_timers_run_after_what_was_ready(loop):
    seen = []
    loop.call_later(0, seen.append, "timer")
    loop.call_at(loop.time() - 5, seen.append, "overdue")
    loop.call_soon(seen.append, "soon")
    run_briefly(loop)
    assert seen == ["soon", "overdue", "timer"]


def test_timers_keep_their_order(run, loop, aio):
    seen = []

    async def main():
        now = loop.time()
        for delay in (0.03, 0.01, 0.02):
            loop.call_at(now + delay, seen.append, delay)
        for number in range(3):
            loop.call_at(now + 0.04, seen.append, number)
        cancelled = loop.call_later(0.005, seen.append, "cancelled")
        cancelled.cancel()
        await asyncio.sleep(0.06)

    run(main())
    assert seen[:3] == [0.01, 0.02, 0.03]
    # asyncio says nothing about timers for the same time; here they fire in the order in which they were set.
    assert (sorted(seen[3:]) if aio is asyncio else seen[3:]) == [0, 1, 2]


def test_a_timer_never_fires_early(run, loop):
    async def main():
        for delay in (0.0001, 0.0015, 0.01):
            start = loop.time()
            await asyncio.sleep(delay)
            assert loop.time() - start >= delay - 1e-6

    run(main())


def test_a_busy_loop_still_sees_its_descriptors(run, loop):
    """While the ready queue is never empty, a byte is noticed within a few turns."""
    ours, theirs = socket.socketpair()
    turns = 0

    async def main():
        nonlocal turns
        seen = loop.create_future()
        spinning = True

        def spin():
            nonlocal turns
            if spinning:
                turns += 1
                loop.call_soon(spin)

        loop.add_reader(ours, lambda: seen.done() or seen.set_result(turns))
        spin()
        await asyncio.sleep(0.02)  # long enough for any backing off
        sent_at = turns
        theirs.send(b"x")
        noticed_at = await seen
        spinning = False
        loop.remove_reader(ours)
        return noticed_at - sent_at

    assert run(main()) < 64
    ours.close()
    theirs.close()


def test_a_thread_wakes_a_waiting_loop(run, loop):
    async def main():
        done = loop.create_future()
        thread = threading.Thread(target=lambda: (time.sleep(0.02), loop.call_soon_threadsafe(done.set_result, 7)))
        thread.start()
        assert await done == 7
        thread.join()

    run(main())


def test_a_flood_from_threads_loses_nothing(run, loop):
    async def main():
        counts = dict.fromkeys(range(4), 0)
        done = loop.create_future()

        def count(thread, number):
            assert counts[thread] == number  # the order of each thread is kept
            counts[thread] += 1
            if sum(counts.values()) == 4 * 2000:
                done.set_result(None)

        def flood(thread):
            for number in range(2000):
                loop.call_soon_threadsafe(count, thread, number)

        threads = [threading.Thread(target=flood, args=(number,)) for number in counts]
        for thread in threads:
            thread.start()
        await done
        for thread in threads:
            thread.join()

    run(main())


# --- what ends a run ---------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_exit_ends_the_run_and_leaves_the_rest_for_the_next(loop, error):
    seen = []

    def leave():
        raise error

    loop.call_soon(seen.append, 1)
    loop.call_soon(leave)
    loop.call_soon(seen.append, 2)
    with pytest.raises(type(error)) as caught:
        loop.run_forever()
    assert caught.value is error
    assert seen == [1]
    assert not loop.is_running()
    run_briefly(loop)
    assert seen == [1, 2]


def test_ctrl_c_in_a_wait_loses_nothing(loop):
    seen = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        loop.call_later(0.1, seen.append, "timer")
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        timer.join()
        loop.call_later(0.15, loop.stop)
        loop.run_forever()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == ["timer"]


def test_ctrl_c_in_a_callback_loses_nothing(loop):
    seen = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
        for number in range(100):
            loop.call_soon(seen.append, number)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        run_briefly(loop)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == list(range(100))


def test_a_signal_without_a_handler_of_the_loop_does_not_end_the_wait(run, loop):
    caught = []
    before = signal.signal(signal.SIGUSR2, lambda *args: caught.append(loop.time()))
    try:

        async def main():
            start = loop.time()
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR2)).start()
            await asyncio.sleep(0.06)
            assert loop.time() - start >= 0.06 - 1e-6

        run(main())
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert len(caught) == 1


def test_stop_before_the_run_makes_one_turn(loop):
    seen = []

    def callback():
        seen.append(1)
        loop.call_soon(seen.append, 2)

    loop.call_soon(callback)
    loop.stop()
    loop.run_forever()
    assert seen == [1]
    run_briefly(loop)
    assert seen == [1, 2]


def test_run_until_complete_of_what_is_never_done(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match=r"^Event loop stopped before Future completed\.$"):
        loop.run_until_complete(future)
    assert not future._callbacks


def test_run_until_complete_of_another_loops_future(new_loop):
    with contextlib.closing(new_loop()) as one, contextlib.closing(new_loop()) as other:
        with pytest.raises(ValueError, match="different loop"):
            one.run_until_complete(other.create_future())


def test_one_loop_at_a_time(new_loop, loop):
    async def main():
        with pytest.raises(RuntimeError, match=r"^This event loop is already running$"):
            loop.run_forever()
        with pytest.raises(RuntimeError, match=r"^This event loop is already running$"):
            loop.run_until_complete(loop.create_future())
        with pytest.raises(RuntimeError, match=r"^Cannot close a running event loop$"):
            loop.close()
        with contextlib.closing(new_loop()) as other:
            with pytest.raises(RuntimeError, match=r"^Cannot run the event loop while another loop is running$"):
                other.run_forever()
        assert loop.is_running()
        assert asyncio.get_running_loop() is loop

    loop.run_until_complete(main())
    assert not loop.is_running()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_each_thread_has_its_own(new_loop):
    results = []

    def work():
        with contextlib.closing(new_loop()) as loop:
            results.append(loop.run_until_complete(asyncio.sleep(0.01, threading.get_ident())))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4


# --- errors of callbacks -----------------------------------------------------


def test_an_error_is_reported_and_the_loop_goes_on(loop):
    reports = []
    loop.set_exception_handler(lambda where, context: reports.append((where, context)))
    error = ValueError("why not")

    def fail():
        raise error

    handle = loop.call_soon(fail)
    done = loop.create_future()
    done.set_result(None)
    done.add_done_callback(lambda future: 1 / 0)
    seen = []
    loop.call_soon(seen.append, 1)
    run_briefly(loop)
    assert seen == [1]
    (where, first), (_, second) = reports
    assert where is loop
    assert first["exception"] is error
    assert first["handle"] is handle
    assert first["message"].startswith("Exception in callback test_an_error")
    assert isinstance(second["exception"], ZeroDivisionError)
    assert isinstance(second["handle"], asyncio.Handle)


def test_the_default_handler_logs(loop, caplog):
    loop.call_soon(lambda: 1 / 0)
    run_briefly(loop)
    (record,) = caplog.records
    assert record.name == "asyncio"
    assert record.message.startswith("Exception in callback")
    assert record.exc_info[0] is ZeroDivisionError


def test_a_handler_that_fails(loop, caplog):
    loop.set_exception_handler(lambda where, context: 1 / 0)
    loop.call_exception_handler({"message": "hello"})
    (record,) = caplog.records
    assert record.message.startswith("Unhandled error in exception handler")
    assert "hello" in record.message
    loop.default_exception_handler = None
    loop.call_exception_handler({"message": "hello"})
    assert caplog.records[-1].message.startswith("Exception in default exception handler")
    assert caplog.records[-1].exc_info[0] is TypeError


def test_a_default_handler_that_fails_is_logged_as_the_exception_under_way(loop, monkeypatch):
    def fails(context):
        raise ValueError("spam")

    def error(*args, **kwargs):
        calls.append((args, kwargs, sys.exc_info()))

    calls = []
    monkeypatch.setattr(logging.getLogger("asyncio"), "error", error)
    loop.default_exception_handler = fails
    with contextlib.suppress(KeyError):
        try:
            raise KeyError("before")
        finally:
            before = sys.exc_info()
            loop.call_exception_handler({"message": "hello"})
            after = sys.exc_info()
    assert after == before
    assert before[0] is KeyError
    ((args, kwargs, (kind, value, traceback)),) = calls
    assert args == ("Exception in default exception handler",)
    assert kwargs == {"exc_info": True}
    assert kind is ValueError
    assert str(value) == "spam"
    assert traceback.tb_next is None or traceback.tb_next.tb_frame.f_code.co_name == "fails"
    assert sys.exc_info() == (None, None, None)


def test_a_handler_runs_in_the_context_of_the_task(run, loop, aio):
    if aio is asyncio and sys.version_info < (3, 12):
        pytest.skip("this version of asyncio calls the handler in the loop's own context")
    variable = contextvars.ContextVar("variable", default="outside")
    seen = []
    loop.set_exception_handler(lambda where, context: seen.append(variable.get()))

    async def main():
        variable.set("inside")
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        return asyncio.current_task()

    task = run(main())
    loop.call_exception_handler({"message": "x", "task": task})
    loop.call_exception_handler({"message": "x"})
    assert seen == ["inside", "inside", "outside"]


@pytest.mark.parametrize("wrong", [1, "x", []])
def test_what_cannot_be_a_handler(loop, wrong):
    with pytest.raises(TypeError, match="A callable object or None is expected"):
        loop.set_exception_handler(wrong)
    with pytest.raises(TypeError, match="task factory must be a callable or None"):
        loop.set_task_factory(wrong)


# --- debug mode --------------------------------------------------------------


def test_slow_callbacks_are_logged(loop, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.01

    async def dawdle():
        time.sleep(0.02)

    loop.call_soon(time.sleep, 0.02)
    loop.run_until_complete(dawdle())
    messages = [r.message for r in caplog.records if r.message.startswith("Executing")]
    assert len(messages) == 2
    assert "sleep" in messages[0]
    assert "<Task" in messages[1]
    assert all("seconds" in message for message in messages)


def test_debug_mode_notices_the_wrong_thread(run, loop):
    loop.set_debug(True)
    errors = []

    def call():
        for method in (loop.call_soon, lambda f: loop.call_later(1, f), lambda f: loop.call_at(1, f)):
            with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
                method(print)
            errors.append(1)

    async def main():
        await loop.run_in_executor(None, call)

    run(main())
    assert len(errors) == 3


def test_debug_mode_tracks_where_coroutines_are_made(loop):
    async def look():
        return sys.get_coroutine_origin_tracking_depth()

    assert loop.run_until_complete(look()) == 0
    loop.set_debug(True)
    assert loop.run_until_complete(look()) > 0
    assert sys.get_coroutine_origin_tracking_depth() == 0

    async def switch():
        loop.set_debug(False)
        await asyncio.sleep(0)
        return await look()

    assert loop.run_until_complete(switch()) == 0


# --- asynchronous generators -------------------------------------------------


def test_the_hooks_of_the_interpreter_are_given_back(loop):
    before = sys.get_asyncgen_hooks()

    async def look():
        return sys.get_asyncgen_hooks()

    inside = loop.run_until_complete(look())
    assert inside.firstiter is not None
    assert inside.finalizer is not None
    assert sys.get_asyncgen_hooks() == before


def test_generators_are_closed(run, loop):
    closed = []

    async def numbers(name):
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(name)

    async def main():
        async for _ in numbers("dropped"):
            break
        gc.collect()
        await asyncio.sleep(0.01)
        assert closed == ["dropped"]
        kept = numbers("kept")
        await kept.__anext__()
        await loop.shutdown_asyncgens()
        assert closed == ["dropped", "kept"]
        late = numbers("late")
        with pytest.warns(ResourceWarning, match="was scheduled after"):
            await late.__anext__()
        await late.aclose()

    run(main())


def test_a_generator_that_fails_to_close_is_reported(run, loop):
    reports = []
    loop.set_exception_handler(lambda where, context: reports.append(context))

    async def stubborn():
        try:
            yield 1
        finally:
            raise ValueError("no")

    async def main():
        generator = stubborn()
        await generator.__anext__()
        await loop.shutdown_asyncgens()
        return generator

    generator = run(main())
    (report,) = reports
    assert report["asyncgen"] is generator
    assert report["message"].startswith("an error occurred during closing of asynchronous generator")


# --- the end -----------------------------------------------------------------


def test_a_closed_loop_refuses(loop):
    loop.close()
    loop.close()
    assert loop.is_closed()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for call in (
            lambda: loop.call_soon(print),
            lambda: loop.call_soon_threadsafe(print),
            lambda: loop.call_later(1, print),
            lambda: loop.call_at(1, print),
            lambda: loop.add_reader(ours, print),
            lambda: loop.add_writer(ours, print),
            lambda: loop.run_in_executor(None, print),
            lambda: loop.add_signal_handler(signal.SIGUSR1, print),
            loop.run_forever,
        ):
            with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
                call()
        assert loop.remove_reader(ours) is False
        assert loop.remove_writer(ours) is False


def test_a_close_gives_everything_back(new_loop):
    loops = [new_loop() for _ in range(5)]
    ours, theirs = socket.socketpair()
    before = open_descriptors()
    with ours, theirs:
        for loop in loops:
            loop.add_reader(ours, print)
            loop.call_later(1000, print)
            run_briefly(loop)
            loop.close()
            loop._write_to_self()  # wakes nobody
        # Each gives back its poller and what wakes it.
        assert open_descriptors() <= before - 2 * len(loops)


def test_a_loop_in_a_cycle_is_collected(new_loop):
    class Thing:
        pass

    loop, thing = new_loop(), Thing()
    thing.loop = loop
    thing.timer = loop.call_later(1000, thing.__init__)
    thing.soon = loop.call_soon(thing.__init__)
    loop.set_exception_handler(lambda *args, thing=thing: None)
    gone = weakref.ref(thing)
    loop_gone = weakref.ref(loop)
    loop.close()
    del loop, thing
    gc.collect()
    assert gone() is None
    assert loop_gone() is None


def test_a_loop_that_nobody_closed_says_so(new_loop):
    loop = new_loop()
    message = "unclosed event loop <.*EventLoop running=False closed=False debug="
    with pytest.warns(ResourceWarning, match=message):
        del loop
        gc.collect()


def test_repr(loop):
    assert repr(loop).endswith("EventLoop running=False closed=False debug=False>")
    loop.close()
    assert repr(loop).endswith("EventLoop running=False closed=True debug=False>")


def test_a_child_of_fork_makes_its_own_loop(new_loop):
    async def main():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child:
            return child
        code = 1
        try:
            asyncio._set_running_loop(None)
            with contextlib.closing(new_loop()) as own:
                code = own.run_until_complete(asyncio.sleep(0.01, 42))
        finally:
            os._exit(code)

    with contextlib.closing(new_loop()) as loop:
        child = loop.run_until_complete(main())
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 42
        assert loop.run_until_complete(asyncio.sleep(0.01, 1)) == 1


LEFT_OPEN = """
import asyncio, signal, sys
if sys.argv[1] == "aioxide":
    import aioxide as asyncio

class Thing:
    pass

thing = Thing()
thing.itself = thing
thing.loop = loop = asyncio.new_event_loop()
loop.run_until_complete(loop.run_in_executor(None, max, 1, 2))
loop.call_later(100, print)
loop.add_signal_handler(signal.SIGUSR1, print)
thing.task = loop.create_task(asyncio.sleep(10))
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 ends the process without finalizing a native loop")
@pytest.mark.parametrize("debug", ["", "1"])
def test_a_loop_left_open_at_the_end_of_the_process(aio, debug):
    """The interpreter imports nothing more by then; what there is to say is said all the same."""
    command = [sys.executable, "-W", "always", "-c", LEFT_OPEN, "stock" if aio is asyncio else "aioxide"]
    environment = {**os.environ, "PYTHONASYNCIODEBUG": debug}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0
    assert result.stdout == ""
    assert "ResourceWarning: unclosed event loop" in result.stderr
    assert "Task was destroyed but it is pending!" in result.stderr
    assert "ImportError" not in result.stderr
    assert "Traceback" not in result.stderr


# --- subclasses --------------------------------------------------------------


def test_a_subclass_may_replace_call_soon(new_loop):
    with contextlib.closing(new_loop()) as sample:
        base = type(sample)
    calls = []

    class Recording(base):
        def call_soon(self, callback, *args, context=None):
            calls.append(callback)
            return super().call_soon(callback, *args, context=context)

    async def main():
        await asyncio.sleep(0)
        return 5

    with contextlib.closing(Recording()) as loop:
        assert loop.run_until_complete(main()) == 5
    assert len(calls) >= 3  # two steps and the end


def test_an_instance_may_replace_call_soon(loop):
    calls, original = [], loop.call_soon

    def call_soon(callback, *args, context=None):
        calls.append(callback)
        return original(callback, *args, context=context)

    async def main():
        loop.call_soon = call_soon
        await asyncio.sleep(0)
        del loop.call_soon
        assert loop.call_soon == original

    loop.run_until_complete(main())
    assert calls


def test_a_subclass_may_replace_the_clock(new_loop):
    with contextlib.closing(new_loop()) as sample:
        base = type(sample)

    class Shifted(base):
        def time(self):
            return super().time() + 1_000_000

    async def main():
        loop = asyncio.get_running_loop()
        start = loop.time()
        done = loop.create_future()
        loop.call_at(start + 0.02, done.set_result, None)
        await done
        await asyncio.sleep(0.02)
        return loop.time() - start

    with contextlib.closing(Shifted()) as loop:
        assert 0.04 <= loop.run_until_complete(asyncio.wait_for(main(), 5)) < 1
