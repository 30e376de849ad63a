"""Old events may go, and payloads may be erased, as docs/operations.md says: nobody misses them, and nothing stops."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from integration_test.harness.checkers import handled_by
from integration_test.harness.command_line import run
from integration_test.harness.connections import prepared
from integration_test.harness.in_process import event, run_until_idle, serving
from integration_test.harness.projections import record, recorder
from integration_test.harness.waiting import wait_until
from reactive_orch import Event, append, dead_letters, projection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integration_test.harness.connections import Connection


async def log_of(url: str) -> dict[str, Any]:
    """Return what `status --json` says of the log."""
    log: dict[str, Any] = json.loads((await run("status", "--json", DATABASE_URL=url)).done())["logs"][0]
    return log


def careful(payloads: Sequence[bytes] = ()) -> Any:
    """Return a projection that fails at bad events until their payload is one of these."""

    @projection("handled")
    async def handled(event: Event, tx: Connection) -> None:
        await record(tx, "handled", event)
        if event.event_type == "Bad" and event.payload not in payloads:
            raise LookupError

    return handled


async def _handled(connection: Connection, *positions: int) -> bool:
    return set().union(*(await handled_by(connection)).values()) == set(positions)


async def test_what_all_have_handled_may_go_and_what_waits_may_not(database: str) -> None:
    async with prepared(database) as connection:
        await append(
            connection, [event("a"), event("b"), event("c", "Bad", b"ada@example.org"), event("d"), event("c")]
        )
        assert (await log_of(database))["deletable_to"] is None, "nobody has read it"
        await run_until_idle(database, recorder("handled_too"))
        assert (await log_of(database))["deletable_to"] == 5
        await run_until_idle(database, careful(), retries=0)
        assert (await log_of(database))["deletable_to"] == 2, "the third one waits"
        assert "; may be deleted up to position 2\n" in (await run("status", DATABASE_URL=database)).done()
        await connection.execute("DELETE FROM reactive_orch.events WHERE global_position <= 2")
        await connection.execute("UPDATE reactive_orch.events SET payload = '' WHERE aggregate_id = 'c'")

        async with serving(database, careful([b""])):
            await append(connection, [event("e")])
            await wait_until(partial(_handled, connection, 1, 2, 4, 6))
            keys = await dead_letters.listed(connection, "test")
            await dead_letters.retry(connection, "test", keys, by="a test")
            await wait_until(partial(_handled, connection, 1, 2, 3, 4, 5, 6))
        said = await log_of(database)
        assert (said["head"], said["settled"]) == (6, 6)
        assert said["deletable_to"] == 5, "another projection has not seen the sixth"
        await run_until_idle(database, recorder("new"))
        new = set().union(*(await handled_by(connection, "new")).values())
        assert new == {3, 4, 5, 6}, "what has gone is missing to whom comes later"
