"""`rewind`: it says what it does, refuses to leave out what was not handled, and finds a position by a time."""

from __future__ import annotations

import random
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from integration_test.harness.checkers import assert_accounted, checked, wait_handled
from integration_test.harness.command_line import FAILED, Ended, run, started
from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import event, run_until_idle
from integration_test.harness.load import Load, append_events
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import POISON, handled, resettable
from integration_test.harness.terminals import Terminal
from reactive_orch import Event, NewEvent, append
from reactive_orch import projection as make_projection
from reactive_orch.errors import ReactiveOrchError
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.postgres import rewinds

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection

HANDLED = Subscription("handled", OWN_LOG)
OF = ("--replica-set", "test", "--projection", "handled")
REGISTER = "SELECT reactive_orch.register_projections('test', '{handled}', '{events}', $1)"


async def rewind(url: str, *words: str, projection: str = "handled") -> Ended:
    of = ("--replica-set", "test", "--projection", projection)
    return await run("rewind", *of, "--yes", *words, DATABASE_URL=url, TZ="Europe/Vienna")


async def positions(connection: Connection) -> set[int]:
    return {row["position"] for row in await connection.fetch("SELECT position FROM reactive_orch.checkpoints")}


async def test_it_says_what_it_does_and_does_it(database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 1500)
        await run_until_idle(database, handled)
        planned = (await rewind(database, "--to", "200", "--dry-run")).done()
        assert planned == (
            "rewind of handled: 64 partitions to position 200\n"
            "  1,300 events handled again\n"
            "  their effects outside the transaction happen again, unless the handler heeds event.replayed\n"
            "nothing was done: --dry-run\n"
        )
        assert await positions(connection) == {1500}
        done = (await rewind(database, "--to", "200")).done()
        assert done.splitlines() == [
            *planned.splitlines()[:-1],
            "64 partitions of handled set to position 200; running workers start over from there",
        ]
        await run_until_idle(database, handled)
        twice = await connection.fetchval(
            "SELECT array_agg(p) FROM (SELECT position FROM handled GROUP BY 1 HAVING count(*) = 2) t(p)"
        )
        assert sorted(twice) == list(range(201, 1501))


async def test_before_events_are_handled_again_it_asks(database: str) -> None:
    words = ("rewind", *OF, "--to")
    asks = (
        "handlers of handled see 10 events a second time, and what they only insert is there twice: "
        "set handled to position 0?"
    )
    async with prepared(database) as connection:
        await append_events(connection, 10)
        await run_until_idle(database, handled)
        refused = await run(*words, "start", DATABASE_URL=database)
        assert refused.complaint() == f"{asks} say so with --yes"
        assert refused.out.startswith("rewind of handled: 64 partitions to position 0\n"), "and what it would do"
        assert "10 events handled again" in (await run(*words, "start", "--dry-run", DATABASE_URL=database)).done()
        for answer, code, positions_then in (("n", 2, {10}), ("y", 0, {0})):
            async with Terminal(*words, "start", DATABASE_URL=database, columns=200) as terminal:
                await terminal.shows(re.escape(f"{asks} [y/N] "))
                assert await positions(connection) == {10}
                terminal.type(f"{answer}\n")
                assert await terminal.ended() == code
            assert await positions(connection) == positions_then
        kept = await run(*words, "keep", DATABASE_URL=database)
        assert kept.complaint().endswith("nothing to do"), "nobody is asked"


