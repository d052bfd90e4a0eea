"""No descriptors left: accept waits until there are some again, without spinning, and serves everybody in the end."""

import json
import resource
import socket
import subprocess
import sys
import time

import pytest

SERVER = """
import asyncio, json, resource, sys

LIMIT = int(sys.argv[1])

async def handle(reader, writer):
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()
    await writer.wait_closed()

async def main():
    loop = asyncio.get_running_loop()
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context["message"]))
    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    used = resource.getrusage(resource.RUSAGE_SELF)
    server.close()
    print(json.dumps({"cpu": used.ru_utime + used.ru_stime, "reports": reports}), flush=True)

if sys.argv[2] == "aioxide":
    import aioxide
    aioxide.install()
asyncio.run(main())
"""


@pytest.mark.parametrize("on", ["stock", "aioxide"])
def test_accept_recovers(on):
    limit, peers = 40, 60
    command = [sys.executable, "-c", SERVER, str(limit), on]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        port = int(server.stdout.readline())
        began = time.process_time()
        sockets = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(peers)]
        try:
            for number, sock in enumerate(sockets):
                sock.sendall(b"%d\n" % number)
            time.sleep(2)  # with the descriptors used up all the while
            # Each that has its answer makes room for another.
            for number, sock in enumerate(sockets):
                assert sock.recv(100) == b"%d\n" % number
                sock.close()
        finally:
            for sock in sockets:
                sock.close()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            sock.sendall(b"alive\n")
            assert sock.recv(100) == b"alive\n"
        server.stdin.write("\n")
        server.stdin.flush()
        outcome = json.loads(server.stdout.readline())
        server.stdin.close()
    assert server.returncode == 0
    assert set(outcome["reports"]) == {"socket.accept() out of system resource"}
    assert outcome["cpu"] < 2.5, "it spins"
    assert time.process_time() - began < 5
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > peers
