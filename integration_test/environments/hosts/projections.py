"""What the workers of these tests run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio

from integration_test.harness.projections import record_many
from reactive_orch import Event, projection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integration_test.harness.projections import Connection

HELD_BY = "REACTIVE_ORCH_TEST_HELD_BY"
"""Variable: a file. While it is there every batch stays where it is: swapped, handled, not committed."""


@projection("handled", batch=True)
async def handled(events: Sequence[Event], tx: Connection) -> None:
    await record_many(tx, "handled", events)
    while HELD_BY in os.environ and await anyio.Path(os.environ[HELD_BY]).exists():  # noqa: ASYNC110 - another process's
        await anyio.sleep(0.05)
