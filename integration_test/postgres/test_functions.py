"""Functions of the schema are safe by themselves: whoever calls them, with whatever he gives them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from integration_test.chaos import planted
from integration_test.harness.checkers import assert_effects_match_checkpoints, checked
from integration_test.harness.connections import connected, prepared
from integration_test.harness.findings import found
from integration_test.harness.in_process import event, run_until_idle
from integration_test.harness.projections import handled, record
from integration_test.harness.waiting import wait_until
from reactive_orch import append
from reactive_orch import projection as make_projection
from reactive_orch.model import MemberId
from reactive_orch.postgres.membership import heartbeat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration_test.harness.connections import Connection
    from reactive_orch import Event


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    async with prepared(database) as connected_and_prepared:
        yield connected_and_prepared


SEALS = (
    "SELECT reactive_orch.seal_batch(pg_current_xact_id()::text, 'said')",
    "SELECT set_config('reactive_orch.sealed', pg_current_xact_id()::text, true)",
    "SELECT set_config('reactive_orch.sealed', encode(max(seal), 'hex'), true) FROM reactive_orch.checkpoints",
    "SET LOCAL reactive_orch.sealed = 'said'; UPDATE reactive_orch.checkpoints SET seal = sha256('said')",
    "UPDATE reactive_orch.checkpoints SET epoch = epoch + 1",
    "SELECT reactive_orch.rewind('test', 'handled', NULL)",
)


async def _half_a_batch(database: str, connection: Connection, seal: str) -> None:
    """Handle three events with a handler that seals its batch and commits at the first one, once."""
    calls = 0

    @make_projection("handled")
    async def sealing(e: Event, tx: Connection) -> None:
        nonlocal calls
        calls += 1
        await record(tx, "handled", e)
        if calls == 1:
            await tx.execute(seal)
            await tx.execute("COMMIT")

    await append(connection, [event() for _ in range(3)])
    await run_until_idle(database, sealing)
    await assert_effects_match_checkpoints(connection)
    assert calls == 4, "the failed call was made again"


@pytest.mark.parametrize("seal", SEALS)
async def test_nothing_that_a_handler_says_seals_its_batch(database: str, connection: Connection, seal: str) -> None:
    await _half_a_batch(database, connection, seal)
    await checked(connection)


async def test_a_batch_sealed_by_whoever_says_so_is_caught(database: str, connection: Connection) -> None:
    await connection.execute(planted.schema("sealed_by_whoever_says_so"))
    with found():
        await _half_a_batch(database, connection, SEALS[0])


async def test_a_transaction_that_a_handler_begins_is_not_made_a_batch_by_what_it_says(
    database: str, connection: Connection
) -> None:
    again = False

    @make_projection("handled")
    async def beginning(e: Event, tx: Connection) -> None:
        nonlocal again
        if again:
            await record(tx, "handled", e)
            return
        again = True
        await tx.execute("ROLLBACK; BEGIN READ WRITE; INSERT INTO stray VALUES (1)")
        for name in ("reactive_orch.sealed", "reactive_orch.batch"):
            await tx.fetch("SELECT set_config($1, pg_current_xact_id()::text, true)", name)

    await connection.execute("CREATE TABLE stray (n integer)")
    await append(connection, [event()])
    await run_until_idle(database, beginning)
    assert not await connection.fetch("SELECT n FROM stray")
    await checked(connection)


@pytest.mark.parametrize("transaction", [None, "", "7", "said"])
async def test_outside_a_batch_nothing_is_sealed(connection: Connection, transaction: str | None) -> None:
    with pytest.raises(asyncpg.InvalidTransactionTerminationError):
        await connection.execute(f"SELECT reactive_orch.seal_batch({_quoted(transaction)}, 'said')")


def _quoted(text: str | None) -> str:
    return "NULL" if text is None else f"'{text}'"


async def test_checkpoints_are_rewound_under_an_epoch_that_nobody_has_seen(
    database: str, connection: Connection
) -> None:
    """Also where a projection was deleted and came again beside its old checkpoints."""
    await append(connection, [event() for _ in range(3)])
    await run_until_idle(database, handled)
    await connection.fetchval("SELECT reactive_orch.rewind('test', 'handled', NULL)")
    filters = await connection.fetchval("DELETE FROM reactive_orch.projections RETURNING filter::text")
    await connection.fetchval(
        "SELECT reactive_orch.register_projections('test', '{handled}', '{events}', $1)", [filters]
    )
    await connection.fetchval("SELECT reactive_orch.rewind('test', 'handled', NULL)")
    epochs = await connection.fetch(
        "SELECT epoch FROM reactive_orch.checkpoints UNION SELECT epoch FROM reactive_orch.projections"
    )
    assert [row["epoch"] for row in epochs] == [2]


async def test_a_rewind_locks_failing_keys_as_requests_do(database: str, connection: Connection) -> None:
    """In the order of their ids: else it has some for which those wait whom it waits for."""
    await append(connection, [event(f"k{n}", "Bad") for n in range(8)])
    await run_until_idle(database, failing, retries=0, on_error="park")
    ids = [row["id"] for row in await connection.fetch("SELECT id FROM reactive_orch.failing_keys ORDER BY id")]
    # Written anew, the first ones lie behind the others.
    await connection.execute("UPDATE reactive_orch.failing_keys SET due_at = NULL WHERE id = ANY ($1)", ids[:6])
    async with connected(database) as rival, asyncio.TaskGroup() as tasks, rival.transaction():
        await rival.execute("SELECT FROM reactive_orch.failing_keys WHERE id = $1 FOR NO KEY UPDATE", ids[4])
        pid = connection.get_server_pid()
        tasks.create_task(connection.fetchval("SELECT reactive_orch.rewind('test', 'handled', 0)"))
        await wait_until(partial(rival.fetchval, _WAITS_FOR_A_ROW, pid))
        free = "SELECT id FROM reactive_orch.failing_keys WHERE id <> $1 ORDER BY id FOR NO KEY UPDATE SKIP LOCKED"
        assert [row["id"] for row in await rival.fetch(free, ids[4])] == ids[5:]
    assert not await connection.fetchval("SELECT count(*) FROM reactive_orch.failing_keys")


@make_projection("handled")
async def failing(_event: Event, _tx: Connection) -> None:
    raise LookupError


async def test_whoever_proposes_a_filter_again_waits_for_nobody_and_writes_once(
    database: str, connection: Connection
) -> None:
    def propose(filter_: str) -> Any:
        words = "SELECT reactive_orch.propose_again('test', 'p', 'events', $1, '{}')"
        return connection.fetchval(words, filter_, timeout=5)

    await connection.fetch("SELECT reactive_orch.register_projections('test', '{p}', '{events}', ARRAY['{}'])")
    async with connected(database) as other, other.transaction():
        await other.execute("SELECT FROM reactive_orch.projections FOR NO KEY UPDATE")
        assert not await propose('{"a": 1}')
    assert await propose('{"a": 1}')
    written = "SELECT ctid::text, xmax::text FROM reactive_orch.projections"
    before = await connection.fetchrow(written)
    assert not await propose('{"a": 1}')
    assert not await propose('{"a": 2}')
    assert await connection.fetchrow(written) == before


async def _joined(connection: Connection, replica_set: str, name: str, drawn: list[int | None] | None = None) -> int:
    arguments = (replica_set, name, ["p"], ["events"], timedelta(seconds=60), drawn)
    member: int = await connection.fetchval(
        "SELECT reactive_orch.join_replica_set($1, $2, $3::text[], $4::text[], $5, $6::integer[], $6)",
        *arguments,
        timeout=5,
    )
    return member


async def _replica_set(connection: Connection, name: str) -> None:
    await connection.fetchval("SELECT reactive_orch.register_projections($1, '{}', '{}', '{}')", name)


@pytest.mark.parametrize("drawn", [None, [None], [None, 1]])
async def test_whoever_joins_without_saying_what_he_has_drawn_joins(
    connection: Connection, drawn: list[int | None] | None
) -> None:
    await _replica_set(connection, "a")
    assert await _joined(connection, "a", "one", drawn) == (2 if drawn and 1 in drawn else 1)


async def test_an_id_whose_lock_a_stranger_holds_is_passed_over(database: str, connection: Connection) -> None:
    await _replica_set(connection, "a")
    async with connected(database) as stranger:
        await stranger.fetch("SELECT pg_advisory_lock(reactive_orch.lock_namespace(), g) FROM generate_series(1, 50) g")
        assert await _joined(connection, "a", "one", []) == 51
        assert await stranger.fetchval("SELECT NOT pg_try_advisory_lock(reactive_orch.lock_namespace(), 51)")


async def test_a_heartbeat_that_tells_nothing_takes_nothing_back(connection: Connection) -> None:
    await _replica_set(connection, "a")
    member = MemberId(await _joined(connection, "a", "one", []))
    for told in ({member: '{"state": "serving"}'}, {}):
        assert [beat.id for beat in await heartbeat(connection, "one", [member], told)] == [member]
        assert await connection.fetchval("SELECT account->>'state' FROM reactive_orch.members") == "serving"


async def _change(
    connection: Connection,
    replica_set: str,
    after: int,
    *,
    admit: list[int] | None = None,
    remove: list[int] | None = None,
) -> int | None:
    number: int | None = await connection.fetchval(
        "SELECT number FROM reactive_orch.change_generation($1, $2, 'join', '{}', NULL, $3::integer[], $4::integer[], "
        "'{}', '{}', '{}', 0, 0, 'own', 0)",
        *(replica_set, after, admit or [], remove or []),
    )
    return number


async def _states(connection: Connection) -> dict[int, tuple[str, int]]:
    rows = await connection.fetch("SELECT id, state, acknowledged FROM reactive_orch.members")
    return {row["id"]: (row["state"], row["acknowledged"]) for row in rows}


async def test_a_generation_admits_and_removes_members_of_its_own_replica_set_only(connection: Connection) -> None:
    for name in "ab":
        await _replica_set(connection, name)
    waiting, leaving = await _joined(connection, "b", "waiting"), await _joined(connection, "b", "leaving")
    await connection.execute("UPDATE reactive_orch.members SET state = 'leaving' WHERE id = $1", leaving)
    assert await _change(connection, "a", 0, admit=[waiting]) is None
    assert await _change(connection, "a", 0, remove=[leaving]) is None
    assert await _states(connection) == {waiting: ("waiting", 0), leaving: ("leaving", 0)}
    assert await _change(connection, "b", 0, admit=[waiting], remove=[leaving]) == 1
    assert await _states(connection) == {waiting: ("active", 0)}


async def test_whoever_withdraws_while_he_is_being_admitted_is_owner_of_nothing(
    database: str, connection: Connection
) -> None:
    await _replica_set(connection, "a")
    waiting = await _joined(connection, "a", "waiting")
    async with connected(database) as other, asyncio.TaskGroup() as tasks, other.transaction():
        await other.execute("DELETE FROM reactive_orch.members WHERE id = $1", waiting)
        pid = connection.get_server_pid()
        change = tasks.create_task(_change(connection, "a", 0, admit=[waiting]))
        await wait_until(partial(other.fetchval, _WAITS_FOR_A_ROW, pid))
    assert change.result() is None
    assert not await connection.fetchval("SELECT count(*) FROM reactive_orch.generations")


_WAITS_FOR_A_ROW = "SELECT true FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'"


@pytest.mark.parametrize(("state", "suspected"), [("active", [0, 1]), ("leaving", [])])
async def test_whoever_is_removed_without_having_asked_for_it_leaves_a_suspicion(
    connection: Connection, state: str, suspected: list[int]
) -> None:
    await _replica_set(connection, "a")
    lost = await _joined(connection, "a", "lost")
    assert await _change(connection, "a", 0, admit=[lost]) == 1
    owned = "INSERT INTO reactive_orch.assignments VALUES ('a', 'p', 'events', ARRAY[$1::integer, $1, 0, 0])"
    await connection.execute(owned, lost)
    await connection.execute(
        "UPDATE reactive_orch.members SET state = $1, heartbeat_at = clock_timestamp() - interval '1 day'", state
    )
    assert await _change(connection, "a", 1, remove=[lost]) == 2
    rows = await connection.fetch("SELECT partition FROM reactive_orch.suspicions WHERE projection = 'p'")
    assert sorted(row["partition"] for row in rows) == suspected


async def _acknowledge(connection: Connection, replica_set: str, member: int, name: str) -> list[Any]:
    return await connection.fetch(
        "SELECT FROM reactive_orch.acknowledge($1, $2, $3, 1, 'own', 0, NULL, NULL, 0, 0, 0)", replica_set, member, name
    )


async def test_nobody_acknowledges_for_another_member(connection: Connection) -> None:
    for name in "ab":
        await _replica_set(connection, name)
    one, other = await _joined(connection, "a", "one"), await _joined(connection, "b", "other")
    newcomer = await _joined(connection, "a", "newcomer")
    assert await _change(connection, "a", 0, admit=[one]) == 1
    assert await _change(connection, "b", 0, admit=[other]) == 1
    for replica_set, member, name in (("a", other, "other"), ("a", one, "other"), ("a", newcomer, "newcomer")):
        assert not await _acknowledge(connection, replica_set, member, name)
    assert {acknowledged for _, acknowledged in (await _states(connection)).values()} == {0}
    assert not await connection.fetch("SELECT FROM reactive_orch.adoptions")
    assert await _acknowledge(connection, "a", one, "one")
    assert await connection.fetchval(
        "SELECT completed_at IS NOT NULL FROM reactive_orch.generations WHERE replica_set = 'a'"
    )


@pytest.mark.parametrize("for_ms", [None, -1, 600_001, 2**63 - 1])
async def test_a_bell_that_nobody_would_ring_is_not_armed(database: str, for_ms: int | None) -> None:
    async with connected(database) as connection:
        await connection.fetchval("SELECT reactive_orch.arm_bell('events', 600000)")
        before = await connection.fetchval("SELECT pg_sequence_last_value('reactive_orch.bell'::regclass)")
        assert await connection.fetchval("SELECT reactive_orch.arm_bell('events', $1)", for_ms), (
            "whoever would sleep is told"
        )
        assert await connection.fetchval("SELECT pg_sequence_last_value('reactive_orch.bell'::regclass)") == before
