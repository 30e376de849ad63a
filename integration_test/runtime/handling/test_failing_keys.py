"""Failing events: their keys wait, all others go on; retried, parked, drained, left out, in the order of the log."""

from __future__ import annotations

import asyncio
import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration_test.harness.checkers import (
    assert_accounted,
    assert_effects_match_checkpoints,
    checked,
    wait_accounted,
    wait_settled,
)
from integration_test.harness.command_line import run
from integration_test.harness.connections import connected, prepared
from integration_test.harness.health import running, says
from integration_test.harness.in_process import event, run_until_idle, serving
from integration_test.harness.projections import record
from integration_test.harness.waiting import wait_until
from reactive_orch import Event, Projection, append
from reactive_orch import projection as make_projection
from reactive_orch.errors import Superseded
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.model.keys import Attempt, DueKey, Failure, WantedKeys
from reactive_orch.postgres import dead_letters, rewinds
from reactive_orch.postgres.dead_letters import FailingKeys
from reactive_orch.postgres.statements import load_statements
from reactive_orch.runtime.handling import aside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from integration_test.harness.connections import Connection
    from reactive_orch.model.keys import FailingKey

KEYS = 20


def failing(fails: Callable[[Event], bool], *, batch: bool = False) -> Projection:
    """Return a projection `handled` that records its events and fails at those."""

    async def one(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if fails(e):
            msg = f"cannot handle {e.event_type}"
            raise LookupError(msg)

    async def many(events: Sequence[Event], tx: Connection) -> None:
        for e in events:
            await one(e, tx)

    return make_projection("handled", batch=batch)(many if batch else one)


def bad(e: Event) -> bool:
    return e.event_type == "Bad"


async def fill(connection: Connection, events: int, bad_ones: int, seed: int) -> None:
    """Append events of many keys, of which some, drawn at random, are bad."""
    dice = random.Random(seed)
    kinds = ["Bad"] * bad_ones + ["Good"] * (events - bad_ones)
    dice.shuffle(kinds)
    for kind in kinds:
        await append(connection, [event(f"k{dice.randrange(KEYS)}", kind)])


async def keys_of(connection: Connection) -> list[FailingKey]:
    return await dead_letters.listed(connection, WantedKeys("test"))


async def state_of(connection: Connection, state: str) -> bool:
    keys = await keys_of(connection)
    return bool(keys) and all(key.state == state and key.request is None for key in keys)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.each_server
async def test_the_key_of_a_failing_event_waits_and_all_others_go_on(database: str, *, batch: bool) -> None:
    async with prepared(database) as connection:
        await fill(connection, 300, 3, seed=1)
        await run_until_idle(database, failing(bad, batch=batch), retries=1)
        await wait_accounted(connection)
        await assert_accounted(connection)
        await assert_effects_match_checkpoints(connection)
        keys = await keys_of(connection)
        events = await connection.fetch("SELECT * FROM reactive_orch.events ORDER BY global_position")
        first_bad: dict[str, int] = {}
        for row in events:
            if row["event_type"] == "Bad":
                first_bad.setdefault(row["aggregate_id"], row["global_position"])
        assert {key.key.aggregate_id: key.first_position for key in keys} == first_bad
        waiting = sum(row["global_position"] >= first_bad.get(row["aggregate_id"], 1 << 60) for row in events)
        assert sum(key.events for key in keys) == waiting
        assert {(key.state, key.attempts, key.failure.error_type) for key in keys} == {("parked", 2, "LookupError")}
        assert all(f'{__file__}", line ' in key.failure.traceback for key in keys), "file and line of the handler"
        assert not any("/calling.py" in key.failure.traceback for key in keys), "and nothing of ours"


async def test_a_key_that_is_tried_again_holds_up_nobody(database: str) -> None:
    async with (
        prepared(database) as connection,
        running(database, failing(bad), retries=1000) as (_, worker),
    ):
        await fill(connection, 100, 1, seed=2)
        await wait_accounted(connection)
        assert await state_of(connection, "retrying")
        await fill(connection, 100, 0, seed=3)
        await wait_accounted(connection)
        await wait_until(says(worker, "live ready well", "1 key waits behind a failed event"))
        await assert_accounted(connection)


async def test_an_event_that_fails_at_first_is_handled_and_then_what_waited_behind_it(database: str) -> None:
    fails = [3]

    def at_first(e: Event) -> bool:
        if bad(e) and fails[0]:
            fails[0] -= 1
            return True
        return False

    async with prepared(database) as connection:
        await fill(connection, 200, 1, seed=4)
        await run_until_idle(database, failing(at_first), retries=5, batch_events=10)
        await checked(connection)
        await assert_accounted(connection)
        assert not await keys_of(connection)


async def test_retried_by_request_a_key_drains_in_order_while_more_of_it_arrives(database: str) -> None:
    well = False
    async with prepared(database) as connection:
        async with serving(database, failing(lambda e: bad(e) and not well), retries=0, batch_events=7):
            await fill(connection, 200, 1, seed=5)
            await wait_until(lambda: state_of(connection, "parked"))
            (key,) = await keys_of(connection)
            await append(connection, [event(key.key.aggregate_id) for _ in range(50)])
            await wait_accounted(connection)
            assert (await keys_of(connection))[0].events >= 51
            well = True
            await dead_letters.request(connection, "test", [key], "retry", "test")
            for _ in range(50):
                await append(connection, [event(key.key.aggregate_id)])
            await checked(connection)
        assert not await keys_of(connection)
        await assert_accounted(connection)


async def test_a_request_that_fails_again_parks_the_key_with_the_new_error(database: str) -> None:
    async with prepared(database) as connection:
        await fill(connection, 30, 1, seed=6)
        await run_until_idle(database, failing(bad), retries=0)
        (before,) = await keys_of(connection)
        async with serving(database, failing(bad), retries=0):
            await dead_letters.request(connection, "test", [before], "retry", "test")
            await wait_until(lambda: state_of(connection, "parked"))
        (after,) = await keys_of(connection)
        assert (after.id, after.events) == (before.id, before.events)
        assert after.attempts == before.attempts + 1
        assert after.failed_last_at > before.failed_last_at


@pytest.mark.parametrize("request_", ["skip", "discard"])
async def test_what_is_left_out_is_recorded_and_the_key_goes_on(database: str, request_: str) -> None:
    async with prepared(database) as connection:
        await fill(connection, 200, 1, seed=7)
        await run_until_idle(database, failing(bad), retries=0)
        (key,) = await keys_of(connection)
        assert key.events > 1
        async with serving(database, failing(bad), retries=0):
            await dead_letters.request(connection, "test", [key], request_, "somebody")  # type: ignore[arg-type]
            await wait_until(lambda: gone(connection))
            await append(connection, [event(key.key.aggregate_id)])
            await wait_accounted(connection)
        await assert_accounted(connection)
        left_out = await connection.fetch("SELECT position, requested_by, request FROM reactive_orch.discarded_events")
        assert {tuple(row)[1:] for row in left_out} == {("somebody", request_)}
        assert len(left_out) == (1 if request_ == "skip" else key.events)


async def gone(connection: Connection) -> bool:
    return not await keys_of(connection)


async def test_a_rewind_frees_the_keys_that_wait_behind_it(database: str) -> None:
    async with prepared(database) as connection:
        await fill(connection, 100, 2, seed=8)
        await run_until_idle(database, failing(bad), retries=0)
        assert len(await keys_of(connection)) == 2
        await connection.execute("DELETE FROM handled")
        await rewinds.rewind(connection, "test", failing(bad).subscription, 0)
        assert not await keys_of(connection)
        await run_until_idle(database, failing(lambda _: False))
        await checked(connection)
        await assert_accounted(connection)


async def test_a_new_owner_knows_what_waits(database: str) -> None:
    async with prepared(database) as connection:
        async with serving(database, failing(bad), retries=0):
            await fill(connection, 100, 3, seed=9)
            await wait_accounted(connection)
        async with serving(database, failing(bad), retries=0), serving(database, failing(bad), retries=0):
            await wait_settled(connection, members=2)
            await fill(connection, 200, 0, seed=10)
            await wait_accounted(connection)
        await assert_accounted(connection)
        await dead_letters.request(connection, "test", await keys_of(connection), "retry", "test")
        await run_until_idle(database, failing(lambda _: False))
        await checked(connection)


async def test_the_command_lists_shows_and_retries(database: str) -> None:
    async with prepared(database) as connection:
        await append(connection, [event("42", "Bad"), event("42"), event("43")])
        await run_until_idle(database, failing(bad), retries=0)
        of = ("--replica-set", "test", "--database-url", database)
        listed = (await run("dead-letters", "list", *of)).done()
        assert "Adversity/42" in listed
        assert "LookupError: cannot handle Bad" in listed
        shown = (await run("dead-letters", "show", *of, "--payload")).done()
        assert f'{__file__}", line ' in shown
        assert "\nevent 1: Bad, version 1 of its aggregate\ncreated 20" in shown
        assert "\nfailed alone 1 time, first 20" in shown
        assert "\npayload: " in shown
        of_key = "--replica-set test --projection handled --key Adversity/42\n"
        assert shown.endswith(
            "to try event 1 again, and then what waits behind it:\n"
            f"    python -m reactive_orch dead-letters retry {of_key}"
            "to leave out event 1 for good, and go on with the next:\n"
            f"    python -m reactive_orch dead-letters skip {of_key}"
            "to leave out all that wait for good (2 events):\n"
            f"    python -m reactive_orch dead-letters discard {of_key}"
            "    (each of these with the same --database-url)\n"
        )
        (told,) = json.loads((await run("dead-letters", "show", *of, "--json")).done())
        assert (told["event"]["position"], told["event"]["type"], told["attempts"]) == (1, "Bad", 1)
        assert "payload" not in told["event"]
        acting = (*of, "--projection", "handled")
        refused = await run("dead-letters", "discard", *acting, "--all")
        assert refused.complaint() == "leave out 2 events of 1 key of handled for good? say so with --yes"
        assert (await run("dead-letters", "retry", *acting, "--key", "44")).complaint().startswith("no failing key")
        assert "Adversity/42" in (await run("dead-letters", "list", *of, "--key", "Adversity/42")).done()
        elsewhere = await run("dead-letters", "list", "--replica-set", "tset", "--database-url", database)
        assert elsewhere.complaint() == "there is no replica set 'tset'; there are test"
        other = await run("dead-letters", "list", *of, "--projection", "handle")
        assert other.complaint() == "replica set test has no projection 'handle'; there are handled"
        nobody = await run("dead-letters", "retry", *acting, "--key", "42")
        assert nobody.code == 0
        assert nobody.err == "no worker of test runs projection handled: nothing of it is handled before one does\n"
        await run_until_idle(database, failing(lambda _: False))
        await checked(connection)
        assert (await run("dead-letters", "list", *of)).done() == "no failing keys\n"


async def test_a_request_whose_notification_is_lost_is_seen_all_the_same(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "LOOK_EVERY_S", 0.2)
    well = False
    async with prepared(database) as connection, serving(database, failing(lambda e: bad(e) and not well), retries=0):
        await append(connection, [event("k", "Bad"), event("k")])
        await wait_until(lambda: state_of(connection, "parked"))
        well = True
        asked = (
            "UPDATE reactive_orch.failing_keys SET request = 'retry', requested_by = 'x', due_at = clock_timestamp()"
        )
        await connection.execute(asked)
        await checked(connection)


async def test_of_an_event_that_waits_no_more_nothing_is_skipped(database: str) -> None:
    """Between the list and the request its owner has handled it: the next one was not meant."""
    async with prepared(database) as connection:
        await append(connection, [event("k", "Bad"), event("k", "Bad"), event("k")])
        await run_until_idle(database, failing(bad), retries=0)
        (listed,) = await keys_of(connection)
        async with serving(database, failing(lambda e: bad(e) and e.global_position > 1), retries=0):
            await dead_letters.request(connection, "test", [listed], "retry", "test")
            await wait_until(lambda: _waits_first(connection, 2))
            await dead_letters.request(connection, "test", [listed], "skip", "test")
            await wait_until(lambda: _nothing_is_asked(connection))
            (key,) = await keys_of(connection)
            assert (key.state, key.events, key.first_position) == ("parked", 2, 2)
            assert not await connection.fetchval("SELECT count(*) FROM reactive_orch.discarded_events")
            await dead_letters.request(connection, "test", [key], "skip", "test")
            await wait_until(lambda: gone(connection))
        assert await connection.fetchval("SELECT array_agg(position) FROM reactive_orch.discarded_events") == [2]


async def _waits_first(connection: Connection, position: int) -> bool:
    return [(key.state, key.first_position) for key in await keys_of(connection)] == [("parked", position)]


async def _nothing_is_asked(connection: Connection) -> bool:
    return all(key.request is None for key in await keys_of(connection))


DELETED = ("DELETE FROM reactive_orch.dead_letters", "DELETE FROM reactive_orch.events")


@pytest.mark.parametrize("deletion", DELETED)
async def test_what_somebody_has_deleted_by_hand_holds_nobody_up(database: str, deletion: str) -> None:
    async with prepared(database) as connection:
        await append(connection, [event("k", "Bad")])
        await run_until_idle(database, failing(bad), retries=0)
        await connection.execute(deletion)
        await append(connection, [event("other")])
        await dead_letters.request(connection, "test", await keys_of(connection), "retry", "test")
        await run_until_idle(database, failing(bad), retries=0)
        assert await keys_of(connection) == []
        assert await connection.fetchval("SELECT sum(failing + waiting) FROM reactive_orch.checkpoints") == 0
        assert await connection.fetchval("SELECT count(*) FROM handled") == 1


async def test_a_failure_that_comes_late_is_no_failure_of_the_event_behind(database: str) -> None:
    """Another owner has handled the event meanwhile: the key has another first event, or is live."""
    keys = FailingKeys("test", Subscription("handled", OWN_LOG))
    failure = Attempt(2, Failure("E", None, "late", ""), None, "late")
    async with prepared(database) as connection:
        await append(connection, [event("k", "Bad"), event("k")])
        await run_until_idle(database, failing(bad), retries=0)
        (key,) = await keys_of(connection)
        late = DueKey(key.id, key.partition, key.first_position, key.attempts, 0, None, None, None, None, 0.0)
        for changed in (late._replace(position=late.position + 1), late._replace(attempts=5)):
            with pytest.raises(Superseded):
                await keys.failed_again(connection, changed, failure._replace(number=changed.attempts + 1))
        await keys.failed_again(connection, late, failure)
        assert [(k.attempts, k.failure.message) for k in await keys_of(connection)] == [(2, "late")]


async def test_a_request_that_comes_during_the_last_attempt_is_carried_out(database: str) -> None:
    well, asked = False, asyncio.Event()

    @make_projection("handled")
    async def slow(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if bad(e) and not well:
            async with connected(database) as other:
                for key in await dead_letters.listed(other, WantedKeys("test")):
                    await dead_letters.request(other, "test", [key], "retry", "test")
                    asked.set()
            msg = "not yet"
            raise LookupError(msg)

    async with prepared(database) as connection, serving(database, slow, retries=1):
        await append(connection, [event("k", "Bad"), event("k")])
        await asked.wait()
        well = True
        await checked(connection)


async def test_checkpoints_that_were_deleted_come_back_with_their_failing_keys(database: str) -> None:
    async with prepared(database) as connection:
        await append(connection, [event("k", "Bad"), event("k"), event("other")])
        await run_until_idle(database, failing(bad), retries=0)
        await connection.execute("DELETE FROM reactive_orch.checkpoints")
        await rewinds.rewind(connection, "test", failing(bad).subscription, 3)
        await assert_accounted(connection)
        await append(connection, [event("k")])
        await run_until_idle(database, failing(bad), retries=0)
        await assert_accounted(connection)


async def test_a_key_that_is_parked_just_as_the_database_is_lost_is_told_all_the_same(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_aside, look, written = FailingKeys.set_aside, aside.Aside.look, list[bool]()

    async def written_down(self: FailingKeys, *values: Any, **named: Any) -> Any:
        written.append(True)
        return await set_aside(self, *values, **named)

    def lost(self: aside.Aside) -> None:
        look(self)
        if written and written.pop():
            self._scope.database.lost()
            self._progress.begin(self._scope.database.incarnation)
            self._scope.changed()

    monkeypatch.setattr(FailingKeys, "set_aside", written_down)
    monkeypatch.setattr(aside.Aside, "look", lost)
    async with prepared(database) as connection:
        await append(connection, [event("k", "Bad"), event("other")])
        await run_until_idle(database, failing(bad), retries=0)
        await assert_accounted(connection)
    assert [record.message for record in caplog.records if vars(record).get("event") == "parked"]


MANY = """
WITH key AS (
    INSERT INTO reactive_orch.failing_keys (replica_set, projection, log, partition, bounded_context, aggregate_type,
                                            aggregate_id, state, attempts, error_type, message, traceback, worker)
    SELECT 'test', 'handled', 'events', n % 64, 'default', 'Adversity', 'parked ' || n, 'parked', 1, 'E', '', '', 'w'
    FROM generate_series(1, 100000) AS n RETURNING id
), letter AS (
    INSERT INTO reactive_orch.dead_letters (key, position) SELECT id, id FROM key
)
SELECT count(*) FROM key
"""

STATEMENTS = {
    "among": "'test', 'handled', 'events', '{default,default}', '{Adversity,Adversity}', '{parked 7,other}'",
    "next_due": "'test', 'handled', 'events', '{0,1,2,3,4,5,6,7,8,9}'",
    "first_waiting": "4711, 100",
    "evict": "'test', 'handled', 'events', 4711, 4711, NULL, NULL",
}


@pytest.mark.each_server
async def test_many_parked_keys_slow_nobody_down(database: str) -> None:
    """Which keys of a batch fail, and what is due, is found by an index, with and without statistics."""
    statements = load_statements(Path(dead_letters.__file__).with_suffix(".sql"))
    async with prepared(database) as connection:
        async with serving(database, failing(bad)):
            await connection.execute(MANY)
            await fill(connection, 100, 0, seed=11)
            await checked(connection)
        for prepare in ("SELECT", "ANALYZE reactive_orch.failing_keys; ANALYZE reactive_orch.dead_letters"):
            await connection.execute(prepare)
            for name, values in STATEMENTS.items():
                await connection.execute(f"PREPARE {name} AS {getattr(statements, name)}")
                plan = await connection.fetch(f"EXPLAIN EXECUTE {name}({values})")
                await connection.execute(f"DEALLOCATE {name}")
                assert not [row[0] for row in plan if re.search("Seq Scan on (failing_keys|dead_letters)", row[0])], (
                    name
                )
