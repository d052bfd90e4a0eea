"""asyncio's debug mode, as its documentation has it: what is noticed, refused, remembered and logged."""

import asyncio
import gc
import inspect
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
import warnings

import aioxide
import pytest
import tls

LIMIT = 0.02
"""What is slow here, in seconds."""


@pytest.fixture
def loop(new_loop, caplog):
    """A loop in debug mode."""
    caplog.set_level(logging.DEBUG, "asyncio")
    loop = new_loop()
    loop.set_debug(True)
    yield loop
    loop.close()
    gc.collect()


def here(back=0):
    """The line of the caller, as tracebacks show it."""
    frame = inspect.currentframe().f_back
    return f"{__file__}:{frame.f_lineno - back}"


def messages(caplog, start=""):
    # As it was shown then: objects have changed since.
    return [record.message for record in caplog.records if record.message.startswith(start)]


def dawdle(*_):
    time.sleep(LIMIT * 1.5)


# --- on and off ----------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", [None, "", "1"])
@pytest.mark.parametrize("option", [(), ("-X", "dev"), ("-E",)])
@pytest.mark.parametrize("module", ["asyncio", "aioxide"])
def test_the_interpreter_turns_it_on(module, option, variable):
    program = f"import {module} as m\nloop = m.new_event_loop()\nprint(loop.get_debug())\nloop.close()"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONASYNCIODEBUG"}
    if variable is not None:
        environment["PYTHONASYNCIODEBUG"] = variable
    command = [sys.executable, *option, "-W", "ignore", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{option == ('-X', 'dev') or (variable == '1' and option != ('-E',))}\n"


@pytest.mark.parametrize("module", ["asyncio", "aioxide"])
@pytest.mark.parametrize("debug", [None, False, True])
def test_run_turns_it_on_and_off(module, debug):
    async def look():
        return asyncio.get_running_loop().get_debug(), sys.get_coroutine_origin_tracking_depth() > 0

    assert sys.modules[module].run(look(), debug=debug) == (bool(debug), bool(debug))
    assert sys.get_coroutine_origin_tracking_depth() == 0


# --- what is slow --------------------------------------------------------------------------------


def slow_lines(run, loop, caplog, program):
    assert loop.slow_callback_duration == 0.1
    loop.slow_callback_duration = LIMIT
    run(program())
    lines = messages(caplog, "Executing")
    assert all(re.search(r" took 0\.\d{3} seconds$", line) for line in lines)
    return [line for line in lines if re.search("dawdle|culprit|Transport|<lambda>", line)]


def test_a_slow_step_is_logged_with_its_task_and_line(run, loop, caplog, aio):
    places = []

    async def culprit():
        dawdle()
        places.append(here(1))
        await asyncio.sleep(0)
        dawdle()

    async def main():
        task = aio.create_task(culprit(), name="culprit")
        places.append(here(1))
        await task

    first, last = slow_lines(run, loop, caplog, main)
    assert "<Task pending name='culprit' coro=<" in first
    created, _ = places
    if aio is aioxide:  # CPython's names the line of its own create_task
        assert f"created at {created}>" in first
    assert f"running at {__file__}:" in first
    assert "<Task finished name='culprit'" in last


def test_slow_callbacks_are_logged_with_where_they_were_made(run, loop, caplog):
    places = []

    async def main():
        loop.call_soon(dawdle, 1)
        places.append(here(1))
        await asyncio.sleep(0)
        loop.call_later(0, dawdle, 2)
        places.append(here(1))
        await asyncio.sleep(0.01)
        future = loop.create_future()
        future.add_done_callback(dawdle)
        future.set_result(None)
        places.append(here(1))
        await asyncio.sleep(0.01)
        loop.call_soon_threadsafe(dawdle, 4)
        places.append(here(1))
        await asyncio.sleep(0.01)

    lines = slow_lines(run, loop, caplog, main)
    assert len(lines) == 4
    for line, place, kind in zip(lines, places, ["Handle", "TimerHandle", "Handle", "_ThreadSafeHandle"], strict=True):
        assert line.startswith((f"Executing <{kind} ", f"Executing <{kind.removeprefix('_ThreadSafe')} "))
        assert "dawdle(" in line
        assert f"created at {place}>" in line


def test_slow_readers_protocols_and_signal_handlers_are_logged(run, loop, caplog):
    class Slow(asyncio.Protocol):
        def data_received(self, data):
            dawdle()

    async def main():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            loop.add_reader(ours, lambda: dawdle(ours.recv(1)))
            theirs.send(b"x")
            await asyncio.sleep(0.1)
            loop.remove_reader(ours)
            transport, _ = await loop.create_connection(Slow, sock=ours)
            theirs.send(b"x")
            await asyncio.sleep(0.1)
            transport.close()
            await asyncio.sleep(0)
        loop.add_signal_handler(12, dawdle)
        os.kill(os.getpid(), 12)
        await asyncio.sleep(0.1)
        loop.remove_signal_handler(12)

    lines = slow_lines(run, loop, caplog, main)
    assert len(lines) == 3
    for line, word in zip(lines, ["<lambda>", "Transport", "dawdle"], strict=True):
        assert word in line


def test_what_is_fast_enough_is_not_logged(run, loop, caplog):
    async def main():
        loop.call_soon(print)
        await asyncio.sleep(0.01)

    loop.slow_callback_duration = 5
    run(main())
    assert messages(caplog, "Executing") == []


# --- the wrong thread ----------------------------------------------------------------------------


def waiting(aio, loop):
    """What can be done to things that somebody waits for, by name; made in the loop's thread."""
    event, lock, queue, semaphore = aio.Event(), aio.Lock(), aio.Queue(), aio.Semaphore(0)
    futures = [loop.create_future() for _ in range(5)]
    for future in futures:
        future.add_done_callback(lambda _: None)
    future, failed, cancelled, alone, done = futures
    alone.remove_done_callback(alone._callbacks[0][0])
    done.set_result(None)

    async def never():
        await loop.create_future()

    coroutines = [event.wait(), lock.acquire(), lock.acquire(), queue.get(), semaphore.acquire(), never()]
    tasks = [aio.create_task(coroutine) for coroutine in coroutines]
    ways = {
        "call_soon": lambda: loop.call_soon(print),
        "call_later": lambda: loop.call_later(100, print),
        "call_at": lambda: loop.call_at(loop.time() + 100, print),
        "create_task": lambda: loop.create_task(never()),
        "ensure_future": lambda: aio.ensure_future(never(), loop=loop),
        "Future.set_result": lambda: future.set_result(1),
        "Future.set_exception": lambda: failed.set_exception(OSError()),
        "Future.cancel": cancelled.cancel,
        "Future.add_done_callback": lambda: done.add_done_callback(print),
        "Task.cancel": tasks[-1].cancel,
        "Event.set": event.set,
        "Lock.release": lock.release,
        "Queue.put_nowait": lambda: queue.put_nowait(1),
        "Semaphore.release": semaphore.release,
        # Nobody has to be woken, so asyncio does not notice.
        "Future.set_result of nobody's": lambda: alone.set_result(1),
        "Event.set of nobody's": aio.Event().set,
        "Event.is_set": event.is_set,
        "call_soon_threadsafe": lambda: loop.call_soon_threadsafe(lambda: None),
    }
    return ways, tasks


ALLOWED = {"Future.set_result of nobody's", "Event.set of nobody's", "Event.is_set", "call_soon_threadsafe"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("debug", [True, False])
def test_the_wrong_thread_is_refused(run, loop, aio, debug):
    loop.set_debug(debug)
    found = {}

    def from_another_thread(ways):
        for name, call in ways.items():
            try:
                call()
            except RuntimeError as error:
                found[name] = str(error)

    async def main():
        ways, tasks = waiting(aio, loop)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        thread = threading.Thread(target=from_another_thread, args=(ways,))
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
        return ways

    ways = run(main())
    assert set(found) == (set(ways) - ALLOWED if debug else set())
    assert set(found.values()) <= {"Non-thread-safe operation invoked on an event loop other than the current one"}
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))


