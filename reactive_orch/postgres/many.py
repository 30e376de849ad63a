"""Appending more events than one statement should write: all or nothing, in bounded memory.

They are sent to a temporary table, and numbered there; only then does the transaction begin that writes to the log.
Whoever reads the log waits while that goes on, a third to a half as long as if they were written as they are sent. A
role that may make no temporary tables does just that. Nobody is kept from appending before: so it is looked whether the
numbers still hold, and where somebody else has appended meanwhile, they are made again.
"""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import asyncpg

from reactive_orch.errors import ConfigError, Conflict
from reactive_orch.model import Expected
from reactive_orch.postgres import appending
from reactive_orch.postgres.statements import load_statements
from reactive_orch.postgres.steps import perform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))

_FAULTS = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, Conflict)
"""What may be the fault of one event: a number that is too large, an id too long for an index, an id that is taken."""

_EVENT_IDS = "events_event_id_key"

TRIES_MAX = 5
"""So often others may come between the numbers and the log."""


class Part(NamedTuple):
    """Some of the events, and the lines where they were found."""

    lines: Sequence[int]
    columns: appending.Columns

    def cut(self, first: int, last: int) -> Part:
        """Return some of them."""
        return Part(self.lines[first:last], tuple(column[first:last] for column in self.columns))


class Many(Protocol):
    """Events to append."""

    count: int

    @property
    def streams(self) -> Sequence[appending.Stream]:
        """Their aggregates, in order; of more than `appending.TURNS_MAX` any one more than that."""
        ...

    @property
    def few(self) -> bool:
        """Whether they are one part, and not a large one."""
        ...

    def parts(self) -> Iterator[Part]:
        """Yield them all, in order; each time it is called."""
        ...


COMMITTING = "committing"
"""What is done last of all: when it fails, nobody knows whether it is done."""

Tell: TypeAlias = "Callable[[str, int | None], None]"
"""Told what is done, and to how many of the events it has been done, if that is known."""


_Write: TypeAlias = "Callable[[Part, int], Awaitable[None]]"
"""Writes a part, before which there are so many events. Raises Conflict, and asyncpg's errors."""


class _Fault(Exception):
    """The database does not take a part, for what one of its events is."""

    def __init__(self, part: Part, done: int) -> None:
        super().__init__()
        self.part, self.done = part, done


class _Moved(Exception):
    """Somebody else has appended to one of the aggregates meanwhile."""


async def append(connection: AnyConnection, many: Many, expected: int | Expected, tell: Tell) -> None:
    """Append events, all or none, each numbered after the last of its aggregate.

    It waits for others who are appending to the same aggregates, as long as that takes. Raises Conflict, ValueError as
    `appending.append_steps` does, ConfigError naming the line that the database does not take; asyncpg's errors pass.
    """
    if not many.count:
        return
    staged = not many.few and await connection.fetchval(_SQL.may_stage)
    if staged:
        await _stage(connection, many, tell)
    for left in reversed(range(TRIES_MAX)):
        if staged:
            await _number(connection, expected, tell)
        begin = partial(_writer, connection, many, expected, tell, staged=staged, last=not left)
        try:
            await _write(connection, many, tell, begin)
        except _Moved as moved:
            if not left or expected is not Expected.ANY:
                raise await _conflict(connection, many, staged=staged) from moved.__cause__
        else:
            return


async def _number(connection: AnyConnection, expected: int | Expected, tell: Tell) -> None:
    tell("numbering", None)
    await connection.execute(_SQL.forget_numbers)
    await connection.execute(_SQL.number, appending.expected_base(expected))


async def _conflict(connection: AnyConnection, many: Many, *, staged: bool) -> Conflict:
    """Return what to say of others who come between again and again, or where one version was expected."""
    found = [tuple(row) for row in await connection.fetch(_SQL.moved, appending.NAMED_MAX)] if staged else []
    who = f"another writer appended to {appending.names(found or many.streams)} at the same time"
    return Conflict(f"nothing was appended; {who}")


