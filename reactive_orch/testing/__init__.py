"""A kit for the tests of projections, with pytest or without.

    async def test_orders(orch):                             the fixture: a migrated database of this test's own
        await orch.given([NewEvent(…), NewEvent(…)])         appends them
        await orch.run(order_list)                           a worker handles what is there, in real batches
        assert await orch.fetch("SELECT …") == [(…)]

    async with orch.transaction() as tx:                     a handler alone, in a transaction that is taken back
        await call(order_list, events, tx)
        await call(order_list, events, tx, replayed=True)
        await each_split(order_list, events, tx)             wherever batches end, the outcome is the same

`plugin` has the fixtures, and is all that is loaded where nobody asks for them.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reactive_orch.testing.handlers import call
    from reactive_orch.testing.logged import as_logged
    from reactive_orch.testing.orch import Orch
    from reactive_orch.testing.splits import each_split

__all__ = ["Orch", "as_logged", "call", "each_split"]

_WHERE = {"Orch": "orch", "as_logged": "logged", "call": "handlers", "each_split": "splits"}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _WHERE:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        globals()[name] = value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
        return value
