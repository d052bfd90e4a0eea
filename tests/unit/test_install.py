"""`install` and `uninstall`: asyncio is aioxide, and then it is CPython's again."""

import asyncio
import asyncio.events
import pickle
import subprocess
import sys
import threading
import types
import warnings

# What a module that was imported before the installation holds.
from asyncio import Future as EarlyFuture, Task as EarlyTask, gather as early_gather, sleep as early_sleep

import aioxide
import pytest

STOCK = {name: getattr(asyncio, name) for name in asyncio.__all__}


def bindings():
    """Everything that is bound in asyncio's modules and in the default policy."""
    owners = [module for name, module in sys.modules.items() if name.partition(".")[0] == "asyncio"]
    owners.append(asyncio.unix_events._UnixDefaultEventLoopPolicy)
    found = {(owner.__name__, name): value for owner in owners for name, value in vars(owner).items()}
    del found["asyncio.events", "_event_loop_policy"]  # made by asyncio when it is first asked for
    return found


def differing(before, after):
    return sorted(key for key in before.keys() | after.keys() if before.get(key) is not after.get(key))


@pytest.fixture(autouse=True)
def nothing_is_left_installed():
    before = bindings()
    yield
    aioxide.uninstall()
    assert differing(before, bindings()) == []


async def kinds():
    return type(asyncio.get_running_loop()), type(asyncio.current_task())


