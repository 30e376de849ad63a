"""What an application is told that watches for itself; and that nothing works by whoever watches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration_test.harness.checkers import checked
from integration_test.harness.connections import prepared
from integration_test.harness.load import append_events
from integration_test.harness.projections import handled
from reactive_orch import Config, Node, Worker
from reactive_orch.model import OWN_LOG
from reactive_orch.model import reports as r
from reactive_orch.model.reports import Report, Untraced

if TYPE_CHECKING:
    import pytest

    from reactive_orch.model.status import Status


async def test_an_application_is_told(database: str) -> None:
    told: list[Report] = []
    asked: list[Status] = []

    def observe(report: Report) -> None:
        told.append(report)
        if isinstance(report, r.BatchEnded):
            asked.append(node.status())

    async with prepared(database) as connection:
        await append_events(connection, 50)
        node = Node(Config(database_url=database), observers=[observe], tracing=Untraced())
        async with node:
            await Worker(node, "test", [handled], until_idle=True).run()
        await checked(connection)
        written = await connection.fetchval("SELECT min(traceparent) FROM reactive_orch.generations WHERE number = 1")
    handled_events = [event for report in told if isinstance(report, r.BatchEnded) for event in report.events]
    assert len(handled_events) == 50
    subjects = {report.subject for report in told if isinstance(report, r.RunnerStarted | r.WindowRead | r.BatchEnded)}
    assert subjects == {r.Subject("test", "handled", OWN_LOG)}
    generations = [report for report in told if isinstance(report, r.GenerationWritten)]
    assert [report.change.reason.value for report in generations] == ["join", "leave"]
    assert generations[0].traceparent == written, "drawn by the worker itself"
    outcomes = [report.outcome for report in told if isinstance(report, r.AdoptionEnded)]
    assert outcomes == ["acknowledged"]
    assert (type(told[0]), type(told[-1])) == (r.NodeStarted, r.NodeStopped)
    (worker,) = asked[0].workers
    assert (worker.replica_set, [projection.owned for projection in worker.projections]) == ("test", [64])


async def test_nothing_that_works_depends_on_who_watches(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def observe(*given: object) -> None:
        tried.append(given)
        raise ValueError

    config = Config(database_url=database, trace_events=True)
    broken = Untraced()
    for question in ("generation", "batch", "each", "quiet"):
        monkeypatch.setattr(broken, question, observe)
    async with prepared(database) as connection:
        await append_events(connection, 50)
        async with Node(config, observers=[observe], tracing=broken) as node:
            await Worker(node, "test", [handled], until_idle=True).run()
        await checked(connection)
    assert len(tried) == 2, "one as an observer, one as a tracing"
