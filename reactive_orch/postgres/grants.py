"""The least rights of a role, as SQL for the owner of the schema to read and to run: nothing here runs it."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from reactive_orch.errors import ConfigError
from reactive_orch.postgres.statements import load_statements

Purpose: TypeAlias = Literal["worker", "appender", "monitor", "operator"]

NAME_BYTES_MAX = 63
_NO_ROLES = ("public", "none")
"""PostgreSQL takes these for no role's name, quoted or not: what is granted to the first is everybody's."""

_GRANT = re.compile(r"(?m)^GRANT (.*) ON (?:(SCHEMA|SEQUENCE|FUNCTION) )?(.*) TO ")
_PRIVILEGE = re.compile(r"([A-Z]+)(?: \(([^)]*)\))?")

_SQL = load_statements(Path(__file__).parent / "schema" / "grants.sql")


def grants(role: str, purpose: Purpose) -> str:
    """Return the statements that give a role what it needs, one a line, and comments. Raises ConfigError."""
    parts = (_SQL.monitor, _SQL.operator) if purpose == "operator" else (vars(_SQL)[purpose],)
    return "\n".join(parts).replace(":role", quoted(role))


class Wanted(NamedTuple):
    """A privilege that is granted."""

    privilege: str
    kind: Literal["SCHEMA", "TABLE", "SEQUENCE", "FUNCTION"]
    name: str
    """Of the object, without the schema's."""
    column: str
    """Empty: on all of it."""


def wanted(purpose: Purpose) -> list[Wanted]:
    """Return what is granted for a purpose, one by one."""
    found: list[Wanted] = []
    for privileges, kind, objects in _GRANT.findall(grants("role", purpose)):
        for each, name in product(_PRIVILEGE.findall(privileges), objects.split(", ")):
            privilege, columns = each
            bare = name.removeprefix("reactive_orch.")
            found += [Wanted(privilege, kind or "TABLE", bare, column) for column in columns.split(", ")]
    return found


def quoted(role: str) -> str:
    """Return a role's name as an SQL identifier. Raises ConfigError for what cannot be one, or not in one line."""
    if not (role and role.isprintable() and len(role.encode()) <= NAME_BYTES_MAX) or role in _NO_ROLES:
        msg = (
            f"{role!a} is no role's name: it has 1 to {NAME_BYTES_MAX} bytes, all printable, and is not public or none"
        )
        raise ConfigError(msg)
    doubled = role.replace('"', '""')
    return f'"{doubled}"'
