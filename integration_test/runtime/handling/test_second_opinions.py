"""What fails on one worker only is no fault of the event: another tries it before it is parked, or all suspended."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.checkers import assert_accounted, checked, owners, wait_settled
from integration_test.harness.connections import connected, prepared
from integration_test.harness.health import running, says
from integration_test.harness.in_process import event, run_until_idle, serving
from integration_test.harness.projections import record
from integration_test.harness.waiting import wait_until
from reactive_orch import append
from reactive_orch import projection as make_projection
from reactive_orch.core import fitness
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.model.keys import WantedKeys
from reactive_orch.postgres import checkpoints, dead_letters, membership, overview, projections, rewinds
from reactive_orch.postgres.dead_letters import FailingKeys
from reactive_orch.runtime.handling.lanes import Lanes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from integration_test.harness.connections import Connection
    from reactive_orch import Event, Projection
    from reactive_orch.model.keys import FailingKey

OF = Subscription("handled", OWN_LOG)
FAILING = """
INSERT INTO reactive_orch.failing_keys
    (replica_set, projection, log, partition, bounded_context, aggregate_type, aggregate_id, state, attempts,
     error_type, message, traceback, worker)
VALUES ('test', 'handled', 'events', 0, '', '', 'k', 'retrying', 1, 'E', '', '', 'them')
"""
FEW, MANY = 24, 60
"""Keys: fewer on one of three workers than an outage needs, and more."""


class Machine:
    """Where one worker runs: what is called there, and whether handlers can work."""

    def __init__(self, *, sick: bool = False) -> None:
        self.sick = sick
        self.calls: Counter[str] = Counter()

    def projection(self, fails: Callable[[Event], bool] = lambda _: False) -> Projection:
        @make_projection("handled")
        async def at_work(e: Event, tx: Connection) -> None:
            self.calls[e.aggregate_id] += 1
            await record(tx, "handled", e)
            if self.sick or fails(e):
                raise ModuleNotFoundError

        return at_work


async def _keys(connection: Connection) -> list[FailingKey]:
    return await dead_letters.listed(connection, WantedKeys("test"))


async def _fill(connection: Connection, keys: int) -> None:
    await append(connection, [event(f"k{n % keys}") for n in range(3 * keys)])


@pytest.mark.parametrize("keys", [FEW, MANY])
async def test_what_fails_on_one_worker_only_is_handled_by_others_and_that_one_steps_down(
    database: str, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitness, "PAUSES_S", (5.0, 5.0))  # time enough to be seen
    sick, well = Machine(sick=True), [Machine(), Machine()]
    async with prepared(database) as connection, contextlib.AsyncExitStack() as stack:
        node, worker = await stack.enter_async_context(running(database, sick.projection(), retries=0))
        for each in well:
            await stack.enter_async_context(serving(database, each.projection()))
        await wait_settled(connection, members=3)
        await _fill(connection, keys)
        await wait_until(says(worker, "live ready well", "not run here for a while, what fails here succeeds"))
        await wait_until(partial(_lacks, connection, node.label), what="status says so, too")
        await checked(connection)
        await assert_accounted(connection)
        assert not await _keys(connection), "nobody's fault"
        assert sum(sick.calls.values()) > 0
        assert all(sum(each.calls.values()) > 0 for each in well)
        assert not await connection.fetchval("SELECT count(*) FROM reactive_orch.projections WHERE state <> 'running'")
        sick.sick = False
        await wait_until(partial(_has_partitions, connection, worker.member), what="it takes part again")
        before = sum(sick.calls.values())
        await _fill(connection, keys)
        await checked(connection)
        assert sum(sick.calls.values()) > before
        await wait_until(says(worker, "live ready well"))


async def _lacks(connection: Connection, name: str) -> bool:
    seen = await overview.look(connection, "test")
    return {worker.name: list(worker.lacks) for worker in seen.workers}[name] == ["handled"]


async def _has_partitions(connection: Connection, member: int | None) -> bool:
    return member in await owners(connection)


async def test_what_fails_everywhere_is_parked_when_two_have_tried(database: str) -> None:
    machines = [Machine(), Machine()]
    async with prepared(database) as connection, contextlib.AsyncExitStack() as stack:
        for each in machines:
            bad = each.projection(lambda e: e.event_type == "Bad")
            await stack.enter_async_context(serving(database, bad, retries=1))
        await wait_settled(connection, members=2)
        await append(connection, [event("bad", "Bad"), event("bad"), *(event(f"k{n}") for n in range(20))])
        await wait_until(partial(_parked, connection))
        (key,) = await _keys(connection)
        assert (key.attempts, key.events) == (3, 2), "two of its owner, one of the other"
        assert min(each.calls["bad"] for each in machines) == 1
        await assert_accounted(connection)
        assert all(each.calls.total() > 3 for each in machines), "neither has stepped down"


async def _parked(connection: Connection) -> bool:
    return [key.state for key in await _keys(connection)] == ["parked"]


async def test_who_is_alone_parks_as_before(database: str) -> None:
    machine = Machine(sick=True)
    async with prepared(database) as connection, serving(database, machine.projection(), retries=1):
        await append(connection, [event("k"), event("k")])
        await wait_until(partial(_parked, connection))
        assert [key.attempts for key in await _keys(connection)] == [2]


async def test_if_nobody_answers_the_owner_decides(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactive_orch.core.keys.ANSWER_WITHIN_S", 0.2)
    monkeypatch.setattr("reactive_orch.runtime.handling.lanes.Lanes.want_opinion", lambda _: None)
    machines = [Machine(sick=True), Machine(sick=True)]
    async with prepared(database) as connection, contextlib.AsyncExitStack() as stack:
        for each in machines:
            await stack.enter_async_context(serving(database, each.projection(), retries=0))
        await wait_settled(connection, members=2)
        await append(connection, [event("k")])
        await wait_until(partial(_parked, connection))
        assert sorted(each.calls["k"] for each in machines) == [0, 2]


async def test_if_all_others_have_left_the_owner_decides_at_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactive_orch.core.keys.ANSWER_WITHIN_S", 3600.0)
    monkeypatch.setattr("reactive_orch.runtime.handling.lanes.Lanes.want_opinion", lambda _: None)
    async with prepared(database) as connection, contextlib.AsyncExitStack() as stack:
        both = [
            await stack.enter_async_context(running(database, Machine(sick=True).projection(), retries=0))
            for _ in range(2)
        ]
        await wait_settled(connection, members=2)
        await append(connection, [event("k")])
        await wait_until(partial(_asked_by, connection), what="the other one is asked")
        asked_by = await _asked_by(connection)
        (other,) = (worker for node, worker in both if node.label != asked_by)
        other.stop()
        await wait_until(partial(_parked, connection))


async def _asked_by(connection: Connection) -> str | None:
    asked_by: str | None = await connection.fetchval("SELECT asked_by FROM reactive_orch.failing_keys")
    return asked_by


async def test_what_was_left_out_or_rewound_was_not_handled_elsewhere(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, answered = dict[int, bool](), fitness.Fitness.answered

    def noted(self: fitness.Fitness, key: int, *, handled: bool) -> None:
        heard[key] = handled
        answered(self, key, handled=handled)

    monkeypatch.setattr(fitness.Fitness, "answered", noted)
    monkeypatch.setattr("reactive_orch.core.keys.ANSWER_WITHIN_S", 3600.0)
    monkeypatch.setattr("reactive_orch.runtime.handling.lanes.Lanes.want_opinion", lambda _: None)
    async with prepared(database) as connection, contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(serving(database, Machine(sick=True).projection(), retries=0))
        await wait_settled(connection, members=2)
        await append(connection, [event(f"k{n}") for n in range(3)])
        await wait_until(partial(_are_asked, connection, 3))
        first, second, third = await _keys(connection)
        await dead_letters.request(connection, "test", [first], "skip", "us")
        await dead_letters.request(connection, "test", [second], "discard", "us")
        await wait_until(partial(_heard, heard, 2))
        await rewinds.rewind(connection, "test", OF, 0)
        await wait_until(partial(_heard, heard, 3))
        assert heard == {first.id: False, second.id: False, third.id: False}


async def _are_asked(connection: Connection, keys: int) -> bool:
    return bool(await connection.fetchval("SELECT count(asked_by) = $1 FROM reactive_orch.failing_keys", keys))


async def _heard(heard: Collection[int], keys: int) -> bool:
    return len(heard) == keys


async def test_only_what_can_be_taken_up_calls_a_worker(database: str) -> None:
    """Else each of its heartbeats would call it, for as long as the key waits for somebody else."""
    async with prepared(database) as connection:
        await run_until_idle(database, Machine().projection())
        member = await membership.join(connection, "test", "me", [OF], 60.0, (), ())
        await connection.execute("UPDATE reactive_orch.members SET state = 'active'")
        await connection.execute(FAILING)
        for key, calls in (
            (("me", None, None), False),
            (("them", "another", None), False),
            (("them", None, "skip"), False),
            (("them", None, None), True),
        ):
            await connection.execute(
                "UPDATE reactive_orch.failing_keys SET (asked_by, taken_by, request) = ($1, $2, $3)", *key
            )
            (beat,) = await membership.heartbeat(connection, "me", [member], {})
            assert beat.attention is calls, key
            assert bool(await FailingKeys("test", OF).take_up(connection, "me", 1.0)) is calls, key
        await connection.execute("UPDATE reactive_orch.failing_keys SET taken_by = NULL")
        await projections.set_state(connection, "test", OF, projections.StateChange("paused"))
        (beat,) = await membership.heartbeat(connection, "me", [member], {})
        assert not beat.attention, "nobody tries it while it rests"


@contextlib.asynccontextmanager
async def opinions_from(
    held: asyncio.Event, database: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Connection, Machine]]:
    """Run a sick worker, which asks about keys, and a well one, which tries none of them before the event."""
    want = Lanes.want_opinion
    monkeypatch.setattr(Lanes, "want_opinion", lambda lanes: want(lanes) if held.is_set() else None)
    sick, well = Machine(sick=True), Machine()
    async with prepared(database) as connection, contextlib.AsyncExitStack() as stack:
        for each in (sick, well):
            await stack.enter_async_context(serving(database, each.projection(), retries=0))
        await wait_settled(connection, members=2)
        await append(connection, [event(f"k{n}") for n in range(8)])
        await wait_until(partial(_all_are_known, connection, 8))
        yield connection, well


async def test_while_an_opinion_waits_fresh_events_are_handled(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SLICES_MAX", 60)
    held = asyncio.Event()
    async with connected(database) as rival, opinions_from(held, database, monkeypatch) as (connection, well):
        fresh = list(well.calls)
        async with rival.transaction():
            await rival.execute("SELECT FROM reactive_orch.checkpoints WHERE failing > 0 FOR NO KEY UPDATE")
            held.set()
            await wait_until(partial(_is_taken, connection), what="an opinion waits")
            await append(connection, [event(key) for key in fresh])
            await wait_until(partial(_have_come, well.calls, dict.fromkeys(fresh, 2)))
        await checked(connection)


async def _all_are_known(connection: Connection, keys: int) -> bool:
    handled = await connection.fetchval("SELECT count(*) FROM handled")
    asked = await connection.fetchval("SELECT count(asked_by) FROM reactive_orch.failing_keys")
    return bool(handled + asked == keys and handled and asked)


async def _is_taken(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT count(taken_by) FROM reactive_orch.failing_keys"))


async def _have_come(calls: Counter[str], expected: dict[str, int]) -> bool:
    return {key: calls[key] for key in expected} == expected


async def test_an_opinion_waits_for_the_batch_of_the_owner(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint of the key's partition is held, as by a batch of its owner: nothing is tried meanwhile."""
    held = asyncio.Event()
    async with connected(database) as rival, opinions_from(held, database, monkeypatch) as (connection, well):
        before = well.calls.copy()
        async with rival.transaction():
            await rival.execute("SELECT FROM reactive_orch.checkpoints ORDER BY partition FOR NO KEY UPDATE")
            held.set()
            await wait_until(partial(_is_taken, connection), what="an opinion waits")
            assert well.calls == before
        await checked(connection)
        assert well.calls > before
        assert not await _keys(connection)
