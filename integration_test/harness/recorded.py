"""What must be true after a storm has healed. Each checker returns findings.

A checker that never fired proves nothing: planted bugs show that they do (`python -m integration_test.chaos.mutants`).

The truth is recorded by triggers that only these tests install: each committed move of a checkpoint, in the order of
the row's lock; each generation and assignment; each member's row, with whether its lock was held when it was written.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from integration_test.harness import projections as test_projections
from integration_test.harness.arena import PARTITIONS, REPLICA_SET, Finding
from integration_test.harness.checkers import (
    MISCOUNTED,
    NOT_ONCE,
    OUT_OF_ORDER,
    OUT_OF_TURN,
    OVERTAKEN,
    TWICE_ACCOUNTED,
)
from integration_test.harness.connections import connected
from reactive_orch.core.keys import DEATHS_MOST

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence
    from datetime import datetime

    from integration_test.harness.arena import Arena, Victim
    from integration_test.harness.load import Writers

SHOWN = 5
MEMORY_GROWTH_KB = 30_000
MEMORY_AFTER_S = 20.0

_RECORDERS = """
CREATE TABLE public.chaos_chain (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, projection text, partition smallint,
    from_position bigint, to_position bigint, from_epoch bigint, to_epoch bigint,
    txid bigint DEFAULT pg_current_xact_id()::text::bigint, by text DEFAULT current_setting('application_name'),
    at timestamptz DEFAULT clock_timestamp(), head bigint);
CREATE INDEX ON public.chaos_chain (txid);
CREATE FUNCTION public.chaos_checkpoint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.chaos_chain (projection, partition, from_position, to_position, from_epoch, to_epoch, head)
    VALUES (NEW.projection, NEW.partition, OLD.position, NEW.position, OLD.epoch, NEW.epoch,
            (SELECT coalesce(pg_sequence_last_value(s.sequence), 0) FROM reactive_orch.logs s));
    RETURN NULL;
END $$;
-- Deferred: it runs at COMMIT, still under the row's lock.
CREATE CONSTRAINT TRIGGER chaos_chain AFTER UPDATE ON reactive_orch.checkpoints
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.chaos_checkpoint();

CREATE TABLE public.chaos_waited (projection text, position bigint);
CREATE INDEX ON public.chaos_waited (projection, position);
CREATE FUNCTION public.chaos_letter() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.chaos_waited
    SELECT k.projection, NEW.position FROM reactive_orch.failing_keys k WHERE k.id = NEW.key;
    RETURN NULL;
END $$;
-- Deferred: a key that begins to fail is written in the same statement as its first letter.
CREATE CONSTRAINT TRIGGER chaos_letter AFTER INSERT ON reactive_orch.dead_letters
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.chaos_letter();

-- by: who was asked to try a key; '' if anybody may, as the projection is suspended.
CREATE TABLE public.chaos_opinions (txid bigint, projection text, partition smallint, by text);
CREATE FUNCTION public.chaos_opinion() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    trial boolean := EXISTS (
        SELECT FROM reactive_orch.projections p
        WHERE p.replica_set = OLD.replica_set AND p.name = OLD.projection AND p.state = 'suspended');
BEGIN
    INSERT INTO public.chaos_opinions
    SELECT pg_current_xact_id()::text::bigint, OLD.projection, OLD.partition,
           CASE WHEN trial THEN '' ELSE OLD.taken_by END
    WHERE trial OR OLD.taken_by IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_opinion AFTER UPDATE OR DELETE ON reactive_orch.failing_keys
FOR EACH ROW EXECUTE FUNCTION public.chaos_opinion();

CREATE TABLE public.chaos_generations (
    number bigint, reason text, subjects integer[], members integer[], moved integer,
    created_at timestamptz, completed_at timestamptz, settled_times integer DEFAULT 0, runs jsonb);
