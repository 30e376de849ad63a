"""Projections of a group handle new events in one transaction; what concerns one of them alone it does alone."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import asyncpg
import pytest

from integration_test.harness.checkers import (
    assert_accounted,
    assert_effects_match_checkpoints,
    checked,
    wait_accounted,
    wait_handled,
)
from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import event, serving
from integration_test.harness.projections import record
from integration_test.harness.waiting import TimedOut, wait_until
from reactive_orch import Event, Projection, Worker, append, projection
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.model.middleware import subject
from reactive_orch.postgres import checkpoints
from reactive_orch.postgres.projections import StateChange, set_state
from reactive_orch.runtime.handling import lane, together

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from integration_test.harness.connections import Connection

NAMES = ("handled", "b", "c", "d")


def _made(name: str, act: Callable[[Event, Any], Awaitable[None]] | None = None, **options: Any) -> Projection:
    @projection(name, **{"group": "together", "retries": 0, **options})
    async def made(each: Event, tx: Connection) -> None:
        assert subject.get().projection == name
        await record(tx, name, each, worker="w")
        if act is not None:
            await act(each, tx)

    return made


def _all(**acts: Callable[[Event, Any], Awaitable[None]]) -> list[Projection]:
    return [_made(name, acts.get(name)) for name in NAMES]


@contextlib.asynccontextmanager
async def _serving(database: str, projections: list[Projection], **config: Any) -> AsyncIterator[Worker]:
    async with serving(database, *projections, **config) as worker:
        await wait_until(partial(_is, lambda: worker.state.name == "SERVING"), what="it serves")
        yield worker


async def _is(true: Callable[[], bool]) -> bool:
    return true()


async def _append(connection: Connection, *types: str, names: tuple[str, ...] = NAMES) -> None:
    """Append an event of each type, each to a key of its own, and wait for each until all have accounted for it."""
    for event_type in types:
        count = await connection.fetchval("SELECT count(*) FROM reactive_orch.events")
        await append(connection, [event(f"k{count}", event_type)])
        for name in names:
            await wait_accounted(connection, name)


async def _transactions(connection: Connection) -> dict[int, int]:
    """Return position → in how many transactions it was handled."""
    rows = await connection.fetch("SELECT position, count(DISTINCT txid) FROM public.handled GROUP BY 1")
    return {row["position"]: row["count"] for row in rows}


async def _once(connection: Connection) -> None:
    for name in NAMES:
        await assert_effects_match_checkpoints(connection, name)
    await checked(connection, *NAMES)


@pytest.mark.parametrize("options", [{}, {"group": None}, {"exclusive": True}])
async def test_a_new_event_is_handled_by_all_in_one_transaction(database: str, options: dict[str, Any]) -> None:
    async with prepared(database) as connection:
        async with _serving(database, [_made(name, **options) for name in NAMES]):
            await _append(connection, *["Good"] * 12)
        shared = sum(count == 1 for count in (await _transactions(connection)).values())
        assert shared == 0 if options else shared >= 10, "the first ones may come before all rest"
        await _once(connection)


async def test_whoever_wants_other_events_shares_those_with_more_lanes_do_not(database: str) -> None:
    projections = [_made("handled"), _made("b", event_types=["Good"]), _made("c", concurrency=2), _made("d")]
    async with prepared(database) as connection:
        async with _serving(database, projections):
            for event_type in ("Good", "Other", "Good", "Other", "Good", "Other"):
                await _append(connection, event_type, names=("handled", "c", "d"))
            await wait_until(partial(_handled, connection, "b", 3), what="it has those that it wants")
        shared = {("c",), ("d", "handled"), ("b", "d", "handled")}
        assert shared <= await _who_shared(connection) <= {*ALONE, *shared}
        for name in ("handled", "c", "d"):
            await assert_effects_match_checkpoints(connection, name)
        await checked(connection, "handled", "c", "d")


async def _handled(connection: Connection, name: str, count: int) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM public.handled WHERE projection = $1", name) == count)


ALONE = {(name,) for name in NAMES}


async def _who_shared(connection: Connection) -> set[tuple[str, ...]]:
    rows = await connection.fetch("SELECT array_agg(DISTINCT projection) AS of FROM public.handled GROUP BY txid")
    return {tuple(sorted(row["of"])) for row in rows}


@contextlib.contextmanager
def _found() -> Iterator[None]:
    """Expect that the block's assertion fails, inside of what serves; not only because it has taken too long."""
    with pytest.raises(BaseExceptionGroup) as caught:
        yield
    failed, _ = caught.value.split(lambda error: isinstance(error, AssertionError) and not isinstance(error, TimedOut))
    assert failed is not None


