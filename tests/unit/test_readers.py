"""Watched descriptors: `add_reader`, `add_writer`, and what removes them."""

import asyncio
import contextlib
import contextvars
import gc
import os
import socket
import weakref

import pytest


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def run_briefly(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_a_reader_is_called_as_long_as_there_is_something(loop, pair):
    ours, theirs = pair
    calls = []
    loop.add_reader(ours, calls.append, 1)
    theirs.send(b"x")
    for _ in range(4):
        run_briefly(loop)
    assert len(calls) >= 2
    ours.recv(10)
    run_briefly(loop)
    seen = len(calls)
    run_briefly(loop)
    run_briefly(loop)
    assert len(calls) == seen
    assert loop.remove_reader(ours) is True
    assert loop.remove_reader(ours) is False


def test_both_directions_of_one_descriptor(run, loop, pair):
    ours, theirs = pair

    async def main():
        reading, writing = loop.create_future(), loop.create_future()
        loop.add_reader(ours.fileno(), lambda: reading.done() or reading.set_result(ours.recv(10)))
        loop.add_writer(ours.fileno(), lambda: writing.done() or writing.set_result("writable"))
        assert await writing == "writable"
        assert loop.remove_writer(ours) is True
        assert loop.remove_writer(ours) is False
        theirs.send(b"hello")
        assert await reading == b"hello"
        assert loop.remove_reader(ours) is True

    run(main())


def test_a_second_reader_replaces_the_first(run, loop, pair):
    ours, theirs = pair

    async def main():
        loop.add_reader(ours, pytest.fail, "the first reader was called")
        done = loop.create_future()
        loop.add_reader(ours, lambda: done.done() or done.set_result(ours.recv(1)))
        theirs.send(b"x")
        assert await done == b"x"
        loop.remove_reader(ours)

    run(main())


def test_removed_in_the_same_turn_means_not_called(loop, pair):
    ours, theirs = pair
    others = socket.socketpair()
    calls = []

    def first_come(mine, other):
        calls.append(mine)
        loop.remove_reader(other)

    with others[0], others[1]:
        loop.add_reader(ours, first_come, ours, others[0])
        loop.add_reader(others[0], first_come, others[0], ours)
        theirs.send(b"x")
        others[1].send(b"x")
        run_briefly(loop)
        run_briefly(loop)
        assert len(set(calls)) == 1
        for sock in (ours, others[0]):
            loop.remove_reader(sock)


def test_a_reader_may_remove_itself_and_close(run, loop):
    ours, theirs = socket.socketpair()

    async def main():
        done = loop.create_future()

        def end():
            loop.remove_reader(ours)
            ours.close()
            done.set_result(None)

        loop.add_reader(ours, end)
        theirs.close()
        await done
        # The number is free again, and a new owner is not mistaken for the old one.
        again = socket.socketpair()
        with again[0], again[1]:
            seen = loop.create_future()
            loop.add_reader(again[0], lambda: seen.done() or seen.set_result(1))
            again[1].send(b"x")
            assert await seen == 1
            loop.remove_reader(again[0])

    run(main())


def test_a_watched_file_stays_alive(loop, pair):
    class File:
        def fileno(self):
            return pair[0].fileno()

    file = File()
    gone = weakref.ref(file)
    loop.add_reader(file, print)
    loop.add_writer(file, print)
    del file
    gc.collect()
    assert gone() is not None
    loop.remove_reader(pair[0])
    loop.remove_writer(pair[0])
    gc.collect()
    assert gone() is None


def test_a_file_closed_while_it_was_watched_can_be_removed(loop):
    ours, theirs = socket.socketpair()
    with theirs:
        loop.add_reader(ours, print)
        ours.close()
        assert loop.remove_reader(ours) is True
        with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
            loop.remove_reader(ours)


def test_a_pipe_that_hangs_up(run, loop):
    reader, writer = os.pipe()

    async def main():
        done = loop.create_future()
        loop.add_reader(reader, lambda: done.done() or done.set_result(os.read(reader, 10)))
        os.close(writer)
        assert await done == b""
        loop.remove_reader(reader)

    run(main())
    os.close(reader)


def test_a_regular_file_is_refused(loop, tmp_path):
    with (tmp_path / "file").open("wb") as file, pytest.raises(PermissionError):
        loop.add_reader(file, print)


def test_a_closed_descriptor_is_refused(loop):
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        loop.add_reader(reader, print)
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        loop.add_reader(-1, print)


@pytest.mark.parametrize("wrong", ["x", None, object(), 1.5])
@pytest.mark.parametrize("method", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
def test_what_is_no_file(loop, wrong, method):
    arguments = (print,) if method.startswith("add") else ()
    with pytest.raises(ValueError, match="Invalid file object"):
        getattr(loop, method)(wrong, *arguments)


def test_the_descriptor_of_a_transport_is_refused(run, loop, pair):
    ours, _ = pair

    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        for call in (loop.add_reader, loop.add_writer):
            with pytest.raises(RuntimeError, match="is used by transport"):
                call(ours, print)
        for call in (loop.remove_reader, loop.remove_writer):
            with pytest.raises(RuntimeError, match="is used by transport"):
                call(ours.fileno())
        transport.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(main())


def test_an_error_of_a_reader_is_reported(run, loop, pair):
    ours, theirs = pair
    reports = []
    loop.set_exception_handler(lambda where, context: reports.append(context))

    async def main():
        done = loop.create_future()

        def fail():
            loop.remove_reader(ours)
            done.set_result(None)
            raise ValueError("no")

        loop.add_reader(ours, fail)
        theirs.send(b"x")
        await done
        await asyncio.sleep(0)

    run(main())
    (report,) = reports
    assert isinstance(report["exception"], ValueError)
    assert isinstance(report["handle"], asyncio.Handle)


def test_a_reader_runs_in_the_context_in_which_it_was_added(run, loop, pair):
    variable = contextvars.ContextVar("variable")
    ours, theirs = pair

    async def main():
        variable.set("there")
        done = loop.create_future()
        loop.add_reader(ours, lambda: done.done() or done.set_result(variable.get()))
        variable.set("here")
        theirs.send(b"x")
        assert await done == "there"
        loop.remove_reader(ours)

    run(main())


def test_many_descriptors_at_once(run, loop):
    async def main():
        with contextlib.ExitStack() as stack:
            pairs = [socket.socketpair() for _ in range(300)]
            for ours, theirs in pairs:
                stack.enter_context(ours)
                stack.enter_context(theirs)
            waiting = []
            for ours, _ in pairs:
                done = loop.create_future()
                loop.add_reader(ours, lambda d=done, o=ours: d.done() or d.set_result(o.recv(10)))
                waiting.append(done)
            for number, (_, theirs) in enumerate(pairs):
                theirs.send(b"%d" % number)
            assert await asyncio.gather(*waiting) == [b"%d" % number for number in range(300)]
            for ours, _ in pairs:
                assert loop.remove_reader(ours)

    run(main())
