"""Failing keys, for applications: which there are, what was raised, and what becomes of the events that wait.

    keys = await dead_letters.listed(connection, "shop", projection="order_status")
    await dead_letters.retry(connection, "shop", keys, by="admin page")
    failed_again = await dead_letters.done(connection, keys)

What is asked for is recorded, in the caller's transaction if there is one, and carried out by the worker that owns the
key's partition, within its batches: so it may be asked for at any time. The command `dead-letters` does no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from reactive_orch.model import OWN_LOG, Subscription
from reactive_orch.model.keys import FailingKey, Failure, Key, KeyRequest, WantedKeys
from reactive_orch.postgres import dead_letters, projections

if TYPE_CHECKING:
    from collections.abc import Collection

    from reactive_orch.postgres.connection import AnyConnection

__all__ = ["FailingKey", "Failure", "Key", "discard", "done", "hindrance", "listed", "retry", "skip"]

LOOK_AGAIN_S = 0.2


async def listed(  # noqa: PLR0913 - a keyword for each thing that a key may be found by
    connection: AnyConnection,
    replica_set: str,
    *,
    projection: str | None = None,
    key: str | None = None,
    aggregate_type: str | None = None,
    bounded_context: str | None = None,
) -> list[FailingKey]:
    """Return failing keys, in the order in which they began to fail, projection by projection; None means any.

    `key` is an aggregate id, or a partition key. Each comes with its last failure: type, SQLSTATE, message and whole
    traceback. Raises ConfigError, naming those that there are, for a replica set or a projection that no worker has
    ever had; Unavailable, Superseded or ConfigError, as the other functions here.
    """
    wanted = WantedKeys(replica_set, projection, key, aggregate_type, bounded_context)
    if not (found := await dead_letters.listed(connection, wanted)):
        await projections.demand_known(connection, replica_set, projection)
    return found


async def retry(connection: AnyConnection, replica_set: str, keys: Collection[FailingKey], *, by: str) -> int:
    """Let what waits of these keys be tried again, each key's events in order. `by` says who wants it, for the record.

    Returns how many of them are failing keys still.
    """
    return await _ask(connection, replica_set, keys, "retry", by)


async def skip(connection: AnyConnection, replica_set: str, keys: Collection[FailingKey], *, by: str) -> int:
    """Leave out the first event that waits of each of these keys, for good, and go on with the next. As `retry`.

    Only the one at the key's `first_position`: if that one waits no more when its owner looks, nothing is left out.
    """
    return await _ask(connection, replica_set, keys, "skip", by)


async def discard(connection: AnyConnection, replica_set: str, keys: Collection[FailingKey], *, by: str) -> int:
    """Leave out all events that wait of these keys, for good. As `retry`."""
    return await _ask(connection, replica_set, keys, "discard", by)


async def done(connection: AnyConnection, keys: Collection[FailingKey]) -> int:
    """Wait until the owners of these keys have done what they were asked for; not inside a transaction.

    Returns how many keys have failed again. `hindrance` says what may keep the owners from it.
    """
    ids = [key.id for key in keys]
    while True:
        outstanding, parked = await dead_letters.outstanding(connection, ids)
        if not outstanding:
            return parked
        await anyio.sleep(LOOK_AGAIN_S)


async def left_out(connection: AnyConnection, replica_set: str, keys: Collection[FailingKey]) -> int:
    """Return how many of the events that waited first of these keys have been left out."""
    return await dead_letters.left_out(connection, replica_set, keys)


async def hindrance(connection: AnyConnection, replica_set: str, projection: str) -> str | None:
    """Return why nothing of a projection is handled now: it rests, or no worker runs it. None if nothing is known."""
    return await projections.hindrance(connection, replica_set, Subscription(projection, OWN_LOG))


async def _ask(
    connection: AnyConnection, replica_set: str, keys: Collection[FailingKey], what: KeyRequest, by: str
) -> int:
    return await dead_letters.request(connection, replica_set, keys, what, by)
