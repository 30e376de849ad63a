"""Appending more events than one statement should write: all or nothing, in bounded memory.

They are sent to a temporary table, and numbered there; only then does the transaction write to the log. Whoever reads
the log waits while that goes on, a third to a half as long as if they were written as they are sent. A role that may
make no temporary tables does just that.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import asyncpg

from reactive_orch.errors import ConfigError, Conflict
from reactive_orch.postgres import log
from reactive_orch.postgres.faults import one_line
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from reactive_orch.model import Expected
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))

_AT_FAULT = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, asyncpg.UniqueViolationError)
"""What is the fault of one event: a number that is too large, an id too long for an index, an id that is taken."""

_TAKEN = "events_event_id_key"


class Part(NamedTuple):
    """Some of the events, and the lines where they were found."""

    lines: Sequence[int]
    columns: log.Columns

    def between(self, low: int, high: int) -> Part:
        """Return those of the lines after `low` up to `high`."""
        first = sum(line <= low for line in self.lines)
        last = sum(line <= high for line in self.lines)
        return Part(self.lines[first:last], tuple(column[first:last] for column in self.columns))


class Many(Protocol):
    """Events to append."""

    count: int

    @property
    def streams(self) -> Sequence[log.Stream]:
        """Their aggregates, in order; of more than `log.TURNS_MAX` any one more than that."""
        ...

    @property
    def few(self) -> bool:
        """Whether they are one part."""
        ...

    def parts(self) -> Iterator[Part]:
        """Yield them all, in order; each time it is called."""
        ...


Tell: TypeAlias = "Callable[[str, int | None], None]"
"""Told what is done, and to how many of the events it has been done, if that is known."""


async def append(connection: AnyConnection, many: Many, expected: int | Expected, tell: Tell) -> None:
    """Append events, all or none, each numbered after the last of its aggregate.

    It waits for others who are appending to the same aggregates, as long as that takes. Raises Conflict, ValueError as
    `log.append_columns` does, ConfigError naming the line that the database does not take; asyncpg's errors pass.
    """
    staged = not many.few and await connection.fetchval(_SQL.may_stage)
    if staged:
        await _stage(connection, many, tell)
    async with _turn(connection, many.streams):
        base = await log.base_of(connection, many.streams, expected)
        if staged:
            await _write_staged(connection, many, base, tell)
        else:
            await _write(connection, many, base, tell)


@contextlib.asynccontextmanager
async def _turn(connection: AnyConnection, streams: Sequence[log.Stream]) -> AsyncIterator[None]:
    """Begin a transaction when nobody else appends to these aggregates."""
    while True:
        async with connection.transaction():
            try:
                await log.take_turns(connection, streams)
            except asyncpg.LockNotAvailableError:
                continue
            yield
            return


async def _stage(connection: AnyConnection, many: Many, tell: Tell) -> None:
    await connection.execute(_SQL.staging)
    done = 0
    for part in many.parts():

        async def stage(low: int, high: int, part: Part = part) -> None:
            lines, columns = part.between(low, high)
            await connection.execute(_SQL.stage, lines, *columns)

        tell("sending", done)
        await _naming(connection, stage, part.lines[0] - 1, part.lines[-1])
        done += len(part.lines)


async def _write_staged(connection: AnyConnection, many: Many, base: int | None, tell: Tell) -> None:
    async def write(low: int, high: int) -> None:
        await connection.execute(_SQL.write, low, high)

    tell("numbering", None)
    await connection.execute(_SQL.numbering)
    await connection.execute(_SQL.number, base)
    done = 0
    with log.in_conflict(lambda: many.streams):
        for lines, _ in many.parts():
            tell("appending", done)
            await _naming(connection, write, lines[0] - 1, lines[-1])
            done += len(lines)


async def _write(connection: AnyConnection, many: Many, base: int | None, tell: Tell) -> None:
    done = 0
    for part in many.parts():

        async def write(low: int, high: int, part: Part = part, done: int = done) -> None:
            before = part.between(0, low)
            columns = part.between(low, high).columns
            await log.write(connection, columns, None if base is None else base + done + len(before.lines))

        tell("appending", done)
        await _naming(connection, write, part.lines[0] - 1, part.lines[-1])
        done += len(part.lines)


async def _naming(connection: AnyConnection, write: Callable[[int, int], Awaitable[None]], low: int, high: int) -> None:
    """Write the events of the lines after `low` up to `high`.

    Raises ConfigError, or Conflict for an id that is taken, naming the line that the database does not take.
    """
    try:
        async with connection.transaction():
            await write(low, high)
    except (*_AT_FAULT, Conflict) as error:
        fault = error.__cause__ if isinstance(error, Conflict) else error
        taken = isinstance(fault, asyncpg.UniqueViolationError)
        if taken and _constraint(fault) != _TAKEN:
            raise
        if high - low == 1:
            kind, why = (Conflict, "its event_id is taken") if taken else (ConfigError, one_line(error))
            msg = f"nothing was appended; {f'line {high}: ' if high else ''}{why}"
            raise kind(msg) from error
        middle = (low + high) // 2
        await _naming(connection, write, low, middle)
        await _naming(connection, write, middle, high)


def _constraint(error: Any) -> str | None:
    return getattr(error, "constraint_name", None)
