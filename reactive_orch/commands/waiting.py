"""For whom a command waits: looked up on a second connection while the first one waits."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from reactive_orch.commands.command import connected
from reactive_orch.commands.progress import BAR_AFTER_S
from reactive_orch.errors import ReactiveOrchError
from reactive_orch.postgres import waits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reactive_orch.commands.progress import Progress
    from reactive_orch.postgres.connection import AnyConnection

LOOK_S = 0.5


@contextlib.asynccontextmanager
async def telling_who(url: str, connection: AnyConnection, shown: Progress) -> AsyncIterator[None]:
    """Say who holds what this connection waits for, while the block lasts."""
    looking = asyncio.create_task(_look(url, connection.get_server_pid(), shown))
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait([looking])


async def _look(url: str, pid: int, shown: Progress) -> None:
    await asyncio.sleep(BAR_AFTER_S)
    with contextlib.suppress(ReactiveOrchError):  # there may be no connection left for it: it is only a word
        async with connected(url, first=False) as second:
            while True:
                if found := await waits.blockers(second, pid):
                    shown.still("waiting", f"for {'; '.join(map(str, found))}")
                else:
                    shown.go_on()
                await asyncio.sleep(LOOK_S)
