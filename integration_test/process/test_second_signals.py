"""A second signal ends a worker at once, and says what that means; another one handles what it had in hand."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.checkers import assert_each_once, handled_by, wait_handled
from integration_test.harness.connections import prepared
from integration_test.harness.load import append_events, gate_closed
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from integration_test.harness.load import AtGate

AT_GATE = "handled_at_gate"


async def some(waiting: AtGate) -> bool:
    return bool(await waiting())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_what_was_in_hand_is_handled_by_others(database: str, number: signal.Signals) -> None:
    async with prepared(database) as connection:
        async with gate_closed(database) as waiting, WorkerProcess(database, "a", projections=(AT_GATE,)) as worker:
            await worker.ready()
            await append_events(connection, 10)
            await wait_until(partial(some, waiting))
            worker.send(number)
            await wait_until(partial(_leaves, worker))
            worker.send(number)
            assert await worker.wait() == 1
            await worker.said("a second signal: ended at once")
        async with WorkerProcess(database, "b", projections=(AT_GATE,)):
            await wait_handled(connection, AT_GATE)
        await assert_each_once(connection, AT_GATE)
        assert set(await handled_by(connection, AT_GATE)) == {"b"}


async def _leaves(worker: WorkerProcess) -> bool:
    return bool((await worker.health())["status"] == "stopping")
