"""`pause` and `resume`: let a projection rest in its whole replica set, and run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.commands.command import Command, connected, operates, operator
from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.postgres import migrations, projections
from reactive_orch.postgres.projections import demand_known

if TYPE_CHECKING:
    import argparse


async def _pause(options: argparse.Namespace, url: str) -> None:
    async with connected(url) as connection:
        await migrations.check(connection)
        await demand_known(connection, options.replica_set, options.projection)
        of = Subscription(options.projection, OWN_LOG)
        change = projections.StateChange("paused", options.reason, operator())
        before = await projections.set_state(connection, options.replica_set, of, change)
    already = f"was paused already{', and its reason is this one now' if options.reason else ''}"
    print(f"{options.projection} {already if before == 'paused' else 'is paused'}")


async def _resume(options: argparse.Namespace, url: str) -> None:
    async with connected(url) as connection:
        await migrations.check(connection)
        await demand_known(connection, options.replica_set, options.projection)
        of = Subscription(options.projection, OWN_LOG)
        before = await projections.set_state(connection, options.replica_set, of, projections.StateChange("running"))
    print(f"{options.projection} {'was running already' if before == 'running' else f'was {before} and runs again'}")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replica-set", required=True, metavar="NAME")
    parser.add_argument("--projection", required=True, metavar="NAME")


def _pause_arguments(parser: argparse.ArgumentParser) -> None:
    _arguments(parser)
    parser.add_argument("--reason", default="", metavar="TEXT", help="for whoever wonders, in `status`")


PAUSE = Command(
    "let a projection rest on all its workers, until it is resumed", _pause_arguments, _pause, purpose=operates
)
RESUME = Command("let a projection run again that was paused or halted", _arguments, _resume, purpose=operates)
