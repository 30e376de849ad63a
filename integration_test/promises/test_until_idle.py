"""Who runs a worker until it is idle relies on its end: all was handled, or it is said what was not."""

import asyncio
from dataclasses import replace

import pytest

from integration_test.harness.checkers import assert_each_once
from integration_test.harness.connections import prepared
from integration_test.harness.load import append_events
from integration_test.harness.projections import recorder
from integration_test.harness.waiting import TIMEOUT_S
from reactive_orch import Config, ConfigError, Filter, Node, Worker


async def test_what_was_refused_is_no_clean_end(database: str) -> None:
    projections = [recorder("handled", worker="one"), recorder("changed", worker="one")]
    narrowed = [projections[0], replace(projections[1], filter=Filter(aggregate_types=("Key",)))]
    async with (
        prepared(database) as connection,
        Node(Config(database_url=database)) as node,
        asyncio.timeout(TIMEOUT_S),
    ):
        await append_events(connection, 50)
        await Worker(node, "test", projections, until_idle=True).run()
        await append_events(connection, 50)
        with pytest.raises(ConfigError, match="not run until idle: changed, recorded with another filter"):
            await Worker(node, "test", narrowed, until_idle=True).run()
        await assert_each_once(connection, "handled")
