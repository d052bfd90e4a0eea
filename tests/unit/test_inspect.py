"""What `aioxide.tasks` says about programs that are built to show it, with asyncio's tasks and with aioxide's."""

import asyncio
import gc
import inspect
import socket
import threading

import aioxide
import pytest


@pytest.fixture
def aio(aio, request):
    """asyncio by CPython with its own names everywhere, or all of aioxide."""
    if aio is asyncio:
        yield asyncio
        return
    with aioxide.install():
        yield asyncio


def look(run, aio, *coroutines, settle=0.05):
    """Starts each coroutine as a task; what is seen of them, by their names, once they wait."""

    async def main():
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(one, name=f"t{number}") for number, one in enumerate(coroutines)]
        await aio.sleep(settle)
        found = {task.name: task for task in aioxide.tasks(loop)}
        for task in tasks:
            task.cancel()
        await aio.gather(*tasks, return_exceptions=True)
        return found

    return run(main())


STOCK_TASK = asyncio.Task  # before anything is installed


async def forever(aio):
    await aio.sleep(1000)


def line_of(function, text):
    lines, start = inspect.getsourcelines(function)
    return start + next(number for number, line in enumerate(lines) if text in line)


def test_the_chain_names_functions_and_lines(run, aio):
    async def inner():
        await aio.sleep(1000)  # here

    async def outer():
        await inner()  # there

    task = look(run, aio, outer())["t0"]
    assert task.state == "waiting"
    prefix = "test_the_chain_names_functions_and_lines.<locals>."
    test = test_the_chain_names_functions_and_lines
    assert [(f.function, f.file, f.line) for f in task.chain[:2]] == [
        (prefix + "outer", __file__, line_of(test, "# there")),
        (prefix + "inner", __file__, line_of(test, "# here")),
    ]
    assert task.chain[2].function == "sleep"


def test_generators_and_awaitables_are_followed(run, aio):
    async def numbers():
        await aio.sleep(1000)
        yield 1

    async def iterate():
        async for _ in numbers():
            pass

    class Awaitable:
        def __await__(self):
            return forever(aio).__await__()

    async def wait():
        await Awaitable()

    found = look(run, aio, iterate(), wait())
    assert [f.function.rpartition(".")[2] for f in found["t0"].chain] == ["iterate", "numbers", "sleep"]
    assert [f.function.rpartition(".")[2] for f in found["t1"].chain] == ["wait", "forever", "sleep"]


def test_the_running_task_is_where_its_thread_is(run, aio):
    def called():
        return aioxide.tasks()

    async def main():
        return called(), id(asyncio.current_task())

    found, me = run(main())
    (task,) = [task for task in found if task.id == me]
    assert task.state == "running"
    assert task.waits_for is None
    assert [f.function.rpartition(".")[2] for f in task.chain][-2:] == ["main", "called"]
    assert task.thread == threading.get_ident()


def test_a_task_that_has_not_begun_is_ready(run, aio):
    async def main():
        task = asyncio.get_running_loop().create_task(forever(aio))
        found = [seen for seen in aioxide.tasks() if seen.id == id(task)]
        task.cancel()
        return found

    (task,) = run(main())
    assert task.state == "ready"
    assert task.chain[0].function == "forever"


async def hold(primitive):
    async with primitive:
        await asyncio.Event().wait()


@pytest.mark.parametrize("kind", ["lock", "semaphore"])
def test_locks_and_semaphores(run, aio, kind):
    async def main():
        primitive = aio.Lock() if kind == "lock" else aio.Semaphore(1)
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(hold(primitive)), loop.create_task(hold(primitive), name="waiter")]
        await aio.sleep(0.05)
        found = {task.name: task for task in aioxide.tasks(loop)}
        for task in tasks:
            task.cancel()
        await aio.gather(*tasks, return_exceptions=True)
        return found["waiter"].waits_for, id(primitive)

    waits, expected = run(main())
    assert waits.kind == kind
    assert waits.object_id == expected
    assert waits.class_name.lower() == kind


def test_events_conditions_barriers_and_queues(run, aio):
    async def condition():
        condition = aio.Condition()
        async with condition:
            await condition.wait()

    async def put():
        queue = aio.Queue(1)
        await queue.put(1)
        await queue.put(2)

    async def join():
        queue = aio.Queue()
        queue.put_nowait(1)
        await queue.join()

    async def get():
        await aio.Queue().get()

    async def event():
        await aio.Event().wait()

    async def barrier():
        await aio.Barrier(2).wait()

    found = look(run, aio, event(), condition(), barrier(), get(), put(), join())
    kinds = [found[f"t{number}"].waits_for.kind for number in range(6)]
    if aio.Queue is aioxide.Queue:
        assert kinds == ["event", "condition", "barrier", "queue", "queue", "queue"]
    else:
        assert kinds == ["event", "condition", "barrier", "queue", "queue", "event"]


def test_timers_say_when(run, aio):
    waits = look(run, aio, forever(aio))["t0"].waits_for
    assert waits.kind == "timer"
    if aio.sleep is aioxide.sleep and isinstance(waits.seconds_left, float):
        assert 900 < waits.seconds_left < 1000


