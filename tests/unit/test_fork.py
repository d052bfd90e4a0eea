"""Forks of a running program: the child is on its own, and the parent does not notice."""

import asyncio
import gc
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import traceback
from multiprocessing import forkserver, resource_tracker

import aioxide
import pytest

pytestmark = [
    pytest.mark.usefixtures("nothing_is_left"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # is multi-threaded
]


def status_of(pid):
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


async def in_child(work):
    """Run `work` in a fork of this process; the child must come through it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    while (status := status_of(pid)) is None:
        await asyncio.sleep(0.005)
    assert status == 0


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def ask(loop, port, data):
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, data)
        return await loop.sock_recv(sock, 100)
    finally:
        sock.close()


def test_no_loop_runs_in_the_child_and_it_can_run_one(run, aio):
    def work():
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()

        async def main():
            await asyncio.sleep(0.001)
            assert await asyncio.gather(*(asyncio.sleep(0, n) for n in range(3))) == [0, 1, 2]
            return asyncio.get_running_loop()

        loop = aio.new_event_loop()
        assert loop.run_until_complete(main()) is loop
        loop.close()
        if sys.version_info >= (3, 12) or aio is aioxide:
            assert aio.run(asyncio.sleep(0, "done")) == "done"

    async def main():
        before = asyncio.get_running_loop()
        await in_child(work)
        assert asyncio.get_running_loop() is before
        assert asyncio.current_task() is not None

    run(main())


def test_the_child_starts_processes_of_its_own(run):
    def work():
        async def main():
            process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 7")
            assert await process.wait() == 7

        aioxide.run(main())

    run(in_child_twice(work))


async def in_child_twice(work):
    await in_child(work)
    await in_child(work)


@pytest.mark.parametrize("how", ["close", "abort", "collect", "loop"])
def test_what_the_child_closes_stays_open_in_the_parent(how):
    """The two share the descriptors' files, but not the list of what is watched."""

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        ours, theirs = socket.socketpair()
        received = loop.create_future()

        class Receiver(asyncio.Protocol):
            def data_received(self, data):
                received.set_result(data)

        kept = [await loop.connect_accepted_socket(Receiver, ours)]

        def work():
            if how == "collect":
                kept.clear()
                gc.collect()
            elif how == "loop":
                loop._run_forever_cleanup()
                loop.close()
            else:
                server.close()
                getattr(kept[0][0], how)()
            loop.remove_reader(theirs)

        await in_child(work)
        theirs.send(b"still there")
        assert await received == b"still there"
        assert await ask(loop, port, b"question") == b"question"
        kept[0][0].close()
        theirs.close()
        server.close()

    aioxide.run(main())


def test_signals_of_the_child_are_not_the_parents(run, loop):
    async def main():
        seen = []
        loop.add_signal_handler(signal.SIGUSR1, seen.append, "parent")

        def work():
            child = aioxide.new_event_loop()

            async def main():
                done = child.create_future()
                child.add_signal_handler(signal.SIGUSR1, done.set_result, "child")
                os.kill(os.getpid(), signal.SIGUSR1)
                assert await done == "child"

            child.run_until_complete(main())
            child.close()
            assert not seen

        await in_child(work)
        await asyncio.sleep(0.02)
        assert not seen
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(0.02)
        assert seen == ["parent"]
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


GOES_ON = """
    import asyncio, os, sys, threading
    import aioxide

    async def main():
        loop = asyncio.get_running_loop()
        before = os.pipe()
        got = loop.create_future()
        loop.add_reader(before[0], lambda: got.done() or got.set_result(os.read(before[0], 100)))
        await asyncio.sleep(0)
        pid = os.fork()
        name = b"child" if pid == 0 else b"parent"
        asyncio._set_running_loop(loop)  # which asyncio takes from a child
        # What is registered from now on belongs to one of the two.
        own = os.pipe()
        mine = loop.create_future()
        loop.add_reader(own[0], lambda: mine.done() or mine.set_result(os.read(own[0], 100)))
        woken = loop.create_future()
        threading.Timer(0.05, loop.call_soon_threadsafe, (woken.set_result, name)).start()
        os.write(own[1], name)
        assert await mine == name
        assert await woken == name
        loop.remove_reader(own[0])
        if pid == 0:
            loop.remove_reader(before[0])
            return
        # Not in coroutine, so that the loop is free: the child ends by itself.
        while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            await asyncio.sleep(0.005)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        os.write(before[1], b"heard")
        assert await got == b"heard"
        print("done")

    loop = aioxide.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
"""


def test_a_child_that_insists_may_go_on_with_the_loop():
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(GOES_ON)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    # asyncio has forgotten the child's current task, which is reported once.
    assert result.stdout == "done\n", result.stderr
    assert result.stderr.count("Error") <= 1, result.stderr


def answer(queue):
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/true")
        await process.wait()
        return "answer"

    queue.put(aioxide.run(main()))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_from_a_running_loop(run, method):
    async def main():
        context = multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        process = context.Process(target=answer, args=(queue,))
        process.start()
        assert await asyncio.to_thread(queue.get) == "answer"
        while process.is_alive():
            await asyncio.sleep(0.005)
        assert process.exitcode == 0
        process.close()
        queue.close()

    run(main(), 60)
    # The helpers of these methods are processes too, and would stay.
    forkserver._forkserver._stop()
    resource_tracker._resource_tracker._stop()
