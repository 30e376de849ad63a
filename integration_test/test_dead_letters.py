"""Failing keys as an application sees them and acts on them; and what the command says while it waits."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.checkers import assert_accounted, checked
from integration_test.harness.command_line import FAILED, run, started
from integration_test.harness.connections import prepared
from integration_test.harness.in_process import event, run_until_idle, serving
from integration_test.harness.projections import record
from integration_test.harness.waiting import wait_until
from reactive_orch import ConfigError, append, dead_letters, projection
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.postgres import projections

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection
    from reactive_orch import Event, Projection


def handling(mended: list[str]) -> Projection:
    @projection("handled", retries=0)
    async def handled(event: Event, tx: Connection) -> None:
        await record(tx, "handled", event)
        if event.event_type == "Bad" and event.aggregate_id not in mended:
            raise LookupError(event.aggregate_id)

    return handled


async def _append(connection: Connection) -> None:
    await append(connection, [event(key, "Bad") for key in ("a", "b", "c")])
    await append(connection, [event(key) for key in ("a", "b", "c", "d")])


async def test_an_application_lists_retries_skips_and_discards(database: str) -> None:
    mended: list[str] = []
    async with prepared(database) as connection, serving(database, handling(mended)):
        await _append(connection)
        await wait_until(partial(_parked, connection, 3))
        keys = {key.key.aggregate_id: key for key in await dead_letters.listed(connection, "test")}
        assert [(key.events, key.failure.error_type, key.failure.message) for key in keys.values()] == [
            (2, "LookupError", name) for name in ("a", "b", "c")
        ]
        assert f'File "{__file__}", line ' in keys["a"].failure.traceback
        (only,) = await dead_letters.listed(
            connection, "test", projection="handled", key="b", aggregate_type="Adversity"
        )
        assert only.id == keys["b"].id

        assert await dead_letters.retry(connection, "test", [keys["a"]], by="test") == 1
        assert await dead_letters.done(connection, [keys["a"]]) == 1, "failed again"
        mended.append("a")
        await dead_letters.retry(connection, "test", [keys["a"]], by="test")
        await dead_letters.skip(connection, "test", [keys["b"]], by="test")
        await dead_letters.discard(connection, "test", [keys["c"]], by="an admin page")
        assert await dead_letters.done(connection, list(keys.values())) == 0
        assert await dead_letters.listed(connection, "test") == []
        with pytest.raises(ConfigError, match="there is no replica set 'tset'; there are test"):
            await dead_letters.listed(connection, "tset")
        with pytest.raises(ConfigError, match="replica set test has no projection 'handle'; there are handled"):
            await dead_letters.listed(connection, "test", projection="handle")
        await assert_accounted(connection)
        left_out = await connection.fetch("SELECT aggregate_id, requested_by FROM reactive_orch.discarded_events")
        assert sorted(map(tuple, left_out)) == [("b", "test"), ("c", "an admin page"), ("c", "an admin page")]
        assert await dead_letters.retry(connection, "test", [keys["a"]], by="test") == 0, (
            "it is no failing key any more"
        )


async def _parked(connection: Connection, number: int) -> bool:
    try:
        keys = await dead_letters.listed(connection, "test")
    except ConfigError:  # no worker has registered yet
        return False
    return len(keys) == number and all((key.state, key.events) == ("parked", 2) for key in keys)


async def test_nothing_is_asked_for_by_a_transaction_that_is_rolled_back(database: str) -> None:
    mended: list[str] = []
    async with prepared(database) as connection:
        await _append(connection)
        await run_until_idle(database, handling(mended))
        keys = await dead_letters.listed(connection, "test")
        transaction = connection.transaction()
        await transaction.start()
        await dead_letters.discard(connection, "test", keys, by="test")
        await transaction.rollback()
        assert {key.request for key in await dead_letters.listed(connection, "test")} == {None}


async def test_it_is_said_once_what_keeps_the_workers_from_it_and_waited_for(database: str) -> None:
    mended: list[str] = []
    of = "test", Subscription("handled", OWN_LOG)
    async with prepared(database) as connection:
        await _append(connection)
        async with serving(database, handling(mended)):
            await wait_until(partial(_parked, connection, 3))
            assert await dead_letters.hindrance(connection, "test", "handled") is None
            await projections.set_state(connection, *of, projections.StateChange("paused", "", "test"))
            acting = ("dead-letters", "retry", "--replica-set", "test", "--projection", "handled", "--key", "a")
            mended.append("a")
            async with started(*acting, "--wait", DATABASE_URL=database) as waiting:
                assert waiting.stderr is not None
                said = await asyncio.wait_for(waiting.stderr.readline(), 30)
                assert said == b"projection handled is paused: nothing of it is handled before it is resumed\n"
                await projections.set_state(connection, *of, projections.StateChange("running"))
                out, err = await waiting.communicate()
            assert (waiting.returncode, out.splitlines()[-1], err) == (0, b"done", b"")
            again = await run(*acting[:-1], "b", "--wait", DATABASE_URL=database)
            assert again.complaint(FAILED) == "1 key of 1 failed again: dead-letters list shows why"
        said_of = await dead_letters.hindrance(connection, "test", "handled")
        assert said_of == "no worker of test runs projection handled: nothing of it is handled before one does"
        assert await dead_letters.hindrance(connection, "test", "none") == "replica set test has no projection none"
        mended += ["b", "c"]
        await dead_letters.retry(connection, "test", await dead_letters.listed(connection, "test"), by="test")
        await run_until_idle(database, handling(mended))
        await checked(connection)
