"""Health is about progress: a worker that handles nothing though events wait says so, why, and when it is over."""

from __future__ import annotations

import functools
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from integration_test.chaos import planted
from integration_test.harness.connections import connected, prepared
from integration_test.harness.health import ILL, WELL, running, says
from integration_test.harness.load import append_events, gate_closed
from integration_test.harness.projections import handled, handled_at_gate
from integration_test.harness.roles import END_POOLED, role
from integration_test.harness.telemetry_projections import betraying
from integration_test.harness.waiting import wait_until
from reactive_orch import NewEvent, append
from reactive_orch.config import CONNECTIONS_MIN
from reactive_orch.core import health, problems
from reactive_orch.core.overview import overview
from reactive_orch.model import OWN_LOG, Filter, WorkerState
from reactive_orch.postgres import overview as looking
from reactive_orch.postgres import windows
from reactive_orch.runtime import progress_watch
from reactive_orch.runtime.handling import lane
from reactive_orch.telemetry.metric_names import INTERRUPTIONS
from reactive_orch.telemetry.registry import REGISTRY

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection
    from reactive_orch import Node, Worker


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say it after a moment rather than after 10 s."""
    monkeypatch.setattr(health, "STALLED_AFTER_S", 1.5)
    monkeypatch.setattr(health, "STALLED_TOO_LONG_S", 3.5)


def passed_over(place: str, error_type: str) -> float:
    return REGISTRY.sums[INTERRUPTIONS].get((place, error_type), 0)


async def handled_all(connection: Connection, number: int) -> Any:
    return await connection.fetchval("SELECT count(*) = $1 FROM handled", number)


async def test_a_role_whose_connections_are_used_up(database: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "reactive_orch")
    async with prepared(database) as connection, role(connection, database, "") as (name, url):
        async with running(url, handled) as (_, worker):
            await wait_until(says(worker, WELL))
            await connection.execute(f"ALTER ROLE {name} CONNECTION LIMIT 2")
            await connection.execute(END_POOLED, name)
            await append_events(connection, 100, keys=100)
            await wait_until(says(worker, WELL, "no progress on projection handled"), what="it is degraded")
            await wait_until(says(worker, ILL, "no progress on projection handled"), what="it needs somebody")
            reasons = health.assess(worker.facts()).reasons
            stalls = [reason for reason in reasons if "no progress" in reason]
            assert all("the role has as many connections as its CONNECTION LIMIT allows" in each for each in stalls)
            assert stalls, reasons
            # Who is refused is whoever asks: the lane, or its runner, where that has to load its checkpoints first.
            assert passed_over("lane", "53300") + passed_over("share", "53300") > 0
            await connection.execute(f"ALTER ROLE {name} CONNECTION LIMIT -1")
            await wait_until(lambda: handled_all(connection, 100))
            await wait_until(says(worker, WELL))
            await wait_until(lambda: said(caplog, "resumed"))
            assert worker.state is WorkerState.SERVING
        assert len([record for record in caplog.records if getattr(record, "event", "") == "stalled"]) <= 3


async def said(caplog: pytest.LogCaptureFixture, event: str) -> bool:
    return any(getattr(record, "event", "") == event for record in caplog.records)


async def test_a_checkpoint_that_somebody_holds(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that another session holds: 64 partitions are assigned, one of them stands still."""
    async with prepared(database) as connection, running(database, handled) as (_, worker):
        await wait_until(says(worker, WELL))
        async with connected(database) as other, other.transaction():
            await other.execute("SELECT 1 FROM reactive_orch.checkpoints WHERE partition = 11 FOR UPDATE")
            await append_events(connection, 1000, keys=1000)
            await wait_until(says(worker, ILL, "no progress on projection handled"), what="it needs somebody")
            monkeypatch.setattr(problems, "STANDS_STILL_AFTER_S", 1.0)
            await wait_until(functools.partial(_status_says, connection, "in some partitions of worker 1"))
        await wait_until(says(worker, WELL))
        await wait_until(lambda: handled_all(connection, 1000))


