"""How far the log is settled: rules as tables, the guarantee against a model of the database.

The model plays writers and one reader against each other, one statement at a time, in any order. Readers that break
one rule each are convicted by the same checker on the same kind of runs: a checker that cannot tell them apart from
the real one would prove nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import random
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_orch.core import frontier as module
from reactive_orch.core.frontier import PENDING_MAX, Frontier, Observation
from reactive_orch.errors import UnsafeLog
from tests.effort import examples


def seen(head: int, holders: str = "", prepared: str = "") -> Observation:
    """Return an observation with one-letter holders; the prepared ones are added to them."""
    return Observation(head, frozenset(holders + prepared), frozenset(prepared))


def pending(*entries: tuple[int, str]) -> tuple[tuple[int, frozenset[str]], ...]:
    return tuple((head, frozenset(holders)) for head, holders in entries)


# Each line: the observations in order, then what is settled and what is pending.
RULES = {
    "an empty log": ([seen(0)], 0, ()),
    "no holders: at once": ([seen(9)], 9, ()),
    "a holder: not yet": ([seen(9, "a")], 0, pending((9, "a"))),
    "the holder is gone": ([seen(9, "a"), seen(9)], 9, ()),
    "gone, but another came: it drew later": ([seen(9, "a"), seen(12, "b")], 9, pending((12, "b"))),
    "one of two is gone": ([seen(9, "ab"), seen(9, "b")], 0, pending((9, "b"))),
    "heads settle one by one": ([seen(5, "a"), seen(6, "ab"), seen(7, "bc")], 5, pending((6, "b"), (7, "bc"))),
    "the last without holders settles all": ([seen(5, "a"), seen(6, "ab"), seen(7)], 7, ()),
    "a head that is settled is not pending again": ([seen(5), seen(5, "a")], 5, ()),
    "a head that is pending keeps its fewer holders": ([seen(5, "a"), seen(5, "ab")], 0, pending((5, "a"))),
    "of the same holders only the greatest head counts": (
        [seen(5, "a"), seen(6, "ab"), seen(7, "ac"), seen(8, "ad")],
        0,
        pending((7, "a"), (8, "ad")),
    ),
    "prepared under a new name": ([seen(5, "a"), seen(5, "", "P")], 0, pending((5, "P"))),
    "prepared under a new name, for every head": (
        [seen(5, "a"), seen(6, "ab"), seen(6, "b", "P")],
        0,
        pending((5, "P"), (6, "bP")),
    ),
    "prepared under the same name": ([seen(5, "a"), seen(5, "", "a")], 0, pending((5, "a"))),
    "prepared, then gone": ([seen(5, "a"), seen(5, "", "P"), seen(5)], 5, ()),
    "prepared before the first look": ([seen(5, "", "P"), seen(5, "", "P")], 0, pending((5, "P"))),
    "both names in one look": ([seen(5, "a"), seen(5, "a", "P"), seen(5, "", "P")], 0, pending((5, "P"))),
    "all live holders are there: a prepared one is none of them": (
        [seen(5, "a"), seen(6, "a", "P"), seen(6, "a", "P")],
        0,
        pending((5, "a"), (6, "aP")),
    ),
    "a prepared holder ends: others are not it": ([seen(5, "", "P"), seen(6, "", "PQ"), seen(6, "", "Q")], 5, None),
}


@pytest.mark.parametrize(("looks", "settled", "left"), RULES.values(), ids=RULES)
def test_rules(looks: list[Observation], settled: int, left: tuple[tuple[int, frozenset[str]], ...] | None) -> None:
    frontier = Frontier()
    for look in looks:
        frontier = frontier.observe(look)
    assert frontier.settled == settled
    assert left is None or frontier.pending == left


def test_a_stream_of_prepared_transactions_does_not_keep_a_head_waiting() -> None:
    frontier = Frontier().observe(seen(1, "", "A"))
    for head, (this, following) in enumerate(zip("ABCDEFG", "BCDEFGH", strict=True), start=2):
        frontier = frontier.observe(seen(head, "", this + following)).observe(seen(head, "", following))
        assert frontier.settled == head - 1


def test_the_run_without_gaps_settles_what_it_covers() -> None:
    frontier = Frontier().observe(seen(5, "a")).observe(seen(8, "ab"))
    assert frontier.extend(5) == Frontier(5, pending((8, "ab")))
    assert frontier.extend(6).extend(3) == Frontier(6, pending((8, "ab")))
    assert frontier.extend(9).observe(seen(9, "ab")) == Frontier(9)


def test_the_prepared_transactions_are_those_of_the_last_look() -> None:
    frontier = Frontier().observe(seen(5, "a", "PQ")).observe(seen(6, "a", "P"))
    assert frontier.prepared == frontier.extend(6).prepared == {"P"}
    assert frontier.observe(seen(6)).prepared == frozenset()


def test_who_the_frontier_waits_for_is_who_holds_the_oldest_head() -> None:
    frontier = Frontier().observe(seen(5, "a")).observe(seen(8, "ab"))
    assert frontier.waiting
    assert frontier.holders == {"a"}
    assert not frontier.observe(seen(8)).waiting
    assert frontier.observe(seen(8)).holders == frozenset()


def test_a_full_list_keeps_the_oldest_and_takes_new_heads_when_there_is_room() -> None:
    frontier, names = Frontier(), [f"t{number}" for number in range(PENDING_MAX + 5)]
    for head in range(1, len(names) + 1):
        frontier = frontier.observe(Observation(head, frozenset(names[:head]), frozenset()))
    assert [head for head, _ in frontier.pending] == list(range(1, PENDING_MAX + 1))
    frontier = frontier.observe(Observation(90, frozenset(names[2:]), frozenset()))
    assert frontier.settled == 2
    assert frontier.pending[-1] == (90, frozenset(names[2:]))
    assert frontier.observe(seen(91)) == Frontier(91)


@pytest.mark.parametrize(
    "frontier",
    [Frontier(7), Frontier().observe(seen(7, "a")), Frontier().observe(seen(3, "a")).extend(7)],
    ids=["settled", "pending", "read"],
)
def test_a_sequence_that_moved_back_is_refused(frontier: Frontier) -> None:
    with pytest.raises(UnsafeLog, match="moved back from 7 to 6") as raised:
        frontier.observe(seen(6))
    assert "\n" not in str(raised.value)


def test_a_prepared_transaction_that_is_no_holder_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\['P'\] are missing from the holders"):
        Observation(1, frozenset("a"), frozenset("aP"))


@dataclass(eq=False, slots=True)
class Transaction:
    """A writer's transaction. It holds the lock from before its first position until its outcome is visible."""

    xid: int
    name: str
    locked: bool = False
    locked_outside: bool = False
    """The lock was taken outside the savepoint, so rolling back to it does not give it up."""
    prepared: bool = False
    kept: list[int] = field(default_factory=list)
    in_savepoint: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Database:
    """What the frontier may rely on of PostgreSQL, and no more.

    `renames` says whether PREPARE TRANSACTION gives the transaction another name. PostgreSQL 15, 16 and 18 rename it
    only when the server restarts; the frontier must not depend on that.
    """

    renames: bool
    two_phase: bool = True
    sequence: int = 0
    committed: set[int] = field(default_factory=set)
    open: list[Transaction] = field(default_factory=list)
    begun: int = 0
    begun_since_start: int = 0

    def begin(self) -> None:
        self.begun += 1
        self.begun_since_start += 1
        self.open.append(Transaction(self.begun, f"3/{self.begun_since_start}"))

    def lock(self, writer: Transaction) -> None:
        """Take the lock: an INSERT does before it draws."""
        writer.locked = writer.locked_outside = True

    def draw(self, writer: Transaction) -> None:
        self.lock(writer)
        self.sequence += 1
        writer.kept.append(self.sequence)

    def draw_in_savepoint(self, writer: Transaction) -> None:
        writer.locked = True
        self.sequence += 1
        writer.in_savepoint.append(self.sequence)

    def roll_back_to_savepoint(self, writer: Transaction) -> None:
        writer.in_savepoint.clear()
        writer.locked = writer.locked_outside

    def prepare(self, writer: Transaction) -> None:
        writer.prepared = self.two_phase
        if writer.prepared and self.renames:
            writer.name = f"-1/{writer.xid}"

    def commit(self, writer: Transaction) -> None:
        self.committed.update(writer.kept, writer.in_savepoint)
        self.roll_back(writer)

    def roll_back(self, writer: Transaction) -> None:
        self.open.remove(writer)

    def restart(self) -> None:
        """Lose every session; prepared transactions survive under another name, and old names are given anew."""
        self.open = [writer for writer in self.open if writer.prepared]
        for writer in self.open:
            writer.name = f"-1/{writer.xid}"
        self.begun_since_start = 0

    def live(self) -> frozenset[str]:
        return frozenset(writer.name for writer in self.open if writer.locked and not writer.prepared)

    def prepared(self) -> frozenset[str]:
        return frozenset(writer.name for writer in self.open if writer.locked and writer.prepared)

    def rows(self) -> frozenset[int]:
        return frozenset(self.committed)

    def write(self, who: int, what: int) -> None:
        """Let a writer do one thing: number `who` if there are so many, else a new one."""
        if who >= len(self.open):
            return self.begin()
        writer = self.open[who]
        return PREPARED[what % len(PREPARED)](self, writer) if writer.prepared else LIVE[what](self, writer)


