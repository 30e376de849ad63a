"""Who waits for what one lane reads, and when each is answered; and what is said when the wait was too long.

What is known here is a hint that was notified. Who is not answered looks for himself, and says again that he waits.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from reactive_orch.model import Subscription
from reactive_orch.model.awaiter import Awaiter, Standing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.model import Partition, Position

KEPT_S = 5.0
"""So long is known that somebody waits. He says it again at least every two seconds."""

SESSIONS = 1 << 31
"""The numbers by which sessions are answered are below this, as a column of type integer holds them."""

KEPT_MAX = 1000
"""More than so many are not kept: whoever may connect may notify."""


def awaiter_of(told: str) -> Awaiter | None:
    """Return who waits, as a notification tells it; None for one that tells nothing that could be."""
    try:
        replica_set, projection, log, session, position, partitions = json.loads(told)
        only = None if partitions is None else frozenset(map(int, partitions))
        awaiter = Awaiter(str(replica_set), Subscription(str(projection), str(log)), int(session), int(position), only)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return awaiter if 0 <= awaiter.session < SESSIONS else None


class Awaiters:
    """Those who wait for one lane."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._until: dict[int, tuple[float, Awaiter]] = {}
        """Session → until when it is kept, by the monotonic clock, and what it waits for."""

    def __bool__(self) -> bool:
        return bool(self._until)

    def add(self, awaiter: Awaiter, now: float) -> None:
        """Note that somebody waits, or waits still."""
        if awaiter.session in self._until or len(self._until) < KEPT_MAX:
            self._until[awaiter.session] = now + KEPT_S, awaiter

    def take_served(self, read_to: Mapping[Partition, Position], now: float) -> list[Awaiter]:
        """Return those for whom the partitions of a lane have been read far enough, and keep them no longer.

        Nor is anybody kept who waits for other lanes alone, or has not said for long that he does.
        """
        served = []
        for session, (until, awaiter) in list(self._until.items()):
            wanted = awaiter.wants(read_to.keys())
            if not wanted or now > until:
                del self._until[session]
            elif all(read_to[partition] >= awaiter.position for partition in wanted):
                del self._until[session]
                served.append(awaiter)
        return served


def takes_a_person(standing: Standing) -> bool:
    """Tell whether a position will not be handled before somebody acts."""
    return standing.key_state == "parked" or standing.state in {"paused", "halted"}


def reason(standing: Standing, position: Position, *, whole: bool) -> str:
    """Return why a position is not handled yet, the gravest reason first."""
    if standing.state is None:
        return "no worker has ever run this projection"
    if not (standing.found or whole):
        return "there is no event at this position: has its transaction been committed?"
    if standing.key_state is not None:
        which = "a key with an event up to there" if whole else "its key"
        return f"{which} is {standing.key_state} after {standing.error_type}"
    if standing.state != "running":
        return f"the projection is {standing.state}"
    if not standing.workers:
        return "no worker runs it"
    where = "its slowest partition" if whole else "the partition"
    return f"{where} is at position {standing.checkpoint}, {position - (standing.checkpoint or 0):,} positions behind"
