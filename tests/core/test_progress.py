"""What to read next and which checkpoints to swap: each event exactly once and in order, whatever comes between.

The main test is a model of everything around `Progress`: a log with gaps, the checkpoints' rows, a second worker, and
two lanes that read, plan, commit, fail, gain, lose and exchange partitions at every moment the runtime lets them. The
same model must find each of the mutants below, else it would not be worth much.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reactive_orch.core.progress import SPAN_MAX, Batch, Progress
from reactive_orch.incarnation import NEVER, Incarnation
from reactive_orch.model import Checkpoint, Event, Position, Swap, Window
from tests.effort import examples
from tests.events import event

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from reactive_orch.model import Partition

PARTITIONS = 3
BATCH = 4


def holding(rows: Mapping[Partition, Position], batch_events: int = BATCH, total: int = PARTITIONS) -> Progress:
    progress = Progress(batch_events, total)
    progress.take({partition: Checkpoint(position, 0) for partition, position in rows.items()})
    return progress


class Read(NamedTuple):
    """A window that has been read; `batch` once it has been planned and swapped."""

    window: Window
    events: list[Event]
    end: Position
    batch: Batch | None = None


class Surroundings:
    """A log, the checkpoints' rows, two lanes and somebody else. Every step takes a lane, a partition and a number."""

    def __init__(self, lanes: Sequence[Progress]) -> None:
        self.lanes = lanes
        self.log: list[Event] = []
        self.head = self.settled = 0
        self.rows = {partition: Checkpoint(0, 0) for partition in range(PARTITIONS)}
        self.reads: list[Read | None] = [None, None]
        self.ahead: list[Read | None] = [None, None]

    def between(self, partition: Partition, low: Position, high: Position) -> list[Position]:
        return [e.global_position for e in self.log if e.partition == partition and low < e.global_position <= high]

    def in_flight(self, lane: int) -> frozenset[Partition]:
        read = self.reads[lane]
        return frozenset(swap.partition for swap in read.batch.swaps) if read and read.batch else frozenset()

    @property
    def locked(self) -> frozenset[Partition]:
        return self.in_flight(0) | self.in_flight(1)

    @property
    def held(self) -> frozenset[Partition]:
        return self.lanes[0].partitions | self.lanes[1].partitions

    def write(self, lane: int, partition: Partition, number: int) -> None:
        """Append events to two partitions, with a gap; they may be settled at once."""
        for written in (partition, (partition + number) % PARTITIONS):
            self.head += 1 + number % 5
            self.log.append(event(self.head, written))
        if lane:
            self.settle(lane, partition, number)

    def settle(self, _lane: int, _partition: Partition, number: int) -> None:
        self.settled += min(number, self.head - self.settled)

    def commit_elsewhere(self, _lane: int, partition: Partition, number: int) -> None:
        row = self.rows[partition]
        if partition not in self.locked:
            self.rows[partition] = Checkpoint(row.position + min(number, self.settled - row.position), row.epoch)

    def rewind(self, _lane: int, partition: Partition, number: int) -> None:
        if partition not in self.locked:
            self.rows[partition] = Checkpoint(number % (self.settled + 1), self.rows[partition].epoch + 1)

    def take(self, lane: int, partition: Partition, _number: int) -> None:
        if partition not in self.held:
            self.lanes[lane].take({partition: self.rows[partition]})

    def drop(self, lane: int, partition: Partition, number: int) -> None:
        """Let go of a partition, unless it is in flight; what was read of it may be saved on the way out."""
        if partition not in self.locked:
            unsaved = self.lanes[lane].unsaved([partition])
            self.lanes[lane].drop([partition])
            if number % 2:
                self.save(unsaved)

    def regain(self, lane: int, partition: Partition, number: int) -> None:
        """Lose a partition and have it back, after somebody else went on with it or the operator rewound it."""
        for other in (0, 1):
            self.drop(other, partition, number)
        elsewhere = self.rewind if number % 3 else self.commit_elsewhere
        elsewhere(lane, partition, number)
        self.take(lane, partition, number)

    def move(self, lane: int, partition: Partition, _number: int) -> None:
        if partition in self.lanes[lane].partitions - self.locked:
            place = self.lanes[lane].saved[partition], self.lanes[lane].read_to[partition]
            self.lanes[lane].move([partition], self.lanes[1 - lane])
            assert place == (self.lanes[1 - lane].saved[partition], self.lanes[1 - lane].read_to[partition])

    def read(self, lane: int, _partition: Partition, number: int) -> None:
        if self.reads[lane] is not None:
            return
        limit = 1 + number % BATCH
        window = self.lanes[lane].window(self.settled, limit)
        if window is None:
            assert all(read_to >= self.settled for read_to in self.lanes[lane].read_to.values())
            return
        assert set(window.partitions) <= self.lanes[lane].partitions
        read, ahead = self.fetch(window), self.ahead[lane]
        if ahead and (ahead.window.low, ahead.window.partitions) == (window.low, window.partitions):
            read = ahead if ahead.window.limit <= limit else read
        following = self.lanes[lane].following(read.window, read.end, self.settled)
        self.reads[lane], self.ahead[lane] = read, self.fetch(following) if following else None

    def fetch(self, window: Window) -> Read:
        assert window.low < window.high <= self.settled, "only what is settled is read"
        rows = [e for e in self.log if e.partition in window.partitions and window.low < e.global_position]
        found = [e for e in rows if e.global_position <= window.high][: window.limit]
        return Read(window, found, found[-1].global_position if len(found) == window.limit else window.high)

    def begin(self, lane: int, _partition: Partition, _number: int) -> None:
        """Plan the batch and swap: from here on its rows are locked."""
        read = self.reads[lane]
        if read is None or read.batch is not None:
            return
        progress = self.lanes[lane]
        batch = progress.plan(read.window, read.events, read.end)
        positions = [e.global_position for e in batch.events]
        assert positions == sorted(set(positions)), "in order"
        assert [swap.partition for swap in batch.swaps] == sorted({e.partition for e in batch.events})
        assert all(swap.expected == progress.saved[swap.partition] for swap in batch.swaps), "the saved checkpoint"
        if self.stand(batch.swaps):
            self.reads[lane] = read._replace(batch=batch)
        else:
            self.forget(lane)

    def commit(self, lane: int, partition: Partition, number: int) -> None:
        """Handle the batch; it fails now and then: then nothing is committed and nothing is noted."""
        self.begin(lane, partition, number)
        read, self.reads[lane] = self.reads[lane], None
        if read is None or read.batch is None or number % 8 == 7:
            return
        for swap in read.batch.swaps:
            handled = [e.global_position for e in read.batch.events if e.partition == swap.partition]
            assert handled == self.between(swap.partition, swap.expected.position, swap.target), "each, and once"
            self.swap(swap)
        self.lanes[lane].passed(read.window, read.end, read.batch)

    def forget(self, lane: int) -> None:
        """After a failed swap or a lost connection."""
        self.lanes[lane].drop(self.lanes[lane].partitions)
        self.reads[lane] = None

    def save_lazily(self, lane: int, _partition: Partition, _number: int) -> None:
        progress = self.lanes[lane]
        swaps = progress.unsaved(progress.partitions - self.locked)
        assert all(swap.expected == progress.saved[swap.partition] for swap in swaps), "the saved checkpoint"
        if self.save(swaps):
            progress.swapped(swaps)
        elif self.reads[lane] is None:
            self.forget(lane)

    def save(self, swaps: Sequence[Swap]) -> bool:
        if stand := self.stand(swaps):
            for swap in swaps:
                assert not self.between(swap.partition, swap.expected.position, swap.target), "saved over an event"
                self.swap(swap)
        return stand

    def stand(self, swaps: Sequence[Swap]) -> bool:
        return all(self.rows[swap.partition] == swap.expected for swap in swaps)

    def swap(self, swap: Swap) -> None:
        assert swap.expected.position < swap.target <= self.settled, "forward, and only what is settled"
        self.rows[swap.partition] = Checkpoint(swap.target, swap.expected.epoch)

    def check(self) -> None:
        """Check what holds at every moment."""
        for progress in self.lanes:
            assert progress.saved.keys() == progress.read_to.keys()
            assert all(position <= self.settled for position in progress.read_to.values())
        assert not self.lanes[0].partitions & self.lanes[1].partitions, "in one lane only"

    def finish(self) -> None:
        """Undisturbed, both lanes come to the end and save it, whatever state they were left in."""
        self.settled = self.head
        for _ in range(3):  # what was moved elsewhere is noticed by its swap, and taken anew
            for partition in range(PARTITIONS):
                self.take(0, partition, 0)
            for lane in (0, 1):
                for number in range(3 * len(self.log) + 20):
                    self.commit(lane, 0, 0)
                    self.read(lane, 0, 8 * number)
                assert self.lanes[lane].window(self.settled, BATCH) is None, "stuck"
                self.save_lazily(lane, 0, 0)
        for progress in self.lanes:
            assert progress.low_water in {None, self.head}
            assert not progress.unsaved(progress.partitions), "everything is saved"


