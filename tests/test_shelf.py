"""Which windows lanes may share: never less than the lane would read by itself, and nothing of another database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from reactive_orch import Event, projection
from reactive_orch.incarnation import Incarnation
from reactive_orch.model import Projection, Window
from reactive_orch.runtime.shelf import EVENT_BYTES, WINDOWS_KEPT, Read, Reading, Shelf, shelves_of

NOW, BEFORE = Incarnation(7), Incarnation(6)
ASKED = Window((1, 2, 3), low=100, high=200, limit=50, incarnation=NOW)
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def read(window: Window = ASKED, *, end: int | None = None, failed: bool = False) -> Read:
    """Return a read under way, or one that arrived or failed."""
    one = Read(window)
    if end is not None:
        one.reading = Reading(window, (), end)
    if end is not None or failed:
        one.arrived.set()
    return one


def shelf_with(*reads: Read, lanes: int = 2) -> Shelf:
    shelf = Shelf(lanes)
    for one in reads:
        shelf.put(one)
    return shelf


@pytest.mark.parametrize(
    "one",
    [
        read(),
        read(end=200),
        read(replace(ASKED, high=300)),
        read(replace(ASKED, high=300), end=250),
        read(replace(ASKED, high=150), end=140),  # full: it holds as many events as are asked for
        read(replace(ASKED, scattered=True), end=200),
    ],
)
def test_what_brings_as_much_is_shared(one: Read) -> None:
    assert shelf_with(one).find(ASKED) is one


@pytest.mark.parametrize(
    "one",
    [
        read(failed=True),
        read(replace(ASKED, incarnation=BEFORE)),
        read(replace(ASKED, incarnation=BEFORE), end=200),
        read(replace(ASKED, low=99)),
        read(replace(ASKED, low=101)),
        read(replace(ASKED, partitions=(1, 2))),
        read(replace(ASKED, partitions=(1, 2, 3, 4))),
        read(replace(ASKED, limit=1), end=110),  # narrowed down to an event that fails for somebody else
        read(replace(ASKED, high=150)),  # may come to be full, or not
        read(replace(ASKED, high=150), end=150),
    ],
)
def test_what_brings_less_is_not_shared(one: Read) -> None:
    assert shelf_with(one).find(ASKED) is None


def test_the_oldest_goes() -> None:
    reads = [read(replace(ASKED, low=low, high=low + 10)) for low in range(WINDOWS_KEPT + 1)]
    shelf = shelf_with(*reads)
    assert [shelf.find(one.window) for one in reads] == [None, *reads[1:]]


def heavy(low: int, payload: int) -> Read:
    """Return a read of one event that has arrived."""
    one = read(replace(ASKED, low=low, high=low + 10), end=low + 10)
    event = Event(low, 1, "c", "T", "7", 1, UUID(int=low), "E", 1, bytes(payload), None, None, None, "{}", WHEN)
    one.reading = Reading(one.window, (event,), low + 10, payload)
    return one


@pytest.mark.parametrize(
    ("payloads", "left"), [((100, 100, 100), 3), ((800, 800, 800), 1), ((100, 5000, 100), 1), ((9000,), 0)]
)
def test_what_is_too_heavy_together_goes(payloads: tuple[int, ...], left: int) -> None:
    shelf, reads = Shelf(2, bytes_kept=3 * EVENT_BYTES + 300), [heavy(low, size) for low, size in enumerate(payloads)]
    for one in reads:
        shelf.put(one)
        shelf.weigh(one)
    kept = [shelf.find(one.window) for one in reads]
    assert kept == [None] * (len(reads) - left) + reads[len(reads) - left :]


def test_a_single_lane_keeps_nothing() -> None:
    assert shelf_with(read(), lanes=1).find(ASKED) is None


def named(name: str, concurrency: int = 1, aggregate_types: tuple[str, ...] | None = None) -> Projection:
    @projection(name, concurrency=concurrency, aggregate_types=aggregate_types)
    async def nothing(event: Event, tx: object) -> None:
        pass

    return nothing


def test_who_shares() -> None:
    shelves = shelves_of(
        [
            named("a"),
            named("b"),
            named("wide", 3),
            named("wider", 3),
            named("orders", 1, ("Order",)),
            named("c"),
        ]
    )
    assert shelves["a"] == shelves["b"] == shelves["c"]
    assert shelves["wide"] == shelves["wider"]
    distinct = {id(shelf) for row in shelves.values() for shelf in row}
    assert len(distinct) == (1 + 1) + (3 + 1) + (1 + 1)  # one for each lane, and one for the catch-up lane
    shelves["a"][0].put(one := read())
    assert shelves["b"][0].find(ASKED) is one
    shelves["orders"][0].put(one)
    assert shelves["orders"][0].find(ASKED) is None, "nobody to share with"