def test_importing_aioxide_changes_nothing():
    source = """
import sys, asyncio
owners = [module for name, module in sys.modules.items() if name.partition(".")[0] == "asyncio"]
before = {(owner, name): value for owner in owners for name, value in vars(owner).items()}
import aioxide
assert all(getattr(owner, name) is value for (owner, name), value in before.items())
assert not aioxide.installed()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", source], check=True, timeout=60)


def test_public_names_lead_to_aioxide(installed):
    for name in (
        "Future",
        "Task",
        "Handle",
        "TimerHandle",
        "run",
        "Runner",
        "SelectorEventLoop",
    ):
        assert getattr(asyncio, name) is getattr(aioxide, name), name
        assert getattr(asyncio, name) is not STOCK.get(name), name


def test_names_inside_the_package_lead_to_aioxide(installed):
    assert asyncio.tasks.Task is aioxide.Task
    assert asyncio.tasks._CTask is aioxide.Task
    assert asyncio.futures.Future is aioxide.Future
    assert asyncio.futures._CFuture is aioxide.Future
    assert asyncio.events.Handle is aioxide.Handle
    assert asyncio.EventLoop is asyncio.unix_events.SelectorEventLoop is aioxide.SelectorEventLoop
    for key, value in bindings().items():
        for name in ("Future", "Task", "Handle", "TimerHandle"):
            assert value is not STOCK[name], key


@pytest.mark.parametrize("repeat", [1, 2, 5])
def test_installing_again_changes_nothing(repeat):
    before = bindings()
    for _ in range(repeat):
        aioxide.install()
    assert aioxide.installed()
    aioxide.uninstall()
    assert not aioxide.installed()
    assert differing(before, bindings()) == []


def test_uninstalling_what_is_not_installed_does_nothing():
    before = bindings()
    aioxide.uninstall()
    aioxide.uninstall()
    assert differing(before, bindings()) == []


def test_installing_in_a_with_statement_undoes_its_own_call_only():
    with aioxide.install():
        with aioxide.install():
            assert aioxide.installed()
        assert aioxide.installed()
        assert asyncio.Task is aioxide.Task
    assert not aioxide.installed()


def test_what_somebody_else_has_replaced_meanwhile_stays(monkeypatch):
    aioxide.install()
    other = object()
    monkeypatch.setattr(asyncio, "Task", other)
    aioxide.uninstall()
    assert asyncio.Task is other
    assert asyncio.tasks.Task is STOCK["Task"]
    monkeypatch.undo()  # puts back what was there when it was called: aioxide's
    asyncio.Task = STOCK["Task"]


def test_run_uses_aioxide(installed):
    assert asyncio.run(kinds()) == (aioxide.EventLoop, aioxide.Task)
    with asyncio.Runner() as runner:
        assert runner.run(kinds()) == (aioxide.EventLoop, aioxide.Task)


@pytest.mark.parametrize("make", ["new_event_loop", "EventLoop", "SelectorEventLoop"])
def test_every_way_to_make_a_loop_makes_ours(installed, make):
    loop = getattr(asyncio, make)()
    assert type(loop) is aioxide.EventLoop
    loop.close()


def test_the_default_policy_makes_our_loops(installed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loop = asyncio.get_event_loop_policy().new_event_loop()
    assert type(loop) is aioxide.EventLoop
    loop.close()


def test_threads_make_our_loops(installed):
    found = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(kinds())))
    thread.start()
    thread.join(10)
    assert found == [(aioxide.EventLoop, aioxide.Task)]


def test_a_policy_of_the_program_decides(installed):
    made = []

    class Policy(asyncio.unix_events._UnixDefaultEventLoopPolicy):
        def new_event_loop(self):
            made.append(super().new_event_loop())
            return made[-1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(Policy())
        try:
            asyncio.run(kinds())
        finally:
            asyncio.set_event_loop_policy(None)
    assert len(made) == 1


def test_a_loop_factory_decides(installed):
    with asyncio.Runner(loop_factory=asyncio.unix_events._UnixSelectorEventLoop) as runner:
        assert not isinstance(runner.get_loop(), aioxide.EventLoop)


def test_without_installing_asyncio_keeps_its_loop():
    aioxide.run(kinds())
    assert asyncio.run(kinds()) == (asyncio.SelectorEventLoop, STOCK["Task"])


def test_names_imported_before_go_on_working(installed):
    async def main():
        task = asyncio.create_task(early_sleep(0, "early"))
        assert isinstance(task, EarlyTask)
        assert isinstance(task, EarlyFuture)
        late = asyncio.get_running_loop().create_future()
        assert isinstance(late, EarlyFuture)
        early = EarlyFuture()
        asyncio.get_running_loop().call_soon(early.set_result, 1)
        asyncio.get_running_loop().call_soon(late.set_result, 2)
        return await early_gather(task, early, late, early_sleep(0, 3))

    assert asyncio.run(main()) == ["early", 1, 2, 3]


def test_objects_made_before_go_on_working():
    loop = asyncio.new_event_loop()
    future = loop.create_future()

    async def wait():
        await asyncio.sleep(0)
        return await future

    task = loop.create_task(wait())
    with aioxide.install():
        loop.call_soon(future.set_result, 4)
        assert loop.run_until_complete(task) == 4
        assert loop.run_until_complete(asyncio.wait_for(early_sleep(0, 5), 1)) == 5

        async def group():
            async with asyncio.TaskGroup() as tasks:
                done = tasks.create_task(asyncio.sleep(0.001, 6))
            return done.result()

        assert loop.run_until_complete(group()) == 6
        loop.close()


def test_objects_made_in_between_go_on_working():
    with aioxide.install():
        loop = asyncio.new_event_loop()
        task = loop.create_task(asyncio.sleep(0.001, 7))
    assert loop.run_until_complete(task) == 7
    assert loop.run_until_complete(early_sleep(0, 8)) == 8
    loop.close()


def test_exceptions_are_the_same_objects(installed):
    for name in ("CancelledError", "TimeoutError", "InvalidStateError", "QueueEmpty", "IncompleteReadError"):
        assert getattr(asyncio, name) is STOCK[name] is getattr(aioxide, name)
        assert pickle.loads(pickle.dumps(getattr(asyncio, name))) is STOCK[name]


def test_our_policy(monkeypatch):
    policy = aioxide.EventLoopPolicy()
    assert isinstance(policy, asyncio.events.AbstractEventLoopPolicy if sys.version_info < (3, 14) else object)
    loop = policy.new_event_loop()
    assert type(loop) is aioxide.EventLoop
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(policy)
        try:
            assert asyncio.run(kinds()) == (aioxide.EventLoop, aioxide.Task)
        finally:
            asyncio.set_event_loop_policy(None)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="no name of asyncio is made up on access")
def test_names_made_up_on_access_are_what_they_were_and_warn_at_the_caller():
    def look(name):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = getattr(asyncio, name)
        return found, [(str(w.message), w.category, w.filename) for w in caught]

    def refused(name):
        with pytest.raises(AttributeError) as caught:
            look(name)
        return str(caught.value)

    names = "AbstractEventLoopPolicy", "DefaultEventLoopPolicy"
    before = [look(name) for name in names], refused("nothing"), refused("WindowsSelectorEventLoopPolicy")
    listed, shown = dir(asyncio), repr(asyncio)
    with aioxide.install():
        if sys.version_info < (3, 16):
            assert "__getattr__" not in vars(asyncio)  # with one, the interpreter remembers no attribute's place
        assert ([look(name) for name in names], refused("nothing"), refused("WindowsSelectorEventLoopPolicy")) == before
        assert before[0][0][1][0][2] == __file__
        assert pickle.loads(pickle.dumps(asyncio)) is asyncio
        assert isinstance(asyncio, types.ModuleType)
        assert repr(asyncio) == shown
        assert set(listed) - set(dir(asyncio)) <= {"__getattr__"}
        asyncio.DefaultEventLoopPolicy = names
        assert look("DefaultEventLoopPolicy") == (names, [])
        del asyncio.DefaultEventLoopPolicy
        assert "no attribute" in refused("DefaultEventLoopPolicy")
    assert look(names[1]) == before[0][1]


def test_what_is_loaded_late_knows_asyncios_own():
    """Tools that let asyncio's loop start processes know it by its file and function."""
    source = """
import asyncio, aioxide
aioxide.install()
async def main():
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
asyncio.run(main())
from aioxide import _blocking
from asyncio import unix_events
base = unix_events._UnixSelectorEventLoop
for name in ("subprocess_exec", "subprocess_shell", "create_unix_server"):
    ours, theirs = getattr(_blocking, name).__code__, getattr(base, name).__code__
    assert (ours.co_filename, ours.co_name) == (theirs.co_filename, theirs.co_name), name
"""
    subprocess.run([sys.executable, "-W", "error", "-c", source], check=True, timeout=60)