async def _fail(each: Event, _: Any) -> None:
    if each.event_type == "Bad":
        raise LookupError


async def _swallow(each: Event, tx: Connection) -> None:
    if each.event_type == "Bad":
        with contextlib.suppress(asyncpg.PostgresError):
            await tx.execute("SELECT 1/0")


async def _sleep(each: Event, _: Any) -> None:
    if each.event_type == "Bad":
        await anyio.sleep(600)


async def _commit(each: Event, tx: Connection) -> None:
    if each.event_type == "Bad":
        await tx.execute("COMMIT")


async def _cancel(each: Event, _: Any) -> None:
    if each.event_type == "Bad":
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep(1)
        raise LookupError


ACTS = {"raises": _fail, "swallows": _swallow, "takes too long": _sleep, "commits": _commit, "cancels": _cancel}


async def _one_of_them_fails(database: str, act: Callable[[Event, Any], Awaitable[None]]) -> None:
    async with prepared(database) as connection, _serving(database, _all(c=act), handler_timeout_s=0.5):
        await _append(connection, "Good", "Good", "Bad", "Good", "Good", "Good")
        await assert_accounted(connection, "c")
        await assert_effects_match_checkpoints(connection, "c")
        assert await connection.fetchval("SELECT count(*) FROM reactive_orch.dead_letters") == 1
        await checked(connection, "handled", "b", "d")
        assert (await _transactions(connection))[3] == 3, "each alone, and the one that has failed not at all"


@pytest.mark.parametrize("act", ACTS)
async def test_one_that_fails_is_set_aside_and_the_others_handle_it(
    database: str, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    monkeypatch.setattr(together, "APART_S", 0.0)
    await _one_of_them_fails(database, ACTS[act])


async def test_going_on_without_who_has_failed_is_caught(database: str, plant: Callable[[str], None]) -> None:
    plant("group_goes_on_without_who_has_failed")
    with _found():
        await _one_of_them_fails(database, _fail)


async def test_after_a_failure_they_come_together_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "APART_S", 0.0)
    cured: list[int] = []

    async def fails_once(each: Event, _: Any) -> None:
        if each.event_type == "Bad" and not cured:
            cured.append(each.global_position)
            raise LookupError

    async with prepared(database) as connection:
        async with _serving(database, _all(b=fails_once)):
            await _append(connection, "Good", "Bad", *["Good"] * 8)
        ways = await _transactions(connection)
        assert cured == [2]
        assert ways[2] == len(NAMES)
        assert sum(count == 1 for position, count in ways.items() if position > 2) >= 6
        await _once(connection)


async def _somebody_holds_a_checkpoint_of_one(database: str) -> None:
    async with prepared(database) as connection, connected(database) as rival:
        async with _serving(database, _all()):
            await _append(connection, *["Good"] * 3)
            async with rival.transaction():
                await rival.execute("SELECT FROM reactive_orch.checkpoints WHERE projection = 'b' FOR UPDATE")
                await append(connection, [event("held")])
                for name in ("handled", "c", "d"):
                    await wait_handled(connection, name)
                assert await connection.fetchval("SELECT count(*) FROM public.handled WHERE projection = 'b'") == 3
            await wait_handled(connection, "b")
            await _append(connection, *["Good"] * 3)
        await _once(connection)


async def test_a_checkpoint_of_one_that_somebody_holds_keeps_the_others_from_nothing(database: str) -> None:
    await _somebody_holds_a_checkpoint_of_one(database)


async def test_a_short_count_that_is_ignored_is_caught(database: str, plant: Callable[[str], None]) -> None:
    plant("group_ignores_a_short_count")
    with _found():
        await _somebody_holds_a_checkpoint_of_one(database)


