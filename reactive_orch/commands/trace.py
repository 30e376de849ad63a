"""`trace`: a rebalance, drawn in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.commands.command import Command, connected, monitors
from reactive_orch.commands.parser import whole_number
from reactive_orch.commands.terminal import show
from reactive_orch.commands.waterfall import waterfall
from reactive_orch.errors import ConfigError
from reactive_orch.postgres import membership, migrations

if TYPE_CHECKING:
    import argparse


async def _trace(options: argparse.Namespace, url: str) -> None:
    name = options.replica_set
    async with connected(url) as connection:
        await migrations.check(connection)
        last = (await membership.replica_sets(connection)).get(name, 0)
        number = last if options.generation is None else options.generation
        row = await membership.generation(connection, name, number)
        if row is None:
            wanted = "generation" if options.generation is None else f"generation {number}"
            msg = f"there is no {wanted} of a replica set {name!r} on record"
            raise ConfigError(msg)
        adoptions = await membership.adoptions(connection, name, row.number)
    show(waterfall(name, row, adoptions, overtaken=number < last))


def _trace_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("generation", nargs="?", type=whole_number, metavar="GENERATION", help="default: the last one")
    parser.add_argument("--replica-set", required=True, metavar="NAME")


TRACE = Command(
    "draw a rebalance: which phase took how long on which worker", _trace_arguments, _trace, purpose=monitors
)
