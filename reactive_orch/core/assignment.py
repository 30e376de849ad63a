"""Who handles which partition of which projection (protocol 5.5).

Every worker computes this alone and must come to the same answer, so the result depends on nothing but the
arguments: not on the order of a mapping, not on a hash, not on a clock. What `assign` guarantees, per projection:

- only members that can run the projection own its partitions; if there is one, no partition is left with NOBODY;
- balanced: the loads of any two capable members differ by at most one;
- sticky: no other balanced assignment leaves more partitions where they are, so a join takes at most
  ceil(partitions / members) and a departure moves only what the departed held;
- stable: its own result comes back unchanged, so a worker that looks again writes nothing.

Over the projections it is spread: partitions that do not divide evenly leave some members with one more than others,
and without care that would be the same members for every projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reactive_orch.model import NOBODY, MemberId, Owners

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def assign(
    owners: Owners, members: Mapping[MemberId, frozenset[str]], projections: Iterable[str], partitions: int
) -> dict[str, tuple[MemberId, ...]]:
    """Return the owners of every partition of every projection, by name.

    `owners` is today's assignment: a projection it lacks has no owners yet, and partitions of members that are gone or
    cannot run the projection any more are free. `members` are the living and what they can run.

    Raises ValueError when `owners` has another number of partitions.
    """
    today = {name: _today(owners, name, partitions) for name in sorted(set(projections))}
    shares = {name: _share(now, _capable(members, name)) for name, now in today.items()}
    load = _certain_load(members, shares.values())
    return {name: _deal(today[name], _quotas(share, load)) for name, share in shares.items()}


def moved(before: Owners, after: Owners) -> int:
    """Return how many partitions change their owner; a projection that is missing on one side has NOBODY there."""
    return sum(_differences(before.get(name, ()), after.get(name, ())) for name in sorted(before.keys() | after.keys()))


@dataclass(frozen=True, slots=True)
class _Share:
    """What each member of one projection is due: `base` partitions, and one more for `extras` of the members."""

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


def _today(owners: Owners, projection: str, partitions: int) -> tuple[MemberId, ...]:
    today = owners.get(projection, (NOBODY,) * partitions)
    if len(today) != partitions:
        msg = f"projection {projection!r} has owners for {len(today)} partitions, not {partitions}"
        raise ValueError(msg)
    return today


def _capable(members: Mapping[MemberId, frozenset[str]], projection: str) -> list[MemberId]:
    return sorted(member for member, runs in members.items() if projection in runs)


def _share(today: tuple[MemberId, ...], capable: list[MemberId]) -> _Share:
    held = dict.fromkeys(capable, 0)
    for owner in today:
        if owner in held:
            held[owner] += 1
    base, extras = divmod(len(today), len(capable)) if capable else (0, 0)
    return _Share(base, extras, held)


def _certain_load(members: Mapping[MemberId, frozenset[str]], shares: Iterable[_Share]) -> dict[MemberId, int]:
    """Return how many partitions each member has for sure, over all projections.

    Counted before any open extra is dealt: otherwise the first projection, by name, would not know what a member
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
    """Return how many partitions each member shall own, and add the extras it deals to `load`.

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


def _deal(today: tuple[MemberId, ...], quotas: Mapping[MemberId, int]) -> tuple[MemberId, ...]:
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
