"""Who handles which partition: total, capable, balanced, sticky, deterministic, spread."""

from __future__ import annotations

import itertools
import math
import sys
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_orch.core import assignment
from reactive_orch.model import NOBODY, OWN_LOG, MemberId, Subscription
from tests.effort import examples

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping

Members: TypeAlias = dict[MemberId, frozenset[str]]
Assigned: TypeAlias = dict[str, tuple[MemberId, ...]]

NAMES = ("a", "b", "c", "d")
A, AB = frozenset("a"), frozenset("ab")


def ids(*numbers: int) -> tuple[MemberId, ...]:
    return tuple(MemberId(number) for number in numbers)


def on_own_log(owners: Mapping[str, tuple[MemberId, ...]]) -> dict[Subscription, tuple[MemberId, ...]]:
    return {Subscription(name, OWN_LOG): row for name, row in owners.items()}


def assign(
    owners: Mapping[str, tuple[MemberId, ...]],
    members: Mapping[MemberId, frozenset[str]],
    names: Iterable[str],
    partitions: int,
    exclusive: Iterable[str] = (),
) -> Assigned:
    """Assign projections that all read one log, by name."""
    capable = {member: frozenset(Subscription(name, OWN_LOG) for name in runs) for member, runs in members.items()}
    widths = {Subscription(name, OWN_LOG): partitions for name in names}
    whole = frozenset(Subscription(name, OWN_LOG) for name in exclusive)
    return {each.projection: row for each, row in assignment.assign(on_own_log(owners), capable, widths, whole).items()}


def moved(before: Mapping[str, tuple[MemberId, ...]], after: Mapping[str, tuple[MemberId, ...]]) -> int:
    return assignment.moved(on_own_log(before), on_own_log(after))


def run_by(runs: Iterable[str], *numbers: int) -> Members:
    return dict.fromkeys(ids(*numbers), frozenset(runs))


def loads(owners: tuple[MemberId, ...], capable: Iterable[MemberId]) -> dict[MemberId, int]:
    return {member: owners.count(member) for member in capable}


def capable(members: Mapping[MemberId, frozenset[str]], name: str) -> list[MemberId]:
    return [member for member, runs in members.items() if name in runs]


def total_loads(owners: Assigned, members: Members) -> dict[MemberId, int]:
    return {member: sum(now.count(member) for now in owners.values()) for member in members}


@pytest.mark.parametrize(
    ("today", "members", "expected"),
    [
        pytest.param((), (), (0, 0, 0, 0), id="nobody lives"),
        pytest.param((7, 7, 7, 7), (), (0, 0, 0, 0), id="the last one dies"),
        pytest.param((), (1,), (1, 1, 1, 1), id="the first one takes all"),
        pytest.param((1, 1, 1, 1), (1, 2), (1, 1, 2, 2), id="a joiner takes half"),
        pytest.param((1, 1, 2, 2), (1, 2, 3), (1, 1, 2, 3), id="a joiner takes one, the extra stays with the lower id"),
        pytest.param((1, 2, 2, 2), (1, 2, 3), (1, 2, 2, 3), id="the extra stays with who holds more, not the lower id"),
        pytest.param((1, 1, 2, 3), (1, 3), (1, 1, 3, 3), id="a departure moves only its own"),
        pytest.param((1, 0, 2, 9), (1, 2), (1, 1, 2, 2), id="free and forgotten owners are filled up"),
        pytest.param((4, 3, 2, 1), (1, 2, 3, 4, 5, 6), (4, 3, 2, 1), id="more members than partitions: some stand by"),
        pytest.param((4, 3, 9, 1), (1, 3, 4, 6, 5), (4, 3, 5, 1), id="one that stood by steps in"),
        pytest.param((1, 1, 1, 1), (2, 3), (2, 2, 3, 3), id="everybody is replaced"),
    ],
)
def test_table(today: tuple[int, ...], members: tuple[int, ...], expected: tuple[int, ...]) -> None:
    owners = {"a": ids(*today)} if today else {}
    assert assign(owners, run_by("a", *members), ["a"], 4) == {"a": ids(*expected)}


