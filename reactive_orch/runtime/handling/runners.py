"""All that one worker runs: a runner for each of its subscriptions, asked and told as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from reactive_orch.model import LogName, Partition, Position, Subscription
    from reactive_orch.model.membership import Resting
    from reactive_orch.runtime.handling.runner import Runner
    from reactive_orch.runtime.handling.together import Together


class Out(dict["Subscription", "Runner"]):
    """Runners that do nothing, by subscription: their projection has another filter now, or they have stepped down."""

    def __init__(self) -> None:
        """Start without any."""
        super().__init__()
        self._asked: dict[Subscription, int] = {}
        """In which epoch it was last asked whether that is still so: only a rewind changes it."""
        self.proposed: set[Subscription] = set()
        """Whose filter it has proposed again, since nobody ran the projection."""

    def to_ask(self, epochs: Mapping[Subscription, int]) -> list[Subscription]:
        """Return those whose projection was rewound since this was last asked, and who take part again."""
        rewound = {each for each in self if self._asked.get(each) != epochs.get(each, 0)}
        standing = {each: runner.standing for each, runner in self.items()}
        return [each for each, s in standing.items() if (each in rewound if s.refused else not s.is_away)]

    def refuse(self, asked: Collection[Subscription], epochs: Mapping[Subscription, int]) -> None:
        """Note that these are recorded with another filter, as was asked after these epochs were seen."""
        for each in asked:
            self._asked[each] = epochs.get(each, 0)
            self[each].standing.refused = True

    @property
    def refused(self) -> frozenset[Subscription]:
        """What is recorded with another filter."""
        return frozenset(each for each, runner in self.items() if runner.standing.refused)

    @property
    def given_up(self) -> frozenset[Subscription]:
        """What was run here until another filter was accepted."""
        return frozenset(each for each in self.refused if self[each].standing.given_up)

    @property
    def away(self) -> frozenset[Subscription]:
        """What is left to other workers for a while."""
        return frozenset(each for each, runner in self.items() if runner.standing.is_away)

    def take(self, subscription: Subscription) -> Runner:
        """Take one out, to run it."""
        runner = self.pop(subscription)
        self._asked.pop(subscription, None)
        self.proposed.discard(subscription)
        runner.standing.begin()
        return runner


class Runners:
    """The runners of one worker."""

    def __init__(self) -> None:
        """Start without any."""
        self.by_subscription: dict[Subscription, Runner] = {}
        self.out = Out()
        """Those that do nothing."""
        self.together: frozenset[Together] = frozenset()
        """What handles lanes of several of them together."""

    def add(self, runners: Iterable[Runner]) -> None:
        """Take these in."""
        self.by_subscription.update((runner.subscription, runner) for runner in runners)

    def give_up(self, subscription: Subscription) -> None:
        """Go on without this one, if it is there."""
        if subscription in self.by_subscription:
            runner = self.out[subscription] = self.by_subscription.pop(subscription)
            runner.standing.give_up()
            runner.drop()

    @property
    def logs(self) -> frozenset[LogName]:
        """The logs that are read."""
        return frozenset(each.log for each in self.by_subscription)

    @property
    def wanted(self) -> frozenset[Subscription]:
        """What this worker goes on with: the projections that are recorded with its filter, and not left to others."""
        return frozenset(each for each, runner in self.by_subscription.items() if runner.standing.takes_part)

    @property
    def held(self) -> Mapping[Subscription, frozenset[Partition]]:
        """Subscription → the partitions it holds now."""
        return {each: runner.lanes.held for each, runner in self.by_subscription.items()}

    @property
    def in_flight(self) -> Mapping[Subscription, frozenset[Partition]]:
        """Subscription → the partitions of batches that are being handled or saved now."""
        return {each: runner.lanes.in_flight for each, runner in self.by_subscription.items()}

    @property
    def events_handled(self) -> Mapping[Subscription, int]:
        """Subscription → events in batches committed by this worker."""
        return {each: runner.lanes.events_handled for each, runner in self.by_subscription.items()}

    @property
    def busy(self) -> list[str]:
        """The projections that have a batch in hand."""
        return [each.projection for each, in_flight in self.in_flight.items() if in_flight]

    @property
    def empty(self) -> bool:
        """Whether there is nothing that they hold or should hold."""
        return not any(runner.assigned or runner.lanes.held for runner in self.by_subscription.values())

    @property
    def reconciled(self) -> bool:
        """Whether each holds exactly what it should."""
        return all(runner.reconciled for runner in self.by_subscription.values())

    @property
    def only_in_flight(self) -> bool:
        """Whether all that is still to be let go is in the hands of handlers."""
        return all(runner.only_in_flight for runner in self.by_subscription.values())

    @property
    def row_wait(self) -> tuple[float, Partition | None]:
        """The longest wait for a row that another worker held, and one it waited for."""
        waits = (runner.row_wait for runner in self.by_subscription.values())
        return max(waits, key=lambda wait: wait[0], default=(0.0, None))

    def have_read_to(self, positions: Mapping[LogName, Position]) -> bool:
        """Tell whether all that is held has been read up to where its log was settled, and nothing is tried again.

        Those that rest are left out: nothing of them will be handled before somebody says so. Not a suspended one: its
        lanes say why it does not get on.
        """
        resting = [runner.resting for runner in self.by_subscription.values() if runner.resting is not None]
        if any(each.state == "suspended" for each in resting):
            return False
        running = {each: runner.lanes for each, runner in self.by_subscription.items() if runner.resting is None}
        if any(lanes.retrying for lanes in running.values()):
            return False
        lows = {each: lanes.low_water for each, lanes in running.items()}
        return all(low is None or low >= positions[each.log] for each, low in lows.items())

    def assign(self, partitions: Mapping[Subscription, frozenset[Partition]]) -> None:
        """Say which partitions of which subscription they should hold; of the others none."""
        for each, runner in self.by_subscription.items():
            runner.assign(partitions.get(each, frozenset()))

    def rewound(self, epochs: Mapping[Subscription, int]) -> None:
        """Load again what stands at an older epoch."""
        for each, runner in self.by_subscription.items():
            runner.lanes.rewound(epochs.get(each, 0))

    def rest(self, resting: Mapping[Subscription, Resting]) -> None:
        """Say which of them are not to run for now; the others run."""
        for each, runner in self.by_subscription.items():
            runner.rest(resting.get(each))

    def drop(self) -> None:
        """Let go of everything at once, saving nothing: this worker was removed and others go on already."""
        for runner in self.by_subscription.values():
            runner.drop()

    def cut(self) -> None:
        """End the batches in hand: their worker is no more, and their handlers may not know it."""
        for runner in self.by_subscription.values():
            runner.lanes.cut()

    def wake(self) -> None:
        """Make every lane look: what it remembers may have become invalid."""
        for runner in self.by_subscription.values():
            runner.lanes.wake()
