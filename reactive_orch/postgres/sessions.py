"""Who is connected to a server, named as its users know them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


async def others(connection: AnyConnection) -> list[str]:
    """Return everybody else who is connected, once each: a worker by its name, others by their program and role."""
    with translated():
        rows = await connection.fetch(_SQL.others)
    return list(dict.fromkeys(_named(row["application_name"], row["role"]) for row in rows))


def _named(application: str, role: str) -> str:
    program, _, rest = application.partition(":")
    kind, _, label = rest.partition(":")
    if program != "reactive_orch" or not label:
        return f"{application or 'a program without a name'} as {role}"
    return "a command" if kind == "command" else f"worker {label}"
