"""What finds room on a small screen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reactive_orch.core.room import Wanted, fit


def lines(count: int, least: int, *, silent: bool = False) -> Wanted:
    return Wanted([[1]] * count, least, silent=silent)


def test_all_of_it_is_shown_in_its_longest_form_where_there_is_room() -> None:
    wanted = [Wanted([[1, 2, 9], [1]], 1), lines(3, 0), Wanted([], 3)]
    assert fit(wanted, 13) == [[2, 0], [0, 0, 0], []]
    assert fit(wanted, 12) == [[1, 0], [0, 0, 0], []]


def test_a_line_says_what_is_cut_off_and_counts() -> None:
    assert fit([lines(10, 3)], 10) == [[0] * 10]
    assert fit([lines(10, 3)], 9) == [[0] * 8]
    assert fit([lines(10, 3, silent=True)], 9) == [[0] * 9]
    assert fit([lines(10, 3)], 0) == [[]]


def test_each_has_its_least_before_any_has_more() -> None:
    many, few = lines(50, 3), Wanted([[1, 2]] * 5, 3)
    assert fit([many, few], 8) == [[0, 0, 0], [0, 0, 0]]
    assert fit([many, few], 11) == [[0, 0, 0], [1, 1, 1]], "then a second form"
    assert fit([many, few], 12) == [[0, 0, 0, 0], [1, 1, 1]], "then more of them"


WANTED = st.builds(
    lambda heights, least, silent: Wanted([sorted(set(each)) for each in heights], least, silent=silent),
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), max_size=12),
    st.integers(0, 4),
    st.booleans(),
)


@given(st.lists(WANTED, max_size=5), st.integers(0, 60))
def test_it_never_takes_more_than_the_room(wanted: list[Wanted], room: int) -> None:
    forms = fit(wanted, room)
    silence = sum(bool(each.heights) and not each.silent for each in wanted)
    assert sum(each.height(of) for each, of in zip(wanted, forms, strict=True)) <= max(room, silence)
    for each, of in zip(wanted, forms, strict=True):
        assert len(of) <= len(each.heights)
        assert all(form < len(heights) for form, heights in zip(of, each.heights, strict=False))


@given(st.lists(WANTED, max_size=5))
def test_it_takes_what_is_needed_where_that_is_there(wanted: list[Wanted]) -> None:
    needed = sum(heights[-1] for each in wanted for heights in each.heights)
    assert fit(wanted, needed) == [[len(heights) - 1 for heights in each.heights] for each in wanted]
