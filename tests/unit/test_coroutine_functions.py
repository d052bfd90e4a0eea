"""What is an `async def` in asyncio is a coroutine function in aioxide: for inspect, for mocks, for frameworks."""

import asyncio
import inspect
import sys
import types
from unittest import mock

import aioxide
import pytest

# On 3.11 `inspect` knows `async def` only, and asyncio has the function that mocks ask.
ask = asyncio.iscoroutinefunction if sys.version_info < (3, 12) else inspect.iscoroutinefunction


def pairs():
    for name in dir(aioxide):
        ours, theirs = getattr(aioxide, name), getattr(asyncio, name, None)
        if isinstance(ours, type) and isinstance(theirs, type):
            for method in dir(theirs):
                function = inspect.getattr_static(theirs, method)
                if method == "__anext__":  # a slot of the type, and the interpreter's
                    continue
                own = inspect.getattr_static(ours, method, None)
                if inspect.iscoroutinefunction(function) and own:
                    yield pytest.param(own, id=f"{name}.{method}")
        elif inspect.iscoroutinefunction(theirs):
            yield pytest.param(ours, id=name)


ALL = list(pairs())


def test_there_are_some():
    names = {parameter.id for parameter in ALL}
    assert {"sleep", "Lock.acquire", "Queue.get", "StreamWriter.drain", "SelectorEventLoop.create_server"} <= names
    assert len(names) > 100


@pytest.mark.parametrize("function", ALL)
def test_a_coroutine_function(function):
    assert ask(function)


@pytest.mark.parametrize(
    "function",
    [aioxide.gather, aioxide.shield, aioxide.Queue.get_nowait, aioxide.Lock.locked, aioxide.StreamWriter.write],
)
def test_another_function(function):
    assert not ask(function)


def test_bound_methods(aio, loop):
    for thing, name in ((aio.Lock(), "acquire"), (aio.Queue(), "get"), (loop, "sock_recv")):
        method = getattr(thing, name)
        assert ask(method)
        assert method.__self__ is thing
        assert method.__name__ == name
        assert method == getattr(thing, name)
        assert method.__func__ is getattr(type(thing), name)


def test_a_call_has_the_right_receiver():
    for receiver in (object(), None, aioxide.Queue()):
        with pytest.raises(TypeError):
            aioxide.Lock.acquire(receiver)
        with pytest.raises(TypeError):
            aioxide.Lock.acquire.__get__(receiver, type(receiver))()
    with pytest.raises(TypeError):
        aioxide.Lock.acquire()
    with pytest.raises(TypeError):
        aioxide.Lock().acquire(1)
    with pytest.raises(TypeError):
        type(aioxide.Lock.acquire)()


def test_still_a_method_descriptor():
    method = aioxide.Queue.get
    assert isinstance(method, types.MethodDescriptorType)
    assert inspect.ismethoddescriptor(method)
    assert inspect.isroutine(method)
    assert method.__objclass__ is aioxide.Queue
    assert method.__qualname__ == "Queue.get"
    assert aioxide.Queue.__dict__["get"] is method


def test_a_subclass_and_super(run, aio):
    class Sub(aio.Queue):
        async def get(self):
            return ("sub", await super().get())

    async def main():
        queue = Sub()
        await queue.put(1)
        assert await queue.get() == ("sub", 1)
        assert await aio.Lock.acquire(aio.Lock())

    run(main())


def test_mocks_of_classes(run, aio):
    async def main():
        writer = mock.Mock(spec=aio.StreamWriter)
        await writer.drain()
        await writer.wait_closed()
        writer.write(b"x")
        writer.drain.assert_awaited_once_with()
        sleep = mock.create_autospec(aio.sleep, return_value=1)
        assert await sleep(2) == 1
        sleep.assert_awaited_once_with(2)
        server = mock.create_autospec(aio.Server, instance=True)
        await server.wait_closed()
        server.close()

    run(main())


def test_patches_of_a_loop(loop, run):
    async def main():
        with mock.patch.object(loop, "create_server", autospec=True, return_value="server"):
            assert await loop.create_server(1, "host", 2) == "server"

    run(main())


OF_THE_LOOP = [name for name in dir(asyncio.SelectorEventLoop) if ask(getattr(asyncio.SelectorEventLoop, name))]


@pytest.mark.parametrize("name", [name for name in OF_THE_LOOP if hasattr(aioxide.EventLoop, name)])
def test_the_loops_coroutines_are_called_as_asyncios(name, loop):
    """Filters of warnings go by the name: pytest-asyncio's, of "BaseEventLoop.shutdown_asyncgens was never awaited"."""
    function = getattr(asyncio.SelectorEventLoop, name)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    needed = [each for each in parameters if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD]
    coroutine = getattr(loop, name)(*[mock.MagicMock() for _ in needed])
    try:
        assert coroutine.__qualname__ == function.__qualname__
        assert coroutine.__name__ == name
    finally:
        coroutine.close()