LIVE = (
    *(Database.lock, Database.draw, Database.draw, Database.draw_in_savepoint, Database.roll_back_to_savepoint),
    *(Database.prepare, Database.prepare, Database.commit, Database.commit, Database.roll_back),
)
PREPARED = (Database.commit, Database.roll_back)


@dataclass(slots=True)
class Log:
    """What a reader has read. It outlives the reader's connection, except for what the reader knows of the database."""

    upto: int = 0
    """The checkpoint: the reader never looks back."""
    handled: set[int] = field(default_factory=set)
    rounds: int = 0
    frontier: Frontier = field(default_factory=Frontier)

    def read(self, rows: frozenset[int], settled: int) -> None:
        """Read the window (upto, settled] in a snapshot."""
        self.handled.update(row for row in rows if self.upto < row <= settled)
        self.upto = max(self.upto, settled)
        self.rounds += 1

    def lost(self, database: Database) -> bool:
        return any(row <= self.upto and row not in self.handled for row in database.committed)


Reader: TypeAlias = Callable[[Database, Log], Iterator[None]]
"""A reader from its first statement on a connection; it yields between statements, where the writers go on."""


def run_end(rows: frozenset[int], start: int) -> int:
    return start if start + 1 not in rows else run_end(rows, start + 1)


def look(database: Database) -> Generator[None, None, Observation]:
    """Look at the head, then the holders.

    The latter is not one instant: pg_locks collects the locks on each backend's fast path first, and then those in
    the shared table, where the prepared transactions' are.
    """
    head = database.sequence
    yield
    live = database.live()
    yield
    prepared = database.prepared()
    yield
    return Observation(head, live | prepared, prepared)


