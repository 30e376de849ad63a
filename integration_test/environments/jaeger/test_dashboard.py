"""The dashboard's panels, asked of Prometheus and Jaeger as Grafana asks them, after all that has happened."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import yaml

from integration_test.environments.jaeger.asking import LOOKS_BACK_S, drawn, get
from integration_test.harness.dashboard import GRAFANA, QUERIES, TARGETS, filled
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from integration_test.environments.jaeger.story import Story

pytestmark = pytest.mark.asyncio(loop_scope="package")

RATES_OVER = "20s"
"""As Grafana fills it in: four times as long as it takes Prometheus to come again."""


@pytest.mark.parametrize(("title", "expression"), QUERIES, ids=[f"{n} {title}" for n, (title, _) in enumerate(QUERIES)])
async def test_a_panel_has_something_to_show(story: Story, title: str, expression: str) -> None:
    assert await drawn(story.stack.prometheus.url, filled(expression, RATES_OVER)), title


async def test_the_list_of_rebalances_is_what_jaeger_finds(story: Story) -> None:
    (asked,) = (each for _, each in TARGETS if each.get("queryType") == "search")
    found = await story.jaeger.search(asked["service"], asked["operation"], limit=asked["limit"])
    assert len(found) == len(await story.rows()) - 1, "but for the one whose writer died"


async def test_a_point_of_a_rebalance_leads_to_its_trace(story: Story) -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/datasources.yml").read_text(encoding="utf-8"))
    prometheus, jaeger = sources["datasources"]
    (leads,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert leads["datasourceUid"] == jaeger["uid"]
    pointed = [each["expr"] for _, each in TARGETS if each.get("exemplar")]
    assert pointed
    for expression in pointed:
        for labels in await exemplars(story, expression):
            trace = await story.jaeger.trace(labels[leads["name"]])
            assert labels["span_id"] in {span.id for span in trace.spans}, trace


async def exemplars(story: Story, expression: str) -> list[dict[str, str]]:
    """Return the labels of the exemplars that Prometheus has of a panel's query."""
    when = {"start": time.time() - LOOKS_BACK_S, "end": time.time()}
    found = await get(
        f"{story.stack.prometheus.url}/api/v1/query_exemplars", query=filled(expression, RATES_OVER), **when
    )
    labels = [each["labels"] for series in found["data"] for each in series["exemplars"]]
    assert labels, expression
    return labels


async def test_nothing_fires_that_should_not(story: Story) -> None:
    """Ten generations in a minute are too many; all else was over before it needed anybody."""

    async def firing() -> set[str]:
        found = (await get(f"{story.stack.prometheus.url}/api/v1/alerts"))["data"]["alerts"]
        fire = {each["labels"]["alertname"] for each in found if each["state"] == "firing"}
        return fire if "TooManyRebalances" in fire else set()

    assert await wait_until(firing, what="TooManyRebalances fires") <= {"TooManyRebalances", "HandlersDeadlock"}
