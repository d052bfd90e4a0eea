"""Objects of aioxide pass for asyncio's, wherever a library asks."""

import asyncio
import collections.abc
import gc
import inspect
import os
import weakref

import aioxide
import pytest
from tls import client_context, server_context


def test_classes_are_subclasses():
    for name in ("Future", "Task", "EventLoop"):
        twin = getattr(aioxide, name)
        assert issubclass(twin, getattr(asyncio, name if name != "EventLoop" else "AbstractEventLoop"))
    assert issubclass(aioxide.Task, aioxide.Future)


@pytest.fixture
def objects(loop, aio):
    async def nothing():
        pass

    task = loop.create_task(nothing())
    yield {"loop": loop, "future": loop.create_future(), "task": task}
    loop.run_until_complete(task)


@pytest.mark.parametrize("installation", [False, True], ids=["not installed", "installed"])
def test_objects_are_instances(objects, installation, aio, request):
    if installation:
        if aio is asyncio:  # isfuture() tells the truth about them, isinstance() needs a metaclass
            reason = "futures of CPython's own class are no instances of the one installed"
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
        aioxide.install()
    try:
        assert isinstance(objects["loop"], asyncio.AbstractEventLoop)
        assert isinstance(objects["future"], asyncio.Future)
        assert not isinstance(objects["future"], asyncio.Task)
        assert isinstance(objects["task"], asyncio.Task)
        assert isinstance(objects["task"], asyncio.Future)
        assert asyncio.isfuture(objects["future"])
        assert asyncio.isfuture(objects["task"])
        assert isinstance(objects["future"], collections.abc.Awaitable)
        assert inspect.isawaitable(objects["task"])
    finally:
        aioxide.uninstall()


def test_transports_are_of_asyncios_classes(run, aio):
    """Which programs ask for, to tell a TCP connection from UDP, or whether it has TLS already."""
    from asyncio import base_subprocess, selector_events, sslproto, transports, unix_events

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=server_context())
        address = server.sockets[0].getsockname()
        tls, _ = await loop.create_connection(
            asyncio.Protocol, *address, ssl=client_context(), server_hostname="localhost"
        )
        tcp, _ = await loop.create_connection(asyncio.Protocol, *address)
        udp, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
        ends = os.pipe()
        reading, _ = await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(ends[0], "rb"))
        writing, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(ends[1], "wb"))
        process, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "true")
        expected = {
            server: (asyncio.base_events.Server, asyncio.AbstractServer),
            tls: (sslproto._SSLProtocolTransport, asyncio.Transport),
            tls._ssl_protocol: (sslproto.SSLProtocol, asyncio.BufferedProtocol),
            tcp: (selector_events._SelectorSocketTransport, transports._FlowControlMixin, asyncio.Transport),
            udp: (selector_events._SelectorDatagramTransport,),  # no DatagramTransport in older asyncios
            reading: (unix_events._UnixReadPipeTransport, asyncio.ReadTransport),
            writing: (unix_events._UnixWritePipeTransport, asyncio.WriteTransport),
            process: (base_subprocess.BaseSubprocessTransport, asyncio.SubprocessTransport),
        }
        for made, classes in expected.items():
            for one in classes:
                assert isinstance(made, one)
            assert made.__class__ is classes[0] or made is process
        kinds = {classes[0] for classes in expected.values()}
        for made, classes in expected.items():
            assert not any(isinstance(made, other) for other in kinds - set(classes[:1]))
        for made in expected:
            if isinstance(made, asyncio.BaseTransport):
                made.close()
        server.close()
        await asyncio.sleep(0.01)

    run(main())


def test_introspection_of_asyncio_sees_our_tasks(loop, aio):
    async def look():
        current = asyncio.current_task()
        assert current in asyncio.all_tasks()
        assert aioxide.current_task() is current
        other = asyncio.get_running_loop().create_task(asyncio.sleep(0))
        assert asyncio.all_tasks() == {current, other} == aioxide.all_tasks()
        await other
        assert asyncio.all_tasks() == {current}
        assert asyncio.get_running_loop() is loop is aioxide.get_running_loop()
        return type(current)

    kind = loop.run_until_complete(look())
    assert kind is (aioxide.Task if aio is aioxide else asyncio.Task)
    assert asyncio.all_tasks(loop) == set()


def test_futures_of_one_are_awaited_by_tasks_of_the_other(loop, aio):
    async def main():
        foreign = (aioxide if aio is asyncio else asyncio).Future()
        loop.call_soon(foreign.set_result, "foreign")
        return await foreign

    assert loop.run_until_complete(main()) == "foreign"


def test_tasks_of_stock_asyncio_run_on_our_loop(loop, aio):
    async def main():
        task = asyncio.Task(asyncio.sleep(0, "stock"), loop=loop)
        return await task

    assert loop.run_until_complete(main()) == "stock"


def test_what_a_program_puts_on_an_object(loop, aio):
    """Attributes and weak references; nothing of it keeps the object alive."""

    async def made():
        server = await aio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
        things = [
            aio.timeout(5),
            aio.TaskGroup(),
            aio.Barrier(2),
            aio.Condition(),
            aio.Event(),
            aio.Lock(),
            aio.Queue(),
        ]
        things += [aio.Semaphore(), aio.Runner(), reader, writer, writer.transport, writer.transport.get_protocol()]
        things += [server, loop.create_future(), asyncio.current_task(), loop]
        for thing in things:
            assert weakref.ref(thing)() is thing
            thing.mark = thing  # a cycle
            assert thing.mark is thing
            del thing.mark
            assert not hasattr(thing, "mark")
        writer.close()
        await writer.wait_closed()
        server.close()
        kept = [weakref.ref(thing) for thing in things[:9]]
        for thing in things[:9]:
            thing.cycle = thing
        return kept

    kept = loop.run_until_complete(made())
    gc.collect()
    assert [reference() for reference in kept] == [None] * 9