def fold_and_read(database: Database, log: Log, seen: Observation) -> Iterator[None]:
    log.frontier = log.frontier.observe(seen)
    rows = database.rows()
    log.read(rows, log.frontier.settled)
    log.frontier = log.frontier.extend(run_end(rows, log.frontier.settled))
    yield


def as_designed(database: Database, log: Log) -> Iterator[None]:
    log.frontier = Frontier()
    while True:
        seen = yield from look(database)
        yield from fold_and_read(database, log, seen)


def remembers_across_a_restart(database: Database, log: Log) -> Iterator[None]:
    while True:
        seen = yield from look(database)
        yield from fold_and_read(database, log, seen)


def trusts_the_greatest_visible_position(database: Database, log: Log) -> Iterator[None]:
    while True:
        rows = database.rows()
        log.read(rows, max(rows, default=0))
        yield


def trusts_the_head(database: Database, log: Log) -> Iterator[None]:
    log.frontier = Frontier()
    while True:
        head = database.sequence
        yield
        yield from fold_and_read(database, log, Observation(head, frozenset(), frozenset()))


def reads_holders_before_the_head(database: Database, log: Log) -> Iterator[None]:
    log.frontier = Frontier()
    while True:
        seen = yield from look(database)
        head = database.sequence
        yield
        yield from fold_and_read(database, log, dataclasses.replace(seen, head=head))


