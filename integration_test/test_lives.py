"""How workers live through outages, and how they end: nobody is hurt by how another one lives or ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration_test.chaos import scenarios
from integration_test.chaos.stage import database as made

if TYPE_CHECKING:
    from integration_test.cluster import Cluster


async def test_a_common_outage_costs_no_generation(cluster: Cluster) -> None:
    with made(cluster, "chaos_template"):
        assert await scenarios.play(cluster, "chaos_template", "common_outage") == []
