"""A web service with a database: FastAPI on PostgreSQL.

    DATABASE_URL=postgresql://user@host/database uvicorn --loop aioxide:new_event_loop examples.service:app
    aioxide examples/service.py              # the same, with aioxide's tasks, locks and queues as well

What to take from it: the pool is made when the application starts and closed when it ends; a request that is
given up rolls its transaction back; and the counter is raised by the database, not read and written by the program.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, TypeAlias

import asyncpg
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, Field

SCHEMA = """
create table if not exists items (
    name text primary key,
    stock integer not null check (stock >= 0)
)
"""


class Item(BaseModel):
    name: str = Field(min_length=1, max_length=100)
    stock: int = Field(ge=0)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=1, max_size=10) as pool:
        await pool.execute(SCHEMA)
        app.state.pool = pool
        yield


async def connection(request: Request) -> AsyncIterator[asyncpg.Connection]:
    """One connection and one transaction for each request."""
    async with request.app.state.pool.acquire(timeout=5) as connection, connection.transaction():
        yield connection


Database: TypeAlias = Annotated[asyncpg.Connection, Depends(connection)]
app = FastAPI(title="Stock", lifespan=lifespan)


@app.put("/items/{name}", status_code=201)
async def put(name: str, item: Item, database: Database) -> Item:
    await database.execute(
        "insert into items values ($1, $2) on conflict (name) do update set stock = excluded.stock", name, item.stock
    )
    return Item(name=name, stock=item.stock)


@app.get("/items")
async def items(database: Database) -> list[Item]:
    return [Item(**row) for row in await database.fetch("select * from items order by name")]


@app.post("/items/{name}/sell")
async def sell(name: str, database: Database) -> Item:
    try:
        row = await database.fetchrow("update items set stock = stock - 1 where name = $1 returning *", name)
    except asyncpg.CheckViolationError:
        raise HTTPException(409, "sold out") from None
    if row is None:
        raise HTTPException(404, "no such item")
    return Item(**row)


if __name__ == "__main__":
    uvicorn.run(app, port=8000, loop="none")
