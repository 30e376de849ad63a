"""`status`: is it done, and is all well? True to a heartbeat, with what is wrong first."""

from __future__ import annotations

import json
import signal
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from integration_test.harness.checkers import wait_handled, wait_settled
from integration_test.harness.command_line import run
from integration_test.harness.connections import connected, prepared
from integration_test.harness.in_process import event, run_until_idle, serving
from integration_test.harness.load import append_events, gate_closed
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.waiting import wait_until
from reactive_orch import append
from reactive_orch import projection as make_projection
from reactive_orch.postgres import overview as looking
from reactive_orch.runtime.handling import lane

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import pytest

    from integration_test.harness.connections import Connection
    from integration_test.harness.load import AtGate
    from reactive_orch import Event, Worker
    from reactive_orch.model.overview import Seen

AT_GATE = "handled_at_gate"


async def told(url: str) -> dict[str, Any]:
    """Return what `status --json` says."""
    known: dict[str, Any] = json.loads((await run("status", "--json", "--database-url", url)).done())
    return known


async def codes(url: str) -> list[str]:
    return [problem["code"] for problem in (await told(url))["problems"]]


async def says(url: str, wanted: Callable[[dict[str, Any]], bool]) -> bool:
    return wanted(await told(url))


def _projection(known: dict[str, Any]) -> dict[str, Any]:
    projection: dict[str, Any] = known["replica_sets"][0]["projections"][0]
    return projection


async def test_it_tells_what_waits_and_when_that_is_done(database: str) -> None:
    async with prepared(database) as connection:
        async with gate_closed(database) as waiting, WorkerProcess(database, "a", projections=(AT_GATE,)) as worker:
            await worker.ready()
            await append_events(connection, 300)
            await wait_until(partial(_some, waiting))
            await wait_until(partial(says, database, _serving))
            behind = await told(database)
            assert _projection(behind)["lag_events"] == 300
            assert _projection(behind)["lag_s"] > 0
            assert behind["logs"][0]["settled"] == behind["logs"][0]["head"] == 300
            (one,) = behind["replica_sets"][0]["workers"]
            assert (one["pid"], one["state"], one["partitions"], one["version"]) == (
                worker.pid,
                "serving",
                64,
                version("reactive_orch"),
            )
            text = (await run("status", "--database-url", database)).done()
            assert "running, 300 events wait, the oldest for " in text
        async with WorkerProcess(database, "b", projections=(AT_GATE,)):
            await wait_handled(connection, AT_GATE)
            await wait_until(partial(says, database, lambda known: _projection(known)["lag_events"] == 0))
            assert "running, nothing waits; " in (await run("status", "--database-url", database)).done()


def _serving(known: dict[str, Any]) -> bool:
    (worker,) = known["replica_sets"][0]["workers"]
    return bool(worker["state"] == "serving") and _projection(known)["lag_events"] > 0


async def _some(waiting: AtGate) -> bool:
    return bool(await waiting())


