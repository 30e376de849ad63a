"""A read model by the ORM, in the transaction of the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from examples.sqlalchemy_shop.models import Article, Price
from reactive_orch import Event, projection
from reactive_orch.sqlalchemy import session

if TYPE_CHECKING:
    import asyncpg


@projection("articles", aggregate_types=["Article"])
async def articles(event: Event, tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Keep articles with all their prices. What the block adds is written at its end, and committed with the batch."""
    said = event.json()
    async with session(tx) as s:
        if event.event_type == "ArticleListed":
            s.add(Article(id=event.aggregate_id, title=said["title"]))
        article = await s.get_one(Article, event.aggregate_id)
        article.prices.append(Price(version=event.aggregate_version, price=said["price"]))
