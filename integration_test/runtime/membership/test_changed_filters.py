"""A filter that has changed: who is refused waits for the word, and takes up then what others give up."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from integration_test.harness.checkers import checked, handled_by, owners, wait_handled, wait_settled
from integration_test.harness.command_line import run
from integration_test.harness.connections import connected, prepared
from integration_test.harness.health import OUT, WELL, running, says
from integration_test.harness.in_process import run_until_idle
from integration_test.harness.load import append_events
from integration_test.harness.projections import recorder
from integration_test.harness.waiting import wait_until
from reactive_orch import Filter, Projection
from reactive_orch.core import health
from reactive_orch.errors import ConfigError
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.postgres import membership, rewinds
from reactive_orch.postgres.database import STATEMENT_TIMEOUT_S

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection
    from reactive_orch import Worker
    from reactive_orch.model.problems import Problem

CHANGED = Subscription("changed", OWN_LOG)
LOOK = "NOTIFY reactive_orch_generations, 'test'"
WAITS = "nothing to run until a filter is accepted"
REFUSED = "projection changed is recorded with another filter"


def changed(worker: str, aggregate_type: str | None = None) -> Projection:
    """Return the projection, with a filter that lets all events of the tests pass, or without one."""
    only = Filter() if aggregate_type is None else Filter(aggregate_types=(aggregate_type,))
    return replace(recorder("changed", worker=worker), filter=only)


async def rewind(connection: Connection, to: int | None = None) -> None:
    await rewinds.rewind(connection, "test", CHANGED, to)


async def proposed(connection: Connection) -> bool:
    return bool(
        await connection.fetchval("SELECT proposed IS NOT NULL FROM reactive_orch.projections WHERE name = 'changed'")
    )


async def none_proposed(connection: Connection) -> bool:
    return not await proposed(connection)


async def test_who_is_refused_takes_it_up_and_who_has_the_old_filter_does_not_take_it_back(database: str) -> None:
    async with (
        prepared(database) as connection,
        running(database, recorder("handled", worker="old"), changed("old")) as (_, old),
    ):
        await wait_until(says(old, WELL))
        async with running(database, changed("new", "Key")) as (_, new):
            await wait_until(says(new, OUT, WAITS))
            status = (await run("status", DATABASE_URL=database)).done()
            accepts = "refused: a worker came with another filter, which rewind --to keep accepts"
            assert f'    {accepts}: {{"aggregate_types": ["Key"]' in status
            await append_events(connection, 100)
            await wait_handled(connection, "changed")
            assert set(await handled_by(connection, "changed")) == {"old"}
            await rewind(connection)
            await wait_until(says(new, WELL))
            await wait_until(says(old, WELL, REFUSED))
            await append_events(connection, 100)
            await checked(connection, "changed", "handled")
            assert {name: len(found) for name, found in (await handled_by(connection, "changed")).items()} == {
                "old": 100,
                "new": 100,
            }
            assert set(await handled_by(connection)) == {"old"}
            assert not await proposed(connection), "the next rewind is not to bring the old filter back"
            await connection.execute("DELETE FROM handled WHERE projection = 'changed'")
            await rewind(connection, 0)
            await append_events(connection, 100)
            await wait_handled(connection, "changed")
            assert set(await handled_by(connection, "changed")) == {"new"}


async def test_after_a_roll_back_the_command_that_is_printed_brings_the_old_filter_back(database: str) -> None:
    """And nothing else does: workers that were refused say what they would run it with when nobody does, no more."""
    words = ("rewind", "--replica-set", "test", "--projection", "changed", "--to")
    async with (
        prepared(database) as connection,
        running(database, recorder("handled", worker="old"), changed("old")) as (_, old),
        contextlib.AsyncExitStack() as stack,
    ):
        await wait_until(says(old, WELL))
        _, new = await stack.enter_async_context(running(database, changed("new", "Key")))
        await wait_until(says(new, OUT, WAITS))
        assert refusal(new).level == "warn", "somebody is to accept it"
        (await run(*words, "keep", DATABASE_URL=database)).done()
        await wait_until(says(new, WELL))
        await wait_until(says(old, WELL, REFUSED))
        assert (refusal(old).level, refusal(old).command) == ("note", ""), "it went well"
        status = (await run("status", DATABASE_URL=database)).done()
        assert ", without changed (" in status
        assert "refused" not in status
        assert not await proposed(connection), "as long as somebody runs it"
        await stack.aclose()
        await wait_until(lambda: proposed(connection))
        status = (await run("status", DATABASE_URL=database)).done()
        assert "recorded with another filter and run by no worker; a worker would run it with {" in status
        assert "    python -m reactive_orch rewind --replica-set test --projection changed --to keep\n" in status
        said = (await run(*words, "start", "--yes", DATABASE_URL=database)).done()
        assert "  its filter stays; --to keep accepts one given up before" in said, "by the express word alone"
        said = (await run(*words, "keep", DATABASE_URL=database)).done()
        assert '  its filter becomes {"aggregate_types": null' in said
        await wait_until(lambda: _owned_by(connection, old.member))
        await append_events(connection, 50)
        await wait_handled(connection, "changed")
        assert set(await handled_by(connection, "changed")) == {"old"}


def refusal(worker: Worker) -> Problem:
    """Return what a worker says of the filter that is another one."""
    (told,) = [each for each in health.own_problems(worker.facts()) if each.code == "refused"]
    return told


async def given_up_and_proposed(database: str, connection: Connection, old: Worker) -> None:
    """Let another filter be accepted, whose worker goes, so that the old one proposes its own again."""
    await wait_until(says(old, WELL))
    async with running(database, changed("new", "Key")) as (_, new):
        await wait_until(says(new, OUT, WAITS))
        await rewind(connection)
        await wait_until(says(new, WELL))
    await wait_until(lambda: proposed(connection))


async def test_who_comes_back_takes_the_proposal_of_the_others_back(database: str) -> None:
    async with (
        prepared(database) as connection,
        running(database, recorder("handled"), changed("old")) as (_, old),
    ):
        await given_up_and_proposed(database, connection, old)
        async with running(database, changed("new", "Key")) as (_, new):
            await wait_until(says(new, WELL))
            await wait_until(lambda: none_proposed(connection))
        await wait_until(lambda: proposed(connection))


async def test_what_was_proposed_while_its_worker_came_back_is_taken_back(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_join, registered = asyncio.Event(), asyncio.Event()

    async def late(*args: Any) -> Any:
        registered.set()
        await may_join.wait()
        return await join(*args)

    join = membership.join
    async with (
        prepared(database) as connection,
        running(database, recorder("handled"), changed("old")) as (_, old),
    ):
        await given_up_and_proposed(database, connection, old)
        monkeypatch.setattr(membership, "join", late)
        async with running(database, changed("new", "Key")) as (_, new):
            with contextlib.ExitStack() as stack:
                stack.callback(may_join.set)  # in any case: nothing else ends a join
                await registered.wait()
                await connection.execute(LOOK)
                await wait_until(lambda: proposed(connection))
            await wait_until(says(new, WELL))
            await wait_until(lambda: none_proposed(connection))


async def test_who_takes_a_proposal_back_waits_for_nobody(database: str) -> None:
    async with prepared(database) as connection, connected(database) as rival:
        await run_until_idle(database, changed("old"))
        async with rival.transaction():
            await rival.execute("SELECT FROM reactive_orch.projections FOR NO KEY UPDATE")
            with anyio.fail_after(STATEMENT_TIMEOUT_S):
                assert not await membership.withdraw(connection, "test", changed("old"))
        assert await membership.withdraw(connection, "test", changed("old"))


async def refused(url: str, projection: Projection) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await run_until_idle(url, projection)
    assert caught.value.subgroup(lambda error: isinstance(error, ConfigError) and "another filter" in str(error))


async def test_a_filter_that_was_given_up_comes_back_by_the_express_word_alone(database: str) -> None:
    words = ("rewind", "--replica-set", "test", "--projection", "changed", "--to")
    async with prepared(database) as connection:
        await run_until_idle(database, changed("old"))
        await refused(database, changed("new", "Key"))
        said = (await run(*words, "start", "--yes", DATABASE_URL=database)).done()
        assert '  its filter becomes {"aggregate_types": ["Key"]' in said
        await refused(database, changed("old"))
        said = (await run(*words, "start", "--yes", DATABASE_URL=database)).done()
        assert '  its filter stays; --to keep accepts one given up before, which a worker has: {"agg' in said
        assert "the filter is now" not in said
        await run_until_idle(database, changed("new", "Key"))
        await refused(database, changed("old"))
        said = (await run(*words, "keep", DATABASE_URL=database)).done()
        assert '  its filter becomes {"aggregate_types": null' in said
        await run_until_idle(database, changed("old"))
        assert not await proposed(connection)


async def test_a_rewind_accepts_the_filter_that_was_planned_or_does_nothing(database: str) -> None:
    async with prepared(database) as connection:
        await run_until_idle(database, changed("old"))
        planned = await rewinds.known(connection, "test", CHANGED, 0)
        await refused(database, changed("new", "Key"))
        with pytest.raises(ConfigError, match="'changed' would get has changed since it was told: nothing was done"):
            await rewinds.rewind(connection, "test", CHANGED, 0, planned=planned)
        planned = await rewinds.known(connection, "test", CHANGED, 0)
        await run_until_idle(database, changed("old"))
        with pytest.raises(ConfigError, match="has changed since it was told"):
            await rewinds.rewind(connection, "test", CHANGED, 0, planned=planned)
        await refused(database, changed("new", "Key"))
        await rewinds.rewind(connection, "test", CHANGED, 0, planned=planned)
        await run_until_idle(database, changed("new", "Key"))


async def test_without_a_notification_a_heartbeat_tells(database: str) -> None:
    async with prepared(database) as connection, running(database, changed("old")) as (_, old):
        await wait_until(says(old, WELL))
        async with running(database, changed("new", "Key")) as (_, new):
            await wait_until(says(new, OUT, WAITS))
            await connection.execute(
                "CREATE OR REPLACE FUNCTION reactive_orch.notify(channel text, payload text) RETURNS void "
                "LANGUAGE sql AS $$ SELECT $$"
            )
            await rewind(connection)
            await wait_until(lambda: _owned_by(connection, new.member))
            await wait_until(says(old, OUT, WAITS))


async def _owned_by(connection: Connection, member: int | None) -> bool:
    return set(await owners(connection, "changed")) == {member}


async def test_what_was_given_up_is_taken_up_again(database: str) -> None:
    """There and back: the same worker goes on with what it had before."""
    async with (
        prepared(database) as connection,
        running(database, changed("old")) as (_, old),
        running(database, changed("new", "Key")) as (_, new),
    ):
        await wait_settled(connection, members=2)
        for before, after in ((old, new), (new, old)):
            await wait_until(lambda before=before: _owned_by(connection, before.member))  # type: ignore[misc]
            await append_events(connection, 50)
            await wait_handled(connection, "changed")
            recorded = '{"aggregate_types": %s, "bounded_contexts": null}' % ("null" if after is old else '["Key"]')
            await connection.execute("UPDATE reactive_orch.projections SET proposed = $1::text::jsonb", recorded)
            await rewind(connection)
        await wait_until(lambda: _owned_by(connection, old.member))
        await append_events(connection, 50)
        await checked(connection, "changed")
        handled = await handled_by(connection, "changed")
        assert {name: len(found) for name, found in handled.items()} == {"old": 100, "new": 50}


async def test_what_no_worker_runs_is_said(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "UNSERVED_AFTER_S", 0.5)
    async with (
        prepared(database) as connection,
        running(database, recorder("handled", worker="one")) as (node, worker),
        contextlib.AsyncExitStack() as stack,
    ):
        await wait_until(says(worker, WELL))
        await stack.enter_async_context(running(database, changed("other")))
        await wait_settled(connection, members=2)
        status = (await run("status", DATABASE_URL=database)).done()
        assert "unserved" not in status
        await stack.aclose()
        await wait_until(says(worker, WELL, "projection changed is run by no worker"))
        status = (await run("status", DATABASE_URL=database)).done()
        assert "projection changed" in status.partition("    unserved: no worker runs it")[0]
        assert status.count("    unserved: ") == 1
        (shown,) = node.status().workers
        assert shown.seen is not None
        assert shown.seen.unserved == {CHANGED: True, Subscription("handled", OWN_LOG): False}
        words = ("--replica-set", "test", "--projection", "changed")
        (await run("pause", *words, DATABASE_URL=database)).done()
        await wait_until(lambda: _nothing_said(worker))


async def _nothing_said(worker: object) -> bool:
    return not health.assess(worker.facts()).reasons  # type: ignore[attr-defined]
