"""A network, a server on a host of its own, and the table of what was measured, at the end.

`--report FILE` writes that table into a section of this Markdown file.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

import pytest

from integration_test.environments.hosts.figures import PROPERTY, Note, note, table
from integration_test.environments.hosts.network import Network, Server
from integration_test.environments.hosts.scene import ThreeWorkers, three_workers
from integration_test.harness.cluster import copied, migrate
from integration_test.harness.report import machine, put_section
from integration_test.harness.servers import WHEEL

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    passed = sorted(terminalreporter.getreports("passed"), key=lambda report: report.location[1] or 0)
    rows = [value for report in passed for name, value in report.user_properties if name == PROPERTY]
    if not rows:
        return
    said = table(rows)
    terminalreporter.write_line(said)
    if report := config.getoption("--report", None):
        put_section(report, "hosts", f"{said}\n\n{machine()}, PostgreSQL {WHEEL}; three cases at a time.")


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """A router with nobody behind it yet."""
    with Network() as made:
        yield made


@pytest.fixture(scope="session")
def server(network: Network) -> Iterator[Server]:
    """A server on a host of its own."""
    with network.host() as host, Server(WHEEL, host) as made:
        migrate(made.create_database("template_migrated"))
        yield made


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """The URL of a fresh, migrated database, by the server's socket."""
    with copied(server, f"test_{next(_numbers)}", "template_migrated") as url:
        yield url


@pytest.fixture(name="three_workers")
def workers_in_place(network: Network, server: Server, database: str) -> ThreeWorkers:
    """Start three workers on hosts of their own, on this database."""
    return functools.partial(three_workers, network, server, database)


@pytest.fixture(name="note")
def noted_with_the_test(request: pytest.FixtureRequest) -> Note:
    """Let the test's report carry what it has measured."""
    return functools.partial(note, request.node.user_properties)
