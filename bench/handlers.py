"""What other ways of writing cost a handler: SQLAlchemy in its transaction, a plain function in a thread.

Each projection inserts one row per event, alone on one worker in this process, from its first call to its last;
the batches' reading and committing is in it. All take turns on one log.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Text, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bench.figures import Section, median, table
from bench.projections import INSERT_MANY, INSERT_ONE
from reactive_orch import BlockingConnection, Config, Event, Node, Worker, projection
from reactive_orch.sqlalchemy import connection, session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.scene import Scene
    from reactive_orch import Projection

EVENTS = 5000


class _Base(DeclarativeBase):
    pass


class _Effect(_Base):
    __tablename__ = "bench_effects"

    position: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    body: Mapped[str] = mapped_column(Text)


async def _plain(event: Event, tx: Any) -> None:
    await tx.execute(INSERT_ONE, event.global_position, event.aggregate_id)


async def _savepoint(event: Event, tx: Any) -> None:
    async with tx.transaction():
        await tx.execute(INSERT_ONE, event.global_position, event.aggregate_id)


async def _core(event: Event, tx: Any) -> None:
    async with connection(tx) as c:
        await c.execute(insert(_Effect).values(position=event.global_position, body=event.aggregate_id))


async def _orm(event: Event, tx: Any) -> None:
    async with session(tx) as s:
        s.add(_Effect(position=event.global_position, body=event.aggregate_id))


def _blocking(event: Event, tx: BlockingConnection) -> None:
    tx.execute(INSERT_ONE, event.global_position, event.aggregate_id)


def _columns(events: Sequence[Event]) -> tuple[list[int], list[str]]:
    return [e.global_position for e in events], [e.aggregate_id for e in events]


async def _plain_many(events: Sequence[Event], tx: Any) -> None:
    await tx.execute(INSERT_MANY, *_columns(events))


async def _core_many(events: Sequence[Event], tx: Any) -> None:
    async with connection(tx) as c:
        rows = [{"position": e.global_position, "body": e.aggregate_id} for e in events]
        await c.execute(insert(_Effect), rows)


async def _orm_many(events: Sequence[Event], tx: Any) -> None:
    async with session(tx) as s:
        s.add_all(_Effect(position=e.global_position, body=e.aggregate_id) for e in events)


def _blocking_many(events: Sequence[Event], tx: BlockingConnection) -> None:
    tx.execute(INSERT_MANY, *_columns(events))


WAYS: dict[str, tuple[Callable[..., Any], Callable[..., Any] | None]] = {
    "`tx`": (_plain, _plain_many),
    "`tx`, in a savepoint each": (_savepoint, None),
    "`connection(tx)`, Core": (_core, _core_many),
    "`session(tx)`, ORM": (_orm, _orm_many),
    "`blocking=True`": (_blocking, _blocking_many),
}


async def measure(scene: Scene) -> Section:
    """Take turns."""
    url = scene.database(events=scene.scaled(EVENTS, 500))
    rows = []
    took: dict[Callable[..., Any], list[float]] = {}
    for turn in range(scene.repeat):
        for one, many in WAYS.values():
            for handler in filter(None, (one, many)):
                us = await _us_per_event(url, handler, turn, batch=handler is many)
                took.setdefault(handler, []).append(us)
    base_one, base_many = (median(took[handler]) for handler in (_plain, _plain_many))
    for name, (one, many) in WAYS.items():
        each = median(took[one])
        row = [name, f"{each:.0f}", f"{each - base_one:+.0f}"]
        row += [f"{median(took[many]):.1f}", f"{median(took[many]) - base_many:+.1f}"] if many else ["", ""]
        rows.append(row)
    scene.drop(url)
    text = (__doc__ or "").split("\n\n", 1)[1] + "\nMicroseconds per event, medians.\n\n"
    head = ["how it writes", "event by event", "more than `tx`", "in batches of up to 100", "more than `tx`"]
    return Section("Handlers", text + table(head, rows), [])


async def _us_per_event(url: str, handler: Callable[..., Any], turn: int, *, batch: bool) -> float:
    made, seen = _noting(handler, f"{handler.__name__}_{turn}", batch=batch)
    async with Node(Config(database_url=url, batch_events=100)) as node:
        await Worker(node, "handlers", [made], until_idle=True).run()
    first, last, events = seen
    return (last - first) / events * 1e6


def _noting(handler: Callable[..., Any], name: str, *, batch: bool) -> tuple[Projection, list[float]]:
    """Return a projection of this handler, and when it was first called, when it last ended, and for how many events."""
    seen = [0.0, 0.0, 0.0]

    def note(events: Any) -> None:
        seen[0] = seen[0] or time.perf_counter()
        seen[2] += len(events) if batch else 1

    async def noted(events: Any, tx: Any) -> None:
        note(events)
        await handler(events, tx)
        seen[1] = time.perf_counter()

    def noted_in_thread(events: Any, tx: BlockingConnection) -> None:
        note(events)
        handler(events, tx)
        seen[1] = time.perf_counter()

    blocking = handler in {_blocking, _blocking_many}
    return projection(name, batch=batch, blocking=blocking)(noted_in_thread if blocking else noted), seen
