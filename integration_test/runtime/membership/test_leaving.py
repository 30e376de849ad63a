"""What a worker that is asked to stop says: for whom it waits, and whom it has waited for in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from integration_test.harness.connections import prepared
from integration_test.harness.in_process import event, serving
from integration_test.harness.waiting import wait_until
from reactive_orch import append, projection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from integration_test.harness.connections import Connection
    from reactive_orch import Event


@pytest.mark.parametrize(("grace_s", "abandoned"), [(0.3, True), (30.0, False)])
async def test_whom_it_waits_for(
    database: str, caplog: pytest.LogCaptureFixture, grace_s: float, *, abandoned: bool
) -> None:
    begun, goes_on = anyio.Event(), anyio.Event()

    @projection("mails")
    async def mails(_event: Event, _tx: Connection) -> None:
        begun.set()
        await goes_on.wait()

    caplog.set_level("INFO", "reactive_orch")
    async with prepared(database) as connection:
        await append(connection, [event()])
        partition = await connection.fetchval("SELECT partition FROM reactive_orch.events")
        async with serving(database, mails, grace_s=grace_s) as worker:
            await begun.wait()
            worker.stop()
            await wait_until(says(caplog, "has left"))
            if not abandoned:
                goes_on.set()
    of = f"the batches of projection mails, partition {partition}"
    (left,) = [line for line in caplog.messages if "has left" in line]
    assert left == f"worker 1 has left test; waiting at most {grace_s:g} s for {of}"
    given_up = f"not waiting any longer for {of}: they are rolled back, and others handle their events"
    assert (given_up in caplog.messages) == abandoned


def says(caplog: pytest.LogCaptureFixture, words: str) -> Callable[[], Awaitable[bool]]:
    async def said() -> bool:
        return any(words in line for line in caplog.messages)

    return said


async def test_nothing_is_said_where_nothing_is_in_hand(database: str, caplog: pytest.LogCaptureFixture) -> None:
    @projection("mails")
    async def mails(_event: Event, _tx: Connection) -> None: ...

    caplog.set_level("INFO", "reactive_orch")
    async with serving(database, mails):
        await wait_until(says(caplog, "adopted in"))
    assert [line for line in caplog.messages if "has left" in line or "waiting" in line] == ["worker 1 has left test"]
