"""`asyncio.SelectorEventLoop`, called and subclassed.  Every test runs on asyncio's own first."""

import abc
import asyncio
import contextlib
import functools
import inspect
import operator
import pickle
import selectors
from unittest.mock import patch

import aioxide
import pytest

pytestmark = pytest.mark.usefixtures("in_place")


class Jumping(selectors.DefaultSelector):
    """Does not wait, but lets its time pass."""

    now = 0.0

    def select(self, timeout=None):
        self.now += timeout or 0
        return super().select(0)


async def rest():
    await asyncio.sleep(100)
    return type(asyncio.get_running_loop())


def run(loop, main):
    with contextlib.closing(loop):
        return loop.run_until_complete(main)


def test_a_selector_of_the_programs_own():
    """A clock that jumps, say: it has to be asked, so the loop is one that asks it."""
    jumping = Jumping()
    loop = asyncio.SelectorEventLoop(jumping)
    loop.time = lambda: jumping.now
    run(loop, rest())
    assert jumping.now >= 100


@pytest.mark.parametrize("arguments", [(), (None,), (selectors.SelectSelector(),)])
def test_a_selector_that_only_waits(arguments):
    loop = asyncio.SelectorEventLoop(*arguments)
    assert isinstance(loop, asyncio.SelectorEventLoop)
    assert isinstance(loop, aioxide.EventLoop) == aioxide.installed()
    assert run(loop, asyncio.sleep(0, "done")) == "done"


def test_a_subclass_with_a_selector():
    """As GUI toolkits' loops and tests' clocks do it."""

    class Loop(asyncio.SelectorEventLoop):
        def __init__(self, name):
            self.name = name
            super().__init__(Jumping())

        def time(self):
            return self._selector.now

    loop = Loop("jumps")
    assert isinstance(loop, asyncio.SelectorEventLoop)
    assert issubclass(Loop, asyncio.SelectorEventLoop)
    assert loop.run_until_complete(rest()) is Loop
    assert loop.time() >= 100
    loop.close()
    assert loop.name == "jumps"


def test_a_subclass_that_looks_inside():
    turns = []

    class Loop(asyncio.SelectorEventLoop):
        def _run_once(self):
            turns.append(len(self._ready))
            super()._run_once()

    loop = type("Named", (Loop,), {})()
    assert run(loop, asyncio.sleep(0, "done")) == "done"
    assert turns
    assert max(turns) > 0


def test_a_subclass_that_names_its_base():
    class Loop(asyncio.SelectorEventLoop):
        def __init__(self):
            asyncio.SelectorEventLoop.__init__(self, Jumping())

        real_time = functools.partialmethod(asyncio.SelectorEventLoop.time)
        soon = asyncio.SelectorEventLoop.call_soon

        def __repr__(self):
            return f"({asyncio.SelectorEventLoop.__repr__(self)})"

        def time(self):
            return self.real_time() + self._selector.now

        def call_soon(self, callback, *args, context=None):
            return asyncio.SelectorEventLoop.call_soon(self, callback, *args, context=context)

        def _run_once(self):
            asyncio.SelectorEventLoop._run_once(self)

        async def create_server(self, *args, **kwargs):
            return await asyncio.SelectorEventLoop.create_server(self, *args, **kwargs)

    async def main():
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        server.close()
        return await rest()

    loop, called = Loop(), []
    loop.soon(called.append, 1)
    assert repr(loop).startswith("(<Loop ")
    assert run(loop, main()) is Loop
    assert called == [1]
    assert Loop.__module__ == type("Named", (asyncio.SelectorEventLoop,), {}).__module__ == __name__


def test_what_the_methods_say_of_themselves():
    for name in ("create_server", "call_soon", "run_forever", "sock_recv"):
        method = getattr(asyncio.SelectorEventLoop, name)
        own = getattr(aioxide.EventLoop, name) if aioxide.installed() else method
        assert inspect.signature(method) == inspect.signature(own)
        assert inspect.iscoroutinefunction(method) == (name in {"create_server", "sock_recv"})
        assert method.__name__ == name
        assert method is getattr(asyncio.SelectorEventLoop, name)
    with pytest.raises(AttributeError):
        asyncio.SelectorEventLoop._nothing  # noqa: B018
    with pytest.raises(TypeError):
        asyncio.SelectorEventLoop.call_soon()


def test_a_patch_that_calls_what_was_there():
    called, original = [], asyncio.SelectorEventLoop.call_later

    def call_later(self, delay, callback, *args, **kwargs):
        called.append(delay)
        return original(self, delay, callback, *args, **kwargs)

    loop = asyncio.new_event_loop()
    asyncio.SelectorEventLoop.call_later = call_later
    try:
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
    finally:
        asyncio.SelectorEventLoop.call_later = original
        if not aioxide.installed():
            del asyncio.SelectorEventLoop.call_later  # it is BaseEventLoop's
    assert called == [0.001]
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    loop.close()
    assert called == [0.001]


