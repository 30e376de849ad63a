"""Many keys that fail alike: their projection is suspended, for all workers, and tried again by itself."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.checkers import assert_accounted, checked, wait_settled
from integration_test.harness.connections import connected, prepared
from integration_test.harness.health import running, says
from integration_test.harness.in_process import event, failure, run_until_idle, serving
from integration_test.harness.projections import record
from integration_test.harness.waiting import wait_until
from reactive_orch import Projection, append
from reactive_orch import projection as make_projection
from reactive_orch.core import outage
from reactive_orch.errors import Outage
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.model.keys import WantedKeys
from reactive_orch.postgres import dead_letters, outages, projections
from reactive_orch.runtime.handling import halting, trials

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection
    from reactive_orch import Event

OF = ("test", Subscription("handled", OWN_LOG))
PAUSES = (0.3, 0.6)


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
        await wait_until(partial(_is, connection, "suspended: 10 keys in a row have failed alike"))
        assert f": ConnectionRefusedError at {__file__}:" in await _state(connection), "the line of the handler"
        await wait_until(says(worker, "live ready well", "projection handled is suspended: 10 keys in a row have"))
        keys = await dead_letters.listed(connection, WantedKeys("test"))
        assert len(keys) <= 12, "each lane may have had one in hand"
        await wait_until(partial(_tried, connection, 3))
        after = await dead_letters.listed(connection, WantedKeys("test"))
        assert {key.attempts for key in after} == {1}, "a trial is no attempt"
        assert len({key.failed_last_at for key in after} - {key.failed_last_at for key in keys}) >= 3, "each of another"
        world.broken = False
        await checked(connection)
        assert not await dead_letters.listed(connection, WantedKeys("test")), "those that were parked, too"
        await assert_accounted(connection)


async def _tried(connection: Connection, times: int) -> bool:
    return bool(await connection.fetchval("SELECT trials >= $1 FROM reactive_orch.projections", times))


async def test_a_few_bad_events_among_good_ones_suspend_nobody(database: str) -> None:
    @make_projection("handled")
    async def mostly_good(event: Event, tx: Connection) -> None:
        await record(tx, "handled", event)
        if event.event_type == "Bad":
            raise LookupError

    async with prepared(database) as connection:
        for n in range(30):
            await append(connection, [event(f"bad {n}", "Bad"), event(f"good {n}")])
        await run_until_idle(database, mostly_good, retries=0)
        await assert_accounted(connection)
        assert len(await dead_letters.listed(connection, WantedKeys("test"))) == 30


async def test_one_worker_tries_at_a_time_and_another_when_it_has_died(database: str) -> None:
    world = World()
    async with prepared(database) as connection:
        async with serving(database, world.projection(1)), serving(database, world.projection(1)):
            await wait_settled(connection, members=2)
            await _fill(connection)
            await wait_until(partial(_is, connection, "suspended"))
        await connection.execute("UPDATE reactive_orch.projections SET resumes_at = clock_timestamp()")
        everywhere = range(64)
        async with connected(database) as other:
            both = await asyncio.gather(*(outages.claim(each, *OF, everywhere, 0.5) for each in (connection, other)))
            assert sorted(trial.key is None for trial in both) == [False, True]
            early = await outages.claim(other, *OF, everywhere, 0.5)
            assert early.key is None
            assert early.due_in_s is not None
            assert 0 < early.due_in_s <= 0.5
        # Whoever had it says no more.
        world.broken = False
        async with serving(database, world.projection(1)):
            await checked(connection)


async def test_people_may_resume_it_earlier_or_pause_it(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (halting, trials):
        monkeypatch.setattr(module, "PAUSES_S", (3600.0,))
    world = World()
    async with prepared(database) as connection, serving(database, world.projection()):
        await _fill(connection)
        await wait_until(partial(_is, connection, "suspended"))
        await projections.set_state(connection, *OF, projections.StateChange("paused", "we know", "us"))
        assert await _state(connection) == "paused: we know"
        assert await outages.claim(connection, *OF, range(64), 1.0) == (None, None), "nobody tries"
        assert not await outages.suspend(connection, *OF, outages.Suspension("late", "w", 0.0), (1.0,))
        assert await _state(connection) == "paused: we know"
        world.broken = False
        await projections.set_state(connection, *OF, projections.StateChange("running"))
        await checked(connection)


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
        suspension = outages.Suspension("all fail", "w", 1.0)

        async def waits_s() -> float:
            ask = "SELECT extract(epoch FROM resumes_at - clock_timestamp())::float8 FROM reactive_orch.projections"
            return float(await connection.fetchval(ask))

        assert await outages.suspend(connection, *OF, suspension, pauses)
        assert 9 < await waits_s() <= 10
        for expected in (20, 40, 40):
            due_in_s = await outages.end_trial(connection, *OF, pauses, succeeded=False)
            assert due_in_s is not None
            assert expected - 1 < due_in_s <= expected
        assert await outages.end_trial(connection, *OF, pauses, succeeded=True) is None
        assert await outages.suspend(connection, *OF, suspension, pauses)
        assert 39 < await waits_s() <= 40, "it has not run for long"
        assert await outages.end_trial(connection, *OF, pauses, succeeded=True) is None
        await connection.execute("UPDATE reactive_orch.projections SET state_since = state_since - interval '2 min'")
        assert await outages.suspend(connection, *OF, suspension, pauses)
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
        await outages.suspend(connection, *OF, outages.Suspension("all fail", "w", 1.0), (3600.0,))
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