STEPS = ("write", "settle", "commit_elsewhere", "rewind", "take", "drop", "regain", "move", "read", "begin", "commit")
steps = st.tuples(
    st.sampled_from((*STEPS, "save_lazily", "write", "read", "read", "begin", "commit", "take")),
    st.integers(0, 1),
    st.integers(0, PARTITIONS - 1),
    st.integers(0, 40),
)


def drive(progress_type: type[Progress], walk: list[tuple[str, int, int, int]]) -> None:
    surroundings = Surroundings([progress_type(BATCH, PARTITIONS) for _ in range(2)])
    for partition in range(PARTITIONS):
        surroundings.take(0, partition, 0)
    for step, *arguments in walk:
        getattr(surroundings, step)(*arguments)
        surroundings.check()
    surroundings.finish()


class CoversWhatLiesBeforeItsLow(Progress):
    def plan(self, window: Window, events: Sequence[Event], end: Position) -> Batch:
        return super().plan(replace(window, low=0), events, end)


class ReadsBeyondTheSettledPosition(Progress):
    def window(self, settled: Position, limit: int) -> Window | None:
        return super().window(settled + 1, limit)


class ReadsTooFarAhead(Progress):
    def following(self, window: Window, end: Position, settled: Position) -> Window | None:
        return super().following(window, end, settled + 1)


