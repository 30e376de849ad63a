"""The page on middleware and hooks: its projections are run, and Sentry's SDK reports to a local transport."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from integration_test.harness.command_line import environment
from integration_test.harness.in_process import event
from integration_test.harness.pages import the
from integration_test.harness.processes import ROOT
from reactive_orch import NewEvent, append

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from integration_test.harness.connections import Connection

MIDDLEWARE = "docs/middleware.md"
TABLES = """
CREATE TABLE order_list (id text, tenant text, by_setting text);
CREATE TABLE order_counts (id text);
CREATE TABLE order_totals (order_id text PRIMARY KEY, total bigint);
"""
REPORTING = """
import asyncio, json, os
import sentry_sdk
from sentry_sdk.transport import Transport
from reactive_orch import Config, Node, Worker, projection
from shop.giving_up import GivenUp
from shop.reporting import reported


class Local(Transport):
    def capture_envelope(self, envelope):
        for item in envelope.items:
            print(json.dumps(item.get_event(), default=str), flush=True)


@projection("charges", retries=1)
async def charges(event, tx):
    charge(event.json()["amount"])


def charge(amount):
    1 / amount


async def main(by):
    async with Node(Config(database_url=os.environ["DATABASE_URL"])) as node:
        await Worker(node, "shop", [charges], until_idle=True, **by).run()


sentry_sdk.init("http://key@127.0.0.1:1/1", transport=Local, default_integrations=False)
asyncio.run(main({by}))
"""


@pytest.fixture
async def log(database: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database)
    await connection.execute(TABLES)
    yield connection
    await connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    files = {
        "tenants": the("def for_tenant", MIDDLEWARE),
        "timed": the("def timed", MIDDLEWARE),
        "cached": the("class Totals", MIDDLEWARE),
        "reporting": the("def reported", MIDDLEWARE),
        "giving_up": the("class GivenUp", MIDDLEWARE),
    }
    for name, text in files.items():
        (tmp_path / "shop" / f"{name}.py").write_text(text)
    return tmp_path


async def _run(folder: Path, url: str, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *words),
        cwd=folder,
        env=environment({"DATABASE_URL": url, "PYTHONPATH": f"{folder}:{ROOT}"}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return said.decode()


async def test_its_projections_do_what_it_says(database: str, log: Connection, folder: Path) -> None:
    orders = [
        NewEvent(
            aggregate_type="Order",
            aggregate_id=str(number % 2),
            event_type="OrderPlaced",
            payload={"total": number},
            metadata={"tenant": f"t{number}"},
        )
        for number in range(4)
    ]
    await append(log, orders)
    projections = [word for name in ("tenants", "timed", "cached") for word in ("--projection", f"shop.{name}")]
    worker = ("-m", "reactive_orch", "--replica-set", "shop", *projections, "--http", "127.0.0.1:0", "--until-idle")
    await _run(folder, database, *worker)
    listed = await log.fetch("SELECT * FROM order_list ORDER BY tenant")
    assert [tuple(row) for row in listed] == [(str(n % 2), f"t{n}", f"t{n}") for n in range(4)]
    assert await log.fetchval("SELECT count(*) FROM order_counts") == 4
    totals = await log.fetch("SELECT * FROM order_totals ORDER BY 1")
    assert [tuple(row) for row in totals] == [("0", 0 + 2), ("1", 1 + 3)]


async def _reports(folder: Path, url: str, by: str) -> list[dict[str, Any]]:
    (folder / "reports.py").write_text(REPORTING.replace("{by}", by))
    return [json.loads(line) for line in (await _run(folder, url, "reports.py")).splitlines()]


async def test_sentry_is_told_of_each_attempt(database: str, log: Connection, folder: Path) -> None:
    await append(log, [event("k", "Charged", b'{"amount": 0}')])
    reports = await _reports(folder, database, '{"middleware": [reported]}')
    assert len(reports) == 2, "it is tried once more"
    for report in reports:
        assert report["tags"] == {"projection": "charges", "event_type": "Charged", "position": 1}
        assert _innermost(report) == ("ZeroDivisionError", "charge")


async def test_sentry_is_told_once_of_what_is_given_up(database: str, log: Connection, folder: Path) -> None:
    await append(log, [event("k", "Charged", b'{"amount": 0}')])
    (report,) = await _reports(folder, database, '{"hooks": [GivenUp()]}')
    assert report["tags"] == {"projection": "charges", "position": 1}
    assert _innermost(report) == ("ZeroDivisionError", "charge")


def _innermost(report: dict[str, Any]) -> tuple[str, str]:
    raised = report["exception"]["values"][-1]
    return raised["type"], raised["stacktrace"]["frames"][-1]["function"]
