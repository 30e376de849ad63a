"""One rebalance, drawn for the terminal from what the database recorded: who did what, when, for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.commands.terminal import HEADING, LEVELS, Styled, shown_time
from reactive_orch.core.news import OVERTAKEN
from reactive_orch.core.page.rebalances import Bar, bars_of
from reactive_orch.model.membership import why
from reactive_orch.model.traces import trace_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from reactive_orch.model.membership import AdoptionRow, GenerationRow

WIDTH = 40


def waterfall(
    replica_set: str, row: GenerationRow, adoptions: Sequence[AdoptionRow], *, overtaken: bool = False
) -> Iterator[str]:
    """Yield the lines of one generation's rebalance; `adoptions` in the order in which they are to stand.

    `overtaken`: there is a newer generation.
    """
    what = f"generation {row.number} of {replica_set}: {why(row.reason, row.subjects)}"
    yield Styled(f"{what}, at {shown_time(row.created_at)}", HEADING)
    yield f"{row.moved} partitions moved{_end(row, adoptions, overtaken=overtaken)}"
    if (trace := trace_id(row.traceparent)) is not None:
        yield f"trace {trace}"
    yield ""
    bars = list(bars_of(row, adoptions))
    first, last = row.noticed_at, max(bar.end for bar in bars)
    yield f"{'':24}0 ms{_ms(first, last) + ' ms':>{WIDTH - 4}}"
    for before, bar in zip((None, *bars), bars, strict=False):
        worker = "" if before is not None and before.member == bar.member else f"worker {bar.member}"
        drawn, took = _drawn(bar, first, last), _ms(bar.start, bar.end)
        yield f"{worker:<11} {bar.phase:<11} {drawn} {took:>8} ms  {bar.note}".rstrip()
    for member in sorted(set(row.members) - {adoption.member for adoption in adoptions}):
        yield Styled(f"worker {member:<4} has not acknowledged", LEVELS["warn"])


def _end(row: GenerationRow, adoptions: Sequence[AdoptionRow], *, overtaken: bool) -> str:
    if row.completed_at is None:  # what is kept, those say who acknowledge
        return f"; {OVERTAKEN if overtaken else 'not settled yet'}"
    kept, since_notice = sum(adoption.kept for adoption in adoptions), _ms(row.noticed_at, row.completed_at)
    return f", {kept} kept; settled in {_ms(row.created_at, row.completed_at)} ms, {since_notice} ms after the notice"


def _drawn(bar: Bar, first: datetime, last: datetime) -> str:
    whole_s = (last - first).total_seconds() or 1.0
    start = min(int((bar.start - first).total_seconds() / whole_s * WIDTH), WIDTH - 1)
    end = max(round((bar.end - first).total_seconds() / whole_s * WIDTH), start + 1)
    return f"{' ' * start}{'█' * (end - start)}".ljust(WIDTH)


def _ms(start: datetime, end: datetime) -> str:
    return f"{max((end - start).total_seconds(), 0.0) * 1000:.1f}"