CREATE FUNCTION public.chaos_generation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO public.chaos_generations (number, reason, subjects, members, moved, created_at, runs)
        SELECT NEW.number, NEW.reason, NEW.subjects, NEW.members, NEW.moved, NEW.created_at,
               jsonb_object_agg(m.id, m.projections)
        FROM reactive_orch.members m WHERE m.id = ANY (NEW.members);
    ELSE
        UPDATE public.chaos_generations g SET completed_at = NEW.completed_at, settled_times = g.settled_times + 1
        WHERE g.number = NEW.number;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_generation AFTER INSERT OR UPDATE ON reactive_orch.generations
FOR EACH ROW EXECUTE FUNCTION public.chaos_generation();

CREATE TABLE public.chaos_assignments (generation bigint, projection text, owners integer[]);
CREATE FUNCTION public.chaos_assignment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.chaos_assignments
    SELECT r.generation, NEW.projection, NEW.owners FROM reactive_orch.replica_sets r WHERE r.name = NEW.replica_set;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_assignment AFTER INSERT OR UPDATE ON reactive_orch.assignments
FOR EACH ROW EXECUTE FUNCTION public.chaos_assignment();

CREATE TABLE public.chaos_members (id integer, name text, locked boolean);
CREATE FUNCTION public.chaos_member() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.chaos_members SELECT NEW.id, NEW.name, EXISTS (
        SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = reactive_orch.lock_namespace()::oid
        AND l.objid = NEW.id::oid AND l.objsubid = 2 AND l.granted AND l.pid = NEW.backend_pid);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_member AFTER INSERT ON reactive_orch.members
FOR EACH ROW EXECUTE FUNCTION public.chaos_member();
"""


async def install(url: str) -> None:
    """Create the projections' tables and the recorders."""
    async with connected(url) as connection:
        await test_projections.create_tables(connection)
        await connection.execute(_RECORDERS)


@dataclass(slots=True)
class Book:
    """What the checkers remember from one round of a long storm to the next."""

    chain_to: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    chain_txid: int = 0
    generation: int = 0
    owners: dict[str, tuple[int, ...]] = field(default_factory=dict)


async def check(arena: Arena, writers: Iterable[Writers], book: Book | None = None) -> list[Finding]:
    """Run every checker that needs the settled database; the workers may still be there."""
    book = book or Book()
    rows = await _new_chain_rows(arena, book)
    in_flight = sorted((f.not_before, f.position) for w in writers for f in w.fates.values())
    found = [
        *(await _once(arena)),
        *(await _accounted(arena)),
        *(await _balances(arena)),
        *(await _order(arena)),
        *(await _atomic(arena)),
        *(await _outcomes(arena, writers)),
        *_chain(rows, book),
        *_frontier(rows, in_flight),
        *(await _membership(arena)),
        *(await _generations(arena, rows, book)),
    ]
    return [*arena.findings, *found]


async def _once(arena: Arena) -> list[Finding]:
    """Every committed event exactly once, and nothing else. Lost is what lies behind its checkpoint."""
    found = []
    for projection in set(arena.projections) - FAILING:
        rows = await arena.ask(NOT_ONCE, REPLICA_SET, projection)
        kinds = {
            "lost": [r["position"] for r in rows if not r["times"] and r["passed"]],
            "unhandled": [r["position"] for r in rows if not r["times"] and not r["passed"]],
            "twice": [(r["position"], r["workers"], r["txids"]) for r in rows if r["times"] > 1],
            "phantom": [(r["position"], r["workers"]) for r in rows if not r["committed"]],
            "forged": [r["position"] for r in rows if r["committed"] and r["times"] == 1],
        }
        for kind, what in kinds.items():
            if what:
                found.append(Finding(kind, f"{len(what)} events of {projection}: {what[:SHOWN]}"))
    rows = await arena.ask(_LEFT_OUT, REPLICA_SET, list(FAILING))
    return [*found, *([Finding("left out", f"unasked for: {[tuple(row) for row in rows[:SHOWN]]}")] if rows else [])]