async def test_events_that_were_not_handled_are_left_out_only_if_that_is_meant(database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 10)
        await run_until_idle(database, handled)
        await append_events(connection, 5)
        planned = await rewind(database, "--to", "13", "--dry-run")
        assert "  3 events left out without having been handled: refused without --skip-unhandled\n" in planned.out
        assert planned.complaint() == "without --dry-run this is refused: 3 events left out need --skip-unhandled"
        (await rewind(database, "--to", "13", "--dry-run", "--skip-unhandled")).done()
        unasked = await run("rewind", *OF, "--to", "13", DATABASE_URL=database)
        assert unasked.complaint() == "this is refused: 3 events left out need --skip-unhandled"
        refused = await rewind(database, "--to", "13")
        assert refused.complaint() == (
            "3 events up to position 13 have not been handled and would be left out for good: "
            "if that is meant, say --skip-unhandled"
        )
        with pytest.raises(asyncpg.InvalidParameterValueError, match="1 event up to position 11 has not been handled"):
            await connection.fetchval("SELECT reactive_orch.rewind('test', 'handled', 11)")
        assert await positions(connection) <= set(range(11))
        await rewind(database, "--to", "13", "--skip-unhandled")
        await run_until_idle(database, handled)
        rows = await connection.fetch("SELECT position FROM handled ORDER BY position")
        assert [row["position"] for row in rows] == [*range(1, 11), 14, 15]


async def test_a_running_worker_leaves_nothing_out_by_a_rewind_back(database: str) -> None:
    """Its partitions stand at different positions, some of them before the target."""
    async with prepared(database) as connection, WorkerProcess(database, "w") as worker:
        await worker.ready()
        await append_events(connection, 100)
        await wait_handled(connection)
        assert (await rewind(database, "--to", "90")).code == 0
        await append_events(connection, 20)
        await wait_handled(connection)


async def test_of_keys_that_fail_it_takes_off_what_comes_again(database: str) -> None:
    async with prepared(database) as connection:
        kinds = {3: POISON, 6: POISON}
        for n in range(1, 11):
            await append(connection, [event("early" if n < 5 else "late", kinds.get(n, "Good"))])
        await run_until_idle(database, poisoned, retries=0)
        planned = (await rewind(database, "--to", "4", "--dry-run")).done()
        assert "  1 event handled again\n" in planned
        assert "  5 events taken off the lists of failing keys: they come again\n" in planned
        assert (await rewind(database, "--to", "4")).code == 0
        keys = await connection.fetch("SELECT aggregate_id FROM reactive_orch.failing_keys")
        assert [row["aggregate_id"] for row in keys] == ["early"]
        await run_until_idle(database, poisoned, retries=0)
        assert await connection.fetchval("SELECT count(*) FROM handled WHERE position = 5") == 2
        await connection.execute(
            "DELETE FROM handled h WHERE h.position = 5 AND h.id = (SELECT max(id) FROM handled WHERE position = 5)"
        )
        await assert_accounted(connection)


@make_projection("handled")
async def poisoned(e: Event, tx: Connection) -> None:
    await handled(e, tx)
    if e.event_type == POISON:
        msg = "poison"
        raise LookupError(msg)


async def test_what_waits_and_the_new_filter_leaves_out_is_not_handled_any_more(database: str) -> None:
    @make_projection("handled", aggregate_types=["Kept"])
    async def narrower(e: Event, tx: Connection) -> None:
        await handled(e, tx)

    async with prepared(database) as connection:
        for kind in ("Kept", "Dropped"):
            await append(
                connection,
                [NewEvent(aggregate_type=kind, aggregate_id="k", event_type=t) for t in (POISON, "Good", "Good")],
            )
        await run_until_idle(database, poisoned, retries=0)
        await connection.fetchval(REGISTER, ['{"aggregate_types": ["Kept"], "bounded_contexts": null}'])
        planned = (await rewind(database, "--to", "keep", "--dry-run")).done()
        assert "  3 events taken off the lists of failing keys, for good\n" in planned
        assert '  its filter becomes {"aggregate_types": ["Kept"]' in planned
        assert (await rewind(database, "--to", "keep")).code == 0
        await connection.execute("UPDATE reactive_orch.failing_keys SET request = 'retry', due_at = now()")
        await run_until_idle(database, narrower, retries=0)
        rows = await connection.fetch("SELECT position FROM handled ORDER BY id")
        assert [row["position"] for row in rows] == [1, 2, 3]


CODE = "integration_test.harness.projections"


async def resets(url: str, *words: str) -> Ended:
    return await rewind(url, *words, projection="resettable")


