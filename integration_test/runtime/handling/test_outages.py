"""Many keys that fail alike: their projection is suspended, for all workers, and tried again by itself."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from integration_test.harness.checkers import assert_accounted, checked, wait_handled, wait_settled
from integration_test.harness.connections import connected, prepared
from integration_test.harness.health import running, says
from integration_test.harness.in_process import event, failure, run_until_idle, serving
from integration_test.harness.projections import record, recorder
from integration_test.harness.waiting import wait_until
from reactive_orch import Projection, append
from reactive_orch import projection as make_projection
from reactive_orch.core import outage
from reactive_orch.errors import Outage, Unavailable
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.model.keys import WantedKeys
from reactive_orch.postgres import dead_letters, projections
from reactive_orch.postgres.outages import Outages
from reactive_orch.runtime.handling import halting, runner, trials
from reactive_orch.runtime.handling.aside import Aside

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration_test.harness.connections import Connection
    from reactive_orch import Event, Worker
    from reactive_orch.incarnation import Incarnation
    from reactive_orch.model.keys import DueKey
    from reactive_orch.model.membership import Resting
    from reactive_orch.runtime.handling.scope import Scope

OF = ("test", Subscription("handled", OWN_LOG))
PAUSES = (0.3, 0.6)
somebody = Outages(*OF, "somebody")
CLAIMED = "UPDATE reactive_orch.projections SET tried_by = $1, resumes_at = clock_timestamp() + interval '1 hour'"
LIVING = """
INSERT INTO reactive_orch.members (id, replica_set, name, projections, logs, backend_pid, backend_start, stale_after)
SELECT 99, 'test', 'somebody', '{}', '{}', pg_backend_pid(), pg_postmaster_start_time() - interval '1 hour', '1 hour'
"""


class World:
    """What the handler needs, and how often it was asked for it."""

    def __init__(self) -> None:
        self.broken = True
        self.asked = 0

    def send(self) -> None:
        self.asked += 1
        if self.broken:
            raise ConnectionRefusedError

    def projection(self, concurrency: int = 2) -> Projection:
        @make_projection("handled", concurrency=concurrency)
        async def mailing(event: Event, tx: Connection) -> None:
            await record(tx, "handled", event)
            self.send()

        return mailing


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (halting, trials):
        monkeypatch.setattr(module, "PAUSES_S", PAUSES)


async def _state(connection: Connection) -> str:
    rest = (await projections.resting(connection, OF[0])).get(OF[1])
    return "running" if rest is None else f"{rest.state}: {rest.reason}"


async def _is(connection: Connection, state: str) -> bool:
    return (await _state(connection)).startswith(state)


async def _fill(connection: Connection, keys: int = 200) -> None:
    await append(connection, [event(f"k{n % keys}") for n in range(2 * keys)])


async def test_it_rests_instead_of_parking_thousands_and_goes_on_by_itself(database: str) -> None:
    world = World()
    async with prepared(database) as connection, running(database, world.projection(), retries=0) as (_, worker):
        await _fill(connection)
        await wait_until(partial(_is, connection, "suspended: "))
        assert "keys in a row have failed alike" in await _state(connection), "ten, or eleven, as there are two lanes"
        assert f": ConnectionRefusedError at {__file__}:" in await _state(connection), "the line of the handler"
        await wait_until(says(worker, "live ready well", "projection handled is suspended: 1"))
        await wait_until(partial(_is_shown, worker, "suspended"))
        keys = await dead_letters.listed(connection, WantedKeys("test"))
        assert len(keys) <= 12, "each lane may have had one in hand"
        await wait_until(partial(_tried, connection, 3))
        after = await dead_letters.listed(connection, WantedKeys("test"))
        assert {key.attempts for key in after} == {1}, "a trial is no attempt"
        assert len({key.failed_last_at for key in after} - {key.failed_last_at for key in keys}) >= 3, "each of another"
        world.broken = False
        await checked(connection)
        await wait_until(partial(_is_shown, worker, None))
        assert not await dead_letters.listed(connection, WantedKeys("test")), "those that were parked, too"
        await assert_accounted(connection)


async def _is_shown(worker: Worker, state: str | None) -> bool:
    seen = worker.status().seen
    return seen is not None and seen.resting[OF[1]] == state


async def _tried(connection: Connection, times: int) -> bool:
    return bool(await connection.fetchval("SELECT trials >= $1 FROM reactive_orch.projections", times))


async def test_an_outage_that_could_not_be_recorded_is_not_forgotten(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, record, lost = World(), halting.record, asyncio.Event()

    async def losing(scope: Scope, error: Outage, incarnation: Incarnation) -> Resting | None:
        if not lost.is_set():
            lost.set()
            scope.database.lost()
        return await record(scope, error, incarnation)

    monkeypatch.setattr(halting, "record", losing)
    monkeypatch.setattr(runner, "HALT_AGAIN_S", 0.1)
    async with prepared(database) as connection, serving(database, world.projection(1), retries=0):
        await _fill(connection, outage.ALIKE_MAX + 1)
        await wait_until(partial(_is, connection, "suspended: 11 keys in a row have failed alike"))
        world.broken = False
        await checked(connection)
        assert not await dead_letters.listed(connection, WantedKeys("test")), "those that were parked, too"


async def test_a_few_bad_events_among_good_ones_suspend_nobody(database: str) -> None:
    async with prepared(database) as connection:
        for n in range(30):
            await append(connection, [event(f"bad {n}", "Bad"), event(f"good {n}")])
        await run_until_idle(database, _mostly_good, retries=0)
        await assert_accounted(connection)
        assert len(await dead_letters.listed(connection, WantedKeys("test"))) == 30


async def test_bad_events_that_are_tried_again_while_all_is_quiet_suspend_nobody(database: str) -> None:
    async with prepared(database) as connection:
        for n in range(20):
            await append(connection, [event(f"bad {n}", "Bad"), event(f"good {n}")])
        async with serving(database, _mostly_good, retries=2):
            await wait_until(partial(_are_parked, connection, 20))
            keys = await dead_letters.listed(connection, WantedKeys("test"))
            await dead_letters.request(connection, "test", keys, "retry", "test")
            await wait_until(partial(_are_parked, connection, 20))
            await append(connection, [event("good", "Good")])
            await assert_accounted(connection)
        assert not await connection.fetchval("SELECT state_changes FROM reactive_orch.projections")
        await run_until_idle(database, _mostly_good, retries=2)


async def test_bad_events_alone_keep_no_other_from_being_handled(database: str) -> None:
    async with prepared(database) as connection, serving(database, _mostly_good, retries=0):
        await append(connection, [event(f"bad {n}", "Bad") for n in range(20)])
        await wait_until(partial(_is, connection, "suspended"))
        await append(connection, [event("bad 1"), event("good"), event("other"), event("good")])
        await wait_until(partial(_handled, connection, ["good", "other", "good"]))
        await wait_until(partial(_is, connection, "running"))
        await wait_until(partial(_are_parked, connection, 20))
        await assert_accounted(connection)


@make_projection("handled")
async def _mostly_good(event: Event, tx: Connection) -> None:
    await record(tx, "handled", event)
    if event.event_type == "Bad":
        raise LookupError


async def _are_parked(connection: Connection, count: int) -> bool:
    keys = await dead_letters.listed(connection, WantedKeys("test"))
    return [(key.state, key.request) for key in keys] == [("parked", None)] * count


async def _handled(connection: Connection, keys: list[str]) -> bool:
    return sorted(row[0] for row in await connection.fetch("SELECT key FROM handled")) == sorted(keys)


async def test_the_trial_of_a_worker_that_has_died_is_anothers_at_once(database: str) -> None:
    world = World()
    async with prepared(database) as connection, running(database, world.projection(1)) as (node, _):
        await _fill(connection)
        await wait_until(partial(_is, connection, "suspended"))
        await connection.execute(CLAIMED, node.label)
        assert (await somebody.claim(connection, range(64), 0.5)).key is None, "it lives, and has its time"
        await connection.execute(CLAIMED, "vm:1:gone")
        world.broken = False
        await checked(connection)


async def test_a_trial_that_broke_off_is_given_back(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world, try_out, broken_off = World(), Aside.try_out, asyncio.Event()

    async def breaks_off(self: Aside, key: DueKey) -> bool:
        if broken_off.is_set():
            return await try_out(self, key)
        broken_off.set()
        world.broken = False
        raise Unavailable

    monkeypatch.setattr(Aside, "try_out", breaks_off)
    async with prepared(database) as connection, serving(database, world.projection(1)):
        await _fill(connection, 20)
        await broken_off.wait()
        await checked(connection)


async def test_one_worker_tries_at_a_time_and_another_when_it_has_had_its_time(database: str) -> None:
    world = World()
    async with prepared(database) as connection:
        async with serving(database, world.projection(1)), serving(database, world.projection(1)):
            await wait_settled(connection, members=2)
            await _fill(connection)
            await wait_until(partial(_is, connection, "suspended"))
        await connection.execute("UPDATE reactive_orch.projections SET resumes_at = clock_timestamp()")
        everywhere = range(64)
        async with connected(database) as other:
            await connection.execute(LIVING)
            both = await asyncio.gather(*(somebody.claim(each, everywhere, 0.5) for each in (connection, other)))
            assert sorted(trial.key is None for trial in both) == [False, True]
            early = await somebody.claim(other, everywhere, 0.5)
            assert early.key is None
            assert early.due_in_s is not None
            assert 0 < early.due_in_s <= 0.5
        # Whoever had it says no more.
        world.broken = False
        async with serving(database, world.projection(1)):
            await checked(connection)


async def test_what_was_tried_for_too_long_ends_nobody_elses_trial(database: str) -> None:
    late = Outages(*OF, "late")
    async with prepared(database) as connection:
        await run_until_idle(database, World().projection())
        assert await somebody.suspend(connection, "all fail", 1.0, PAUSES, others=False)
        await connection.execute(CLAIMED, "somebody")
        due_in_s = await late.end_trial(connection, PAUSES, succeeded=False)
        assert due_in_s is not None
        assert due_in_s > 3000, "when to look again"
        await late.give_back(connection)
        tried = (
            "SELECT trials, tried_by, resumes_at > clock_timestamp() + interval '50 min' FROM reactive_orch.projections"
        )
        assert tuple(await connection.fetchrow(tried) or ()) == (0, "somebody", True)
        assert await late.end_trial(connection, PAUSES, succeeded=True) is None, "it has found out that all is well"
        assert await _state(connection) == "running"


async def test_people_may_resume_it_earlier_or_pause_it(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (halting, trials):
        monkeypatch.setattr(module, "PAUSES_S", (3600.0,))
    world = World()
    async with prepared(database) as connection, serving(database, world.projection()):
        await _fill(connection)
        await wait_until(partial(_is, connection, "suspended"))
        await projections.set_state(connection, *OF, projections.StateChange("paused", "we know", "us"))
        assert await _state(connection) == "paused: we know"
        assert await somebody.claim(connection, range(64), 1.0) == (None, None), "nobody tries"
        assert not await somebody.suspend(connection, "late", 0.0, (1.0,), others=False)
        assert await _state(connection) == "paused: we know"
        world.broken = False
        await projections.set_state(connection, *OF, projections.StateChange("running"))
        await checked(connection)


async def test_meanwhile_nothing_of_it_is_handled(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (halting, trials):
        monkeypatch.setattr(module, "PAUSES_S", (3600.0,))
    world = World()
    async with prepared(database) as connection, serving(database, world.projection(1), recorder("other")) as worker:
        await _fill(connection, 20)
        await wait_until(partial(_is, connection, "suspended"))
        await wait_until(partial(_is_shown, worker, "suspended"))
        world.broken = False  # its only lane has suspended it, and has nothing in hand
        for n in range(3):
            await append(connection, [event(f"fresh {n} {key}") for key in range(20)])
            await wait_handled(connection, "other")
        assert not await connection.fetchval("SELECT count(*) FROM handled WHERE projection = 'handled'")


async def test_what_fails_while_it_is_being_suspended_is_tried_again_and_not_parked_afterwards(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_hand, suspended, rests = asyncio.Event(), asyncio.Event(), asyncio.Event()
    of_event: set[int] = set()
    pause_s = trials.Trials.pause_s

    async def noted(self: trials.Trials, resting: Resting) -> float:
        if of_event & self._progress.partitions:  # the lane that has failed, no other one
            rests.set()
        return await pause_s(self, resting)

    monkeypatch.setattr(trials.Trials, "pause_s", noted)

    @make_projection("handled")
    async def mailing(event: Event, tx: Connection) -> None:
        await record(tx, "handled", event)
        if not in_hand.is_set():
            of_event.add(event.partition)
            in_hand.set()
            await suspended.wait()
            raise ConnectionRefusedError

    async with prepared(database) as connection, serving(database, mailing, retries=0) as worker:
        await append(connection, [event("k")])
        await in_hand.wait()
        assert await somebody.suspend(connection, "all fail", 1.0, (3600.0,), others=False)
        await wait_until(partial(_is_shown, worker, "suspended"))
        suspended.set()
        await rests.wait()
        await projections.set_state(connection, *OF, projections.StateChange("running"))
        await checked(connection)
        assert not await dead_letters.listed(connection, WantedKeys("test"))


async def test_what_is_being_parked_while_it_is_suspended_is_tried_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, parked, suspended = World(), asyncio.Event(), asyncio.Event()
    set_aside = dead_letters.FailingKeys.set_aside

    async def written_but_not_committed(self: dead_letters.FailingKeys, *args: Any, **kwargs: Any) -> Any:
        written = await set_aside(self, *args, **kwargs)
        if not parked.is_set():
            parked.set()
            await suspended.wait()
        return written

    monkeypatch.setattr(dead_letters.FailingKeys, "set_aside", written_but_not_committed)
    async with prepared(database) as connection, serving(database, world.projection(), retries=0):
        await _fill(connection)
        await parked.wait()
        await wait_until(partial(_is, connection, "suspended"))
        suspended.set()
        await wait_until(partial(_tried, connection, 3))
        world.broken = False
        await checked(connection)
        assert not await dead_letters.listed(connection, WantedKeys("test"))


async def test_a_suspension_that_is_ignored_is_caught(
    database: str, monkeypatch: pytest.MonkeyPatch, plant: Callable[[str], None]
) -> None:
    plant("suspension_ignored")
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True):
        await test_meanwhile_nothing_of_it_is_handled(database, monkeypatch)


async def test_with_nothing_left_to_be_tried_it_runs_again(database: str) -> None:
    world = World()
    async with prepared(database) as connection, serving(database, world.projection()):
        await _fill(connection, 12)
        await wait_until(partial(_is, connection, "suspended"))
        world.broken = False
        await connection.execute("UPDATE reactive_orch.failing_keys SET request = 'discard'")
        await wait_until(partial(_is, connection, "running"))


async def test_the_pauses_grow_until_it_has_run_well(database: str) -> None:
    pauses = (10.0, 20.0, 40.0)
    async with prepared(database) as connection:
        await run_until_idle(database, World().projection())
        suspended = partial(somebody.suspend, connection, "all fail", 1.0, pauses, others=False)

        async def waits_s() -> float:
            ask = "SELECT extract(epoch FROM resumes_at - clock_timestamp())::float8 FROM reactive_orch.projections"
            return float(await connection.fetchval(ask))

        assert await suspended()
        assert 9 < await waits_s() <= 10
        for expected in (20, 40, 40):
            await connection.execute(CLAIMED, "somebody")
            due_in_s = await somebody.end_trial(connection, pauses, succeeded=False)
            assert due_in_s is not None
            assert expected - 1 < due_in_s <= expected
        assert await somebody.end_trial(connection, pauses, succeeded=True) is None
        assert await suspended()
        assert 39 < await waits_s() <= 40, "it has not run for long"
        assert await somebody.end_trial(connection, pauses, succeeded=True) is None
        await connection.execute("UPDATE reactive_orch.projections SET state_since = state_since - interval '2 min'")
        assert await suspended()
        assert 9 < await waits_s() <= 10


async def test_until_idle_ends_with_the_reason_whoever_has_suspended_it(database: str) -> None:
    world = World()
    async with prepared(database) as connection:
        await _fill(connection)
        failed = await failure(database, world.projection(), on_error="park", retries=5)
        assert isinstance(failed, Outage)
        assert str(failed).startswith(
            "projection 'handled': 10 keys in a row have failed alike: ConnectionRefusedError"
        )
        assert await _state(connection) == "running", "whoever waits for the end decides"
        await somebody.suspend(connection, "all fail", 1.0, (3600.0,), others=False)
        failed = await failure(database, world.projection(), on_error="park", retries=5)
        assert str(failed) == "projection 'handled': all fail"


def test_only_failures_that_are_alike_count_and_a_success_ends_them() -> None:
    seen = outage.Outage()
    for n in range(1, outage.ALIKE_MAX):
        assert not seen.failed(n, "E at a:1", 7.0 + n)
        assert not seen.failed(n, "E at a:1", 7.0 + n), "the same key once more"
    assert seen.since == 8.0
    assert not seen.failed(99, "E at a:2", 50.0), "another line"
    for n in range(1, outage.ALIKE_MAX):
        assert not seen.failed(n, "E at a:1", 60.0)
    seen.over()
    assert not seen.failed(100, "E at a:1", 70.0)
    assert [seen.failed(n, "E at a:1", 70.0) for n in range(9)] == [False] * 8 + [True]
    assert seen.reason == "10 keys in a row have failed alike: E at a:1"
