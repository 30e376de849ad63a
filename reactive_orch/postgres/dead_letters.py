"""Failing keys, and the dead letters: the events that wait with them.

All but the look for what is due runs in a batch that has moved, or only locked, the checkpoint of the key's partition:
so nobody else changes what is read here before the batch has ended.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reactive_orch.errors import Superseded
from reactive_orch.model.events import replay_of
from reactive_orch.model.keys import (
    Attempt,
    DueKey,
    FailingKey,
    Failure,
    Key,
    KeyRequest,
    Waiting,
    WaitingEvent,
    WantedKeys,
)
from reactive_orch.postgres import windows
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from reactive_orch.model import Event, Partition, Position, Subscription
    from reactive_orch.model.keys import Asked
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


class FailingKeys:
    """Those of one subscription, as its lanes know them."""

    def __init__(self, replica_set: str, subscription: Subscription) -> None:
        """Ask nothing yet."""
        self._of = (replica_set, *subscription)
        self._log = subscription.log

    async def among(self, connection: AnyConnection, keys: Collection[Key]) -> dict[Key, int]:
        """Return those of these keys that are failing ones, each with its id."""
        with translated():
            rows = await connection.fetch(_SQL.among, *self._of, *map(list, zip(*keys, strict=True)))
        return {Key(*row[1:]): row[0] for row in rows}

    async def of_partitions(
        self, connection: AnyConnection, partitions: Collection[Partition]
    ) -> list[tuple[Partition, Key]]:
        """Return the failing keys of these partitions."""
        with translated():
            rows = await connection.fetch(_SQL.of_partitions, *self._of, partitions)
        return [(row[0], Key(*row[1:])) for row in rows]

    async def queue(self, connection: AnyConnection, letters: Mapping[Position, int]) -> Waiting:
        """Let the events at these positions wait, each behind those of the key with this id; return what waits then."""
        row = await connection.fetchrow(_SQL.queue, *self._of, list(letters.values()), list(letters))
        assert row is not None, "a function of aggregates returns one row"
        return Waiting(*row)

    async def set_aside(self, connection: AnyConnection, position: Position, attempt: Attempt) -> tuple[Waiting, int]:
        """Let the event at a position wait, and with it its key; return what waits then, and the key's id.

        Raises Superseded if the event is gone.
        """
        row = await connection.fetchrow(_SQL.set_aside, *self._of, position, *_stored(connection, attempt))
        if row is None:
            msg = "the event that was to be set aside is gone"
            raise Superseded(msg)
        return Waiting(*row[:4]), row[4]

    async def next_due(self, connection: AnyConnection, partitions: Collection[Partition]) -> tuple[int, DueKey | None]:
        """Return how many keys of these partitions are failing, and which of them is due first."""
        with translated():
            row = await connection.fetchrow(_SQL.next_due, *self._of, sorted(partitions))
        assert row is not None, "an aggregate returns one row"
        return row[0], None if row[1] is None else DueKey(*row[1:])

    async def waiting(self, connection: AnyConnection, key: int, limit: int) -> tuple[Sequence[Event], Position]:
        """Return the first events that wait of a key, at most `limit`, as many as fit into a window, and up to where.

        There may be none: they have been deleted from the log, or from the list. Raises HandlerFailed when one of them
        cannot be read.
        """
        with translated():
            rows = await connection.fetch(_SQL.first_waiting, key, limit)
        if not rows:
            return (), 0
        positions, replayed = [row[0] for row in rows], {position for position, replayed in rows if replayed}
        found = await windows.read_at(connection, self._log, positions)
        events = tuple(replay_of(event) if event.global_position in replayed else event for event in found)
        return events, events[-1].global_position if events else positions[-1]

    async def evict(self, connection: AnyConnection, key: DueKey, up_to: Position, *, left_out: bool = False) -> bool:
        """Let the events of a key up to a position wait no longer; left out, as its request says, they are recorded.

        Returns whether the key is no failing one any more.
        """
        request = (key.request, key.requested_by) if left_out else (None, None)
        return bool(await connection.fetchval(_SQL.evict, *self._of, key.id, up_to, *request))

    async def failed_again(self, connection: AnyConnection, key: DueKey, attempt: Attempt) -> None:
        """Note that a key's first waiting event has failed once more. Raises Superseded if that one waits no more."""
        values = (*_stored(connection, attempt), key.position, key.request)
        if await connection.fetchval(_SQL.failed_again, key.id, *values) is None:
            msg = "somebody else has tried the failing key meanwhile"
            raise Superseded(msg)

    async def outdated(self, connection: AnyConnection, key: DueKey) -> None:
        """Do not skip what waits first of a key: who has asked for that meant another event."""
        await connection.execute(_SQL.outdated, key.id)

    async def take_up(self, connection: AnyConnection, by: str, for_s: float) -> DueKey | None:
        """Return a key that another process would park, and this one is to try before; None if there is none.

        If it is not tried within so many seconds, the owner of its partition goes on with it.
        """
        with translated():
            row = await connection.fetchrow(_SQL.take_up, *self._of, by, for_s)
        return None if row is None else DueKey(*row)._replace(elsewhere=True)

    async def give_back(self, connection: AnyConnection, key: DueKey, by: str) -> None:
        """Leave a key that was taken up to the owner of its partition."""
        with translated():
            await connection.execute(_SQL.give_back, key.id, by)

    async def answers(self, connection: AnyConnection, asked: Mapping[int, Asked]) -> dict[int, bool]:
        """Return which of these keys, by their ids, nobody is asked to try any more, and whether they were handled."""
        positions, epochs = [each.position for each in asked.values()], [each.epoch for each in asked.values()]
        with translated():
            rows = await connection.fetch(_SQL.answers, *self._of, list(asked), positions, epochs)
        return {row[0]: row[1] for row in rows}

    async def tried_in_vain(self, connection: AnyConnection, key: DueKey) -> None:
        """Note that a key was tried while its projection is suspended, and that it failed: others are tried first."""
        await connection.execute(_SQL.tried_in_vain, key.id)


