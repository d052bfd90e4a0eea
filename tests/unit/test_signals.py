"""Signals as callbacks of the loop."""

import asyncio
import os
import signal
import threading

import pytest


@pytest.fixture(autouse=True)
def signals_are_given_back():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)}
    yield
    after = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert signal.set_wakeup_fd(-1) == -1
    assert after == before


def kill(number):
    os.kill(os.getpid(), number)


def test_handlers_get_their_arguments(run, loop):
    async def main():
        seen = []
        done = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, seen.append, "one")
        loop.add_signal_handler(signal.SIGUSR2, done.set_result, "two")
        kill(signal.SIGUSR1)
        kill(signal.SIGUSR2)
        assert await done == "two"
        await asyncio.sleep(0.01)
        assert seen == ["one"]
        assert loop.remove_signal_handler(signal.SIGUSR1) is True
        assert loop.remove_signal_handler(signal.SIGUSR2) is True
        assert loop.remove_signal_handler(signal.SIGUSR2) is False

    run(main())


def test_a_signal_wakes_a_waiting_loop(run, loop):
    async def main():
        done = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, done.set_result, None)
        timer = threading.Timer(0.05, kill, (signal.SIGUSR1,))
        timer.start()
        await done
        timer.join()
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


def test_a_second_handler_replaces_the_first(run, loop):
    async def main():
        done = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, pytest.fail, "the first handler was called")
        loop.add_signal_handler(signal.SIGUSR1, done.set_result, None)
        kill(signal.SIGUSR1)
        await done
        assert loop.remove_signal_handler(signal.SIGUSR1) is True

    run(main())


def test_sigint_gets_its_own_default_back(run, loop):
    async def main():
        done = loop.create_future()
        loop.add_signal_handler(signal.SIGINT, done.set_result, None)
        kill(signal.SIGINT)
        await done
        loop.remove_signal_handler(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    run(main())


def test_a_close_gives_the_signals_back(loop):
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.add_signal_handler(signal.SIGUSR2, print)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_only_the_main_thread_may_handle_signals(new_loop):
    errors = []

    def work():
        loop = new_loop()
        try:
            with pytest.raises(RuntimeError, match="main thread"):
                loop.add_signal_handler(signal.SIGUSR1, print)
            errors.append(1)
        finally:
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == [1]


@pytest.mark.parametrize("method", ["add_signal_handler", "remove_signal_handler"])
def test_what_is_no_signal(loop, method):
    arguments = (print,) if method.startswith("add") else ()
    with pytest.raises(TypeError, match=r"^sig must be an int, not 'x'$"):
        getattr(loop, method)("x", *arguments)
    for number in (0, -1, 1000):
        with pytest.raises(ValueError, match=rf"^invalid signal number {number}$"):
            getattr(loop, method)(number, *arguments)


def test_what_cannot_be_caught(loop):
    with pytest.raises(RuntimeError, match="cannot be caught"):
        loop.add_signal_handler(signal.SIGKILL, print)
    assert loop.remove_signal_handler(signal.SIGKILL) is False


def test_coroutines_are_no_handlers(loop):
    async def handler():
        pass

    with pytest.raises(TypeError, match=r"^coroutines cannot be used with add_signal_handler\(\)$"):
        loop.add_signal_handler(signal.SIGUSR1, handler)
    coroutine = handler()
    with pytest.raises(TypeError, match=r"^coroutines cannot be used with add_signal_handler\(\)$"):
        loop.add_signal_handler(signal.SIGUSR1, coroutine)
    coroutine.close()
