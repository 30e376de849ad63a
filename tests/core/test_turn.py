"""What a worker does next: one table, from what it has seen to the step that it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_orch.core.turn import (
    DEBOUNCE_S,
    LOOK_AGAIN_S,
    Adopt,
    Debounce,
    Join,
    Release,
    Removed,
    Rest,
    Seen,
    Step,
    Withdraw,
    Write,
    next_step,
)
from reactive_orch.model import Member, MemberId, Reason
from tests.core.test_generation import ACTIVE, DEAD, LEAVING, OLD, WAITING, member, snapshot

ME = MemberId(1)


def seen(*members: Member, owners: tuple[int, ...] = (1, 1, 1, 1), stopping: bool = False, **facts: object) -> Seen:
    """Return what member 1 sees: by default a complete generation, in which it has all there is."""
    look = replace(snapshot(*members, a=owners), complete=True, age_s=100.0)
    usual = Seen(snapshot=look, member=ME, name="host:1", stopping=stopping, trusts=True, watched_s=1000.0)
    return replace(usual, **facts)  # type: ignore[arg-type]


def young(before: Seen, age_s: float = 0.1, *, complete: bool = False) -> Seen:
    return replace(before, snapshot=replace(before.snapshot, age_s=age_s, complete=complete))


def dead(number: int) -> Member:
    return member(number, **DEAD)


def kind(step: Step) -> object:
    return (type(step), step.change.reason) if isinstance(step, Write) else step


BOTH = (1, 1, 2, 2)
ALONE = snapshot(generation=0)

TABLE: dict[str, tuple[Seen, object]] = {
    "no member yet": (seen(member=None), Join()),
    "no member, and stopping": (seen(member=None, stopping=True), Rest()),
    "not in the list any more": (seen(member(2), owners=(2, 2, 2, 2)), Removed(asked=False)),
    "out as asked for": (seen(stopping=True), Removed(asked=True)),
    "the id was given to another process": (seen(member(1), name="other:9"), Removed(asked=False)),
    "stopping before it was admitted": (seen(member(1, WAITING), stopping=True), Withdraw(ME)),
    "alone, waiting to be admitted": (seen(member(1, WAITING)), (Write, Reason.JOIN)),
    "nothing to change": (seen(member(1)), Adopt(member(1))),
    "stopping": (seen(member(1), stopping=True), Release(ME)),
    "another waits": (seen(member(1), member(2, WAITING)), (Write, Reason.JOIN)),
    "another is dead": (seen(member(1), dead(2), owners=BOTH), (Write, Reason.DEATH)),
    "another is dead, and this one stops": (
        seen(member(1), dead(2), owners=BOTH, stopping=True),
        (Write, Reason.DEATH),
    ),
    "another seems dead to who was cut off": (
        seen(member(1), dead(2), owners=BOTH, trusts=False),
        Adopt(member(1)),
    ),
    "another seems dead to who has no lock either": (
        seen(dead(1), dead(2), owners=BOTH),
        Adopt(dead(1)),
    ),
    "another is late, but nobody could have heard it": (
        seen(member(1), member(2, **OLD), owners=BOTH, watched_s=5.0),
        Adopt(member(1)),
    ),
    "a join meets a generation that is not complete": (
        young(seen(member(1), member(2, WAITING))),
        Debounce(LOOK_AGAIN_S),
    ),
    "a leave does": (young(seen(member(1), member(2, LEAVING), owners=BOTH)), Debounce(LOOK_AGAIN_S)),
    "a death waits for nothing": (young(seen(member(1), dead(2), owners=BOTH)), (Write, Reason.DEATH)),
    "a join, and the generation is complete": (
        young(seen(member(1), member(2, WAITING)), complete=True),
        (Write, Reason.JOIN),
    ),
    "a join, and somebody keeps it from completing": (
        young(seen(member(1), member(2, WAITING)), age_s=DEBOUNCE_S),
        (Write, Reason.JOIN),
    ),
    "a join, and the server's clock was set back": (
        young(seen(member(1), member(2, WAITING)), age_s=-3600.0),
        (Write, Reason.JOIN),
    ),
    "a join before the first generation": (
        young(replace(seen(member(1, WAITING)), snapshot=replace(ALONE, members=(member(1, WAITING),)))),
        (Write, Reason.JOIN),
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_next_step(case: str) -> None:
    given_, wanted = TABLE[case]
    assert kind(next_step(given_)) == wanted


def test_who_has_asked_to_leave_waits_for_the_others_to_write_it() -> None:
    """Its own leave is a change that it may write itself; afterwards it is out."""
    asked = seen(member(1, LEAVING), member(2), owners=BOTH, stopping=True)
    assert kind(next_step(asked)) == (Write, Reason.LEAVE)
    assert next_step(young(asked)) == Debounce(LOOK_AGAIN_S)


STATES = st.sampled_from([ACTIVE, WAITING, LEAVING])
LOOKS = st.builds(
    lambda states, stopping, trusts, complete, age_s: young(
        seen(
            *(member(n, state, dead=dead_) for n, (state, dead_) in enumerate(states, 1)),
            stopping=stopping,
            trusts=trusts,
        ),
        age_s,
        complete=complete,
    ),
    st.lists(st.tuples(STATES, st.booleans()), min_size=1, max_size=4),
    *[st.booleans()] * 3,
    st.floats(0, 1),
)


@given(LOOKS)
def test_the_replica_set_comes_first_and_nobody_goes_on_a_doubtful_word(look: Seen) -> None:
    step, members = next_step(look), look.snapshot.members
    if isinstance(step, Adopt):
        assert not look.stopping, "who stops takes nothing more"
        assert all(m.state is ACTIVE for m in members), "who waits or leaves comes first"
    if isinstance(step, Write) and not look.trusts:
        assert set(step.change.remove) <= {m.id for m in members if m.state is LEAVING}, "on whose word is it gone?"
