"""Members, generations and assignments: each call is one statement, checked and written whole or not at all.

Decides nothing: `core.generation` computes the change from a snapshot, the statement applies it only on top of the
generation it was computed from (protocol 5.3).
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from reactive_orch.errors import ConfigError
from reactive_orch.model import (
    Acknowledged,
    Adopted,
    Change,
    Member,
    MemberId,
    MemberState,
    Reason,
    Snapshot,
    Subscription,
    Written,
)
from reactive_orch.model.membership import AdoptionRow, GenerationRow, Resting
from reactive_orch.postgres.checkpoints import columns, filter_text
from reactive_orch.postgres.connection import marks_of
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from reactive_orch.model import Projection, Turn
    from reactive_orch.postgres.connection import AnyConnection

_SQL = load_statements(Path(__file__).with_suffix(".sql"))


async def register(
    connection: AnyConnection, replica_set: str, projections: Collection[Projection]
) -> frozenset[Subscription]:
    """Record projections; return those refused because they are recorded with another filter.

    Raises ConfigError for one that is to start at a time to come.
    """
    wanted = sorted(projections, key=lambda each: each.subscription)
    names = columns([each.subscription for each in wanted])
    filters, declared = [filter_text(each.filter) for each in wanted], list(map(_declared, wanted))
    starts = [each.start if isinstance(each.start, str) else each.start.isoformat() for each in wanted]
    with translated():
        try:
            refused = await connection.fetch(_SQL.register, replica_set, *names, filters, declared, starts)
        except asyncpg.InvalidParameterValueError as error:
            raise ConfigError(error.message) from error
    return frozenset(Subscription(*row) for row in refused)


def _declared(projection: Projection) -> str:
    """Return what is recorded of a projection's code, where it is not what most are: JSON."""
    declared = {"reset": projection.reset is not None, "replay": projection.replay, "exclusive": projection.exclusive}
    return json.dumps({name: value for name, value in declared.items() if value != (name == "replay")})


async def join(  # noqa: PLR0913, PLR0917 - a member's row
    connection: AnyConnection,
    replica_set: str,
    name: str,
    subscriptions: Collection[Subscription],
    stale_after_s: float,
    known: Collection[MemberId],
    drawn: Collection[MemberId],
) -> MemberId:
    """Take the lock of a new member on this connection, write its waiting row, return its id: none of those `drawn`.

    Members of this name that are not `known` are undone: their process never had the answer to its join. Raises
    ConfigError if the replica set has been removed.
    """
    with translated():
        stale_after = timedelta(seconds=stale_after_s)
        runs = columns(sorted(subscriptions))
        arguments = (replica_set, name, *runs, stale_after, sorted(known), sorted(drawn))
        try:
            return MemberId(await connection.fetchval(_SQL.join, *arguments))
        except asyncpg.InvalidParameterValueError as error:
            raise ConfigError(error.message) from error


async def resume(connection: AnyConnection, name: str, members: Collection[MemberId]) -> frozenset[MemberId]:
    """Take the locks of this process's members on this new connection; return those that were not removed meanwhile."""
    with translated():
        return frozenset(await connection.fetchval(_SQL.resume, name, sorted(members)))


class Beat(NamedTuple):
    """What a heartbeat brings back of one member that is still there."""

    id: MemberId
    replica_set: str
    generation: int
    changes: int
    """Of all projections of the replica set together."""
    attention: bool
    """Somebody is to be admitted to the replica set, or removed from it."""
    queue_usage: float
    """How full the server's queue of notifications is, 0 to 1."""
    late: bool
    """Its row was locked, so its heartbeat is left to the next one."""


async def heartbeat(
    connection: AnyConnection, name: str, members: Collection[MemberId], told: Mapping[MemberId, str]
) -> list[Beat]:
    """Say that these members of this process live, and what each of them tells (`model.account`).

    What one has told before stays if it tells nothing now.

    Returns what is to be known of those that still are members.
    """
    ids = sorted(members)
    with translated():
        return [Beat(*row) for row in await connection.fetch(_SQL.heartbeat, name, ids, list(map(told.get, ids)))]


async def await_death(connection: AnyConnection, member: MemberId) -> bool:
    """Wait for the member's lock, for a slice of 900 ms; True when it is free."""
    with translated():
        return bool(await connection.fetchval(_SQL.await_death, member))


async def terminate(connection: AnyConnection, names: Collection[str]) -> int:
    """End the backends that removed members' processes have left; return how many could not be ended."""
    with translated():
        return int(await connection.fetchval(_SQL.terminate, sorted(names)))


async def leave(connection: AnyConnection, member: MemberId, name: str) -> None:
    """Ask to be removed by the next change; a member that was never admitted is deleted at once."""
    with translated():
        await connection.execute(_SQL.leave, member, name)


async def give_up(connection: AnyConnection, member: Member, subscription: Subscription) -> None:
    """Record that the member does not run this any more."""
    with translated():
        await connection.execute(_SQL.give_up, member.id, member.name, *subscription)


