"""The schema from an application: what the command `migrate` does, for a start or a test that has no shell."""

from __future__ import annotations

from reactive_orch.address import database_url as uri_of
from reactive_orch.postgres import migrations
from reactive_orch.postgres.database import COORDINATION_SETTINGS, STATEMENT_TIMEOUT_S, Database


async def migrate(database_url: str, partitions: int = migrations.PARTITIONS_DEFAULT) -> list[str]:
    """Create or update the schema; return what was done, one line each: nothing for a schema that is up to date.

    Any number of processes may call it at once: the first does it, the others wait and find nothing to do. The role is
    the schema's owner, or one who may make it. `database_url` is that of `Config`. `partitions` counts only when the
    log is created: a power of two up to 1024.

    Raises ConfigError for an address that cannot be, for a role that may not, for another number of partitions than
    those, and where a step that is applied is not the one that this package knows; Unavailable; Superseded when others
    keep the locks that a step needs.
    """
    database = Database(uri_of(database_url, None), label="migrate", connections_max=1, handler_timeout_s=60.0)
    connection = await database.connect("command", STATEMENT_TIMEOUT_S, COORDINATION_SETTINGS)
    try:
        return await migrations.migrate(connection, partitions)
    finally:
        await connection.close(timeout=2)
