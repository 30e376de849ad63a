"""What a worker says of itself with each heartbeat, so that one look at a few rows tells how all of them are.

Releases that run side by side read each other's: what a later one adds comes last in its list, with a default here, and
what this one does not know is passed over.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from reactive_orch.model.log import Subscription

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.model.log import LogName, Position


class LogAccount(NamedTuple):
    """How far it may read a log."""

    settled: Position | None
    """None while that is unknown."""
    events_per_s: float
    """By how much that grows, of late."""


class ProjectionAccount(NamedTuple):
    """How far it is with its partitions of a projection."""

    held: int
    """How many partitions it has."""
    behind: int
    """Positions between what it has read and the settled end, summed over them."""
    lag_s: float
    """The age of the oldest event that is not handled yet; 0 at the settled end."""
    events_per_s: float
    """Handled of late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One worker's."""

    version: str
    uptime_s: float
    """For how long its process had been connected when it said so."""
    state: str
    logs: Mapping[LogName, LogAccount]
    projections: Mapping[Subscription, ProjectionAccount]
    standstills: Mapping[Subscription, float] = field(default_factory=dict)
    """For how long settled events of some of its partitions have waited without progress, in seconds; else none."""
    busy: float | None = None
    """For what share of the time, of late, its lanes have had batches in hand: those of its busiest projection."""


def account_text(account: Account) -> str:
    """Return it as it is kept in the row of a member: JSON, without escapes, which not every database's jsonb takes."""
    return json.dumps(
        {
            "version": account.version,
            "uptime_s": round(account.uptime_s, 1),
            "state": account.state,
            "logs": {name: [log.settled, round(log.events_per_s, 1)] for name, log in account.logs.items()},
            "projections": [
                [*of, each.held, each.behind, round(each.lag_s, 3), round(each.events_per_s, 1)]
                for of, each in account.projections.items()
            ],
            "busy": None if account.busy is None else round(account.busy, 3),
            "standstills": [[*of, round(seconds, 1)] for of, seconds in account.standstills.items()],
        },
        ensure_ascii=False,
    )


def account_of(text: str | None) -> Account | None:
    """Return what a member's row says; None before its first heartbeat."""
    if text is None:
        return None
    told = json.loads(text)
    return Account(
        version=told["version"],
        uptime_s=told["uptime_s"],
        state=told["state"],
        logs={name: LogAccount(*log[:_OF_LOG]) for name, log in told["logs"].items()},
        projections={
            Subscription(*row[:2]): ProjectionAccount(*row[2 : 2 + _OF_PROJECTION]) for row in told["projections"]
        },
        standstills={Subscription(*row[:2]): row[2] for row in told.get("standstills", ())},  # not in release 0.1.0
        busy=told.get("busy"),  # nor is this
    )


_OF_LOG, _OF_PROJECTION = len(LogAccount._fields), len(ProjectionAccount._fields)
