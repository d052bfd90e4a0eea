"""Stream transports: every byte arrives, in order, whatever the portions; and the life of a connection."""

import asyncio
import contextvars
import gc
import os
import socket
import struct
import sys
import warnings

import pytest
from recorder import MOST, Recorder, connected, tcp_pair, until


class Buffered(Recorder, asyncio.BufferedProtocol):
    """Lends a small buffer again and again."""

    def __init__(self, loop, size=7):
        super().__init__(loop)
        self.memory = bytearray(size)

    def get_buffer(self, sizehint):
        return self.memory

    def buffer_updated(self, nbytes):
        self.data += self.memory[:nbytes]


def newest(aio, since):
    """Skips a test of what asyncio does only since a version; aioxide does it on all of them."""
    if aio is asyncio and sys.version_info < since:
        pytest.skip(f"asyncio does so since {since[0]}.{since[1]}")


# --- reading -----------------------------------------------------------------


def test_the_end_that_comes_with_the_last_bytes_is_seen(run, pair):
    async def main():
        ours, theirs = pair
        theirs.sendall(b"last words")
        theirs.shutdown(socket.SHUT_WR)
        async with connected(ours) as (_, protocol):
            await protocol.lost
            assert protocol.data == b"last words"
            assert protocol.calls == ["made", "eof", "lost"]

    run(main())


@pytest.mark.parametrize("size", [1, MOST - 1, MOST, MOST + 1, 3 * MOST, 3 * MOST + 5])
def test_nothing_is_left_behind_whatever_the_size(run, loop, pair, size):
    payload = os.urandom(size)

    async def main():
        ours, theirs = pair
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sender = loop.run_in_executor(None, theirs.sendall, payload)
        async with connected(ours) as (_, protocol):
            await sender
            await until(lambda: len(protocol.data) >= size)
            assert protocol.data == payload

    run(main())


def test_a_small_buffer_is_filled_until_nothing_is_left(run, pair):
    async def main():
        ours, theirs = pair
        async with connected(ours, Buffered) as (_, protocol):
            for size in (6, 7, 8, 70, 700):
                protocol.data.clear()
                theirs.sendall(bytes(range(256)) * 3)
                await until(lambda: len(protocol.data) == 768)
                theirs.sendall(b"x" * size)
                await until(lambda size=size: len(protocol.data) == 768 + size)
            theirs.sendall(b"end")
            theirs.close()
            await protocol.lost
            assert protocol.data.endswith(b"end")

    run(main())


def test_urgent_data_does_not_hide_what_follows(run):
    async def main():
        ours, theirs = tcp_pair()
        with theirs:
            theirs.send(b"before")
            theirs.send(b"!", socket.MSG_OOB)
            theirs.send(b"after")
            async with connected(ours) as (_, protocol):
                await until(lambda: len(protocol.data) >= 11)
                assert protocol.data == b"beforeafter"

    run(main())


def test_bytes_that_come_during_a_pause_are_read_after_it(run, pair):
    async def main():
        ours, theirs = pair
        async with connected(ours) as (transport, protocol):
            theirs.sendall(b"1")
            await until(lambda: protocol.data == b"1")
            for number in range(5):
                transport.pause_reading()
                transport.pause_reading()
                assert not transport.is_reading()
                theirs.sendall(b"2")
                await asyncio.sleep(0.01)
                assert len(protocol.data) == number + 1
                transport.resume_reading()
                transport.resume_reading()
                assert transport.is_reading()
                await until(lambda number=number: len(protocol.data) == number + 2)

    run(main())


