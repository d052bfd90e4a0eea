"""What goes wrong goes wrong as in asyncio: the same exception, at the call, and the loop goes on."""

import asyncio
import os
import re
import socket
import sys
import threading

import aioxide
import pytest


@pytest.fixture(autouse=True)
def loop_goes_on(loop):
    """After everything that went wrong the loop still runs what it is given."""
    yield
    if not loop.is_closed():
        ran = []
        loop.call_soon(ran.append, 1)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert ran == [1]


def free_descriptor():
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


@pytest.mark.parametrize("name", ["call_soon", "call_later", "call_at", "call_soon_threadsafe", "run_in_executor"])
@pytest.mark.parametrize("arguments", [(), (1,), (1, 2, 3), (None,), ("text", "text")])
def test_scheduling_without_something_to_call(name, arguments, loop):
    if name == "run_in_executor" and len(arguments) > 1:
        pytest.skip("the second argument is called in a thread")
    loop.set_debug(True)  # in which asyncio looks at what it is to call
    with pytest.raises((TypeError, AttributeError)):
        getattr(loop, name)(*arguments)


@pytest.mark.parametrize("name", ["call_later", "call_at"])
def test_no_time_at_all(name, loop):
    with pytest.raises(TypeError):
        getattr(loop, name)(None, print)


def test_sleep_refuses_what_is_no_number(run, aio):
    if aio is asyncio and sys.version_info < (3, 13):
        pytest.skip("this version of asyncio sleeps for no time at all")
    with pytest.raises(ValueError, match="NaN"):
        run(aio.sleep(float("nan")))
    with pytest.raises(TypeError):
        run(aio.sleep("1"))


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.call_soon(print),
        lambda loop: loop.call_later(1, print),
        lambda loop: loop.call_at(1, print),
        lambda loop: loop.call_soon_threadsafe(print),
        lambda loop: loop.run_in_executor(None, print),
        lambda loop: loop.run_forever(),
        lambda loop: loop.run_until_complete(loop.create_future()),
        lambda loop: loop.add_reader(0, print),
        lambda loop: loop.add_writer(1, print),
        lambda loop: loop.add_signal_handler(2, print),
    ],
)
def test_a_closed_loop_refuses(call, loop):
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        call(loop)


def test_a_closed_loop_makes_no_tasks(loop):
    async def nothing():
        pass

    loop.close()
    coroutine = nothing()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.create_task(coroutine)
    coroutine.close()


def test_closing_twice_is_nothing_new(loop):
    loop.close()
    loop.close()
    assert loop.is_closed()


def test_a_running_loop_cannot_be_closed_or_run(loop):
    async def main():
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_until_complete(loop.create_future())

    loop.run_until_complete(main())


def test_another_loop_cannot_run_inside(loop, new_loop):
    async def main():
        other = new_loop()
        try:
            with pytest.raises(RuntimeError, match="another loop is running"):
                other.run_forever()
        finally:
            other.close()

    loop.run_until_complete(main())


def test_call_soon_from_the_wrong_thread_in_debug_mode(loop):
    loop.set_debug(True)
    problems = []

    def misuse():
        for call in (lambda: loop.call_soon(print), lambda: loop.call_later(1, print)):
            try:
                call()
            except RuntimeError as error:
                problems.append(str(error))

    async def main():
        thread = threading.Thread(target=misuse)
        thread.start()
        await asyncio.to_thread(thread.join)

    loop.run_until_complete(main())
    assert len(problems) == 2
    assert all("Non-thread-safe operation" in problem for problem in problems)


@pytest.mark.parametrize("name", ["add_reader", "add_writer"])
class TestWatchers:
    def test_a_descriptor_that_is_not_open(self, name, loop):
        with pytest.raises(OSError, match="Bad file descriptor"):
            getattr(loop, name)(free_descriptor(), print)

    @pytest.mark.parametrize("wrong", ["text", None, object(), 1.5])
    def test_what_is_no_descriptor(self, name, loop, wrong):
        with pytest.raises(ValueError, match="Invalid file object"):
            getattr(loop, name)(wrong, print)

    def test_a_negative_descriptor(self, name, loop):
        with pytest.raises(ValueError, match="Invalid file descriptor"):
            getattr(loop, name)(-1, print)

    def test_a_regular_file_cannot_be_watched(self, name, loop, tmp_path):
        with open(tmp_path / "file", "w+") as file, pytest.raises(PermissionError):
            getattr(loop, name)(file.fileno(), print)

    def test_removing_what_is_not_watched(self, name, loop):
        remove = getattr(loop, name.replace("add", "remove"))
        one, other = socket.socketpair()
        with one, other:
            assert remove(one) is False
            getattr(loop, name)(one, print)
            assert remove(one.fileno()) is True
            assert remove(one) is False


@pytest.mark.parametrize("wrong", [0, -1, 65, 1000, "2", None, 2.0])
def test_signals_that_do_not_exist(wrong, loop):
    with pytest.raises((ValueError, TypeError)):
        loop.add_signal_handler(wrong, print)


def test_signals_that_cannot_be_caught(loop):
    with pytest.raises(RuntimeError, match=r"sig 9 cannot be caught"):
        loop.add_signal_handler(9, print)