async def _many(database: str) -> None:
    async with prepared(database) as connection, _serving(database, _all()):
        await _append(connection, *["Good"] * 8)
        await _once(connection)


async def test_checkpoints_of_one_alone_are_caught(database: str, plant: Callable[[str], None]) -> None:
    plant("group_moves_one_projection_alone")
    with _found():
        await _many(database)


async def _woken_in_the_middle(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lane is woken while the group has its event in hand, and saves before it does anything else."""
    invalidate, workers, in_doubt = lane.Lane.invalidate, list[Worker](), list[lane.Lane]()

    def invalidated(own: lane.Lane) -> None:
        in_doubt.append(own)
        invalidate(own)

    async def wake(_: Event, __: Any) -> None:
        workers[0].wake("test")
        await anyio.sleep(0.05)

    async with prepared(database) as connection:
        async with _serving(database, _all(**dict.fromkeys(NAMES, wake))) as worker:
            workers.append(worker)
            await _append(connection, "Good", "Good")
            monkeypatch.setattr(lane, "SAVE_EVERY_S", 0.0)
            monkeypatch.setattr(lane.Lane, "invalidate", invalidated)
            for _ in range(8):
                await append(connection, [event("same partition")])
                for name in NAMES:
                    await wait_handled(connection, name)
            assert in_doubt == []
        await _once(connection)


async def test_a_lane_that_is_woken_waits_for_the_batchs_end(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await _woken_in_the_middle(database, monkeypatch)


async def test_one_that_does_not_is_caught(
    database: str, monkeypatch: pytest.MonkeyPatch, plant: Callable[[str], None]
) -> None:
    plant("group_handles_beside_a_lane_that_is_awake")
    with _found():
        await _woken_in_the_middle(database, monkeypatch)


async def test_lanes_that_have_saved_come_together_again_though_events_came_meanwhile(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All save at the same moment, and each then reads for itself what has come."""
    monkeypatch.setattr(lane, "SAVE_EVERY_S", 0.2)
    save, held = checkpoints.save, anyio.Event()
    saved: set[str] = set()

    async def saves(connection: Any, replica_set: str, of: Subscription, swaps: Any) -> None:
        await save(connection, replica_set, of, swaps)
        saved.add(of.projection)
        await held.wait()

    async with prepared(database) as connection:
        async with _serving(database, _all()):
            await _append(connection, *["Good"] * 3)
            monkeypatch.setattr(checkpoints, "save", saves)
            await wait_until(partial(_is, lambda: saved == set(NAMES)), what="all are saving")
            await append(connection, [event("meanwhile")])
            held.set()
            for name in NAMES:
                await wait_handled(connection, name)
            assert (await _transactions(connection))[4] == 1
        await _once(connection)


async def test_handlers_that_take_long_together_stay_apart(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "BATCH_S", 0.0)
    async with prepared(database) as connection:
        async with _serving(database, _all()):
            await _append(connection, *["Good"] * 4)
        assert set((await _transactions(connection)).values()) == {len(NAMES)}
        await _once(connection)


async def test_one_that_is_paused_rests_while_the_others_go_on_together(database: str) -> None:
    async with prepared(database) as connection:
        async with _serving(database, _all()) as worker:
            await _append(connection, "Good", "Good")
            of = Subscription("b", OWN_LOG)
            await set_state(connection, "test", of, StateChange("paused", "by hand", "test"))
            await wait_until(partial(_is, lambda: "b" in _resting(worker)), what="it rests")
            await _append(connection, *["Good"] * 5, names=("handled", "c", "d"))
            assert await connection.fetchval("SELECT count(*) FROM public.handled WHERE projection = 'b'") == 2
            ways = await _transactions(connection)
            assert sum(ways[position] == 1 for position in range(3, 8)) >= 4
            await set_state(connection, "test", of, StateChange("running"))
            await wait_handled(connection, "b")
            await _append(connection, "Good", "Good")
        await _once(connection)


def _resting(worker: Worker) -> set[str]:
    runners = worker._runners.by_subscription.items()  # noqa: SLF001 - when a pause has come does not show elsewhere
    return {each.projection for each, runner in runners if runner.resting is not None}