def test_projections_come_sorted_and_once_and_those_nobody_runs_have_nobody() -> None:
    result = assign({"gone": ids(1, 1)}, run_by("b", 1), ["c", "b", "c"], 2)
    assert list(result.items()) == [("b", ids(1, 1)), ("c", ids(0, 0))]


def test_a_member_that_lost_the_capability_loses_the_partitions() -> None:
    members = {MemberId(1): frozenset("b"), MemberId(2): AB}
    result = assign({"a": ids(1, 1, 2, 2), "b": ids(1, 1, 2, 2)}, members, "ab", 4)
    assert result == {"a": ids(2, 2, 2, 2), "b": ids(1, 1, 2, 2)}


def test_owners_of_another_number_of_partitions_are_refused() -> None:
    with pytest.raises(ValueError, match="'a' has owners for 3 partitions of log 'events', not 4"):
        assign({"a": ids(1, 1, 1)}, run_by("a", 1), ["a"], 4)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, 0),
        ({"a": ids(1, 2, 3)}, {"a": ids(1, 2, 3)}, 0),
        ({"a": ids(1, 2, 3)}, {"a": ids(1, 3, 2)}, 2),
        ({"a": ids(1, 0, 0)}, {"a": ids(1, 2, 0)}, 1),
        ({}, {"a": ids(1, 2, 0)}, 2),
        ({"a": ids(1, 2, 0)}, {}, 2),
        ({"a": ids(1, 1), "b": ids(2, 2)}, {"a": ids(1, 2), "c": ids(3, 0)}, 4),
    ],
)
def test_moved(before: Assigned, after: Assigned, expected: int) -> None:
    assert moved(before, after) == expected


def check(before: Assigned, members: Members, names: Iterable[str], partitions: int, after: Assigned) -> None:
    """Check all that must hold of every assignment, whatever it started from."""
    assert list(after) == sorted(set(names))
    for name, now in after.items():
        able = capable(members, name)
        assert len(now) == partitions
        assert set(now) <= set(able or [NOBODY]), "total, and capable members only"
        held = loads(now, able).values()
        assert max(held, default=0) - min(held, default=0) <= 1, "balanced"
        was = before.get(name, (NOBODY,) * partitions)
        assert moved({name: was}, {name: now}) == fewest_moves(was, able), "sticky"
    assert assign(after, members, names, partitions) == after, "stable"


def fewest_moves(was: tuple[MemberId, ...], able: list[MemberId]) -> int:
    """Return the minimum that balance requires, in closed form.

    A member keeps at most the base, and one more if it has an extra: extras are worth giving to who holds more.
    """
    if not able:
        return len(was) - was.count(NOBODY)
    base, extras = divmod(len(was), len(able))
    held = loads(was, able).values()
    return len(was) - sum(min(count, base) for count in held) - min(extras, sum(count > base for count in held))


def fewest_moves_by_trying(was: tuple[MemberId, ...], able: list[MemberId]) -> int:
    """Return the same by looking at every balanced assignment there is."""
    return min(
        sum(old != new for old, new in zip(was, now, strict=True))
        for now in itertools.product(able, repeat=len(was))
        if max(loads(now, able).values()) - min(loads(now, able).values()) <= 1
    )


members_of_some = st.dictionaries(
    st.integers(1, 12).map(MemberId), st.frozensets(st.sampled_from(NAMES)), max_size=9
)  # Some run nothing: they stand by.


@st.composite
def situations(draw: st.DrawFn) -> tuple[Assigned, Members, int]:
    partitions = draw(st.integers(1, 24))
    row = st.lists(st.integers(0, 14).map(MemberId), min_size=partitions, max_size=partitions).map(tuple)
    owners = draw(st.dictionaries(st.sampled_from(NAMES), row))
    return owners, draw(members_of_some), partitions