def test_a_pause_from_within_data_received_holds_back_the_rest(run):
    class Pausing(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    async def main():
        ours, theirs = tcp_pair()
        with theirs:
            payload = os.urandom(2 * MOST)
            sender = asyncio.get_running_loop().run_in_executor(None, theirs.sendall, payload)
            async with connected(ours, Pausing) as (transport, protocol):
                while len(protocol.data) < len(payload):
                    before = len(protocol.data)
                    transport.resume_reading()
                    await until(lambda before=before: len(protocol.data) > before)
                    assert not transport.is_reading()
                    after = len(protocol.data)
                    await asyncio.sleep(0.002)
                    assert len(protocol.data) == after
                await sender
                assert protocol.data == payload

    run(main())


def test_a_protocol_may_be_exchanged_for_a_buffered_one(run, loop, pair):
    async def main():
        ours, theirs = pair
        async with connected(ours) as (transport, protocol):
            theirs.sendall(b"plain")
            await until(lambda: protocol.data == b"plain")
            second = Buffered(loop)
            second.lost = protocol.lost
            transport.set_protocol(second)
            assert transport.get_protocol() is second
            theirs.sendall(b"into the buffer")
            await until(lambda: second.data == b"into the buffer")
            assert protocol.data == b"plain"

    run(main())


# --- writing -----------------------------------------------------------------


def receive_all(sock, length):
    received = bytearray()
    while len(received) < length:
        data = sock.recv(1 << 16)
        if not data:
            break
        received += data
    return bytes(received)


def test_writes_leave_in_order_and_pause_the_protocol(run, loop, pair):
    async def main():
        ours, theirs = pair
        async with connected(ours) as (transport, protocol):
            transport.set_write_buffer_limits(high=100_000, low=10_000)
            assert transport.get_write_buffer_limits() == (10_000, 100_000)
            pieces = [os.urandom(200_000) for _ in range(40)]
            for number, piece in enumerate(pieces):
                kind = (bytes, bytearray, memoryview)[number % 3]
                transport.write(kind(piece))
            assert transport.get_write_buffer_size() > 100_000
            assert protocol.calls == ["made", "pause"]
            everything = b"".join(pieces)
            received = await loop.run_in_executor(None, receive_all, theirs, len(everything))
            assert received == everything
            await until(lambda: transport.get_write_buffer_size() == 0)
            assert protocol.calls == ["made", "pause", "resume"]

    run(main())


def test_what_was_written_may_be_changed_afterwards(run, loop, aio):
    """CPython keeps a view of the caller's bytearray, so this is aioxide's promise alone."""
    if aio is asyncio:
        pytest.skip("asyncio sends what the bytearray holds later")

    async def main():
        ours, theirs = tcp_pair()
        with theirs:
            async with connected(ours) as (transport, _):
                data = bytearray(b"a" * 4_000_000)
                transport.write(data)
                data[:] = b"b" * len(data)
                data.clear()
                theirs.settimeout(10)
                received = await loop.run_in_executor(None, receive_all, theirs, 4_000_000)
                assert received == b"a" * 4_000_000

    run(main())


def test_writelines_gathers(run, loop, pair):
    async def main():
        ours, theirs = pair
        async with connected(ours) as (transport, _):
            lines = [b"%d," % number for number in range(3000)]
            transport.writelines(lines)
            transport.writelines([])
            transport.writelines([b"", bytearray(b"x"), memoryview(b"yz"), b""])
            transport.writelines(iter([b"end"]))
            expected = b"".join(lines) + b"xyzend"
            received = await loop.run_in_executor(None, receive_all, theirs, len(expected))
            assert received == expected

    run(main())


def test_write_eof_comes_after_what_was_written(run, loop, pair, aio):
    newest(aio, (3, 12))

    async def main():
        ours, theirs = pair
        async with connected(ours) as (transport, _):
            assert transport.can_write_eof()
            transport.write(b"z" * 3_000_000)
            transport.write_eof()
            transport.write_eof()
            with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
                transport.write(b"more")
            with pytest.raises(RuntimeError, match=r"Cannot call writelines\(\) after write_eof\(\)"):
                transport.writelines([b"more"])
            received = await loop.run_in_executor(None, receive_all, theirs, 1 << 60)
            assert len(received) == 3_000_000

    run(main())


def test_close_flushes_and_abort_does_not(run, loop):
    async def main():
        for method, complete in (("close", True), ("abort", False)):
            ours, theirs = tcp_pair()
            with theirs:
                theirs.settimeout(10)
                transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
                transport.write(b"q" * 8_000_000)
                getattr(transport, method)()
                assert transport.is_closing()
                assert not protocol.lost.done()
                received = await loop.run_in_executor(None, receive_all, theirs, 1 << 60)
                assert (len(received) == 8_000_000) is complete
                assert await protocol.lost is None
                assert transport.get_write_buffer_size() == 0

    run(main())


def test_writes_to_a_lost_connection_are_dropped_and_logged_in_the_end(run, caplog):
    async def main():
        ours, theirs = tcp_pair()
        theirs.close()
        async with connected(ours) as (transport, protocol):
            transport.abort()
            for _ in range(10):
                transport.write(b"gone")
            transport.writelines([b"gone"])
            await protocol.lost

    run(main())
    assert [record.message for record in caplog.records].count("socket.send() raised exception.") >= 4


@pytest.mark.parametrize("wrong", ["text", None, 5, ["list"]])
def test_write_takes_bytes_only(run, pair, wrong, aio):
    newest(aio, (3, 13))

    async def main():
        async with connected(pair[0]) as (transport, _):
            with pytest.raises(TypeError, match="data argument must be a bytes, bytearray, or memoryview object"):
                transport.write(wrong)

    run(main())


@pytest.mark.parametrize(("high", "low"), [(1, 2), (-1, None), (10, -1)])
def test_limits_that_contradict_each_other(run, pair, high, low):
    async def main():
        async with connected(pair[0]) as (transport, _):
            with pytest.raises(ValueError, match=r"high \(.*\) must be >= low \(.*\) must be >= 0"):
                transport.set_write_buffer_limits(high, low)

    run(main())


# --- life --------------------------------------------------------------------


def test_the_peer_resets(run):
    async def main():
        ours, theirs = tcp_pair()
        async with connected(ours) as (_, protocol):
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            theirs.close()
            assert isinstance(await protocol.lost, ConnectionResetError)
            assert protocol.calls == ["made", "lost"]

    run(main())


def test_half_open(run, loop):
    class Open(Recorder):
        keep_open = True

    async def main():
        ours, theirs = tcp_pair()
        with theirs:
            theirs.settimeout(10)
            theirs.sendall(b"question")
            theirs.shutdown(socket.SHUT_WR)
            async with connected(ours, Open) as (transport, protocol):
                await protocol.ended
                await asyncio.sleep(0.01)
                assert protocol.data == b"question"
                assert protocol.calls == ["made", "eof"]
                transport.write(b"answer")
                transport.close()
                assert await loop.run_in_executor(None, receive_all, theirs, 1 << 60) == b"answer"

    run(main())


def test_callbacks_run_in_the_context_of_the_connection(run, loop, aio):
    variable = contextvars.ContextVar("variable", default="unset")

    class Watching(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.seen = [variable.get()]

        def data_received(self, data):
            super().data_received(data)
            self.seen.append(variable.get())

        def connection_lost(self, exc):
            self.seen.append(variable.get())
            super().connection_lost(exc)

    async def main():
        variable.set("caller")
        ours, theirs = tcp_pair()
        with theirs:
            async with connected(ours, Watching) as (_, protocol):
                variable.set("changed later")
                theirs.sendall(b"x")
                await until(lambda: protocol.data)
            # Until 3.15 asyncio told of the end in the context of whoever ended it.
            new = aio is not asyncio or sys.version_info >= (3, 15)
            assert protocol.seen == ["caller", "caller", "caller" if new else "changed later"]

    run(main())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data_received", "Fatal error: protocol.data_received() call failed."),
        ("eof_received", "Fatal error: protocol.eof_received() call failed."),
        ("pause_writing", "protocol.pause_writing() failed"),
    ],
)
def test_a_failing_protocol_is_reported(run, loop, name, message):
    error = ZeroDivisionError("mine")

    def fail(*_):
        raise error

    async def main():
        contexts = []
        loop.set_exception_handler(lambda _, context: contexts.append(context))
        ours, theirs = tcp_pair()
        with theirs:
            async with connected(ours, type("Failing", (Recorder,), {name: fail})) as (transport, protocol):
                if name == "pause_writing":
                    transport.write(b"y" * 8_000_000)
                    assert not transport.is_closing()
                else:
                    theirs.sendall(b"x" if name == "data_received" else b"")
                    theirs.shutdown(socket.SHUT_WR)
                    assert await protocol.lost is error
                [context] = contexts
                assert context["message"] == message
                assert context["exception"] is error
                assert context["transport"] is transport
                assert context["protocol"] is protocol

    run(main())


