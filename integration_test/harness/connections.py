"""A test's own connections to a database."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

import asyncpg

from integration_test.harness import projections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

LOST = (
    OSError,  # TimeoutError included
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # "cannot switch to state": the connection broke between two messages
)
"""What a lost connection looks like."""


def as_role(role: str, url: str) -> str:
    """Return the URL by which this role connects, instead of the superuser."""
    return url.replace("postgres@", f"{quote(role)}@")


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """Connect for the block, without a name: no fault aims at it."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        with contextlib.suppress(*LOST):
            await connection.close(timeout=5)


@contextlib.asynccontextmanager
async def prepared(url: str) -> AsyncIterator[Connection]:
    """Create the projections' tables and connect for the block."""
    async with connected(url) as connection:
        await projections.create_tables(connection)
        yield connection