async def _status_says(connection: Connection, words: str) -> bool:
    shown = overview(await looking.look(connection))
    return any(words in problem.text for problem in problems.problems(shown))


async def test_registering_that_does_not_succeed(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_watch, "LOOK_OVERDUE_S", 0.0)
    async with prepared(database), connected(database) as other, other.transaction():
        await other.execute("LOCK TABLE reactive_orch.projections IN EXCLUSIVE MODE")  # may be read, not written
        async with running(database, handled) as (_, worker):
            await wait_until(says(worker, "live", "not registered for "), what="it says what it waits for")
            assert worker.facts().age_s > worker.facts().age_max_s, "a restart would not help"
            assert worker.state is WorkerState.STARTING
            await other.execute("COMMIT; BEGIN")
            await wait_until(says(worker, WELL))


async def test_who_gets_on_is_well(database: str) -> None:
    """Idle, busy and idle again: nothing is said."""
    async with prepared(database) as connection, running(database, handled) as (_, worker):
        await wait_until(says(worker, WELL))
        for number in range(1, 4):
            await append_events(connection, 200, keys=100)
            await wait_until(functools.partial(handled_all, connection, 200 * number))
            assert all(not stall.lasts for stall in worker.facts().stalls)


_SLOW_DISK = """
CREATE FUNCTION public.read_slowly(bigint) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN PERFORM pg_sleep(0.001); RETURN true; END $$;
CREATE VIEW public.slow_log AS
SELECT 'events'::text AS log,
       global_position, partition, bounded_context, aggregate_type, aggregate_id, aggregate_version, event_id,
       event_type, event_version, payload, trace_id, correlation_id, causation_id, metadata, created_at, partition_key
FROM reactive_orch.events WHERE public.read_slowly(global_position)
"""
"""A millisecond and more for each event that is passed over."""