def test_extra_info_and_looks(run, pair):
    async def main():
        ours, _ = pair
        async with connected(ours) as (transport, protocol):
            assert isinstance(transport, asyncio.Transport)
            sock = transport.get_extra_info("socket")
            assert type(sock) is asyncio.trsock.TransportSocket
            assert sock.fileno() == ours.fileno()
            assert transport.get_extra_info("sockname") == ours.getsockname()
            assert transport.get_extra_info("peername") == ours.getpeername()
            assert transport.get_extra_info("nothing") is None
            assert transport.get_extra_info("nothing", 5) == 5
            assert f"fd={ours.fileno()} read=polling write=<idle, bufsize=0>" in repr(transport)
            transport.abort()
            assert " closing " in repr(transport)
            await protocol.lost
            await asyncio.sleep(0)
            assert " closed " in repr(transport)
            assert transport.get_extra_info("socket") is sock
            transport.close()
            transport.abort()

    run(main())


def test_a_program_may_put_its_own_methods_on_an_instance(run, pair):
    async def main():
        ours, theirs = pair
        async with connected(ours) as (transport, _):
            seen = []
            transport.note = "mine"
            transport.write = seen.append
            transport.close_calls = transport  # a cycle, for the collector
            writer = asyncio.StreamWriter(transport, None, None, asyncio.get_running_loop())
            writer.write(b"not sent")
            transport.write(b"nor this")
            assert (transport.note, seen) == ("mine", [b"not sent", b"nor this"])
            del transport.write
            transport.write(b"sent")
            assert await asyncio.to_thread(theirs.recv, 100) == b"sent"

    run(main())


