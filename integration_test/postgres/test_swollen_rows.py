"""Events that take more room where they are read than where they are stored."""

from __future__ import annotations

import random

import pytest

from integration_test.harness.connections import connected
from integration_test.harness.logs import read_all
from reactive_orch.postgres import windows

_SWOLLEN = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, metadata)
SELECT 'Swollen', 'k' || n % 13, n, 'E', jsonb_build_object('numbers', array_fill('1e100000'::numeric, ARRAY[s.size]))
FROM unnest($1::integer[]) WITH ORDINALITY AS s(size, n)
"""


@pytest.mark.parametrize("scattered", [False, True], ids=["dense", "scattered"])
async def test_large_numbers_in_the_metadata_are_read_a_few_at_a_time(database: str, scattered: bool) -> None:  # noqa: FBT001
    """Each takes a few bytes in the table, and 100,000 in a reader's memory."""
    dice = random.Random(27)
    async with connected(database) as connection:
        await connection.execute(_SWOLLEN, [dice.choice([0, 1, 10, 30]) for _ in range(60)])
        found = await read_all(connection, 60, windows.WINDOW_BYTES_MAX, scattered=scattered)
    assert [e.global_position for events in found for e in events] == list(range(1, 61)), "every event"
    assert len(found) > 3
    for events in found:
        assert sum(len(e.metadata_json) for e in events[:-1]) < windows.WINDOW_BYTES_MAX, "what is before left room"
