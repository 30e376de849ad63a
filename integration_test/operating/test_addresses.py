"""An address leads to the database to which it leads psql."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from integration_test.harness.command_line import run

if TYPE_CHECKING:
    from pathlib import Path

    from integration_test.harness.cluster import Cluster


@pytest.fixture
def services(database: str, tmp_path: Path) -> str:
    """A service file for the test's database, of which only the service knows the name."""
    parts = urlsplit(database)
    file = tmp_path / "services"
    lines = ("[shop]", f"host={parts.hostname}", f"port={parts.port}", "user=postgres", f"dbname={parts.path[1:]}")
    file.write_text("\n".join(lines))
    return str(file)


@pytest.mark.parametrize("address", ["service=shop", "postgresql://?service=shop", "postgresql:///?service=shop"])
async def test_a_service_is_that_of_psql(address: str, database: str, services: str) -> None:
    if psql := shutil.which("psql"):
        command = [psql, "-XAtc", "select current_database()", address]
        said = subprocess.run(command, check=True, capture_output=True, text=True, env={"PGSERVICEFILE": services})
        assert said.stdout.strip() == urlsplit(database).path[1:]
    assert (
        await run("status", "--database-url", address, PGSERVICEFILE=services)
    ).done() == "log events: 64 partitions, last position 0, settled 0\n"


async def test_a_service_that_nobody_knows_is_named(services: str) -> None:
    ended = await run("status", "--database-url", "service=none", PGSERVICEFILE=services)
    assert "'none' is in none of" in ended.complaint()


async def test_the_name_of_the_database_is_pgdatabase_when_the_address_has_none(database: str) -> None:
    parts = urlsplit(database)
    words = f"host={parts.hostname} port={parts.port} user=postgres"
    ended = await run("status", "--database-url", words, PGDATABASE=parts.path[1:])
    assert ended.done() == "log events: 64 partitions, last position 0, settled 0\n"


async def test_ipv6_among_several_hosts(database: str, cluster: Cluster) -> None:
    name = urlsplit(database).path[1:]
    address = f"postgresql://postgres@[::1]:1,127.0.0.1:{cluster.port}/{name}"
    assert (
        await run("status", "--database-url", address)
    ).done() == "log events: 64 partitions, last position 0, settled 0\n"