_LEFT_OUT = """
SELECT d.projection, d.position, d.request, d.requested_by FROM reactive_orch.discarded_events d
WHERE d.replica_set = $1 AND NOT d.projection = ANY ($2::text[]) ORDER BY 1, 2
"""
"""Nobody asks for that where handlers do not fail."""


async def _accounted(arena: Arena) -> list[Finding]:
    """Where events fail, each was handled, waits or was left out: one of them, once; of a key the last ones wait."""
    found = []
    for projection, kind in itertools.product(FAILING.intersection(arena.projections), _ACCOUNTS):
        rows = await arena.ask(_ACCOUNTS[kind], REPLICA_SET, projection)
        if rows:
            found.append(Finding(kind, f"{len(rows)} of {projection}: {[tuple(row) for row in rows[:SHOWN]]}"))
    return found


POISONED, LETHAL = "poisoned", "lethal"
"""The projections whose events may fail, or end the process."""
FAILING = frozenset({POISONED, LETHAL})

_ACCOUNTS = {
    "accounted": TWICE_ACCOUNTED,
    "overtaken": OVERTAKEN,
    "miscounted": MISCOUNTED,
    "order": OUT_OF_TURN,
}


def deaths(arena: Arena, processes: Iterable[Victim]) -> list[Finding]:
    """No event ends more processes than it takes to find and to park it, and to be misled about it.

    The first death is unexplained; each of the next ones is recorded by a marker, and counts. What may have hidden
    one, or has an event tried again on request, costs another one.
    """
    died: dict[int, list[float]] = defaultdict(list)
    for position, at in filter(None, (process.ended_by for process in processes)):
        died[position].append(at)
    found = []
    for position, times in died.items():
        hidden = sum(min(times) - HIDDEN_BEFORE_S < at < max(times) for at in arena.hidden_at)
        if len(times) > DEATHS_AT_FIRST + DEATHS_MOST + hidden:
            since = [f"{at - min(times):.1f}" for at in sorted(times)]
            found.append(Finding("deaths", f"the event at {position} has ended {len(times)} processes: {since}"))
    return found


DEATHS_AT_FIRST = 1
HIDDEN_BEFORE_S = 1.0
"""A worker that is told to stop has that long before its end something in hand that nobody suspects."""


async def _balances(arena: Arena) -> list[Finding]:
    """What handlers on several workers have added up in the same rows is the sum over the events that were handled."""
    rows = await arena.ask(_UNBALANCED, REPLICA_SET, SHARING)
    shown = [tuple(row) for row in rows[:SHOWN]]
    return [Finding("balances", f"{len(rows)} differ (customer, amount, due): {shown}")] if rows else []


SHARING = "sharing"
"""The projection whose handlers write rows of all keys."""

_UNBALANCED = """
SELECT coalesce(b.customer, d.customer), b.amount, d.due FROM public.balances b
FULL JOIN (SELECT m.customer, sum(m.amount) AS due
           FROM public.handled h, public.parties(h.position) p,
                LATERAL (VALUES (p.giver, -h.position), (p.taker, h.position)) m(customer, amount)
           WHERE h.replica_set = $1 AND h.projection = $2 GROUP BY m.customer) d ON d.customer = b.customer
WHERE b.amount IS DISTINCT FROM d.due ORDER BY 1
"""


async def _order(arena: Arena) -> list[Finding]:
    """Each key's events one after the other, without a gap."""
    rows = [row for row in await arena.ask(OUT_OF_ORDER) if row["projection"] not in FAILING]
    shown = [(r["projection"], r["key"], r["version"], r["previous"], r["worker"]) for r in rows[:SHOWN]]
    return [Finding("order", f"{len(rows)} events: {shown}")] if rows else []


