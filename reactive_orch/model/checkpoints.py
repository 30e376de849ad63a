"""Checkpoints, and how they move."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from reactive_orch.model.log import Partition, Position


class Checkpoint(NamedTuple):
    """One row of `checkpoints`."""

    position: Position
    epoch: int
    handled_to: Position = 0
    """Where it stood furthest before it was rewound: events up to there are replayed."""


class Swap(NamedTuple):
    """One row of the compare-and-swap: move the partition's checkpoint from `expected` to `target`."""

    partition: Partition
    expected: Checkpoint
    target: Position
