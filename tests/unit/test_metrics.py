"""What a loop measures of itself, on programs that do a known amount."""

import asyncio
import concurrent.futures
import gc
import os
import socket
import threading
import time
import warnings

import aioxide
import pytest
from aioxide import metrics


def run(coroutine):
    with aioxide.install():
        return aioxide.run(coroutine)


def test_iterations_and_callbacks_are_counted():
    async def main():
        loop = asyncio.get_running_loop()
        before = loop.metrics()
        for _ in range(100):
            await asyncio.sleep(0)
        first = loop.metrics()
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(50)))
        return before, first, loop.metrics()

    before, first, last = run(main())
    assert first.iterations - before.iterations == 100
    assert first.callbacks - before.callbacks == 100
    assert last.most_ready >= 50
    assert last.iterations - first.iterations < 10


def test_tasks_are_counted():
    async def main():
        loop = asyncio.get_running_loop()
        before = loop.metrics()

        async def fails():
            raise ValueError

        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(5)]
        tasks += [asyncio.create_task(asyncio.sleep(9)), asyncio.create_task(fails())]
        await asyncio.sleep(0)
        tasks[5].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        after = loop.metrics()
        return [
            getattr(after, name) - getattr(before, name) for name in ("tasks_made", "tasks_done", "tasks_cancelled")
        ]

    assert run(main()) == [7, 7, 1]


def test_late_timers_and_long_callbacks_are_seen():
    async def main():
        loop = asyncio.get_running_loop()
        loop.metrics()
        loop.call_later(0.05, lambda: None)
        for _ in range(300):
            await asyncio.sleep(0)
        time.sleep(0.2)
        await asyncio.sleep(0.01)
        return loop.metrics()

    found = run(main())
    assert 0.1 < found.lag.max < 5
    assert found.lag.count >= 2
    assert 0.15 < found.callback.max < 5
    assert 0.15 < found.iteration.max < 5
    assert found.callback.p50 < 0.01
    assert found.iteration.p50 < 0.01
    assert found.iteration.count <= found.iterations


@pytest.mark.parametrize("position", range(40))
def test_no_long_callback_is_lost(position):
    async def main():
        loop = asyncio.get_running_loop()
        loop.metrics()
        for number in range(80):
            if number == 33 + position:
                time.sleep(0.02)
            await asyncio.sleep(0)
        return loop.metrics()

    found = run(main())
    assert found.iteration.max > 0.019
    assert found.callback.max > 0.015


def test_sleeping_is_no_lag():
    async def main():
        loop = asyncio.get_running_loop()
        loop.metrics()
        await asyncio.sleep(0.3)
        return loop.metrics()

    found = run(main())
    assert found.iteration.max < 0.2
    assert found.callback.max < 0.2


def test_what_is_there_now():
    async def main():
        loop = asyncio.get_running_loop()
        timer = loop.call_later(100, print)
        ours, theirs = socket.socketpair()
        before = loop.metrics()
        reader, writer = await asyncio.open_connection(sock=ours)
        theirs.sendall(b"x" * 1000)
        await reader.readexactly(1000)
        writer.write(b"y" * 300)
        await asyncio.to_thread(print)
        after = loop.metrics()
        timer.cancel()
        writer.close()
        await writer.wait_closed()
        theirs.close()
        return before, after, loop.metrics()

    before, after, last = run(main())
    assert (before.timers, last.timers) == (1, 0)
    assert (before.transports, after.transports, last.transports) == (0, 1, 0)
    assert after.bytes_received - before.bytes_received == 1000
    assert after.bytes_sent - before.bytes_sent == 300
    assert after.executor_threads == 1
    assert after.executor_queue == 0


