"""Which windows lanes may share: never less than the lane would read by itself, and nothing of another database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from reactive_orch import Event, projection
from reactive_orch.incarnation import Incarnation
from reactive_orch.model import Projection, Window
from reactive_orch.runtime.reading.window_cache import EVENT_BYTES, WINDOWS_KEPT, Fetch, Fetched, WindowCache, caches_of

NOW, BEFORE = Incarnation(7), Incarnation(6)
ASKED = Window((1, 2, 3), low=100, high=200, limit=50, incarnation=NOW)
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def fetch(window: Window = ASKED, *, end: int | None = None, failed: bool = False) -> Fetch:
    """Return a fetch under way, or one that arrived or failed."""
    one = Fetch(window)
    if end is not None:
        one.fetched = Fetched(window, (), end)
    if end is not None or failed:
        one.arrived.set()
    return one


def cache_with(*fetches: Fetch, lanes: int = 2) -> WindowCache:
    cache = WindowCache(lanes)
    for one in fetches:
        cache.put(one)
    return cache


@pytest.mark.parametrize(
    "one",
    [
        fetch(),
        fetch(end=200),
        fetch(replace(ASKED, high=300)),
        fetch(replace(ASKED, high=300), end=250),
        fetch(replace(ASKED, high=150), end=140),  # full: it holds as many events as are asked for
        fetch(replace(ASKED, scattered=True), end=200),
    ],
)
def test_what_brings_as_much_is_shared(one: Fetch) -> None:
    assert cache_with(one).find(ASKED) is one


@pytest.mark.parametrize(
    "one",
    [
        fetch(failed=True),
        fetch(replace(ASKED, incarnation=BEFORE)),
        fetch(replace(ASKED, incarnation=BEFORE), end=200),
        fetch(replace(ASKED, low=99)),
        fetch(replace(ASKED, low=101)),
        fetch(replace(ASKED, partitions=(1, 2))),
        fetch(replace(ASKED, partitions=(1, 2, 3, 4))),
        fetch(replace(ASKED, limit=1), end=110),  # narrowed down to an event that fails for somebody else
        fetch(replace(ASKED, high=150)),  # may come to be full, or not
        fetch(replace(ASKED, high=150), end=150),
    ],
)
def test_what_brings_less_is_not_shared(one: Fetch) -> None:
    assert cache_with(one).find(ASKED) is None


def test_the_oldest_goes() -> None:
    fetches = [fetch(replace(ASKED, low=low, high=low + 10)) for low in range(WINDOWS_KEPT + 1)]
    cache = cache_with(*fetches)
    assert [cache.find(one.window) for one in fetches] == [None, *fetches[1:]]


def heavy(low: int, payload: int) -> Fetch:
    """Return a fetch of one event that has arrived."""
    one = fetch(replace(ASKED, low=low, high=low + 10), end=low + 10)
    event = Event(low, 1, "c", "T", "7", 1, UUID(int=low), "E", 1, bytes(payload), None, None, None, "{}", WHEN)
    one.fetched = Fetched(one.window, (event,), low + 10, payload)
    return one


@pytest.mark.parametrize(
    ("payloads", "left"), [((100, 100, 100), 3), ((800, 800, 800), 1), ((100, 5000, 100), 1), ((9000,), 0)]
)
def test_what_is_too_heavy_together_goes(payloads: tuple[int, ...], left: int) -> None:
    cache, fetches = (
        WindowCache(2, bytes_kept=3 * EVENT_BYTES + 300),
        [heavy(low, size) for low, size in enumerate(payloads)],
    )
    for one in fetches:
        cache.put(one)
        cache.weigh(one)
    kept = [cache.find(one.window) for one in fetches]
    assert kept == [None] * (len(fetches) - left) + fetches[len(fetches) - left :]


def test_a_single_lane_keeps_nothing() -> None:
    assert cache_with(fetch(), lanes=1).find(ASKED) is None


def named(name: str, concurrency: int = 1, aggregate_types: tuple[str, ...] | None = None) -> Projection:
    @projection(name, concurrency=concurrency, aggregate_types=aggregate_types)
    async def nothing(event: Event, tx: object) -> None:
        pass

    return nothing


def test_who_shares() -> None:
    each = caches_of(
        [
            named("a"),
            named("b"),
            named("wide", 3),
            named("wider", 3),
            named("orders", 1, ("Order",)),
            named("c"),
            replace(named("elsewhere"), log="bookings"),
            replace(named("elsewhere too"), log="bookings"),
        ]
    )
    caches = {subscription.projection: row for subscription, row in each.items()}
    assert caches["a"] == caches["b"] == caches["c"]
    assert caches["wide"] == caches["wider"]
    distinct = {id(cache) for row in caches.values() for cache in row}
    assert len(distinct) == (1 + 1) + (3 + 1) + (1 + 1) + (1 + 1)  # one for each lane, and one for the catch-up lane
    caches["a"][0].put(one := fetch())
    assert caches["b"][0].find(ASKED) is one
    caches["orders"][0].put(one)
    assert caches["orders"][0].find(ASKED) is None, "nobody to share with"
    assert caches["elsewhere"][0].find(ASKED) is None, "the same position of another log is another event"
