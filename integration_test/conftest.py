"""Fixtures: a server of each version per session, a database of its own per test.

Which servers: `--pg 15,18`, else the variable REACTIVE_ORCH_PG, else both. One that is missing is an error.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from integration_test.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOTH = "15,18"
_numbers = itertools.count(1)


def pytest_configure() -> None:
    # A terminated run (a time limit, a cancelled CI job) removes its servers as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    default = os.environ.get("REACTIVE_ORCH_PG", _BOTH)
    parser.addoption("--pg", default=default, help=f"PostgreSQL versions to test on, with commas (default: {_BOTH})")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cluster" in metafunc.fixturenames:
        versions = metafunc.config.getoption("--pg").split(",")
        ids = [f"pg{version}" for version in versions]
        metafunc.parametrize("cluster", versions, indirect=True, scope="session", ids=ids)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running server. A test that stops it must start it again."""
    with Cluster(request.param) as made:
        yield made


@pytest.fixture(scope="session")
def template(cluster: Cluster) -> str:
    """The name of a migrated database to clone; nobody connects to it."""
    name = "template_migrated"
    url = cluster.create_database(name)
    subprocess.run([sys.executable, "-m", "reactive_orch", "migrate", "--database-url", url], check=True)
    return name


@pytest.fixture
def database(cluster: Cluster, template: str) -> Iterator[str]:
    """The URL of a fresh, migrated database."""
    name = f"test_{next(_numbers)}"
    yield cluster.clone_database(template, name)
    cluster.drop_database(name)


@pytest.fixture
def empty_database(cluster: Cluster) -> Iterator[str]:
    """The URL of a fresh database without the schema."""
    name = f"test_{next(_numbers)}"
    yield cluster.create_database(name)
    cluster.drop_database(name)
