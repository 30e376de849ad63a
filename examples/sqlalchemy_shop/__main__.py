"""Read models of SQLAlchemy, appended and read by its sessions as well: python -m examples.sqlalchemy_shop."""

from __future__ import annotations

import uuid
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from examples.common import prepared, run
from examples.sqlalchemy_shop.models import Article
from examples.sqlalchemy_shop.projections import articles
from reactive_orch import Config, NewEvent, Node, Worker, append, handled, running


async def main() -> None:
    """List an article, change its price, and read both as soon as they are handled."""
    url = await prepared(Path(__file__).with_name("tables.sql"))
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    number = uuid.uuid4().hex[:6]
    listed = ("ArticleListed", {"title": "Shoes", "price": 8000}), ("ArticlePriced", {"price": 7500})
    events = [
        NewEvent(aggregate_type="Article", aggregate_id=number, event_type=event_type, payload=payload)
        for event_type, payload in listed
    ]
    async with running(Worker(Node(Config(database_url=url)), "sqlalchemy", [articles])), AsyncSession(engine) as s:
        positions = await append(s, events)
        await s.commit()
        await handled(s, "sqlalchemy", "articles", positions)
        article = await s.get_one(Article, number)
        print(article.title, [price.price for price in article.prices])
    await engine.dispose()


if __name__ == "__main__":
    run(main)
