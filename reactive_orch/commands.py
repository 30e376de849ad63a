"""The operator's commands: migrate, append, status, rewind. Each connects once, does one thing and ends."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

import anyio

from reactive_orch.errors import ConfigError, Superseded
from reactive_orch.model import Expected, NewEvent
from reactive_orch.postgres import checkpoints, log, membership, migrations
from reactive_orch.postgres.database import AnyConnection, Database, translated
from reactive_orch.runtime.append import append
from reactive_orch.waterfall import waterfall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

BAD_LINES_SHOWN_MAX = 20
EVENT_VERSION_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Command:
    """One word of the command line."""

    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, str], Awaitable[None]]


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[AnyConnection]:
    database = Database(url, label="command", connections_max=1, handler_timeout_s=60.0)
    connection = await database.connect("command")
    try:
        yield connection
    finally:
        await connection.close(timeout=2)


async def migrate(url: str, partitions: int = migrations.PARTITIONS_DEFAULT) -> None:
    """Apply the schema steps that are missing, mend what is broken, and say so."""
    async with _connected(url) as connection:
        done = await migrations.migrate(connection, partitions)
    for line in done:
        print(line)


async def _migrate(options: argparse.Namespace, url: str) -> None:
    await migrate(url, options.partitions)


def _migrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--partitions",
        type=int,
        default=migrations.PARTITIONS_DEFAULT,
        metavar="N",
        help="of the log; only counts when it is created: a power of two up to 1024 (default 64)",
    )


async def _append(options: argparse.Namespace, url: str) -> None:
    if any(vars(options)[name] is not None for name in _REQUIRED):
        events = [_single_event(options)]
    else:
        lines = await anyio.to_thread.run_sync(sys.stdin.buffer.readlines)
        events = _parsed(lines)
    async with _connected(url) as connection:
        await migrations.check(connection)
        try:
            with translated():
                await append(connection, events, options.expected)
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
    missing = [f"--{name.replace('_', '-')}" for name in _REQUIRED if not vars(options)[name]]
    if missing:
        msg = f"append of one event needs {' and '.join(missing)} too"
        raise ConfigError(msg)
    names = ("event_type", "aggregate_type", "aggregate_id", "bounded_context")
    line = {name: vars(options)[name] for name in names}
    try:
        return event_of({**line, "payload": _decoded(options.payload)})
    except ValueError as error:
        msg = f"append: {error}"
        raise ConfigError(msg) from error


def _parsed(lines: Sequence[bytes]) -> list[NewEvent]:
    """Return the events of JSON lines, empty lines left out. Raises ConfigError naming every bad line."""
    events: list[NewEvent] = []
    bad: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                events.append(event_of(_decoded(line)))
        except (ValueError, RecursionError) as error:
            bad.append(f"line {number}: {error}")
    if bad:
        more = [f"and {len(bad) - BAD_LINES_SHOWN_MAX} more"] if len(bad) > BAD_LINES_SHOWN_MAX else []
        msg = f"nothing was appended; {'; '.join(bad[:BAD_LINES_SHOWN_MAX] + more)}"
        raise ConfigError(msg)
    return events


_REQUIRED = ("aggregate_type", "aggregate_id", "event_type")
_KNOWN = frozenset(field.name for field in fields(NewEvent))


def event_of(line: Any) -> NewEvent:
    """Return the event that a JSON object describes, with the columns' names as keys. Raises ValueError."""
    if not isinstance(line, dict):
        msg = f"an event is a JSON object, not {json.dumps(line)[:40]}"
        raise ValueError(msg)  # noqa: TRY004 - to the caller it is one kind of mistake
    line = {key: value for key, value in line.items() if value is not None or key == "payload"}
    unknown = sorted(line.keys() - _KNOWN)
    if unknown:
        msg = f"unknown key {', '.join(unknown)}; known are {', '.join(sorted(_KNOWN))}"
        raise ValueError(msg)
    for key in _REQUIRED:
        if not isinstance(line.get(key), str) or not line[key]:
            msg = f"{key} is missing or not a non-empty string"
            raise ValueError(msg)
    _check_types(line)
    event_id = {"event_id": UUID(line["event_id"])} if "event_id" in line else {}
    return NewEvent(**{**line, **event_id})