async def test_a_filter_that_few_events_pass_and_a_time_out_for_statements(
    database: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is kept and windows that are too wide for the time-out are narrowed: the end is reached."""
    rare = replace(handled, filter=Filter(aggregate_types=("Rare",)))
    async with prepared(database) as connection, role(connection, database, "") as (name, url):
        await append_events(connection, 1000, keys=1000)
        await append(connection, [NewEvent(aggregate_type="Rare", aggregate_id="1", event_type="E")])
        await connection.execute(_SLOW_DISK)
        await connection.execute(f"GRANT SELECT ON public.slow_log TO {name}")
        for statement in ("read_dense", "read_scattered"):
            slow = getattr(windows._SQL, statement).replace("reactive_orch.event_log", "public.slow_log")  # noqa: SLF001 - the disk is slow
            monkeypatch.setattr(windows._SQL, statement, slow)  # noqa: SLF001
        await connection.execute(f"ALTER ROLE {name} SET statement_timeout = '250ms'")
        async with running(url, rare, batch_events=10) as (_, worker):
            await wait_until(lambda: handled_all(connection, 1), what="the rare event is handled")
            await wait_until(says(worker, WELL))
        assert await said(caplog, "read_cut")


async def test_a_gap_of_positions_is_passed_at_once(database: str) -> None:
    async with prepared(database) as connection, running(database, handled) as (_, worker):
        await append_events(connection, 100, keys=100)
        await wait_until(lambda: handled_all(connection, 100))
        await connection.execute("SELECT setval('reactive_orch.events_global_position_seq', 4000000000000000)")
        await append_events(connection, 100, keys=100)
        await wait_until(lambda: handled_all(connection, 200))
        await wait_until(says(worker, WELL))
        assert await connection.fetchval("SELECT count(DISTINCT (key, version)) FROM handled") == 200


async def all_handled(connection: Connection, projection: str, number: int) -> Any:
    return await connection.fetchval("SELECT count(*) = $2 FROM handled WHERE projection = $1", projection, number)


async def _gap_that_somebody_still_writes_to(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "SAVE_EVERY_S", 0.3)
    async with (
        prepared(database) as connection,
        connected(database) as writer,
        running(database, handled, handled_at_gate) as (node, _),
    ):
        async with gate_closed(database) as waiting:
            await append_events(connection, 1)
            await wait_until(waiting, what="a batch is in flight")
            await connection.execute("SELECT setval('reactive_orch.events_global_position_seq', $1)", GAP - 1)
            undone = connection.transaction()
            await undone.start()
            await append_events(connection, 1)
            await undone.rollback()
            await wait_until(lambda: settled_at(node, GAP))
            open_still = writer.transaction()
            await open_still.start()
            await append_events(writer, 1)
            await append(connection, [NewEvent(aggregate_type="Key", aggregate_id="later", event_type="E")])
        await wait_until(lambda: passed(connection, "handled_at_gate", GAP), what="the gap is passed")
        assert not await connection.fetch("SELECT FROM reactive_orch.checkpoints WHERE position > $1", GAP)
        await open_still.commit()
        for name in ("handled", "handled_at_gate"):
            await wait_until(functools.partial(all_handled, connection, name, 3))


async def test_nothing_is_passed_in_a_gap_that_somebody_still_writes_to(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gap ends at the settled position, though a later event can be seen: one before it is not committed yet."""
    await _gap_that_somebody_still_writes_to(database, monkeypatch)


async def test_a_gap_passed_beyond_the_settled_end_is_caught(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "_put", monkeypatch.setattr)
    planted.plant("gap_passed_beyond_the_settled_end")
    with pytest.raises(ExceptionGroup) as caught:
        await _gap_that_somebody_still_writes_to(database, monkeypatch)
    assert caught.group_contains(AssertionError)


GAP = 4_000_000_000_000_000


async def passed(connection: Connection, projection: str, position: int) -> Any:
    return await connection.fetchval(
        "SELECT min(position) >= $2 FROM reactive_orch.checkpoints WHERE projection = $1", projection, position
    )


async def settled_at(node: Node, position: int) -> bool:
    return node.logs[OWN_LOG].settled == position


async def test_a_projection_that_gets_no_connection(database: str) -> None:
    """One that waits for its turn at the pool is told from one whose handler takes its time."""
    async with (
        prepared(database) as connection,
        running(database, handled, handled_at_gate, connections_max=CONNECTIONS_MIN) as (_, worker),
    ):
        await wait_until(says(worker, WELL))
        async with gate_closed(database) as waiting:
            await append_events(connection, 5)
            await wait_until(waiting, what="a batch is in flight")
            await append_events(connection, 5)
            await wait_until(says(worker, WELL, "no progress on projection handled"), what="it is degraded")
            reasons = health.assess(worker.facts()).reasons
            assert [reason.rpartition(": ")[2] for reason in reasons] == ["all 1 connections are in use"]
        await wait_until(lambda: all_handled(connection, "handled", 10))
        await wait_until(says(worker, WELL))
        await wait_until(lambda: all_handled(connection, "handled_at_gate", 10))


async def test_a_failing_event_that_was_rewound_past(database: str) -> None:
    async with prepared(database) as connection, running(database, betraying, retries=1000) as (_, worker):
        await append(connection, [NewEvent(aggregate_type="Poison", aggregate_id="python", event_type="P")])
        await wait_until(says(worker, WELL, "1 key waits behind a failed event"))
        await connection.execute("SELECT reactive_orch.rewind('test', 'betraying', 1)")
        await connection.execute("DELETE FROM reactive_orch.events")
        await wait_until(lambda: nothing_waits(worker))
        assert health.assess(worker.facts()).reasons == ()


async def nothing_waits(worker: Worker) -> bool:
    return not any(worker.facts().failing_keys.values())
