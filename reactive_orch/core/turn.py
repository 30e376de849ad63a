"""What one worker does next, from what it has seen of its replica set: a decision, as a value (protocol 5).

    turn   observe -> Seen -> next_step (pure) -> Step -> perform

Many that join or leave at once need few generations: a change admits all that wait and removes all that leave. So a
join or leave that meets a generation not yet complete waits for a moment (protocol 5.4). No other change waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from reactive_orch.core import generation
from reactive_orch.model import MemberState, Reason

if TYPE_CHECKING:
    from reactive_orch.model import Change, Member, MemberId, Snapshot

DEBOUNCE_S = 0.25
"""A join or a leave waits until the present generation is complete, or this old."""
LOOK_AGAIN_S = 0.02

_PATIENT = frozenset({Reason.JOIN, Reason.LEAVE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A look at the replica set, and what the worker knows of itself."""

    snapshot: Snapshot
    member: MemberId | None
    """As whom it has joined; None when it has not, or was removed."""
    name: str
    """Of its process."""
    stopping: bool
    trusts: bool
    """False just after it was cut off: a free lock or an old heartbeat may then be its own trouble."""
    watched_s: float
    """For how long it could have heard others."""


@dataclass(frozen=True, slots=True)
class Join:
    """Ask to be admitted."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Do nothing: it stops, and is no member."""


@dataclass(frozen=True, slots=True)
class Removed:
    """Stop being a member: as was asked for, or because the others took this worker for dead."""

    asked: bool


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take back the wish to join: it was never admitted, so no generation is needed."""

    member: MemberId


@dataclass(frozen=True, slots=True)
class Debounce:
    """Look again after a moment: until then more may come, and one generation takes all."""

    for_s: float


@dataclass(frozen=True, slots=True)
class Write:
    """Write the next generation."""

    change: Change


@dataclass(frozen=True, slots=True)
class Release:
    """Let go of what no handler works on, and ask to be removed."""

    member: MemberId


@dataclass(frozen=True, slots=True)
class Adopt:
    """Hold what the generation assigns, and acknowledge it."""

    me: Member


Step: TypeAlias = Join | Rest | Removed | Withdraw | Debounce | Write | Release | Adopt


def next_step(seen: Seen) -> Step:
    """Return what to do. The replica set comes first: a change that it needs is written before anything is adopted."""
    if seen.member is None:
        return Rest() if seen.stopping else Join()
    me = generation.member_of(seen.snapshot, seen.member, seen.name)
    if me is None:
        return Removed(asked=seen.stopping)
    if seen.stopping and me.state is MemberState.WAITING:
        return Withdraw(me.id)
    trust = seen.trusts and generation.may_judge(me)
    change = generation.plan_change(seen.snapshot, trust=trust, watched_s=seen.watched_s)
    if change is not None:
        return Debounce(LOOK_AGAIN_S) if _is_debounced(seen.snapshot, change) else Write(change)
    return Release(me.id) if seen.stopping else Adopt(me)


def _is_debounced(snapshot: Snapshot, change: Change) -> bool:
    unfinished = snapshot.generation > 0 and not snapshot.complete
    young = 0 <= snapshot.age_s < DEBOUNCE_S  # below 0 the server's clock was set back
    return unfinished and young and change.reason in _PATIENT