async def test_the_reset_hook_empties_what_was_filled_while_workers_run(database: str) -> None:
    async with (
        prepared(database) as connection,
        WorkerProcess(database, "a", projections=["resettable"]) as worker,
    ):
        await worker.ready()
        await append_events(connection, 100)
        await wait_handled(connection, "resettable")
        refused = (await resets(database, "--to", "start")).complaint()
        assert refused.endswith("say where its code is by --load MODULE[:ATTR], or --no-reset")
        assert (
            "there is no projection 'resettable'"
            in (await resets(database, "--to", "start", "--load", f"{CODE}:handled")).complaint()
        )
        async with Load(database, pause_s=0.001) as load:
            await load.more(100)
            done = await resets(database, "--to", "start", "--load", f"{CODE}:resettable")
            assert done.code == 0
            assert "  its reset hook is called, in the same transaction\n" in done.out
            await load.more(100)
        await checked(connection, "resettable")


async def test_without_its_reset_hook_a_projection_is_rewound_if_that_is_said(database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 10)
        await run_until_idle(database, resettable)
        assert "its reset hook is not called" in (await resets(database, "--to", "start", "--no-reset")).done()
        await run_until_idle(database, resettable)
        assert "its reset hook is not called" in (await resets(database, "--to", "5")).done()
        assert await connection.fetchval("SELECT count(*) FROM handled") == 20


async def test_a_reset_hook_that_fails_leaves_all_as_it_was(database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 10)
        await run_until_idle(database, resettable)
        ended = await resets(database, "--to", "start", "--load", f"{CODE}:hardly_resettable")
        assert re.fullmatch(
            r"the reset hook failed, and nothing was done: LookupError: cannot empty it at \S+/projections.py:\d+",
            ended.complaint(FAILED),
        )
        assert await connection.fetchval("SELECT count(*) FROM handled") == 10
        assert await positions(connection) == {10}


async def test_a_reset_hook_that_exits_has_failed(database: str) -> None:
    async def exiting(_tx: Connection) -> None:
        sys.exit(0)

    async with prepared(database) as connection:
        await append_events(connection, 10)
        await run_until_idle(database, resettable)
        with pytest.raises(ReactiveOrchError, match="the reset hook failed, and nothing was done: SystemExit: 0 at"):
            await rewinds.rewind(connection, "test", Subscription("resettable", OWN_LOG), 0, reset=exiting)


@pytest.mark.parametrize("ends", ["COMMIT", "ROLLBACK", "COMMIT; BEGIN"])
async def test_a_reset_hook_may_not_end_its_transaction(database: str, ends: str) -> None:
    async def ending(tx: Connection) -> None:
        await tx.execute(ends)

    async with prepared(database) as connection:
        await append_events(connection, 10)
        await run_until_idle(database, resettable)
        with pytest.raises(ReactiveOrchError, match="has ended the transaction"):
            await rewinds.rewind(connection, "test", Subscription("resettable", OWN_LOG), 0, reset=ending)


async def test_a_reset_hook_waits_for_nobody_while_it_holds_the_checkpoints(database: str) -> None:
    async with prepared(database) as connection, connected(database) as reader:
        await append_events(connection, 10)
        await run_until_idle(database, resettable)
        async with reader.transaction():
            await reader.execute("SELECT FROM handled")
            words = (
                "--replica-set",
                "test",
                "--projection",
                "resettable",
                "--to",
                "start",
                "--load",
                f"{CODE}:resettable",
                "--yes",
            )
            async with started("rewind", *words, DATABASE_URL=database) as process:
                assert process.stderr is not None
                assert b"waiting" in await process.stderr.readline()
                assert await positions(connection) == {10}
                await reader.execute("COMMIT")
                assert await process.wait() == 0
        assert await positions(connection) == {0}


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

