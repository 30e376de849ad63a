"""How batches end: cut short among partitions that stand apart, and after handlers that leave things behind."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio
import asyncpg
import pytest

from integration_test.chaos import planted
from integration_test.harness.checkers import assert_effects_match_checkpoints, checked
from integration_test.harness.connections import prepared
from integration_test.harness.findings import found
from integration_test.harness.in_process import event, failure, run_until_idle
from integration_test.harness.projections import handled, record
from reactive_orch import append
from reactive_orch import projection as make_projection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from integration_test.harness.connections import Connection
    from reactive_orch import Event


_BACK = """
WITH back AS (
    UPDATE reactive_orch.checkpoints c SET position = 0, seal = sha256('by hand')
    WHERE c.projection = 'handled' AND c.partition % 2 = $1
    RETURNING c.partition
) DELETE FROM handled h USING reactive_orch.events e, back b
WHERE e.global_position = h.position AND e.partition = b.partition
"""


async def _set_back(connection: Connection, half: int) -> None:
    """Begin with half of the partitions again, and forget what was handled of them."""
    async with connection.transaction():
        await connection.fetch("SELECT set_config('reactive_orch.sealed', 'by hand', true)")
        await connection.execute(_BACK, half)


async def _cut_short_among_partitions_ahead(database: str, behind: int) -> None:
    """Handle a few events of the partitions behind, some in each batch, and end while the others stand ahead."""
    calls = 0

    @make_projection("handled")
    async def slow(e: Event, tx: Connection) -> None:
        nonlocal calls
        calls += 1
        if calls > 7:
            raise KeyError
        await anyio.sleep(0.02)
        await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event(f"k{n % 13}") for n in range(40)])
        await run_until_idle(database, handled)
        await _set_back(connection, behind)
        await append(connection, [event(f"k{n % 13}") for n in range(40)])
        await failure(database, slow, handler_timeout_s=0.3)
        await assert_effects_match_checkpoints(connection)
        await run_until_idle(database, handled)
        await checked(connection)


@pytest.mark.parametrize("behind", [0, 1])
async def test_a_batch_cut_short_sets_no_partition_back(database: str, behind: int) -> None:
    await _cut_short_among_partitions_ahead(database, behind)


async def test_a_batch_cut_short_that_sets_partitions_back_is_caught(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planted, "_put", monkeypatch.setattr)
    planted.plant("batch_cut_short_sets_partitions_back")
    with found():
        await _cut_short_among_partitions_ahead(database, 0)


@pytest.mark.parametrize("what", ["cut short", "with an append"])
@pytest.mark.parametrize("role", ["SET ROLE nobody_much", "SET SESSION AUTHORIZATION nobody_much"])
async def test_what_we_write_at_a_batchs_end_we_write_as_ourselves(database: str, role: str, what: str) -> None:
    calls = 0

    @make_projection("handled")
    async def restricted(e: Event, tx: Connection) -> None:
        nonlocal calls
        calls += e.event_type == "Good"
        await tx.execute("RESET SESSION AUTHORIZATION; RESET ROLE")
        await record(tx, "handled", e)
        if what == "cut short":
            await anyio.sleep(0.02)
        elif e.event_type == "Good":
            await append(tx, [event(e.aggregate_id, "Echo")])
        await tx.execute(role)

    async with prepared(database) as connection:
        await connection.execute(_PREPARE_ROLE)
        await append(connection, [event() for _ in range(6)])
        await run_until_idle(
            database, restricted, handler_timeout_s=0.3 if what == "cut short" else 60.0, retries=0, on_error="halt"
        )
        await run_until_idle(database, restricted)
        await checked(connection)
    assert calls == 6, "each event was handled at its first call"


_PREPARE_ROLE = """
DO $$ BEGIN CREATE ROLE nobody_much; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$
"""


async def test_an_append_that_was_cancelled_leaves_no_ghost(database: str) -> None:
    @make_projection("handled")
    async def echoing(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if e.event_type != "Good":
            return
        await append(tx, [event(e.aggregate_id, "First")])
        with anyio.CancelScope() as scope:
            scope.cancel()
            await append(tx, [event(e.aggregate_id, "Cancelled")])
        await append(tx, [event(e.aggregate_id, "Second")])
        with contextlib.suppress(KeyError):
            async with tx.transaction():
                await append(tx, [event(e.aggregate_id, "Ghost")])
                raise KeyError
        await append(tx, [event(e.aggregate_id, "Third")])

    async with prepared(database) as connection:
        await append(connection, [event()])
        await run_until_idle(database, echoing)
        await run_until_idle(database, echoing)
        types = await connection.fetch("SELECT event_type FROM reactive_orch.events ORDER BY global_position")
        assert [row[0] for row in types] == ["Good", "First", "Second", "Third"]
        await checked(connection)


async def _executing(tx: Connection, statement: str) -> None:
    await tx.execute(statement)


async def _fetching(tx: Connection, statement: str) -> None:
    await tx.fetch(statement)


async def _preparing(tx: Connection, statement: str) -> None:
    await (await tx.prepare(statement)).fetch()


@pytest.mark.parametrize("end", ["ROLLBACK", "COMMIT", "ROLLBACK; BEGIN"])
@pytest.mark.parametrize("say", [_executing, _fetching, _preparing])
async def test_who_has_ended_the_transaction_writes_nothing_after_it(
    database: str, say: Callable[[Connection, str], Awaitable[None]], end: str
) -> None:
    @make_projection("handled")
    async def ending(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        prepared_before = await tx.prepare("INSERT INTO stray VALUES (0)")
        for statement in [*end.split("; "), "INSERT INTO stray VALUES (1)", "INSERT INTO stray VALUES (2)", "COMMIT"]:
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
                await say(tx, statement)
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
            await prepared_before.fetch()
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
            await tx.execute("; ".join((*end.split("; "), "INSERT INTO stray VALUES (3)")))

    async with prepared(database) as connection:
        await connection.execute("CREATE TABLE stray (n integer)")
        await append(connection, [event()])
        await failure(database, ending)
        assert not await connection.fetch("SELECT n FROM stray")
        await assert_effects_match_checkpoints(connection)


async def test_statements_that_a_handler_has_deallocated_end_no_worker(database: str) -> None:
    @make_projection("handled")
    async def deallocating(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        await tx.execute("DEALLOCATE ALL")

    async with prepared(database) as connection:
        await append(connection, [event() for _ in range(4)])
        await run_until_idle(database, deallocating, batch_events=1, retries=0, on_error="halt")
        await checked(connection)


async def test_a_listener_ends_with_its_batch(database: str) -> None:
    channels: list[int] = []

    @make_projection("handled")
    async def listening(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        await tx.add_listener("orders", lambda *_: None)
        channels.append(await tx.fetchval("SELECT count(*) FROM pg_listening_channels()"))

    async with prepared(database) as connection:
        await append(connection, [event() for _ in range(4)])
        await run_until_idle(database, listening, batch_events=1, retries=0, on_error="halt")
        await checked(connection)
    assert len(set(channels)) == 1, "each batch found the session as the first did"


async def test_a_batch_handler_may_not_take_events_out_of_its_batch(database: str) -> None:
    kinds: set[type] = set()

    @make_projection("handled", batch=True)
    async def consuming(events: Sequence[Event], tx: Connection) -> None:
        kinds.add(type(events))
        for e in events:
            await record(tx, "handled", e)

    async with prepared(database) as connection:
        await append(connection, [event(f"k{n % 13}") for n in range(40)])
        await run_until_idle(database, handled)
        await _set_back(connection, 0)
        await append(connection, [event(f"k{n % 13}") for n in range(40)])
        await run_until_idle(database, consuming)
        await checked(connection)
    assert kinds == {tuple}
