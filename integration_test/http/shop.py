"""Projections for pictures of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch import Event, projection

if TYPE_CHECKING:
    import asyncpg


@projection("orders_per_customer")
async def orders_per_customer(event: Event, tx: asyncpg.Connection[asyncpg.Record]) -> None:  # noqa: ARG001
    """Fail at an order that has no customer."""
    event.json()["customer"]


@projection("order_list")
async def order_list(event: Event, tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Handle nothing: what is shown is how it goes on."""


@projection("search_index")
async def search_index(event: Event, tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Handle nothing."""