class HandlesAgainWhatItHasRead(Progress):
    def plan(self, window: Window, events: Sequence[Event], end: Position) -> Batch:
        covered = super().plan(window, events, end).read_to
        mine = [e for e in events if e.partition in covered]
        return Batch(mine, tuple(Swap(p, self.saved[p], end) for p in sorted({e.partition for e in mine})), covered)


class ExpectsWhereItHasReadTo(Progress):
    def plan(self, window: Window, events: Sequence[Event], end: Position) -> Batch:
        batch = super().plan(window, events, end)
        expected = {s.partition: s.expected._replace(position=self.read_to[s.partition]) for s in batch.swaps}
        return replace(batch, swaps=tuple(s._replace(expected=expected[s.partition]) for s in batch.swaps))


class IgnoresTheLimit(Progress):
    def passed(self, window: Window, end: Position, batch: Batch) -> None:
        super().passed(window, max(end, window.high), batch)


class MovesBack(Progress):
    def passed(self, window: Window, end: Position, batch: Batch) -> None:
        super().passed(window, end, batch)
        self.read_to.update((p, end) for p in batch.read_to if p in self.saved)


class PassesWhatItWasGivenAfterThePlan(Progress):
    def passed(self, window: Window, end: Position, batch: Batch) -> None:
        covered = {p: 0 for p in window.partitions if self.read_to.get(p, -1) >= window.low}
        super().passed(window, end, replace(batch, read_to=covered))


class ForgetsWhatItSwapped(Progress):
    def swapped(self, swaps: Iterable[Swap]) -> None:
        super().swapped(swap for swap in swaps if not swap.partition)


class SavesOverUnreadEvents(Progress):
    def unsaved(self, partitions: Iterable[Partition]) -> tuple[Swap, ...]:
        furthest = max(self.read_to.values(), default=0)
        return tuple(swap._replace(target=furthest) for swap in super().unsaved(partitions))


