"""asyncpg: a pool of connections, each task with one of its own.

DATABASE_URL=postgresql://user@host/database python asyncpg_pool.py
"""

import asyncio
import os

import aioxide
import asyncpg


async def square(pool, number):
    async with pool.acquire() as connection, connection.transaction():
        return await connection.fetchval("select $1::int * $1::int", number)


async def main():
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=1, max_size=3) as pool:
        squares = await asyncio.gather(*[square(pool, number) for number in range(5)])
    loop = type(asyncio.get_running_loop())
    print(f"{loop.__module__}.{loop.__qualname__}", squares)


if __name__ == "__main__":
    aioxide.install()
    asyncio.run(main())