def test_what_a_program_patches_in_the_class_of_all_transports_is_called(run, pair, monkeypatch):
    async def main():
        ours, _ = pair
        async with connected(ours) as (transport, _):
            monkeypatch.setattr(asyncio.BaseTransport, "get_extra_info", lambda self, name: ("patched", name))
            assert transport.get_extra_info("peername") == ("patched", "peername")

    run(main())


def test_its_descriptor_is_refused_to_others(run, loop, pair):
    async def main():
        ours, _ = pair
        async with connected(ours):
            fd = ours.fileno()
            for call in (
                lambda: loop.add_reader(fd, print),
                lambda: loop.add_writer(ours, print),
                lambda: loop.remove_reader(fd),
                lambda: loop.remove_writer(fd),
            ):
                with pytest.raises(RuntimeError, match=r"File descriptor .* is used by transport .*"):
                    call()

    run(main())


def test_one_that_nobody_closed_is_found_out(new_loop):
    loop = new_loop()
    ours, theirs = tcp_pair()
    with theirs:
        theirs.settimeout(10)

        async def main():
            transport, protocol = await loop.create_connection(lambda: asyncio.Protocol(), sock=ours)
            transport.pause_reading()
            del transport, protocol

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.run_until_complete(main())
            gc.collect()
        assert any("unclosed transport <" in str(warning.message) for warning in caught)
        assert theirs.recv(10) == b""
    loop.close()


def test_a_protocol_that_can_only_be_buffered_is(run, pair, loop, aio):
    if aio is asyncio:
        pytest.skip("asyncio goes by the class alone, and then looks for data_received")

    class Plain(asyncio.BaseProtocol):
        def __init__(self):
            self.memory, self.data, self.ended = bytearray(4), b"", loop.create_future()

        def get_buffer(self, sizehint):
            return self.memory

        def buffer_updated(self, nbytes):
            self.data += self.memory[:nbytes]

        def eof_received(self):
            self.ended.set_result(None)

    async def main():
        ours, theirs = pair
        transport, protocol = await loop.connect_accepted_socket(Plain, ours)
        theirs.sendall(b"some bytes")
        theirs.close()
        await protocol.ended
        assert protocol.data == b"some bytes"
        transport.close()

    run(main())
