"""What a process's memory of the database belongs to: an incarnation, and the one server it leads to (protocol 2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from datetime import datetime

Incarnation = NewType("Incarnation", int)
"""Counted by each process for itself: it rises with every lost connection. What was learned in one says nothing in
another, since what came back may be another server, or an older state of the same one."""

NEVER = Incarnation(-1)
"""Of what has not been learned from any database."""


def demand_same(*incarnations: Incarnation) -> None:
    """Raise ValueError when memories of different incarnations are about to be mixed: events would be skipped."""
    if len(set(incarnations)) > 1:
        msg = f"memories of different incarnations must not meet: {sorted(set(incarnations))}"
        raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Server:
    """Where a connection leads, told by the connection itself: an address may be moved while its old server lives.

    A field is None if the user may not ask for it, as on some managed servers: the others have to do.
    """

    database: int
    """The database's oid."""
    started_at: datetime
    """When the postmaster was started."""
    system: int | None
    """The cluster's identifier: copies made by replication or from a backup of its files have the same."""
    timeline: int | None
    """Raised by every promotion; 0 while it is a standby."""
    recovered_at: datetime | None
    """When its statistics began anew, as they do after every crash. `started_at` does not show that: when a backend
    crashes, the postmaster lives on."""

    def precedes(self, other: Server) -> bool:
        """Tell whether the other was promoted after this one: this is an old primary that lives on, or came back.

        False when that cannot be told: the timelines of two clusters say nothing of each other.
        """
        if self.system is None or self.timeline is None or other.timeline is None:
            return False
        same = (self.system, self.database) == (other.system, other.database)
        return same and self.timeline < other.timeline
