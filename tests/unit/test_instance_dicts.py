"""`__dict__` of stream protocols: with asyncio's private attributes in it, for programs that save and restore state."""

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import weakref

import pytest

pytestmark = pytest.mark.usefixtures("in_place")

KEPT = {"_paused": False, "_connection_lost": False, "_transport": None, "_over_ssl": False, "_task": None}


def run(main):
    return asyncio.run(asyncio.wait_for(main, 10))


def make(base=None):
    base = base or asyncio.StreamReaderProtocol
    return type("Protocol", (base,), {})(asyncio.StreamReader())


def test_what_is_in_it():
    async def main():
        protocol = make()
        protocol.mine = 1
        attributes = vars(protocol)
        assert {name: attributes[name] for name in KEPT} == KEPT
        assert attributes["_loop"] is asyncio.get_running_loop()
        assert isinstance(attributes, dict)
        assert sorted(attributes) == sorted(set(attributes))
        copies = [attributes.copy(), copy.copy(attributes), dict(attributes), {**attributes}, attributes | {}]
        for each in copies:
            assert type(each) is dict
            assert each == attributes
            assert len(each) == len(attributes)
        assert [*reversed(attributes)] == [*attributes][::-1]
        assert repr(attributes) == repr(attributes.copy())
        assert "_locks" not in attributes
        with pytest.raises(KeyError):
            attributes["_locks"]

    run(main())


@pytest.mark.parametrize("before", [True, False])
def test_it_is_the_objects_own(before):
    async def main():
        class Own(asyncio.StreamReaderProtocol):
            @functools.cached_property
            def cached(self):
                return object()

        protocol = make(Own)
        if before:
            protocol.early = 1
        attributes = protocol.__dict__
        protocol.late = 2
        assert attributes is protocol.__dict__
        assert attributes["late"] == 2
        attributes["later"] = 3
        attributes.update(latest=4)
        attributes |= {"last": 5}
        assert (protocol.later, protocol.latest, protocol.last) == (3, 4, 5)
        assert protocol.cached is attributes["cached"] is protocol.cached
        assert inspect.getattr_static(protocol, "later") == 3
        del attributes["late"]
        assert attributes.pop("later") == 3
        assert not hasattr(protocol, "late")
        assert not hasattr(protocol, "later")
        assert (attributes | {"more": 5})["more"] == 5
        assert not hasattr(protocol, "more")
        assert ("early" in attributes) is before
        assert attributes.setdefault("early", 7) == protocol.early == (1 if before else 7)
        only = {name: value for name, value in attributes.items() if isinstance(value, int | None)}
        assert pickle.loads(pickle.dumps(only)) == only

    run(main())


def test_a_subclass_with_attributes_of_its_own_making():
    class Own(asyncio.StreamReaderProtocol):
        def __setattr__(self, name, value):
            self.__dict__[name] = value

        def __getattribute__(self, name):
            attributes = object.__getattribute__(self, "__dict__")
            return attributes[name] if name in attributes else super().__getattribute__(name)

    async def main():
        protocol = make(Own)
        protocol._paused = protocol.mine = True
        assert (protocol._paused, protocol.mine) == (True, True)
        protocol.resume_writing()
        assert protocol._paused is False

    run(main())


def test_it_may_outlive_the_object():
    async def main():
        protocol = make()
        protocol.mine = protocol
        attributes, seen = protocol.__dict__, weakref.ref(protocol)
        del attributes["mine"], protocol
        gc.collect()
        assert seen() is None
        assert "mine" not in attributes
        attributes["more"] = 1
        assert attributes["more"] == 1

    run(main())


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
            block.reschedule(asyncio.get_running_loop().time() + 100)
            block._timeout_handler = handle = block._timeout_handler
            assert not handle.cancelled()
            block.reschedule(asyncio.get_running_loop().time() + 0.01)
            assert handle.cancelled()
            await asyncio.sleep(10)

    with pytest.raises(TimeoutError):
        run(main())
