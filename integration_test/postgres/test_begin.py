"""BEGIN goes with the swap, in its round trip, once the connection knows that; what fails is rolled back as ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from integration_test.harness.connections import prepared
from integration_test.harness.in_process import event, pools, run_until_idle
from integration_test.harness.projections import recorder
from reactive_orch import Superseded, append
from reactive_orch.model import OWN_LOG, Checkpoint, Subscription, Swap
from reactive_orch.postgres import checkpoints
from reactive_orch.postgres.connection import BatchConnection, is_closed

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection
    from reactive_orch.postgres.connection import AnyConnection

pytestmark = pytest.mark.each_server
INSERT = "INSERT INTO public.antidote VALUES (true)"


def _move(at: int, to: int) -> list[Swap]:
    return [Swap(0, Checkpoint(at, 0), to)]


async def _state(connection: Connection) -> tuple[Any, Any]:
    position = await connection.fetchval("SELECT position FROM reactive_orch.checkpoints WHERE partition = 0")
    return position, await connection.fetchval("SELECT count(*) FROM public.antidote")


async def _fail(batches: checkpoints.Batches, tx: AnyConnection, swaps: list[Swap]) -> None:
    async with batches.batch(swaps):
        await tx.execute(INSERT)
        raise LookupError


async def test_it_takes_no_round_trip_of_its_own(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[str] = []
    names = {text: name for name, text in vars(checkpoints._SQL).items()}  # noqa: SLF001 - what is sent
    execute = BatchConnection.execute

    async def noted(self: BatchConnection, query: str, *args: Any, **named: Any) -> str:
        executed.append(names.get(query, ""))
        return await execute(self, query, *args, **named)

    monkeypatch.setattr(BatchConnection, "execute", noted)
    async with prepared(database) as connection, pools(database) as own:
        await run_until_idle(database, recorder("handled"))
        await append(connection, [event()])
        async with own.processing() as lent:
            batches = checkpoints.Batches(lent, "test", Subscription("handled", OWN_LOG))
            at, _ = await _state(connection)
            executed.clear()
            for to, begins in ((at + 1, ["begin"]), (at + 2, [])):
                async with batches.batch(_move(to - 1, to)):
                    assert executed == begins
                    await lent.execute(INSERT)
                assert await _state(connection) == (to, to - at)
                executed.clear()

            with pytest.raises(Superseded):
                async with batches.batch(_move(at, at + 9)):
                    pytest.fail("the checkpoint stands elsewhere")
            assert (executed, is_closed(lent), lent.is_in_transaction()) == (["roll_back"], False, False)
            with pytest.raises(LookupError):
                await _fail(batches, lent, _move(at + 2, at + 9))
        assert await _state(connection) == (at + 2, 2)