async def test_a_projection_that_has_finished_looks_finished_before_it_has_saved_that(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That events were read which it does not want is saved seconds later; here never."""
    monkeypatch.setattr(lane, "SAVE_EVERY_S", 3_600.0)

    @make_projection("handled", event_types=["Rare"])
    async def rare(_event: Event, _tx: Connection) -> None: ...

    async with prepared(database) as connection, serving(database, rare, heartbeat_s=0.2):
        await wait_settled(connection, members=1)
        await append_events(connection, 100)
        await wait_until(partial(says, database, lambda known: _projection(known)["lag_events"] == 0))
        assert not await connection.fetchval("SELECT max(position) FROM reactive_orch.checkpoints")


async def test_problems_come_first_each_with_what_helps(database: str) -> None:
    async with prepared(database) as connection:
        async with WorkerProcess(database, "a") as worker:
            await worker.ready()
            assert await codes(database) == []
            pausing = ("pause", "--replica-set", "test", "--projection", "handled", "--reason", "a mistake")
            (await run(*pausing, "--database-url", database)).done()
            (paused,) = (await told(database))["problems"]
            assert (paused["level"], paused["code"], paused["text"]) == (
                *("note", "paused"),
                "replica set test: projection handled is paused: a mistake",
            )
            assert paused["who"]
            assert paused["since"]
            lines = (await run("status", "--database-url", database)).done().splitlines()
            assert lines[0].startswith("note: replica set test: projection handled is paused: a mistake (since ")
            assert lines[1].strip() == paused["command"]
            helps = paused["command"].removeprefix("python -m reactive_orch ").split()
            (await run(*helps, "--database-url", database)).done()
            assert await codes(database) == []
            worker.send(signal.SIGSTOP)
            await wait_until(partial(_has, database, "worker_silent"))
            worker.send(signal.SIGCONT)
            await wait_until(partial(_well, database))
        await append_events(connection, 100)
        (alone,) = (await told(database))["problems"]
        assert (alone["level"], alone["code"]) == ("bad", "no_workers")
        assert "events wait" in alone["text"]


async def test_what_began_at_a_time_began_then_at_every_look(database: str) -> None:
    @make_projection("handled")
    async def failing(_event: Event, _tx: Connection) -> None:
        raise LookupError

    def begun(seen: Seen) -> set[datetime]:
        (generation,) = filter(None, seen.generations.values())
        ages = [generation.age_s, seen.logs[0].holders[0].age_s, seen.projections[0].failing_s]
        return {seen.at - timedelta(seconds=age_s) for age_s in ages}

    async with prepared(database) as connection, connected(database) as other, other.transaction():
        await append(connection, [event("one")])
        await run_until_idle(database, failing, retries=0)
        await append(other, [event("two")])
        assert begun(await looking.look(connection)) == begun(await looking.look(connection))


async def test_what_has_failed_last_is_shown_and_steers_no_terminal(database: str) -> None:
    @make_projection("handled")
    async def failing(event: Event, _tx: Connection) -> None:
        msg = f"no\n\x1b[31mcustomer {event.aggregate_id}"
        raise LookupError(msg)

    async with prepared(database) as connection:
        await append(connection, [event("one"), event("one")])
        await run_until_idle(database, failing, retries=0)
        known = await told(database)
        assert [problem["code"] for problem in known["problems"]] == ["keys_wait", "no_workers"]
        projection = _projection(known)
        assert (projection["failing_keys"], projection["waiting_events"]) == (1, 2)
        assert (projection["parked_keys"], projection["parked_events"]) == (1, 2)
        assert projection["last_error"] == "LookupError: no\n\x1b[31mcustomer one"
        text = (await run("status", "--database-url", database)).done()
        assert "    last error: LookupError: no \\x1b[31mcustomer one\n" in text
        assert "failing keys: 1, events that wait: 2" in text


async def _has(url: str, code: str) -> bool:
    return code in await codes(url)


async def _well(url: str) -> bool:
    return not await codes(url)


async def test_the_age_of_what_waits_is_that_of_the_oldest_event_not_handled(database: str) -> None:
    """After a quiet night it is not that of the last event handled; of an old event in hand it is its own."""
    old = (
        "UPDATE reactive_orch.events SET created_at = created_at - interval '2 hours' "
        "WHERE global_position = (SELECT max(global_position) FROM reactive_orch.events)"
    )
    async with prepared(database) as connection:
        await append_events(connection, 1)
        await connection.execute(old)
        async with gated(database) as worker:
            async with gate_closed(database) as waiting:
                await wait_until(partial(_some, waiting))
                assert 7_000 < _lag_s(worker) < 8_000
            await wait_handled(connection, AT_GATE)
            await wait_until(partial(_lag_is_0, worker))
            async with gate_closed(database) as waiting:
                await append_events(connection, 1)
                await wait_until(partial(_some, waiting))
                assert 0 < _lag_s(worker) < 1_000
            await wait_handled(connection, AT_GATE)


def _lag_s(worker: Worker) -> float:
    (projection,) = worker.status().projections
    return projection.lag_s


async def _lag_is_0(worker: Worker) -> bool:
    return _lag_s(worker) == 0


def gated(url: str) -> Any:
    from integration_test.harness.projections import handled_at_gate

    return serving(url, handled_at_gate)


async def test_accounts_come_with_heartbeats_and_outlive_nobody(database: str) -> None:
    kept = "SELECT account ->> 'state' FROM reactive_orch.members"
    async with prepared(database) as connection, connected(database) as other:
        async with WorkerProcess(database, "a") as worker:
            await worker.ready()
            await wait_until(partial(_serves, other, kept))
            await worker.stop()
        assert not await connection.fetch(kept)


async def _serves(connection: Connection, statement: str) -> bool:
    return bool(await connection.fetchval(statement) == "serving")
