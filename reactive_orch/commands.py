"""The operator's commands: migrate, append, status, rewind. Each connects once, does one thing and ends."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import select
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reactive_orch import lines
from reactive_orch.errors import ConfigError, Superseded, UnsafeLog
from reactive_orch.model import Expected, NewEvent
from reactive_orch.postgres import checkpoints, log, log_check, membership, migrations
from reactive_orch.postgres.database import AnyConnection, Database, translated
from reactive_orch.postgres.faults import is_stale
from reactive_orch.waterfall import waterfall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

APPENDED_AT_ONCE = 1000
"""Lines of one statement: one transaction, but each statement ends long before the 5 s that it may take."""


@dataclass(frozen=True, slots=True)
class Command:
    """One word of the command line."""

    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, str], Awaitable[None]]
    prepare: Callable[[argparse.Namespace], None] = lambda _: None
    """Before anything is started for it. Raises ConfigError."""


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[AnyConnection]:
    database = Database(url, label="command", connections_max=1, handler_timeout_s=60.0)
    connection = await database.connect("command")
    try:
        yield connection
    finally:
        await connection.close(timeout=2)


async def migrate(url: str) -> None:
    """Apply the schema steps that are missing, mend what is broken, and say so."""
    async with _connected(url) as connection:
        done = await migrations.migrate(connection)
    for line in done:
        print(line)


async def _migrate(options: argparse.Namespace, url: str) -> None:
    asked = migrations.PARTITIONS_DEFAULT if options.partitions is None else options.partitions
    async with _connected(url) as connection:
        done = await migrations.migrate(connection, asked)
        state, _ = await log_check.examine(connection)
    for line in done or [f"nothing to do: the schema is at step {migrations.NEWEST} already"]:
        print(line)
    if options.partitions not in {None, state.partitions}:
        msg = f"--partitions {asked}: this log was created with {state.partitions}, which cannot be changed"
        raise ConfigError(msg)


def _migrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--partitions",
        type=int,
        metavar="N",
        help="of the log, fixed when it is created: a power of two up to 1024 (default 64)",
    )


def _read_events(options: argparse.Namespace) -> None:
    """Read what is to be appended while nothing else goes on: waiting for standard input is ended by any signal."""
    if any(vars(options)[name] is not None for name in lines.REQUIRED):
        options.events = [_single_event(options)]
    elif sys.stdin is None:
        msg = "append: standard input is closed: give lines, or one event by options (--help shows them)"
        raise ConfigError(msg)
    else:
        options.events = lines.events_of(_all_of(sys.stdin.fileno()).readlines())


def _all_of(file: int) -> io.BytesIO:
    """Return what can be read until the end. Python notices no signal that comes just before it begins to wait.

    Raises ConfigError for what cannot be read, or breaks off.
    """
    waking, woken = os.pipe()
    os.set_blocking(woken, False)
    before = signal.set_wakeup_fd(woken)
    read, more, waiting = io.BytesIO(), True, select.poll()  # select() knows no descriptor above 1023
    for each in (file, waking):
        waiting.register(each, select.POLLIN)
    try:
        while more:
            if file in dict(waiting.poll()):
                more = bool(read.write(os.read(file, 1 << 20)))
    except OSError as error:
        msg = f"append: standard input cannot be read: {error.strerror}; nothing was appended"
        raise ConfigError(msg) from error
    finally:
        signal.set_wakeup_fd(before)
        os.close(waking)
        os.close(woken)
    read.seek(0)
    return read


async def _append(options: argparse.Namespace, url: str) -> None:
    events = options.events
    async with _connected(url) as connection:
        await migrations.check(connection)
        try:
            with translated():
                async with connection.transaction():
                    await log.append_columns(connection, log.columns_of(events), options.expected, APPENDED_AT_ONCE)
        except ValueError as error:
            msg = f"append: {error}"
            raise ConfigError(msg) from error
    print(f"appended {len(events)} event{'' if len(events) == 1 else 's'}")


def _append_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--event-type", metavar="TYPE", help="append one event from options instead of standard input")
    parser.add_argument("--aggregate-type", metavar="TYPE")
    parser.add_argument("--aggregate-id", metavar="ID")
    parser.add_argument("--bounded-context", default="default", metavar="NAME")
    parser.add_argument("--payload", default="{}", metavar="JSON")
    parser.add_argument(
        "--expected",
        type=_expected,
        default=Expected.ANY,
        metavar="any|none|VERSION",
        help="what the aggregate's stream must be at (default any); an exact version is for one aggregate",
    )


def _expected(text: str) -> int | Expected:
    words = {"any": Expected.ANY, "none": Expected.NO_STREAM}
    if text not in words and not text.isdecimal():
        msg = f"{text!r} is neither any, none nor a version"
        raise argparse.ArgumentTypeError(msg)
    return words[text] if text in words else int(text)


def _single_event(options: argparse.Namespace) -> NewEvent:
    missing = [f"--{name.replace('_', '-')}" for name in lines.REQUIRED if not vars(options)[name]]
    if missing:
        msg = f"append of one event needs {' and '.join(missing)} too"
        raise ConfigError(msg)
    names = ("event_type", "aggregate_type", "aggregate_id", "bounded_context")
    columns = json.dumps({name: vars(options)[name] for name in names})
    try:
        payload = lines.checked(options.payload)
    except ValueError as error:
        msg = f"--payload is not JSON: {error}"
        raise ConfigError(msg) from error
    try:
        return lines.event_of(f'{columns[:-1]}, "payload": {payload}}}')
    except ValueError as error:
        msg = f"append: {error}"
        raise ConfigError(msg) from error


async def _status(options: argparse.Namespace, url: str) -> None:
    async with _connected(url) as connection:
        await migrations.check(connection)
        state, refusal = await log_check.examine(connection)
        print(f"log: {state.partitions} partitions, last position {state.head}")
        for blocker in await log.blockers(connection):
            print(f"  held by {blocker}")
        sets = await membership.replica_sets(connection)
        for name in sorted(sets) if options.replica_set is None else [options.replica_set]:
            await _print_replica_set(connection, name, sets.get(name), state.head)
    if refusal is not None:
        raise UnsafeLog(refusal)


async def _print_replica_set(connection: AnyConnection, name: str, number: int | None, head: int) -> None:
    if number is None:
        msg = f"there is no replica set {name!r}"
        raise ConfigError(msg)
    print(f"replica set {name}: generation {number}{await _described(connection, name, number)}")
    for member in await membership.members(connection, name):
        lives = "connected" if member.lock_held else "not connected"
        age = f"heartbeat {member.heartbeat_age_s:.1f} s ago"
        print(f"  worker {member.id} {member.state}, {lives}, {age} ({member.name})")
    for projection, saved in (await checkpoints.positions(connection, name)).items():
        print(f"  projection {projection}: saved up to {min(saved.values())} … {max(saved.values())} of {head}")


async def _described(connection: AnyConnection, name: str, number: int) -> str:
    row = await membership.generation(connection, name, number)
    if row is None:
        return ""
    settled = "not settled yet"
    if row.completed_at is not None:
        settled = f"settled in {(row.completed_at - row.created_at).total_seconds() * 1000:.0f} ms"
    return f" ({row.reason} of {', '.join(map(str, row.subjects))}; {row.moved} partitions moved; {settled})"


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replica-set", metavar="NAME", help="only this one")


async def _trace(options: argparse.Namespace, url: str) -> None:
    name = options.replica_set
    async with _connected(url) as connection:
        await migrations.check(connection)
        number = options.generation
        if number is None:
            number = (await membership.replica_sets(connection)).get(name, 0)
        row = await membership.generation(connection, name, number)
        if row is None:
            wanted = "generation" if options.generation is None else f"generation {number}"
            msg = f"there is no {wanted} of a replica set {name!r} on record"
            raise ConfigError(msg)
        adoptions = await membership.adoptions(connection, name, row.number)
    for line in waterfall(name, row, adoptions):
        print(line)


def _trace_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("generation", nargs="?", type=int, metavar="GENERATION", help="default: the last one")
    parser.add_argument("--replica-set", required=True, metavar="NAME")


async def _rewind(options: argparse.Namespace, url: str) -> None:
    async with _connected(url) as connection:
        await migrations.check(connection)
        to = await _target(connection, options.to)
        proposed = await checkpoints.proposed(connection, options.replica_set, options.projection)
        estranged = await checkpoints.is_estranged(connection, options.replica_set, options.projection)
        if to is None and proposed is None and not estranged:
            msg = "--to keep accepts the filter of a worker that was refused, or another log: nothing to do"
            raise ConfigError(msg)
        partitions = await _rewound(connection, options.replica_set, options.projection, to)
    where = "kept where they were" if to is None else f"set to position {to}"
    print(f"{partitions} partitions of {options.projection} {where}; running workers start over from there")
    if proposed is not None:
        print(f"the filter is now {proposed}; start the worker again that was refused with it")


async def _rewound(connection: AnyConnection, replica_set: str, projection: str, to: int | None) -> int:
    """Rewind between two batches, waiting for the slowest handler as long as it takes (with a word about it)."""
    while True:
        try:
            return await checkpoints.rewind(connection, replica_set, projection, to)
        except Superseded as error:
            if is_stale(error):
                raise
            print("waiting for the batches in flight", file=sys.stderr)


async def _target(connection: AnyConnection, text: str) -> int | None:
    """Return the position meant, None for keep. Raises ConfigError for one that is not settled yet."""
    if text in _WORDS:
        return _WORDS[text]
    settled = await checkpoints.settled_end(connection)
    if not text.isdecimal() or int(text) > settled:
        msg = f"--to {text}: give start, keep, or a position up to {settled}, where the log is settled"
        raise ConfigError(msg)
    return int(text)


_WORDS = {"start": 0, "keep": None}


def _rewind_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replica-set", required=True, metavar="NAME")
    parser.add_argument("--projection", required=True, metavar="NAME")
    parser.add_argument(
        "--to",
        required=True,
        metavar="start|keep|POSITION",
        help="handle again everything after this position; keep: only let the next worker record another filter",
    )


COMMANDS = {
    "migrate": Command("create or update the schema", _migrate_arguments, _migrate),
    "append": Command(
        "append events, JSON lines from standard input or one from options", _append_arguments, _append, _read_events
    ),
    "status": Command("show the log, replica sets, workers and projections", _status_arguments, _status),
    "rewind": Command("set a projection's positions back while workers run", _rewind_arguments, _rewind),
    "trace": Command("draw a rebalance: which phase took how long on which worker", _trace_arguments, _trace),
}
"""What `python -m reactive_orch WORD` does."""
