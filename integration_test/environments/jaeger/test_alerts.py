"""Each alert of `otel/alerts.yml` fires in a real Prometheus, on real workers, for its cause."""

from __future__ import annotations

import pytest

from integration_test.environments.jaeger.alerting import ALERTS, Scene
from integration_test.environments.jaeger.causes import CAUSES


def test_every_alert_has_a_cause() -> None:
    assert sorted(CAUSES) == sorted(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
async def test_it_fires_for_its_cause(database: str, alert: str) -> None:
    async with Scene(database) as scene:
        await CAUSES[alert](scene)
        told = await scene.fires(alert)
        assert not [text for text in told.values() if "no value" in text or "{{" in text], told