async def _atomic(arena: Arena) -> list[Finding]:
    """The transaction of each effect is a batch that moved the checkpoint over the event; past it, if that waited.

    An event of any projection may wait: a worker that is killed may have had it alone in hand.
    """
    rows = await arena.ask(_WITHOUT_BATCH)
    shown = [(r["projection"], r["position"], r["worker"], r["txid"]) for r in rows[:SHOWN]]
    return [Finding("atomic", f"{len(rows)} effects outside a batch: {shown}")] if rows else []


_WITHOUT_BATCH = """
SELECT h.* FROM public.handled h WHERE NOT EXISTS (
    SELECT FROM public.chaos_chain c
    WHERE c.txid = h.txid AND c.projection = h.projection AND c.partition = h.partition
      AND h.position <= c.to_position
      AND (c.from_position < h.position
           OR EXISTS (SELECT FROM public.chaos_waited w WHERE w.projection = h.projection AND w.position = h.position)))
ORDER BY h.id LIMIT 1000
"""


async def _outcomes(arena: Arena, writers: Iterable[Writers]) -> list[Finding]:
    """The log agrees with what writers know of their transactions; an unknown outcome may be either."""
    log = {row["event_id"] for row in await arena.ask("SELECT e.event_id FROM reactive_orch.events e")}
    fates = {event: fate for w in writers for event, fate in w.fates.items()}
    gone = [f.position for event, f in fates.items() if f.outcome == "committed" and event not in log]
    back = [f.position for event, f in fates.items() if f.outcome == "rolled back" and event in log]
    found = [Finding("outcomes", f"committed, and not in the log: {gone[:SHOWN]}")] if gone else []
    return [*found, *([Finding("outcomes", f"rolled back, and in the log: {back[:SHOWN]}")] if back else [])]


async def _new_chain_rows(arena: Arena, book: Book) -> list[Any]:
    """Return the new moves of transactions that have surely ended, one for each transaction and checkpoint.

    A transaction may move a checkpoint twice: a batch that is cut short moves it back to where it stops.
    """
    horizon = int(await arena.value("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"))
    sql = "SELECT * FROM public.chaos_chain WHERE txid >= $1 AND txid < $2 ORDER BY id"
    rows = await arena.ask(sql, book.chain_txid, horizon)
    book.chain_txid = horizon
    seen: dict[tuple[int, str, int], dict[str, Any]] = {}
    for row in rows:
        move = (row["txid"], row["projection"], row["partition"])
        first = seen.get(move, row)
        seen[move] = {**row, "from_position": first["from_position"], "from_epoch": first["from_epoch"]}
    return list(seen.values())


def _chain(rows: Sequence[Any], book: Book) -> list[Finding]:
    """The moves of each checkpoint are one chain; it never goes back, and never beyond the log's head."""
    broken, back, beyond = [], [], []
    for row in rows:
        unit = (row["projection"], row["partition"])
        before, epoch = book.chain_to.get(unit, (0, row["from_epoch"]))
        if (row["from_position"], row["from_epoch"]) != (before, epoch):
            broken.append((unit, before, row["from_position"], row["by"]))
        if row["to_position"] < row["from_position"] and row["to_epoch"] == row["from_epoch"]:
            back.append((unit, row["from_position"], row["to_position"], row["by"]))
        if row["to_position"] > row["head"]:
            beyond.append((unit, row["to_position"], row["head"], row["by"]))
        book.chain_to[unit] = (row["to_position"], row["to_epoch"])
    kinds = {"chain": (broken, "gaps"), "back": (back, "moves back"), "frontier": (beyond, "moves beyond the head")}
    return [Finding(c, f"{len(rows)} {what}: {rows[:SHOWN]}") for c, (rows, what) in kinds.items() if rows]


