"""What examples/kubernetes runs does its work: the arguments of its files, with the rights that its page gives."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import aiohttp
import pytest
import yaml

from integration_test.harness.command_line import run
from integration_test.harness.connections import as_role, connected
from integration_test.harness.processes import ROOT, Process
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXAMPLES = ROOT / "examples"
"""Where Python finds `shop.projections`, as it does in the image of `kubernetes/Dockerfile`."""


def _pod(file: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is said of a pod, and of its container."""
    document = yaml.safe_load((EXAMPLES / "kubernetes" / file).read_text(encoding="utf-8"))
    pod = document["spec"]["template"]["spec"]
    return pod, pod["containers"][0]


@pytest.fixture
async def worker_url(empty_database: str) -> AsyncIterator[str]:
    """The address of a role that may do what a worker and its handlers do, in a database that the Job has migrated."""
    _, job = _pod("migrate.yaml")
    (await run(*job["args"], DATABASE_URL=empty_database)).done()
    granted = (await run("grants", "--role", "shop_worker", "--for", "worker")).done()
    async with connected(empty_database) as owner:
        await owner.execute((EXAMPLES / "shop" / "tables.sql").read_text(encoding="utf-8"))
        await owner.execute(f"CREATE ROLE shop_worker LOGIN; {granted}")
        await owner.execute("GRANT SELECT, INSERT, UPDATE ON orders_per_customer, order_list TO shop_worker")
        yield as_role("shop_worker", empty_database)
        await owner.execute("DROP OWNED BY shop_worker; DROP ROLE shop_worker")


@contextlib.asynccontextmanager
async def _worker(url: str) -> AsyncIterator[Process]:
    _, container = _pod("worker.yaml")
    arguments = [option.replace("0.0.0.0:8080", "127.0.0.1:0") for option in container["args"]]
    variables = {"DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
    process = Process("worker", (sys.executable, "-m", "reactive_orch", *arguments), variables, EXAMPLES)
    await process.start()
    try:
        yield process
    finally:
        await process.end()


async def test_a_worker_is_asked_works_and_stops(empty_database: str, worker_url: str) -> None:
    pod, container = _pod("worker.yaml")
    events = (EXAMPLES / "shop" / "events.jsonl").read_bytes()
    (await run("append", DATABASE_URL=empty_database, stdin=events)).done()
    async with _worker(worker_url) as worker, connected(empty_database) as owner:
        for kind in ("startup", "liveness", "readiness"):
            await _answers(worker, container[f"{kind}Probe"]["httpGet"]["path"])
        await wait_until(lambda: owner.fetchval("SELECT sum(orders) FROM orders_per_customer"), what="all is handled")
        for command in ("status", "doctor"):
            told = await run(command, "--replica-set", "shop", "--json", DATABASE_URL=worker_url)
            assert "bad" not in told.done(), told
        worker.send(signal.SIGTERM)
        assert await worker.wait(pod["terminationGracePeriodSeconds"]) == 0


async def _answers(worker: Process, page: str) -> None:
    found = await worker.said(r"health (http://[^\s\"]+)/healthz")
    async with aiohttp.ClientSession() as http:

        async def says_yes() -> bool:
            async with http.get(urljoin(found[1], page)) as response:
                return response.status == 200

        await wait_until(says_yes, what=f"{page} says yes")
