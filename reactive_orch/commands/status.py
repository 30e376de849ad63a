"""`status`: the log, replica sets, workers and projections, as they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.commands.command import Command, connected
from reactive_orch.errors import ConfigError, UnsafeLog
from reactive_orch.model.membership import why
from reactive_orch.postgres import checkpoints, dead_letters, log, log_check, membership, migrations, projections

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from reactive_orch.model import LogName, Position
    from reactive_orch.postgres.connection import AnyConnection

SHARED_ROWS = "see docs/shared-rows.md"


async def _status(options: argparse.Namespace, url: str) -> None:
    async with connected(url) as connection:
        await migrations.check(connection)
        examined = [await log_check.examine(connection, each.name) for each in await log_check.logs(connection)]
        for state, _ in examined:
            print(f"log {state.log.name}: {state.log.partitions} partitions, last position {state.head}")
            for holder in await log.holders(connection, state.log.name):
                print(f"  held by {holder}")
        heads = {state.log.name: state.head for state, _ in examined}
        sets = await membership.replica_sets(connection)
        for name in sorted(sets) if options.replica_set is None else [options.replica_set]:
            await _print_replica_set(connection, name, sets.get(name), heads)
    for _, refusal in examined:
        if refusal is not None:
            raise UnsafeLog(refusal)


async def _print_replica_set(
    connection: AnyConnection, name: str, number: int | None, heads: Mapping[LogName, Position]
) -> None:
    if number is None:
        msg = f"there is no replica set {name!r}"
        raise ConfigError(msg)
    print(f"replica set {name}: generation {number}{await _described(connection, name, number)}")
    for member in await membership.members(connection, name):
        lives = "connected" if member.lock_held else "not connected"
        age = f"heartbeat {member.heartbeat_age_s:.1f} s ago"
        print(f"  worker {member.id} {member.state}, {lives}, {age} ({member.name})")
    waiting = await dead_letters.counted(connection, name)
    resting = await projections.resting(connection, name)
    traits = await projections.traits(connection, name)
    serial = await projections.serial(connection, name)
    for of, saved in (await checkpoints.positions(connection, name)).items():
        positions = f"{min(saved.values())} … {max(saved.values())} of {heads.get(of.log, '?')}"
        keys, events = waiting.get(of, (0, 0))
        failing = f"; failing keys: {keys}, events that wait: {events} (see dead-letters)" if keys else ""
        print(f"  projection {of.projection}: saved up to {positions} (log {of.log}){failing}")
        if (until := serial.get(of)) is not None:
            print(f"    handlers deadlock: batches go one at a time until {until.astimezone():%H:%M:%S}: {SHARED_ROWS}")
        if (rest := resting.get(of)) is not None:
            why_so = f": {rest.reason}" if rest.reason else ""
            again = f"; tried again at {rest.tried_at.astimezone():%H:%M:%S}" if rest.tried_at else ""
            print(f"    {rest.state} since {rest.since.astimezone():%Y-%m-%d %H:%M:%S} by {rest.by}{why_so}{again}")
        if of in traits:
            _print_traits(traits[of])


def _print_traits(traits: projections.Traits) -> None:
    if traits.unserved:
        print("    unserved: no worker runs it")
    if traits.proposed is not None:
        print(f"    refused: a worker came with another filter, which rewind accepts: {traits.proposed}")
    if traits.start != "beginning":
        print(f"    began behind position {traits.start_position} (start: {traits.start})")
    if traits.replays_to is not None:
        print(f"    replays events up to position {traits.replays_to}")
    if traits.leaves_replayed_out:
        print("    replayed events are left out")
    if traits.exclusive:
        print("    exclusive: one worker has all its partitions")


async def _described(connection: AnyConnection, name: str, number: int) -> str:
    row = await membership.generation(connection, name, number)
    if row is None:
        return ""
    settled = "not settled yet"
    if row.completed_at is not None:
        settled = f"settled in {(row.completed_at - row.created_at).total_seconds() * 1000:.0f} ms"
    return f" ({why(row.reason, row.subjects)}; {row.moved} partitions moved; {settled})"


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replica-set", metavar="NAME", help="only this one")


STATUS = Command("show the log, replica sets, workers and projections", _status_arguments, _status)
