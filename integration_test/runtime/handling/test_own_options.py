"""What a projection says for itself: retries, time-out, what becomes of an event; else the process's word holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from integration_test.harness.checkers import checked
from integration_test.harness.connections import prepared
from integration_test.harness.in_process import event, failure, run_until_idle
from integration_test.harness.projections import record
from reactive_orch import Projection, append, projection
from reactive_orch.model.keys import WantedKeys
from reactive_orch.postgres import dead_letters

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection
    from reactive_orch import Event
    from reactive_orch.model.projections import OnError


def failing(name: str, retries: int | None = None, on_error: OnError | None = None) -> Projection:
    @projection(name, retries=retries, on_error=on_error)
    async def fails(_event: Event, _tx: Connection) -> None:
        raise LookupError

    return fails


async def test_retries_and_what_comes_then_are_the_projections_own(database: str) -> None:
    async with prepared(database) as connection:
        await append(connection, [event()])
        await run_until_idle(database, failing("stubborn", 3), failing("quick", 0), failing("plain"), retries=1)
        keys = await dead_letters.listed(connection, WantedKeys("test"))
        assert {key.projection: key.attempts for key in keys} == {"stubborn": 4, "quick": 1, "plain": 2}
        halted = await failure(database, failing("halting", 2, "halt"), retries=9, on_error="park")
        assert "'halting' failed at event position 1 in 3 attempts" in str(halted)
        await run_until_idle(database, failing("parking", 0, "park"), on_error="halt")


async def test_a_time_out_that_is_longer_than_the_processs_holds_for_the_server_too(database: str) -> None:
    """Both the statement and the pause last longer than any connection may take with the process's own time-out."""

    @projection("handled", timeout=30)
    async def patient(event: Event, tx: Connection) -> None:
        await record(tx, "handled", event)
        await tx.execute("SELECT pg_sleep(5.5)") if event.event_type == "Statement" else await asyncio.sleep(5.5)

    async with prepared(database) as connection:
        await append(connection, [event("a", "Statement"), event("b", "Pause")])
        await run_until_idle(database, patient, handler_timeout_s=0.1, retries=0, on_error="halt")
        await checked(connection)


async def test_a_time_out_that_is_shorter_ends_the_call_and_says_so(database: str) -> None:
    @projection("handled", timeout=0.2)
    async def impatient(_event: Event, tx: Connection) -> None:
        await tx.execute("SELECT pg_sleep(60)")

    async with prepared(database) as connection:
        await append(connection, [event()])
        failed = await failure(database, impatient)
        assert "the handler took longer than 0.2 s (timeout of its projection)" in str(failed)