def test_the_right_ways_from_another_thread_are_open(run, loop, aio):
    async def add(a, b):
        await asyncio.sleep(0)
        return a + b

    async def main():
        event = aio.Event()
        answers = []

        def from_another_thread():
            loop.call_soon_threadsafe(event.set)
            answers.append(asyncio.run_coroutine_threadsafe(add(1, 2), loop).result(10))

        thread = threading.Thread(target=from_another_thread)
        thread.start()
        await event.wait()
        assert await aio.to_thread(sum, [1, 2]) == 3
        assert await loop.run_in_executor(None, sum, [3, 4]) == 7
        while thread.is_alive():
            await asyncio.sleep(0.01)
        return answers

    assert run(main()) == [3]


def test_coroutines_are_no_callbacks(run, loop):
    async def coroutine_function():
        pass

    async def main():
        for method in (
            loop.call_soon,
            loop.call_soon_threadsafe,
            lambda f: loop.call_later(1, f),
            lambda f: loop.call_at(loop.time(), f),
            lambda f: loop.run_in_executor(None, f),
        ):
            with pytest.raises(TypeError, match="coroutines cannot be used with"):
                method(coroutine_function)
            with pytest.raises(TypeError, match="a callable object was expected by"):
                method("no callable")

    run(main())


# --- coroutines that nobody awaits ---------------------------------------------------------------