def test_a_subclass_made_by_a_call():
    """With a mixin that wants to be told of its subclasses, and an abstract class."""
    told = []

    class Mixin(abc.ABC):  # noqa: B024  (its class is what matters)
        def __init_subclass__(cls, **wishes):
            told.append((cls.__name__, wishes))

        def create_future(self):
            told.append("future")
            return super().create_future()

    class Loop(Mixin, asyncio.SelectorEventLoop, wish=1):
        pass

    Other = type("Other", (Mixin, asyncio.SelectorEventLoop), {}, wish=2)
    assert run(Other(), asyncio.sleep(0, "done")) == "done"
    assert told[:2] == [("Loop", {"wish": 1}), ("Other", {"wish": 2})]
    loop = Loop()
    told.clear()
    loop.create_future().cancel()
    loop.close()
    assert told == ["future"]
    assert isinstance(Loop, abc.ABCMeta)


CLASSES = ["SelectorEventLoop", "BaseEventLoop", "selector_events.BaseSelectorEventLoop", "base_events.BaseEventLoop"]


@pytest.fixture(params=CLASSES)
def named(request):
    """A class of loops, by a name that tests and tools put things into."""
    return operator.attrgetter(request.param)(asyncio)


@pytest.fixture(params=[asyncio.SelectorEventLoop, asyncio.new_event_loop])
def either(request):
    """A loop of asyncio's, and one of aioxide's."""
    with contextlib.closing(request.param()) as loop:
        yield loop


@pytest.mark.parametrize("name", ["time", "create_server", "call_soon", "run_in_executor", "__del__"])
def test_what_is_put_in_the_place_of_a_method(named, either, name):
    before, own = getattr(named, name), getattr(type(either), name)

    def put_there(self):
        return "put there"

    with patch.object(named, name, put_there), patch.object(named, name, put_there):
        assert getattr(either, name)() == "put there"
        assert getattr(named, name) is put_there
    assert getattr(named, name) == before
    assert getattr(type(either), name) == own
    assert either.run_until_complete(asyncio.sleep(0, "done")) == "done"


def test_a_test_puts_a_method_there(named, either, monkeypatch):
    before, own = named.call_later, type(either).call_later
    monkeypatch.setattr(named, "call_later", lambda *args: args)
    monkeypatch.setattr(named, "something_new", 1, raising=False)
    assert either.call_later(1, print) == (either, 1, print)
    assert either.something_new == 1
    monkeypatch.undo()
    assert named.call_later == before
    assert type(either).call_later == own
    assert not hasattr(either, "something_new")


def test_two_names_have_something(either):
    real = type(either).time(either)
    with patch.object(asyncio.BaseEventLoop, "time", lambda self: -1):
        with patch.object(asyncio.SelectorEventLoop, "time", lambda self: -2):
            assert either.time() == -2
        assert either.time() == -1
    with patch.object(asyncio.SelectorEventLoop, "time", lambda self: -2):
        with patch.object(asyncio.BaseEventLoop, "time", lambda self: -1):
            assert either.time() == -2
        assert either.time() == -2
    assert either.time() >= real


def test_what_is_put_back_under_another_name(either):
    original = asyncio.SelectorEventLoop.time
    with patch.object(asyncio.BaseEventLoop, "time", lambda self: -1):
        asyncio.SelectorEventLoop.time = original
        assert either.time() > 0
        del asyncio.SelectorEventLoop.time
        assert either.time() == -1
    assert either.time() > 0


def test_patches_that_look_like_the_method(named):
    loop = asyncio.new_event_loop()
    with patch.object(named, "call_later", autospec=True) as call_later:
        loop.call_later(1, print)
    call_later.assert_called_once_with(loop, 1, print)
    with patch.object(named, "run_in_executor", autospec=True) as run_in_executor:
        loop.run_in_executor(None, print)
    run_in_executor.assert_called_once_with(loop, None, print)
    loop.close()
    assert inspect.isfunction(named.call_later)


def test_a_patch_before_the_loop_runs(named):
    made, loop, create_task = [], asyncio.new_event_loop(), named.create_task

    async def main():
        await asyncio.create_task(asyncio.sleep(0))

    with patch.object(named, "create_task", lambda *args, **kwargs: (made.append(1), create_task(*args, **kwargs))[1]):
        run(loop, main())
    assert len(made) == 2


