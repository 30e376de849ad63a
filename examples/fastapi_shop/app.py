"""Pages that append an event and answer with the read model in which it can be seen.

The application's process handles events, too. Whether it or another one, started with the command line, handles those
of a purchase makes no difference to who asks.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import asyncpg
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel

from examples.fastapi_shop.projections import purchases
from reactive_orch import Config, Conflict, Expected, NewEvent, Node, NotHandled, Worker, append, handled, running
from reactive_orch.http.asgi import health_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Connection = asyncpg.pool.PoolConnectionProxy


class Placed(BaseModel):
    """What is bought."""

    customer: str
    total: float


async def _connection(request: Request) -> AsyncIterator[Connection]:
    async with request.app.state.pool.acquire() as connection:
        yield connection


Connected = Annotated[Connection, Depends(_connection)]


def application(url: str) -> FastAPI:
    """Return the application; its worker runs as long as its lifespan."""
    worker = Worker(Node(Config(database_url=url)), "fastapi", [purchases])

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(url) as app.state.pool, running(worker):
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/internal", health_app(worker))

    @app.post("/purchases/{purchase}", status_code=201)
    async def place(purchase: str, placed: Placed, connection: Connected) -> dict[str, Any]:
        return await _append(connection, purchase, "PurchasePlaced", Expected.NO_STREAM, placed.model_dump())

    @app.post("/purchases/{purchase}/pay")
    async def pay(purchase: str, connection: Connected) -> dict[str, Any]:
        return await _append(connection, purchase, "PurchasePaid", 1)

    return app


async def _append(
    connection: Connection,
    purchase: str,
    event_type: str,
    expected: Expected | int,
    payload: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Append, wait until the read model has it, and return that."""
    event = NewEvent(aggregate_type="Purchase", aggregate_id=purchase, event_type=event_type, payload=payload or {})
    try:
        positions = await append(connection, [event], expected)
        await handled(connection, "fastapi", "purchases", positions, timeout=5)
    except Conflict as conflict:
        raise HTTPException(409, "somebody else was quicker, or the purchase is not there") from conflict
    except NotHandled as late:  # it is appended, and will be handled; but not yet
        raise HTTPException(202, f"accepted; {late.reason}") from late
    row = await connection.fetchrow("SELECT * FROM purchases WHERE id = $1", purchase)
    return dict(row or {})
