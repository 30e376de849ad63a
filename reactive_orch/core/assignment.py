"""Who handles which partition of which log for which projection (protocol 5.5).

Every worker computes this alone and must come to the same answer, so the result depends on nothing but the
arguments: not on the order of a mapping, not on a hash, not on a clock. What `assign` guarantees, per subscription:

- only members that can run the projection own its partitions; if there is one, no partition is left with NOBODY;
- balanced: the loads of any two capable members differ by at most one;
- sticky: no other balanced assignment leaves more partitions where they are, so a join takes at most
  ceil(partitions / members) and a departure moves only what the departed held;
- stable: its own result comes back unchanged, so a worker that looks again writes nothing;
- an exclusive one has one owner for all its partitions. Several that the same members can run are dealt to these as the
  partitions of one are: balanced and sticky.

Over the subscriptions it is spread: partitions that do not divide evenly leave some members with one more than others,
and without care that would be the same members for every subscription.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reactive_orch.model import NOBODY, MemberId, Owners, Subscription

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def assign(
    owners: Owners,
    members: Mapping[MemberId, frozenset[Subscription]],
    partitions: Mapping[Subscription, int],
    exclusive: frozenset[Subscription] = frozenset(),
) -> dict[Subscription, tuple[MemberId, ...]]:
    """Return the owners of every partition of every subscription that has a number of partitions.

    `owners` is today's assignment: a subscription it lacks has no owners yet, and partitions of members that are gone
    or cannot run it any more are free. `members` are the living and what they can run. What is `exclusive`
    is not divided.

    Raises ValueError when `owners` has another number of partitions.
    """
    today = {each: _today(owners, each, number) for each, number in sorted(partitions.items())}
    shares = {each: _share(now, _capable(members, each)) for each, now in today.items() if each not in exclusive}
    load = _certain_load(members, shares.values())
    whole = _undivided({each: now for each, now in today.items() if each in exclusive}, members, load)
    divided = {each: _hand_out(today[each], _quotas(share, load)) for each, share in shares.items()}
    return {each: whole[each] if each in exclusive else divided[each] for each in today}


def _undivided(
    today: Mapping[Subscription, tuple[MemberId, ...]],
    members: Mapping[MemberId, frozenset[Subscription]],
    load: dict[MemberId, int],
) -> dict[Subscription, tuple[MemberId, ...]]:
    """Return one owner for all partitions of each of these, and add them to `load`."""
    alike: dict[tuple[MemberId, ...], list[Subscription]] = {}
    for each in today:
        alike.setdefault(tuple(_capable(members, each)), []).append(each)
    owners = {}
    for capable, wholes in alike.items():
        holders = tuple(_holder(today[each], capable) for each in wholes)
        dealt = _hand_out(holders, _quotas(_share(holders, list(capable)), dict(load)))
        for each, owner in zip(wholes, dealt, strict=True):
            owners[each] = (owner,) * len(today[each])
            load[owner] = load.get(owner, 0) + len(today[each])
    return owners


def _holder(today: tuple[MemberId, ...], capable: tuple[MemberId, ...]) -> MemberId:
    """Return which capable member has most of these partitions; NOBODY if none has any."""
    most = max(capable, key=lambda member: (today.count(member), -member), default=NOBODY)
    return most if most in today else NOBODY


def moved(before: Owners, after: Owners) -> int:
    """Return how many partitions change their owner; a subscription that is missing on one side has NOBODY there."""
    return sum(_differences(before.get(each, ()), after.get(each, ())) for each in sorted(before.keys() | after.keys()))


@dataclass(frozen=True, slots=True)
class _Share:
    """What each member of one subscription is due: `base` partitions, and one more for `extras` of the members."""

    base: int
    extras: int
    held: Mapping[MemberId, int]
    """The capable members in order of their ids, and how many partitions each holds today."""

    def above(self) -> list[MemberId]:
        """Return the members that hold more than the base: giving them an extra saves a move each."""
        return [member for member, held in self.held.items() if held > self.base]

    def certain(self) -> list[MemberId]:
        """Return the members whose extra is beyond question, because it saves a move and there is one for each."""
        above = self.above()
        return above if len(above) <= self.extras else []


def _today(owners: Owners, subscription: Subscription, partitions: int) -> tuple[MemberId, ...]:
    today = owners.get(subscription, (NOBODY,) * partitions)
    if len(today) != partitions:
        name, log = subscription
        msg = f"projection {name!r} has owners for {len(today)} partitions of log {log!r}, not {partitions}"
        raise ValueError(msg)
    return today


def _capable(members: Mapping[MemberId, frozenset[Subscription]], subscription: Subscription) -> list[MemberId]:
    return sorted(member for member, runs in members.items() if subscription in runs)


def _share(today: tuple[MemberId, ...], capable: list[MemberId]) -> _Share:
    held = dict.fromkeys(capable, 0)
    for owner in today:
        if owner in held:
            held[owner] += 1
    base, extras = divmod(len(today), len(capable)) if capable else (0, 0)
    return _Share(base, extras, held)


def _certain_load(members: Mapping[MemberId, frozenset[Subscription]], shares: Iterable[_Share]) -> dict[MemberId, int]:
    """Return how many partitions each member has for sure, over all subscriptions.

    Counted before any open extra is given: otherwise the first subscription, by name, would not know what a member
    keeps in the last one.
    """
    load = dict.fromkeys(members, 0)
    for share in shares:
        for member in share.held:
            load[member] += share.base
        for member in share.certain():
            load[member] += 1
    return load


def _quotas(share: _Share, load: dict[MemberId, int]) -> dict[MemberId, int]:
    """Return how many partitions each member shall own, and add the extras that it gives to `load`.

    Stickiness comes before spread. A member keeps min(held, quota) partitions, so an extra keeps one more in place
    exactly when its receiver holds more than the base; among those, and among the rest, every choice moves as much.
    """
    above, certain = frozenset(share.above()), frozenset(share.certain())
    ranked = sorted(share.held, key=lambda member: (member not in above, load[member], member))
    quotas = dict.fromkeys(share.held, share.base)
    for member in ranked[: share.extras]:
        quotas[member] += 1
        load[member] += member not in certain
    return quotas


def _hand_out(today: tuple[MemberId, ...], quotas: Mapping[MemberId, int]) -> tuple[MemberId, ...]:
    """Let every owner keep its first partitions up to its quota and give all others to the members with room left."""
    room = dict(quotas)
    kept = []
    for owner in today:
        keeps = room.get(owner, 0) > 0
        kept.append(owner if keeps else NOBODY)
        if keeps:
            room[owner] -= 1
    # The quotas add up to the number of partitions, unless nobody can run the projection.
    takers = (member for member, left in room.items() for _ in range(left))
    return tuple(next(takers, NOBODY) if owner == NOBODY else owner for owner in kept)


def _differences(before: tuple[MemberId, ...], after: tuple[MemberId, ...]) -> int:
    nobody = (NOBODY,) * max(len(before), len(after))
    return sum(was != now for was, now in zip(before or nobody, after or nobody, strict=True))
