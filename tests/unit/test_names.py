"""Host names: the answers are socket.getaddrinfo's, numbers need no thread, and slow names hold up nobody else."""

import asyncio
import os
import socket
import threading
import time

import aioxide
import pytest
from aioxide import _resolver

QUERIES = [
    ("127.0.0.1", 80, {}),
    ("127.0.0.1", "80", {"type": socket.SOCK_STREAM}),
    (b"127.0.0.1", None, {"type": socket.SOCK_DGRAM}),
    ("::1", 80, {"family": socket.AF_INET6, "flags": socket.AI_NUMERICHOST}),
    ("fe80::1%lo", 80, {"type": socket.SOCK_STREAM}),
    ("fe80::1%1", 80, {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}),
    ("::ffff:1.2.3.4", 0, {}),
    ("127.1", 80, {}),
    (None, 80, {"flags": socket.AI_PASSIVE, "type": socket.SOCK_STREAM}),
    (None, 80, {"type": socket.SOCK_STREAM}),
    ("localhost", 80, {"type": socket.SOCK_STREAM}),
    ("localhost", "http", {"type": socket.SOCK_STREAM}),
    ("127.0.0.1", "http", {"type": socket.SOCK_STREAM}),
    ("127.0.0.1", 80, {"flags": socket.AI_CANONNAME}),
]

FAILURES = [
    ("127.0.0.1", 80, {"family": socket.AF_INET6}),
    ("::1%no-such-zone", 80, {}),
    (None, None, {}),
    ("127.0.0.1", "no-such-service", {}),
    ("127.0.0.1", 80, {"type": 99}),
    ("127.0.0.1", 10**6, {}),
    (1, 80, {}),
    ("a\0b", 80, {}),
]


def outcome(call):
    try:
        return call()
    except Exception as error:
        return type(error), error.args


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(("host", "port", "options"), QUERIES + FAILURES)
def test_as_the_socket_module_answers(loop, run, host, port, options, debug):
    loop.set_debug(debug)
    expected = outcome(lambda: socket.getaddrinfo(host, port, **options))
    assert outcome(lambda: run(loop.getaddrinfo(host, port, **options))) == expected


@pytest.mark.parametrize("flags", [0, socket.NI_NUMERICHOST, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV])
@pytest.mark.parametrize("address", [("127.0.0.1", 80), ("::1", 80, 0, 0), ("x", 80), ("127.0.0.1",), 5])
def test_names_of_addresses(loop, run, address, flags):
    expected = outcome(lambda: socket.getnameinfo(address, flags))
    assert outcome(lambda: run(loop.getnameinfo(address, flags))) == expected


@pytest.fixture
def our_loop():
    loop = aioxide.new_event_loop()
    yield loop
    loop.close()


def test_numbers_need_no_thread(our_loop, monkeypatch):
    monkeypatch.setattr(_resolver._pool, "submit", None)

    async def main():
        for host in ("127.0.0.1", "::1", "fe80::1%lo", b"127.0.0.1", None):
            assert await our_loop.getaddrinfo(host, 80)
        assert await our_loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)

    our_loop.run_until_complete(main())


def test_the_default_executor_has_nothing_to_do_with_it(our_loop):
    async def main():
        assert await our_loop.getaddrinfo("localhost", 80)
        assert our_loop._default_executor is None

    our_loop.run_until_complete(main())


def test_a_replaced_function_is_asked_in_a_thread(loop, run, monkeypatch):
    threads = []

    def replaced(*query, **options):
        threads.append(threading.current_thread())
        return [(query, options)]

    monkeypatch.setattr(socket, "getaddrinfo", replaced)
    monkeypatch.setattr(socket, "getnameinfo", replaced)
    assert run(loop.getaddrinfo("127.0.0.1", 80, type=7)) == [(("127.0.0.1", 80, 0, 7, 0, 0), {})]
    assert run(loop.getnameinfo(("127.0.0.1", 80), 3)) == [((("127.0.0.1", 80), 3), {})]
    assert threading.main_thread() not in threads


