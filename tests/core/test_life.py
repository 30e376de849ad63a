"""A worker's life: what may happen to it in which state, and what it is then."""

from __future__ import annotations

import pytest

from reactive_orch.core.life import NEXT, Happened, Life, after, shown
from reactive_orch.model import WorkerState

JOINS, ADOPTS, DONE = Happened.ASKED_TO_JOIN, Happened.BEGAN_TO_ADOPT, Happened.ADOPTED
LOST, STOPS, ENDED, EXPELLED = Happened.LOST_THE_DATABASE, Happened.STOPS, Happened.ENDED, Happened.EXPELLED


@pytest.mark.parametrize(
    ("life", "states"),
    [
        ([JOINS, ADOPTS, DONE, STOPS, ENDED], "joining rebalancing serving stopping stopped"),
        ([JOINS, ADOPTS, ADOPTS, DONE], "joining rebalancing rebalancing serving"),
        ([LOST, JOINS, ADOPTS, DONE, LOST, ADOPTS, DONE], "- joining rebalancing serving - rebalancing serving"),
        ([JOINS, ADOPTS, DONE, EXPELLED, JOINS, ADOPTS], "joining rebalancing serving joining joining rebalancing"),
        ([STOPS, LOST, STOPS, ENDED], "stopping - stopping stopped"),
        ([ENDED], "stopped"),
    ],
    ids=["quiet", "overtaken", "outages", "expelled", "stopped in an outage", "failed at once"],
)
def test_lives(life: list[Happened], states: str) -> None:
    state, seen = WorkerState.STARTING, []
    for happened in life:
        state = after(state, happened)
        seen.append("-" if state is WorkerState.UNAVAILABLE else state.value)
    assert " ".join(seen) == states


@pytest.mark.parametrize(
    ("state", "happened"),
    [
        (WorkerState.SERVING, DONE),
        (WorkerState.JOINING, DONE),
        (WorkerState.UNAVAILABLE, DONE),
        (WorkerState.STARTING, ADOPTS),
        (WorkerState.STOPPING, ADOPTS),
        (WorkerState.STOPPING, JOINS),
        (WorkerState.STOPPING, EXPELLED),
        (WorkerState.STARTING, EXPELLED),
        *((WorkerState.STOPPED, each) for each in Happened if each is not ENDED),
    ],
)
def test_what_cannot_happen_is_a_mistake_of_ours(state: WorkerState, happened: Happened) -> None:
    with pytest.raises(AssertionError, match=f"a worker that is {state.value} {happened.value}"):
        after(state, happened)


def test_every_state_but_the_shown_one_has_its_row() -> None:
    assert NEXT.keys() == set(WorkerState) - {WorkerState.STANDBY}
    assert all(WorkerState.STANDBY not in row.values() for row in NEXT.values())


@pytest.mark.parametrize("state", WorkerState)
def test_only_who_serves_stands_by(state: WorkerState) -> None:
    assert shown(state, empty=False) is state
    assert shown(state, empty=True) is (WorkerState.STANDBY if state is WorkerState.SERVING else state)


@pytest.mark.parametrize("end", [[JOINS, ADOPTS, DONE], [STOPS], [LOST, ENDED]], ids=["adopts", "stops", "ends"])
def test_who_was_expelled_is_so_until_it_has_adopted_again_or_goes(end: list[Happened]) -> None:
    life, expelled = Life(), []
    for happened in [JOINS, ADOPTS, DONE, EXPELLED, *end]:
        life.note(happened)
        expelled.append(life.expelled)
    assert expelled == [*[False] * 3, *[True] * len(end), False]
