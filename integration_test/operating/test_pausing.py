"""Projections that rest in their whole replica set: paused by people, halted by an event that has failed for good."""

from __future__ import annotations

from functools import partial

from integration_test.harness.checkers import checked, handled_by, wait_all_handle, wait_handled, wait_settled
from integration_test.harness.command_line import run
from integration_test.harness.connections import prepared
from integration_test.harness.load import Load, append_events
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import CURED, POISON
from integration_test.harness.waiting import wait_until

BOTH = ("handled", "handled_too")


async def said(url: str, *words: str) -> str:
    """Run a command about the projection `handled` and return what it says."""
    return (await run(*words, "--replica-set", "test", "--database-url", url)).done()


async def rests(worker: WorkerProcess, state: str) -> bool:
    return any(f"is {state}" in reason for reason in (await worker.health())["reasons"])


async def test_a_pause_holds_on_all_workers_and_outlasts_them(database: str) -> None:
    async with prepared(database) as connection:
        async with (
            WorkerProcess(database, "a", projections=BOTH) as a,
            WorkerProcess(database, "b", projections=BOTH) as b,
        ):
            await wait_settled(connection, members=2)
            async with Load(database):
                await wait_all_handle(connection, {"a", "b"})
            paused = await said(database, "pause", "--projection", "handled", "--reason", "a mistake in it")
            assert paused == "handled is paused\n"
            for worker in (a, b):
                await wait_until(partial(rests, worker, "paused"))
            await wait_handled(connection, "handled_too")
            before = await handled_by(connection)
            await append_events(connection, 200)
            await wait_handled(connection, "handled_too")
            assert await handled_by(connection) == before
            assert "paused since" in (status := await said(database, "status"))
            assert "a mistake in it" in status
            again = await said(database, "pause", "--projection", "handled", "--reason", "two\n\x1bmistakes")
            assert again == "handled was paused already, and its reason is this one now\n"
            assert "two \\x1bmistakes" in await said(database, "status")
        async with WorkerProcess(database, "c", projections=BOTH) as c:
            await c.ready()
            await wait_until(partial(rests, c, "paused"))
            await append_events(connection, 200)
            await wait_handled(connection, "handled_too")
            assert await handled_by(connection) == before
            assert await said(database, "resume", "--projection", "handled") == "handled was paused and runs again\n"
            await checked(connection, *BOTH)


async def test_paused_it_costs_nothing_until_idle(database: str) -> None:
    async with prepared(database) as connection:
        options = ("--until-idle",)
        async with WorkerProcess(database, "a", projections=BOTH, options=options) as worker:
            assert await worker.wait() == 0
        await said(database, "pause", "--projection", "handled")
        await append_events(connection, 100)
        async with WorkerProcess(database, "b", projections=BOTH, options=options) as worker:
            assert await worker.wait() == 0
        await wait_handled(connection, "handled_too")
        assert await handled_by(connection) == {}


async def test_halted_a_projection_rests_while_its_worker_goes_on(database: str) -> None:
    options = ("--retries", "1", "--on-error", "halt")
    projections = ("failing", "handled")
    async with prepared(database) as connection:
        async with (
            WorkerProcess(database, "a", projections=projections, options=options) as a,
            WorkerProcess(database, "b", projections=projections, options=options) as b,
        ):
            await wait_settled(connection, members=2)
            await append_events(connection, 1, event_type=POISON)
            for worker in (a, b):
                await wait_until(partial(rests, worker, "halted"))
            await append_events(connection, 100)
            await wait_handled(connection)
            attempts = [line for worker in (a, b) for line in worker.log if line.startswith("attempt at")]
            assert len(attempts) <= 4, (
                "nobody runs into the same wall: another worker has tried it once, before it was halted"
            )
        assert "RuntimeError: this event is poison" in await said(database, "status")
        async with WorkerProcess(database, "c", projections=projections, env={CURED: "1"}) as c:
            await c.ready()
            await wait_until(partial(rests, c, "halted"))
            assert await said(database, "resume", "--projection", "failing") == "failing was halted and runs again\n"
            await checked(connection, *projections)
            await wait_until(partial(well, c))


async def well(worker: WorkerProcess) -> bool:
    return bool((await worker.health())["health"] == "ok")


async def test_an_unknown_projection_is_named(database: str) -> None:
    refused = await run("pause", "--replica-set", "test", "--projection", "nothing", "--database-url", database)
    assert refused.complaint() == "there is no replica set 'test'; there is none yet"
    listed = await run("dead-letters", "list", "--replica-set", "test", "--json", "--database-url", database)
    assert listed.complaint() == "there is no replica set 'test'; there is none yet"