def test_tasks_that_wait_for_tasks(run, aio):
    async def main():
        loop = asyncio.get_running_loop()
        first = loop.create_task(forever(aio), name="first")
        second = loop.create_task(forever(aio), name="second")

        async def one():
            await first

        async def both():
            await aio.gather(first, aio.gather(second))

        async def shielded():
            await aio.shield(first)

        async def group():
            async with aio.TaskGroup() as group:
                group.create_task(forever(aio), name="in group")

        async def waiting():
            await aio.wait([first, second])

        waiters = [one(), both(), shielded(), group(), waiting()]
        tasks = [loop.create_task(waiter, name=f"t{number}") for number, waiter in enumerate(waiters)]
        await aio.sleep(0.05)
        found = aioxide.tasks(loop)
        for task in [first, second, *tasks]:
            task.cancel()
        await aio.gather(first, second, *tasks, return_exceptions=True)
        return found

    found = run(main())
    names = {task.id: task.name for task in found}
    by_name = {task.name: task for task in found}
    waits = {
        name: (t.waits_for.kind, {names[i] for i in t.waits_for.tasks}) for name, t in by_name.items() if t.waits_for
    }
    assert waits["t0"] == ("task", {"first"})
    assert waits["t1"] == ("gather", {"first", "second"})
    assert waits["t2"] == ("shield", {"first"})
    assert waits["t3"] == ("group", {"in group"})
    assert waits["t4"] == ("tasks", {"first", "second"})
    assert {names[i] for i in by_name["first"].awaited_by} == {"t0", "t1", "t2", "t4"}
    assert {names[i] for i in by_name["in group"].awaited_by} == {"t3"}


def test_threads_and_sockets(run, aio):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    go_on = threading.Event()

    async def receive():
        await asyncio.get_running_loop().sock_recv(ours, 1)

    async def thread():
        await aio.to_thread(go_on.wait, 10)

    try:
        found = look(run, aio, receive(), thread())
    finally:
        go_on.set()
        ours.close()
        theirs.close()
    assert found["t0"].waits_for.kind == "socket"
    assert found["t1"].waits_for.kind == "thread"


def test_names_that_raise_and_foreign_tasks(run, aio):
    class Rude(STOCK_TASK):
        def get_name(self):
            raise ValueError("no name")

        def __repr__(self):
            raise ValueError("no repr")

    async def main():
        loop = asyncio.get_running_loop()
        rude = Rude(forever(aio), loop=loop)
        await aio.sleep(0.01)
        found = {task.id: task for task in aioxide.tasks(loop)}
        rude.cancel()
        await aio.wait([rude])
        return found[id(rude)]

    task = run(main())
    assert task.name == "?"
    assert task.state == "waiting"
    assert task.waits_for.kind == "timer"
    assert aioxide.format_tasks([task]).startswith("?  waiting\n")


def test_a_name_may_be_any_text(run, aio):
    name = 'quote " backslash \\ newline \n bell \a é 日本 \x7f'

    async def main():
        asyncio.current_task().set_name(name)
        return [task.name for task in aioxide.tasks()]

    assert name in run(main())


def test_another_thread_can_look(run, aio):
    if aio.sleep is not aioxide.sleep:
        pytest.skip("only running loops of aioxide are found from outside")

    async def main():
        task = asyncio.get_running_loop().create_task(forever(aio), name="seen")
        await aio.sleep(0.01)
        found = await aio.to_thread(aioxide.tasks)
        task.cancel()
        return found

    assert "seen" in {task.name for task in run(main())}


def test_the_tree_shows_each_task_once_and_circles_end():
    async def main():
        loop = asyncio.get_running_loop()
        tasks = []

        async def wait_for(number):
            await tasks[number]

        tasks.append(loop.create_task(wait_for(1), name="ping"))
        tasks.append(loop.create_task(wait_for(0), name="pong"))
        await asyncio.sleep(0.01)
        text = aioxide.format_tasks(loop)
        return text, tasks

    loop = aioxide.new_event_loop()
    text, tasks = loop.run_until_complete(main())
    for task in tasks:
        task._log_destroy_pending = False
        task.get_coro().close()
    loop.close()
    assert text.count("ping  waiting") == 1
    assert text.count("pong  waiting") == 1
    assert "ping (see there)" in text


def test_values_are_never_shown(run, aio):
    async def secretive(password):
        await aio.sleep(1000)

    async def main():
        task = asyncio.get_running_loop().create_task(secretive("hunter2"))
        await aio.sleep(0.01)
        text = aioxide.format_tasks() + repr(aioxide.tasks())
        task.cancel()
        return text

    assert "hunter2" not in run(main())


def test_looking_changes_nothing(run, aio):
    """A thousand looks at tasks that come and go: no error, and nothing is kept alive."""
    if aio.sleep is not aioxide.sleep:
        pytest.skip("nothing of ours to keep alive")

    async def busy(count):
        for _ in range(count):
            await aio.gather(*(aio.sleep(0) for _ in range(5)))

    async def main():
        loop = asyncio.get_running_loop()
        task = loop.create_task(busy(200))
        for _ in range(200):
            aioxide.tasks()
            await aio.sleep(0)
        await task
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(1000):
            aioxide.tasks()
        gc.collect()
        return len(gc.get_objects()) - before

    assert run(main(), seconds=60) < 100