@pytest.mark.thorough
@given(situations())
@examples(400)
def test_any_situation(situation: tuple[Assigned, Members, int]) -> None:
    owners, members, partitions = situation
    check(owners, members, NAMES, partitions, assign(owners, members, NAMES, partitions))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 4))
@examples(150)
def test_no_balanced_assignment_moves_fewer(row: list[int], count: int) -> None:
    was, able = ids(*row), list(ids(*range(1, count + 1)))
    after = assign({"a": was}, dict.fromkeys(able, A), ["a"], len(was))
    assert moved({"a": was}, after) == fewest_moves_by_trying(was, able) == fewest_moves(was, able)


@given(situations(), st.randoms(use_true_random=False))
def test_the_order_of_the_arguments_does_not_matter(
    situation: tuple[Assigned, Members, int], shuffle: random.Random
) -> None:
    owners, members, partitions = situation
    shuffled_owners, shuffled_members, shuffled_names = list(owners.items()), list(members.items()), list(NAMES)
    for arguments in (shuffled_owners, shuffled_members, shuffled_names):
        shuffle.shuffle(arguments)
    again = assign(dict(shuffled_owners), dict(shuffled_members), shuffled_names, partitions)
    assert list(again.items()) == list(assign(owners, members, NAMES, partitions).items())


@given(st.integers(1, 40), st.integers(1, 12))
def test_a_joiner_costs_its_share_and_no_more(partitions: int, count: int) -> None:
    before = assign({}, run_by(NAMES, *range(count)[1:]), NAMES, partitions) if count > 1 else {}
    joiner = MemberId(count)
    after = assign(before, run_by(NAMES, *range(1, count + 1)), NAMES, partitions)
    for name in NAMES:
        assert moved({name: before.get(name, ())}, {name: after[name]}) <= math.ceil(partitions / count)
        assert all(was == now for was, now in zip(before.get(name, ()), after[name], strict=False) if now != joiner)


@given(st.integers(1, 40), st.integers(2, 12), st.data())
def test_a_departure_moves_only_what_the_departed_held(partitions: int, count: int, data: st.DataObject) -> None:
    members = run_by(NAMES, *range(1, count + 1))
    before = assign({}, members, NAMES, partitions)
    departed = data.draw(st.sampled_from(sorted(members)))
    after = assign(before, {member: runs for member, runs in members.items() if member != departed}, NAMES, partitions)
    assert moved(before, after) == total_loads(before, members)[departed]


@given(st.lists(st.tuples(st.integers(1, 8).map(MemberId), st.frozensets(st.sampled_from(NAMES)))), st.integers(1, 20))
def test_walks_of_joins_leaves_and_new_capabilities(steps: list[tuple[MemberId, frozenset[str]]], size: int) -> None:
    owners: Assigned = {}
    members: Members = {}
    for member, runs in steps:
        members = {**members, member: runs} if runs else {id_: was for id_, was in members.items() if id_ != member}
        after = assign(owners, members, NAMES, size)
        check(owners, members, NAMES, size, after)
        owners = after


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 8))
def test_a_fresh_set_is_even_over_all_projections(partitions: int, count: int, projections: int) -> None:
    names = [f"p{number}" for number in range(projections)]
    members = run_by(names, *range(1, count + 1))
    total = total_loads(assign({}, members, names, partitions), members).values()
    assert max(total) - min(total) <= 1


