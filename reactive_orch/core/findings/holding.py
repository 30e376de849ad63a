"""What holds the log, vacuum or the notifications back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.core.findings.made import finding
from reactive_orch.core.remedies import call as calling
from reactive_orch.core.remedies import ending, literal, psql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reactive_orch.model import TableLock
    from reactive_orch.model.findings import Facts, OpenSeen
    from reactive_orch.model.problems import Problem

PREPARED_AFTER_S = 60.0
"""Whoever prepares a transaction commits it a moment later, or has forgotten it."""
ROWS_KEPT_AFTER_S = 600.0
"""Checkpoints are updated with every batch: what vacuum must keep for so long makes each of them slower to find."""
ROWS_KEPT_FOR = 1_000_000
"""Likewise for a replication slot, in transactions: nobody says since when."""
QUEUE_SILENT, QUEUE_GROWS = 0.5, 0.1
"""The share of the queue of notifications from which on nobody rings, and from which on somebody should look."""

_KEEPS = "keeps vacuum from cleaning the checkpoints, which are updated with every batch"


def of_log_end(facts: Facts) -> Iterator[Problem]:
    """Yield positions that nobody has drawn."""
    end = facts.end
    if end is not None and end.last > end.drawn:
        text = (
            f"an event of log {end.name} stands at position {end.last}, which was given by hand: the sequence is at "
            f"{end.drawn}. Nobody reads it, and a later append fails on it"
        )
        command = psql(calling(f"setval({literal(end.sequence)}, {end.last})"))
        yield finding("bad", "planted", text, command=command)


def of_locks(facts: Facts) -> Iterator[Problem]:
    """Yield who keeps others from our tables, if the server has not answered in time; else it lasts a moment only."""
    if not facts.late:
        return
    told: dict[tuple[int | None, str | None], list[TableLock]] = {}
    for each in facts.locks:
        told.setdefault((each.holder.pid, each.holder.prepared), []).append(each)
    for locks in told.values():
        tables, holder = dict.fromkeys(each.table for each in locks), locks[0].holder
        text = f"locked: {', '.join(tables)}. Workers and commands wait for that"
        command = ending(holder.pid, holder.prepared)
        yield finding("bad", "locked", text, age_s=holder.age_s, who=str(holder), command=command)
    text = f"not looked at, as the server did not answer in time: {', '.join(facts.late)}"
    yield finding("warn", "no_answer", text)


def of_open(facts: Facts) -> Iterator[Problem]:
    """Yield forgotten transactions; those that hold the log are told of elsewhere."""
    told = {(each.pid, each.prepared) for log in (facts.seen.logs if facts.seen else ()) for each in log.holders}
    told |= {(each.holder.pid, each.holder.prepared) for each in facts.locks}
    for each in facts.open or ():
        holder = each.holder
        if not each.here or not each.keeps_rows or (holder.pid, holder.prepared) in told:
            continue
        if holder.pid is None and holder.age_s > PREPARED_AFTER_S:
            yield _forgotten("prepared", f"a prepared transaction {_KEEPS}", each)
        elif holder.pid is not None and holder.age_s > ROWS_KEPT_AFTER_S:
            yield _forgotten("old_snapshot", f"an old transaction {_KEEPS}", each)


def _forgotten(code: str, text: str, each: OpenSeen) -> Problem:
    holder = each.holder
    command = ending(holder.pid, holder.prepared)
    return finding("warn", code, text, age_s=holder.age_s, who=str(holder), command=command)


def of_slots(facts: Facts) -> Iterator[Problem]:
    """Yield replication slots that nobody reads."""
    for slot in facts.slots or ():
        if slot.transactions > ROWS_KEPT_FOR:
            state = "a standby lags, or has a long query" if slot.active else "nobody reads it"
            text = f"replication slot {slot.name} {_KEEPS}, since {slot.transactions} transactions: {state}"
            dropping = psql(calling(f"pg_drop_replication_slot({literal(slot.name)})"))
            yield finding("warn", "old_slot", text, command="" if slot.active else dropping)


def of_queue(facts: Facts) -> Iterator[Problem]:
    """Yield why nobody is notified, or soon will not be."""
    usage = facts.queue or 0.0
    if usage < QUEUE_GROWS:
        return
    text = f"the server's queue of notifications is {usage:.0%} full: a session listens inside a transaction"
    text += "; nobody rings, and workers poll" if usage >= QUEUE_SILENT else ""
    oldest = next((each.holder for each in facts.open or () if each.holder.pid is not None), None)
    who = f"most likely {oldest}" if oldest else "who is not known to this user"
    yield finding(
        "bad" if usage >= QUEUE_SILENT else "warn",
        "notify_queue",
        text,
        age_s=oldest.age_s if oldest else None,
        who=who,
        command=ending(oldest.pid, None) if oldest else "",
    )
