"""What the projection `record` has written: who handled how many events when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

BUCKET_S = 0.1
PER_WORKER = """
SELECT worker, floor(extract(epoch FROM at - $1) / $2)::integer AS bucket, count(*) AS events
FROM public.bench_handled WHERE at >= $1 GROUP BY worker, bucket
"""


async def per_worker(connection: Any, since: datetime) -> dict[str, list[int]]:
    """Return worker → how many events it handled in each tenth of a second since then."""
    rows = await connection.fetch(PER_WORKER, since, BUCKET_S)
    buckets = max(row["bucket"] for row in rows) + 1
    events = {row["worker"]: [0] * buckets for row in rows}
    for row in rows:
        events[row["worker"]][row["bucket"]] = row["events"]
    return events