def reads_all_in_one_snapshot(database: Database, log: Log) -> Iterator[None]:
    log.frontier = Frontier()
    while True:
        rows = database.rows()
        yield
        log.frontier = log.frontier.observe((yield from look(database)))
        log.read(rows, log.frontier.settled)


def is_blind_to_prepared_transactions(database: Database, log: Log) -> Iterator[None]:
    log.frontier = Frontier()
    while True:
        seen = yield from look(database)
        yield from fold_and_read(database, log, Observation(seen.head, seen.holders - seen.prepared, frozenset()))


def takes_prepared_transactions_for_others(database: Database, log: Log) -> Iterator[None]:
    log.frontier = Frontier()
    while True:
        seen = yield from look(database)
        yield from fold_and_read(database, log, dataclasses.replace(seen, prepared=frozenset()))


def looks_only_at_new_prepared_transactions(database: Database, log: Log) -> Iterator[None]:
    log.frontier, known = Frontier(), frozenset[str]()
    while True:
        seen = yield from look(database)
        new, known = seen.prepared - known, seen.prepared
        yield from fold_and_read(database, log, dataclasses.replace(seen, prepared=new))


def folds_an_old_observation_after_a_newer_one(database: Database, log: Log) -> Iterator[None]:
    log.frontier = Frontier()
    while True:
        old = yield from look(database)
        yield from fold_and_read(database, log, (yield from look(database)))
        with contextlib.suppress(UnsafeLog):
            yield from fold_and_read(database, log, old)


def takes_a_run_with_gaps_for_settled(database: Database, log: Log) -> Iterator[None]:
    log.frontier = Frontier()
    while True:
        seen = yield from look(database)
        yield from fold_and_read(database, log, seen)
        log.frontier = log.frontier.extend(max(database.rows(), default=0))


def drops_the_oldest_head(database: Database, log: Log) -> Iterator[None]:
    log.frontier = Frontier()
    while True:
        seen = yield from look(database)
        if len(log.frontier.pending) == module.PENDING_MAX:
            log.frontier = dataclasses.replace(log.frontier, pending=log.frontier.pending[1:])
        yield from fold_and_read(database, log, seen)


class Verdict(enum.Enum):
    SOUND = "sound"
    LOST = "an event became visible at a position the reader had passed"
    STALLED = "the reader did not get past positions whose writers had all ended"


@dataclass(slots=True)
class Patience:
    """Whether the reader gets on: what had been drawn must be settled a few generations of transactions later.

    A generation are all that are in flight at the end of a round; it is over with the first round that began after
    the last of them ended. A head needs one, and one more before it if the list of pending heads was full. In each,
    prepared transactions that may be one of the holders can take the place of those that ended, once.
    """

    target: int = 0
    waits_for: list[Transaction] = field(default_factory=list)
    over: bool = True
    generations: int = 0

    def exhausted(self, database: Database, log: Log) -> bool:
        """Take note of the end of a round."""
        if log.upto >= self.target:
            self.target, self.generations, self.over = database.sequence, 0, True
        if self.over:
            self.generations, self.waits_for = self.generations + 1, list(database.open)
        self.over = not any(writer in database.open for writer in self.waits_for)
        return self.generations > (4 if database.two_phase else 2)


Step: TypeAlias = tuple[int, int]
"""Who goes on, and what it does."""
READER, RESTART, WRITERS = range(6), 6, range(7, 13)
some_steps = st.lists(st.tuples(st.integers(0, WRITERS[-1]), st.integers(0, len(LIVE) - 1)), max_size=200)


