"""Tries an installed aioxide, with nothing else installed and nothing of the source tree but a certificate."""

import asyncio
import importlib.metadata
import importlib.resources
import json
import os
import pathlib
import re
import ssl
import subprocess
import sys
import tempfile

import aioxide

CERTIFICATES = pathlib.Path(__file__).parents[1] / "unit" / "certificates"
COMMAND = str(pathlib.Path(sys.executable).with_name("aioxide"))
PROGRAM = """
import asyncio
async def main():
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0.001, number)) for number in range(3)]
    print([task.result() for task in tasks], type(asyncio.get_running_loop()).__module__)
asyncio.run(main())
"""


def command(*words, status=0):
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, (words, done)
    return done.stdout, done.stderr


def try_package():
    home = pathlib.Path(aioxide.__file__).parent
    assert home.is_relative_to(sys.prefix), home
    assert importlib.metadata.version("aioxide") == aioxide.__version__
    assert importlib.metadata.requires("aioxide") is None
    for name in ("py.typed", "_core.pyi"):
        assert importlib.resources.files("aioxide").joinpath(name).is_file(), name


async def echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def exchange(**tls):
    payload = os.urandom(300_000)
    reader, writer = await aioxide.open_connection("127.0.0.1", **tls)
    writer.write(payload)
    assert await reader.readexactly(len(payload)) == payload
    writer.close()
    await writer.wait_closed()


def port_of(server):
    return server.sockets[0].getsockname()[1]


async def try_connections():
    async with await aioxide.start_server(echo, "127.0.0.1", 0) as server:
        await aioxide.gather(*(exchange(port=port_of(server)) for _ in range(5)))
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(CERTIFICATES / "server.pem")
    theirs = ssl.create_default_context(cafile=CERTIFICATES / "authority.pem")
    async with await aioxide.start_server(echo, "127.0.0.1", 0, ssl=ours) as server:
        await aioxide.gather(
            *(exchange(port=port_of(server), ssl=theirs, server_hostname="localhost") for _ in range(5))
        )
    return type(asyncio.get_running_loop())


def try_install():
    with aioxide.install():
        assert asyncio.Task is aioxide.Task
        assert asyncio.run(try_connections()) is aioxide.EventLoop
    assert asyncio.Task is not aioxide.Task


def try_command():
    output, _ = command("--version")
    assert output.startswith(f"aioxide {aioxide.__version__} (Python "), output
    assert command("-c", PROGRAM) == ("[0, 1, 2] aioxide\n", "")
    with tempfile.TemporaryDirectory() as directory:
        program = pathlib.Path(directory, "program.py")
        program.write_text(PROGRAM)
        assert command(str(program)) == ("[0, 1, 2] aioxide\n", "")
    _, complaint = command("--wrong", status=2)
    assert re.fullmatch(r"aioxide: unknown option --wrong .*\n", complaint), complaint
    output, _ = command("doctor", "--json")
    report = json.loads(output)
    assert report["aioxide"]["version"] == aioxide.__version__
    assert [check for check in report["checks"] if check["error"]] == []
    looked_at = [COMMAND, "--inspect", "-c", "import asyncio; print(0, flush=True); asyncio.run(asyncio.sleep(60))"]
    with subprocess.Popen(looked_at, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        tasks, _ = command("ps", str(process.pid))
        process.kill()
    assert tasks.startswith("NAME"), tasks
    return report["aioxide"]["wheel"]


def main():
    try_package()
    assert aioxide.run(try_connections()) is aioxide.EventLoop
    try_install()
    wheel = try_command()
    print(f"aioxide {aioxide.__version__} ({wheel}) works on Python {sys.version.split()[0]}")


main()
