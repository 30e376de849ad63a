"""A look reads no holders where every position up to the head has a row, and all of them where one is missing."""

from __future__ import annotations

import pytest

from integration_test.harness.connections import connected
from reactive_orch.model import OWN_LOG
from reactive_orch.postgres import log

INSERT = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type) "
    "VALUES ('Order', gen_random_uuid()::text, 1, 'OrderPlaced') RETURNING global_position"
)

pytestmark = pytest.mark.each_server


async def test_who_has_drawn_nothing_up_to_the_head_is_not_waited_for(database: str) -> None:
    async with connected(database) as reader, connected(database) as writer, connected(database) as holder:
        first, head = await writer.fetchval(INSERT), await writer.fetchval(INSERT)
        async with holder.transaction():
            await holder.execute("LOCK TABLE reactive_orch.events IN ROW EXCLUSIVE MODE")
            assert (
                await reader.fetchval("SELECT cardinality(holders) FROM reactive_orch.observe_log($1)", OWN_LOG)
            ) == 1
            for settled in (first - 1, first, head):
                look = await log.observe(reader, OWN_LOG, settled)
                assert (look.head, look.holders, look.prepared, look.queue) == (head, [], [], 0)


async def test_a_position_that_is_missing_has_all_holders_named(database: str) -> None:
    async with connected(database) as reader, connected(database) as writer, connected(database) as slow:
        first = await writer.fetchval(INSERT)
        transaction = slow.transaction()
        await transaction.start()
        missing = await slow.fetchval(INSERT)
        head = await writer.fetchval(INSERT)
        for settled in (first - 1, first):
            look = await log.observe(reader, OWN_LOG, settled)
            assert (look.head, len(look.holders)) == (head, 1)
        assert (await log.observe(reader, OWN_LOG, missing)).holders == [], (
            "what is behind the settled end is not asked for"
        )
        await transaction.commit()
        assert (await log.observe(reader, OWN_LOG, first - 1)).holders == []


async def test_a_position_that_was_drawn_last_is_missing_as_any(database: str) -> None:
    async with connected(database) as reader, connected(database) as slow, slow.transaction():
        head = await slow.fetchval(INSERT)
        look = await log.observe(reader, OWN_LOG, head - 1)
        assert (look.head, len(look.holders)) == (head, 1)


async def test_a_head_below_the_settled_end_is_told(database: str) -> None:
    async with connected(database) as reader, connected(database) as writer, connected(database) as slow:
        head = await writer.fetchval(INSERT)
        async with slow.transaction():
            await slow.execute("LOCK TABLE reactive_orch.events IN ROW EXCLUSIVE MODE")
            look = await log.observe(reader, OWN_LOG, head + 1)
            assert (look.head, len(look.holders)) == (head, 1)


async def test_a_rule_that_is_broken_is_seen_with_a_whole_run_too(database: str) -> None:
    async with connected(database) as reader, connected(database) as writer:
        head = await writer.fetchval(INSERT)
        await writer.execute("ALTER SEQUENCE reactive_orch.events_global_position_seq CACHE 10")
        for settled in (head - 1, head):
            assert (await log.observe(reader, OWN_LOG, settled)).flaw is not None


async def test_a_bell_that_is_disarmed_or_missing_is_told_as_ever(database: str) -> None:
    async with connected(database) as reader:
        await log.arm(reader, OWN_LOG, 0)
        assert (await log.observe(reader, OWN_LOG, 0)).disarmed
        await reader.execute("DROP SEQUENCE reactive_orch.bell")
        assert not (await log.observe(reader, OWN_LOG, 0)).disarmed
