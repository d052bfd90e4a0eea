"""What must not be lost of child processes: the process, its status, its descriptors."""

import asyncio
import errno
import gc
import os
import resource
import signal
import sys
import threading
from asyncio.subprocess import PIPE

import aioxide
import filters
import pytest
from children import CAT, SLEEP, children, open_descriptors, reap

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.mark.parametrize("streams", [{}, {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}])
def test_cancelled_at_any_await(streams):
    """However far the start got, the child is gone once the task is."""

    async def main():
        started = 0
        for steps in range(12):
            task = asyncio.ensure_future(aioxide.create_subprocess_exec(*SLEEP, **streams))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            try:
                process = await task
            except asyncio.CancelledError:
                assert not children()
            else:
                started += 1
                process.kill()
                await process.communicate()
                process._transport.close()
            await asyncio.sleep(0.01)
        assert started > 0

    aioxide.run(main())


def test_a_killed_start_is_waited_for():
    """A second cancellation ends the wait, and the loop reaps the child all the same."""

    async def main():
        task = asyncio.ensure_future(aioxide.create_subprocess_exec(*SLEEP))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.2)
        assert not children()

    aioxide.run(main())


def test_descriptors_run_out():
    aio = aioxide  # CPython's loop forgets children here
    seen = []

    async def main():
        for streams in ({}, {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}):
            for spare in range(8):
                held = []
                try:
                    while True:
                        held.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    pass
                for _ in range(spare):
                    os.close(held.pop())
                try:
                    process = await aio.create_subprocess_exec("/bin/true", **streams)
                except OSError as error:
                    seen.append(error.errno)
                else:
                    assert await process.wait() == 0
                    process._transport.close()
                finally:
                    for fd in held:
                        os.close(fd)
                await asyncio.sleep(0.01)
        assert set(seen) == {errno.EMFILE}
        process = await aio.create_subprocess_exec("/bin/true")
        assert await process.wait() == 0

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    try:
        aioxide.run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_reaped_by_somebody_else(caplog):
    async def main():
        process = await aioxide.create_subprocess_exec(*SLEEP)
        os.kill(process.pid, signal.SIGKILL)
        reap(process.pid)
        assert await process.wait() == 255

    aioxide.run(main())
    assert "exit status already read" in caplog.text


def test_reaped_by_popen_itself(caplog):
    async def main():
        process = await aioxide.create_subprocess_exec(*SLEEP)
        popen = process._transport.get_extra_info("subprocess")
        popen.kill()
        popen.wait()
        assert await process.wait() == -signal.SIGKILL

    aioxide.run(main())
    assert not caplog.text


def test_no_signal_for_a_number_that_was_given_up(monkeypatch):
    async def main():
        process = await aioxide.create_subprocess_exec(*SLEEP)
        os.kill(process.pid, signal.SIGKILL)
        reap(process.pid)
        monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal by number"))
        process.terminate()  # the loop does not know yet, and the number may be anybody's
        assert await process.wait() == 255

    aioxide.run(main())


def test_sigchld_ignored(run, aio):
    """The kernel reaps children by itself then: nobody can say how they ended, but that they did is known."""

    async def main():
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            process = await aio.create_subprocess_exec(*SLEEP)
            process.kill()
            assert await process.wait() in {255, -signal.SIGKILL}
        finally:
            signal.signal(signal.SIGCHLD, before)

    run(main())


def test_descriptors_and_memory_stay_flat():
    async def main():
        async def once():
            process = await aioxide.create_subprocess_exec(*CAT, stdin=PIPE, stdout=PIPE, stderr=PIPE)
            assert await process.communicate(b"x") == (b"x", b"")

        await once()
        gc.collect()
        before = (len(open_descriptors()), len(gc.get_objects()))
        for _ in range(30):
            await once()
        await asyncio.sleep(0.01)
        gc.collect()
        after = (len(open_descriptors()), len(gc.get_objects()))
        assert after[0] == before[0]
        assert after[1] - before[1] < 100

    aioxide.run(main())


def test_in_a_thread(new_loop):
    results = []

    def work():
        loop = new_loop()
        try:

            async def main():
                process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 4")
                return await process.wait()

            results.append(loop.run_until_complete(main()))
        finally:
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [4]


# --- without pidfds, and child watchers ----------------------------------------------------------

WITHOUT_PIDFD = """
    import asyncio, aioxide, filters

    filters.without(434)  # pidfd_open

    async def main():
        processes = [await asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {n}") for n in range(5)]
        assert [await process.wait() for process in processes] == [0, 1, 2, 3, 4]
        process = await asyncio.create_subprocess_exec("/bin/sleep", "100")
        process.kill()
        assert await process.wait() == -9

    aioxide.run(main())
    print("done")
"""


def test_a_kernel_without_pidfds():
    filters.run(WITHOUT_PIDFD)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="child watchers are gone from asyncio")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestChildWatchers:
    @pytest.fixture(autouse=True)
    def watcher_is_put_back(self):
        policy = asyncio.get_event_loop_policy()
        before = policy._watcher
        yield
        policy._watcher = before

    @pytest.mark.parametrize("name", ["PidfdChildWatcher", "ThreadedChildWatcher"])
    def test_the_plain_ones_change_nothing(self, run, loop, aio, name):
        async def main():
            watcher = getattr(asyncio, name)()
            watcher.attach_loop(loop)
            asyncio.set_child_watcher(watcher)
            process = await aio.create_subprocess_exec("/bin/sh", "-c", "exit 3")
            assert await process.wait() == 3
            assert isinstance(asyncio.get_child_watcher(), getattr(asyncio, name))

        run(main())

    @pytest.mark.parametrize("name", ["SafeChildWatcher", "FastChildWatcher", "MultiLoopChildWatcher"])
    def test_one_that_uses_signals(self, run, loop, aio, name):
        async def main():
            watcher = getattr(asyncio, name)()
            watcher.attach_loop(loop)
            asyncio.set_child_watcher(watcher)
            try:
                process = await aio.create_subprocess_exec("/bin/sh", "-c", "exit 3")
                assert await process.wait() == 3
            finally:
                watcher.close()

        run(main())

    def test_one_of_the_programs_own_is_asked(self, run, aio):
        class Watcher(asyncio.ThreadedChildWatcher):
            def add_child_handler(self, pid, callback, *args):
                pids.append(pid)
                super().add_child_handler(pid, callback, *args)

        pids = []

        async def main():
            asyncio.set_child_watcher(Watcher())
            process = await aio.create_subprocess_exec("/bin/sh", "-c", "exit 3")
            assert await process.wait() == 3
            assert pids == [process.pid]

        run(main())

    def test_one_that_is_not_active(self, run, aio):
        class Watcher(asyncio.ThreadedChildWatcher):
            def is_active(self):
                return False

        async def main():
            asyncio.set_child_watcher(Watcher())
            with pytest.raises(RuntimeError, match="is not activated"):
                await aio.create_subprocess_exec("/bin/true")

        run(main())
