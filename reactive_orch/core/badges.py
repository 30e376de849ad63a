"""The letters by which those who watch tell workers apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reactive_orch.model import MemberId

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
"""With more workers than these, some share one."""


class Badges:
    """Numbers for the workers of a replica set. Each keeps its own; that of one that has gone is given again."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.of: Mapping[MemberId, int] = {}

    def give(self, members: Iterable[MemberId]) -> None:
        """Give each of these members a number, the lowest that is free. Others lose theirs."""
        there = list(members)
        kept = {member: number for member, number in self.of.items() if member in there}
        free = (number for number in range(len(there)) if number not in kept.values())
        new = [member for member in there if member not in kept]
        self.of = kept | dict(zip(new, list(free), strict=False))


def letter(number: int) -> str:
    """Return the letter of a number."""
    return LETTERS[number % len(LETTERS)]
