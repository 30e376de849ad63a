"""Appending many events, to many aggregates: one answer for all of them, and room for others meanwhile."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from integration_test.harness.command_line import FAILED, UNREACHABLE, run
from integration_test.harness.connections import connected, prepared
from integration_test.harness.waiting import wait_until
from reactive_orch import Conflict, Expected, NewEvent, append
from reactive_orch.postgres import appending as log
from reactive_orch.postgres import many

if TYPE_CHECKING:
    from collections.abc import Iterable

    from integration_test.harness.connections import Connection

_STREAMS = "events_bounded_context_aggregate_type_aggregate_id_aggregat_key"
_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
_VERSIONS = "SELECT aggregate_id, count(*) FROM reactive_orch.events GROUP BY 1"

_END_THE_SLOW_ONE = """
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.wait_event = 'PgSleep' AND a.pid <> pg_backend_pid()
"""
_SLOW_END = """
CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.aggregate_version % 1000 = 0 THEN
        PERFORM pg_sleep(0.5);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER slow BEFORE INSERT ON reactive_orch.events FOR EACH ROW EXECUTE FUNCTION public.slow();
"""


def order(key: str) -> NewEvent:
    return NewEvent(aggregate_type="Order", aggregate_id=key, event_type="Placed")


def lines(keys: Iterable[str]) -> str:
    return "".join(
        json.dumps({"aggregate_type": "Order", "aggregate_id": k, "event_type": "Placed"}) + "\n" for k in keys
    )


async def versions(connection: Connection) -> dict[str, int]:
    return {row[0]: row[1] for row in await connection.fetch(_VERSIONS)}


async def test_an_exact_version_is_that_of_one_aggregate_however_far_apart_the_lines_are(database: str) -> None:
    async with prepared(database) as connection:
        await append(connection, [order("b") for _ in range(1000)])
        ended = await run("append", "--expected", "none", "--database-url", database, stdin=lines(["a"] * 1000 + ["b"]))
        assert "an exact version is that of one aggregate, but the events belong to 2" in ended.complaint()
        assert await versions(connection) == {"b": 1000}


async def test_appends_to_the_same_aggregates_in_different_orders_take_turns(database: str) -> None:
    keys = [*["a"] * 1000, *["b"] * 1000]
    async with prepared(database) as connection:
        await connection.execute(_SLOW_END)
        both = [run("append", "--database-url", database, stdin=lines(each)) for each in (keys, reversed(keys))]
        assert [ended.done() for ended in await asyncio.gather(*both)] == ["appended 2000 events\n"] * 2
        assert await versions(connection) == {"a": 2000, "b": 2000}


async def test_an_append_whose_connection_is_ended_midway_says_why_and_appends_nothing(database: str) -> None:
    async with prepared(database) as connection:
        await connection.execute(_SLOW_END)
        appending = asyncio.create_task(run("append", "--database-url", database, stdin=lines(["a"] * 5000)))

        async def ended() -> bool:
            return bool(await connection.fetchval(_END_THE_SLOW_ONE))

        await wait_until(ended, what="its connection is ended")
        complaint = (await appending).complaint(UNREACHABLE)
        assert "terminating connection due to administrator command; nothing was appended" in complaint
        assert await versions(connection) == {}


_SLOW_COMMIT = """
CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(600);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON reactive_orch.events DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION public.slow();
"""


async def test_of_an_append_whose_connection_is_ended_in_its_commit_nobody_knows(database: str) -> None:
    async with prepared(database) as connection:
        await connection.execute(_SLOW_COMMIT)
        appending = asyncio.create_task(run("append", "--database-url", database, stdin=lines("a")))

        async def ended() -> bool:
            return bool(await connection.fetchval(_END_THE_SLOW_ONE))

        await wait_until(ended, what="its connection is ended")
        assert "it is not known whether the events were appended" in (await appending).complaint(FAILED)


_LOCK = "LOCK TABLE reactive_orch.events IN EXCLUSIVE MODE"
_WAIT_TO_WRITE = """
SELECT count(*) FROM pg_locks l
WHERE l.relation = 'reactive_orch.events'::regclass AND l.mode = $1 AND NOT l.granted
"""


async def _waiting(connection: Connection, mode: str) -> None:
    async def waits() -> bool:
        return bool(await connection.fetchval(_WAIT_TO_WRITE, mode))

    await wait_until(waits, what=f"somebody waits for {mode}")


@pytest.mark.parametrize("tries", [1, many.TRIES_MAX])
async def test_an_append_to_many_aggregates_is_numbered_again_when_others_append(database: str, tries: int) -> None:
    """They take turns at the lock of the table: one of them always comes between the numbers and the log."""
    keys = [f"key-{n}" for n in range(log.TURNS_MAX + 200)]
    async with prepared(database) as connection, connected(database) as one, connected(database) as two:
        holder, next_one = one, two
        await holder.execute(f"BEGIN; {_LOCK}")
        appending = asyncio.create_task(run("append", "--database-url", database, stdin=lines(keys)))
        for _ in range(tries):
            await _waiting(connection, "RowExclusiveLock")
            behind = asyncio.create_task(next_one.execute(f"BEGIN; {_LOCK}"))
            await _waiting(connection, "ExclusiveLock")
            await append(holder, [order("key-7")])
            await holder.execute("COMMIT")
            await behind
            holder, next_one = next_one, holder
        await holder.execute("COMMIT")
        ended = await appending
        if tries < many.TRIES_MAX:
            assert ended.done() == f"appended {len(keys)} events\n"
            assert (await versions(connection)) == {**dict.fromkeys(keys, 1), "key-7": 1 + tries}
        else:
            said = "nothing was appended; another writer appended to default/Order/key-7 at the same time"
            assert ended.complaint(FAILED) == said
            assert await versions(connection) == {"key-7": tries}


_NUMBERED = "SELECT max(pg_relation_size(c.oid)) FROM pg_class c WHERE c.relname = 'numbered'"
_WAIT_FOR_TURNS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


async def test_others_may_append_until_all_is_numbered_and_then_it_is_numbered_again(database: str) -> None:
    async with prepared(database) as connection:
        async with connected(database) as other, other.transaction():
            await append(other, [order("a")])
            appending = asyncio.create_task(run("append", "--database-url", database, stdin=lines(["a"] * 2000)))

            async def waits() -> bool:
                return bool(await connection.fetchval(_WAIT_FOR_TURNS))

            await wait_until(waits, what="it waits for its turn")
            assert await connection.fetchval(_NUMBERED) > 100_000
        assert (await appending).done() == "appended 2000 events\n"
        assert await versions(connection) == {"a": 2001}
        assert await connection.fetchval("SELECT max(aggregate_version) FROM reactive_orch.events") == 2001


async def test_an_append_gets_its_turn_although_others_are_always_first(database: str) -> None:
    async def begin(connection: Connection) -> None:
        await connection.execute("BEGIN")
        await append(connection, [order("a")])

    async with prepared(database) as connection, connected(database) as one, connected(database) as two:

        async def waiting(count: int) -> None:
            async def waits() -> bool:
                return bool(await connection.fetchval(_WAIT_FOR_TURNS) >= count)

            await wait_until(waits, what=f"{count} wait for their turns")

        holder, next_one = one, two
        await begin(holder)
        appending = asyncio.create_task(run("append", "--database-url", database, stdin=lines(["a"] * 2000)))
        for _ in range(many.TRIES_MAX):
            await waiting(1)
            behind = asyncio.create_task(begin(next_one))
            await waiting(2)
            await holder.execute("COMMIT")
            await behind
            holder, next_one = next_one, holder
        await holder.execute("COMMIT")
        assert (await appending).done() == "appended 2000 events\n"


async def test_who_appends_to_many_aggregates_leaves_room_for_the_locks_of_others(database: str) -> None:
    async with prepared(database) as connection, connection.transaction():
        await append(connection, [order(f"key-{n}") for n in range(log.TURNS_MAX + 1)])
        assert 1 <= await connection.fetchval(_LOCKS) <= log.TURNS_MAX


async def test_events_of_one_append_do_not_pass_over_each_other(database: str) -> None:
    async with prepared(database) as connection, connection.transaction():
        await append(connection, [order("a") for _ in range(1000)])
        await append(connection, [order("a") for _ in range(1000)])
        looked_at = f"SELECT pg_stat_get_xact_tuples_returned('reactive_orch.{_STREAMS}'::regclass)"
        assert await connection.fetchval(looked_at) <= 2000
        assert await versions(connection) == {"a": 2000}


@pytest.mark.parametrize(("limit", "statements"), [("AT_ONCE_EVENTS", 5), ("AT_ONCE_BYTES", 11)])
async def test_what_is_more_than_a_statement_should_hold_goes_in_several(
    database: str, monkeypatch: pytest.MonkeyPatch, limit: str, statements: int
) -> None:
    monkeypatch.setattr(log, limit, 7)
    asked: list[str] = []
    events = [replace(order("ab"[n % 2]), payload=b"xx", event_type=f"E{n}") for n in range(31)]
    async with prepared(database) as connection:
        with connection.query_logger(lambda record: asked.append(record.query)):
            await append(connection, events)
        assert sum("INSERT" in each for each in asked) == statements
        await append(connection, [replace(each, aggregate_id="c") for each in events], Expected.NO_STREAM)
        assert await versions(connection) == {"a": 16, "b": 15, "c": 31}
        of_one = await connection.fetch(
            "SELECT event_type FROM reactive_orch.events WHERE aggregate_id = 'c' ORDER BY aggregate_version"
        )
        assert [row[0] for row in of_one] == [f"E{n}" for n in range(31)]


async def test_a_payload_that_no_event_holds_is_refused_before_anything_is_sent(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "PAYLOAD_BYTES_MAX", 10)
    async with prepared(database) as connection:
        with pytest.raises(ValueError, match="a payload has 11 bytes, but an event holds no more than 10"):
            await append(connection, [order("a"), replace(order("a"), payload=b"x" * 11)])


async def test_a_conflict_of_many_aggregates_names_some(database: str) -> None:
    async with prepared(database) as connection:
        taken = replace(order("a"), event_id=uuid4())
        await append(connection, [taken])
        with pytest.raises(Conflict, match=r"default/Order/key-0, .*key-4, 5 more at the same time, or an event_id"):
            await append(connection, [*(order(f"key-{n}") for n in range(9)), replace(taken, aggregate_id="z")])
        assert await versions(connection) == {"a": 1}
