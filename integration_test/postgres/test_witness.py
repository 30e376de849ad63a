"""The record of what the log is: whoever asks for it, whenever, says nothing that is not so."""

from __future__ import annotations

from typing import Literal

import pytest

from integration_test.harness.connections import connected, prepared
from integration_test.harness.load import append_events
from integration_test.harness.logs import PLANT, SEQUENCE, handled_up_to
from reactive_orch import UnsafeLog
from reactive_orch.model import OWN_LOG
from reactive_orch.postgres import log_check


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_an_old_snapshot_records_no_gaps_where_events_are(
    database: str, isolation: Literal["repeatable_read", "serializable"]
) -> None:
    async with prepared(database) as connection, connected(database) as other:
        await handled_up_to(connection, database, 10)
        async with other.transaction(isolation=isolation):
            await other.fetch("SELECT FROM reactive_orch.event_log")
            await append_events(connection, 5)
            assert await log_check.witness(other, OWN_LOG, 2**60, 0.0) == 10
        await log_check.check(connection, OWN_LOG)
        assert await log_check.witness(connection, OWN_LOG, 2**60, 0.0) == 15
        await log_check.check(connection, OWN_LOG)


async def test_a_log_at_the_last_of_all_positions_is_recorded(database: str) -> None:
    async with prepared(database) as connection:
        await handled_up_to(connection, database, 10)
        await connection.execute(f"SELECT setval('{SEQUENCE}', {2**63 - 1})")
        assert await log_check.witness(connection, OWN_LOG, 2**63 - 1, 0.0) == 2**63 - 2
        await log_check.check(connection, OWN_LOG)
        await connection.execute(PLANT.format(2**63 - 2))
        with pytest.raises(UnsafeLog, match=f"at position {2**63 - 2} "):
            await log_check.check(connection, OWN_LOG)
