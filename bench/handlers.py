"""What other ways of writing cost a handler: SQLAlchemy in its transaction, a plain function in a thread.

Each inserts one row per event in one transaction, called as a lane calls it, without reading and committing.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Text, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bench.figures import Section, table
from bench.projections import INSERT_MANY, INSERT_ONE
from bench.scene import connected
from reactive_orch import BlockingConnection, Event, projection
from reactive_orch.runtime.handling.calling import Calling
from reactive_orch.sqlalchemy import connection, session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.scene import Scene

EVENTS = 50
TURNS = 20


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
    """Take turns, shortly: the least is what it costs on a machine that does nothing else."""
    url = scene.database()
    ways = [(name, handler) for name, pair in WAYS.items() for handler in pair if handler is not None]
    calls = {handler: _calling(handler, batch=handler in {many for _, many in WAYS.values()}) for _, handler in ways}
    took: dict[Callable[..., Any], list[float]] = {handler: [] for handler in calls}
    async with connected(url) as own:
        for _ in range(TURNS * scene.repeat):
            for handler, call in calls.items():
                took[handler].append(await _us_per_event(own, call))
    scene.drop(url)
    rows = []
    for name, (one, many) in WAYS.items():
        row = [name, f"{min(took[one]):.0f}", f"{min(took[one]) - min(took[_plain]):+.0f}"]
        row += [f"{min(took[many]):.1f}", f"{min(took[many]) - min(took[_plain_many]):+.1f}"] if many else ["", ""]
        rows.append(row)
    text = (__doc__ or "").split("\n\n", 1)[
        1
    ] + f"\nMicroseconds per event, the least of {TURNS * scene.repeat} turns.\n\n"
    head = ["how it writes", "event by event", "more than `tx`", f"{EVENTS} at once", "more than `tx`"]
    return Section("Handlers", text + table(head, rows), [])


def _calling(handler: Callable[..., Any], *, batch: bool) -> Calling:
    blocking = handler in {_blocking, _blocking_many}
    return Calling(projection(handler.__name__, batch=batch, blocking=blocking)(handler), 60.0)


async def _us_per_event(own: Any, call: Calling) -> float:
    events: list[Any] = [SimpleNamespace(global_position=n, aggregate_id=f"key-{n}") for n in range(EVENTS)]
    transaction = own.transaction()
    await transaction.start()
    began = time.perf_counter()
    await call(events, own)
    took_s = time.perf_counter() - began
    await transaction.rollback()
    return took_s / EVENTS * 1e6