def test_transports_count_until_their_end():
    """Watched or not: one that is paused, and one that has nothing to write, are still there."""

    class Protocol(asyncio.SubprocessProtocol, asyncio.Protocol):
        def __init__(self):
            self.lost = asyncio.get_running_loop().create_future()

        def connection_lost(self, error):
            self.lost.set_result(error)

    async def main():
        loop = asyncio.get_running_loop()
        counts = [loop.metrics().transports]

        def count():
            counts.append(loop.metrics().transports)

        ours, theirs = socket.socketpair()
        stream, stream_protocol = await loop.create_connection(Protocol, sock=ours)
        count()
        stream.pause_reading()
        count()
        end, begin = os.pipe()
        reader, reader_protocol = await loop.connect_read_pipe(Protocol, open(end, "rb", 0))
        reader.pause_reading()
        writer, writer_protocol = await loop.connect_write_pipe(Protocol, open(begin, "wb", 0))
        count()
        datagram, datagram_protocol = await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
        count()
        ended = []
        for transport, protocol in (
            (stream, stream_protocol),
            (writer, writer_protocol),
            (reader, reader_protocol),
            (datagram, datagram_protocol),
        ):
            transport.close()
            await protocol.lost
            await asyncio.sleep(0)
            ended.append(loop.metrics().transports)
        theirs.close()

        process, process_protocol = await loop.subprocess_exec(Protocol, "cat", stdin=-1, stdout=-1, stderr=None)
        count()
        process.close()
        await process_protocol.lost
        count()

        lost, theirs = socket.socketpair()
        with theirs, warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=lost)
            transport.pause_reading()
            count()
            transport.itself = transport  # a cycle, and nobody else has it
            del transport, _, lost
            gc.collect()
            count()
        return counts, ended

    counts, ended = run(main())
    assert counts == [0, 1, 1, 3, 4, 3, 0, 1, 0]
    assert ended == [3, 2, 1, 0]


def test_steady_callbacks_are_what_they_are():
    """Whatever they take, none is taken for a long one because several share a look at the clock."""

    def work():
        end = time.perf_counter() + 0.0002
        while time.perf_counter() < end:
            pass

    async def main():
        loop = asyncio.get_running_loop()
        loop.metrics()
        for _ in range(1000):
            work()
            await asyncio.sleep(0)
        return loop.metrics()

    found = run(main())
    for spread in (found.iteration, found.callback):
        assert 0.0002 <= spread.p50 < 0.005
        assert 0.8 < spread.count / 1000 < 1.3
        assert 0.15 < spread.sum < 60  # the machine has others to serve, too


def test_quantiles_are_those_of_all_callbacks():
    async def main():
        loop = asyncio.get_running_loop()
        loop.metrics()
        for number in range(20_000):
            if number % 2000 == 1000:
                time.sleep(0.005)
            await asyncio.sleep(0)
        return loop.metrics()

    found = run(main())
    assert found.callback.count > 18_000
    assert found.callback.p50 < 0.001
    assert found.callback.p99 < 0.004  # ten in twenty thousand are no hundredth
    assert found.callback.max > 0.004
    assert found.callback.count - dict(found.callback.buckets)[0.001] >= 10


def test_what_lies_between_two_runs_is_nobodys_time():
    loop = aioxide.new_event_loop()

    async def look():
        return asyncio.get_running_loop().metrics()

    loop.run_until_complete(look())
    time.sleep(0.3)
    found = loop.run_until_complete(look())
    assert loop.metrics().iterations >= found.iterations  # also while it rests
    loop.close()
    assert found.iteration.sum < 0.25


def test_from_another_thread():
    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(100):
            await asyncio.sleep(0)
        found = [await asyncio.to_thread(loop.metrics) for _ in range(3)]
        for _ in range(100):
            await asyncio.sleep(0)
        return [*found, loop.metrics()]

    first, *_, last = run(main())
    assert last.iterations - first.iterations >= 100
    assert last.executor_threads >= 1