async def listed(connection: AnyConnection, wanted: WantedKeys) -> list[FailingKey]:
    """Return failing keys, in the order in which they began to fail, projection by projection."""
    with translated():
        rows = await connection.fetch(_SQL.listed, *wanted)
    return [FailingKey._make([*row[:4], _key(row[4:7]), *row[7:10], Failure(*row[10:14]), *row[14:]]) for row in rows]


async def first_events(connection: AnyConnection, keys: Collection[FailingKey]) -> dict[int, WaitingEvent]:
    """Return key's id → the event that waits first of it, of those that are in the log still."""
    with translated():
        rows = await connection.fetch(_SQL.first_events, *_firsts(keys))
    return {row[0]: WaitingEvent(row[1], str(row[2]), _text(row[3]), *row[4:]) for row in rows}


async def first_payloads(connection: AnyConnection, keys: Collection[FailingKey]) -> dict[int, str]:
    """Return key's id → the payload of the event that waits first of it; what is not UTF-8 of it is escaped."""
    with translated():
        rows = await connection.fetch(_SQL.first_payloads, *_firsts(keys))
    return {row[0]: _text(row[1]) for row in rows}


async def may_not_read_payloads(connection: AnyConnection) -> str | None:
    """Return the role of this connection if it may not read payloads; None if it may."""
    with translated():
        role: str | None = await connection.fetchval(_SQL.may_not_read_payloads)
    return role


def _firsts(keys: Collection[FailingKey]) -> tuple[list[int], list[str], list[Position]]:
    return [key.id for key in keys], [key.log for key in keys], [key.first_position for key in keys]


def _text(column: bytes) -> str:
    """Return a text as people may read it, whatever bytes it has."""
    return column.decode("utf-8", "backslashreplace")


def _key(columns: Sequence[bytes]) -> Key:
    """Return a key as people may read it, whatever bytes it has."""
    return Key(*map(_text, columns))


async def waiting(connection: AnyConnection, replica_set: str, of: Subscription) -> Waiting:
    """Return what waits of a subscription now."""
    with translated():
        row = await connection.fetchrow(_SQL.waits, replica_set, *of)
    assert row is not None, "a function of aggregates returns one row"
    return Waiting(*row)


async def request(
    connection: AnyConnection, replica_set: str, keys: Collection[FailingKey], what: KeyRequest, by: str
) -> int:
    """Ask the owners of these keys to act; `by` is recorded. Returns how many keys are still there."""
    ids, positions = [key.id for key in keys], [key.first_position for key in keys]
    with translated():
        return int(await connection.fetchval(_SQL.request, replica_set, ids, what, by, positions))


async def left_out(connection: AnyConnection, replica_set: str, keys: Collection[FailingKey]) -> int:
    """Return how many of the events that waited first of these keys have been left out."""
    positions = [key.first_position for key in keys]
    of = [key.projection for key in keys], [key.log for key in keys]
    with translated():
        return int(await connection.fetchval(_SQL.left_out, replica_set, *of, positions))


async def outstanding(connection: AnyConnection, keys: Collection[int]) -> tuple[int, int]:
    """Return how many of these keys have still to be acted on, and how many are parked."""
    with translated():
        row = await connection.fetchrow(_SQL.outstanding, list(keys))
    assert row is not None, "an aggregate returns one row"
    return row[0], row[1]


def _stored(connection: AnyConnection, attempt: Attempt) -> list[object]:
    """Return an attempt as statements take it; its texts without NUL, and in ASCII where not all is UTF-8."""
    encoding = "utf-8" if connection.get_settings().server_encoding == "UTF8" else "ascii"
    texts = [
        None if text is None else text.replace("\0", "\\0").encode(encoding, "backslashreplace").decode(encoding)
        for text in attempt.failure
    ]
    return [attempt.state, attempt.number, attempt.pause_s, *texts, attempt.worker, attempt.deaths, attempt.asked_by]