@pytest.mark.parametrize(
    ("owners", "members", "expected"),
    [
        pytest.param({}, run_by("ab", 1, 2), {"a": ids(1, 1, 2), "b": ids(1, 2, 2)}, id="extras alternate"),
        pytest.param(
            {"b": ids(1, 1, 2)},
            run_by("ab", 1, 2),
            {"a": ids(1, 2, 2), "b": ids(1, 1, 2)},
            id="an extra kept in a later projection counts in an earlier one",
        ),
        pytest.param(
            {"a": ids(1, 1, 2), "b": ids(1, 1, 2)},
            run_by("ab", 1, 2),
            {"a": ids(1, 1, 2), "b": ids(1, 1, 2)},
            id="stickiness comes before spread",
        ),
        pytest.param(
            {"a": ids(1, 1, 2), "b": ids(1, 1, 1), "c": ids(2, 2, 2)},
            run_by("abc", 1, 2, 3),
            {"a": ids(1, 3, 2), "b": ids(1, 2, 3), "c": ids(2, 1, 3)},
            id="no extras, no choice",
        ),
        pytest.param(
            {},
            {**run_by("ab", 1), **run_by("a", 2, 3)},
            {"a": ids(1, 2, 3), "b": ids(1, 1, 1)},
            id="only capable members count",
        ),
        pytest.param(
            {"a": ids(1, 1, 2, 2)},
            {**run_by("ab", 1), **run_by("a", 2, 3)},
            {"a": ids(1, 3, 2, 2), "b": ids(1, 1, 1, 1)},
            id="of two that hold more, the one with less elsewhere keeps it",
        ),
        pytest.param(
            {"a": ids(1, 1, 2), "c": ids(1, 2, 2)},
            run_by("abc", 1, 2),
            {"a": ids(1, 1, 2), "b": ids(1, 1, 2), "c": ids(1, 2, 2)},
            id="an extra counts once, whether dealt before or after",
        ),
        pytest.param(
            {"b": ids(1, 1, 2, 2)},
            run_by("ab", 1, 2, 3),
            {"a": ids(1, 1, 2, 3), "b": ids(1, 3, 2, 2)},
            id="an extra that may go to another does not count",
        ),
    ],
)
def test_remainders_go_to_who_has_least(owners: Assigned, members: Members, expected: Assigned) -> None:
    names, partitions = sorted(expected), len(next(iter(expected.values())))
    assert assign(owners, members, names, partitions) == expected


@pytest.mark.parametrize(
    ("owners", "members", "expected"),
    [
        pytest.param({}, run_by("a", 1, 2), {"a": ids(1, 1, 1)}, id="one gets all"),
        pytest.param({"a": ids(1, 1, 1)}, run_by("a", 1, 2), {"a": ids(1, 1, 1)}, id="a joiner takes nothing of one"),
        pytest.param({"a": ids(2, 1, 2)}, run_by("a", 1, 2), {"a": ids(2, 2, 2)}, id="who has most gets the rest"),
        pytest.param({"a": ids(1, 1, 1)}, run_by("a", 2, 3), {"a": ids(2, 2, 2)}, id="another one takes over"),
        pytest.param({"a": ids(1, 1, 1)}, {}, {"a": ids(0, 0, 0)}, id="nobody is left"),
        pytest.param(
            {"a": ids(1, 1, 1), "b": ids(1, 1, 1)},
            run_by("ab", 1, 2),
            {"a": ids(1, 1, 1), "b": ids(2, 2, 2)},
            id="a joiner takes its share of several",
        ),
        pytest.param(
            {"a": ids(1, 1, 1), "b": ids(2, 2, 2)},
            {**run_by("ab", 1), **run_by("a", 2)},
            {"a": ids(1, 1, 1), "b": ids(1, 1, 1)},
            id="only who can run it",
        ),
    ],
)
def test_an_exclusive_projection_has_one_owner(owners: Assigned, members: Members, expected: Assigned) -> None:
    assert assign(owners, members, expected, 3, exclusive=expected) == expected


def test_what_is_divided_goes_round_what_is_not() -> None:
    after = assign({}, run_by("ab", 1, 2), "ab", 3, exclusive="a")
    assert after == {"a": ids(1, 1, 1), "b": ids(1, 2, 2)}, "the remainder of b goes to who has not got a"