def test_bytes_of_pipes_datagrams_and_files(tmp_path):
    class Receiver(asyncio.DatagramProtocol):
        def __init__(self):
            self.got = asyncio.get_running_loop().create_future()

        def datagram_received(self, data, address):
            self.got.set_result(data)

    async def traffic(loop, program):
        before = loop.metrics()
        await program
        after = loop.metrics()
        return after.bytes_received - before.bytes_received, after.bytes_sent - before.bytes_sent

    async def main():
        loop = asyncio.get_running_loop()
        here, receiver = await loop.create_datagram_endpoint(Receiver, local_addr=("127.0.0.1", 0))
        there, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, family=socket.AF_INET)

        async def datagram():
            there.sendto(b"x" * 500, here.get_extra_info("sockname"))
            await receiver.got

        async def pipe():
            child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
            assert len((await child.communicate(b"y" * 700))[0]) == 700

        async def file():
            (tmp_path / "file").write_bytes(b"z" * 900)
            ours, theirs = socket.socketpair()
            with ours, theirs, open(tmp_path / "file", "rb") as source:
                ours.setblocking(False)
                await loop.sock_sendfile(ours, source)

        found = [await traffic(loop, program) for program in (datagram(), pipe(), file())]
        here.close()
        there.close()
        return found

    assert run(main()) == [(500, 500), (700, 700), (0, 900)]


def test_jobs_that_wait_for_a_thread():
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
        gate = threading.Event()
        jobs = [loop.run_in_executor(None, gate.wait, 10) for _ in range(4)]
        while loop.metrics().executor_queue != 3:
            await asyncio.sleep(0.001)
        found = loop.metrics()
        gate.set()
        await asyncio.gather(*jobs)
        return found, loop.metrics()

    busy, idle = run(main())
    assert (busy.executor_queue, busy.executor_threads) == (3, 1)
    assert (idle.executor_queue, idle.executor_threads) == (0, 1)


def test_prometheus():
    async def main():
        server = await metrics.serve(port=0)
        host, port = server.sockets[0].getsockname()

        async def ask(path):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = (await reader.read()).decode()
            writer.close()
            return answer.partition("\r\n\r\n")

        found = await ask("/metrics"), await ask("/")
        server.close()
        return found

    (head, _, body), (other, _, _) = run(main())
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert f"Content-Length: {len(body)}" in head
    assert other.startswith("HTTP/1.1 404 ")
    samples = dict(line.rsplit(" ", 1) for line in body.splitlines() if not line.startswith("#"))
    assert float(samples["aioxide_iterations_total"]) > 0
    for name in ("lag", "iteration", "callback"):
        assert samples[f'aioxide_{name}_seconds_bucket{{le="+Inf"}}'] == samples[f"aioxide_{name}_seconds_count"]
        buckets = [int(value) for sample, value in samples.items() if sample.startswith(f"aioxide_{name}_seconds_b")]
        assert buckets == sorted(buckets)
        assert len(buckets) == 13
    assert {line.split()[2] for line in body.splitlines() if line.startswith("# TYPE")} >= {"aioxide_timers"}


def test_only_aioxides_loops_are_measured():
    async def main():
        return metrics.prometheus_text()

    with pytest.raises(TypeError, match="only event loops of aioxide"):
        asyncio.run(main())


def test_accounts_of_tasks():
    def burn(seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    async def work():
        for _ in range(10):
            burn(0.01)
            await asyncio.sleep(0)
        time.sleep(1)  # no processor time
        await asyncio.Event().wait()

    async def main():
        before = aioxide.tasks()[0]
        aioxide.inspect.accounting()
        task = asyncio.create_task(work(), name="work")
        idle = asyncio.create_task(asyncio.Event().wait(), name="idle")
        found = {}
        while "work" not in found or found["work"].steps < 11:
            await asyncio.sleep(0.05)
            found = {task.name: task for task in aioxide.tasks()}
        text = aioxide.format_tasks()
        aioxide.inspect.accounting(False)
        task.cancel()
        idle.cancel()
        return before, found, text, aioxide.tasks()[0]

    before, found, text, after = run(main())
    assert (before.age, before.steps, before.cpu) == (None, None, None)
    assert (after.age, after.steps, after.cpu) == (None, None, None)
    assert found["work"].steps == 11
    assert 0.05 <= found["work"].cpu < 0.6
    assert found["work"].age >= 1
    assert found["idle"].steps == 1
    assert found["idle"].cpu < 0.05
    assert "11 steps" in text