INSERT = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, created_at)
SELECT 'Key', 'k' || n, 1, 'Written', t FROM unnest($1::timestamptz[]) WITH ORDINALITY AS u(t, n)
"""


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("2026-03-01T12:00:05Z", 4),
        ("2026-03-01T13:00:05+01:00", 4),
        ("2026-03-01 13:00:05", 4),
        ("2026-03-01T12:00:00.5Z", 0),
        ("2026-02-01", 0),
        ("2027-01-01", 10),
    ],
)
async def test_a_time_is_a_position_behind_which_all_of_then_comes(database: str, text: str, position: int) -> None:
    async with prepared(database) as connection:
        await connection.execute(INSERT, [NOON + timedelta(seconds=n) for n in range(1, 11)])
        await run_until_idle(database, handled)
        done = (await rewind(database, "--to", text)).done()
        assert f"64 partitions to position {position}, behind which is all that was created since 202" in done
        assert await positions(connection) == {position}


async def test_no_event_created_since_is_missed_whatever_the_order_of_times(database: str) -> None:
    dice = random.Random(7)
    async with connected(database) as connection:
        for spread_s in (0, 5, 1000, 10**6):
            times = [NOON + timedelta(seconds=n + dice.uniform(-spread_s, spread_s)) for n in range(500)]
            await connection.execute(f"{INSERT} ON CONFLICT DO NOTHING".replace("'k' ||", f"'{spread_s}-' ||"), times)
        rows = await connection.fetch("SELECT global_position, created_at FROM reactive_orch.events ORDER BY 1")
        moments = [row["created_at"] for row in dice.sample(rows, 60)]
        moments += [moment + timedelta(microseconds=1) for moment in moments]
        for moment in moments:
            expected = min((r["global_position"] for r in rows if r["created_at"] >= moment), default=len(rows) + 1) - 1
            assert await rewinds.position_before(connection, OWN_LOG, moment) == expected


async def test_a_time_leads_nowhere_that_is_not_settled(database: str) -> None:
    async with connected(database) as connection, connected(database) as writer:
        await append_events(connection, 5)
        async with writer.transaction():
            await append(writer, [event("slow")])
            await append_events(connection, 5)
            assert await rewinds.position_before(connection, OWN_LOG, datetime.now(UTC)) == 0


MANY = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, created_at)
SELECT CASE WHEN n % 4 = 0 THEN 'Order' ELSE 'Other' END, 'k' || n % 1000, n, 'Written',
       $1::timestamptz + n * interval '1 s'
FROM generate_series(1, 250000) AS n
"""
SCANS = """
SELECT pg_stat_get_xact_numscans(oid), pg_stat_get_xact_tuples_returned(oid)
FROM pg_class WHERE oid = 'reactive_orch.events'::regclass
"""
"""How often the table itself was read from its start, and how many rows of it."""


@pytest.mark.thorough
@pytest.mark.parametrize("then", ["VACUUM ANALYZE reactive_orch.events", "SELECT"])
async def test_on_a_large_log_it_says_about_and_reads_little(database: str, then: str) -> None:
    async with connected(database) as connection:
        await connection.execute(MANY, NOON)
        await connection.execute(then)
        await connection.fetchval(REGISTER, ['{"aggregate_types": ["Order"]}'])
        async with connection.transaction():
            before = await connection.fetchrow(SCANS)
            effects = await rewinds.effects(connection, "test", HANDLED, 240_000)
            assert (effects.left_out, effects.exact) == (60_000, False)
            assert await connection.fetchrow(SCANS) == before, "it has not read the table from its start"
        with pytest.raises(asyncpg.InvalidParameterValueError, match="about 60000 events up to position 240000"):
            await connection.fetchval("SELECT reactive_orch.rewind('test', 'handled', 240000)")
        await connection.fetchval("SELECT reactive_orch.rewind('test', 'handled', 240000, in_skip_unhandled => true)")
        effects = await rewinds.effects(connection, "test", HANDLED, 239_000)
        assert (effects.again, effects.left_out, effects.exact) == (250, 0, True)
        said = (await rewind(database, "--to", "1000", "--dry-run")).done()
        assert "  about 59,750 events handled again\n" in said
        async with connection.transaction():
            before = await connection.fetchrow(SCANS)
            moment = NOON + timedelta(seconds=200_000)
            assert await rewinds.position_before(connection, OWN_LOG, moment) == 199_999
            assert await connection.fetchrow(SCANS) == before
