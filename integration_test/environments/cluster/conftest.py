"""A cluster for each way of replicating, for as long as the tests that need it run; and what they have measured."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from integration_test.environments.cluster.figures import PROPERTY, table
from integration_test.environments.cluster.patroni import PatroniCluster, versions
from integration_test.harness.report import machine, put_section

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", params=[False, True], ids=["asynchronous", "synchronous"])
def patroni(request: pytest.FixtureRequest) -> Iterator[PatroniCluster]:
    """A cluster with a primary and a standby. A test that ends a node starts it again."""
    with PatroniCluster(_version(request.config), synchronous=request.param) as cluster:
        asyncio.run(cluster.start())
        yield cluster


def _version(config: pytest.Config) -> str:
    """Return the oldest PostgreSQL that there is: the Patroni of a distribution is of its time."""
    return str(config.getoption("--pg")).split(",", maxsplit=1)[0]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = [row for report in reports for name, row in report.user_properties if name == PROPERTY]
    if not rows:
        return
    terminalreporter.write_line(table(rows))
    if report := config.getoption("--report", default=None):
        put_section(report, "failover", f"{table(rows)}\n\n{machine()}, PostgreSQL {_version(config)}, {versions()}.")
