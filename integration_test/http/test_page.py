"""What a worker's page is fed with, by real workers; the page itself is looked at in a browser elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import aiohttp
import anyio
import pytest

from integration_test.harness.command_line import run
from integration_test.harness.connections import as_role, connected, prepared
from integration_test.harness.in_process import run_until_idle
from integration_test.harness.load import append_events
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import POISON, recorder
from integration_test.harness.viewers import merged, watching
from integration_test.harness.waiting import wait_until
from integration_test.http import hostile
from reactive_orch.http import feed, page
from reactive_orch.looking import eyes
from reactive_orch.postgres import overview as looking
from reactive_orch.postgres.channels import GENERATIONS_CHANNEL
from reactive_orch.postgres.grants import grants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from integration_test.harness.cluster import Cluster
    from integration_test.harness.connections import Connection

VIEWERS = 50
PAGES_CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ ':page:'
"""


async def got(worker: WorkerProcess, path: str, **headers: str) -> tuple[int, str, Any]:
    """Return an answer's status, text and headers."""
    assert worker.health_url is not None
    async with (
        aiohttp.ClientSession() as session,
        session.get(urljoin(worker.health_url, path), headers=headers) as response,
    ):
        return response.status, await response.text(), response.headers


def owners(page: dict[str, Any]) -> set[int]:
    return set(page["projections"]["handled@1"]["owners"])


async def test_a_kill_moves_what_the_dead_had_and_nothing_else(database: str) -> None:
    async with prepared(database), WorkerProcess(database, "a") as a:
        await a.ready()
        async with WorkerProcess(database, "b") as b, watching(a.health_url) as (viewer,):
            await b.ready()
            await viewer.shows(lambda page: owners(page) == {1, 2})
            mine = await b.member()
            b.send(signal.SIGKILL)
            await b.wait()
            await viewer.shows(lambda page: mine not in owners(page))
            await viewer.shows(lambda page: page["workers"][str(mine)]["state"] == "dead")
            number = max(map(int, viewer.page["generations"]))
            assert viewer.page["generations"][str(number)]["reason"] == "death"
            moved = viewer.page["projections"]["handled@1"]["moved"]
            assert moved.count(number) == 32, "those of the dead one, and no others"
            await viewer.shows(lambda page: str(mine) not in page["workers"])
            assert viewer.snapshots == 1, "all else were patches"


def feed_of(database: str) -> feed.Feed:
    """Return one in this process."""

    def connect(_: bool) -> AbstractAsyncContextManager[Connection]:  # noqa: FBT001 - as eyes call it
        return connected(database)

    return feed.Feed(connect, "test", dict)


async def test_a_rebalance_is_shown_when_it_happens_not_by_the_clock(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eyes, "LOOK_EVERY_S", 1000.0)
    async with prepared(database), WorkerProcess(database, "a") as a, anyio.create_task_group() as tasks:
        await a.ready()
        one = feed_of(database)
        async with one.watched(tasks, asyncio.Event().set) as messages:
            page: dict[str, Any] = {}

            async def until(expected: set[int]) -> None:
                nonlocal page
                while not page or owners(page) != expected:
                    page = merged(page, json.loads((await messages.receive()).partition(b"data: ")[2]))

            await until({1})
            async with WorkerProcess(database, "b") as b:
                await until({1, 2})
                b.send(signal.SIGKILL)
                await until({1})
        tasks.cancel_scope.cancel()


async def test_who_comes_as_the_last_one_leaves_is_told_at_once(database: str) -> None:
    leaving = asyncio.Event()

    @contextlib.asynccontextmanager
    async def slow_to_leave(_: bool) -> AsyncIterator[Connection]:  # noqa: FBT001 - as eyes call it
        async with connected(database) as connection:
            yield connection
        leaving.set()
        await anyio.sleep(0.1)

    async with prepared(database), WorkerProcess(database, "a") as a, anyio.create_task_group() as tasks:
        await a.ready()
        one = feed.Feed(slow_to_leave, "test", dict)
        for _ in range(2):
            async with one.watched(tasks, asyncio.Event().set) as messages:
                for _ in range(2):
                    assert b'"away"' not in await messages.receive()
            await leaving.wait()
            leaving.clear()
        tasks.cancel_scope.cancel()


async def test_a_replica_set_that_begins_anew_has_its_own_generations(database: str) -> None:
    async with prepared(database) as connection:
        known = feed.Known()

        async def shown() -> list[tuple[int, str | None]]:
            found = await known.sighted(connection, "test", await looking.look(connection, "test"))
            return [(row.number, row.traceparent) for row, _ in found.rebalances]

        for _ in range(2):
            await run_until_idle(database, recorder("handled"))
        before = await shown()
        await connection.execute("SELECT reactive_orch.remove_replica_set('test')")
        await run_until_idle(database, recorder("handled"))
        after = await shown()
        assert 0 < len(after) < len(before)
        assert not {*after} & {*before}, "as they are now, not as those of the same numbers were"


