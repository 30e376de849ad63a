"""All that one worker runs: a runner for each of its projections, asked and told as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reactive_orch.model import Partition, Position
    from reactive_orch.runtime.handling.runner import Runner


class Runners:
    """The runners of one worker."""

    def __init__(self) -> None:
        """Start without any."""
        self.by_name: dict[str, Runner] = {}

    def add(self, runners: Iterable[Runner]) -> None:
        """Take these in."""
        self.by_name.update((runner.name, runner) for runner in runners)

    def give_up(self, name: str) -> None:
        """Go on without this one, if it is there."""
        if name in self.by_name:
            self.by_name.pop(name).drop()

    @property
    def wanted(self) -> frozenset[str]:
        """The projections that this worker goes on with: those recorded with its filter."""
        return frozenset(name for name, runner in self.by_name.items() if not runner.refused)

    @property
    def held(self) -> Mapping[str, frozenset[Partition]]:
        """Projection → the partitions it holds now."""
        return {name: runner.lanes.held for name, runner in self.by_name.items()}

    @property
    def in_flight(self) -> Mapping[str, frozenset[Partition]]:
        """Projection → the partitions of batches that are being handled or saved now."""
        return {name: runner.lanes.in_flight for name, runner in self.by_name.items()}

    @property
    def events_handled(self) -> Mapping[str, int]:
        """Projection → events in batches committed by this worker."""
        return {name: runner.lanes.events_handled for name, runner in self.by_name.items()}

    @property
    def busy(self) -> list[str]:
        """The projections that have a batch in hand."""
        return [name for name, in_flight in self.in_flight.items() if in_flight]

    @property
    def empty(self) -> bool:
        """Whether there is nothing that they hold or should hold."""
        return not any(runner.assigned or runner.lanes.held for runner in self.by_name.values())

    @property
    def reconciled(self) -> bool:
        """Whether each holds exactly what it should."""
        return all(runner.reconciled for runner in self.by_name.values())

    @property
    def only_in_flight(self) -> bool:
        """Whether all that is still to be let go is in the hands of handlers."""
        return all(runner.only_in_flight for runner in self.by_name.values())

    @property
    def row_wait(self) -> tuple[float, Partition | None]:
        """The longest wait for a row that another worker held, and one it waited for."""
        waits = (runner.row_wait for runner in self.by_name.values())
        return max(waits, key=lambda wait: wait[0], default=(0.0, None))

    def have_read_to(self, position: Position) -> bool:
        """Tell whether all that is held has been read up to here."""
        return all((low := runner.lanes.low_water) is None or low >= position for runner in self.by_name.values())

    def assign(self, partitions: Mapping[str, frozenset[Partition]]) -> None:
        """Say which partitions of which projection they should hold; of the others none."""
        for name, runner in self.by_name.items():
            runner.assign(partitions.get(name, frozenset()))

    def rewound(self, epochs: Mapping[str, int]) -> None:
        """Load again what stands at an older epoch."""
        for name, runner in self.by_name.items():
            runner.lanes.rewound(epochs.get(name, 0))

    def drop(self) -> None:
        """Let go of everything at once, saving nothing: this worker was removed and others go on already."""
        for runner in self.by_name.values():
            runner.drop()

    def cut(self) -> None:
        """End the batches in hand: their worker is no more, and their handlers may not know it."""
        for runner in self.by_name.values():
            runner.lanes.cut()

    def wake(self) -> None:
        """Make every lane look: what it remembers may have become invalid."""
        for runner in self.by_name.values():
            runner.lanes.wake()
