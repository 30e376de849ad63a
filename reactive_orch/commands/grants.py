"""`grants`: the least rights of a role, as SQL to read and to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from reactive_orch.commands.command import Command
from reactive_orch.postgres.grants import Purpose, grants

if TYPE_CHECKING:
    import argparse


async def _grants(options: argparse.Namespace, _url: str) -> None:
    print(grants(options.role, options.purpose))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--role", required=True, metavar="ROLE", help="as it is called in the database")
    parser.add_argument(
        "--for",
        required=True,
        dest="purpose",
        choices=get_args(Purpose),
        help="worker: runs projections; appender: appends events; monitor: the commands that look; operator: those too "
        "that act, but for `migrate`, which is the owner's",
    )


GRANTS = Command(
    "print the GRANTs that a role needs, for psql; nothing is changed", _arguments, _grants, needs_database=False
)
