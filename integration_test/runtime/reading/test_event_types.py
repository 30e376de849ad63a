"""Filters by event type, and what is said of a filter that nothing passes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anyio

from integration_test.harness.checkers import handled_by
from integration_test.harness.command_line import run
from integration_test.harness.connections import prepared
from integration_test.harness.in_process import run_until_idle
from integration_test.harness.load import append_events
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.projections import handled, record
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, Event, Node, Projection, Worker
from reactive_orch import projection as make_projection
from reactive_orch.model.reports import FilterUnmatched

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection
    from reactive_orch.model.reports import Report


def of_types(*names: str) -> Projection:
    @make_projection("handled", event_types=names)
    async def recorded(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)

    return recorded


async def test_only_events_of_its_types_come_to_a_projection(database: str) -> None:
    async with prepared(database) as connection:
        for kind in ("Placed", "Paid", "Shipped") * 20:
            await append_events(connection, 1, event_type=kind)
        await run_until_idle(database, of_types("Paid", "Shipped"), batch_events=7)
        ((_, positions),) = (await handled_by(connection)).items()
        assert positions == {n for n in range(1, 61) if n % 3 != 1}
        recorded = await connection.fetchval("SELECT filter->'event_types' FROM reactive_orch.projections")
        assert json.loads(recorded) == ["Paid", "Shipped"]


async def test_a_projection_without_one_is_recorded_as_before(database: str) -> None:
    """Else whoever comes from the version before is refused."""
    async with prepared(database) as connection:
        await run_until_idle(database, handled)
        recorded = await connection.fetchval("SELECT filter::text FROM reactive_orch.projections")
        assert recorded == '{"aggregate_types": null, "bounded_contexts": null}'


async def test_another_event_type_is_another_filter(database: str) -> None:
    async with prepared(database) as connection:
        for kind in ("Placed", "Paid") * 10:
            await append_events(connection, 1, event_type=kind)
        await run_until_idle(database, of_types("Placed"))
        words = ("--replica-set", "test", "--projection", "handled")
        async with WorkerProcess(database, "new", projections=["paid_only"], options=("--until-idle",)) as worker:
            assert await worker.wait() == 2
        assert (await run("rewind", *words, "--to", "start", "--yes", DATABASE_URL=database)).code == 0
        async with WorkerProcess(database, "new", projections=["paid_only"], options=("--until-idle",)) as worker:
            assert await worker.wait() == 0
        assert (await handled_by(connection))["new"] == {n for n in range(1, 21) if n % 2 == 0}


async def unmatched(url: str, *projections: Projection) -> list[str]:
    """Return the projections of which a worker says that nothing passes their filter."""
    told: list[str] = []

    def observer(report: Report) -> None:
        if isinstance(report, FilterUnmatched):
            told.append(report.subject.projection)

    async with Node(Config(database_url=url), observers=[observer]) as node, anyio.create_task_group() as tasks:
        worker = Worker(node, "test", projections)
        tasks.start_soon(worker.run)
        await wait_until(lambda: _said(told, projections))
        worker.stop()
    return told


async def _said(told: list[str], projections: tuple[Projection, ...]) -> bool:
    return len(told) == sum(p.filter.event_types == ("Misspelt",) for p in projections)


async def test_a_filter_that_nothing_passes_is_told_of_once(database: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 10)
        assert await unmatched(database, of_types("Misspelt")) == ["handled"]


async def test_of_an_empty_log_and_of_a_filter_that_something_passes_nothing_is_told(database: str) -> None:
    @make_projection("last", event_types=["Misspelt"])
    async def last(_e: Event, _tx: Connection) -> None: ...

    async with prepared(database) as connection:
        await append_events(connection, 10)
        # They are looked at one after the other, so the last one's line comes last.
        assert await unmatched(database, of_types("Appended"), last) == ["last"]
