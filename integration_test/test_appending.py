"""Appending: by `append()` with and without an expected version, and by plain SQL; reading one aggregate back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import asyncpg
import pytest
from opentelemetry.sdk.trace import TracerProvider

from integration_test.harness.cases import thorough
from integration_test.harness.checkers import assert_each_once, wait_handled
from integration_test.harness.command_line import run
from integration_test.harness.connections import connected, prepared
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.waiting import wait_until
from reactive_orch import Conflict, Expected, NewEvent, append, read_stream
from reactive_orch.postgres.steps import perform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from integration_test.harness.connections import Connection
    from reactive_orch.postgres.steps import Rows, Statement, Steps

APPENDERS = 8


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    """A writer's connection."""
    async with connected(database) as made:
        yield made


def order(number: int | str = 1, event_type: str = "Placed") -> NewEvent:
    return NewEvent(aggregate_type="Order", aggregate_id=str(number), event_type=event_type)


async def versions(connection: Connection) -> dict[str, list[int]]:
    """Return aggregate → its versions, in the order of the log."""
    rows = await connection.fetch(
        "SELECT aggregate_id, array_agg(aggregate_version ORDER BY global_position) AS versions "
        "FROM reactive_orch.events GROUP BY aggregate_id"
    )
    return {row["aggregate_id"]: row["versions"] for row in rows}


async def test_any_version_will_do(connection: Connection) -> None:
    await append(connection, [order(), order()])
    await append(connection, [order()], Expected.ANY)
    assert await versions(connection) == {"1": [1, 2, 3]}


async def test_no_stream_only_begins_one(connection: Connection) -> None:
    await append(connection, [order(), order()], Expected.NO_STREAM)
    with pytest.raises(Conflict, match="default/Order/1 is at version 2, not at 0"):
        await append(connection, [order()], Expected.NO_STREAM)
    assert await versions(connection) == {"1": [1, 2]}


@pytest.mark.parametrize("stale", [0, 1, 3])
async def test_an_exact_version_and_no_other(connection: Connection, stale: int) -> None:
    await append(connection, [order(), order()], 0)
    with pytest.raises(Conflict, match=f"is at version 2, not at {stale}"):
        await append(connection, [order()], stale)
    await append(connection, [order()], 2)
    assert await versions(connection) == {"1": [1, 2, 3]}


async def test_streams_are_told_apart_by_context_and_type_too(connection: Connection) -> None:
    others = [
        order(),
        NewEvent(aggregate_type="Order", aggregate_id="1", event_type="Placed", bounded_context="shop"),
        NewEvent(aggregate_type="Invoice", aggregate_id="1", event_type="Sent"),
    ]
    await append(connection, others)
    for event in others:
        await append(connection, [event], 1)
    assert await versions(connection) == {"1": [1, 1, 1, 2, 2, 2]}


async def test_several_aggregates_in_one_call(connection: Connection) -> None:
    await append(connection, [order(2)])
    await append(connection, [order(1), order(2), order(1), order(3), order(2)])
    assert await versions(connection) == {"1": [1, 2], "2": [1, 2, 3], "3": [1]}
    types = await connection.fetch("SELECT aggregate_id FROM reactive_orch.events ORDER BY global_position")
    assert [row[0] for row in types] == ["2", "1", "2", "1", "3", "2"]


@pytest.mark.parametrize("expected", [0, 1, Expected.NO_STREAM])
async def test_a_version_is_that_of_one_aggregate(connection: Connection, expected: int | Expected) -> None:
    with pytest.raises(ValueError, match="the events belong to 2"):
        await append(connection, [order(1), order(2)], expected)
    assert await versions(connection) == {}


@pytest.mark.parametrize("empty", ["aggregate_type", "event_type", "partition_key"])
async def test_what_is_given_is_not_empty(connection: Connection, empty: str) -> None:
    event: NewEvent = replace(order(), **dict[str, Any]({empty: ""}))
    with pytest.raises(ValueError, match="must not be empty"):
        await append(connection, [event])
    assert await versions(connection) == {}


async def test_nothing_to_append(connection: Connection) -> None:
    await append(connection, [], 7)
    assert await versions(connection) == {}


async def test_it_goes_with_the_callers_transaction(connection: Connection) -> None:
    transaction = connection.transaction()
    await transaction.start()
    await append(connection, [order()])
    await transaction.rollback()
    assert await versions(connection) == {}


async def test_a_conflict_of_versions_leaves_the_transaction_usable(connection: Connection) -> None:
    async with connection.transaction():
        await append(connection, [order()])
        with pytest.raises(Conflict):
            await append(connection, [order()], Expected.NO_STREAM)
        await append(connection, [order(2)])
    assert await versions(connection) == {"1": [1], "2": [1]}