async def test_fifty_viewers_cost_the_database_no_more_than_one_and_none_costs_nothing(database: str) -> None:
    async def looked_on(connection: Connection, count: int) -> bool:
        return bool(await connection.fetchval(PAGES_CONNECTIONS) == count)

    async with prepared(database) as connection, WorkerProcess(database, "a") as a:
        await a.ready()
        assert await looked_on(connection, 0)
        async with watching(a.health_url, viewers=VIEWERS) as viewers:
            for each in viewers:
                await each.shows(owners)
            assert await looked_on(connection, 1)
            before = viewers[0].patches
            await append_events(connection, 10)
            for each in viewers:
                await each.shows(lambda page: page["logs"]["events"]["settled"] == 10)
            assert {each.page["at"] for each in viewers} == {viewers[0].page["at"]}, "all are told of the same look"
            assert viewers[0].patches > before
        await wait_until(lambda: looked_on(connection, 0), what="nobody looks any more")


async def test_the_database_away_and_back(cluster: Cluster, database: str) -> None:
    async with prepared(database), WorkerProcess(database, "a") as a:
        await a.ready()
        async with watching(a.health_url) as (viewer,):
            await viewer.shows(owners)
            await asyncio.to_thread(cluster.stop, "immediate")
            await viewer.shows(lambda page: page["database"]["state"] == "away")
            assert owners(viewer.page) == {1}, "as it was"
            await asyncio.to_thread(cluster.start)
            await viewer.shows(lambda page: page["database"]["state"] == "connected")
            await viewer.shows(lambda page: page["workers"]["1"]["state"] == "serving")
            assert viewer.snapshots == 1


async def test_what_fails_is_shown_with_its_line_and_its_payload_only_if_asked_for(database: str) -> None:
    options = ("--retries", "0")
    async with prepared(database) as connection:
        async with WorkerProcess(database, "a", projections=["poisoned"], options=options) as a:
            await a.ready()
            await append_events(connection, 1, event_type=POISON)
            async with watching(a.health_url) as (viewer,):
                await viewer.shows(lambda page: page["failures"])
                (cause,) = viewer.page["failures"]
                assert cause["keys"] == cause["parked_keys"] == 1
                assert cause["at_line"].rpartition(":")[0].endswith("projections.py")
                assert sum(viewer.page["projections"]["poisoned@1"]["parked"].values()) == 1
                assert cause["commands"]["show"].endswith("dead-letters show --replica-set test --projection poisoned")
            _, text, _ = await got(a, "/dead-letters?projection=poisoned")
            (key,) = json.loads(text)["keys"]
            assert key["state"] == "parked"
            assert key["event"]["type"] == POISON
            assert "payload" not in key["event"]
            assert (await run(*key["commands"]["retry"].split()[3:], DATABASE_URL=database)).code == 0
            await a.stop()
        async with WorkerProcess(database, "b", projections=["poisoned"], options=(*options, "--page-payloads")) as b:
            await b.ready()
            _, text, _ = await got(b, "/dead-letters")
            assert "payload" in json.loads(text)["keys"][0]["event"]


async def test_status_is_what_the_command_says(database: str) -> None:
    async with prepared(database), WorkerProcess(database, "a") as a:
        await a.ready()
        status, text, _ = await got(a, "/status")
        said = json.loads((await run("status", "--json", DATABASE_URL=database)).done())
        assert status == 200
        told = json.loads(text)
        assert told.keys() == said.keys()
        assert told["replica_sets"][0]["projections"][0].keys() == said["replica_sets"][0]["projections"][0].keys()
        assert told["replica_sets"][0]["workers"][0]["id"] == said["replica_sets"][0]["workers"][0]["id"]


async def test_other_replica_sets_can_be_chosen(database: str) -> None:
    async with prepared(database), WorkerProcess(database, "a") as a, WorkerProcess(database, "b", "other") as b:
        await a.ready()
        await b.ready()
        async with watching(a.health_url, "?replica_set=other") as (viewer,):
            await viewer.shows(lambda page: page["replica_sets"] == ["other", "test"])
            assert viewer.page["workers"].keys() == {str(await b.member())}
        assert (await got(a, "/events?replica_set=nobody"))[0] == 404


@pytest.mark.parametrize("path", ["/", "/events", "/status", "/dead-letters", "/static/js/main.js"])
async def test_who_was_led_here_by_another_site_gets_nothing(database: str, path: str) -> None:
    async with prepared(database), WorkerProcess(database, "a", options=("--page-host", "orders.example")) as a:
        await a.ready()
        assert a.health_url is not None
        here = a.health_url.split("/")[2]
        for headers in ({"Host": "rebound.example"}, {"Host": here, "Origin": "http://rebound.example"}):
            status, text, _ = await got(a, path, **headers)
            assert status == 403
            assert "error" in json.loads(text)
        for headers in ({"Host": "orders.example"}, {"Host": here, "Origin": f"http://{here}"}):
            if path != "/events":
                status, _, answered = await got(a, path, **headers)
                assert status == 200
                assert "frame-ancestors 'none'" in answered["Content-Security-Policy"]
                assert answered["X-Content-Type-Options"] == "nosniff"
                assert answered["Referrer-Policy"] == "no-referrer"


