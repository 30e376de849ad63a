"""What a lane writes about failing events: only while it holds their partitions."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from reactive_orch.core.progress import Batch
from reactive_orch.errors import HandlerFailed, Superseded
from reactive_orch.incarnation import Incarnation
from reactive_orch.model import Checkpoint, Swap, Window
from reactive_orch.runtime.handling.failures import Failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reactive_orch import Node
    from reactive_orch.runtime.handling.lane import Lane
    from reactive_orch.runtime.handling.runner import Runner

NOW = Incarnation(0)
STOOD = Checkpoint(0, 0)


@pytest.fixture
def lane(runner: Runner) -> Lane:
    runner.lanes.deal(frozenset({0}), {0: STOOD}, 0, NOW)
    first, *_ = runner.lanes
    return first


def failed(lane: Lane) -> None:
    """Let the event at position 1 of partition 0 have failed alone."""
    batch = Batch((), (Swap(0, STOOD, 1),), {0: 0}, NOW)
    alone = Failed(Window((0,), 0, 1, 1, incarnation=NOW), batch, 1, HandlerFailed("no"), first=True)
    lane.aside.failures.alone = alone  # as a batch of one that has failed leaves it


async def test_a_partition_that_went_while_a_connection_was_awaited_is_not_written_to(
    runner: Runner, lane: Lane, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.asynccontextmanager
    async def processing(_: Incarnation, _position: int | None) -> AsyncIterator[_Unused]:
        assert not runner.lanes.release(frozenset({0}))
        assert not runner.lanes.held, "no batch has it: it is acknowledged at once that it has gone"
        yield _Unused()

    monkeypatch.setattr(node.database, "processing", processing)
    failed(lane)
    with pytest.raises(Superseded, match="given away"):
        await lane.aside.step()
    assert not lane.aside.due


class _Unused:
    """A connection on which nothing is to be done."""

    marks = nest = unnest = None

    def is_closed(self) -> bool:
        return True

    async def execute(self, text: str, **_: float) -> None:
        pytest.fail(f"done: {text}")