async def by_hand():
    pass


FORGOTTEN = {
    "by_hand": lambda aio: by_hand(),
    "sleep": lambda aio: aio.sleep(1),
    "sleep of zero": lambda aio: aio.sleep(0),
    "Lock.acquire": lambda aio: aio.Lock().acquire(),
    "Event.wait": lambda aio: aio.Event().wait(),
    "Condition.wait": lambda aio: aio.Condition().wait(),
    "Barrier.wait": lambda aio: aio.Barrier(1).wait(),
    "Queue.get": lambda aio: aio.Queue().get(),
    "Queue.join": lambda aio: aio.Queue().join(),
    "wait": lambda aio: aio.wait([]),
    "wait_for": lambda aio: aio.wait_for(None, 1),
    "to_thread": lambda aio: aio.to_thread(print),
    "open_connection": lambda aio: aio.open_connection("localhost", 1),
    "StreamReader.read": lambda aio: aio.StreamReader(loop=asyncio.get_running_loop()).read(),
    "getaddrinfo": lambda aio: asyncio.get_running_loop().getaddrinfo("localhost", 1),
    "create_server": lambda aio: asyncio.get_running_loop().create_server(print, "localhost", 1),
    "sock_recv": lambda aio: asyncio.get_running_loop().sock_recv(None, 1),
}


def made_here(make, aio):
    return make(aio)


@pytest.mark.parametrize("name", FORGOTTEN)
@pytest.mark.parametrize("debug", [True, False])
def test_a_coroutine_that_is_never_awaited_says_where_it_was_made(run, loop, aio, name, debug):
    if sys.version_info < (3, 12) and name == "wait" and aio is asyncio:
        pytest.skip("looks at its arguments first")
    loop.set_debug(debug)

    async def main():
        coroutine = made_here(FORGOTTEN[name], aio)
        assert (coroutine.cr_origin is not None) == debug
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del coroutine
            gc.collect()
        return caught

    (warning,) = run(main())
    text = str(warning.message)
    assert warning.category is RuntimeWarning
    shown = re.match(r"coroutine '([\w.<>]*)' was never awaited", text)[1]
    assert shown.rpartition(".")[2] == name.split()[0].rpartition(".")[2]
    if debug:
        assert "\nCoroutine created at (most recent call last)\n" in text
        assert f'File "{__file__}", line ' in text
        assert "in made_here\n" in text
        assert "return make(aio)" in text
    else:
        assert "created at" not in text


def test_origins_go_with_their_coroutines(run, loop, aio):
    async def main():
        for _ in range(3):
            coroutines = [aio.sleep(0) for _ in range(100)]
            assert all(coroutine.cr_origin[0][2] in ("<listcomp>", "main") for coroutine in coroutines)
            for coroutine in coroutines:
                coroutine.close()
        loop.set_debug(False)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        coroutine = aio.sleep(0)
        assert coroutine.cr_origin is None
        coroutine.close()

    run(main())


