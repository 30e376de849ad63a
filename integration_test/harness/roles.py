"""Roles with less than all rights, and with few connections."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from integration_test.harness.connections import Connection


@contextlib.asynccontextmanager
async def role(db: Connection, database: str, settings: str) -> AsyncIterator[tuple[str, str]]:
    """Create a role with these settings that may do what a worker does; yields its name and its URL."""
    name = f"worker_{database.rpartition('/')[2]}"
    await db.execute(f"""
        CREATE ROLE {name} LOGIN {settings};
        GRANT USAGE ON SCHEMA reactive_orch, public TO {name};
        GRANT ALL ON ALL TABLES IN SCHEMA reactive_orch, public TO {name};
        GRANT ALL ON ALL SEQUENCES IN SCHEMA reactive_orch TO {name};
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA reactive_orch TO {name};
    """)
    try:
        yield name, database.replace("//postgres@", f"//{name}@")
    finally:
        await db.execute("SELECT pg_terminate_backend(a.pid, 10000) FROM pg_stat_activity a WHERE a.usename = $1", name)
        await db.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def limited(db: Connection, database: str, limit: int) -> AbstractAsyncContextManager[tuple[str, str]]:
    """Create one that may have so many connections."""
    return role(db, database, f"CONNECTION LIMIT {limit}")


END_POOLED = """
SELECT pg_terminate_backend(a.pid, 10000) FROM pg_stat_activity a
WHERE a.usename = $1 AND split_part(a.application_name, ':', 2) IN ('work', 'coordination')
"""
"""Ends the connections that a worker of a role has in its pools: it needs others then."""
