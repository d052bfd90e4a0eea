"""`__dict__` of asyncio's objects: with its private attributes in it, for programs that save and restore state."""

import asyncio
import functools
import gc
import inspect
import weakref
from unittest.mock import MagicMock, patch

import pytest

pytestmark = pytest.mark.usefixtures("in_place")


def run(main):
    return asyncio.run(asyncio.wait_for(main, 10))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: asyncio.Lock(), {"_waiters": None, "_locked": False}),
        (lambda: asyncio.Event(), {"_value": False}),
        (lambda: asyncio.Semaphore(3), {"_waiters": None, "_value": 3}),
        (lambda: asyncio.BoundedSemaphore(3), {"_waiters": None, "_value": 3, "_bound_value": 3}),
        (lambda: asyncio.Barrier(2), {"_parties": 2, "_count": 0}),
        (lambda: asyncio.Queue(4), {"_maxsize": 4, "_unfinished_tasks": 0}),
        (lambda: asyncio.PriorityQueue(), {"_maxsize": 0, "_queue": []}),
        (lambda: asyncio.TaskGroup(), {"_entered": False, "_errors": [], "_tasks": set()}),
        (lambda: asyncio.Timeout(4), {"_when": 4, "_task": None, "_timeout_handler": None}),
        (lambda: asyncio.StreamReader(), {"_limit": 2**16, "_eof": False, "_exception": None, "_waiter": None}),
    ],
    ids=lambda value: "" if callable(value) else "_".join(value),
)
def test_what_is_in_it(make, names):
    async def main():
        made = make()
        made.mine = 1
        assert {name: vars(made)[name] for name in names} == names
        assert [*vars(made)].count("mine") == 1
        assert len(vars(made)) == len({**vars(made)}) == len(dict(vars(made))) == len(vars(made).copy())
        assert type(vars(made).copy()) is dict
        assert isinstance(vars(made), dict)
        assert repr(vars(made)) == repr(dict(vars(made)))
        assert "_locks" not in vars(made)
        with pytest.raises(KeyError):
            vars(made)["_locks"]

    run(main())


@pytest.mark.parametrize("before", [True, False])
def test_it_is_the_objects_own(before):
    class Lock(asyncio.Lock):
        @functools.cached_property
        def cached(self):
            return object()

    lock = Lock()
    if before:
        lock.early = 1
    attributes = lock.__dict__
    lock.late = 2
    assert attributes is lock.__dict__
    assert attributes["late"] == 2
    attributes["later"] = 3
    attributes.update(latest=4)
    assert (lock.later, lock.latest) == (3, 4)
    assert lock.cached is attributes["cached"] is lock.cached
    assert inspect.getattr_static(lock, "later") == 3
    del attributes["late"]
    assert not hasattr(lock, "late")
    assert attributes.pop("later") == 3
    assert not hasattr(lock, "later")
    assert (attributes | {"more": 5})["more"] == 5
    assert not hasattr(lock, "more")
    assert ("early" in attributes) is before
    assert attributes.setdefault("early", 7) == lock.early == (1 if before else 7)
    lock.__dict__ = {**attributes, "another": 1}
    assert (lock.another, hasattr(lock, "early"), lock.locked()) == (1, True, False)


def test_it_may_outlive_the_object():
    lock = asyncio.Lock()
    lock.mine = lock
    attributes, seen = lock.__dict__, weakref.ref(lock)
    del attributes["mine"], lock
    gc.collect()
    assert seen() is None
    assert "mine" not in attributes
    assert [*attributes.values()] in ([], [None, False])


def test_state_that_is_written_there():
    async def main():
        event, semaphore, reader = asyncio.Event(), asyncio.Semaphore(0), asyncio.StreamReader()
        vars(event)["_value"] = True
        await event.wait()
        vars(semaphore).update(_value=1)
        await semaphore.acquire()
        reader.feed_eof()
        vars(reader)["_eof"] = False
        reader.feed_data(b"more")
        assert await reader.read(9) == b"more"

    run(main())


@pytest.mark.parametrize(("name", "value"), [("_value", 0), ("_waiters", MagicMock()), ("unknown", object())])
def test_a_mock_in_an_object(name, value):
    semaphore = asyncio.Semaphore(3)
    before = dict(vars(semaphore))
    with patch.object(semaphore, name, value, create=True):
        assert getattr(semaphore, name) is value
    assert dict(vars(semaphore)) == before
    assert run(semaphore.acquire())


def test_state_that_is_put_back():
    """As aioconsole does it, for a terminal whose input has ended and whose output goes on."""

    class Protocol(asyncio.StreamReaderProtocol):
        def connection_lost(self, error):
            state = self.__dict__.copy()
            super().connection_lost(error)
            self.__dict__.update(state)

    class Transport(asyncio.Transport):
        def __init__(self):
            super().__init__()
            self.written = []
            self.closed = False

        def write(self, data):
            self.written.append(data)

        def is_closing(self):
            return self.closed

        def close(self):
            self.closed = True

    async def main():
        reader, transport = asyncio.StreamReader(), Transport()
        protocol = Protocol(reader)
        protocol.connection_made(transport)
        writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
        protocol.connection_lost(None)
        assert await reader.read() == b""
        writer.write(b"goes on")
        await writer.drain()
        assert transport.written == [b"goes on"]
        writer.close()

    run(main())


def test_the_handle_of_a_timeout():
    """Which async_timeout's users look at."""

    async def main():
        async with asyncio.timeout(100) as block:
            handle = block._timeout_handler
            assert isinstance(handle, asyncio.TimerHandle)
            assert handle is block._timeout_handler
            assert handle.when() == block.when()
            block.reschedule(None)
            assert handle.cancelled()
            assert block._timeout_handler is None
            await asyncio.sleep(0)
            block.reschedule(asyncio.get_running_loop().time() + 0.01)
            assert not block._timeout_handler.cancelled()
            await asyncio.sleep(10)

    with pytest.raises(TimeoutError):
        run(main())
