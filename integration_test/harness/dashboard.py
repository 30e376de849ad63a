"""What otel/'s dashboard asks of Prometheus, and what examples/kubernetes scales by."""

from __future__ import annotations

import json

import yaml

from integration_test.harness.processes import ROOT

GRAFANA = ROOT / "otel" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "reactive_orch.json").read_text(encoding="utf-8"))
SCALED = yaml.safe_load((ROOT / "examples/kubernetes/scaling.yaml").read_text(encoding="utf-8"))
TARGETS = [(panel["title"], each) for panel in DASHBOARD["panels"] for each in panel.get("targets", ())]
QUERIES = [
    *((title, each["expr"]) for title, each in TARGETS if "expr" in each),
    *((each["name"], each["target"]["expr"]) for each in DASHBOARD["annotations"]["list"]),
    *(("Autoscaling", each["metadata"]["query"]) for each in SCALED["spec"]["triggers"]),
]


def filled(expression: str, rate_interval: str) -> str:
    """Return a query as Grafana sends it: of all replica sets, and with rates over so long."""
    return expression.replace("$replica_set", ".*").replace("$__rate_interval", rate_interval)
