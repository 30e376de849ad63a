"""An address leads to the database to which it leads psql."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from integration_test.harness.command_line import run
from reactive_orch import Config, ConfigError, Node

if TYPE_CHECKING:
    from pathlib import Path

    from integration_test.harness.cluster import Cluster


ENCRYPTED = b"\x04\xd2\x16\x2f"
"""The code of the request for encryption that may precede the start of a connection."""


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
    ).done() == "no problems\nlog events: 64 partitions, last position 0, settled 0\n"


async def test_a_service_that_nobody_knows_is_named(services: str) -> None:
    ended = await run("status", "--database-url", "service=none", PGSERVICEFILE=services)
    assert "'none' is in none of" in ended.complaint()


async def test_the_name_of_the_database_is_pgdatabase_when_the_address_has_none(database: str) -> None:
    parts = urlsplit(database)
    words = f"host={parts.hostname} port={parts.port} user=postgres"
    ended = await run("status", "--database-url", words, PGDATABASE=parts.path[1:])
    assert ended.done() == "no problems\nlog events: 64 partitions, last position 0, settled 0\n"


async def test_the_variables_of_psql_alone_name_a_database(database: str) -> None:
    parts = urlsplit(database)
    where: dict[str, Any] = {"PGHOST": str(parts.hostname), "PGPORT": str(parts.port), "PGUSER": "postgres"}
    said = "no problems\nlog events: 64 partitions, last position 0, settled 0\n"
    assert (await run("status", **where, PGDATABASE=parts.path[1:])).done() == said
    of_parts: dict[str, Any] = {f"POSTGRES_{name}": where[f"PG{name}"] for name in ("HOST", "PORT", "USER")}
    own = await run("status", **of_parts, POSTGRES_DB=parts.path[1:], PGDATABASE="other")
    assert own.done() == said, "POSTGRES_HOST and its like come first"


async def test_a_library_takes_the_words_too(database: str) -> None:
    parts = urlsplit(database)
    words = f"host={parts.hostname} port={parts.port} user=postgres dbname={parts.path[1:]}"
    async with Node(Config(database_url=words)) as node, node.database.coordination() as connection:
        assert await connection.fetchval("SELECT current_database()") == parts.path[1:]
    with pytest.raises(ConfigError, match="neither a URI"):
        Node(Config(database_url="shop"))


async def test_a_pooler_that_drops_settings_is_refused() -> None:
    """With the words of PgBouncer."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await reader.readexactly(8))[4:] == ENCRYPTED:
            writer.write(b"N")
        fields = b"SFATAL\0C08P01\0Munsupported startup parameter: search_path\0\0"
        writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as pooler:
        address = f"postgresql://ann:hush@127.0.0.1:{pooler.sockets[0].getsockname()[1]}/shop"
        said = (await run("status", "--database-url", address)).complaint()
    assert said.startswith("a pooler that refuses our settings answers, unsupported startup parameter: search_path (")
    assert said.endswith("/shop): give the address of the server itself")
    assert "hush" not in said


async def test_so_is_one_that_passes_over_them_without_a_word(database: str) -> None:
    """As PgBouncer does with `ignore_startup_parameters`."""
    server = urlsplit(database)

    async def pool(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (message := await reader.readexactly(8))[4:] == ENCRYPTED:
            writer.write(b"N")
        await reader.readexactly(int.from_bytes(message[:4], "big") - 8)
        words = b"user\0postgres\0database\0" + server.path[1:].encode() + b"\0\0"
        theirs, ours = await asyncio.open_connection(server.hostname, server.port)
        ours.write((len(words) + 8).to_bytes(4, "big") + message[4:] + words)
        await asyncio.gather(_pipe(reader, ours), _pipe(theirs, writer))

    async with await asyncio.start_server(pool, "127.0.0.1", 0) as pooler:
        address = f"postgresql://postgres@127.0.0.1:{pooler.sockets[0].getsockname()[1]}{server.path}"
        said = (await run("status", "--database-url", address)).complaint()
    assert said == f"a pooler that drops our settings answers, {address}: give the address of the server itself"


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_ipv6_among_several_hosts(database: str, cluster: Cluster) -> None:
    name = urlsplit(database).path[1:]
    address = f"postgresql://postgres@[::1]:1,127.0.0.1:{cluster.port}/{name}"
    assert (
        await run("status", "--database-url", address)
    ).done() == "no problems\nlog events: 64 partitions, last position 0, settled 0\n"
