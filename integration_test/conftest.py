"""Fixtures: a server of each version per session, a database of its own per test.

Which servers: `--pg 15,18`, else the variable REACTIVE_ORCH_PG, else all that are found. One that was asked for and is
missing is an error. In parallel (`-n 3`) each process has servers of its own.
"""

from __future__ import annotations

import itertools
import signal
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.cluster import Cluster, copied, migrate
from integration_test.harness.servers import OLDEST, WHEEL, chosen, older, programs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    # A terminated run (a time limit, a cancelled CI job) removes its servers as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell's job in the background ignores interrupts, and so would all that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for version in _versions(config):
            programs_of(version)
    except FileNotFoundError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_addoption(parser: pytest.Parser) -> None:
    default = ",".join(chosen())
    parser.addoption("--pg", default=default, help=f"PostgreSQL versions to test on, with commas (default: {default})")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say in the first lines on which servers the tests run."""
    lines = [f"on PostgreSQL {version}: {programs_of(version) or 'the wheel'}" for version in _versions(config)]
    if not older():
        lines.append(
            f"no older PostgreSQL ({OLDEST} to {int(WHEEL) - 1}) was found: PG{OLDEST}_BIN=… says where one is"
        )
    return lines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cluster" in metafunc.fixturenames:
        versions = _versions(metafunc.config)
        each = metafunc.definition.get_closest_marker("each_server") is not None
        servers = [
            pytest.param(
                version, id=f"pg{version}", marks=[] if each or version == versions[-1] else [pytest.mark.thorough]
            )
            for version in versions
        ]
        metafunc.parametrize("cluster", servers, indirect=True, scope="session")


def _versions(config: pytest.Config) -> list[str]:
    return str(config.getoption("--pg")).split(",")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running server. A test that stops it must start it again."""
    with Cluster(request.param) as made:
        yield made


@pytest.fixture(scope="session")
def template(cluster: Cluster) -> str:
    """The name of a migrated database to clone; nobody connects to it."""
    name = "template_migrated"
    migrate(cluster.create_database(name))
    return name


@pytest.fixture
def database(cluster: Cluster, template: str) -> Iterator[str]:
    """The URL of a fresh, migrated database."""
    with copied(cluster, f"test_{next(_numbers)}", template) as url:
        yield url


@pytest.fixture
def empty_database(cluster: Cluster) -> Iterator[str]:
    """The URL of a fresh database without the schema."""
    with copied(cluster, f"test_{next(_numbers)}") as url:
        yield url
