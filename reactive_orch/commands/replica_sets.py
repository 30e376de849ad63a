"""`replica-sets`: which there are, and those that are gone for good removed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from reactive_orch.commands.command import Command, connected
from reactive_orch.commands.terminal import confirm, count, show_table, shown_time
from reactive_orch.errors import ConfigError
from reactive_orch.postgres import migrations, replica_sets
from reactive_orch.postgres.projections import demand_known

if TYPE_CHECKING:
    import argparse

    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.postgres.replica_sets import ReplicaSet


HEAD = ("NAME", "WORKERS", "GENERATION", "SINCE", "FAILING KEYS", "PROJECTIONS")


async def _replica_sets(options: argparse.Namespace, url: str) -> None:
    async with connected(url) as connection:
        await migrations.check(connection)
        if options.action == "remove":
            await _remove(connection, options)
            return
        listed = await replica_sets.listed(connection)
    if options.json:
        print(json.dumps(list(map(_json, listed))))
    elif listed:
        show_table(HEAD, list(map(_row, listed)))
    else:
        print("no replica sets")


async def _remove(connection: AnyConnection, options: argparse.Namespace) -> None:
    name, projection = options.replica_set, options.projection
    await demand_known(connection, name, projection)
    what = f"replica set {name}" if projection is None else f"projection {projection} of replica set {name}"
    if not options.yes:
        await confirm(f"forget where {what} stands, and what waits of it, for good?")
    removed = await replica_sets.remove(connection, name, projection)
    of_it = [count(removed.projections, "projection")] if projection is None else []
    waited = [f"{count(removed.waiting, 'event')} that waited"] if removed.waiting else []
    went = f", with {' and '.join(of_it + waited)}" if of_it + waited else ""
    print(f"{what} is removed{went}")


def _json(each: ReplicaSet) -> dict[str, Any]:
    known = each._asdict()
    return known | {"since": each.since and each.since.isoformat(), "projections": list(each.projections)}


def _row(each: ReplicaSet) -> tuple[str, ...]:
    since = shown_time(each.since) if each.since else "-"
    counts = str(each.workers), str(each.generation), since, str(each.failing_keys)
    return (each.name, *counts, ", ".join(each.projections) or "-")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "remove"), help="remove: for good, once no worker runs it any more")
    parser.add_argument("--replica-set", metavar="NAME", help="the one to remove")
    parser.add_argument("--projection", metavar="NAME", help="remove only this projection of it")
    parser.add_argument("--yes", action="store_true", help="do not ask before removing")
    parser.add_argument("--json", action="store_true", help="list as JSON")


def _check(options: argparse.Namespace) -> None:
    if options.action == "list" and (options.replica_set or options.projection or options.yes):
        msg = "replica-sets list shows all of them, and takes no option but --json"
        raise ConfigError(msg)
    if options.action == "remove" and options.replica_set is None:
        msg = "replica-sets remove needs --replica-set"
        raise ConfigError(msg)


REPLICA_SETS = Command(
    "list replica sets, remove those that are gone for good",
    _arguments,
    _replica_sets,
    _check,
    lambda options: "monitor" if options.action == "list" else "operator",
)
