"""The wait for rows that others hold."""

from __future__ import annotations

import anyio

from integration_test.harness.connections import prepared
from reactive_orch import Config, Node
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.runtime.wakeup import Wakeup

NOT_THERE = Subscription("nobody", OWN_LOG)
"""A row that does not exist is answered at once."""


async def test_a_wait_that_is_given_up_during_a_pause_is_over(database: str) -> None:
    async with prepared(database), Node(Config(database_url=database)) as node:
        wakeup, row_wait = Wakeup(), node.row_wait
        for _ in range(8):  # each in vain, so that the pauses grow
            row_wait.set(wakeup, "test", NOT_THERE, frozenset({0}))
            assert await wakeup.wait(10)
        row_wait.set(wakeup, "test", NOT_THERE, frozenset({0}))
        await anyio.sleep(0.02)
        row_wait.set(wakeup, "test", NOT_THERE, frozenset())
        await anyio.sleep(0.5)  # longer than any pause: it ends with nobody waiting
        row_wait.set(wakeup, "test", NOT_THERE, frozenset({0}))
        assert await wakeup.wait(10), "who waits later is answered"