class Slow:
    """A getaddrinfo that hangs on some names."""

    def __init__(self):
        self.go, self.running, self.most, self.lock = threading.Event(), 0, 0, threading.Lock()

    def __call__(self, host, *query):
        if host != "slow":
            return [host]
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.go.wait(30)
        with self.lock:
            self.running -= 1
        return ["slow"]

    async def until(self, running):
        async with asyncio.timeout(10):
            while self.running != running:
                await asyncio.sleep(0.001)


@pytest.fixture
def slow(monkeypatch):
    slow = Slow()
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr(_resolver, "_pool", _resolver.Resolver())
    yield slow
    slow.go.set()


def test_awaited_lookups_run_so_many_at_a_time(our_loop, slow):
    async def main():
        tasks = [our_loop.create_task(our_loop.getaddrinfo("slow", 80)) for _ in range(20)]
        await slow.until(_resolver.MOST_AWAITED)
        waiting = our_loop.create_task(our_loop.getaddrinfo("fast", 80))
        await asyncio.sleep(0.05)
        assert not waiting.done() and slow.running == _resolver.MOST_AWAITED
        slow.go.set()
        assert await asyncio.gather(*tasks) == [["slow"]] * 20
        assert await waiting == ["fast"]
        assert slow.most == _resolver.MOST_AWAITED

    our_loop.run_until_complete(main())


def test_cancelled_lookups_make_room(our_loop, slow):
    """As many names may hang, nobody waiting for them, as there are threads beside those that are waited for."""

    async def main():
        hanging = 0
        while hanging < _resolver.MOST_THREADS - _resolver.MOST_AWAITED:
            tasks = [our_loop.create_task(our_loop.getaddrinfo("slow", 80)) for _ in range(_resolver.MOST_AWAITED)]
            await slow.until(hanging + len(tasks))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
            hanging += len(tasks)
            assert await asyncio.wait_for(our_loop.getaddrinfo("fast", 80), 5) == ["fast"]
        assert slow.running == hanging
        pool = _resolver._pool
        assert pool._threads <= _resolver.MOST_THREADS
        slow.go.set()
        async with asyncio.timeout(5):
            while pool._abandoned:
                await asyncio.sleep(0.001)
            while pool._threads > _resolver.MOST_AWAITED:
                await asyncio.sleep(0.001)
        assert await our_loop.getaddrinfo("fast", 80) == ["fast"]

    our_loop.run_until_complete(main())


def test_a_lookup_that_is_cancelled_before_it_began_never_runs(our_loop, slow):
    async def main():
        tasks = [our_loop.create_task(our_loop.getaddrinfo("slow", 80)) for _ in range(_resolver.MOST_AWAITED + 5)]
        await slow.until(_resolver.MOST_AWAITED)
        for task in tasks[_resolver.MOST_AWAITED :]:
            task.cancel()
        await asyncio.sleep(0)
        slow.go.set()
        await asyncio.wait(tasks)
        assert slow.most == _resolver.MOST_AWAITED
        assert await our_loop.getaddrinfo("fast", 80) == ["fast"]

    our_loop.run_until_complete(main())


def test_threads_go_when_there_is_nothing_to_do(our_loop, slow, monkeypatch):
    monkeypatch.setattr(_resolver, "PATIENCE", 0.01)

    async def main():
        assert await our_loop.getaddrinfo("fast", 80) == ["fast"]
        async with asyncio.timeout(5):
            while _resolver._pool._threads:
                await asyncio.sleep(0.001)
        assert await our_loop.getaddrinfo("fast", 80) == ["fast"]

    our_loop.run_until_complete(main())


def test_a_closed_loop(our_loop, slow):
    loop = aioxide.new_event_loop()

    async def leave():
        task = loop.create_task(loop.getaddrinfo("slow", 80))
        await slow.until(1)
        task.cancel()

    loop.run_until_complete(leave())
    loop.close()
    slow.go.set()
    time.sleep(0.01)
    assert our_loop.run_until_complete(our_loop.getaddrinfo("fast", 80)) == ["fast"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_has_threads_of_its_own(our_loop):
    our_loop.run_until_complete(our_loop.getaddrinfo("localhost", 80))
    if not (pid := os.fork()):
        try:
            loop = aioxide.new_event_loop()
            found = loop.run_until_complete(asyncio.wait_for(loop.getaddrinfo("localhost", 80), 10))
            os._exit(0 if found else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