def test_coroutines_are_no_callbacks(loop):
    async def coroutine_function():
        pass

    with pytest.raises(TypeError, match="coroutines cannot be used"):
        loop.add_signal_handler(10, coroutine_function)
    loop.set_debug(True)
    with pytest.raises(TypeError, match="coroutines cannot be used"):
        loop.call_soon(coroutine_function)


@pytest.mark.parametrize("wrong", [1, "text", None, object(), lambda: None])
def test_tasks_of_what_is_no_coroutine(wrong, loop, aio):
    with pytest.raises(TypeError, match="a coroutine was expected"):
        loop.create_task(wrong)
    with pytest.raises(TypeError):
        loop.run_until_complete(wrong)
    with pytest.raises(TypeError):
        aio.Task(wrong, loop=loop)


def test_a_server_on_a_port_in_use(run, loop):
    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(OSError, match="address already in use") as caught:
            await loop.create_server(asyncio.Protocol, "127.0.0.1", port)
        assert re.match(r"\[Errno 98\] error while attempting to bind on address", str(caught.value))
        server.close()
        await server.wait_closed()

    run(main())


def test_connecting_to_nobody(run, loop):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectionRefusedError, match=rf"Connect call failed \('127.0.0.1', {port}\)"):
            run(loop.create_connection(asyncio.Protocol, "127.0.0.1", port))


def test_a_name_that_does_not_resolve(run, loop):
    with pytest.raises(socket.gaierror):
        run(loop.create_connection(asyncio.Protocol, "no-such-host.invalid", 80))
    with pytest.raises(socket.gaierror):
        run(loop.getaddrinfo("no-such-host.invalid", 80))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"host": "127.0.0.1", "port": 1, "sock": socket},
        {"host": "127.0.0.1", "port": 1, "server_hostname": "name"},
        {"host": "127.0.0.1", "port": 1, "ssl_handshake_timeout": 1},
        {"host": "127.0.0.1", "port": 1, "ssl_shutdown_timeout": 1},
    ],
)
def test_connecting_with_arguments_that_do_not_go_together(arguments, run, loop):
    with pytest.raises(ValueError):
        run(loop.create_connection(asyncio.Protocol, **arguments))


def test_a_callback_that_raises_is_reported(loop):
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(loop.stop)
    loop.run_forever()
    (context,) = contexts
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["message"].startswith("Exception in callback ")
    assert isinstance(context["handle"], asyncio.Handle)


@pytest.mark.parametrize("leave", [SystemExit(3), KeyboardInterrupt()])
def test_exceptions_that_end_the_program_leave_the_loop(leave, loop):
    def raise_it():
        raise leave

    later = []
    loop.call_soon(raise_it)
    loop.call_soon(later.append, 1)
    with pytest.raises(type(leave)):
        loop.run_forever()
    assert not loop.is_running()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert later == [1]


def test_an_exception_handler_that_cannot_be_called(loop):
    with pytest.raises(TypeError, match="A callable object or None is expected"):
        loop.set_exception_handler(1)
    with pytest.raises(TypeError, match="task factory must be a callable or None"):
        loop.set_task_factory(1)


class TestFutures:
    def test_results_too_early_and_twice(self, loop):
        future = loop.create_future()
        with pytest.raises(asyncio.InvalidStateError, match="Result is not set"):
            future.result()
        with pytest.raises(asyncio.InvalidStateError, match="Exception is not set"):
            future.exception()
        future.set_result(1)
        with pytest.raises(asyncio.InvalidStateError):
            future.set_result(2)
        with pytest.raises(asyncio.InvalidStateError):
            future.set_exception(ValueError())
        assert future.cancel() is False

    @pytest.mark.parametrize("wrong", [1, "text", object, None])
    def test_what_is_no_exception(self, wrong, loop):
        with pytest.raises(TypeError):
            loop.create_future().set_exception(wrong)

    def test_stop_iteration_cannot_be_set(self, loop):
        with pytest.raises((TypeError, RuntimeError)):
            raise_from(loop.create_future(), StopIteration())

    def test_tasks_take_no_results(self, loop):
        async def nothing():
            pass

        task = loop.create_task(nothing())
        with pytest.raises(RuntimeError, match="Task does not support set_result operation"):
            task.set_result(1)
        with pytest.raises(RuntimeError, match="Task does not support set_exception operation"):
            task.set_exception(ValueError())
        loop.run_until_complete(task)


def raise_from(future, exception):
    future.set_exception(exception)
    future.result()


def test_a_task_cannot_await_itself(run, loop):
    async def main():
        await asyncio.current_task()

    with pytest.raises(RuntimeError, match="Task cannot await on itself"):
        loop.run_until_complete(loop.create_task(main()))


def test_a_future_of_another_loop(loop, new_loop):
    other = new_loop()
    try:

        async def main():
            await other.create_future()

        with pytest.raises(RuntimeError, match="attached to a different loop"):
            loop.run_until_complete(main())
    finally:
        other.close()


def test_yielding_nonsense(loop):
    class Nonsense:
        def __await__(self):
            yield 42

    async def main():
        await Nonsense()

    with pytest.raises(RuntimeError, match="Task got bad yield: 42"):
        loop.run_until_complete(main())


def test_every_method_of_a_loop_is_there():
    for name, method in vars(asyncio.AbstractEventLoop).items():
        if callable(method) and not name.startswith("_"):
            assert getattr(aioxide.EventLoop, name) is not method, name
