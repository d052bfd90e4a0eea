"""redis-py: many tasks on one client, and a message to a subscriber.

REDIS_URL=redis://localhost:6379/0 python redis_client.py
"""

import asyncio
import os

import aioxide
from redis.asyncio import Redis


async def listen(subscription, count):
    messages = (message async for message in subscription.listen() if message["type"] == "message")
    return [(await anext(messages))["data"] for _ in range(count)]


async def main():
    async with Redis.from_url(os.environ["REDIS_URL"], decode_responses=True) as client:
        await client.delete("visits")
        await asyncio.gather(*[client.incr("visits") for _ in range(50)])
        async with client.pubsub() as subscription:
            await subscription.subscribe("news")
            await subscription.get_message(timeout=30)  # the server says that it has subscribed us
            listener = asyncio.create_task(listen(subscription, 3))
            for text in "abc":
                await client.publish("news", text)
            heard = await asyncio.wait_for(listener, 30)
        visits = int(await client.get("visits"))
        await client.delete("visits")
    loop = type(asyncio.get_running_loop())
    print(f"{loop.__module__}.{loop.__qualname__}", visits, heard)


if __name__ == "__main__":
    aioxide.install()
    asyncio.run(main())