# --- where things were made ----------------------------------------------------------------------


def test_objects_know_where_they_were_made(run, loop, aio):
    async def main():
        future = loop.create_future()
        handle = loop.call_soon(print)
        timer = loop.call_later(100, print)
        task = aio.create_task(asyncio.sleep(100))
        for thing in (future, handle, timer, task):
            assert thing._source_traceback[-1 if aio is aioxide or thing in (handle, timer) else -2].name == "main"
            assert " created at " in repr(thing)
            timer.cancel()
            handle.cancel()
            task.cancel()

    run(main())


def test_reports_show_where_things_were_made(run, loop, caplog):
    def fails(*_):
        raise ValueError("in a callback")

    async def dies():
        raise ValueError("in a task")

    contexts = []

    def remember(loop, context):
        contexts.append(context)
        loop.default_exception_handler(context)

    loop.set_exception_handler(remember)

    async def main():
        loop.call_soon(fails)
        await asyncio.sleep(0.01)
        future = loop.create_future()
        future.add_done_callback(fails)
        future.set_result(None)
        await asyncio.sleep(0.01)
        loop.create_task(dies())
        await asyncio.sleep(0.01)
        gc.collect()
        loop.create_future().set_exception(OSError())
        gc.collect()
        loop.call_soon(loop.call_exception_handler, {"message": "by hand"})
        await asyncio.sleep(0.01)

    run(main())
    assert [context["message"].partition(" test_")[0] for context in contexts] == [
        "Exception in callback",
        "Exception in callback",
        "Task exception was never retrieved",
        "Future exception was never retrieved",
        "by hand",
    ]
    assert [context["source_traceback"][-1].name in ("main", "create_future") for context in contexts[:4]] == [True] * 4
    assert contexts[4]["handle_traceback"][-1].name == "main"
    texts = messages(caplog)
    assert sum("Object created at (most recent call last):\n" in text for text in texts) == 4
    assert sum("Handle created at (most recent call last):\n" in text for text in texts) == 1


# --- what transports say -------------------------------------------------------------------------


def shape(line):
    """A logged line without what differs between runs and implementations."""
    line = re.sub(r"<\w*Transport(?:[^<>]|<[^<>]*>)*>", "TRANSPORT", line)
    line = re.sub(r"<[\w.]*Server .*?>,\)>", "SERVER", line)
    line = re.sub(r"<[^<>]*Protocol[^<>]*>|<[\w.]*SSLProtocol[^>]*>|<[\w.]*_SSLProtocolTransport[^>]*>", "OBJECT", line)
    line = re.sub(r"<[\w.]*ocket fd=[^>]*>", "SOCKET", line)
    line = re.sub(r"\('127\.0\.0\.1', \d+\)|'127\.0\.0\.1':\d+|127\.0\.0\.1:\d+", "ADDRESS", line)
    return re.sub(r"\d+\.\d+ ?ms|(?<=pipe )\d+", "#", line)


def said(caplog):
    """The lines of transports."""
    lines = [
        f"{record.levelname} {shape(record.message)}"
        for record in caplog.records
        if not record.message.startswith(("Using selector", "Executing", "Get", "Close <"))
    ]
    return sorted(lines)


async def closed(writer):
    writer.close()
    await writer.wait_closed()


def test_a_connection_says_what_it_does(run, loop, aio, caplog):
    async def main():
        async def serve(reader, writer):
            await reader.read()
            writer.close()

        server = await aio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
        writer.transport.pause_reading()
        writer.transport.resume_reading()
        writer.write_eof()
        await reader.read()
        await closed(writer)
        server.close()
        await server.wait_closed()

    run(main())
    assert said(caplog) == [
        "DEBUG SERVER got a new connection from ADDRESS: SOCKET",
        "DEBUG SOCKET connected to ADDRESS: (TRANSPORT, OBJECT)",
        "DEBUG TRANSPORT pauses reading",
        "DEBUG TRANSPORT received EOF",
        "DEBUG TRANSPORT received EOF",
        "DEBUG TRANSPORT resumes reading",
        "INFO SERVER is serving",
    ]


