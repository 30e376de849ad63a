"""How far the log is settled: the position up to which no event can appear any more (protocol 2.1 to 2.4).

A writer draws a position before its transaction commits, so a later position can become visible before an earlier
one. Whoever reads up to the greatest position it sees skips the events of every slower writer, for ever. But a writer
takes RowExclusiveLock on the log before it draws and gives it back after its outcome is visible. So a reader makes an
`Observation`, folds it into its `Frontier`, and reads rows up to `settled` only.

The caller must keep the order, which is what the guarantee rests on:

- the head first, the holders after it, the rows in a later statement, with a snapshot taken after both;
- observations are folded in the order they were made, after `extend` only those that began after its rows were read;
- a lost connection means a new `Frontier()`: a restarted server gives prepared transactions other names, and new
  transactions old ones.

Why a settled head is safe. Take any position p <= head. It was drawn before the head was read, so the transaction T
that drew it had the lock before the holders were read. Then either T is among the holders, or it had ended, and
snapshots taken from then on show how. Once none of the holders is left, T has ended in either case, so the rows read
next show every event up to the head that will ever be there. (A rollback to a savepoint that came before the draw gives
the lock back while T goes on. But then no row will ever have p.)

Why a later head may settle before an earlier one. The argument never looks at other heads: the positions up to a later
head include all those up to an earlier one, and whoever drew one of them and was in flight is among the later head's
holders as well. So the greatest head without holders settles all before it. (In fact heads settle in order: a head
keeps only holders that are still there, and those a later observation saw too, so the holders of pending heads are
nested, each set within the next.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reactive_orch.errors import UnsafeLog
from reactive_orch.incarnation import NEVER, Incarnation, demand_same

if TYPE_CHECKING:
    from reactive_orch.model import Position

PENDING_MAX = 64
"""How many heads wait at once. It bounds the work of an observation, not safety: the next one brings a new head."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one look at the database saw: the head, then, read after it, who holds the log's write lock."""

    head: Position
    """The last position drawn, 0 before the first."""
    holders: frozenset[str]
    """The virtual transactions that hold the lock, as text that is only compared, never taken apart."""
    prepared: frozenset[str]
    """Those of the holders that are prepared transactions. No default: a reader blind to them loses their events."""
    incarnation: Incarnation = NEVER
    """Of the connection that it was made on."""

    def __post_init__(self) -> None:
        """Raise ValueError for a prepared transaction that is not a holder: that head would settle without it."""
        if not self.prepared <= self.holders:
            msg = f"prepared transactions {sorted(self.prepared - self.holders)} are missing from the holders"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Frontier:
    """How far the log is settled, and which heads still wait for whom. `Frontier()` knows nothing and is safe."""

    settled: Position = 0
    """Every position up to here is committed or never will be. Only rises."""
    pending: tuple[tuple[Position, frozenset[str]], ...] = ()
    """Heads above `settled`, rising, each with those of its holders that have not ended: never an empty set."""
    prepared: frozenset[str] = frozenset()
    """The prepared transactions of the last observation."""
    incarnation: Incarnation = NEVER
    """Of all of its observations."""

    @property
    def waiting(self) -> bool:
        """Whether positions have been drawn whose writers may still commit."""
        return bool(self.pending)

    @property
    def holders(self) -> frozenset[str]:
        """Who the oldest pending head waits for: the ones to name when the frontier stands still."""
        return self.pending[0][1] if self.pending else frozenset()

    def observe(self, seen: Observation) -> Frontier:
        """Return the frontier after one more look.

        Raises UnsafeLog when the head is below one already known: positions would be used a second time. ValueError
        for an observation of another incarnation.
        """
        demand_same(self.incarnation, seen.incarnation)
        known = self._last_head()
        if seen.head < known:
            msg = f"the log's sequence moved back from {known} to {seen.head}: a restored backup, a failover or a reset"
            raise UnsafeLog(msg)
        heads = [(head, self._left(holders, seen)) for head, holders in self.pending]
        if seen.head > known:
            heads.append((seen.head, seen.holders))
        settled = max((head for head, holders in heads if not holders), default=self.settled)
        return replace(self, settled=settled, pending=_bounded(heads, settled), prepared=seen.prepared)

    def extend(self, run_end: Position) -> Frontier:
        """Return the frontier with the run without gaps up to `run_end` settled.

        The run starts directly after a position that was settled: each of its rows has been seen, so none can appear.
        """
        settled = max(self.settled, run_end)
        return replace(self, settled=settled, pending=tuple(entry for entry in self.pending if entry[0] > settled))

    def _last_head(self) -> Position:
        return self.pending[-1][0] if self.pending else self.settled

    def _left(self, holders: frozenset[str], seen: Observation) -> frozenset[str]:
        """Return which of a head's holders may still commit.

        A holder that is gone has ended, or PREPARE TRANSACTION gave it another name. (PostgreSQL 15, 16 and 18 let it
        keep its name until the server restarts, but nothing promises that.) Only live transactions can be prepared, so
        as soon as one of those is gone, each prepared transaction seen now may be it. Not only the ones that are new:
        pg_locks is not read in one instant and can show the old name and the new one together. And not at other
        times: a stream of prepared transactions would keep the head waiting for ever, whereas the live holders of a
        head can only become fewer.
        """
        gone = holders - seen.holders
        left = holders - gone
        return left if gone <= self.prepared else left | seen.prepared


def _bounded(
    heads: list[tuple[Position, frozenset[str]]], settled: Position
) -> tuple[tuple[Position, frozenset[str]], ...]:
    """Return the heads worth keeping: not settled, one for each set of holders, the oldest if there are too many.

    Of heads that wait for the same holders only the greatest counts, as they settle together; so behind one long
    transaction the list stays short. The newest go first when it is full: they were going to settle last, while
    dropping the oldest would, under steady writing, drop every head just before its turn.
    """
    greatest = {holders: head for head, holders in heads if head > settled}
    return tuple((head, holders) for holders, head in greatest.items())[:PENDING_MAX]