class KeepsItsPlaceWhenTakingAnew(Progress):
    def drop(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self.saved.pop(partition, None)

    def take(self, checkpoints: Mapping[Partition, Checkpoint], incarnation: Incarnation = NEVER) -> None:
        before = dict(self.read_to)
        super().take(checkpoints, incarnation)
        self.read_to.update((p, before[p]) for p in checkpoints if p in before)


class MovesToTheOthersPlace(Progress):
    def move(self, partitions: Collection[Partition], other: Progress) -> None:
        place = other.low_water
        super().move(partitions, other)
        if place is not None:
            other.read_to.update(dict.fromkeys(partitions, place))


class WindowWithoutWidth(Progress):
    def _span(self) -> int:
        return 0


MUTANTS = (
    CoversWhatLiesBeforeItsLow,
    ReadsBeyondTheSettledPosition,
    ReadsTooFarAhead,
    HandlesAgainWhatItHasRead,
    ExpectsWhereItHasReadTo,
    IgnoresTheLimit,
    MovesBack,
    PassesWhatItWasGivenAfterThePlan,
    ForgetsWhatItSwapped,
    SavesOverUnreadEvents,
    KeepsItsPlaceWhenTakingAnew,
    MovesToTheOthersPlace,
    WindowWithoutWidth,
)


@pytest.mark.thorough
@examples(600)
@given(st.lists(steps, min_size=30, max_size=60))
def test_each_event_exactly_once_and_in_order(walk: list[tuple[str, int, int, int]]) -> None:
    drive(Progress, walk)


@pytest.mark.thorough
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_model_finds_a_mutant_that(mutant: type[Progress]) -> None:
    @settings(max_examples=5000, derandomize=True, report_multiple_bugs=False, phases=[Phase.generate])
    @given(st.lists(steps, min_size=30, max_size=60))
    def lives(walk: list[tuple[str, int, int, int]]) -> None:
        drive(mutant, walk)

    with pytest.raises(AssertionError):
        lives()


def read_all(progress: Progress, positions: Iterable[Position], settled: Position, limit: int) -> list[Window]:
    """Read partition 0 up to the settled position, committing every batch; return the windows."""
    windows = []
    waiting = sorted(positions)
    while window := progress.window(settled, limit):
        windows.append(window)
        found = [event(p) for p in waiting if window.low < p <= window.high][:limit]
        end = found[-1].global_position if len(found) == limit else window.high
        progress.passed(window, end, progress.plan(window, found, end))
    return windows


def widths(windows: Iterable[Window]) -> list[int]:
    return [window.high - window.low for window in windows]


def test_a_lane_without_partitions_reads_nothing() -> None:
    progress = Progress(BATCH, PARTITIONS)
    assert progress.window(1000, BATCH) is None
    assert progress.low_water is None
    assert progress.unsaved([0, 1]) == ()


@pytest.mark.parametrize(
    ("held", "total", "batch_events", "width"),
    [(64, 64, 100, 100), (16, 64, 100, 400), (1, 64, 100, 6400), (3, 64, 100, 2133), (1, 1, 1, 1), (64, 64, 1, 1)],
)
def test_the_window_is_as_wide_as_a_batch_is_rare(held: int, total: int, batch_events: int, width: int) -> None:
    window = holding(dict.fromkeys(range(held), 7), batch_events, total).window(10_000, batch_events)
    assert window == Window(tuple(range(held)), 7, 7 + width, batch_events)


def test_a_window_leaves_out_the_partitions_that_have_it_behind_them() -> None:
    progress = holding({0: 10, 1: 13, 2: 14, 3: 99}, batch_events=4, total=4)
    assert progress.window(100, 4) == Window((0, 1), 10, 14, 4)
    assert progress.window(10, 4) is None


def test_empty_windows_double() -> None:
    windows = read_all(holding({0: 0}, 4, 4), [], settled=1000, limit=4)
    assert widths(windows) == [16, 32, 64, 128, 256, 504]


@pytest.mark.parametrize(("held", "batch_events"), [(1, 1), (1, 100), (64, 1), (64, 100)])
def test_a_gap_of_100_million_positions_takes_few_windows(held: int, batch_events: int) -> None:
    progress = holding(dict.fromkeys(range(held), 0), batch_events, 64)
    assert len(read_all(progress, [], settled=100_000_000, limit=batch_events)) < 60


def test_no_window_is_wider_than_one_read_can_be() -> None:
    windows = read_all(holding({0: 0}, batch_events=100_000, total=1024), [], settled=1 << 30, limit=100_000)
    assert set(widths(windows)) == {SPAN_MAX}
    assert max(widths(read_all(holding({0: 0}, 1, 1), [], settled=1 << 30, limit=1))) == SPAN_MAX


@pytest.mark.thorough
def test_windows_narrow_again_where_events_are_dense() -> None:
    progress = holding({0: 0}, batch_events=4, total=1)
    widest = max(widths(read_all(progress, [], 100_000, limit=4)))
    dense = widths(read_all(progress, range(100_000, 110_000), 110_000, limit=4))
    assert widest > 16 >= dense[len(dense) // 2], "halved whenever their first half reached the limit"


def test_a_busy_partition_is_read_in_windows_of_two_batches() -> None:
    progress = holding({0: 0}, batch_events=4, total=64)
    busy = widths(read_all(progress, range(1000), 1000, limit=4))
    assert busy[0] == 256
    assert busy[10:-1] == [8] * len(busy[10:-1])
    sparse = widths(read_all(progress, range(1000, 20_000, 64), 20_000, limit=4))
    assert 64 < sparse[len(sparse) // 2] <= 512, "as wide again as it must be"


@pytest.mark.parametrize(
    ("held", "span", "scattered"),
    [(64, 1000, False), (32, 1000, False), (16, 1000, True), (16, 256, False), (1, 1000, True), (1, 16, False)],
)
def test_few_partitions_are_read_by_themselves_unless_there_are_few_positions(
    held: int, span: int, *, scattered: bool
) -> None:
    progress = holding(dict.fromkeys(range(held), 7), batch_events=1000, total=64)
    window = progress.window(7 + span, 1000)
    assert window is not None
    assert (window.high - window.low, window.scattered) == (span, scattered)


def test_a_window_that_ends_at_the_settled_position_does_not_double() -> None:
    progress = holding({0: 0}, batch_events=4, total=1)
    for settled in range(1, 100):
        read_all(progress, [], settled, limit=4)
    assert widths(read_all(progress, [], settled=1000, limit=4))[0] == 4


def test_what_follows_is_what_will_be_asked_for() -> None:
    progress = holding({0: 5, 1: 5})
    window = Window((0, 1), 5, 11, 4)
    following = progress.following(window, 9, settled=100)
    progress.passed(window, 9, progress.plan(window, [event(p) for p in (6, 7, 8, 9)], 9))
    assert following == progress.window(settled=100, limit=4) == Window((0, 1), 9, 15, 4)
    assert progress.following(window, 9, settled=15) == following
    assert progress.following(replace(window, limit=1), 9, settled=100) == following, (
        "the trouble ends with this window"
    )
    assert progress.following(window, 9, settled=14) is None, "more may come into it"
    progress.take({2: Checkpoint(99, 0)})
    assert progress.following(following, 15, settled=100) is None, "others come into it: the guess would be wrong"


def test_what_was_read_without_events_is_saved_lazily_and_once() -> None:
    progress = holding({0: 5, 1: 9})
    window = Window((0, 1), 5, 20, 4)
    batch = progress.plan(window, [event(12, partition=1)], 20)
    assert batch.swaps == (Swap(1, Checkpoint(9, 0), 20),)
    progress.passed(window, 20, batch)
    lazily = progress.unsaved([1, 0, 2])
    assert lazily == (Swap(0, Checkpoint(5, 0), 20),)
    progress.swapped(lazily)
    assert progress.unsaved([0, 1, 2]) == ()


def test_a_swap_keeps_the_epoch() -> None:
    progress = Progress(BATCH, PARTITIONS)
    progress.take({0: Checkpoint(5, epoch=3)})
    progress.swapped([Swap(0, progress.saved[0], 8), Swap(1, Checkpoint(0, 0), 8)])
    assert progress.saved == {0: Checkpoint(8, epoch=3)}


@pytest.mark.parametrize("came_back_at", [5, 8, 11])
def test_a_partition_lost_while_reading_and_back_while_handling_reads_again(came_back_at: Position) -> None:
    progress = holding({0: 5, 1: 5})
    window = Window((0, 1), 5, 20, 4)
    progress.drop([1])
    batch = progress.plan(window, [event(7, partition=0), event(12, partition=1)], 20)
    progress.take({1: Checkpoint(came_back_at, 0)})
    progress.passed(window, 20, batch)
    assert progress.read_to == {0: 20, 1: came_back_at}


def test_a_partition_rewound_while_others_are_handled_reads_again() -> None:
    progress = holding({0: 5, 1: 9})
    window = Window((0, 1), 5, 20, 4)
    batch = progress.plan(window, [event(7, partition=0), event(8, partition=1)], 20)
    progress.drop([1])
    progress.take({1: Checkpoint(6, epoch=1)})
    progress.passed(window, 20, batch)
    assert progress.read_to == {0: 20, 1: 6}