async def _write(connection: AnyConnection, many: Many, tell: Tell, begin: Callable[[], Awaitable[_Write]]) -> None:
    try:
        async with _turn(connection, many.streams, tell):
            await _each(many, await begin(), partial(tell, "appending"))
    except _Fault as fault:
        # Only now with savepoints: too many of them in one transaction slow down everybody on the server.
        async with _turn(connection, many.streams, tell):
            raise await _named(connection, await begin(), fault) from fault.__cause__


@contextlib.asynccontextmanager
async def _turn(connection: AnyConnection, streams: Sequence[appending.Stream], tell: Tell) -> AsyncIterator[None]:
    """Begin a transaction when nobody else appends to these aggregates; commit it at the end."""
    while True:
        async with connection.transaction():
            try:
                await appending.asker(connection)(appending.turn(streams))
            except asyncpg.LockNotAvailableError:
                continue
            yield
            tell(COMMITTING, None)
            return


async def _stage(connection: AnyConnection, many: Many, tell: Tell) -> None:
    async def stage(part: Part, _done: int) -> None:
        await connection.execute(_SQL.stage, part.lines, *part.columns)

    await connection.execute(_SQL.staging)
    await connection.execute(_SQL.numbering)
    try:
        await _each(many, stage, partial(tell, "sending"))
    except _Fault as fault:
        async with connection.transaction():
            raise await _named(connection, stage, fault) from fault.__cause__
    if doubled := await connection.fetchval(_SQL.doubled):
        where = f"line {doubled}: "
        raise _complaint(where, Conflict())


async def _writer(  # noqa: PLR0913 - bound where it is called
    connection: AnyConnection, many: Many, expected: int | Expected, tell: Tell, *, staged: bool, last: bool
) -> _Write:
    """Return what writes to the log, in this transaction. Raises as `append` does.

    `last`: what has to be numbered again is numbered now, while others wait: or they might always be first.
    """
    ask = appending.asker(connection)
    base = await perform(appending.base_steps(many.streams, expected), ask)

    async def write(part: Part, done: int) -> None:
        with _noticing_others():
            await perform(appending.write_steps(part.columns, None if base is None else base + done), ask)

    async def write_staged(part: Part, _done: int) -> None:
        with _noticing_others(), appending.in_conflict(lambda: many.streams):
            await connection.execute(_SQL.write, part.lines[0], part.lines[-1])

    if staged:
        if await connection.fetch(_SQL.moved, 1):
            if not last:
                raise _Moved
            await _number(connection, expected, tell)
        return write_staged
    if not many.few:
        await connection.execute(_SQL.let_send)
    return write


@contextlib.contextmanager
def _noticing_others() -> Iterator[None]:
    try:
        yield
    except Conflict as error:
        if getattr(error.__cause__, "constraint_name", None) != _EVENT_IDS:
            raise _Moved from error
        raise


async def _each(many: Many, write: _Write, tell: Callable[[int], None]) -> None:
    done = 0
    for part in many.parts():
        tell(done)
        try:
            await write(part, done)
        except _FAULTS as error:
            raise _Fault(part, done) from error
        done += len(part.lines)


async def _named(connection: AnyConnection, write: _Write, fault: _Fault) -> Exception:
    """Return what to say of a part that the database does not take, and of which line."""
    line = await _line_at_fault(connection, write, fault.part, fault.done)
    if line is None:  # it is so together with what was written before
        return _complaint(f"lines {fault.part.lines[0]} to {fault.part.lines[-1]}: ", fault.__cause__)
    return _complaint(f"line {line}: " if line else "", fault.__cause__)


def _complaint(where: str, error: BaseException | None) -> Exception:
    kind, why = (Conflict, "an event_id is taken") if isinstance(error, Conflict) else (ConfigError, str(error))
    return kind(f"nothing was appended; {where}{why}")


async def _line_at_fault(connection: AnyConnection, write: _Write, part: Part, done: int) -> int | None:
    try:
        async with connection.transaction():
            await write(part, done)
    except _FAULTS:
        middle = len(part.lines) // 2
        if not middle:
            return part.lines[0]
        line = await _line_at_fault(connection, write, part.cut(0, middle), done)
        if line is None:
            line = await _line_at_fault(connection, write, part.cut(middle, len(part.lines)), done + middle)
        return line
    return None