@given(situations(), st.frozensets(st.sampled_from(NAMES)), st.randoms(use_true_random=False))
def test_any_situation_with_exclusive_ones(
    situation: tuple[Assigned, Members, int], exclusive: frozenset[str], shuffle: random.Random
) -> None:
    owners, members, partitions = situation
    after = assign(owners, members, NAMES, partitions, exclusive)
    for name in exclusive:
        able = capable(members, name)
        assert len(set(after[name])) == 1, "undivided"
        assert after[name][0] in (able or [NOBODY])
    by_members = {frozenset(capable(members, name)) for name in exclusive}
    for group in by_members:
        alike = [name for name in exclusive if frozenset(capable(members, name)) == group]
        held = [sum(after[name][0] == member for name in alike) for member in sorted(group)]
        assert max(held, default=0) - min(held, default=0) <= 1, "balanced"
    for name in set(NAMES) - exclusive:
        assert moved({name: owners.get(name, ())}, {name: after[name]}) == fewest_moves(
            owners.get(name, (NOBODY,) * partitions), capable(members, name)
        ), "the others as ever"
    assert assign(after, members, NAMES, partitions, exclusive) == after, "stable"
    shuffled = list(members.items())
    shuffle.shuffle(shuffled)
    assert assign(owners, dict(shuffled), NAMES, partitions, exclusive) == after, "whatever the order"


@given(st.integers(1, 24), st.integers(2, 8), st.data())
def test_of_exclusive_ones_a_departure_moves_only_its_own(partitions: int, count: int, data: st.DataObject) -> None:
    members = run_by(NAMES, *range(1, count + 1))
    before = assign({}, members, NAMES, partitions, NAMES)
    departed = data.draw(st.sampled_from(sorted(members)))
    after = assign(
        before, {member: runs for member, runs in members.items() if member != departed}, NAMES, partitions, NAMES
    )
    assert moved(before, after) == total_loads(before, members)[departed]


def test_of_a_thousand_members_only_those_of_the_departed_are_moved() -> None:
    names = [f"p{number}" for number in range(10)]
    members = run_by(names, *range(1, 1001))
    before = assign({}, members, names, 1024)
    del members[MemberId(500)]
    after = assign(before, members, names, 1024)
    assert moved(before, after) == sum(now.count(MemberId(500)) for now in before.values())


def calls_for(workers: int) -> int:
    """How many calls it takes to give out what one of so many has left, whatever the machine."""
    names = [f"p{number}" for number in range(10)]
    members = run_by(names, *range(1, workers + 1))
    before = assign({}, members, names, 1024)
    del members[MemberId(workers // 2)]
    calls = itertools.count()
    sys.setprofile(lambda *_: next(calls))
    try:
        assign(before, members, names, 1024)
    finally:
        sys.setprofile(None)
    return next(calls)


def test_a_departure_among_a_thousand_costs_as_much_as_their_number() -> None:
    assert calls_for(1000) < 4 * calls_for(250)


def test_each_log_has_partitions_of_its_own_number() -> None:
    orders, bookings = Subscription("totals", "orders"), Subscription("totals", "bookings")
    both, one = frozenset({orders, bookings}), frozenset({orders})
    owners = assignment.assign({}, dict(zip(ids(1, 2, 3), (both, both, one), strict=True)), {orders: 6, bookings: 4})
    assert sorted(owners[orders]) == [1, 1, 2, 2, 3, 3]
    assert sorted(owners[bookings]) == [1, 1, 2, 2], "who cannot reach a log gets nothing of it"
    again = assignment.assign(owners, dict(zip(ids(1, 2, 3), (both, both, one), strict=True)), {orders: 6, bookings: 4})
    assert again == owners
    with pytest.raises(ValueError, match="'totals' has owners for 4 partitions of log 'bookings', not 8"):
        assignment.assign(owners, {}, {orders: 6, bookings: 8})
