"""`migrate`: create or update the schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.commands.command import Command, connected
from reactive_orch.commands.parser import whole_number
from reactive_orch.commands.progress import progress
from reactive_orch.commands.waiting import telling_who
from reactive_orch.errors import ConfigError
from reactive_orch.postgres import log_check, migrations

if TYPE_CHECKING:
    import argparse


async def migrate(url: str) -> None:
    """Apply the schema steps that are missing, mend what is broken, and say so.

    Raises ConfigError, Unavailable, or Superseded when others keep the locks that a step needs.
    """
    for line in await _migrated(url, migrations.PARTITIONS_DEFAULT):
        print(line)


async def _migrated(url: str, partitions: int) -> list[str]:
    with progress("migrate") as shown:
        async with connected(url) as connection, telling_who(url, connection, shown):
            return await migrations.migrate(connection, partitions)


async def _migrate(options: argparse.Namespace, url: str) -> None:
    asked = migrations.PARTITIONS_DEFAULT if options.partitions is None else options.partitions
    for line in await _migrated(url, asked) or [f"nothing to do: the schema has step {migrations.NEWEST} already"]:
        print(line)
    if options.partitions is not None:
        await _demand_partitions(url, asked)


async def _demand_partitions(url: str, asked: int) -> None:
    async with connected(url) as connection:
        (log,) = await log_check.logs(connection)
    if log.partitions != asked:
        msg = f"--partitions {asked}: this log was created with {log.partitions}, which cannot be changed"
        raise ConfigError(msg)


def _migrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--partitions",
        type=whole_number,
        metavar="N",
        help="of the log, fixed when it is created: a power of two up to 1024 (default 64)",
    )


MIGRATE = Command("create or update the schema", _migrate_arguments, _migrate)
