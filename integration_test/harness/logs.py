"""The log as tests change it, have it handled, and read it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.checkers import assert_each_once
from integration_test.harness.command_line import run
from integration_test.harness.in_process import serving
from integration_test.harness.load import append_events
from integration_test.harness.projections import handled
from integration_test.harness.waiting import TIMEOUT_S
from reactive_orch.model import OWN_LOG, Filter, Window
from reactive_orch.postgres import windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from integration_test.harness.connections import Connection
    from reactive_orch import Event

SEQUENCE = "reactive_orch.events_global_position_seq"
HANDLED = ("--projection", "integration_test.harness.projections:handled")
EVERYWHERE = tuple(range(64))
PLANT = """
INSERT INTO reactive_orch.events (global_position, aggregate_type, aggregate_id, aggregate_version, event_type)
OVERRIDING SYSTEM VALUE VALUES ({}, 'Key', 'planted', 1, 'Planted')
"""


RETYPED = """
BEGIN;
DROP VIEW reactive_orch.event_log;
ALTER TABLE reactive_orch.events ALTER COLUMN event_version TYPE bigint;
CREATE VIEW reactive_orch.event_log AS
SELECT 'events'::text COLLATE "C" AS log,
       global_position, partition, bounded_context, aggregate_type, aggregate_id, aggregate_version, event_id,
       event_type, event_version, payload, trace_id, correlation_id, causation_id, metadata, created_at, partition_key
FROM reactive_orch.events;
COMMIT;
"""


async def handled_up_to(connection: Connection, url: str, events: int) -> None:
    """Append events and let a worker handle them and save."""
    await append_events(connection, events)
    await all_handled(connection, url)


async def all_handled(connection: Connection, url: str) -> None:
    """Let a worker handle what is there, and check that by now everything was, once."""
    async with asyncio.timeout(TIMEOUT_S), serving(url, handled, until_idle=True):
        pass
    await assert_each_once(connection)


async def rewind(url: str, to: str) -> None:
    (await run("rewind", "--replica-set=test", "--projection=handled", f"--to={to}", "--yes", DATABASE_URL=url)).done()


def leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    """Yield the exceptions in a group and its groups."""
    for inner in group.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from leaves(inner)
        else:
            yield inner


async def read_all(connection: Connection, head: int, bytes_max: int, *, scattered: bool) -> list[Sequence[Event]]:
    """Read on from where each window ends, as lanes do."""
    found, low = [], 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "WINDOW_BYTES_MAX", bytes_max)
        while low < head:
            window = Window(EVERYWHERE, low, min(low + 150, head), 100, scattered)
            events, low, _ = await windows.read_window(connection, OWN_LOG, window, Filter())
            found.append(events)
    return found
