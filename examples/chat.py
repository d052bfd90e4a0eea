"""A chat server on web sockets, with rooms.

    aioxide examples/chat.py --port 8765     # then connect: python -m websockets ws://localhost:8765/room
    aioxide examples/chat.py                 # talk to itself, and check what everybody heard

What to take from it: a slow listener must not hold up the others, so each has a bounded queue of its own
and is dropped when it is full; and on SIGINT or SIGTERM the server says goodbye before it ends.
"""

import argparse
import asyncio
import collections
import contextlib
import signal
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

BACKLOG = 100  # messages that a listener may be behind


class Chat:
    """The rooms, and who listens in each."""

    def __init__(self) -> None:
        self.rooms: dict[str, set[asyncio.Queue[str]]] = collections.defaultdict(set)

    def say(self, room: str, message: str) -> None:
        """Pass a message on to everybody in the room, without waiting for anybody."""
        for queue in list(self.rooms[room]):
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                self.rooms[room].discard(queue)
                queue.shutdown(immediate=True)  # ends the listener's sender

    async def attend(self, connection: ServerConnection) -> None:
        """Serve one connection until either side ends it."""
        assert connection.request is not None
        room = connection.request.path.strip("/") or "lobby"
        queue: asyncio.Queue[str] = asyncio.Queue(BACKLOG)
        self.rooms[room].add(queue)
        sender = asyncio.create_task(self.send(connection, queue))
        try:
            async for message in connection:
                self.say(room, str(message))
        except ConnectionClosed:
            pass
        finally:
            self.rooms[room].discard(queue)
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sender

    async def send(self, connection: ServerConnection, queue: asyncio.Queue[str]) -> None:
        """Send what the room says, one message after the other."""
        with contextlib.suppress(ConnectionClosed):
            try:
                while True:
                    await connection.send(await queue.get())
            except asyncio.QueueShutDown:
                await connection.close(1013, "too slow")


async def start(host: str, port: int) -> Server:
    return await serve(Chat().attend, host, port)


async def serve_until_told(host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM; leaving the server closes the connections with a goodbye."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    async with await start(host, port):
        print(f"listening on ws://{host}:{port}/ROOM")
        await told.wait()


async def talk_to_itself() -> int:
    """Twenty people in two rooms: everybody hears everything in their room, in one order, and nothing else."""
    people, lines = 20, 10
    async with await start("127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        async def person(number: int) -> list[str]:
            room = f"room{number % 2}"
            async with connect(f"ws://127.0.0.1:{port}/{room}") as connection:
                await everybody.wait()
                for line in range(lines):
                    await connection.send(f"{room} {number} {line}")
                return [str(await connection.recv()) for _ in range(lines * people // 2)]

        everybody = asyncio.Barrier(people)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            tasks = [group.create_task(person(number)) for number in range(people)]
    heard = [task.result() for task in tasks]
    for number, messages in enumerate(heard):
        assert messages == heard[number % 2], "not the same order for all"
        assert all(message.startswith(f"room{number % 2} ") for message in messages)
    print(f"{people} people heard {sum(map(len, heard))} messages")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, help="serve on this port (default: talk to itself and check)")
    arguments = parser.parse_args()
    if arguments.port is None:
        return asyncio.run(talk_to_itself())
    asyncio.run(serve_until_told(arguments.host, arguments.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