def _check_types(line: dict[str, Any]) -> None:
    kinds = {"bounded_context": str, "event_version": int, "metadata": dict, "event_id": str}
    kinds |= dict.fromkeys(("trace_id", "correlation_id", "causation_id"), str)
    for key, kind in kinds.items():
        if key in line and (not isinstance(line[key], kind) or isinstance(line[key], bool)):
            msg = f"{key} must be {'an object' if kind is dict else f'of type {kind.__name__}'}"
            raise ValueError(msg)
    if not 1 <= line.get("event_version", 1) <= EVENT_VERSION_MAX:
        msg = f"event_version must be 1 to {EVENT_VERSION_MAX}"
        raise ValueError(msg)
    "".join(_texts(line)).encode()  # half of a surrogate pair is no text: this says so
    if any("\x00" in text for key, value in line.items() if key != "payload" for text in _texts(value)):
        msg = "PostgreSQL's text cannot hold the character \\u0000"
        raise ValueError(msg)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value:
            yield from _texts(part)
        if isinstance(value, dict):
            yield from _texts(list(value.values()))


def _decoded(text: str | bytes) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


async def _status(options: argparse.Namespace, url: str) -> None:
    async with _connected(url) as connection:
        await migrations.check(connection)
        state = await log.check(connection)
        print(f"log: {state.partitions} partitions, last position {state.head}")
        for blocker in await log.blockers(connection):
            print(f"  held by {blocker}")
        sets = await membership.replica_sets(connection)
        for name in sorted(sets) if options.replica_set is None else [options.replica_set]:
            await _print_replica_set(connection, name, sets.get(name), state.head)


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
    if row.settled_at is not None:
        settled = f"settled in {(row.settled_at - row.created_at).total_seconds() * 1000:.0f} ms"
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
        if to is None and proposed is None:
            msg = "--to keep accepts the filter of a worker that was refused, and none was: nothing to do"
            raise ConfigError(msg)
        partitions = await _rewound(connection, options.replica_set, options.projection, to)
    if not partitions:
        msg = f"replica set {options.replica_set!r} has no projection {options.projection!r}"
        raise ConfigError(msg)
    where = "kept where they were" if to is None else f"set to position {to}"
    print(f"{partitions} partitions of {options.projection} {where}; running workers start over from there")
    if proposed is not None:
        print(f"the filter is now {proposed}; start the worker again that was refused with it")


async def _rewound(connection: AnyConnection, replica_set: str, projection: str, to: int | None) -> int:
    """Rewind between two batches, waiting for the slowest handler as long as it takes (with a word about it)."""
    while True:
        try:
            return await checkpoints.rewind(connection, replica_set, projection, to)
        except Superseded:
            print("waiting for the batches in flight", file=sys.stderr)


async def _target(connection: AnyConnection, text: str) -> int | None:
    """Return the position meant, None for keep. Raises ConfigError for one that is not settled yet."""
    if text in _WORDS:
        return _WORDS[text]
    saved = await checkpoints.greatest(connection)
    head, holders, *_ = await log.observe(connection)
    # While nobody is appending the head is settled. Checkpoints are, unless this is an older state of the database.
    settled = head if not holders else saved if saved <= head else 0
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
    "append": Command("append events, JSON lines from standard input or one from options", _append_arguments, _append),
    "status": Command("show the log, replica sets, workers and projections", _status_arguments, _status),
    "rewind": Command("set a projection's positions back while workers run", _rewind_arguments, _rewind),
    "trace": Command("draw a rebalance: which phase took how long on which worker", _trace_arguments, _trace),
}
"""What `python -m reactive_orch WORD` does."""
