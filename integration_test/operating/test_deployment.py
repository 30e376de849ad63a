"""What `docker-compose.yml` starts from this repository does its work: its own commands, on a database of the test."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import yaml

from integration_test.harness.cases import thorough

if TYPE_CHECKING:
    from collections.abc import Mapping

from integration_test.harness.processes import ROOT

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


async def _run(environment: Mapping[str, str], *arguments: str) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, env={**kept, **environment}, stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


@pytest.mark.parametrize("tracing", ["traced", thorough("untraced")])
async def test_appended_orders_are_handled(empty_database: str, tracing: str) -> None:
    traced = tracing == "traced"
    environment = {"DATABASE_URL": empty_database, **({"OTEL_TRACES_EXPORTER": "console"} if traced else {})}
    await _run(environment, "-m", "reactive_orch", *SERVICES["migrate"]["command"])
    connection = await asyncpg.connect(empty_database)
    tables = next(each for each in SERVICES["postgres"]["volumes"] if "initdb" in each).partition(":")[0]
    await connection.execute((ROOT / tables).read_text())

    await _run(environment, *SERVICES["appender"]["entrypoint"][1:], "--rate", "100", "--seconds", "1")
    options = [option.replace("0.0.0.0:8080", "127.0.0.1:0") for option in SERVICES["worker"]["command"]]
    await _run(environment, "-m", "reactive_orch", *options, "--until-idle")

    events = await connection.fetch("SELECT aggregate_id, metadata ? 'traceparent' AS traced FROM reactive_orch.events")
    placed = await connection.fetchval("SELECT sum(orders) FROM orders_per_customer")
    listed = await connection.fetchval("SELECT count(*) FROM order_list")
    await connection.close()
    assert events
    assert {event["traced"] for event in events} == {traced}
    assert placed == listed == len({event["aggregate_id"] for event in events})
