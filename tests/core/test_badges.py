"""Letters for workers."""

from __future__ import annotations

from reactive_orch.core.badges import LETTERS, Badges, letter
from reactive_orch.model import MemberId


def given(badges: Badges, *members: int) -> str:
    badges.give(map(MemberId, members))
    return "".join(f"{member}{letter(badges.of[MemberId(member)])}" for member in members)


def test_each_worker_keeps_its_letter_and_a_free_one_is_given_again() -> None:
    badges = Badges()
    assert given(badges, 4, 7, 9) == "4A7B9C"
    assert given(badges, 7, 9, 12) == "7B9C12A"
    assert given(badges, 7, 12, 13, 14) == "7B12A13C14D"
    assert given(badges, 14) == "14D"
    assert MemberId(7) not in badges.of


def test_with_more_workers_than_letters_some_share_one() -> None:
    badges = Badges()
    badges.give(map(MemberId, range(1, 101)))
    assert sorted(badges.of.values()) == list(range(100))
    assert letter(len(LETTERS)) == letter(0)
