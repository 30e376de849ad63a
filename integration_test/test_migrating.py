"""The schema made by an application: once, whoever calls, and with one clear error for what cannot be."""

from __future__ import annotations

import asyncio

import pytest

from integration_test.harness.connections import connected
from reactive_orch import ConfigError, NewEvent, Unavailable, append, migrate
from reactive_orch.postgres.migrations import NEWEST


async def test_of_several_at_once_one_does_it(empty_database: str) -> None:
    told = await asyncio.gather(*(migrate(empty_database, partitions=8) for _ in range(3)))
    assert sorted(map(len, told)) == [0, 0, NEWEST]
    async with connected(empty_database) as connection:
        await append(connection, [NewEvent(aggregate_type="Order", aggregate_id="1", event_type="OrderPlaced")])
        assert await connection.fetchval("SELECT partitions FROM reactive_orch.logs") == 8
    assert await migrate(empty_database) == []


async def test_what_cannot_be_is_said(empty_database: str) -> None:
    with pytest.raises(ConfigError, match="neither a URI"):
        await migrate("nowhere")
    with pytest.raises(ConfigError, match="must be a power of two from 1 to 1024, not 3"):
        await migrate(empty_database, partitions=3)
    with pytest.raises(Unavailable):
        await migrate("postgresql://postgres@127.0.0.1:1/nothing")
