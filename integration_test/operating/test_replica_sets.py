"""Replica sets that nobody needs any more are found and removed; those that somebody works for are not."""

from __future__ import annotations

import json
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from integration_test.harness.checkers import checked, wait_settled
from integration_test.harness.command_line import run
from integration_test.harness.connections import prepared
from integration_test.harness.in_process import event, run_until_idle, serving
from integration_test.harness.load import append_events
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import recorder
from integration_test.harness.proxy import Proxy
from integration_test.harness.waiting import wait_until
from reactive_orch import ConfigError, Event, append, projection
from reactive_orch.postgres import replica_sets

if TYPE_CHECKING:
    from integration_test.harness.command_line import Ended
    from integration_test.harness.connections import Connection

_NAMED = """
SELECT c.relname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attname = 'replica_set' AND c.relkind = 'r' AND c.relnamespace = 'reactive_orch'::regnamespace ORDER BY 1
"""


@projection("poisoned")
async def poisoned(event: Event, _tx: Connection) -> None:
    if event.event_type == "Bad":
        raise LookupError


async def said(url: str, *words: str) -> Ended:
    return await run("replica-sets", *words, "--database-url", url)


async def listed(url: str) -> list[dict[str, Any]]:
    known: list[dict[str, Any]] = json.loads((await said(url, "list", "--json")).done())
    return known


async def _left(connection: Connection, replica_set: str) -> dict[str, int]:
    """Return table → rows of a replica set, for all tables that name one."""
    tables = [row["relname"] for row in await connection.fetch(_NAMED)]
    of = "SELECT count(*) FROM reactive_orch.{} WHERE replica_set = $1"
    counts = {name: await connection.fetchval(of.format(name), replica_set) for name in tables}
    assert len(counts) >= 9
    return {name: count for name, count in counts.items() if count}


async def test_one_that_is_worked_for_stays_and_one_that_is_not_goes_with_all_it_had(database: str) -> None:
    async with prepared(database) as connection:
        assert (await said(database, "list")).done() == "no replica sets\n"
        await append(connection, [event("k", "Bad"), event("k"), event("good")])
        await run_until_idle(database, poisoned, recorder("handled"), retries=0)
        async with WorkerProcess(database, "a", replica_set="other") as worker:
            await worker.ready()
            other, one = await listed(database)
            assert (other["name"], other["workers"], other["projections"]) == ("other", 1, ["handled"])
            assert (one["name"], one["workers"], one["failing_keys"]) == ("test", 0, 1)
            refused = (await said(database, "remove", "--replica-set", "other", "--yes")).complaint()
            assert refused.startswith("workers run it that live, or did so a moment ago: ")
            assert "say so with --yes" in (await said(database, "remove", "--replica-set", "test")).complaint()
            before = await _left(connection, "other")
            done = (await said(database, "remove", "--replica-set", "test", "--yes")).done()
            assert done == "replica set test is removed, with 2 projections and 2 events that waited\n"
            assert await _left(connection, "test") == {}
            assert not await connection.fetchval("SELECT count(*) FROM reactive_orch.dead_letters")
            assert await _left(connection, "other") == before
            assert [each["name"] for each in await listed(database)] == ["other"]
        assert "takes no option but --json" in (await said(database, "list", "--replica-set", "other")).complaint()
        unknown = (await said(database, "remove", "--replica-set", "test", "--yes")).complaint()
        assert unknown == "there is no replica set 'test'; there are other"


async def test_a_projection_goes_while_its_replica_set_works_on(database: str) -> None:
    async with prepared(database) as connection:
        await append(connection, [event("k", "Bad"), event("good")])
        await run_until_idle(database, poisoned, retries=0)
        async with WorkerProcess(database, "a") as worker:
            await worker.ready()
            remove = ("remove", "--replica-set", "test", "--yes", "--projection")
            assert "workers run it that live" in (await said(database, *remove, "handled")).complaint()
            assert "has no projection 'x'" in (await said(database, *remove, "x")).complaint()
            done = (await said(database, *remove, "poisoned")).done()
            assert done == "projection poisoned of replica set test is removed, with 1 event that waited\n"
            assert [each["projections"] for each in await listed(database)] == [["handled"]]
            await append_events(connection, 100)
            await checked(connection)
            assert not (await worker.health())["reasons"]
        await run_until_idle(database, poisoned, retries=0)
        assert [each["failing_keys"] for each in await listed(database)] == [1], "it begins from the beginning again"


async def test_what_a_living_worker_waits_for_is_not_removed(database: str) -> None:
    """It was refused for its filter: removed, the projection would be run by nobody and known to nobody."""

    @projection("poisoned", event_types=["Rare"])
    async def changed(_event: Event, _tx: Connection) -> None: ...

    async with prepared(database) as connection:
        await run_until_idle(database, poisoned)
        async with serving(database, changed, recorder("handled")):
            await wait_settled(connection, members=1)
            with pytest.raises(ConfigError, match="a worker waits for 'poisoned' with another filter"):
                await replica_sets.remove(connection, "test", "poisoned")
        assert await replica_sets.remove(connection, "test", "poisoned") == (1, 0)


async def test_a_worker_that_has_just_died_may_be_replaced_and_is_waited_for(database: str) -> None:
    async with prepared(database) as connection:
        async with WorkerProcess(database, "a") as worker:
            await worker.ready()
            worker.send(signal.SIGKILL)
            await worker.wait()
        with pytest.raises(ConfigError, match="or did so a moment ago: "):
            await replica_sets.remove(connection, "test")
        await connection.execute("UPDATE reactive_orch.members SET heartbeat_at = heartbeat_at - interval '1 day'")
        assert await replica_sets.remove(connection, "test") == (1, 0)
        assert await _left(connection, "test") == {}


async def test_whoever_comes_back_after_that_ends_and_says_why(database: str) -> None:
    async def removed(connection: Connection) -> bool:
        await connection.execute("UPDATE reactive_orch.members SET heartbeat_at = heartbeat_at - interval '1 day'")
        try:
            await replica_sets.remove(connection, "test")
        except ConfigError:
            return False
        return True

    async with (
        prepared(database) as connection,
        Proxy(database) as proxy,
        WorkerProcess(proxy.url(), "a") as worker,
    ):
        await worker.ready()
        proxy.hold()
        proxy.cut()
        await wait_until(partial(removed, connection))
        proxy.accept()
        assert await worker.wait() == 2
        await worker.said(
            r"reactive_orch: (replica set 'test'|projection handled of replica set test) has been removed; "
            r"a worker that is started makes it anew"
        )
        assert await _left(connection, "test") == {}