def test_which_is_a_subclass_of_which():
    assert not issubclass(asyncio.BaseEventLoop, asyncio.SelectorEventLoop)
    assert issubclass(asyncio.SelectorEventLoop, asyncio.BaseEventLoop)
    assert issubclass(asyncio.BaseEventLoop, asyncio.AbstractEventLoop)


def test_names_that_a_class_does_not_give_away(named):
    with pytest.raises(TypeError):
        named.__name__ = 3
    assert "time" in dir(named)
    assert pickle.loads(pickle.dumps(named)) is named


def test_nothing_goes_away(named):
    with pytest.raises(AttributeError):
        del named.nothing
    named.time = named.time
    assert run(asyncio.new_event_loop(), asyncio.sleep(0.001, "done")) == "done"


class Refused(Exception):
    pass


async def refuse(*args, **kwargs):
    raise Refused


@pytest.mark.parametrize(
    ("method", "use"),
    [
        ("getaddrinfo", lambda: asyncio.open_connection("localhost", 1)),
        ("create_connection", lambda: asyncio.open_connection("127.0.0.1", 1)),
        ("create_server", lambda: asyncio.start_server(print, "127.0.0.1", 0)),
        ("create_unix_connection", lambda: asyncio.open_unix_connection("nowhere")),
        ("run_in_executor", lambda: asyncio.to_thread(print)),
        ("subprocess_exec", lambda: asyncio.create_subprocess_exec("true")),
        ("sock_connect", lambda: asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", 1)),
    ],
)
@pytest.mark.parametrize("early", [True, False])
def test_a_network_that_is_forbidden(named, method, use, early):
    """As tests do that must not leave the machine: before there is a loop, or inside of one that runs."""
    if getattr(named, method) != getattr(asyncio.SelectorEventLoop, method):
        pytest.skip("asyncio has it further down")

    async def main():
        with patch.object(named, method, refuse):
            await use()

    def go():
        with pytest.raises(Refused):
            run(asyncio.new_event_loop(), main())

    if early:
        with patch.object(named, method, refuse):
            go()
    else:
        go()


@pytest.mark.parametrize("name", ["sock_recv", "create_unix_server"])
def test_what_asyncio_replaces_further_down(either, name):
    before = getattr(either, name)
    with patch.object(asyncio.BaseEventLoop, name, refuse):
        assert getattr(asyncio.BaseEventLoop, name) is refuse
        assert getattr(either, name) == before
    assert getattr(asyncio.BaseEventLoop, name) != refuse


def test_tasks_that_are_followed(named):
    followed, create_task = [], named.create_task

    def create(self, coro, **kwargs):
        followed.append(coro.__name__)
        return create_task(self, coro, **kwargs)

    async def main():
        with patch.object(named, "create_task", create):
            return await asyncio.create_task(asyncio.sleep(0, "done"))

    assert run(asyncio.new_event_loop(), main()) == "done"
    assert followed == ["sleep"]


def test_all_loops_are_of_the_class(named, either):
    assert isinstance(either, named)
    assert issubclass(type(either), named)
    assert issubclass(asyncio.SelectorEventLoop, named)


def test_a_base_is_called():
    loop = asyncio.BaseEventLoop()
    assert not isinstance(loop, aioxide.EventLoop)
    assert isinstance(loop, asyncio.BaseEventLoop)
    with pytest.raises(NotImplementedError):
        loop._make_socket_transport(None, None)
    loop.close()


def test_a_subclass_of_a_base():
    class Loop(asyncio.selector_events.BaseSelectorEventLoop):
        def __init__(self):
            asyncio.selector_events.BaseSelectorEventLoop.__init__(self, Jumping())

        def time(self):
            return self._selector.now

    assert run(Loop(), rest()) is Loop
    with contextlib.closing(Loop()) as loop:
        assert isinstance(loop, asyncio.BaseEventLoop)
        assert not isinstance(loop, aioxide.EventLoop)


@pytest.mark.parametrize("other", [object(), 3, None])
def test_what_is_no_loop(other):
    assert not isinstance(other, asyncio.SelectorEventLoop)
    assert not issubclass(type(other), asyncio.SelectorEventLoop)
    with pytest.raises(TypeError):
        issubclass(other, asyncio.SelectorEventLoop)


def test_a_subclass_of_aioxides_own():
    class Loop(aioxide.EventLoop):
        def __init__(self, name, selector=None):
            super().__init__(selector)
            self.name = name

    with contextlib.closing(Loop("plain")) as loop:
        assert isinstance(loop, aioxide.EventLoop)
        assert isinstance(loop, asyncio.SelectorEventLoop) == aioxide.installed()
        assert loop.name == "plain"
    with pytest.raises(TypeError, match="waits by itself"):
        Loop("jumping", Jumping())