async def test_all_or_nothing_without_a_transaction(connection: Connection) -> None:
    taken = NewEvent(aggregate_type="Order", aggregate_id="1", event_type="Placed", event_id=uuid4())
    await append(connection, [taken])
    with pytest.raises(Conflict, match="an event_id is already taken"):
        await append(connection, [order(2), taken, order(3)])
    assert await versions(connection) == {"1": [1]}


async def test_appenders_without_a_version_take_turns(database: str, connection: Connection) -> None:
    calls, keys = 25, 3

    async def writer(number: int) -> None:
        async with connected(database) as own:
            for call in range(calls):
                # In every order of the keys: taking turns must not become a deadlock.
                mine = [order((number + call + step) % keys) for step in range(keys)]
                await append(own, mine if call % 2 else mine[::-1])

    async with asyncio.TaskGroup() as group:
        for number in range(APPENDERS):
            group.create_task(writer(number))
    assert await versions(connection) == {str(key): list(range(1, APPENDERS * calls + 1)) for key in range(keys)}


@pytest.mark.parametrize("expected", ["none", "3", None, True])
async def test_what_is_no_version_is_refused(connection: Connection, expected: Any) -> None:
    with pytest.raises(TypeError, match=f"or a version, not {expected!r}"):
        await append(connection, [order(1)], expected)
    assert await connection.fetchval("SELECT count(*) FROM reactive_orch.events") == 0


async def test_a_pool_is_no_connection(database: str) -> None:
    async with asyncpg.create_pool(database, min_size=0) as pool:
        with pytest.raises(
            TypeError, match=r"append takes a connection of .*, not asyncpg.Pool: take a connection from the pool first"
        ):
            await append(cast("Connection", pool), [order(1)])


@pytest.mark.parametrize("expected", [Expected.NO_STREAM, 0])
async def test_of_those_who_expect_the_same_version_one_wins(
    database: str, connection: Connection, expected: int | Expected
) -> None:
    rounds = 10

    async def attempt(own: Connection, number: int) -> bool:
        with contextlib.suppress(Conflict):
            await append(own, [order(number)], expected)
            return True
        return False

    async with contextlib.AsyncExitStack() as stack:
        owns = [await stack.enter_async_context(connected(database)) for _ in range(APPENDERS)]
        for number in range(rounds):
            assert sum(await asyncio.gather(*(attempt(own, number) for own in owns))) == 1
    assert await versions(connection) == {str(number): [1] for number in range(rounds)}


async def test_read_decide_append_until_it_fits(database: str, connection: Connection) -> None:
    async def writer() -> None:
        async with connected(database) as own:
            for _ in range(5):
                done = False
                while not done:
                    stream = await read_stream(own, "Order", "1")
                    with contextlib.suppress(Conflict):
                        await append(own, [order(1, f"after {len(stream)}")], len(stream))
                        done = True

    async with asyncio.TaskGroup() as group:
        for _ in range(APPENDERS):
            group.create_task(writer())
    stream = await read_stream(connection, "Order", "1")
    assert [event.event_type for event in stream] == [f"after {n}" for n in range(5 * APPENDERS)]


async def test_any_version_never_conflicts(database: str, connection: Connection) -> None:
    async def without() -> None:
        async with connected(database) as own:
            for _ in range(20):
                await append(own, [order()])

    async def exact() -> int:
        wins = 0
        async with connected(database) as own:
            for _ in range(20):
                version = len(await read_stream(own, "Order", "1"))
                with contextlib.suppress(Conflict):
                    await append(own, [order()], version)
                    wins += 1
        return wins

    async with asyncio.TaskGroup() as group:
        withouts = [group.create_task(without()) for _ in range(4)]
        exacts = [group.create_task(exact()) for _ in range(4)]
    won = sum(task.result() for task in exacts)
    assert await versions(connection) == {"1": list(range(1, 20 * len(withouts) + won + 1))}


async def test_an_exact_version_is_demanded_of_plain_writers_too(database: str, connection: Connection) -> None:
    await append(connection, [order()])
    async with connected(database) as plain, connected(database) as own:
        transaction = plain.transaction()
        await transaction.start()
        await plain.execute(f"{_INSERT} ('Order', '1', 2, 'Paid')")
        waiting = asyncio.create_task(append(own, [order(1, "Late")], 1))

        async def waits() -> bool:
            return await connection.fetchval(_WAITS_FOR_LOCK, own.get_server_pid()) is not None

        await wait_until(waits, what="the appender waits for the writer of the same version")
        await transaction.commit()
        with pytest.raises(Conflict, match="another writer appended to default/Order/1 at the same time"):
            await waiting
    assert await versions(connection) == {"1": [1, 2]}