class Run:
    """One reader against the writers."""

    def __init__(self, reader: Reader, database: Database) -> None:
        self.reader, self.database = reader, database
        self.log, self.patience = Log(), Patience()
        self.connection = reader(database, self.log)

    def play(self, steps: Iterable[Step]) -> Verdict:
        """Go on step by step until there is something to say against the reader."""
        return next((verdict for verdict in map(self.step, steps) if verdict != Verdict.SOUND), Verdict.SOUND)

    def step(self, step: Step) -> Verdict:
        who, what = step
        rounds = self.log.rounds
        if who in READER:
            next(self.connection)
        elif who in WRITERS:
            self.database.write(WRITERS.index(who), what)
        elif what <= 1:  # Restarts are rare.
            self.restart()
        if self.log.lost(self.database):
            return Verdict.LOST
        stalled = self.log.rounds > rounds and self.patience.exhausted(self.database, self.log)
        return Verdict.STALLED if stalled else Verdict.SOUND

    def restart(self) -> None:
        self.database.restart()
        self.connection, self.patience = self.reader(self.database, self.log), Patience()

    def finish(self) -> Verdict:
        """End every transaction and let the reader go around twice: once for a round in progress, once more."""
        for number, writer in enumerate(list(self.database.open)):
            (self.database.commit if number % 2 else self.database.roll_back)(writer)
        rounds = self.log.rounds + 2
        while self.log.rounds < rounds:
            next(self.connection)
        return Verdict.LOST if self.log.lost(self.database) else Verdict.SOUND


RUNS = 2000
"""How many seeds are tried, the same for every reader."""


def random_run(reader: Reader, seed: int) -> Verdict:
    choose = random.Random(seed)
    database = Database(renames=seed % 2 == 0, two_phase=seed % 4 < 2)
    steps = [(choose.randint(0, WRITERS[-1]), choose.randrange(len(LIVE))) for _ in range(250)]
    return Run(reader, database).play(steps)


@pytest.mark.parametrize("pending_max", [1, 2, PENDING_MAX])
@given(steps=some_steps, renames=st.booleans())
@examples(200)
def test_nothing_is_lost_and_the_reader_gets_on(steps: list[Step], pending_max: int, *, renames: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PENDING_MAX", pending_max)
        run = Run(as_designed, Database(renames))
        assert run.play(steps) == Verdict.SOUND
        assert run.finish() == Verdict.SOUND
        assert run.log.upto == run.database.sequence, "with every writer gone, one more look settles the head"
        assert run.log.handled == run.database.committed


@pytest.mark.thorough
@pytest.mark.parametrize("pending_max", [1, 2, PENDING_MAX])
def test_the_runs_that_convict_others_acquit_the_reader_as_designed(
    pending_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PENDING_MAX", pending_max)
    assert [seed for seed in range(RUNS) if random_run(as_designed, seed) != Verdict.SOUND] == []


@pytest.mark.parametrize(
    ("reader", "verdict"),
    [
        (trusts_the_greatest_visible_position, Verdict.LOST),
        (trusts_the_head, Verdict.LOST),
        (reads_holders_before_the_head, Verdict.LOST),
        (reads_all_in_one_snapshot, Verdict.LOST),
        (is_blind_to_prepared_transactions, Verdict.LOST),
        (takes_prepared_transactions_for_others, Verdict.LOST),
        (looks_only_at_new_prepared_transactions, Verdict.LOST),
        (folds_an_old_observation_after_a_newer_one, Verdict.LOST),
        (takes_a_run_with_gaps_for_settled, Verdict.LOST),
        (remembers_across_a_restart, Verdict.LOST),
        (drops_the_oldest_head, Verdict.STALLED),
    ],
)
def test_a_reader_that_breaks_one_rule_is_convicted(
    reader: Reader, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PENDING_MAX", 2)
    assert any(random_run(reader, seed) == verdict for seed in range(RUNS))