def _frontier(rows: Sequence[Any], in_flight: Sequence[tuple[datetime, int]]) -> list[Finding]:
    """No checkpoint stood at or beyond a position whose transaction was still open."""
    clocks = [clock for clock, _ in in_flight]
    lowest: list[int] = [0] * len(in_flight)
    low = 1 << 62
    for n in range(len(in_flight) - 1, -1, -1):
        low = min(low, in_flight[n][1])
        lowest[n] = low
    wrong = []
    for row in rows:
        n = bisect.bisect_right(clocks, row["at"])
        if n < len(lowest) and lowest[n] <= row["to_position"] != row["from_position"]:
            wrong.append((row["projection"], row["partition"], row["to_position"], lowest[n], row["by"]))
    return [Finding("frontier", f"{len(wrong)} moves past an open writer: {wrong[:SHOWN]}")] if wrong else []


async def _membership(arena: Arena) -> list[Finding]:
    """A member's lock is held when its row is written; ids are not used twice."""
    rows = await arena.ask("SELECT m.id, m.name FROM public.chaos_members m WHERE NOT m.locked")
    twice = await arena.ask("SELECT m.id FROM public.chaos_members m GROUP BY m.id HAVING count(*) > 1")
    found = [Finding("membership", f"rows before their locks: {[tuple(r) for r in rows[:SHOWN]]}")] if rows else []
    return [*found, *([Finding("membership", f"ids used twice: {[r[0] for r in twice]}")] if twice else [])]


