"""Articles and the prices that they have had, as an application with SQLAlchemy has them."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """The application's."""


class Price(Base):
    """What an article costs from a version of its aggregate on, in cents."""

    __tablename__ = "article_prices"

    article: Mapped[str] = mapped_column(ForeignKey("articles.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[int]


class Article(Base):
    """Something to buy."""

    __tablename__ = "articles"

    id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    prices: Mapped[list[Price]] = relationship(order_by=Price.version, lazy="selectin")