_WAITS_FOR_LOCK = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'"


async def test_an_exact_version_still_holds_when_it_is_written(
    database: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(connection, [order()])

    async def let_another_in(steps: Steps[Any], ask: Callable[[Statement], Awaitable[Rows]]) -> Any:
        async def ask_late(statement: Statement) -> Rows:
            if "INSERT" in statement.sql:
                await connection.execute(f"{_INSERT} ('Order', '1', 2, 'Paid')")
            return await ask(statement)

        return await perform(steps, ask_late)

    monkeypatch.setattr("reactive_orch.appending.perform", let_another_in)
    async with connected(database) as own:
        with pytest.raises(Conflict, match="another writer appended to default/Order/1 at the same time"):
            await append(own, [order(1, "Late")], 1)
    assert await versions(connection) == {"1": [1, 2]}


async def test_every_field_comes_back(connection: Connection) -> None:
    sent = NewEvent(
        aggregate_type="Order",
        aggregate_id="é/1",
        event_type="Placed",
        payload={"total": 9.5, "to": "Zoë"},
        bounded_context="shop",
        event_version=3,
        event_id=UUID("00000000-0000-4000-8000-000000000001"),
        trace_id="trace",
        correlation_id="correlation",
        causation_id="causation",
        metadata={"by": ["ann"]},
    )
    await append(connection, [sent])
    (event,) = await read_stream(connection, "Order", "é/1", context="shop")
    same = ("aggregate_type", "aggregate_id", "event_type", "bounded_context", "event_version", "event_id")
    for name in (*same, "trace_id", "correlation_id", "causation_id", "metadata"):
        assert getattr(event, name) == getattr(sent, name), name
    assert event.json() == sent.payload
    assert (event.global_position, event.aggregate_version) == (1, 1)
    assert event.created_at.tzinfo is not None


async def test_bytes_stay_as_they_are(connection: Connection) -> None:
    payload = bytes(range(256))
    await append(connection, [NewEvent(aggregate_type="A", aggregate_id="1", event_type="T", payload=payload)])
    assert (await read_stream(connection, "A", "1"))[0].payload == payload


async def test_a_stream_is_read_from_a_version_on(connection: Connection) -> None:
    await append(connection, [order(1, f"n{n}") for n in range(5)] + [order(2)])
    assert [event.event_type for event in await read_stream(connection, "Order", "1", after=3)] == ["n3", "n4"]
    assert await read_stream(connection, "Order", "1", after=5) == []
    assert await read_stream(connection, "Order", "1", context="shop") == []
    assert await read_stream(connection, "Invoice", "1") == []


async def test_the_callers_span_is_carried(connection: Connection) -> None:
    tracer = TracerProvider().get_tracer("test")
    own = NewEvent(aggregate_type="Order", aggregate_id="1", event_type="Own", metadata={"traceparent": "mine", "a": 1})
    with tracer.start_as_current_span("placing") as span:
        await append(connection, [order(), own])
    await append(connection, [order()])
    within, given, without = await read_stream(connection, "Order", "1")
    context = span.get_span_context()
    assert within.metadata == {
        "traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    }
    assert given.metadata == {"traceparent": "mine", "a": 1}
    assert without.metadata == {}


_INSERT = "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type) VALUES "
_COLUMNS = ("aggregate_type", "aggregate_id", "aggregate_version", "event_type")


async def test_a_plain_insert_needs_four_columns(connection: Connection) -> None:
    await connection.execute(f"{_INSERT} ('Order', '1', 1, 'Placed'), ('Order', '1', 2, 'Paid')")
    first, second = await read_stream(connection, "Order", "1")
    assert (first.bounded_context, first.event_version, first.payload, first.metadata) == ("default", 1, b"", {})
    assert first.event_id != second.event_id
    assert first.trace_id is first.correlation_id is first.causation_id is None
    await append(connection, [order()], 2)


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        (f"{_INSERT} ('Order', '1', 1, 'Placed'), ('Order', '1', 1, 'Placed')", asyncpg.UniqueViolationError),
        (f"{_INSERT} ('Order', '1', 0, 'Placed')", asyncpg.CheckViolationError),
        (
            _INSERT.replace("event_type", "event_type, partition") + "('O', '1', 1, 'P', 5)",
            asyncpg.GeneratedAlwaysError,
        ),
        (
            _INSERT.replace("event_type", "event_type, global_position") + "('O', '1', 1, 'P', 5)",
            asyncpg.GeneratedAlwaysError,
        ),
    ],
    ids=["version twice", "version 0", "partition chosen", "position chosen"],
)
async def test_the_table_refuses(connection: Connection, sql: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await connection.execute(sql)


async def test_the_partition_is_the_hash_of_the_key(connection: Connection) -> None:
    await append(connection, [order(f"key {n}") for n in range(1000)] + [order("")])
    rows = await connection.fetch(
        "SELECT partition, (hashtextextended(aggregate_id, 0) & 63) AS hash FROM reactive_orch.events"
    )
    assert all(row["partition"] == row["hash"] for row in rows)
    assert {row["partition"] for row in rows} == set(range(64))
    # Written down: a log keeps its partitions for ever.
    known = await connection.fetch(
        "SELECT partition FROM reactive_orch.events WHERE aggregate_id = ANY ($1) ORDER BY 1", list(PARTITIONS)
    )
    assert [row["partition"] for row in known] == sorted(PARTITIONS.values())


PARTITIONS = {"key 0": 52, "key 1": 8, "key 2": 55}


@pytest.fixture
async def writer(database: str) -> AsyncIterator[Connection]:
    """A connection of a role that may insert events, and nothing else."""
    async with connected(database) as owner:
        await owner.execute("CREATE ROLE writer LOGIN; GRANT USAGE ON SCHEMA reactive_orch TO writer")
        await owner.execute("GRANT INSERT ON reactive_orch.events TO writer")
        try:
            async with connected(database.replace("postgres@", "writer@")) as own:
                yield own
        finally:
            await owner.execute("DROP OWNED BY writer; DROP ROLE writer")


SHADOWS = """
CREATE SCHEMA shadow;
GRANT USAGE ON SCHEMA shadow TO PUBLIC;
CREATE FUNCTION shadow.differs(bigint, integer) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'run as %', current_user; END $$;
CREATE OPERATOR shadow.<> (LEFTARG = bigint, RIGHTARG = integer, FUNCTION = shadow.differs);
CREATE FUNCTION shadow.exceeds(bigint, numeric) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'run as %', current_user; END $$;
CREATE OPERATOR shadow.> (LEFTARG = bigint, RIGHTARG = numeric, FUNCTION = shadow.exceeds);
CREATE FUNCTION shadow.pg_sequence_last_value(regclass) RETURNS bigint LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'run as %', current_user; END $$;
"""


async def test_whoever_appends_cannot_make_the_trigger_run_other_functions(database: str, writer: Connection) -> None:
    """It runs with its owner's rights, and search_path is the writer's."""
    async with connected(database) as owner:
        await owner.execute(SHADOWS)
        await writer.execute("SET search_path = shadow, pg_catalog")
        for bell in (0, 9 * 10**18):
            await owner.execute("SELECT setval('reactive_orch.bell', $1)", bell)
            await writer.execute(f"{_INSERT} ('Order', '{bell}', 1, 'Placed')")


async def test_who_may_only_insert_can_append(database: str, writer: Connection) -> None:
    async with prepared(database) as connection, WorkerProcess(database, "w1") as worker:
        await worker.ready()
        await writer.execute(f"{_INSERT} ('Order', '1', 1, 'Placed')")
        await wait_handled(connection)
        rows = [("Order", str(n), 1, "Copied") for n in range(2, 500)]
        await writer.copy_records_to_table("events", schema_name="reactive_orch", columns=_COLUMNS, records=rows)
        await wait_handled(connection)
        await assert_each_once(connection)
        assert await connection.fetchval("SELECT count(*) FROM handled") == 499
        for sql in ("SELECT FROM reactive_orch.events", "DELETE FROM reactive_orch.events"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await writer.execute(sql)


@pytest.mark.parametrize("expected", ["any", thorough("none"), thorough("3")])
async def test_however_many_lines_are_appended_by_statements_that_end_in_time(
    connection: Connection, database: str, expected: str
) -> None:
    """All in one transaction; as one statement they would take longer than any may."""
    before = 3 if expected == "3" else 0
    await append(connection, [order() for _ in range(before)])
    await connection.execute(_SLOW_ROWS)
    line = json.dumps({"aggregate_type": "Order", "aggregate_id": "1", "event_type": "Placed"}) + "\n"
    ended = await run("append", "--expected", expected, "--database-url", database, stdin=line * 2500)
    assert ended.done() == "appended 2500 events\n"
    assert await versions(connection) == {"1": list(range(1, before + 2501))}
    transactions = "SELECT count(DISTINCT xmin::text) FROM reactive_orch.events WHERE global_position > $1"
    assert await connection.fetchval(transactions, before) == 1


_SLOW_ROWS = """
CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.aggregate_version % 1000 = 0 THEN
        PERFORM pg_sleep(2.6);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER slow BEFORE INSERT ON reactive_orch.events FOR EACH ROW EXECUTE FUNCTION public.slow();
"""
