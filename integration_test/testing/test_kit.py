"""The kit, inside the test: what is given, run, called and split, and how a handler's failure comes out."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from reactive_orch import ConfigError, Event, NewEvent, dead_letters, projection, read_stream, subject
from reactive_orch.errors import HandlerFailed
from reactive_orch.model.middleware import Around
from reactive_orch.testing import as_logged, call, each_split

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from integration_test.harness.connections import Connection
    from reactive_orch import Handler, Projection
    from reactive_orch.testing import Orch

LAST_YEAR = datetime(2025, 11, 30, tzinfo=UTC)


@pytest.fixture(scope="session")
def orch_tables() -> list[Any]:
    async def with_rows(connection: Connection) -> None:
        await connection.execute("CREATE TABLE seen (event_type text, replayed boolean)")
        await connection.execute(
            "CREATE TABLE batches (id bigserial, number integer GENERATED ALWAYS AS IDENTITY, size int)"
        )

    return ["CREATE TABLE mended (at timestamptz)", with_rows]


def new(event_type: str = "Good", key: str = "1", **more: Any) -> NewEvent:
    return NewEvent(aggregate_type="Test", aggregate_id=key, event_type=event_type, **more)


@projection("seen", retries=20)
async def seen(event: Event, tx: Connection) -> None:
    await tx.execute("INSERT INTO seen VALUES ($1, $2)", event.event_type, event.replayed)
    if event.event_type == "Bad" and not await tx.fetchval("SELECT count(*) FROM mended"):
        raise LookupError(event.aggregate_id)


@projection("batches", batch=True)
async def batches(events: Sequence[Event], tx: Connection) -> None:
    await tx.execute("INSERT INTO batches (size) VALUES ($1)", len(events))


async def types(orch: Orch) -> list[str]:
    return [event_type for (event_type,) in await orch.fetch("SELECT event_type FROM seen ORDER BY 1")]


# In a log, by a worker.


async def test_given_events_are_returned_as_they_stand_in_the_log(orch: Orch) -> None:
    first = await orch.given([new(), new(key="2", payload={"a": 1}, metadata={"b": 2})])
    second = await orch.given([new("Better")], created_at=LAST_YEAR)
    assert [event.global_position for event in first + second] == [1, 2, 3]
    assert (first[1].json(), first[1].metadata) == ({"a": 1}, {"b": 2})
    assert second[0].created_at == LAST_YEAR
    async with orch.connection() as connection:
        assert await read_stream(connection, "Test", "1") == [first[0], second[0]]


async def test_each_test_has_a_log_and_tables_of_its_own(orch: Orch) -> None:
    await orch.given([new()])
    assert await orch.run(seen) == 1
    assert await orch.fetch("SELECT * FROM seen") == [("Good", False)]


async def test_a_run_makes_batches_and_ends_with_what_is_there(orch: Orch) -> None:
    await orch.given([new(key=str(key)) for key in range(7)])
    assert await orch.run(batches, seen, batch_events=3) == 14
    assert await orch.fetch("SELECT max(size), sum(size)::int FROM batches") == [(3, 7)]
    assert await orch.run(batches, seen) == 0


async def test_a_projection_begins_where_it_says(orch: Orch) -> None:
    await orch.given([new("Old")], created_at=LAST_YEAR)
    await orch.given([new("New")])
    assert await orch.run(replace(seen, start=datetime(2026, 1, 1, tzinfo=UTC))) == 1
    assert await types(orch) == ["New"]


async def test_a_failing_handler_is_raised_as_it_is_and_not_tried_again_before_the_next_run(orch: Orch) -> None:
    await orch.given([new(), new("Bad", key="2")])
    for _ in range(2):
        with pytest.raises(LookupError, match="2") as caught:
            await orch.run(seen)
        (last,) = traceback.extract_tb(caught.value.__traceback__)[-1:]
        assert (last.filename, last.name) == (__file__, "seen")
        assert "projection 'seen' failed at event position 2 in" in caught.value.__notes__[-1]
        assert await types(orch) == ["Good"]
    await orch.fetch("INSERT INTO mended VALUES (now())")
    assert await orch.run(seen) == 1
    assert await types(orch) == ["Bad", "Good"]


async def test_a_failing_key_is_parked_without_a_wait_and_tried_again_at_once(orch: Orch) -> None:
    await orch.given([new("Bad"), new("Behind"), new(key="2")])
    assert await orch.run(seen, on_error="park") == 1
    assert await types(orch) == ["Good"]
    await orch.fetch("INSERT INTO mended VALUES (now())")
    assert await orch.run(seen, on_error="park") == 0, "nobody has asked for it"
    async with orch.connection() as connection:
        keys = await dead_letters.listed(connection, "test", projection="seen")
        await dead_letters.retry(connection, "test", keys, by="test")
    assert await orch.run(seen) == 2
    assert await types(orch) == ["Bad", "Behind", "Good"]


async def test_a_rewound_projection_gets_its_events_as_replayed_ones(orch: Orch) -> None:
    await orch.given([new()])
    await orch.run(seen)
    await orch.rewind(seen)
    await orch.given([new("Later")])
    await orch.run(seen)
    assert await orch.fetch("SELECT * FROM seen ORDER BY 1, 2") == [("Good", False), ("Good", True), ("Later", False)]


async def test_replica_sets_do_not_share_what_they_have_handled(orch: Orch) -> None:
    await orch.given([new()])
    assert [await orch.run(seen, replica_set=name) for name in ("a", "b", "a")] == [1, 1, 0]


# A handler alone.


async def test_a_handler_gets_what_passes_its_filter_in_one_transaction(orch: Orch) -> None:
    only_good = replace(seen, filter=replace(seen.filter, event_types=("Good",)))
    async with orch.transaction() as tx:
        assert await call(only_good, [new(), new("Bad"), new()], tx) == 2
        assert await call(batches, [new(), new()], tx) == 2
        assert await tx.fetchval("SELECT count(*) FROM seen") == 2
    assert await orch.fetch("SELECT * FROM seen") == []


async def test_middleware_is_around_a_handler_alone(orch: Orch) -> None:
    trail: list[str] = []

    def tagged(handler: Handler) -> Handler:
        async def call_tagged(event: Event, tx: Any) -> None:
            trail.append(f"{subject.get().projection} {event.event_type}")
            await handler(event, tx)

        return call_tagged

    surrounded = replace(seen, around=Around(middleware=(tagged,)))
    async with orch.transaction() as tx:
        await call(surrounded, [new(), new("Other")], tx)
    assert trail == ["seen Good", "seen Other"]
    assert subject.get(None) is None


async def test_what_is_to_be_kept_is_committed(orch: Orch) -> None:
    async with orch.transaction(keep=True) as tx:
        await call(seen, [new()], tx)
    assert await types(orch) == ["Good"]

    async def fail_at_the_end() -> None:
        async with orch.transaction(keep=True) as tx:
            await call(seen, [new("Never")], tx)
            raise LookupError

    with pytest.raises(LookupError):
        await fail_at_the_end()
    assert await types(orch) == ["Good"]


async def test_a_failing_call_leaves_nothing_behind_and_its_transaction_goes_on(orch: Orch) -> None:
    async with orch.transaction() as tx:
        await call(seen, [new("Before")], tx)
        with pytest.raises(LookupError) as caught:
            await call(seen, [new(), new("Bad")], tx)
        assert [row[0] for row in await tx.fetch("SELECT event_type FROM seen")] == ["Before"]
    (last,) = traceback.extract_tb(caught.value.__traceback__)[-1:]
    assert (last.filename, last.name) == (__file__, "seen")


async def test_replayed_events_come_again_unless_the_projection_leaves_them_out(orch: Orch) -> None:
    async with orch.transaction() as tx:
        assert await call(seen, [new()], tx, replayed=True) == 1
        assert await tx.fetchval("SELECT replayed FROM seen")
        assert await call(replace(seen, replay=False), [new()], tx, replayed=True) == 0


async def _swallow(tx: Connection) -> None:
    with contextlib.suppress(Exception):
        await tx.execute("SELECT 1 / 0")


async def _end(tx: Connection) -> None:
    await tx.execute("COMMIT")


async def _end_and_begin(tx: Connection) -> None:
    await tx.execute("COMMIT; BEGIN")


@pytest.mark.parametrize(
    ("act", "words"),
    [
        pytest.param(_swallow, "caught a database error and went on", id="swallows an error"),
        pytest.param(_end, "ended the transaction", id="ends the transaction"),
        pytest.param(_end_and_begin, "ended the transaction", id="begins another"),
    ],
)
async def test_a_handler_that_does_wrong_without_raising_is_told(
    orch: Orch, act: Callable[[Connection], Awaitable[None]], words: str
) -> None:
    @projection("wrong")
    async def wrong(_event: Event, tx: Connection) -> None:
        await act(tx)

    with pytest.raises(HandlerFailed, match=words):
        async with orch.transaction() as tx:
            await call(wrong, [new()], tx)


async def test_a_slow_handler_fails_after_its_own_timeout(orch: Orch) -> None:
    @projection("slow", timeout=0.01)
    async def slow(_event: Event, tx: Connection) -> None:
        await tx.execute("SELECT pg_sleep(60)")

    await orch.given([new()])
    async with orch.transaction() as tx:
        for failing in (orch.run(slow), call(slow, [new()], tx)):
            with pytest.raises(TimeoutError) as caught:
                await failing
            assert "longer than 0.01 s (timeout of its projection)" in caught.value.__notes__[-1]


# Batches that end elsewhere.


def recorder(calls: list[int]) -> Projection:
    @projection("recorder", batch=True)
    async def recorded(events: Sequence[Event], _tx: Connection) -> None:
        calls.append(len(events))

    return recorded


async def test_a_dependence_on_where_batches_end_is_found_and_named(orch: Orch) -> None:
    async with orch.transaction() as tx:
        with pytest.raises(AssertionError) as caught:
            await each_split(batches, [new(), new(), new()], tx)
        assert await tx.fetchval("SELECT count(*) FROM batches") == 0
    assert str(caught.value).splitlines() == [
        "the outcome of 'batches' depends on where batches end: batches of 2 + 1 and one batch of 3 differ",
        """  only in one batch of 3: ('batches', '{"size": 3}')""",
        """  only in batches of 2 + 1: ('batches', '{"size": 1}')""",
        """  only in batches of 2 + 1: ('batches', '{"size": 2}')""",
    ]


@pytest.mark.parametrize(
    ("events", "splits", "calls"),
    [(2, 2, 3), (6, 32, sum(ends.bit_count() + 1 for ends in range(32))), (7, 8, 1 + 2 * 6 + 7)],
)
async def test_few_events_are_split_in_all_ways_and_more_at_each_place(
    orch: Orch, events: int, splits: int, calls: int
) -> None:
    sizes: list[int] = []
    async with orch.transaction() as tx:
        await each_split(recorder(sizes), [new() for _ in range(events)], tx)
    assert len(sizes) == calls
    assert sum(sizes) == events * splits


async def test_what_is_compared_can_be_said(orch: Orch) -> None:
    async def sizes(tx: Connection) -> Any:
        return await tx.fetchval("SELECT count(*) FROM batches")

    orders = iter([[1, 2], [2, 1]])

    async def other_order(_tx: Connection) -> Any:
        return next(orders)

    two = [new(), new()]
    async with orch.transaction() as tx:
        await each_split(batches, two, tx, "SELECT sum(size) FROM batches")
        with pytest.raises(AssertionError, match=r"(?s)one batch of 2: 1\n.*batches of 1 \+ 1: 2"):
            await each_split(batches, two, tx, sizes)
        with pytest.raises(AssertionError, match="let the query sort them"):
            await each_split(batches, two, tx, other_order)


async def test_an_error_in_one_of_the_splits_names_it(orch: Orch) -> None:
    @projection("large", batch=True)
    async def large(events: Sequence[Event], tx: Connection) -> None:
        await tx.execute("INSERT INTO batches (size) VALUES ($1)", len(events))
        if len(events) == 1:
            raise LookupError

    async with orch.transaction() as tx:
        with pytest.raises(LookupError) as caught:
            await each_split(large, [new(), new(), new()], tx)
        assert await tx.fetchval("SELECT count(*) FROM batches") == 0
    assert caught.value.__notes__[-1] == "in batches of 2 + 1"


# What cannot be.


async def plain(_event: Event, _tx: Connection) -> None: ...


async def test_what_cannot_be_is_said_in_one_line(orch: Orch) -> None:
    async with orch.transaction() as tx, orch.connection() as outside:
        for attempt, kind, words in (
            (orch.given([{"a": 1}]), TypeError, r"given takes events \(NewEvent\), and number 1 is of type dict"),  # type: ignore[list-item]
            (orch.given(new()), TypeError, "given takes a list of events"),  # type: ignore[arg-type]
            (orch.given(as_logged([new()])), TypeError, "number 1 is of type Event"),  # type: ignore[arg-type]
            (orch.run(plain), TypeError, r"run takes a projection, and plain is none: write @projection"),  # type: ignore[arg-type]
            (orch.run(), ConfigError, "no projection"),
            (orch.run(seen, seen), ConfigError, "seen"),
            (orch.rewind(seen), ConfigError, "seen"),
            (orch.rewind(plain), TypeError, "rewind takes a projection"),  # type: ignore[arg-type]
            (call(plain, [new()], tx), TypeError, "call takes a projection"),  # type: ignore[arg-type]
            (call(seen, ["a"], tx), TypeError, "number 1 is of type str"),  # type: ignore[list-item]
            (call(seen, [new()], outside), TypeError, "inside a transaction .* not a connection outside of one"),
            (call(seen, [new()], orch.url), TypeError, "inside a transaction .* not a str"),  # type: ignore[arg-type]
            (each_split(seen, [new()], tx), ValueError, "needs two events or more that pass the filter of 'seen'"),
            (each_split(seen, [new(), new()], outside), TypeError, "each_split takes a connection inside"),
        ):
            with pytest.raises(kind, match=words) as caught:
                await attempt
            assert "\n" not in str(caught.value)


async def test_without_tables_there_is_nothing_to_compare(orch: Orch) -> None:
    async with orch.transaction() as tx:
        await tx.execute("DROP TABLE seen, batches, mended")
        with pytest.raises(ValueError, match="there are no tables"):
            await each_split(recorder([]), [new(), new()], tx)


async def test_another_filter_is_an_error_of_the_run(orch: Orch) -> None:
    await orch.run(seen)
    with pytest.raises(ConfigError, match="another filter"):
        await orch.run(replace(seen, filter=replace(seen.filter, event_types=("Good",))))


async def test_a_handler_that_ends_its_transaction_fails_its_run(orch: Orch) -> None:
    @projection("ends")
    async def ends(_event: Event, tx: Connection) -> None:
        await tx.execute("ROLLBACK")

    await orch.given([new()])
    with pytest.raises(Exception, match="may not end the transaction"):
        await orch.run(ends)
