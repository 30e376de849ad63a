"""Events for tests: what the core looks at is given, the rest is always the same."""

from __future__ import annotations

import datetime as dt
import uuid

from reactive_orch.model import Event, Partition, Position


def event(position: Position, partition: Partition = 0) -> Event:
    created = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return Event(
        position, partition, "c", "T", "7", 1, uuid.UUID(int=position), "E", 1, b"", None, None, None, "{}", created
    )