async def take_up(connection: AnyConnection, member: Member, subscription: Subscription) -> None:
    """Record that the member runs this as well."""
    with translated():
        await connection.execute(_SQL.take_up, member.id, member.name, *subscription)


async def propose_again(connection: AnyConnection, replica_set: str, projection: Projection) -> bool:
    """Say that a projection that nobody runs could have this one's filter.

    False if somebody runs it, was first, or has locked its row.
    """
    filter_, declared = filter_text(projection.filter), _declared(projection)
    with translated():
        return bool(
            await connection.fetchval(_SQL.propose_again, replica_set, *projection.subscription, filter_, declared)
        )


async def withdraw(connection: AnyConnection, replica_set: str, projection: Projection) -> bool:
    """Take back what was said by `propose_again`, unless another filter has been proposed since.

    False if somebody has locked its row.
    """
    filter_ = filter_text(projection.filter)
    with translated():
        return bool(await connection.fetchval(_SQL.withdraw, replica_set, *projection.subscription, filter_))


async def unlock(connection: AnyConnection, member: MemberId) -> None:
    """Give back the lock of a member that has left."""
    with translated():
        await connection.fetchval(_SQL.unlock, member)


async def observe(connection: AnyConnection, replica_set: str) -> Snapshot:
    """Return the replica set as one statement sees it."""
    with translated():
        row = await connection.fetchrow(_SQL.observe, replica_set)
    if row is None:
        return Snapshot(generation=0, members=(), owners={}, incarnation=marks_of(connection).incarnation)
    return Snapshot(
        generation=row["generation"],
        members=tuple(_member(fields) for fields in json.loads(row["members"])),
        owners={Subscription(*key): tuple(map(MemberId, ids)) for *key, ids in json.loads(row["owners"])},
        partitions=json.loads(row["partitions"]),
        epochs={Subscription(*key): epoch for *key, epoch in json.loads(row["epochs"])},
        resting={Subscription(*key): Resting(state, reason) for *key, state, reason in json.loads(row["resting"])},
        exclusive=frozenset(Subscription(*key) for key in json.loads(row["exclusive"])),
        serial={Subscription(*key): left_s for *key, left_s in json.loads(row["serial"])},
        asked=frozenset(Subscription(*key) for key in json.loads(row["asked"])),
        reason=row["reason"] and Reason(row["reason"]),
        subjects=tuple(row["subjects"] or ()),
        traceparent=row["traceparent"],
        created_at=row["created_at"],
        age_s=row["age_s"] or 0.0,
        complete=row["complete"],
        moved=row["moved"] or 0,
        incarnation=marks_of(connection).incarnation,
    )


def _member(fields: dict[str, Any]) -> Member:
    fields["state"] = MemberState(fields["state"])
    runs = zip(fields.pop("projections"), fields.pop("logs"), strict=True)
    return Member(**fields, subscriptions=frozenset(Subscription(*each) for each in runs))


async def change(connection: AnyConnection, turn: Turn, new: Change, traceparent: str) -> Written | None:
    """Write the generation; return what came of it, None when the replica set has moved on since the snapshot.

    `traceparent` is the root of the trace that is made of it.
    """
    subscriptions = sorted(new.owners)
    with translated():
        row = await connection.fetchrow(
            _SQL.change,
            turn.replica_set,
            new.after,
            new.reason.value,
            new.subjects,
            traceparent,
            new.admit,
            new.remove,
            *columns(subscriptions),
            _flat(new.owners[subscription] for subscription in subscriptions),
            new.moved,
            turn.member,
            turn.source,
            turn.age_s(turn.planned_ns),
        )
    return None if row is None or row["number"] is None else Written(*row)


def _flat(rows: Any) -> list[int]:
    return [owner for row in rows for owner in row]


async def acknowledge(
    connection: AnyConnection, replica_set: str, by: tuple[MemberId, str], generation: int, adopted: Adopted
) -> Acknowledged | None:
    """Record that, and how, a member (id, name) has adopted the generation; None when there is another one already."""
    with translated():
        row = await connection.fetchrow(_SQL.acknowledge, replica_set, *by, generation, *adopted)
    return None if row is None else Acknowledged(*row)


async def generation(connection: AnyConnection, replica_set: str, number: int) -> GenerationRow | None:
    """Return why a generation was made and when it was complete."""
    with translated():
        row = await connection.fetchrow(_SQL.generation, replica_set, number)
    return None if row is None else GenerationRow(*row)


async def adoptions(connection: AnyConnection, replica_set: str, number: int) -> list[AdoptionRow]:
    """Return how the members adopted a generation."""
    with translated():
        return [AdoptionRow(*row) for row in await connection.fetch(_SQL.adoptions, replica_set, number)]


async def replica_sets(connection: AnyConnection) -> dict[str, int]:
    """Return all replica sets with their generations."""
    with translated():
        return dict(map(tuple, await connection.fetch(_SQL.replica_sets)))
