"""More keys and events of a projection than somebody can look at do not pile up: it halts, and nothing is lost."""

from __future__ import annotations

import re
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from integration_test.harness.checkers import assert_accounted, checked
from integration_test.harness.connections import prepared
from integration_test.harness.findings import found
from integration_test.harness.in_process import event, failure, pools, serving
from integration_test.harness.projections import record
from integration_test.harness.waiting import wait_until
from reactive_orch import append, projection
from reactive_orch.core import keys
from reactive_orch.errors import TooMuchWaits
from reactive_orch.model.keys import WantedKeys
from reactive_orch.model.membership import Resting
from reactive_orch.postgres import dead_letters, projections
from reactive_orch.runtime.handling import halting, runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration_test.harness.connections import Connection
    from reactive_orch import Event, ProjectionFailed
    from reactive_orch.incarnation import Incarnation
    from reactive_orch.runtime.handling.scope import Scope

cure: list[str] = []
"""What somebody has mended."""


@projection("handled", concurrency=2)
async def poisoned(event: Event, tx: Connection) -> None:
    await record(tx, "handled", event)
    if event.event_type == "Bad" and not cure:
        raise LookupError


@pytest.fixture(autouse=True)
def _nothing_is_mended() -> None:
    cure.clear()


async def _halted(connection: Connection) -> str | None:
    """Return why the projection is halted; None if it is not."""
    rest = (await projections.resting(connection, "test")).get(poisoned.subscription)
    return rest.reason if rest is not None and rest.state == "halted" else None


async def _resume(connection: Connection) -> None:
    await projections.set_state(connection, "test", poisoned.subscription, projections.StateChange("running"))


async def _keys(connection: Connection) -> int:
    return len(await dead_letters.listed(connection, WantedKeys("test")))


async def test_more_failing_keys_than_allowed_halt_the_projection_and_again_after_a_resume(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "KEYS_MAX", 3)
    async with prepared(database) as connection:
        for n in range(40):
            await append(connection, [event(f"k{n}", "Bad" if n % 2 else "Good"), event(f"k{n}")])
        async with serving(database, poisoned, retries=0):
            await wait_until(partial(_halted, connection))
            assert "keys wait behind failed events, and no more than 3 are to pile up" in str(await _halted(connection))
            first = await _keys(connection)
            assert 4 <= first <= 4 + 2, "each lane may have set one aside at the same moment"
            await assert_accounted(connection)
            await _resume(connection)
            await wait_until(partial(_halted, connection))
            assert first + 4 <= await _keys(connection) <= first + 4 + 2
            await assert_accounted(connection)


async def test_more_waiting_events_than_allowed_halt_the_projection_which_goes_on_when_they_are_retried(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "EVENTS_MAX", 20)
    async with prepared(database) as connection:
        await append(connection, [event("k", "Bad")])
        async with serving(database, poisoned, retries=0, batch_events=5):
            await append(connection, [event(key) for _ in range(50) for key in ("k", "other")])
            await wait_until(partial(_halted, connection))
            assert "events wait behind failed ones, and no more than 20 are to pile up" in str(
                await _halted(connection)
            )
            (key,) = await dead_letters.listed(connection, WantedKeys("test"))
            assert 20 < key.events <= 20 + 2 * 5, "a batch of each lane"
            cure.append("all")
            await _resume(connection)
            await dead_letters.request(connection, "test", [key], "retry", "test")
            await checked(connection)
        await assert_accounted(connection)


async def test_who_learns_late_that_too_much_waits_does_not_undo_a_resume(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another lane that let its event wait before the projection was halted, and then took its time."""
    monkeypatch.setattr(keys, "KEYS_MAX", 3)
    error = TooMuchWaits("4 keys wait")
    async with prepared(database) as connection, pools(database) as own:
        # More than four: two lanes that set the last ones aside at the same moment do not count each other's.
        await append(connection, [event(f"k{n}", "Bad") for n in range(8)])
        async with serving(database, poisoned, retries=0):
            await wait_until(partial(_halted, connection))
        late: Any = SimpleNamespace(
            replica_set="test", subscription=poisoned.subscription, node=SimpleNamespace(label="late"), database=own
        )
        assert await halting.record(late, error, own.incarnation) == Resting("halted")
        await _resume(connection)
        assert await halting.record(late, error, own.incarnation) is None
        assert await _halted(connection) is None


async def test_what_was_found_out_before_the_database_was_lost_halts_nobody(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = halting.record

    async def lost(scope: Scope, error: ProjectionFailed, incarnation: Incarnation) -> Resting | None:
        if not cure:
            cure.append("all")
            scope.database.lost()
        return await recorded(scope, error, incarnation)

    monkeypatch.setattr(halting, "record", lost)
    monkeypatch.setattr(runner, "HALT_AGAIN_S", 0.1)
    async with prepared(database) as connection, serving(database, poisoned, retries=0, on_error="halt"):
        await append(connection, [event("k", "Bad"), event("k")])
        await checked(connection)
        assert await _halted(connection) is None


async def test_until_idle_ends_with_the_reason(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEYS_MAX", 2)
    async with prepared(database) as connection:
        await append(connection, [event(f"k{n}", "Bad") for n in range(10)])
        failed = await failure(database, poisoned, on_error="park")
        # Both lanes park, and may find it out together.
        assert re.search("[34] keys wait behind failed events, and no more than 2", str(failed))
        await assert_accounted(connection)


async def test_what_waits_counted_for_each_batch_alone_is_caught(
    database: str, monkeypatch: pytest.MonkeyPatch, plant: Callable[[str], None]
) -> None:
    plant("what_waits_counted_for_each_batch_alone")
    with found():
        await test_until_idle_ends_with_the_reason(database, monkeypatch)
