"""What a handler of event classes costs per event, no database: each kind of class beside a plain handler.

One event of 219 bytes of JSON, with two nested objects, a decimal number, a time and a UUID, is given to a handler that
does nothing, 5,000 times in turn. Plain: as an event; and one that calls `event.json()`, which leaves decimal number,
time and UUID as text. "In batches" are 500 events a call.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from dataclasses import dataclass
from decimal import Decimal  # noqa: TC003 - looked at when a class is decoded
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pydantic

from bench.figures import Section, median, table
from reactive_orch import Event, EventTypes, projection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bench.scene import Scene
    from reactive_orch import Projection

EVENTS, BATCH = 5_000, 500
HEAD = ["handler", "one by one", "more than plain", "in batches", "more than plain", "`new`"]


@dataclass(frozen=True, slots=True)
class _Line:
    sku: str
    price: Decimal


@dataclass(frozen=True, slots=True)
class _Dataclass:
    order: uuid.UUID
    customer: str
    placed_at: dt.datetime
    lines: list[_Line]


class _LineStruct(msgspec.Struct):
    sku: str
    price: Decimal


class _Struct(msgspec.Struct):
    order: uuid.UUID
    customer: str
    placed_at: dt.datetime
    lines: list[_LineStruct]


class _LineModel(pydantic.BaseModel):
    sku: str
    price: Decimal


class _Model(pydantic.BaseModel):
    order: uuid.UUID
    customer: str
    placed_at: dt.datetime
    lines: list[_LineModel]


class _Old(msgspec.Struct):
    order: uuid.UUID
    customer: str
    placed_at: dt.datetime
    lines: list[_LineStruct]


KINDS = {"dataclass": _Dataclass, "msgspec": _Struct, "pydantic": _Model, "msgspec, upcast by one version": _Old}
JSON = (
    b'{"order":"7eaf8409-a96f-4497-9ab3-a26d407371be","customer":"Ada Lovelace, Marylebone",'
    b'"placed_at":"2026-11-30T21:17:00.494558Z","lines":[{"sku":"pen-0000000042","price":"1.10"},'
    b'{"sku":"ink-0000000007","price":"12.90"}]}'
)


async def measure(scene: Scene) -> Section:
    """Take turns: plain, plain and decoded, each kind."""
    events = scene.scaled(EVENTS, BATCH)
    times: dict[str, list[list[float]]] = {}
    for _ in range(scene.repeat + 1):
        for name, one, many, new in _cases():
            taken = [await _each(one, events), await _batches(many, events), _made(new, events)]
            times.setdefault(name, []).append(taken)
    figures = {name: [median(turns) for turns in zip(*taken[1:], strict=True)] for name, taken in times.items()}
    rows = [_row(name, figures[name], figures["plain"]) for name in figures]
    text = (__doc__ or "").split("\n\n", 1)[1] + "\nMicroseconds of the processor per event, medians.\n\n"
    return Section("Event classes", text + table(HEAD, rows))


def _row(name: str, figures: Sequence[float], plain: Sequence[float]) -> list[str]:
    one, many, new = figures
    more = ("", "") if name == "plain" else (f"{one - plain[0]:.2f}", f"{many - plain[1]:.2f}")
    return [name, f"{one:.2f}", more[0], f"{many:.2f}", more[1], f"{new:.2f}" if new else ""]


def _cases() -> list[tuple[str, Projection, Projection, Callable[[], object] | None]]:
    """Return name, a projection of single events, one of batches, and what makes an event to append."""
    plain = ("plain", projection("plain")(_nothing), projection("plain", batch=True)(_nothing), None)
    decoded = ("plain, `event.json()`", projection("json")(_json), projection("json", batch=True)(_jsons), None)
    return [plain, decoded, *(_typed(name, cls) for name, cls in KINDS.items())]


def _typed(name: str, cls: Any) -> tuple[str, Projection, Projection, Callable[[], object] | None]:
    types = EventTypes()
    types("OrderPlaced", version=2 if cls is _Old else 1, aggregate_type="Order", id_from="order")(cls)
    if cls is _Old:
        types.upcast(cls, 1)(lambda payload: payload)
    one = types.projection("typed")
    one.on(cls)(_nothing)
    made = types.decode(_event())
    return name, one, types.batch("typed", cls)(_nothing), None if cls is _Old else lambda: types.new(made)


def _event() -> Event:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return Event(7, 3, "c", "Order", "42", 1, uuid.UUID(int=1), "OrderPlaced", 1, JSON, None, None, None, "{}", now)


async def _nothing(_given: Any, _tx: Any) -> None:
    pass


async def _json(event: Event, _tx: Any) -> None:
    event.json()


async def _jsons(events: Sequence[Event], _tx: Any) -> None:
    for event in events:
        event.json()


async def _each(of: Projection, events: int) -> float:
    handler = cast("Callable[[Any, Any], Awaitable[None]]", of.handler)
    event, began = _event(), time.process_time()
    for _ in range(events):
        await handler(event, None)
    return (time.process_time() - began) / events * 1e6


async def _batches(of: Projection, events: int) -> float:
    handler = cast("Callable[[Any, Any], Awaitable[None]]", of.handler)
    batch, began = [_event()] * BATCH, time.process_time()
    for _ in range(events // BATCH):
        await handler(batch, None)
    return (time.process_time() - began) / (events // BATCH * BATCH) * 1e6


def _made(new: Callable[[], object] | None, events: int) -> float:
    if new is None:
        return 0.0
    began = time.process_time()
    for _ in range(events):
        new()
    return (time.process_time() - began) / events * 1e6
