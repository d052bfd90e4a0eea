"""Child processes: their life and their pipes."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import subprocess
import warnings
from asyncio.subprocess import DEVNULL, PIPE, STDOUT

import aioxide
import pytest
from children import CAT, SLEEP, children, script

pytestmark = pytest.mark.usefixtures("nothing_is_left")


# --- life ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_status_is_known(run, aio, code):
    async def main():
        process = await aio.create_subprocess_shell(f"exit {code}")
        assert await process.wait() == code
        assert process.returncode == code
        assert await process.wait() == code  # again

    run(main())


@pytest.mark.parametrize(
    ("method", "code"), [("terminate", -signal.SIGTERM), ("kill", -signal.SIGKILL), ("hangup", -signal.SIGHUP)]
)
def test_signals(run, aio, method, code):
    async def main():
        process = await aio.create_subprocess_exec(*SLEEP)
        assert process.returncode is None
        if method == "hangup":
            process.send_signal(signal.SIGHUP)
        else:
            getattr(process, method)()
        assert await process.wait() == code
        for again in (process.terminate, process.kill):
            with contextlib.suppress(ProcessLookupError):
                again()  # nobody to hit

    run(main())


def test_a_dumped_core_is_a_signal(run, aio):
    def no_core():
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    async def main():
        process = await aio.create_subprocess_exec(*SLEEP, preexec_fn=no_core)
        process.send_signal(signal.SIGQUIT)
        assert await process.wait() == -signal.SIGQUIT

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        run(main())


@pytest.mark.parametrize(("value", "error"), [("TERM", TypeError), (999, (OSError, ValueError)), (None, TypeError)])
def test_what_is_no_signal(run, aio, value, error):
    async def main():
        process = await aio.create_subprocess_exec(*SLEEP)
        with pytest.raises(error):
            process.send_signal(value)
        process.kill()
        await process.wait()

    run(main())


def test_many_wait_for_one_and_some_give_up(run, aio):
    async def main():
        process = await aio.create_subprocess_exec(*SLEEP)
        waits = [asyncio.ensure_future(process.wait()) for _ in range(20)]
        await asyncio.sleep(0)
        for wait in waits[::2]:
            wait.cancel()
        await asyncio.sleep(0)
        process.kill()
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert results[1::2] == [-9] * 10
        assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])

    run(main())


def test_hundreds_at_once(run, aio):
    async def main():
        async def one(code):
            process = await aio.create_subprocess_shell(f"exit {code}")
            return await process.wait()

        codes = [number % 100 for number in range(300)]
        assert await asyncio.gather(*map(one, codes)) == codes

    run(main(), 120)


def test_what_cannot_be_started(run, aio, tmp_path):
    async def main():
        for _ in range(5):
            with pytest.raises(FileNotFoundError):
                await aio.create_subprocess_exec("/no/such/program", stdin=PIPE, stdout=PIPE, stderr=PIPE)
            with pytest.raises(PermissionError):
                await aio.create_subprocess_exec(str(tmp_path), stdout=PIPE)
            with pytest.raises(TypeError):
                await aio.create_subprocess_exec("/bin/true", no_such_option=1)
            with pytest.raises(TypeError):
                await aio.create_subprocess_exec(1)

    run(main())


REFUSED = [
    ({"universal_newlines": True}, "universal_newlines must be False"),
    ({"text": True}, "text must be False"),
    ({"encoding": "utf-8"}, "encoding must be None"),
    ({"errors": "strict"}, "errors must be None"),
    ({"bufsize": 4096}, "bufsize must be 0"),
]


@pytest.mark.parametrize(("options", "text"), [*REFUSED, ({"shell": True}, "shell must be False")])
def test_what_exec_refuses(run, loop, options, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        run(loop.subprocess_exec(asyncio.SubprocessProtocol, "/bin/true", **options))


@pytest.mark.parametrize(
    ("command", "options", "text"),
    [
        *(("true", *row) for row in REFUSED),
        ("true", {"shell": False}, "shell must be True"),
        (["true"], {}, "cmd must be a string"),
        (1, {}, "cmd must be a string"),
    ],
)
def test_what_shell_refuses(run, loop, command, options, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        run(loop.subprocess_shell(asyncio.SubprocessProtocol, command, **options))


def test_neutral_values_are_taken(run, loop):
    async def main():
        options = {"universal_newlines": False, "bufsize": 0, "text": None, "encoding": None, "errors": None}
        streams = dict.fromkeys(("stdin", "stdout", "stderr"))
        for start in (
            loop.subprocess_exec(asyncio.SubprocessProtocol, "/bin/true", shell=False, **options, **streams),
            loop.subprocess_shell(asyncio.SubprocessProtocol, b"true", shell=True, **options, **streams),
        ):
            transport, protocol = await start
            assert isinstance(transport, asyncio.SubprocessTransport)
            assert type(protocol) is asyncio.SubprocessProtocol
            assert await transport._wait() == 0
            transport.close()

    run(main())


def test_popens_options_reach_it(run, aio, tmp_path):
    def mark():
        os.write(pipe[1], b"before")

    async def main():
        process = await aio.create_subprocess_exec(
            *script("""
                import os, sys
                print(os.getcwd(), os.environ["COLOUR"], os.getsid(0) == os.getpid(), oct(os.umask(0)))
                os.write(int(sys.argv[1]), b" and after")
            """),
            str(pipe[1]),
            stdout=PIPE,
            cwd=tmp_path,
            env={"COLOUR": "red"},
            start_new_session=True,
            umask=0o27,
            pass_fds=[pipe[1]],
            preexec_fn=mark,
        )
        out, err = await process.communicate()
        assert out.decode().split() == [str(tmp_path), "red", "True", "0o27"]
        assert err is None

    pipe = os.pipe()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            run(main())
        assert os.read(pipe[0], 100) == b"before and after"
    finally:
        os.close(pipe[0])
        os.close(pipe[1])


# --- protocols and transports --------------------------------------------------------------------


class Recorder(asyncio.SubprocessProtocol):
    def __init__(self):
        self.events = []
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.events.append("made")

    def pipe_data_received(self, fd, data):
        self.events.append((fd, data))

    def pipe_connection_lost(self, fd, error):
        self.events.append(("lost", fd, error))

    def process_exited(self):
        self.events.append("exited")

    def connection_lost(self, error):
        self.events.append(("over", error))
        self.done.set_result(None)


def test_without_pipes_the_protocol_hears_of_three_things(run, loop):
    async def main():
        transport, protocol = await loop.subprocess_exec(Recorder, "/bin/true", stdin=None, stdout=None, stderr=None)
        await protocol.done
        assert protocol.events == ["made", "exited", ("over", None)]
        assert transport.get_returncode() == 0
        with pytest.raises(ProcessLookupError):
            transport.kill()
        transport.close()

    run(main())


def test_the_order_of_events(run, loop):
    async def main():
        program = """
            import os, sys
            os.write(1, b"out")
            sys.stdin.read(1)
            os.write(2, b"err")
        """
        transport, protocol = await loop.subprocess_exec(Recorder, *script(program))
        assert protocol.events[0] == "made"
        transport.get_pipe_transport(0).write(b"x")
        await protocol.done
        events = protocol.events
        assert events[-1] == ("over", None)
        assert events.index((1, b"out")) < events.index(("lost", 1, None))
        assert events.index((2, b"err")) < events.index(("lost", 2, None))
        assert "exited" in events
        assert len(events) == 8
        assert {event[1] for event in events if event[0] == "lost"} == {0, 1, 2}
        assert transport.get_returncode() == 0
        transport.close()

    run(main())


def test_early_events_come_after_connection_made(run, loop):
    async def main():
        for _ in range(10):
            transport, protocol = await loop.subprocess_shell(Recorder, "echo early", stdin=None, stderr=None)
            await protocol.done
            assert protocol.events[0] == "made"
            assert sorted(map(str, protocol.events[1:-1])) == sorted(
                map(str, [(1, b"early\n"), ("lost", 1, None), "exited"])
            )
            transport.close()

    run(main())


def test_what_a_transport_tells(run, loop):
    async def main():
        transport, protocol = await loop.subprocess_exec(
            Recorder, *SLEEP, stdin=None, stdout=None, stderr=None, extra={"colour": "red"}
        )
        popen = transport.get_extra_info("subprocess")
        assert isinstance(popen, subprocess.Popen)
        assert popen.pid == transport.get_pid()
        assert transport.get_extra_info("colour") == "red"
        assert transport.get_extra_info("nothing", 7) == 7
        assert transport.get_returncode() is None
        assert [transport.get_pipe_transport(fd) for fd in (0, 1, 2, 3)] == [None] * 4
        assert transport.get_protocol() is protocol
        assert transport.is_closing() is False
        assert f"pid={popen.pid} running>" in repr(transport)
        transport.close()
        transport.close()
        assert transport.is_closing() is True
        assert await transport._wait() == -signal.SIGKILL
        assert f"closed pid={popen.pid} returncode=-9>" in repr(transport)
        assert popen.returncode == -signal.SIGKILL

    run(main())


def test_another_protocol(run, loop):
    async def main():
        transport, first = await loop.subprocess_exec(Recorder, *SLEEP, stdin=None, stdout=None, stderr=None)
        second = Recorder()
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        transport.kill()
        await second.done
        assert first.events == ["made"]
        assert second.events == ["exited", ("over", None)]
        transport.close()

    run(main())


def test_a_protocol_that_fails(run, loop):
    class Failing(Recorder):
        def connection_made(self, transport):
            raise ZeroDivisionError("made")

        def process_exited(self):
            raise ZeroDivisionError("exited")

    async def main():
        reports = []
        loop.set_exception_handler(lambda _, context: reports.append(str(context["exception"])))
        transport, protocol = await loop.subprocess_exec(Failing, "/bin/true", stdin=None, stdout=None, stderr=None)
        await protocol.done
        assert reports == ["made", "exited"]
        transport.close()

    run(main())


def test_a_factory_that_fails_starts_nothing(run, loop):
    with pytest.raises(ZeroDivisionError):
        run(loop.subprocess_exec(lambda: 1 / 0, *SLEEP))
    assert not children()


def test_debug_mode_logs_the_program_but_not_its_arguments(run, loop, aio, caplog):
    async def main():
        process = await aio.create_subprocess_exec("/bin/echo", "secret", stdout=DEVNULL)
        await process.wait()
        process = await aio.create_subprocess_shell("exit 3", stderr=DEVNULL)
        await process.wait()

    caplog.set_level(logging.DEBUG, "asyncio")
    loop.set_debug(True)
    run(main())
    text = caplog.text
    assert f"execute program '/bin/echo' stdout={DEVNULL}" in text
    assert "process '/bin/echo' created: pid" in text
    assert f"run shell command 'exit 3' stderr={DEVNULL}" in text
    assert "exited with return code 3" in text
    assert "secret" not in text


def test_an_unclosed_transport_says_so_and_is_closed(run, loop):
    async def main():
        transport, _ = await loop.subprocess_exec(
            asyncio.SubprocessProtocol, "/bin/true", stdin=None, stdout=None, stderr=None
        )
        await transport._wait()
        await asyncio.sleep(0.01)
        kept = [transport]
        del transport
        with pytest.warns(ResourceWarning, match=r"^unclosed transport <.* returncode=0>$"):
            kept.clear()

    run(main())


def test_a_loop_closed_over_a_running_child():
    loop = aioxide.new_event_loop()
    transport, _ = loop.run_until_complete(
        loop.subprocess_exec(asyncio.SubprocessProtocol, *SLEEP, stdin=None, stdout=None, stderr=None)
    )
    popen = transport.get_extra_info("subprocess")
    loop.close()
    kept = [transport]
    del transport
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        kept.clear()
    assert popen.wait() == -signal.SIGKILL


# --- pipes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_what_goes_in_comes_out(run, aio, size):
    async def main():
        data = os.urandom(size)
        process = await aio.create_subprocess_exec(*CAT, stdin=PIPE, stdout=PIPE)
        out, err = await process.communicate(data)
        assert (out, err, process.returncode) == (data, None, 0)

    run(main(), 30)


def test_three_pipes(run, aio):
    async def main():
        process = await aio.create_subprocess_shell("cat; echo bad >&2; exit 3", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        assert await process.communicate(b"hello") == (b"hello", b"bad\n")
        assert process.returncode == 3

    run(main())


def test_a_conversation(run, aio):
    async def main():
        process = await aio.create_subprocess_exec(*CAT, stdin=PIPE, stdout=PIPE)
        for number in range(20):
            line = b"%d\n" % number
            process.stdin.write(line)
            await process.stdin.drain()
            assert await process.stdout.readline() == line
        process.stdin.close()
        await process.stdin.wait_closed()
        assert await process.stdout.read() == b""
        assert await process.wait() == 0

    run(main())


def test_stderr_into_stdout_and_nothing_in(run, aio):
    async def main():
        command = "cat; echo one; echo two >&2"
        process = await aio.create_subprocess_shell(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
        assert await process.communicate() == (b"one\ntwo\n", None)
        assert process.stdin is None
        assert process.stderr is None

    run(main())


def test_files_and_descriptors(run, aio, tmp_path):
    async def main():
        process = await aio.create_subprocess_exec(*CAT, stdin=stdin, stdout=stdout.fileno())
        assert await process.wait() == 0

    (tmp_path / "in").write_bytes(b"from a file")
    with open(tmp_path / "in", "rb") as stdin, open(tmp_path / "out", "wb") as stdout:
        run(main())
    assert (tmp_path / "out").read_bytes() == b"from a file"


def test_a_child_that_does_not_read(run, aio):
    async def main():
        process = await aio.create_subprocess_exec("/bin/true", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(b"x" * 1_000_000) == (b"", None)
        assert process.returncode == 0

    run(main())


@pytest.mark.stock_since((3, 13))
def test_the_end_is_known_although_a_grandchild_holds_the_pipe(run, aio):
    async def main():
        command = "sleep 100 & echo $!"
        process = await aio.create_subprocess_shell(command, stdout=PIPE)
        grandchild = int(await process.stdout.readline())
        async with asyncio.timeout(5):
            assert await process.wait() == 0
        os.kill(grandchild, signal.SIGKILL)
        assert await process.stdout.read() == b""

    run(main())


def test_a_pipe_that_cannot_be_connected():
    # On 3.11 CPython's loop loses the child.
    async def main():
        loop = asyncio.get_running_loop()

        async def refuse(factory, pipe):
            raise ZeroDivisionError

        loop.connect_read_pipe = refuse
        for streams in ({"stdout": PIPE}, {"stdin": PIPE, "stderr": PIPE}):
            with pytest.raises(ZeroDivisionError):
                await aioxide.create_subprocess_exec(*SLEEP, **streams)

    aioxide.run(main())