def test_a_lost_connection_says_so(run, loop, aio, caplog):
    async def main():
        ours, theirs = socket.socketpair()
        _, writer = await aio.open_connection(sock=ours)
        theirs.close()
        for _ in range(10):
            writer.write(b"x")
        writer.close()
        with pytest.raises(BrokenPipeError):
            await writer.wait_closed()

    run(main())
    lines = said(caplog)
    assert lines.count("WARNING socket.send() raised exception.") == 5  # from the sixth write on
    assert "DEBUG TRANSPORT: Fatal write error on socket transport" in lines


def test_writers_that_wait_say_so(run, loop, aio, caplog):
    async def main():
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        _, writer = await aio.open_connection(sock=ours)
        with theirs:
            writer.write(bytes(4_000_000))
            left = 4_000_000
            while left:
                left -= len(await loop.sock_recv(theirs, 1 << 20))
            await writer.drain()
            await closed(writer)

    run(main())
    assert [line for line in said(caplog) if "writing" in line] == [
        "DEBUG OBJECT pauses writing",
        "DEBUG OBJECT resumes writing",
    ]


def test_datagrams_and_pipes_say_what_they_do(run, loop, caplog):
    async def main():
        here, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        there, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=here.get_extra_info("sockname")
        )
        here.close()
        there.close()
        reading, writing = os.pipe()
        reader, _ = await loop.connect_read_pipe(asyncio.Protocol, open(reading, "rb", 0))
        writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, open(writing, "wb", 0))
        reader.pause_reading()
        reader.resume_reading()
        writer.close()
        await asyncio.sleep(0.1)
        reader.close()
        await asyncio.sleep(0)

    run(main())
    lines = [line for line in said(caplog) if "atagram" not in line]
    assert lines == [
        "DEBUG Read pipe # connected: (TRANSPORT, OBJECT)",
        "DEBUG TRANSPORT pauses reading",
        "DEBUG TRANSPORT resumes reading",
        "DEBUG Write pipe # connected: (TRANSPORT, OBJECT)",
        "INFO TRANSPORT was closed by peer",
    ]
    lines = [line for line in said(caplog) if "atagram" in line]
    assert [line.split()[0] for line in lines] == ["DEBUG", "INFO"]
    assert all("created: (" in line for line in lines)


def test_tls_says_what_it_does(run, loop, aio, caplog):
    async def main():
        async def serve(reader, writer):
            await reader.read(1)
            writer.close()

        server = await aio.start_server(serve, "127.0.0.1", 0, ssl=tls.server_context())
        address = server.sockets[0].getsockname()
        reader, writer = await aio.open_connection(*address, ssl=tls.client_context(), server_hostname="localhost")
        writer.write(b"x")
        await reader.read()
        await closed(writer)
        server.close()
        await server.wait_closed()

    run(main())
    lines = said(caplog)
    assert sum(line.endswith("starts SSL handshake") for line in lines) == 2
    assert sum(line.endswith("SSL handshake took #") for line in lines) == 2


# --- what is left open ---------------------------------------------------------------------------


async def tcp(loop):
    ours, theirs = socket.socketpair()
    with theirs:
        return (await loop.create_connection(asyncio.Protocol, sock=ours))[0]


async def datagrams(loop):
    return (await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)))[0]


async def read_pipe(loop):
    reading, writing = os.pipe()
    transport, _ = await loop.connect_read_pipe(asyncio.Protocol, open(reading, "rb", 0))
    os.close(writing)
    return transport


async def write_pipe(loop):
    reading, writing = os.pipe()
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, open(writing, "wb", 0))
    os.close(reading)
    return transport


@pytest.mark.parametrize("make", [tcp, datagrams, read_pipe, write_pipe])
def test_transports_that_nobody_closed_are_named(new_loop, make):
    loop = new_loop()
    loop.set_debug(True)
    transport = loop.run_until_complete(make(loop))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.close()
        del transport, loop
        gc.collect()
    texts = [str(warning.message) for warning in caught if warning.category is ResourceWarning]
    assert any(text.startswith("unclosed transport <") for text in texts), texts
