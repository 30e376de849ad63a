"""From a snapshot of a replica set: who is gone, and the change that it needs (protocol 5.2 to 5.4).

Level-triggered: the same snapshot always gives the same answer, and a snapshot that needs nothing gives no change. So
it does not matter who looks, how often, or how many wake-ups were lost; all that look at the same facts agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from reactive_orch.core.assignment import assign, moved
from reactive_orch.model import (
    Change,
    LogName,
    Member,
    MemberId,
    MemberState,
    Partition,
    Reason,
    Snapshot,
    Subscription,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def plan_change(snapshot: Snapshot, *, trust: bool, watched_s: float) -> Change | None:
    """Return the generation to write next, or None when the replica set is as it should be.

    Everything pending goes into one change: all that wait are admitted, all that are gone removed. `trust` False: free
    locks and old heartbeats prove nothing, since whoever has just been cut off may have been so with everybody else.
    `watched_s`: for how many seconds this process could have heard others. A member that may be silent for longer than
    that is not stale yet.
    """
    gone = {m.id: reason for m in snapshot.members if (reason := _gone(m, watched_s, trust=trust))}
    staying = [m for m in snapshot.members if m.id not in gone]
    admit = tuple(sorted(m.id for m in staying if m.state is MemberState.WAITING))
    capable = {m.id: m.subscriptions for m in staying}
    subscriptions = set(snapshot.owners).union(*capable.values())
    widths = {each: snapshot.partitions[each.log] for each in subscriptions}
    target = assign(snapshot.owners, capable, widths, snapshot.exclusive)
    owners = {each: row for each, row in target.items() if row != snapshot.owners.get(each)}
    if not (gone or admit or owners):
        return None
    reason = min(gone.values(), key=_RANK.index, default=Reason.JOIN if admit else Reason.CAPABILITY)
    return Change(
        after=snapshot.generation,
        reason=reason,
        subjects=tuple(sorted((*admit, *gone))),
        admit=admit,
        remove=tuple(sorted(gone)),
        owners=owners,
        moved=moved(snapshot.owners, target),
    )


_RANK = (Reason.DEATH, Reason.STALE, Reason.LEAVE)
"""Of several reasons the gravest is recorded."""


def _gone(member: Member, watched_s: float, *, trust: bool) -> Reason | None:
    if member.state is MemberState.LEAVING:
        return Reason.LEAVE
    if not trust:
        return None
    if member.dead:
        return Reason.DEATH
    if member.stale and watched_s > member.stale_after_s:
        return Reason.STALE
    return None


def unserved(snapshot: Snapshot) -> frozenset[Subscription]:
    """Return what is recorded of the replica set and run by no member, but for what rests."""
    return frozenset(snapshot.epochs.keys() - served(snapshot) - snapshot.resting.keys())


def served(snapshot: Snapshot) -> frozenset[Subscription]:
    """Return what a member runs."""
    return frozenset[Subscription]().union(*(member.subscriptions for member in snapshot.members))


def others_run(snapshot: Snapshot, subscription: Subscription, name: str) -> bool:
    """Tell whether members of other processes than `name` run a projection, too, and it may be divided among them."""
    others = (member for member in snapshot.members if member.name != name and member.state is MemberState.ACTIVE)
    return subscription not in snapshot.exclusive and any(subscription in member.subscriptions for member in others)


def logs_differ(snapshot: Snapshot, known: Mapping[LogName, int]) -> bool:
    """Tell whether a log of this replica set is missing, or has another number of partitions than this worker knows.

    `known`: log → the number of its partitions. If they differ, the owners may be more or fewer than the partitions;
    the follower of the log says what is wrong.
    """
    wanted = {each.log for m in snapshot.members for each in m.subscriptions} | {each.log for each in snapshot.owners}
    there = snapshot.partitions
    return any(name not in there or known.get(name, there[name]) != there[name] for name in wanted)


def may_judge(me: Member) -> bool:
    """Tell whether a member may judge others. One that has no lock or is late may be so for the same cause as they."""
    return me.lock_held and not me.stale


def member_of(snapshot: Snapshot, me: MemberId, name: str) -> Member | None:
    """Return the member of this id and name, None when it has been removed.

    An id alone is not enough: a server that has lost the last ids gives them out again.
    """
    return next((member for member in snapshot.members if (member.id, member.name) == (me, name)), None)


def orphans(snapshot: Snapshot, change: Change) -> frozenset[str]:
    """Return the names of the processes that a change removes without their doing: their connections must end."""
    leaving = {member.id for member in snapshot.members if member.state is MemberState.LEAVING}
    return frozenset(m.name for m in snapshot.members if m.id in change.remove and m.id not in leaving)


def successor(snapshot: Snapshot, me: MemberId) -> MemberId | None:
    """Return whom this member watches: the next one in the ring of ids; None when it is alone."""
    ring = sorted(member.id for member in snapshot.members if member.state is MemberState.ACTIVE)
    after = [member for member in ring if member > me] + [member for member in ring if member < me]
    return after[0] if after else None


def assigned_to(snapshot: Snapshot, me: MemberId) -> Mapping[Subscription, frozenset[Partition]]:
    """Return subscription → the partitions that this member is to handle."""
    return {
        subscription: frozenset(partition for partition, owner in enumerate(row) if owner == me)
        for subscription, row in snapshot.owners.items()
    }


Pairs: TypeAlias = frozenset[tuple[Subscription, Partition]]


class Moves(NamedTuple):
    """What a member loses, gains and keeps with a generation."""

    lost: Pairs
    gained: Pairs
    kept: Pairs


def moves(held: Mapping[Subscription, Iterable[Partition]], due: Mapping[Subscription, Iterable[Partition]]) -> Moves:
    """Return what changes for a member that holds the one and is to hold the other."""
    before, after = pairs(held), pairs(due)
    return Moves(before - after, after - before, before & after)


def pairs(held: Mapping[Subscription, Iterable[Partition]]) -> Pairs:
    """Return what is held, one by one."""
    return frozenset((each, partition) for each, partitions in held.items() for partition in partitions)
