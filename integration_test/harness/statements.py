"""The statements of .sql files, one by one, and what a server says of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import asyncpg

from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from pathlib import Path

    from integration_test.harness.connections import Connection


def names_of(path: Path) -> dict[str, str]:
    """Return name → text."""
    return vars(load_statements(path))


def parts(sql: str) -> list[str]:
    """Return the statements in a text, without their comments."""
    bare = re.sub(r"--.*", "", sql)
    return [part.strip() for part in bare.split(";") if part.strip()]


async def refused(connection: Connection, path: Path) -> dict[str, str]:
    """Return name → the server's complaint, for each of a file's statements that it does not accept."""
    complaints: dict[str, str] = {}
    for name, sql in names_of(path).items():
        for part in parts(sql):
            try:
                await connection.prepare(part)
                if part.startswith("CREATE TEMPORARY TABLE"):  # for the statements after it
                    await connection.execute(part.removesuffix("ON COMMIT DROP"))
            except asyncpg.PostgresError as error:
                complaints[name] = str(error)
    return complaints
