"""A worker's own problems: the same code in its health, its gauge and its log, told once and once when it is over."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from integration_test.harness.connections import prepared
from integration_test.harness.health import WELL, running, says
from integration_test.harness.projections import handled
from integration_test.harness.telemetry_projections import betraying
from integration_test.harness.waiting import wait_until
from reactive_orch.core import health as judging
from reactive_orch.http.health import health
from reactive_orch.telemetry.metric_names import PROBLEM
from reactive_orch.telemetry.registry import REGISTRY

if TYPE_CHECKING:
    import pytest

    from reactive_orch import Node, Worker

UNSERVED = "projection betraying is run by no worker"
HANDLED = ("test", "betraying", "events", "warn", "unserved")


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    """Return event, code and words of the lines about problems that have no other line."""
    lines = [(vars(record), record.getMessage()) for record in caplog.records]
    return [(line["event"], line["code"], text) for line, text in lines if line["event"] in {"problem", "solved"}]


def codes(node: Node, worker: Worker) -> list[Any]:
    """Return what the pages of health name."""
    return [each["code"] for each in health(node, worker)[1]["problems"]]


async def test_what_begins_and_ends(
    database: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "reactive_orch")
    monkeypatch.setattr(judging, "UNSERVED_AFTER_S", 0.5)
    async with prepared(database), running(database, handled, betraying) as (_, worker):
        await wait_until(says(worker, WELL))
    async with running(database, handled) as (node, worker):

        async def standing() -> bool:
            return HANDLED in REGISTRY.gauges()[PROBLEM]

        await wait_until(standing, what="the gauge has it")
        assert (codes(node, worker), worker.facts().stalls) == (["unserved"], ())
        assert health(node, worker)[1]["reasons"] == (f"replica set test: {UNSERVED}",)
        async with running(database, betraying):

            async def solved() -> bool:
                return len(told(caplog)) > 1

            await wait_until(solved)
            assert HANDLED not in REGISTRY.gauges()[PROBLEM]
            assert codes(node, worker) == []
    text = f"unserved: replica set test: {UNSERVED}"
    helps = "; what helps: python -m reactive_orch --replica-set test --projection MODULE"
    assert told(caplog) == [("problem", "unserved", text + helps), ("solved", "unserved", f"over: {text}")]


async def test_a_worker_that_ends_has_solved_nothing(
    database: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "reactive_orch")
    monkeypatch.setattr(judging, "UNSERVED_AFTER_S", 0.5)
    async with prepared(database), running(database, handled, betraying) as (_, worker):
        await wait_until(says(worker, WELL))
    async with running(database, handled) as (node, worker):

        async def standing() -> bool:
            return bool(node.problems.standing)

        await wait_until(standing)
    assert node.problems.standing == ()
    assert [event for event, *_ in told(caplog)] == ["problem"]