async def _generations(arena: Arena, chain: Sequence[Any], book: Book) -> list[Finding]:
    """Consecutive, one owner per partition among the members, balanced, moved no more than needed, settled in truth."""
    generations = await arena.ask(
        "SELECT * FROM public.chaos_generations g WHERE g.number > $1 ORDER BY g.number", book.generation
    )
    rows = await arena.ask(
        "SELECT * FROM public.chaos_assignments a WHERE a.generation > $1 ORDER BY a.generation", book.generation
    )
    written: dict[int, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for row in rows:
        written[row["generation"]][row["projection"]] = tuple(row["owners"])
    names = {row["id"]: row["name"] for row in await arena.ask("SELECT m.id, m.name FROM public.chaos_members m")}
    opinions = {tuple(row) for row in await arena.ask("SELECT * FROM public.chaos_opinions")}
    found, owners, plans = [], dict(book.owners), []
    numbers = [g["number"] for g in generations]
    if numbers != [*range(book.generation + 1, book.generation + 1 + len(numbers))]:
        found.append(Finding("generations", f"numbers are not consecutive: {numbers}"))
    for generation in generations:
        after = {**owners, **written[generation["number"]]}
        found += _plan(generation, owners, after)
        owners = after
        plans.append((generation, after))
    own = [row for row in chain if not _is_opinion(row, opinions)]
    found += _settled_in_truth(plans, own, names, {str(p.pid) for p in arena.processes if p.proxied})
    if len(generations) > 1:  # the last one is looked at again, with what comes after it
        book.generation, book.owners = plans[-2][0]["number"], plans[-2][1]
    return found


def _plan(generation: Any, before: dict[str, tuple[int, ...]], after: dict[str, tuple[int, ...]]) -> list[Finding]:
    found, moves = [], 0
    runs = json.loads(generation["runs"] or "{}")
    number = f"generation {generation['number']} ({generation['reason']} of {generation['subjects']})"
    for projection, owners in after.items():
        members = {member for member in generation["members"] if projection in runs[str(member)]}
        strangers = set(owners) - (members or {0})
        if strangers or len(owners) != PARTITIONS:
            told = f"{number}: {projection} is owned by strangers {strangers}; members run {runs}"
            found.append(Finding("generations", told))
        loads = [owners.count(member) for member in members]
        if loads and max(loads) - min(loads) > 1:
            found.append(Finding("generations", f"{number}: {projection} is not balanced: {sorted(loads)}"))
        was = before.get(projection, (0,) * len(owners))
        moved = sum(a != b for a, b in zip(was, owners, strict=True))
        least = len(owners) - _most_kept(was, members)
        moves += moved
        if moved > least and members:
            found.append(Finding("generations", f"{number}: {projection} moved {moved} partitions, {least} would do"))
    if moves != generation["moved"]:
        found.append(Finding("generations", f"{number}: says {generation['moved']} moved, {moves} did"))
    if generation["settled_times"] > 1:
        found.append(Finding("generations", f"{number}: settled {generation['settled_times']} times"))
    return found


def _most_kept(owners: Sequence[int], members: set[int]) -> int:
    if not members:
        return 0
    base, extras = divmod(len(owners), len(members))
    held = [owners.count(member) for member in members]
    return sum(min(h, base) for h in held) + min(extras, sum(h > base for h in held))


def _is_opinion(row: Any, opinions: Container[tuple[int, str, int, str]]) -> bool:
    """Tell whether a batch moved nothing and tried a key: one that its worker was asked to try, or while all rests."""
    of = (row["txid"], row["projection"], row["partition"])
    moved = (row["from_position"], row["from_epoch"]) != (row["to_position"], row["to_epoch"])
    return not moved and ((*of, _label(row)) in opinions or (*of, "") in opinions)


def _label(row: Any) -> str:
    return str(row["by"]).removeprefix("reactive_orch:").partition(":")[2]


def _settled_in_truth(
    plans: Sequence[tuple[Any, dict[str, tuple[int, ...]]]],
    chain: Sequence[Any],
    names: dict[int, str],
    proxied: set[str],
) -> list[Finding]:
    """Once a generation is settled, no member of it commits for a partition that is not its own, but to try a key.

    Somebody who was removed may (the swap decides), and so may one whose network delivers late.
    """
    starts = [plan[0]["created_at"] for plan in plans]
    wrong = []
    for row in chain:
        n = bisect.bisect_right(starts, row["at"]) - 1
        kind, _, label = str(row["by"]).removeprefix("reactive_orch:").partition(":")
        if n < 0 or kind not in {"work", "coordination"} or label.split(":")[1] in proxied:
            continue
        generation, owners = plans[n]
        ids = {i for i in generation["members"] if names.get(i) == label}
        if ids and generation["completed_at"] and row["at"] > generation["completed_at"]:
            owner = owners[row["projection"]][row["partition"]]
            if owner not in ids:
                moved = (row["from_position"], row["to_position"])
                wrong.append((row["projection"], row["partition"], generation["number"], owner, ids, *moved))
    return (
        [Finding("settled", f"{len(wrong)} batches of others after it was settled: {wrong[:SHOWN]}")] if wrong else []
    )


async def leaks(arena: Arena, timeout_s: float = 8.0) -> list[Finding]:
    """After the last worker there is no member, no lock, no connection and no open transaction of theirs."""
    deadline = time.monotonic() + timeout_s
    while True:
        rows = await arena.ask(_LEFT)
        if not rows:
            return []
        if time.monotonic() > deadline:
            return [Finding("leaks", f"{len(rows)} left: {[tuple(row) for row in rows[:SHOWN]]}")]
        await asyncio.sleep(0.2)


_LEFT = """
SELECT 'connection', a.application_name || ' ' || a.state FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.application_name LIKE 'reactive\\_orch:%'
UNION ALL
SELECT 'lock', l.objid::text FROM pg_locks l
WHERE l.locktype = 'advisory' AND l.classid = reactive_orch.lock_namespace()::oid AND l.objsubid = 2
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
UNION ALL
SELECT 'member', m.name || ' ' || m.state FROM reactive_orch.members m
"""


def memory(processes: Iterable[Victim]) -> list[Finding]:
    """A worker's memory does not grow once it is warm."""
    found = []
    for process in processes:
        warm = [kb for age, kb in process.memory_kb if age > MEMORY_AFTER_S]
        if len(warm) > 10 and warm[-1] - warm[0] > MEMORY_GROWTH_KB:
            found.append(Finding("memory", f"{process.name} grew from {warm[0]} to {warm[-1]} KB"))
    return found
