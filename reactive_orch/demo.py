"""The built-in projection: how many events of each type there are, in the table reactive_orch.event_counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from reactive_orch.model import Event, projection

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

_COUNT = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8").rstrip().rstrip(";")


@projection("event_counts", batch=True)
async def event_counts(events: Sequence[Event], tx: asyncpg.Connection[asyncpg.Record]) -> None:
    """Add a batch's events to the counts, and say what they were."""
    counts = Counter((event.event_type, event.partition) for event in events)
    types, partitions = zip(*sorted(counts), strict=True)
    await tx.execute(_COUNT, types, partitions, [counts[key] for key in sorted(counts)])
    by_type = Counter(event.event_type for event in events)
    print(f"{len(events)} events:", ", ".join(f"{n} {name}" for name, n in sorted(by_type.items())), flush=True)