async def test_there_need_not_be_a_page(database: str) -> None:
    async with prepared(database), WorkerProcess(database, "a", options=("--no-page",)) as a:
        await a.ready()
        assert [(await got(a, path))[0] for path in ("/", "/events", "/status", "/dead-letters")] == [404] * 4
        assert not [line for line in a.log if "page http" in line]


async def test_a_workers_role_may_look(database: str) -> None:
    async with prepared(database) as connection:
        name = f"looks_{database.rpartition('/')[2]}"
        await connection.execute(f"CREATE ROLE {name} LOGIN; GRANT ALL ON handled TO {name}; {grants(name, 'worker')}")
        try:
            async with WorkerProcess(as_role(name, database), "a") as a:
                await a.ready()
                async with watching(a.health_url) as (viewer,):
                    await viewer.shows(lambda page: page["database"]["reason"] or owners(page))
                    assert viewer.page["database"]["state"] == "connected", viewer.page["database"]
                assert (await got(a, "/status"))[0] == 200
                assert (await got(a, "/dead-letters"))[0] == 200
        finally:
            await connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_an_error_of_the_driver_is_at_the_users_line(database: str) -> None:
    module = f"{hostile.__name__}:mistyped"
    async with prepared(database) as connection, WorkerProcess(database, "a", projections=[module]) as a:
        await a.ready()
        await append_events(connection, 1)
        async with watching(a.health_url) as (viewer,):
            await viewer.shows(lambda page: page["failures"])
            (cause,) = viewer.page["failures"]
            assert cause["error"] == "DataError"
            assert cause["at_line"].rpartition(":")[0] == str(Path(hostile.__file__))


async def test_many_that_ask_share_a_few_connections(database: str) -> None:
    async with prepared(database) as connection, WorkerProcess(database, "a") as a:
        await a.ready()
        paths = ["/status", "/events?replica_set=nobody", "/dead-letters", "/dead-letters?replica_set=nobody"] * 25
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, await connection.fetchval(PAGES_CONNECTIONS))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            answers = await asyncio.gather(*(got(a, path) for path in paths))
            tasks.cancel_scope.cancel()
        assert {status for status, _, _ in answers} <= {200, 404, 503}
        assert [
            status for path, (status, _, _) in zip(paths, answers, strict=True) if "nobody" in path and status == 200
        ] == []
        assert 1 <= most <= page.CONNECTIONS_MOST


@pytest.mark.parametrize("path", ["/dead-letters?projection=%00", "/events?replica_set=a%00b"])
async def test_what_no_text_of_the_database_has_is_refused(database: str, path: str) -> None:
    async with prepared(database), WorkerProcess(database, "a") as a:
        await a.ready()
        assert (await got(a, path))[0] == 400


async def test_a_lock_is_called_one_and_the_page_comes_back(database: str) -> None:
    async with prepared(database), WorkerProcess(database, "a") as a:
        await a.ready()
        async with watching(a.health_url) as (viewer,):
            await viewer.shows(owners)
            async with connected(database) as other, other.transaction():
                await other.execute("LOCK TABLE reactive_orch.projections")
                await viewer.shows(lambda page: page["database"]["headline"] == "The page waits for a lock")
                assert "projections" in viewer.page["database"]["reason"]
            await viewer.shows(lambda page: page["database"]["state"] == "connected")


async def test_a_worker_that_leaves_dismisses_its_viewers(database: str) -> None:
    async with prepared(database), WorkerProcess(database, "a") as a:
        await a.ready()
        async with watching(a.health_url, viewers=3) as viewers:
            for each in viewers:
                await each.shows(owners)
            await a.stop()

            async def dismissed() -> bool:
                return all(each.dismissed for each in viewers)

            await wait_until(dismissed)


async def test_a_viewer_that_takes_nothing_is_cut_and_the_others_go_on(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "BACKLOG", 2)
    cut, told = asyncio.Event(), 0
    async with prepared(database) as connection, WorkerProcess(database, "a") as a, anyio.create_task_group() as tasks:
        await a.ready()
        one = feed_of(database)
        async with one.watched(tasks, asyncio.Event().set) as quick, one.watched(tasks, cut.set):
            while not cut.is_set():
                await connection.execute("SELECT pg_notify($1, 'test')", GENERATIONS_CHANNEL)
                await quick.receive()
                told += 1
            assert told == 3, "a snapshot and a patch waited for it; the next patch was too many"
            await quick.receive()
