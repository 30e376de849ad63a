"""Projections whose names, and whose errors, would be markup if they were not taken for text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch import Event, projection

if TYPE_CHECKING:
    import asyncpg

NAME = "<img src=x onerror=alert(1)> \"'&;$(touch x)`"
TEXT = "<script>alert(2)</script> \u202etxet"


@projection(NAME)
async def hostile(event: Event, tx: asyncpg.Connection[asyncpg.Record]) -> None:  # noqa: ARG001 - as handlers are called
    """Fail with markup."""
    raise ValueError(TEXT)


@projection("mistyped")
async def mistyped(event: Event, tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Give the driver what it does not take."""
    await tx.execute("SELECT $1::integer", event.aggregate_id)
